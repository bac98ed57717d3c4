//! The inventory's verbs on SQLite.

mod certificates;
mod glance;
mod keys;
mod orders;
mod read;
mod restore;
mod salvage;

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(in crate::store) use glance::Glance;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use sqlx::SqliteConnection;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteRow;
use tokio::task::spawn_blocking;

use super::super::inventory::{FILE, Role};
use super::super::{Standing, StoreError};
use super::{Layout, Sqlite, error};
use crate::clock::UnixTime;
use crate::name::DomainName;

/// The database for certificates.
const LAYOUT: Layout = Layout {
    file: FILE,
    schema: &[
        include_str!("../schema/sqlite_inventory/0001_certificates.sql"),
        include_str!("../schema/sqlite_inventory/0002_held_off.sql"),
        include_str!("../schema/sqlite_inventory/0003_contact.sql"),
    ],
    // To the last row of all but the certificates, which are many: whoever opens it reads them, and meets their damage.
    // Lengths stand in a row's head, so that long values are not read.
    probe: "SELECT (SELECT total(length(wrapped)) FROM data_key NOT INDEXED),
            (SELECT total(length(wrapped)) FROM data_key INDEXED BY data_key_copy),
            (SELECT total(length(der)) FROM issuer INDEXED BY issuer_copy),
            (SELECT total(length(public)) FROM secret INDEXED BY secret_copy),
            (SELECT total(length(der)) FROM issuer NOT INDEXED),
            (SELECT total(length(sealed_key)) FROM account NOT INDEXED),
            (SELECT total(length(sealed_key)) FROM acme_order NOT INDEXED),
            (SELECT total(length(held_off)) FROM attempts NOT INDEXED),
            (SELECT total(length(public)) FROM secret NOT INDEXED)",
    page_bytes: PAGE_BYTES,
    writer_cache_kib: 2048,
};

/// A certificate with its key takes about 1.6 KiB: fewer are read page by page, and more would be lost with one.
const PAGE_BYTES: u32 = 8192;

/// A database with this schema, open.
#[derive(Debug, Clone)]
pub(in crate::store) struct InventoryDb(Sqlite);

impl InventoryDb {
    pub(in crate::store) async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        salvage::finish(data_dir)?;
        // Where a process left its log and the log's index on a disk that is read-only by now, SQLite opens it all the
        // same, and only fails at the first write.
        let path = data_dir.join(FILE);
        match access(&path, Access::WRITE_OK) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(error(&path, io::Error::from(errno).into())),
        }
        Sqlite::open_sound(&LAYOUT, data_dir).await.map(Self)
    }

    /// Says where the damaged one went, and how many rows were carried over from it.
    pub(in crate::store) async fn replace(
        data_dir: &Path,
        now: UnixTime,
    ) -> Result<(Option<PathBuf>, u64), StoreError> {
        let unsalvaged = |source| StoreError::Unsalvaged { path: data_dir.join(FILE), source };
        // Where the first step would fail, none is taken.
        access(data_dir, Access::WRITE_OK).map_err(|e| unsalvaged(io::Error::from(e).into()))?;
        salvage::replace(data_dir, now).await.map_err(|error| match error {
            StoreError::Unavailable { source, .. } => unsalvaged(source),
            error => error,
        })
    }

    pub(in crate::store) async fn open_to_read(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        Sqlite::open_to_read(&LAYOUT, data_dir).await.map(|sqlite| sqlite.map(Self))
    }

    pub(in crate::store) async fn open_still(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        Sqlite::open_still_with_log(&LAYOUT, data_dir).await.map(|sqlite| sqlite.map(Self))
    }

    pub(in crate::store) async fn close(&self) {
        self.0.close().await;
    }

    pub(in crate::store) async fn standing(&self) -> Standing {
        let shared = Arc::clone(&self.0.shared);
        spawn_blocking(move || shared.standing()).await.unwrap_or(Standing::Sound)
    }

    async fn writer(&self) -> Result<PoolConnection<sqlx::Sqlite>, StoreError> {
        self.0.writer().await
    }

    async fn reader(&self) -> Result<PoolConnection<sqlx::Sqlite>, StoreError> {
        self.0.reader().await
    }

    fn end<T>(&self, conn: PoolConnection<sqlx::Sqlite>, done: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        self.0.end(conn, done)
    }

    fn refused(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Refused { path: self.0.shared.path.clone(), reason: reason.into() }
    }
}

/// Reads row after row and keeps what `usable` makes of it; what it cannot use goes to the log.
async fn read_usable<T>(
    conn: &mut SqliteConnection,
    sql: &'static str,
    what: &str,
    usable: impl Fn(&SqliteRow) -> Result<T, String>,
) -> Result<Vec<T>, sqlx::Error> {
    let mut read = Vec::new();
    let mut rows = sqlx::query(sql).fetch(conn);
    while let Some(row) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
        match usable(&row?) {
            Ok(entry) => read.push(entry),
            Err(reason) => tracing::error!("{what} in {FILE} cannot be used and is passed over: {reason}"),
        }
    }
    Ok(read)
}

/// The value of a column.
fn value<'r, T>(row: &'r SqliteRow, column: usize) -> Result<T, String>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    sqlx::Row::try_get(row, column).map_err(|error| error.to_string())
}

fn time(row: &SqliteRow, column: usize) -> Result<UnixTime, String> {
    value(row, column).map(UnixTime::from_secs)
}

/// A name in its normal form, as we write it: another could not be found by it again.
fn name(text: &str) -> Result<DomainName, String> {
    match DomainName::parse(text) {
        Ok(name) if name.as_str() == text => Ok(name),
        Ok(name) => Err(format!("`{text}` is not a name's normal form: that is `{name}`")),
        Err(error) => Err(shortened(&error.to_string())),
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::of_label(text).ok_or_else(|| format!("`{}` is neither own nor standby", shortened(text)))
}

/// What a stranger may have written goes to logs: not endless.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    text.chars().take(CHARS_MAX).collect()
}
