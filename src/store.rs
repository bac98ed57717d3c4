//! What we remember, as verbs. Today an embedded SQLite database in `data_dir` carries them out.
//!
//! Every verb may be repeated: folding the same counts twice is folding them once, and a day sealed twice with the same
//! facts is sealed once. So whoever is not sure whether a verb was carried out just asks again.

pub mod inventory;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil;

use crate::clock::{Reading, UnixTime};
use crate::meter::Bucket;
use crate::usage::{Chain, Day, DayRecord, Hour, Peak, Series};

/// The database's file in `data_dir`.
pub const FILE: &str = "lockgate.db";

/// Everything that is remembered.
#[derive(Debug, Clone)]
pub struct Store {
    sqlite: sqlite::Sqlite,
}

/// A store, and what became of the one that was there.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where the damaged database was put that it replaces.
    pub set_aside: Option<PathBuf>,
}

/// What a start needs to go on where the last process ended.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The clock when something was last stored.
    pub at: Option<Reading>,
    /// The zone whose days were counted then: an IANA name.
    pub zone: Option<String>,
    /// Each name's state as it was last folded.
    pub states: Vec<(Arc<str>, Vec<u8>)>,
}

/// What a name used since it was last folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// Whose.
    pub name: Arc<str>,
    /// What a start needs to go on with this name ([`crate::usage::Usage::save`]); replaces what was there. Empty:
    /// nothing any more.
    pub state: Vec<u8>,
    /// Counts of closed buckets. Where one is known already the larger holds.
    pub counts: Vec<(Bucket, u64)>,
}

/// A day that is over, to be sealed from the name's stored counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// What the name used that is not stored yet; stored with the record, or neither is.
    pub fold: Fold,
    /// The day.
    pub day: Day,
    /// Whose day: an IANA name.
    pub zone: String,
    /// The limit that the record is to name.
    pub limit_qps: Option<u32>,
    /// How long the name was held to it on that day.
    pub throttled_secs: u64,
    /// The day's highest bucket as it was counted, for when the stored counts are not complete.
    pub peak: Option<Peak>,
}

/// How a database stands that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As far as anybody noticed, it is well.
    Sound,
    /// Something of it turned out to be damaged.
    Damaged,
    /// Its file was removed, or another one is in its place: what is written goes nowhere.
    Gone,
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A later Lockgate wrote it: this one must not touch it.
    #[error("{} was written by a newer Lockgate: run that one, or name another data_dir", .0.display())]
    Newer(PathBuf),
    /// An earlier Lockgate wrote it, and reading does not change it.
    #[error("{} was written by an older Lockgate: start this one once, which brings it up to date", .0.display())]
    Older(PathBuf),
    /// What is there is no sound database.
    #[error("{} is damaged: {source}", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: Cause,
    },
    /// What is there is damaged, and what can be read of it cannot be carried over; it may be later.
    #[error(
        "{} is damaged, and what can be read of it is carried over only when its directory can be written: {source}",
        .path.display()
    )]
    Unsalvaged {
        /// The database.
        path: PathBuf,
        /// What the system says.
        source: Cause,
    },
    /// The disk is full, read-only, slow or gone; it may be well later.
    #[error("{} cannot be used: {source}", .path.display())]
    Unavailable {
        /// The database.
        path: PathBuf,
        /// What SQLite or the system says.
        source: Cause,
    },
    /// What was to be stored does not fit what is there: to ask again does not help.
    #[error("{} does not take this: {reason}", .path.display())]
    Refused {
        /// The database.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// What SQLite or the system says: nearly all goes by a pool of connections, long readings by a plain one.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Cause {
    /// By a pool.
    Pooled(#[from] sqlx::Error),
    /// By a plain connection.
    Plain(#[from] rusqlite::Error),
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self::Pooled(error.into())
    }
}

impl StoreError {
    /// Whether it is for the disk that takes nothing: what is on it may be read all the same.
    pub fn is_for_writing(&self) -> bool {
        match self {
            Self::Unsalvaged { .. } => true,
            Self::Unavailable { source, .. } => sqlite::takes_nothing(source),
            _ => false,
        }
    }
}

impl From<(sqlite::Sqlite, Option<PathBuf>)> for Opened {
    fn from((sqlite, set_aside): (sqlite::Sqlite, Option<PathBuf>)) -> Self {
        Self { store: Store { sqlite }, set_aside }
    }
}

impl Store {
    /// Opens the database in `data_dir`: made if it is not there, brought up to date if it is older, set aside and
    /// replaced if it is damaged. `now` goes into the name of what is set aside.
    ///
    /// # Errors
    /// If it is newer, or the disk does not allow it.
    pub async fn open(data_dir: &Path, now: UnixTime) -> Result<Opened, StoreError> {
        sqlite::Sqlite::open(&sqlite::USAGE, data_dir, now).await.map(Opened::from)
    }

    /// Sets aside whatever is in `data_dir` and opens a fresh database: for one that turned out to be damaged while it
    /// was used. [`Self::close`] that one first.
    ///
    /// # Errors
    /// If the disk does not allow it.
    pub async fn replace(data_dir: &Path, now: UnixTime) -> Result<Opened, StoreError> {
        sqlite::Sqlite::replace(&sqlite::USAGE, data_dir, now).await.map(Opened::from)
    }

    /// Opens it to read, also while a process writes it. `None` if there is none.
    ///
    /// # Errors
    /// If it is newer or older, damaged or unreadable.
    pub async fn open_to_read(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let sqlite = sqlite::Sqlite::open_to_read(&sqlite::USAGE, data_dir).await?;
        Ok(sqlite.map(|sqlite| Self { sqlite }))
    }

    /// What a start needs, from a database that cannot be opened because the disk takes nothing: without what its log
    /// holds, which only an open database has.
    ///
    /// # Errors
    /// If it cannot be read either.
    pub async fn glimpse(data_dir: &Path) -> Result<Remembered, StoreError> {
        sqlite::Sqlite::glimpse(data_dir).await
    }

    /// What a start needs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remembered(&self) -> Result<Remembered, StoreError> {
        self.sqlite.remembered().await
    }

    /// Stores what names used, all or nothing.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was stored.
    pub async fn fold(&self, folds: &[Fold], at: Reading, zone: &str) -> Result<(), StoreError> {
        self.sqlite.fold(folds, at, zone).await
    }

    /// Seals days, all or nothing: adds up what is stored of each and appends a record to its name's chain. A day
    /// without requests leaves none; one that was sealed with the same facts is left alone; one that was sealed with
    /// others is amended by another record, but never to say that less was used: then history was trimmed or damaged
    /// since. Returns what was appended. Of many names a few hundred at a time: other verbs that write wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing was stored.
    pub async fn seal(&self, seals: &[Seal], at: Reading) -> Result<Vec<DayRecord>, StoreError> {
        self.sqlite.seal(seals, at).await
    }

    /// All names that anything is known of, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn names(&self) -> Result<Vec<Arc<str>>, StoreError> {
        self.sqlite.names().await
    }

    /// The stored counts of `name` from bucket `from` to before `to`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn series(&self, name: &str, from: Bucket, to: Bucket) -> Result<Series, StoreError> {
        self.sqlite.series(name, from, to).await
    }

    /// The stored counts of all names that have any from bucket `from` to before `to`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn series_of_all(&self, from: Bucket, to: Bucket) -> Result<HashMap<Arc<str>, Series>, StoreError> {
        self.sqlite.series_of_all(from, to).await
    }

    /// The records of all names of the day that any zone calls `date`; of each name in order of their numbers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn records_of(&self, date: civil::Date) -> Result<Vec<DayRecord>, StoreError> {
        self.sqlite.records_of(date).await
    }

    /// The sealed days of `name`. `None` if nothing is known of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chain(&self, name: &str) -> Result<Option<Chain>, StoreError> {
        self.sqlite.chain(name).await
    }

    /// Forgets history of before `hours_before` and records of days before `days_before`, and states that say nothing
    /// of any bucket since `hours_before`, at most `limit` rows of each. Chains keep an anchor. Returns how many rows
    /// went: less than `limit` means that nothing is left to forget.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trim(&self, hours_before: Hour, days_before: civil::Date, limit: u32) -> Result<u64, StoreError> {
        self.sqlite.trim(hours_before, days_before, limit).await
    }

    /// Closes it: what was written is on the disk, and the files may be moved, or opened again.
    pub async fn close(&self) {
        self.sqlite.close().await;
    }
}
