//! Carrying what can be read of a damaged database into a fresh one: a key that is lost cannot be had again.
//!
//! It is read through SQLite, on a copy, table by table and row by row around what does not open. The first page, which
//! says where everything is, is mended from a fresh database of the same schema: all that such databases have there is
//! alike but for their size. What stands only on a damaged page is lost, and so is what only an inner page of a table
//! led to. Nothing is changed in the damaged database, and it stays in its place until the fresh one is complete.

use std::future::poll_fn;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sqlx::{AssertSqlSafe, SqliteConnection};
use tokio::task::spawn_blocking;

use super::super::super::StoreError;
use super::super::super::inventory::FILE;
use super::super::{CORRUPT, Layout, NOT_A_DATABASE, Sqlite, error, files, primary_code};
use super::certificates::named_issuers;
use super::{LAYOUT, PAGE_BYTES};
use crate::clock::UnixTime;

/// The fresh database until it is complete.
const SALVAGING: Layout = Layout { file: "certificates.db.salvaging", ..LAYOUT };
/// The same once all of it is on the disk: only then does it have this name.
const SALVAGED: &str = "certificates.db.salvaged";
/// The copy that is read.
const COPY: &str = "certificates.db.copy";

/// What is carried, keys first. Rows are found by their rowid; one that is no column is given anew.
const TABLES: [(&str, &str); 7] = [
    ("data_key", "id, wrapped_by, wrapped, made_at"),
    ("secret", "name, sealed, public"),
    ("account", "ca, eab_kid, url, sealed_key, made_at, contact"),
    ("acme_order", "id, subject, role, ca, url, names, sealed_key, placed_at"),
    ("issuer", "id, der"),
    (
        "certificate",
        "id, subject, tenant, role, provenance, ca, facts, not_after, fingerprint, leaf, issuers, sealed_key, kept_at,
         revoked_at, ari_start, ari_end, ari_next",
    ),
    ("attempts", "subject, role, failures, first_at, last_at, next_at, ca, problem, advice, held_off"),
];

/// Of the tables that have a copy of each row, on other pages, the index that it is.
const COPIES: [(&str, &str); 3] = [("data_key", "data_key_copy"), ("secret", "secret_copy"), ("issuer", "issuer_copy")];

/// Rows looked up, and carried, at once.
const STEP_ROWS: usize = 500;
/// How many numbers without a row are tried one by one behind one that does not open, before it is tried from the end.
const MISSES_MAX: u32 = 2000;
/// Steps through one table, in either direction: a damaged table might lead round in circles.
const STEPS_MAX: u32 = 100_000;
/// No number that we give gets there. A damaged row's might, and then there would soon be none left to give.
const ID_MAX: i64 = 1 << 48;

/// SQLite's codes for what damage leads to: "error" (no such table, among others), "malformed", "too big",
/// "constraint", "mismatch" and "not a database".
const LOST: [u32; 6] = [1, CORRUPT, 18, 19, 20, NOT_A_DATABASE];

/// Octets of a SQLite database's header, and where in it stands how many pages there are: 0 means as many as the file has
/// (file format, section 1.3).
const HEADER_BYTES: usize = 100;
const PAGES_AT: u64 = 28;

/// Puts a database in its place that was complete when the process ended.
pub(super) fn finish(data_dir: &Path) -> Result<(), StoreError> {
    let (path, salvaged) = (data_dir.join(FILE), data_dir.join(SALVAGED));
    // The damaged one only goes once the other is complete.
    if path.symlink_metadata().is_ok() || salvaged.symlink_metadata().is_err() {
        return Ok(());
    }
    fs::rename(&salvaged, &path).map_err(|e| error(&path, e.into()))
}

/// Sets the database aside and puts what could be read of it in its place; says where it went, and how many rows were
/// carried over.
pub(super) async fn replace(data_dir: &Path, now: UnixTime) -> Result<(Option<PathBuf>, u64), StoreError> {
    finish(data_dir)?;
    let path = data_dir.join(FILE);
    let broken = |e: io::Error| error(&path, e.into());
    if path.symlink_metadata().is_err() {
        return Ok((None, 0));
    }
    let (salvaging, salvaged) = (data_dir.join(SALVAGING.file), data_dir.join(SALVAGED));
    files::remove(&salvaging).and_then(|()| files::remove(&salvaged)).map_err(broken)?;
    let rows = salvage(data_dir).await;
    files::remove(&data_dir.join(COPY)).map_err(broken)?;
    let rows = rows?;
    let directory = data_dir.to_owned();
    let replaced = in_background(move || {
        // What stands in a log yet would stay behind under the old name, and nobody would miss it.
        if files::has_log_with_content(&salvaging) {
            return Err(io::Error::other("what was carried over is not all in its file"));
        }
        fs::File::open(&salvaging)?.sync_all()?;
        fs::rename(&salvaging, &salvaged)?;
        fs::File::open(&directory)?.sync_all()?;
        let path = directory.join(FILE);
        let set_aside = files::set_aside(&path, now)?;
        fs::rename(&salvaged, &path)?;
        Ok(set_aside)
    });
    Ok((replaced.await.map_err(broken)?, rows))
}

/// Waits for the disk where nobody else has to wait with it.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn salvage(data_dir: &Path) -> Result<u64, StoreError> {
    let (path, copy) = (data_dir.join(FILE), data_dir.join(COPY));
    let broken = |e: io::Error| error(&path, e.into());
    // Closed, it has all of its pages in the file.
    Sqlite::open_sound(&SALVAGING, data_dir).await?.close().await;
    let first_page = fs::read(data_dir.join(SALVAGING.file)).map_err(broken)?;
    // As little as possible is mended: an untouched first page knows best.
    for mended_bytes in [0, HEADER_BYTES, PAGE_BYTES as usize] {
        let mended = first_page.get(..mended_bytes).unwrap_or_default().to_vec();
        let (from, to) = (path.clone(), copy.clone());
        in_background(move || copy_mended(&from, &to, &mended)).await.map_err(broken)?;
        let fresh = Sqlite::open_sound(&SALVAGING, data_dir).await?;
        let carried = carry_all(&fresh, &copy).await;
        fresh.close().await;
        if let Some(rows) = carried? {
            return Ok(rows);
        }
    }
    Ok(0)
}

/// Copies the database and its log, with these octets for its first ones.
fn copy_mended(path: &Path, copy: &Path, mended: &[u8]) -> io::Result<()> {
    files::remove(copy)?;
    files::copy(path, copy)?;
    let file = fs::File::options().write(true).open(copy)?;
    if file.metadata()?.len() > HEADER_BYTES as u64 {
        file.write_all_at(mended, 0)?;
        file.write_all_at(&[0; 4], PAGES_AT)?;
    }
    Ok(())
}

/// Carries all that can be read. `None` if the copy does not show its tables.
async fn carry_all(fresh: &Sqlite, copy: &Path) -> Result<Option<u64>, StoreError> {
    let mut conn = fresh.writer().await?;
    let carried = carry_all_on(&mut conn, copy).await;
    fresh.end(conn, carried)
}

/// Without a transaction: in one that met damage SQLite writes nothing more. It counts once it is all there, and is
/// synced then.
async fn carry_all_on(conn: &mut SqliteConnection, copy: &Path) -> Result<Option<u64>, sqlx::Error> {
    sqlx::query("PRAGMA synchronous = OFF").execute(&mut *conn).await?;
    let attach = sqlx::query("ATTACH DATABASE $1 AS old").bind(copy.as_os_str().as_bytes());
    if lost_if_damaged(attach.execute(&mut *conn).await)?.is_none() {
        return Ok(None);
    }
    for (table, columns) in TABLES {
        let sql = format!("SELECT {columns} FROM old.{table} LIMIT 0");
        if lost_if_damaged(sqlx::query(AssertSqlSafe(sql)).execute(&mut *conn).await)?.is_none() {
            return Ok(None);
        }
    }
    let mut rows = 0u64;
    for (table, columns) in TABLES {
        let mut carried = Carrier::new(table, columns).carry(conn).await?;
        for (_, copies) in COPIES.iter().filter(|(of, _)| *of == table) {
            let sql = format!(
                "INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns} FROM old.{table} INDEXED BY {copies}"
            );
            let added = lost_if_damaged(sqlx::query(AssertSqlSafe(sql)).execute(&mut *conn).await)?;
            carried = carried.saturating_add(added.map_or(0, |added| added.rows_affected()));
        }
        tracing::warn!(table, rows = carried, "carried over from the damaged {FILE}");
        rows = rows.saturating_add(carried);
    }
    carry_numbers(conn).await?;
    empty_log(conn).await?;
    Ok(Some(rows))
}

/// Writes the log back. Closing does it, too, but keeps to itself whether it could.
async fn empty_log(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let (busy, in_log, written): (i64, i64, i64) =
        sqlx::query_as("PRAGMA main.wal_checkpoint(TRUNCATE)").fetch_one(conn).await?;
    if busy != 0 || in_log != written {
        let what = format!("of {in_log} pages that were carried over {written} could be written to their file");
        return Err(sqlx::Error::Io(io::Error::other(what)));
    }
    Ok(())
}

/// Goes through a table of the copy.
struct Carrier {
    /// The rowids from one number to another, in order or against it.
    ids: [String; 2],
    /// Carries the rows from one number to another.
    carry: String,
}

impl Carrier {
    fn new(table: &str, columns: &str) -> Self {
        let ids = |order: &str| {
            format!(
                "SELECT rowid FROM old.{table} NOT INDEXED WHERE rowid BETWEEN $1 AND $2
                 ORDER BY rowid {order} LIMIT {STEP_ROWS}"
            )
        };
        let carry = format!(
            "INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns} FROM old.{table} NOT INDEXED
             WHERE rowid BETWEEN $1 AND $2"
        );
        Self { ids: [ids("ASC"), ids("DESC")], carry }
    }

    /// From the first row on, past what does not open; then from the last row back, to what was seen.
    async fn carry(&self, conn: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
        let [ascending, descending] = &self.ids;
        let (mut rows, mut first, mut last, mut misses) = (0u64, 0, ID_MAX, 0);
        for _ in 0..STEPS_MAX {
            let (ids, is_sound) = read_ids(conn, ascending, first, last).await?;
            rows = rows.saturating_add(self.carry_rows(conn, &ids).await?);
            misses = if ids.is_empty() { misses + 1 } else { 0 };
            let next = ids.iter().max().map_or(first, |id| id.saturating_add(1));
            if is_sound && ids.len() < STEP_ROWS {
                return Ok(rows);
            }
            if misses > MISSES_MAX {
                break;
            }
            first = if is_sound { next } else { next.saturating_add(i64::from(misses > 0)) };
        }
        for _ in 0..STEPS_MAX {
            let (ids, is_sound) = read_ids(conn, descending, first, last).await?;
            rows = rows.saturating_add(self.carry_rows(conn, &ids).await?);
            let Some(next) = ids.iter().min() else { break };
            last = next.saturating_sub(1);
            if is_sound && ids.len() < STEP_ROWS {
                break;
            }
        }
        Ok(rows)
    }

    /// Carries these rows, together or else one by one.
    async fn carry_rows(&self, conn: &mut SqliteConnection, ids: &[i64]) -> Result<u64, sqlx::Error> {
        let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(0) };
        if let Some(rows) = lost_if_damaged(self.carry_range(conn, *first, *last).await)? {
            return Ok(rows);
        }
        let mut rows = 0u64;
        for id in ids {
            let carried = lost_if_damaged(self.carry_range(conn, *id, *id).await)?;
            rows = rows.saturating_add(carried.unwrap_or_default());
        }
        Ok(rows)
    }

    async fn carry_range(&self, conn: &mut SqliteConnection, first: i64, last: i64) -> Result<u64, sqlx::Error> {
        let carry = sqlx::query(AssertSqlSafe(self.carry.as_str())).bind(first).bind(last);
        Ok(carry.execute(conn).await?.rows_affected())
    }
}

/// The next rowids as far as they can be read, and whether that is as far as was asked for.
async fn read_ids(
    conn: &mut SqliteConnection,
    sql: &str,
    first: i64,
    last: i64,
) -> Result<(Vec<i64>, bool), sqlx::Error> {
    let mut ids = Vec::with_capacity(STEP_ROWS);
    let mut rows = sqlx::query_scalar(AssertSqlSafe(sql)).bind(first).bind(last).fetch(conn);
    while let Some(id) = poll_fn(|cx| rows.as_mut().poll_next(cx)).await {
        match lost_if_damaged(id)? {
            Some(id) => ids.push(id),
            None => return Ok((ids, false)),
        }
    }
    Ok((ids, true))
}

/// `None` for what fails because of what stands in the damaged database.
fn lost_if_damaged<T>(done: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(e) if primary_code(&e).is_some_and(|code| LOST.contains(&code)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Numbers are never used again, not even those of rows that were lost.
async fn carry_numbers(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let named = named_issuers(conn).await?;
    for (table, least) in [("certificate", 0), ("acme_order", 0), ("issuer", named.last().copied().unwrap_or(0))] {
        let seq = "SELECT coalesce(max(seq), 0) FROM old.sqlite_sequence WHERE name = $1 AND seq < $2";
        let seq = sqlx::query_scalar(seq).bind(table).bind(ID_MAX).fetch_one(&mut *conn).await;
        let given = lost_if_damaged::<i64>(seq)?.unwrap_or(0).max(least.clamp(0, ID_MAX));
        let raise = format!(
            "INSERT INTO sqlite_sequence (name, seq)
             SELECT $1, max($2, (SELECT coalesce(max(id), 0) FROM {table}));
             "
        );
        sqlx::query("DELETE FROM sqlite_sequence WHERE name = $1").bind(table).execute(&mut *conn).await?;
        sqlx::query(AssertSqlSafe(raise)).bind(table).bind(given).execute(&mut *conn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that takes no more pages stands for a full disk: what it holds by then is not all that could be read.
    #[tokio::test]
    async fn what_the_disk_does_not_take_is_not_taken_for_lost() {
        const FULL: u32 = 13;
        let dir = tempfile::tempdir().unwrap();
        let damaged = Sqlite::open_sound(&LAYOUT, dir.path()).await.unwrap();
        let mut writer = damaged.writer().await.unwrap();
        for name in 0..50 {
            let write = "INSERT INTO secret (name, sealed, public) VALUES ($1, zeroblob(8000), x'00')";
            sqlx::query(write).bind(name.to_string()).execute(&mut *writer).await.unwrap();
        }
        drop(writer);
        damaged.close().await;
        let copy = dir.path().join(COPY);
        copy_mended(&dir.path().join(FILE), &copy, &[]).unwrap();
        let fresh = Sqlite::open_sound(&SALVAGING, dir.path()).await.unwrap();
        let mut writer = fresh.writer().await.unwrap();
        sqlx::query("PRAGMA main.max_page_count = 40").execute(&mut *writer).await.unwrap();
        let error = carry_all_on(&mut writer, &copy).await.unwrap_err();
        assert_eq!(primary_code(&error), Some(FULL), "{error}");
    }

    /// Somebody else in the file stands for all that keeps pages in the log: SQLite tells both in the same way.
    #[tokio::test]
    async fn what_is_not_written_back_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = Sqlite::open_sound(&SALVAGING, dir.path()).await.unwrap();
        let (mut reader, mut writer) = (fresh.reader().await.unwrap(), fresh.writer().await.unwrap());
        sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *writer).await.unwrap();
        sqlx::query("BEGIN").execute(&mut *reader).await.unwrap();
        sqlx::query("SELECT count(*) FROM secret").execute(&mut *reader).await.unwrap();
        let write = "INSERT INTO secret (name, sealed, public) VALUES ('a', x'00', x'00')";
        sqlx::query(write).execute(&mut *writer).await.unwrap();
        assert!(matches!(empty_log(&mut writer).await, Err(sqlx::Error::Io(_))));
        sqlx::query("COMMIT").execute(&mut *reader).await.unwrap();
        empty_log(&mut writer).await.unwrap();
        assert!(!files::has_log_with_content(&dir.path().join(SALVAGING.file)));
    }
}
