use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::frame::{MAGIC, MAX_PAYLOAD_BYTES};
use super::*;
use crate::clock::UnixTime;

fn at(s: i64) -> Reading {
    Reading { now: UnixTime::from_secs(s), pass: 0 }
}

fn entry(name: &str, bucket: i64, pass: u32, count: u64) -> Entry {
    Entry { name: name.into(), bucket: Bucket(bucket), pass, count }
}

/// A data directory, and what is in its journal.
struct Place {
    data_dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { data_dir: TempDir::new().unwrap() }
    }

    fn journal(&self) -> Journal {
        Journal::new(self.data_dir.path(), self.replay().last)
    }

    fn directory(&self) -> PathBuf {
        directory(self.data_dir.path())
    }

    fn file(&self, number: u64) -> PathBuf {
        Segment(number).path_in(&self.directory())
    }

    fn replay(&self) -> Replay {
        replay(self.data_dir.path()).unwrap()
    }

    /// The entries of a journal without damage.
    #[track_caller]
    fn entries(&self) -> Vec<Entry> {
        let Replay { entries, damage, .. } = self.replay();
        assert!(damage.is_empty(), "{damage:?}");
        entries
    }

    fn file_names(&self) -> Vec<String> {
        let files = fs::read_dir(self.directory()).into_iter().flatten();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// One file of this content.
    fn of_bytes(bytes: &[u8]) -> Self {
        let place = Self::new();
        fs::create_dir(place.directory()).unwrap();
        fs::write(place.file(1), bytes).unwrap();
        place
    }
}

/// The bytes of a file of two frames, what each of the frames says, and where the second begins.
fn two_frames() -> (Vec<u8>, [Vec<Entry>; 2], usize) {
    let frames = [
        vec![entry("a.test", 10, 0, 5), entry("b.test", 10, 0, 70_000)],
        vec![entry("b.test", 11, 0, 6), entry("c.test", 11, 0, 1)],
    ];
    let place = Place::new();
    let mut journal = place.journal();
    journal.append(at(100), &frames[0]).unwrap();
    let second = fs::read(place.file(1)).unwrap().len();
    journal.append(at(110), &frames[1]).unwrap();
    (fs::read(place.file(1)).unwrap(), frames, second)
}

#[test]
fn what_was_appended_is_read() {
    let place = Place::new();
    assert_eq!(place.replay().last, None);
    let mut journal = place.journal();
    assert_eq!((journal.rotate(), place.file_names()), (None, vec![]));

    let entries = [entry("b.test", 10, 0, 5), entry("a.test", 11, 1, 300), entry("*.a.test", -3, (1 << 24) - 1, 1)];
    let now = Reading { now: UnixTime::from_ms(105_123), pass: 1 };
    journal.append(now, &entries).unwrap();
    journal.append(now, &[]).unwrap();
    journal.sync().unwrap();
    let found = place.replay();
    assert_eq!((found.at, found.last), (Some(now), Some(Segment(1))));
    assert_eq!(place.entries(), [entries[2].clone(), entries[1].clone(), entries[0].clone()]);
    assert_eq!(journal.bytes(), fs::metadata(place.file(1)).unwrap().len());
}

#[test]
fn nobody_else_may_read_it() {
    let place = Place::new();
    place.journal().append(at(0), &[]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.directory()), mode(&place.file(1))), (0o700, 0o600));
}

#[test]
fn the_largest_count_holds_over_repeats_and_files() {
    let place = Place::new();
    let mut journal = place.journal();
    journal.append(at(100), &[entry("a", 10, 0, 3), entry("a", 10, 0, 7), entry("a", 10, 0, 4)]).unwrap();
    journal.append(at(101), &[entry("a", 10, 0, 5), entry("a", 10, 1, 1), entry("b", 9, 0, 1)]).unwrap();
    journal.rotate();
    journal.append(at(90), &[entry("b", 9, 0, 8), entry("a", 10, 0, 6)]).unwrap();
    assert_eq!(place.entries(), [entry("a", 10, 0, 7), entry("a", 10, 1, 1), entry("b", 9, 0, 8)]);
    assert_eq!(place.replay().at, Some(at(90)));
}

#[test]
fn an_entry_of_a_known_name_takes_six_bytes() {
    let place = Place::new();
    let mut journal = place.journal();
    let batch: Vec<_> = (0..1000).map(|i| entry(&format!("site{i}.example.com"), 10, 0, 200)).collect();
    journal.append(at(100), &batch).unwrap();
    let first = journal.bytes();
    journal.append(at(101), &batch).unwrap();
    assert!(journal.bytes() - first <= 6 * 1000 + 20, "{}", journal.bytes() - first);
}

#[test]
fn a_batch_of_many_megabytes_is_read_whole() {
    let place = Place::new();
    let batch: Vec<_> = (0..100_000).map(|i| entry(&format!("{i:050}"), 10, 0, i)).collect();
    place.journal().append(at(100), &batch).unwrap();
    assert_eq!(place.entries(), batch);
}

#[test]
fn rotated_files_are_removed_and_later_ones_stay() {
    let place = Place::new();
    let mut journal = place.journal();
    journal.append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
    let first = journal.rotate().unwrap();
    assert_eq!(journal.rotate(), Some(first));
    journal.append(at(110), &[entry("a", 11, 0, 1)]).unwrap();
    journal.remove_through(first).unwrap();
    assert_eq!((place.file_names(), place.entries()), (vec!["000000000002.log".into()], vec![entry("a", 11, 0, 1)]));
    assert_eq!(journal.bytes(), fs::metadata(place.file(2)).unwrap().len());

    // The current file, without a rotation before.
    journal.remove_through(Segment(2)).unwrap();
    journal.append(at(120), &[entry("a", 12, 0, 1)]).unwrap();
    assert_eq!((place.file_names(), place.entries()), (vec!["000000000003.log".into()], vec![entry("a", 12, 0, 1)]));
    journal.sync().unwrap();
}

#[test]
fn a_file_that_cannot_be_removed_does_not_keep_the_others() {
    let place = Place::new();
    let mut journal = place.journal();
    for _ in 0..3 {
        journal.append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
        journal.rotate();
    }
    fs::remove_file(place.file(2)).unwrap();
    fs::create_dir(place.file(2)).unwrap();
    assert!(journal.remove_through(Segment(3)).is_err());
    assert_eq!(place.file_names(), ["000000000002.log"]);
    fs::remove_dir(place.file(2)).unwrap();
    journal.remove_through(Segment(3)).unwrap();
    assert_eq!(journal.bytes(), 0);
}

#[test]
fn the_next_process_goes_on_behind_the_last_file_and_removes_what_it_read() {
    let place = Place::new();
    let mut before = place.journal();
    before.append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
    let mut journal = place.journal();
    assert_eq!(journal.bytes(), before.bytes());
    journal.append(at(110), &[entry("a", 10, 0, 4)]).unwrap();
    assert_eq!(place.entries(), [entry("a", 10, 0, 4)]);
    assert_eq!(journal.rotate(), Some(Segment(2)));
    journal.remove_through(Segment(2)).unwrap();
    assert!(place.file_names().is_empty());
}

#[test]
fn files_that_were_not_read_stay() {
    let place = Place::new();
    place.journal().append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
    let mut journal = Journal::new(place.data_dir.path(), None);
    assert_eq!((journal.rotate(), journal.bytes()), (None, 0));
    journal.append(at(110), &[]).unwrap();
    let last = journal.rotate().unwrap();
    journal.remove_through(last).unwrap();
    assert_eq!(place.entries(), [entry("a", 10, 0, 1)]);
}

#[test]
fn files_with_other_names_are_ignored() {
    let place = Place::of_bytes(&two_frames().0);
    for name in ["1.log", "000000000002.log.bak", "notes", "00000000000x.log", "0000000000001.log"] {
        fs::write(place.directory().join(name), "other").unwrap();
    }
    assert_eq!((place.entries().len(), place.replay().last), (4, Some(Segment(1))));
}

#[test]
fn a_file_that_vanished_or_is_none_does_not_keep_the_others() {
    let place = Place::of_bytes(&two_frames().0);
    symlink(place.file(99), place.file(2)).unwrap();
    fs::create_dir(place.file(3)).unwrap();
    let found = place.replay();
    assert_eq!((found.entries.len(), found.last), (4, Some(Segment(3))));
    insta::assert_snapshot!(found.damage[0].what, @"it is not a regular file");
    assert_eq!(found.damage.len(), 1);
}

#[test]
fn a_torn_end_is_no_damage_wherever_it_was_torn() {
    let (bytes, frames, second) = two_frames();
    for length in 0..bytes.len() {
        let place = Place::of_bytes(&bytes[..length]);
        let expected = if length < second { &[][..] } else { &frames[0] };
        assert_eq!(place.entries(), expected, "{length} bytes");
        // So it is where the file system had noted the length, but not yet the data (which it has by pages).
        for zeros in [1, 20, 10_000].into_iter().filter(|_| length == 0 || length >= MAGIC.len()) {
            let place = Place::of_bytes(&[&bytes[..length], &vec![0; zeros]].concat());
            assert_eq!(place.entries()[..expected.len()], *expected, "{length} bytes and {zeros} zeros");
        }
    }
}

#[test]
fn what_follows_a_torn_file_is_read() {
    let (bytes, frames, _) = two_frames();
    let place = Place::of_bytes(&bytes[..bytes.len() - 1]);
    place.journal().append(at(200), &[entry("d.test", 20, 0, 1)]).unwrap();
    assert_eq!(place.entries(), [&frames[0][..], &[entry("d.test", 20, 0, 1)]].concat());
}

#[test]
fn a_flipped_byte_costs_what_follows_it_and_nothing_wrong_is_read() {
    let (bytes, frames, second) = two_frames();
    let prefixes = [vec![], frames[0].clone()];
    let mut damaged = 0;
    for place in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[place] ^= flip;
            let found = Place::of_bytes(&flipped).replay();
            assert_eq!(found.entries, prefixes[usize::from(place >= second)], "byte {place} ^ {flip}");
            damaged += found.damage.len();
        }
    }
    assert!(damaged >= 3 * (second - 3), "{damaged} times it was noticed that more follows");
}

#[test]
fn damage_is_told_with_its_place_and_what_to_do() {
    let (bytes, _, second) = two_frames();
    let whole = |length: u32, payload: &[u8]| {
        [&length.to_le_bytes()[..], &crc32fast::hash(payload).to_le_bytes(), payload].concat()
    };
    let with = |tail: &[u8]| [&bytes[..], tail].concat();
    let mut newer = bytes.clone();
    newer[MAGIC.len() - 1] = 2;
    let mut flipped = bytes.clone();
    flipped[second - 1] ^= 1;
    let cases = [
        newer,
        b"something else".to_vec(),
        flipped,
        with(&whole(MAX_PAYLOAD_BYTES + 1, b"")),
        with(&whole(6, &[0, 0, 9, 0, 0, 1])),
        with(&whole(3, &[0, 0, 0])),
        with(&[0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let told = cases.map(|bytes| {
        let place = Place::of_bytes(&bytes);
        let Replay { entries, damage, at, .. } = place.replay();
        assert_eq!((damage.len(), at.is_some()), (1, !entries.is_empty()));
        format!("{} entries; {}", entries.len(), damage[0]).replace(&place.file(1).display().to_string(), "FILE")
    });
    insta::assert_snapshot!(told.join("\n"), @r"
    0 entries; FILE cannot be read from byte 0 on: a newer Lockgate wrote it (format 2): run that one to read it
    0 entries; FILE cannot be read from byte 0 on: it does not begin as a journal's file does
    0 entries; FILE cannot be read from byte 8 on: the checksum of the frame there is wrong, and more follows
    4 entries; FILE cannot be read from byte 71 on: a frame there claims to have 67108865 bytes
    4 entries; FILE cannot be read from byte 71 on: the frame there is wrong: it uses a name that was never defined
    4 entries; FILE cannot be read from byte 71 on: the frame there is wrong: it is cut short or has no meaning (Hit the end of buffer, expected more data)
    4 entries; FILE cannot be read from byte 71 on: the checksum of the frame there is wrong, and more follows
    ");
}

#[test]
fn a_directory_that_cannot_be_made_is_asked_for_again() {
    let place = Place::new();
    let mut journal = place.journal();
    fs::write(place.directory(), "in the way").unwrap();
    assert!(replay(place.data_dir.path()).is_err());
    assert!(journal.append(at(100), &[]).is_err());
    journal.sync().unwrap();
    fs::remove_file(place.directory()).unwrap();
    journal.append(at(101), &[entry("a", 10, 0, 1)]).unwrap();
    journal.sync().unwrap();
    assert_eq!(place.entries(), [entry("a", 10, 0, 1)]);
}

#[test]
fn a_directory_that_somebody_removed_is_made_again() {
    let place = Place::new();
    let mut journal = place.journal();
    journal.append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
    fs::remove_dir_all(place.directory()).unwrap();
    journal.append(at(101), &[entry("b", 10, 0, 1)]).unwrap();
    journal.sync().unwrap();
    assert_eq!(place.entries(), [entry("b", 10, 0, 1)]);
}

#[test]
fn a_full_disk_costs_the_batch_and_leaves_nothing_behind() {
    let place = Place::new();
    let mut journal = place.journal();
    journal.append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
    let good = journal.bytes();
    // The file that is there, as it fills up: what was written of the frame cannot even be cut off.
    journal.current.as_mut().unwrap().file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let e = journal.append(at(101), &[entry("b", 10, 0, 1)]).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
    assert!(journal.bytes() > good);
    // New files, while it is full: they can be made, but not written.
    journal.create = |path| {
        create(path)?;
        OpenOptions::new().write(true).open("/dev/full")
    };
    for _ in 0..5 {
        assert!(journal.append(at(102), &[entry("b", 10, 0, 1)]).is_err());
    }
    assert_eq!(place.file_names(), ["000000000001.log"]);
    journal.create = create;
    journal.append(at(103), &[entry("a", 10, 0, 2), entry("b", 10, 0, 1)]).unwrap();
    assert_eq!(place.entries(), [entry("a", 10, 0, 2), entry("b", 10, 0, 1)]);
    assert_eq!(place.file_names().len(), 2);
}

#[test]
fn half_a_frame_is_cut_off() {
    let place = Place::new();
    let mut journal = place.journal();
    journal.append(at(100), &[entry("a", 10, 0, 1)]).unwrap();
    let good = journal.bytes();
    fs::write(place.file(1), [fs::read(place.file(1)).unwrap(), vec![9; 100]].concat()).unwrap();
    let current = journal.current.take().unwrap();
    journal.abandon(current);
    assert_eq!((fs::metadata(place.file(1)).unwrap().len(), journal.bytes()), (good, good));
    assert_eq!(place.entries(), [entry("a", 10, 0, 1)]);
}

#[test]
fn a_sync_that_failed_ends_the_file_which_is_asked_for_once_more() {
    let place = Place::new();
    let mut journal = place.journal();
    // A pipe's end takes everything and syncs nothing.
    journal.create = |path| {
        create(path)?;
        let (reader, writer) = io::pipe()?;
        std::mem::forget(reader);
        Ok(File::from(std::os::fd::OwnedFd::from(writer)))
    };
    journal.append(at(100), &[]).unwrap();
    assert!(journal.sync().is_err());
    assert!(journal.sync().is_err());
    journal.sync().unwrap();
    journal.append(at(100), &[]).unwrap();
    assert_eq!(journal.rotate(), Some(Segment(2)));
    assert!(journal.sync().is_err());
    journal.sync().unwrap();
}

#[test]
fn it_can_be_read_while_it_is_written() {
    let place = Place::new();
    let data_dir = place.data_dir.path().to_owned();
    let writer = std::thread::spawn(move || {
        let mut journal = Journal::new(&data_dir, None);
        for i in 1..=2000_u64 {
            journal.append(at(100), &[entry("a", 10, 0, i), entry(&i.to_string(), 10, 0, i)]).unwrap();
            if i % 100 == 0 {
                // What is removed is said again by the file after it, as far as this test looks.
                let whole = journal.rotate().unwrap();
                journal.append(at(100), &[entry("a", 10, 0, i)]).unwrap();
                journal.remove_through(whole).unwrap();
            }
        }
    });
    while !writer.is_finished() {
        // A removal between two looks may show none of the files, never a wrong one.
        let entries = place.entries();
        assert!(entries.iter().all(|e| &*e.name == "a" || *e.name == *e.count.to_string()));
    }
    writer.join().unwrap();
    assert_eq!(place.entries(), [entry("a", 10, 0, 2000)]);
}

fn any_entry() -> impl Strategy<Value = Entry> {
    ("[a-c]{0,2}", any::<i64>(), any::<u32>(), any::<u64>()).prop_map(|(name, b, pass, n)| entry(&name, b, pass, n))
}

proptest! {
    #[test]
    fn any_batches_are_read_back(
        batches in prop::collection::vec(
            (any::<i64>(), any::<u32>(), prop::collection::vec(any_entry(), 0..20), any::<bool>()),
            0..10,
        )
    ) {
        let place = Place::new();
        let mut journal = place.journal();
        let mut expected = BTreeMap::new();
        for (ms, pass, entries, is_last_of_file) in &batches {
            journal.append(Reading { now: UnixTime::from_ms(*ms), pass: *pass }, entries).unwrap();
            for e in entries {
                let count = expected.entry((Arc::clone(&e.name), e.bucket, e.pass)).or_insert(e.count);
                *count = e.count.max(*count);
            }
            if *is_last_of_file {
                journal.rotate();
            }
        }
        let found = place.entries().into_iter().map(|e| ((e.name, e.bucket, e.pass), e.count));
        prop_assert_eq!(found.collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(journal.bytes(), {
            let files = place.file_names().into_iter().map(|name| place.directory().join(name));
            files.map(|file| fs::metadata(file).unwrap().len()).sum::<u64>()
        });
    }

    #[test]
    fn garbage_neither_panics_nor_counts(garbage in prop::collection::vec(any::<u8>(), 0..300), begins_well: bool) {
        let magic = if begins_well { &MAGIC[..] } else { &[] };
        prop_assert!(Place::of_bytes(&[magic, &garbage].concat()).replay().entries.is_empty());
    }

    #[test]
    fn a_payload_of_garbage_does_not_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let length = u32::try_from(payload.len()).unwrap();
        let checksum = crc32fast::hash(&payload);
        let bytes = [&MAGIC[..], &length.to_le_bytes(), &checksum.to_le_bytes(), &payload].concat();
        Place::of_bytes(&bytes).replay();
    }
}
