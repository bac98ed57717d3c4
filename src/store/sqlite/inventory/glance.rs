//! All certificates as they stand, read before it is known who may write here.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::super::super::inventory::{StoredCertificate, Unusable};
use super::super::{Beside, plain, shared::file_id};
use super::read::read_all;
use super::{FILE, LAYOUT};

/// Tells whether certificates that were read are still all that there are.
#[derive(Debug)]
pub(in crate::store) struct Glance {
    conn: Connection,
    /// SQLite's count of what others changed.
    version: i64,
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Glance {
    /// Reads all certificates in `data_dir`, and changes nothing. `None`: there are none, or they cannot be read just so;
    /// whoever opens the inventory meets the reason. Blocks on the disk.
    pub(in crate::store) fn take<T>(
        data_dir: &Path,
        each: impl FnMut(StoredCertificate) -> T,
    ) -> Option<(Vec<T>, Vec<Unusable>, Self)> {
        let path = data_dir.join(FILE);
        let file = file_id(&path)?;
        let conn = plain::open(&path, Beside::Anybody).ok()?;
        let tx = conn.unchecked_transaction().ok()?;
        let schema: i64 = tx.query_one("PRAGMA user_version", [], |row| row.get(0)).ok()?;
        if usize::try_from(schema) != Ok(LAYOUT.schema.len()) {
            return None;
        }
        let version = data_version(&tx).ok()?;
        let (read, unusable) = read_all(&tx, each).ok()?;
        drop(tx);
        Some((read, unusable, Self { conn, version, path, file }))
    }

    /// Whether nobody has changed anything since.
    pub(in crate::store) fn holds(&self) -> bool {
        file_id(&self.path) == Some(self.file) && data_version(&self.conn).is_ok_and(|version| version == self.version)
    }
}

fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_one("PRAGMA data_version", [], |row| row.get(0))
}
