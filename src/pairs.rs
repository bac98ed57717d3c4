//! The certificate files on disk: read once, and again when they change.
//!
//! A file that did not change keeps its parsed [`Certificate`], whoever asks and however often, so that a reload or a
//! poll of very many pairs costs two `stat` calls each. What to do about a broken pair is the caller's rule (keep the
//! last good one); this door only says what is there now.

mod error;
mod file;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use error::{blame, refusal};
use file::{Content, ReadError, Stamp};

pub use error::PairError;

use crate::certificate::{Certificate, PairFile, PairPaths};

/// Up to this many pairs in one [`PairFiles::load_all`] have their keys opened as they are read, so that a damaged
/// private half shows at once. With more, keys are opened at their first handshake: 100,000 RSA keys are 30 s.
const MAX_OPENED_AT_LOAD: usize = 512;

/// The most threads that [`PairFiles::load_all`] starts.
const MAX_THREADS: usize = 32;

/// What was read from which pair of files.
#[derive(Default)]
pub struct PairFiles {
    read: Mutex<HashMap<PairPaths, Remembered>>,
}

/// A pair as it was when it was read. A broken one is remembered too: it is "changed" once, not at every poll.
struct Remembered {
    cert: Option<Stamp>,
    key: Option<Stamp>,
    certificate: Option<Arc<Certificate>>,
}

impl PairFiles {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The certificate in a pair of files: the remembered one if neither file changed since, else read now. The key
    /// is opened, so that one which does not fit in every respect is an error here and not a failed handshake.
    ///
    /// # Errors
    /// [`PairError`]. What an earlier call gave stays valid.
    pub fn load(&self, pair: &PairPaths) -> Result<Arc<Certificate>, PairError> {
        self.load_one(pair, true)
    }

    /// [`PairFiles::load`] for many pairs, on all processors; results in the order of `pairs`. Where there are very
    /// many, the keys of pairs never read before stay closed.
    pub fn load_all(&self, pairs: &[PairPaths]) -> Vec<Result<Arc<Certificate>, PairError>> {
        let open = pairs.len() <= MAX_OPENED_AT_LOAD;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let Some(pair) = pairs.get(position) else { return done };
                done.push((position, self.load_one(pair, open)));
            }
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(pairs.len());
        let mut results = thread::scope(|scope| {
            let others: Vec<_> =
                (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
            let mut results = work();
            for other in others {
                match other.join() {
                    Ok(done) => results.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            results
        });
        results.sort_unstable_by_key(|(position, _)| *position);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Which of `pairs` look different from when they were last read, or were never read. Reads none.
    pub fn changed(&self, pairs: &[PairPaths]) -> Vec<usize> {
        let differs = |pair: &PairPaths| {
            let now = (Stamp::of(&pair.cert), Stamp::of(&pair.key));
            // One short lock for each: looking at the files of all others under it would hold up `load`.
            self.lock().get(pair).is_none_or(|was| (was.cert, was.key) != now)
        };
        pairs.iter().enumerate().filter(|(_, pair)| differs(pair)).map(|(position, _)| position).collect()
    }

    /// Whether this is what the pair's files gave when they were last read.
    pub fn gave_last(&self, pair: &PairPaths, certificate: &Arc<Certificate>) -> bool {
        let read = self.lock();
        let last = read.get(pair).and_then(|was| was.certificate.as_ref());
        last.is_some_and(|last| Arc::ptr_eq(last, certificate))
    }

    /// Forgets every pair that is not in `keep`.
    pub fn forget_others(&self, keep: &HashSet<PairPaths>) {
        self.lock().retain(|pair, _| keep.contains(pair));
    }

    fn load_one(&self, pair: &PairPaths, open: bool) -> Result<Arc<Certificate>, PairError> {
        let (known, replaces) = self.remembered(pair);
        if let Some(certificate) = known {
            return Ok(certificate);
        }
        // Both are read and remembered, whatever is wrong with the first: the stamps must be of one moment.
        let (cert_stamp, cert) = file::read(&pair.cert);
        let (key_stamp, key) = file::read(&pair.key);
        let result = parse(pair, cert, key).and_then(|certificate| {
            // What takes the place of a working one has to be beyond doubt.
            if open || replaces {
                certificate.open().map_err(|source| blame(pair, source))?;
            }
            Ok(Arc::new(certificate))
        });
        let certificate = result.as_ref().ok().cloned();
        let remembered = Remembered { cert: cert_stamp, key: key_stamp, certificate };
        let mut read = self.lock();
        // Several domains may share a pair, and another thread may have read the same: one copy is enough.
        if let Some(same) = read.get(pair).filter(|it| it.cert == cert_stamp && it.key == key_stamp)
            && let Some(certificate) = &same.certificate
            && result.is_ok()
        {
            return Ok(Arc::clone(certificate));
        }
        read.insert(pair.clone(), remembered);
        drop(read);
        result
    }

    /// The certificate of a pair that did not change; and whether the pair was ever read.
    fn remembered(&self, pair: &PairPaths) -> (Option<Arc<Certificate>>, bool) {
        let (cert, key, certificate) = match self.lock().get(pair) {
            Some(was) => (was.cert, was.key, was.certificate.clone()),
            None => return (None, false),
        };
        let same = certificate.is_some() && Stamp::of(&pair.cert) == cert && Stamp::of(&pair.key) == key;
        (certificate.filter(|_| same), true)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PairPaths, Remembered>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(
    pair: &PairPaths,
    cert: Result<Content, ReadError>,
    key: Result<Content, ReadError>,
) -> Result<Certificate, PairError> {
    let cert = cert.map_err(|error| refusal(pair, PairFile::Certificate, error))?;
    let key = key.map_err(|error| refusal(pair, PairFile::Key, error))?;
    Certificate::from_pem(&cert, &key).map_err(|source| blame(pair, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::CertificateError;
    use crate::certificate::fixture::{Pair, pair};
    use rstest::rstest;
    use rustix::fs::Mode;
    use std::fs::{self, File};
    use std::path::Path;
    use tempfile::TempDir;

    /// A directory with one pair of files, and the door to it.
    struct Room {
        directory: TempDir,
        files: PairFiles,
        paths: PairPaths,
    }

    impl Room {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let paths = PairPaths { cert: directory.path().join("www.pem"), key: directory.path().join("www.key") };
            Self { directory, files: PairFiles::new(), paths }
        }

        fn with(pair: &Pair) -> Self {
            let room = Self::new();
            room.write(pair);
            room
        }

        fn write(&self, pair: &Pair) {
            self.write_cert(pair);
            self.write_key(pair);
        }

        fn write_cert(&self, pair: &Pair) {
            replace(&self.paths.cert, &pair.cert);
        }

        fn write_key(&self, pair: &Pair) {
            replace(&self.paths.key, &pair.key);
        }

        fn load(&self) -> Result<Arc<Certificate>, PairError> {
            self.files.load(&self.paths)
        }

        fn changed(&self) -> bool {
            !self.files.changed(std::slice::from_ref(&self.paths)).is_empty()
        }

        /// The error without the directory's name.
        fn refusal(&self) -> String {
            let error = self.load().unwrap_err();
            let text = format!("{error}\n{}", error.remedy());
            text.replace(&self.directory.path().display().to_string(), "DIR")
        }
    }

    /// As careful operators do: another file put in its place.
    fn replace(path: &Path, content: &str) {
        let new = path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn a_pair() -> Pair {
        pair(&["www.example.com"]).pem()
    }

    #[test]
    fn unchanged_files_are_read_once() {
        let room = Room::with(&a_pair());
        assert!(room.changed());
        let first = room.load().unwrap();
        assert!(!room.changed());
        assert!(Arc::ptr_eq(&first, &room.load().unwrap()));
    }

    #[test]
    fn a_renewal_is_seen_whole_or_not_at_all() {
        let (old, new) = (a_pair(), a_pair());
        let room = Room::with(&old);
        let before = room.load().unwrap().fingerprint();
        room.write_cert(&new);
        assert!(room.changed());
        insta::assert_snapshot!(room.refusal());
        assert!(!room.changed(), "a broken pair is news once");
        room.write_key(&new);
        assert!(room.changed());
        assert_ne!(room.load().unwrap().fingerprint(), before);
        room.write(&old);
        assert_eq!(room.load().unwrap().fingerprint(), before);
    }

    #[rstest]
    #[case::in_place(|path: &Path, text: &str| fs::write(path, text).unwrap())]
    #[case::removed_and_written(|path: &Path, text: &str| { fs::remove_file(path).unwrap(); fs::write(path, text).unwrap() })]
    #[case::by_a_link(|path: &Path, text: &str| {
        let target = path.with_added_extension("2");
        fs::write(&target, text).unwrap();
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    })]
    #[case::with_the_old_date(|path: &Path, text: &str| {
        let date = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, text).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(date).unwrap();
    })]
    fn every_way_to_change_a_file_is_seen(#[case] change: fn(&Path, &str)) {
        let (old, new) = (a_pair(), a_pair());
        let room = Room::with(&old);
        let before = room.load().unwrap().fingerprint();
        // The file system's clock ticks every few milliseconds.
        thread::sleep(std::time::Duration::from_millis(20));
        change(&room.paths.cert, &new.cert);
        change(&room.paths.key, &new.key);
        assert!(room.changed());
        assert_ne!(room.load().unwrap().fingerprint(), before);
    }

    #[test]
    fn a_missing_file_is_news_when_it_goes_and_when_it_comes() {
        let pair = a_pair();
        let room = Room::with(&pair);
        room.load().unwrap();
        fs::remove_file(&room.paths.key).unwrap();
        assert!(room.changed());
        insta::assert_snapshot!(room.refusal());
        assert!(!room.changed());
        room.write_key(&pair);
        assert!(room.changed());
        room.load().unwrap();
    }

    #[test]
    fn what_takes_the_place_of_a_working_key_is_opened() {
        let room = Room::with(&a_pair());
        let pairs = vec![room.paths.clone(); MAX_OPENED_AT_LOAD + 1];
        assert!(room.files.load_all(&pairs).iter().all(Result::is_ok));
        // The private scalar of a P-256 key is in its first two lines, the public half behind it.
        let pair = a_pair();
        let at = pair.key.find('\n').unwrap() + 60;
        let other = if &pair.key[at..=at] == "A" { "B" } else { "A" };
        let key = pair.key[..at].to_owned() + other + &pair.key[at + 1..];
        room.write(&Pair { key, ..pair });
        let results = room.files.load_all(&pairs);
        assert!(matches!(results[0], Err(PairError::Certificate { source: CertificateError::BadKey, .. })));
    }

    #[rstest]
    #[case::directory(|path: &Path| fs::create_dir(path).unwrap())]
    #[case::device(|path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap())]
    #[case::fifo(|path: &Path| rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap())]
    fn what_is_no_file_is_refused_without_waiting(#[case] make: fn(&Path)) {
        let room = Room::with(&a_pair());
        fs::remove_file(&room.paths.cert).unwrap();
        make(&room.paths.cert);
        assert_eq!(room.refusal(), "`DIR/www.pem` is not a regular file\nname a regular file or a link to one");
    }

    #[test]
    fn a_huge_file_is_refused_unread() {
        let room = Room::with(&a_pair());
        File::create(&room.paths.key).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(
            room.refusal(),
            "`DIR/www.key`: the key file has 1099511627776 bytes, more than 1048576\nname a file that holds one chain or one key"
        );
    }

    #[test]
    fn many_are_read_in_order_and_shared() {
        let (room, other) = (Room::with(&a_pair()), Room::with(&a_pair()));
        let missing = Room::new();
        let pairs: Vec<_> = [&room, &other, &missing].iter().cycle().take(300).map(|it| it.paths.clone()).collect();
        let results = room.files.load_all(&pairs);
        assert_eq!(results.len(), 300);
        for (position, result) in results.iter().enumerate() {
            match position % 3 {
                2 => assert_eq!(result.as_ref().unwrap_err().path(), missing.paths.cert),
                n => assert!(Arc::ptr_eq(result.as_ref().unwrap(), results[n].as_ref().unwrap())),
            }
        }
        assert!(room.files.load_all(&[]).is_empty());
    }

    #[test]
    fn what_nobody_names_any_more_is_forgotten() {
        let room = Room::with(&a_pair());
        room.load().unwrap();
        room.files.forget_others(&HashSet::from([room.paths.clone()]));
        assert!(!room.changed());
        room.files.forget_others(&HashSet::new());
        assert!(room.changed());
    }
}
