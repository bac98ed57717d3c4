//! What was counted since the store last took it, in plain files that outlive the process.
//!
//! Entries hold counts so far, not increments, so reading one twice, or one that was folded into the store already,
//! changes nothing. A file is a row of frames, each with its length and checksum; where a crash or a power cut tore the
//! end off, what stands before it is good.
//!
//! The files stand in `data_dir/journal/`, named by number. One that did not take a frame, or did not get to the disk, is
//! written no further: whatever its end looks like, it is the end.

mod frame;
mod replay;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use replay::replay;

use crate::clock::Reading;
use crate::meter::Bucket;

/// The count of one bucket so far, as met in one pass of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub name: Arc<str>,
    /// When.
    pub bucket: Bucket,
    /// The clock's pass.
    pub pass: u32,
    /// Requests so far.
    pub count: u64,
}

/// A file of the journal, by its number: later ones have higher numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment(pub u64);

/// Everything that a journal says.
#[derive(Debug, Default)]
pub struct Replay {
    /// The clock when the last batch was written.
    pub at: Option<Reading>,
    /// For every name, bucket and pass the largest count.
    pub entries: Vec<Entry>,
    /// The last file there is, damaged or not.
    pub last: Option<Segment>,
    /// What could not be read, beyond the torn end that a crash leaves.
    pub damage: Vec<Damage>,
}

/// A place from which on a file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read from byte {offset} on: {what}", .file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Why.
    pub what: String,
}

/// A journal being written. Its calls block on the disk.
#[derive(Debug)]
pub struct Journal {
    data_dir: PathBuf,
    /// The files of this journal and their bytes. One that was there before and that nobody has read is not among them,
    /// so it is never removed.
    files: BTreeMap<Segment, u64>,
    /// The highest number that was ever used.
    last: Segment,
    current: Option<Current>,
    /// Kept between batches for its memory.
    buffer: Vec<u8>,
    /// A file was made since directories were last synced.
    is_name_unsynced: bool,
    /// Files that were ended before they were synced.
    ended: Vec<(Segment, File)>,
    /// How files are made; tests have others.
    create: fn(&Path) -> io::Result<File>,
}

/// The file that takes the next batch.
#[derive(Debug)]
struct Current {
    segment: Segment,
    file: File,
    /// Bytes of whole frames.
    good_bytes: u64,
    is_unsynced: bool,
    names: frame::Names,
}

impl Segment {
    fn path_in(self, directory: &Path) -> PathBuf {
        directory.join(self.file_name())
    }

    fn file_name(self) -> String {
        format!("{:012}.log", self.0)
    }

    fn of_file_name(name: &str) -> Option<Self> {
        let segment = Self(name.strip_suffix(".log")?.parse().ok()?);
        (segment.file_name() == name).then_some(segment)
    }
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("journal")
}

/// The files of a journal's directory, in order; none if there is no directory. What has another name is not ours.
fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let there = match fs::read_dir(directory) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut segments = Vec::new();
    for entry in there {
        segments.extend(entry?.file_name().to_str().and_then(Segment::of_file_name));
    }
    segments.sort_unstable();
    Ok(segments)
}

impl Journal {
    /// The journal in `data_dir`, going on behind `last`, which is [`Replay::last`]. Writes nothing yet.
    pub fn new(data_dir: &Path, last: Option<Segment>) -> Self {
        let directory = directory(data_dir);
        // What cannot be listed now comes to light when files are made or removed.
        let there = list(&directory).unwrap_or_default();
        let read = there.iter().filter(|segment| Some(**segment) <= last);
        let bytes = |segment: &Segment| fs::metadata(segment.path_in(&directory)).map_or(0, |file| file.len());
        Self {
            data_dir: data_dir.to_owned(),
            files: read.map(|segment| (*segment, bytes(segment))).collect(),
            last: there.last().copied().max(last).unwrap_or(Segment(0)),
            current: None,
            buffer: Vec::new(),
            is_name_unsynced: false,
            ended: Vec::new(),
            create,
        }
    }

    /// Appends one batch. Survives the process as soon as this returns, a power cut only after [`Self::sync`].
    ///
    /// # Errors
    /// If the disk does not take it all; the next one goes to a new file. Of a batch of more than a megabyte a part may
    /// stay readable then.
    pub fn append(&mut self, at: Reading, entries: &[Entry]) -> io::Result<()> {
        // The file goes back to its place only if it took the batch.
        let mut current = match self.current.take().filter(Current::is_still_there) {
            Some(current) => current,
            None => self.begin()?,
        };
        match current.append(at, entries, &mut self.buffer) {
            Ok(()) => {
                self.files.insert(current.segment, current.good_bytes);
                self.current = Some(current);
                Ok(())
            }
            Err(e) => {
                self.abandon(current);
                Err(e)
            }
        }
    }

    /// Waits until the disk has what was appended.
    ///
    /// # Errors
    /// If the disk does not say so. A power cut may then cost what was appended since the last sync that succeeded; a
    /// later success does not speak of it any more.
    pub fn sync(&mut self) -> io::Result<()> {
        self.unsynced().and_then(Unsynced::wait).inspect_err(|_| self.doubt())
    }

    /// What was appended since this was last asked: to wait for apart from the journal, which goes on.
    ///
    /// # Errors
    /// If the system has no more file descriptors.
    pub fn unsynced(&mut self) -> io::Result<Unsynced> {
        let mut files = Vec::new();
        if let Some(current) = self.current.as_mut().filter(|current| current.is_unsynced) {
            files.push(current.file.try_clone()?);
            current.is_unsynced = false;
        }
        files.extend(self.ended.drain(..).map(|(_, file)| file));
        let directories = match std::mem::take(&mut self.is_name_unsynced) {
            true => vec![directory(&self.data_dir), self.data_dir.clone()],
            false => Vec::new(),
        };
        Ok(Unsynced { files, directories })
    }

    /// Ends the current file after a sync that failed: the system may have dropped what it could not write, so more must
    /// not follow in it.
    pub fn doubt(&mut self) {
        if let Some(mut current) = self.current.take() {
            current.is_unsynced = true;
            self.end(current);
        }
        self.is_name_unsynced = true;
    }

    /// Ends the current file; what follows goes to the next. Returns the last file that is whole now, if there is any.
    pub fn rotate(&mut self) -> Option<Segment> {
        if let Some(current) = self.current.take() {
            self.end(current);
        }
        self.files.last_key_value().map(|(segment, _)| *segment)
    }

    /// Removes the files up to `segment`: the store has what they say. Removals are not synced: a file that is back
    /// after a power cut says nothing new.
    ///
    /// # Errors
    /// The first, if some cannot be removed; the others are. They are tried again next time.
    pub fn remove_through(&mut self, segment: Segment) -> io::Result<()> {
        self.current.take_if(|current| current.segment <= segment);
        self.ended.retain(|(ended, _)| *ended > segment);
        let directory = directory(&self.data_dir);
        let mut result = Ok(());
        self.files.retain(|file, _| {
            if *file > segment {
                return true;
            }
            let removed = remove(&file.path_in(&directory));
            let is_kept = removed.is_err();
            if result.is_ok() {
                result = removed;
            }
            is_kept
        });
        result
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    fn begin(&mut self) -> io::Result<Current> {
        let directory = directory(&self.data_dir);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        loop {
            let next = self.last.0.checked_add(1).ok_or_else(|| io::Error::other("a file has the highest number"))?;
            let segment = Segment(next);
            match (self.create)(&segment.path_in(&directory)) {
                Ok(file) => {
                    self.last = segment;
                    self.is_name_unsynced = true;
                    let names = frame::Names::default();
                    return Ok(Current { segment, file, good_bytes: 0, is_unsynced: false, names });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.last = segment,
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends a file that did not take a batch, and cuts off what it took of it.
    fn abandon(&mut self, current: Current) {
        let Current { segment, good_bytes, .. } = current;
        // An empty file goes: else a full disk, asked again and again, gathers them.
        let cleared = match good_bytes {
            0 => remove(&segment.path_in(&directory(&self.data_dir))),
            _ => current.file.set_len(good_bytes),
        };
        match cleared {
            Ok(()) if good_bytes == 0 => {}
            Ok(()) => _ = self.files.insert(segment, good_bytes),
            // Perhaps less; nobody knows how much of it was written.
            Err(_) => _ = self.files.insert(segment, good_bytes.saturating_add(self.buffer.len() as u64)),
        }
        self.end(current);
    }

    fn end(&mut self, current: Current) {
        if current.is_unsynced {
            self.ended.push((current.segment, current.file));
        }
    }
}

/// What the disk may not have yet.
#[derive(Debug)]
pub struct Unsynced {
    files: Vec<File>,
    directories: Vec<PathBuf>,
}

impl Unsynced {
    /// Waits until the disk has it.
    ///
    /// # Errors
    /// If the disk does not say so of one of the files, or of their names.
    pub fn wait(self) -> io::Result<()> {
        self.files.iter().try_for_each(File::sync_data)?;
        self.directories.iter().try_for_each(|directory| sync_directory(directory))
    }
}

impl Current {
    fn append(&mut self, at: Reading, entries: &[Entry], buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        if self.good_bytes == 0 {
            buffer.extend_from_slice(&frame::MAGIC);
        }
        self.names.encode(at, entries, buffer)?;
        self.file.write_all(buffer)?;
        self.good_bytes = self.good_bytes.saturating_add(buffer.len() as u64);
        self.is_unsynced = true;
        Ok(())
    }

    /// Whether it has a name yet: what is written to a file that somebody removed is gone with the process.
    fn is_still_there(&self) -> bool {
        self.file.metadata().map_or(true, |file| file.nlink() > 0)
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the names in `directory` survive a power cut.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
