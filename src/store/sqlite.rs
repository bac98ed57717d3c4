//! The store's verbs on SQLite: one connection writes, a few read beside it.
//!
//! A verb that fails takes its connection with it. So one that saw a full disk or lost its transaction is never used
//! again, and whatever is asked next begins on a fresh one.

mod files;
mod fold;
pub(super) mod inventory;
mod plain;
mod read;
mod seal;
mod shared;
mod trim;

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};
use sqlx::pool::PoolConnection;
use sqlx::query_builder::Separated;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, QueryBuilder, SqliteConnection, SqlitePool,
};

use self::shared::Shared;
use super::{Cause, FILE, StoreError};
use crate::clock::UnixTime;

/// What is particular to a database.
#[derive(Debug)]
pub(super) struct Layout {
    /// The file's name in `data_dir`.
    file: &'static str,
    /// The schema, a step at a time: `PRAGMA user_version` is how many were taken.
    schema: &'static [&'static str],
    /// Reads from each table of the whole schema: damage is better met at once than in the middle of things.
    probe: &'static str,
    /// Octets of a page of a database that is made. One that is there keeps its own.
    page_bytes: u32,
    /// Kept in memory by the connection that writes.
    writer_cache_kib: u32,
}

/// The database for what was metered.
pub(super) const USAGE: Layout = Layout {
    file: FILE,
    schema: &[include_str!("schema/sqlite/0001_usage.sql")],
    // A row of each table meets gross damage. To read everything would take too long.
    probe: "SELECT (SELECT max(name) FROM domain), EXISTS (SELECT * FROM series), EXISTS (SELECT * FROM day),
            EXISTS (SELECT * FROM state), EXISTS (SELECT * FROM mark)",
    page_bytes: 4096,
    // The states of 100,000 names.
    writer_cache_kib: 32 * 1024,
};

/// Takes the write lock at once: a transaction that began by reading could be refused it half way.
const BEGIN: &str = "BEGIN IMMEDIATE";
/// Rows to a statement. Most statements have exactly so many, and so are prepared once.
const ROWS_MAX: usize = 500;
/// Connections that read beside the one that writes.
const READERS_MAX: u32 = 4;
/// How long a verb waits for its connection, and then for the lock of another process.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What the write-ahead log is cut to after it had to grow.
const LOG_KEPT_BYTES: u32 = 64 << 20;

/// A database, open.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    shared: Arc<Shared>,
    /// One connection; read-only like the others if the store was opened to read.
    writer: SqlitePool,
    readers: SqlitePool,
    beside: Beside,
}

/// Who else may have a database open that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// Whoever likes: SQLite's locks are asked.
    Anybody,
    /// Nobody who writes: it is read without locks, and without what its log may hold.
    NoWriter,
    /// Nobody: it is read with what its log holds.
    Nobody,
}

impl Beside {
    fn apply(self, options: SqliteConnectOptions) -> SqliteConnectOptions {
        match self {
            Self::Anybody => options,
            Self::NoWriter => options.immutable(true),
            // The log's index is then in memory and not in a file, as long as nobody else is let in; and with locks that
            // do nothing, nobody has to be asked (SQLite's "Write-Ahead Logging", section 8).
            Self::Nobody => options.vfs(LOCKLESS).locking_mode(SqliteLockingMode::Exclusive),
        }
    }
}

/// SQLite's name for files whose locks do nothing.
const LOCKLESS: &str = "unix-none";

impl Sqlite {
    /// Opens or makes the database, set aside and replaced if it is damaged.
    pub(super) async fn open(
        layout: &'static Layout,
        data_dir: &Path,
        now: UnixTime,
    ) -> Result<(Self, Option<PathBuf>), StoreError> {
        match Self::open_sound(layout, data_dir).await {
            Err(StoreError::Damaged { .. }) => Self::replace(layout, data_dir, now).await,
            opened => Ok((opened?, None)),
        }
    }

    /// Sets aside what is there, and opens a fresh one.
    pub(super) async fn replace(
        layout: &'static Layout,
        data_dir: &Path,
        now: UnixTime,
    ) -> Result<(Self, Option<PathBuf>), StoreError> {
        let path = data_dir.join(layout.file);
        let set_aside = files::set_aside(&path, now).map_err(|e| error(&path, e.into()))?;
        Ok((Self::open_sound(layout, data_dir).await?, set_aside))
    }

    async fn open_sound(layout: &'static Layout, data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(layout.file);
        keep_private(&path).map_err(|e| error(&path, e.into()))?;
        let options = options(&path);
        let write = options
            .clone()
            .page_size(layout.page_bytes)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is on the disk when it returns: what it holds is then removed from the journal.
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", format!("-{}", layout.writer_cache_kib))
            .pragma("journal_size_limit", LOG_KEPT_BYTES.to_string());
        let shared = Arc::new(Shared::new(layout, path));
        let writer = shared.pool(1, write);
        let readers = shared.pool(READERS_MAX, options.read_only(true));
        let sqlite = Self { readers, writer, shared, beside: Beside::Anybody };
        sqlite.closed_unless(sqlite.migrate().await).await
    }

    /// Opens a database of exactly this schema, read-only. `None` if there is none.
    pub(super) async fn open_to_read(layout: &'static Layout, data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = data_dir.join(layout.file);
        if !path.try_exists().map_err(|e| error(&path, e.into()))? {
            return Ok(None);
        }
        // SQLite's readers write, too, to the log's index. Where they may not, a database without a log (a backup, or one
        // whose process has ended) is read as one that does not change.
        let is_still = !files::has_log(&path) && access(data_dir, Access::WRITE_OK).is_err();
        let beside = if is_still { Beside::NoWriter } else { Beside::Anybody };
        let sqlite = Self::to_read(layout, path, READERS_MAX, beside);
        sqlite.closed_unless(sqlite.require_schema().await).await.map(Some)
    }

    /// Opens a database beside which nothing can be written. Nobody else may write to it meanwhile.
    async fn open_still(layout: &'static Layout, data_dir: &Path) -> Result<Self, StoreError> {
        let sqlite = Self::to_read(layout, data_dir.join(layout.file), 1, Beside::NoWriter);
        sqlite.closed_unless(sqlite.require_schema().await).await
    }

    /// The same, with what its log holds, also of an older schema, and without the probe: what is damaged, or is not
    /// there yet, is met where it is read. `None` if there is none. Also nobody in this process may have it open: without
    /// locks of its own, it would drop theirs.
    async fn open_still_with_log(layout: &'static Layout, data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = data_dir.join(layout.file);
        if !path.try_exists().map_err(|e| error(&path, e.into()))? {
            return Ok(None);
        }
        let beside = if files::has_log_with_content(&path) { Beside::Nobody } else { Beside::NoWriter };
        let sqlite = Self::to_read(layout, path, 1, beside);
        sqlite.closed_unless(sqlite.require_any_version().await).await.map(Some)
    }

    fn to_read(layout: &'static Layout, path: PathBuf, connections_max: u32, beside: Beside) -> Self {
        let options = beside.apply(options(&path).read_only(true));
        let shared = Arc::new(Shared::new(layout, path));
        let readers = shared.pool(connections_max, options);
        Self { writer: readers.clone(), readers, shared, beside }
    }

    async fn closed_unless(&self, opened: Result<(), StoreError>) -> Result<Self, StoreError> {
        if opened.is_err() {
            self.close().await;
        }
        opened.map(|()| self.clone())
    }

    pub(super) async fn close(&self) {
        // The last to go writes the log back and removes it; one that only reads could not.
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let mut conn = self.writer().await?;
        let migrated = migrate_to_latest(&mut conn, self.shared.layout).await;
        let version = self.end(conn, migrated)?;
        self.known_schema(version).map(drop)
    }

    async fn require_schema(&self) -> Result<(), StoreError> {
        let mut conn = self.reader().await?;
        let version = sound_version(&mut conn, self.shared.layout).await;
        let version = self.end(conn, version)?;
        self.require(version)
    }

    /// An older one is read as far as it goes: where nothing can be written it stays what it is.
    async fn require_any_version(&self) -> Result<(), StoreError> {
        let mut conn = self.reader().await?;
        let version = schema_version(&mut conn).await;
        let version = self.end(conn, version)?;
        if self.known_schema(version)? == 0 { Err(StoreError::Older(self.shared.path.clone())) } else { Ok(()) }
    }

    fn require(&self, version: i64) -> Result<(), StoreError> {
        let steps = self.known_schema(version)?;
        if steps < self.shared.layout.schema.len() { Err(StoreError::Older(self.shared.path.clone())) } else { Ok(()) }
    }

    fn known_schema(&self, version: i64) -> Result<usize, StoreError> {
        let steps = usize::try_from(version).unwrap_or_default();
        if steps > self.shared.layout.schema.len() {
            Err(StoreError::Newer(self.shared.path.clone()))
        } else {
            Ok(steps)
        }
    }

    async fn writer(&self) -> Result<PoolConnection<sqlx::Sqlite>, StoreError> {
        self.writer.acquire().await.map_err(|e| error(&self.shared.path, e))
    }

    async fn reader(&self) -> Result<PoolConnection<sqlx::Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(|e| error(&self.shared.path, e))
    }

    /// Gives the connection back, unless it failed.
    fn end<T>(&self, mut conn: PoolConnection<sqlx::Sqlite>, done: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        done.map_err(|e| {
            conn.close_on_drop();
            let error = error(&self.shared.path, e);
            if matches!(error, StoreError::Damaged { .. }) {
                self.shared.note_damage();
            }
            error
        })
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    // Statements are hundreds of rows long, and a slow disk is no reason to log them.
    SqliteConnectOptions::new().filename(path).busy_timeout(WAIT_MAX).disable_statement_logging()
}

/// Nobody else may read whom we serve. SQLite gives its other files the mode of this one.
fn keep_private(path: &Path) -> io::Result<()> {
    // Never opened if it is there: closing it again would drop the locks that this process has on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let mode = path.metadata()?.permissions().mode();
            if mode & 0o077 == 0 { Ok(()) } else { std::fs::set_permissions(path, Permissions::from_mode(0o600)) }
        }
        made => made.map(drop),
    }
}

/// Takes the steps that are missing, all or none, and returns the version that is then there.
async fn migrate_to_latest(conn: &mut SqliteConnection, layout: &Layout) -> Result<i64, sqlx::Error> {
    let mut tx = conn.begin_with(BEGIN).await?;
    let mut version = schema_version(&mut tx).await?;
    for step in layout.schema.iter().skip(usize::try_from(version).unwrap_or_default()) {
        tx.execute(sqlx::raw_sql(*step)).await?;
        version = version.saturating_add(1);
        tx.execute(sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA user_version = {version}")))).await?;
    }
    tx.commit().await?;
    look_into_tables(conn, layout, version).await?;
    Ok(version)
}

async fn schema_version(conn: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA user_version").fetch_one(conn).await
}

async fn sound_version(conn: &mut SqliteConnection, layout: &Layout) -> Result<i64, sqlx::Error> {
    let version = schema_version(conn).await?;
    look_into_tables(conn, layout, version).await?;
    Ok(version)
}

/// Probes the tables, if they are those of this very schema.
async fn look_into_tables(conn: &mut SqliteConnection, layout: &Layout, version: i64) -> Result<(), sqlx::Error> {
    if usize::try_from(version) == Ok(layout.schema.len()) {
        sqlx::query(layout.probe).execute(conn).await?;
    }
    Ok(())
}

/// `before VALUES (row), (row) after`, with each row's columns bound by `bind`.
async fn write_rows<R>(
    conn: &mut SqliteConnection,
    before: &str,
    rows: &[R],
    after: &str,
    mut bind: impl FnMut(&mut Separated<'_, sqlx::Sqlite, &'static str>, &R),
) -> Result<u64, sqlx::Error> {
    let mut sql = QueryBuilder::new(before);
    sql.push_values(rows, |mut columns, row| bind(&mut columns, row)).push(after);
    let done = sql.build().persistent(rows.len() == ROWS_MAX).execute(conn).await?;
    Ok(done.rows_affected())
}

/// `(value, value)`, each of them bound.
fn push_list<'q, V>(sql: &mut QueryBuilder<sqlx::Sqlite>, values: impl IntoIterator<Item = V>)
where
    V: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    sql.push("(");
    let mut list = sql.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    sql.push(")");
}

/// SQLite's integers are signed: what is too large is the largest.
fn saturate(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// SQLite's codes for what a disk leads to that takes nothing: "perm", "readonly", "ioerr", "full" and "cantopen".
const TAKES_NOTHING: [u32; 5] = [3, 8, 10, 13, 14];

/// Whether the disk takes nothing: not that it is slow, or that somebody else has the database.
pub(super) fn takes_nothing(source: &Cause) -> bool {
    let code = match source {
        Cause::Pooled(sqlx::Error::Io(_)) => return true,
        Cause::Pooled(error) => primary_code(error),
        Cause::Plain(error) => plain::primary_code(error),
    };
    code.is_some_and(|code| TAKES_NOTHING.contains(&code))
}

/// SQLite's codes for "malformed" and "not a database", without what extends them.
const CORRUPT: u32 = 11;
const NOT_A_DATABASE: u32 = 26;

fn error(path: &Path, source: sqlx::Error) -> StoreError {
    let is_damaged = match &source {
        sqlx::Error::Database(_) => {
            matches!(primary_code(&source), Some(CORRUPT | NOT_A_DATABASE)) || files::is_log_no_file(path)
        }
        // The tables are STRICT: a column of another type than its own was not written by SQLite.
        sqlx::Error::ColumnDecode { .. } => true,
        _ => false,
    };
    caused(path, source.into(), is_damaged)
}

fn caused(path: &Path, source: Cause, is_damaged: bool) -> StoreError {
    let path = path.to_owned();
    if is_damaged { StoreError::Damaged { path, source } } else { StoreError::Unavailable { path, source } }
}

/// SQLite's code for what went wrong, without what extends it. `None`: it was not SQLite.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(code & 0xff)
}
