//! Reading a journal.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use super::frame::{self, HEADER_BYTES, MAGIC, MAX_PAYLOAD_BYTES, Numbered};
use super::{Damage, Entry, Replay, directory, list};
use crate::clock::Reading;
use crate::meter::Bucket;

/// Reads a journal, also while a process writes it. A file that vanishes meanwhile was folded and is left out; so who
/// wants everything reads the journal first and then the store.
///
/// # Errors
/// If the directory cannot be read; one that is not there is an empty journal.
pub fn replay(data_dir: &Path) -> io::Result<Replay> {
    let directory = directory(data_dir);
    let segments = list(&directory)?;
    let mut gathered = Gathered::default();
    let mut damage = Vec::new();
    for segment in &segments {
        let file = segment.path_in(&directory);
        if let Err(Stop { offset, what }) = gathered.read(&file) {
            damage.push(Damage { file, offset, what });
        }
    }
    Ok(Replay { at: gathered.at, last: segments.last().copied(), damage, entries: gathered.into_entries() })
}

/// What the files read so far say.
#[derive(Default)]
struct Gathered {
    at: Option<Reading>,
    ids: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    /// By id.
    names: Vec<Named>,
    /// Kept between frames for their memory.
    payload: Vec<u8>,
    lines: Vec<Numbered>,
}

struct Named {
    name: Arc<str>,
    counts: BTreeMap<(Bucket, u32), u64>,
}

/// From where on a file says nothing more, and why that is no torn end.
struct Stop {
    offset: u64,
    what: String,
}

impl Gathered {
    fn read(&mut self, path: &Path) -> Result<(), Stop> {
        let at_start = |e: io::Error| Stop { offset: 0, what: e.to_string() };
        let opened = fs::metadata(path).and_then(|there| {
            // Opening a pipe would wait for a writer.
            if there.is_file() { File::open(path) } else { Err(io::Error::other("it is not a regular file")) }
        });
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(at_start(e)),
        };
        // A writer may be appending: up to the length of now everything is in place.
        let size = file.metadata().map_err(at_start)?.len();
        let mut frames = Frames { input: BufReader::with_capacity(1 << 16, file.take(size)), offset: 0, size };
        self.read_frames(&mut frames).map_err(|what| Stop { offset: frames.offset, what })
    }

    fn read_frames(&mut self, frames: &mut Frames<impl Read>) -> Result<(), String> {
        if !frames.begin()? {
            return Ok(());
        }
        // This file's numbers -> ids.
        let mut numbers = Vec::new();
        while frames.next(&mut self.payload)? {
            let Self { ids, names, payload, lines, .. } = self;
            lines.clear();
            let known = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let define = |name: &str| numbers.push(id_of(name, ids, names));
            let at = frame::decode(payload, known, define, lines);
            self.at = Some(at.map_err(|e| format!("the frame there is wrong: {e}"))?);
            self.keep_largest(&numbers);
            frames.accept(self.payload.len());
        }
        Ok(())
    }

    fn keep_largest(&mut self, numbers: &[usize]) {
        for line in self.lines.drain(..) {
            let id = numbers.get(line.name as usize);
            if let Some(named) = id.and_then(|id| self.names.get_mut(*id)) {
                let count = named.counts.entry((line.bucket, line.pass)).or_default();
                *count = line.count.max(*count);
            }
        }
    }

    /// In the order of names, buckets, passes.
    fn into_entries(mut self) -> Vec<Entry> {
        self.names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut entries = Vec::with_capacity(self.names.iter().map(|named| named.counts.len()).sum());
        for Named { name, counts } in self.names {
            let entry = |((bucket, pass), count)| Entry { name: Arc::clone(&name), bucket, pass, count };
            entries.extend(counts.into_iter().map(entry));
        }
        entries
    }
}

fn id_of(name: &str, ids: &mut HashMap<Arc<str>, usize, foldhash::fast::RandomState>, names: &mut Vec<Named>) -> usize {
    if let Some(id) = ids.get(name) {
        return *id;
    }
    let (id, name) = (names.len(), Arc::<str>::from(name));
    ids.insert(Arc::clone(&name), id);
    names.push(Named { name, counts: BTreeMap::new() });
    id
}

/// The frames of one file.
struct Frames<R> {
    input: R,
    /// Where the next frame begins.
    offset: u64,
    /// The file's length.
    size: u64,
}

impl<R: Read> Frames<R> {
    /// Reads what the file begins with. `false`: it has no frames.
    fn begin(&mut self) -> Result<bool, String> {
        let mut magic = [0; MAGIC.len()];
        if !self.fill(&mut magic)? || (magic == [0; MAGIC.len()] && self.only_zeros_follow()?) {
            return Ok(false);
        }
        let ([name @ .., version], [ours @ .., _]) = (magic, MAGIC);
        if name != ours {
            return Err("it does not begin as a journal's file does".to_owned());
        }
        if magic != MAGIC {
            return Err(format!("a newer Lockgate wrote it (format {version}): run that one to read it"));
        }
        self.offset = MAGIC.len() as u64;
        Ok(true)
    }

    /// Reads the next payload. `false`: none follows, but for what a crash or a power cut left of one. That is a frame
    /// cut off, or one whose bytes are not what its checksum says, or bytes of value zero where the file system had
    /// noted the new length and not yet the data; and after it nothing but such zeros.
    fn next(&mut self, payload: &mut Vec<u8>) -> Result<bool, String> {
        let mut header = [0; HEADER_BYTES];
        if !self.fill(&mut header)? {
            return Ok(false);
        }
        let (length, checksum) = frame::header(header);
        if length > MAX_PAYLOAD_BYTES {
            return Err(format!("a frame there claims to have {length} bytes"));
        }
        let end = self.offset + HEADER_BYTES as u64 + u64::from(length);
        if end > self.size {
            return Ok(false);
        }
        payload.clear();
        payload.resize(length as usize, 0);
        if !self.fill(payload)? {
            return Ok(false);
        }
        let is_good = length > 0 && crc32fast::hash(payload) == checksum;
        if !is_good && !self.only_zeros_follow()? {
            return Err("the checksum of the frame there is wrong, and more follows".to_owned());
        }
        Ok(is_good)
    }

    /// The payload of so many bytes was good: what may be wrong is behind it.
    fn accept(&mut self, payload_bytes: usize) {
        self.offset += (HEADER_BYTES + payload_bytes) as u64;
    }

    /// `false`: the file ends before.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, String> {
        match self.input.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e.to_string()),
        }
    }

    fn only_zeros_follow(&mut self) -> Result<bool, String> {
        let mut chunk = [0; 4096];
        loop {
            match self.input.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(n) if chunk.iter().take(n).any(|byte| *byte != 0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }
}
