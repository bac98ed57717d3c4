//! A connection of its own, for whoever reads a hundred thousand rows: by a pool each of them goes from thread to thread,
//! which takes ten times as long as reading it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::super::StoreError;
use super::{Beside, CORRUPT, LOCKLESS, NOT_A_DATABASE, WAIT_MAX, caused, files};

/// Opens a database that is there to read it. Blocks on the disk.
pub(super) fn open(path: &Path, beside: Beside) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match beside {
        Beside::Anybody => Connection::open_with_flags(path, flags)?,
        Beside::NoWriter => Connection::open_with_flags(immutable(path), flags | OpenFlags::SQLITE_OPEN_URI)?,
        Beside::Nobody => {
            let conn = Connection::open_with_flags_and_vfs(path, flags, LOCKLESS)?;
            conn.pragma_update(None, "locking_mode", "exclusive")?;
            conn
        }
    };
    conn.busy_timeout(WAIT_MAX)?;
    Ok(conn)
}

/// The URI of a file that nobody changes (SQLite's "Uniform Resource Identifiers", section 3.3).
fn immutable(path: &Path) -> String {
    let mut uri = String::from("file:");
    for octet in path.as_os_str().as_bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*octet)),
            _ => uri.push_str(&format!("%{octet:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// What became of reading, as whoever asked is told.
pub(super) fn error(path: &Path, source: rusqlite::Error) -> StoreError {
    let is_damaged = matches!(primary_code(&source), Some(CORRUPT | NOT_A_DATABASE)) || files::is_log_no_file(path);
    caused(path, source.into(), is_damaged)
}

/// SQLite's code for what went wrong, without what extends it.
pub(super) fn primary_code(error: &rusqlite::Error) -> Option<u32> {
    let code = error.sqlite_error()?.extended_code;
    Some(u32::try_from(code).ok()? & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_file_can_be_said_in_a_uri() {
        assert_eq!(immutable(Path::new("/a b/c%?d#é.db")), "file:/a%20b/c%25%3fd%23%c3%a9.db?immutable=1");
    }
}
