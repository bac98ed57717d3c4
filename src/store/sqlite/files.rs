//! The database's files, and where a damaged one goes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::clock::UnixTime;

/// What SQLite appends to a database's name for its other files: the write-ahead log and the log's index.
const LOG: &str = "-wal";
const INDEX: &str = "-shm";

/// Moves the database and its log to a name that says when, and returns that; `None` if there is nothing to move.
/// Nobody may have it open.
pub(super) fn set_aside(path: &Path, now: UnixTime) -> io::Result<Option<PathBuf>> {
    let aside = free_name(path, now);
    let mut any = None;
    // The database last: if this is cut short, what is left is still met as damaged.
    for suffix in [INDEX, LOG, ""] {
        match fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix)) {
            Ok(()) => any = Some(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(any.map(|()| aside))
}

/// A name that was not used yet, also not for another damaged database in the same second.
fn free_name(path: &Path, now: UnixTime) -> PathBuf {
    let when = jiff::Timestamp::from_second(now.secs())
        .map_or_else(|_| now.to_string(), |at| at.strftime("%Y%m%dT%H%M%SZ").to_string());
    let first = with_suffix(path, &format!(".damaged-{when}"));
    let is_free = |name: &PathBuf| ["", LOG, INDEX].iter().all(|s| fs::symlink_metadata(with_suffix(name, s)).is_err());
    let mut name = first.clone();
    for n in 2u32.. {
        if is_free(&name) {
            break;
        }
        name = with_suffix(&first, &format!("-{n}"));
    }
    name
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Whether something stands in the log's place that is no file. SQLite ignores a log with damaged content by itself,
/// but this it cannot even open.
pub(super) fn is_log_no_file(path: &Path) -> bool {
    fs::metadata(with_suffix(path, LOG)).is_ok_and(|log| !log.is_file())
}

/// Whether there is a log: as long as a process has the database open, and after one that was killed.
pub(super) fn has_log(path: &Path) -> bool {
    fs::symlink_metadata(with_suffix(path, LOG)).is_ok()
}

/// Whether there is anything in the log.
pub(super) fn has_log_with_content(path: &Path) -> bool {
    fs::metadata(with_suffix(path, LOG)).is_ok_and(|log| log.len() > 0)
}

/// Copies a database and its log, as far as it has one, to a name that is free.
pub(super) fn copy(path: &Path, to: &Path) -> io::Result<()> {
    for suffix in ["", LOG] {
        let from = with_suffix(path, suffix);
        if fs::metadata(&from).is_ok_and(|file| file.is_file()) {
            fs::copy(from, with_suffix(to, suffix))?;
        }
    }
    Ok(())
}

/// Removes a database with its other files, as far as they are there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for suffix in [INDEX, LOG, ""] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
