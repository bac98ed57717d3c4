//! One file: how it looks, and what is in it.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::certificate::MAX_FILE_BYTES;

/// How a file looks without reading it. Taken before reading, so that a write during or after it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified_ns: i128,
    /// Also moves when only rights or names change, and nobody can set it: catches what `cp -p` or `touch` hides.
    changed_ns: i128,
    bytes: u64,
    inode: u64,
    device: u64,
}

impl Stamp {
    /// `None`: there is nothing that can be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.size(),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// What a file holds; wiped when dropped, for it may be a key.
pub(super) type Content = Zeroizing<Vec<u8>>;

/// Why one file could not be read; which one is said by the caller.
pub(super) enum ReadError {
    Io(io::Error),
    NotAFile,
    TooLarge(u64),
}

impl ReadError {
    /// Too many open files, a bad sector, a network file system away: nothing that a change of the file would end,
    /// so it must be tried again although the file looks the same.
    fn is_passing(&self) -> bool {
        use io::ErrorKind::{NotFound, PermissionDenied};
        matches!(self, Self::Io(error) if !matches!(error.kind(), NotFound | PermissionDenied))
    }
}

/// The content of a file, and the stamp under which it was, or could not be, read.
pub(super) fn read(path: &Path) -> (Option<Stamp>, Result<Content, ReadError>) {
    // Looked at before: a file put there just after a failure must look changed.
    let before = Stamp::of(path);
    let read = || {
        let opened = open(path).map_err(ReadError::Io)?;
        let metadata = opened.metadata().map_err(ReadError::Io)?;
        if !metadata.is_file() {
            return Err(ReadError::NotAFile);
        }
        // This file's own stamp: between the two looks it may have been replaced.
        Ok((Stamp::from(&metadata), read_bounded(opened, metadata.len())?))
    };
    match read() {
        Ok((stamp, content)) => (Some(stamp), Ok(content)),
        Err(error) if error.is_passing() => (None, Err(error)),
        Err(error) => (before, Err(error)),
    }
}

/// Without waiting: opening a FIFO would, until somebody writes to it.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn read_bounded(file: File, bytes: u64) -> Result<Content, ReadError> {
    let max = MAX_FILE_BYTES as u64;
    if bytes > max {
        return Err(ReadError::TooLarge(bytes));
    }
    // Room for all of it at once: a buffer that grows leaves copies of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes as usize + 1));
    // The file may have grown since; one octet more than allowed is enough to see it.
    file.take(max + 1).read_to_end(&mut content).map_err(ReadError::Io)?;
    if content.len() > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge(content.len() as u64));
    }
    Ok(content)
}
