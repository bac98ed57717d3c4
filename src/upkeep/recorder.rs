//! Harvest -> journal and store: what was counted is written down, so that no restart forgets it.
//!
//! Two loops. One asks four times a second for counts that changed and appends them to the journal. The other folds
//! accounts into the store when a bucket closes, seals days, trims what is old, and removes the journal's files when the
//! store has what they say. Neither is ever waited for: while the disk is full, slow or gone the harvest goes on, and
//! what was not written is written when the disk is back.

mod gauges;
mod journaling;
mod storing;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::harvest::{Errand, Past};
use super::ledger::{self, Journaled, Stored};
use crate::clock::{Clock, Reading, UnixTime};
use crate::journal::Journal;
use crate::store::StoreError;
pub use gauges::Gauges;
use journaling::Journaling;
use storing::Storing;

/// How long a start waits for the store. After it requests are served, and what the store remembers is taken in when it
/// comes.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// How long history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The 10-second counts.
    pub series: Duration,
    /// The records of days.
    pub days: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self { series: days(30), days: days(400) }
    }
}

/// The store on its way: opening it and reading it may take long, and fail.
type Opening = JoinHandle<Result<Stored, StoreError>>;

/// What was written down before, as far as it could be read in time.
#[derive(Debug)]
pub struct Recorder {
    data_dir: PathBuf,
    journal: Replaying,
    store: storing::Connection,
    past: Past,
    /// The zone whose days all that is stored counts.
    zone: Option<String>,
}

/// The journal: read, or still being read.
type Replaying = Result<Journal, JoinHandle<Journaled>>;
/// The journal, as soon as it was read: nothing is appended or removed before.
type SharedJournal = Arc<Mutex<Option<Journal>>>;

/// A recorder at work.
#[derive(Debug)]
pub struct Recording {
    journaling: Loop,
    storing: Loop,
}

#[derive(Debug)]
struct Loop {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What was written down before, being read.
#[derive(Debug)]
pub struct Beginning {
    data_dir: PathBuf,
    began: Instant,
    store: Opening,
    journal: JoinHandle<Journaled>,
}

impl Beginning {
    /// Begins to read what was written down before, beside whatever else a start has to do.
    pub fn begin(data_dir: &Path, now: UnixTime) -> Self {
        let directory = data_dir.to_owned();
        Self {
            data_dir: data_dir.to_owned(),
            began: Instant::now(),
            store: tokio::spawn(ledger::open_store(data_dir.to_owned(), now)),
            journal: spawn_blocking(move || ledger::read_journal(&directory)),
        }
    }

    /// What could be read in time.
    ///
    /// # Errors
    /// If a newer Lockgate wrote it: this one must not. Whatever else is wrong is reported, and tried again later.
    pub async fn recorder(self) -> Result<Recorder, StoreError> {
        let Self { data_dir, began, store: mut opening, journal: mut reading } = self;
        let patience = || START_PATIENCE.saturating_sub(began.elapsed());
        let read = timeout(patience(), &mut reading).await;
        let mut past = Past::default();
        let store = match timeout(patience(), &mut opening).await {
            Ok(opened) => match storing::opened(opened) {
                Ok(Stored { store, past: stored }) => {
                    past = stored;
                    storing::Connection::Open(store)
                }
                Err(error @ StoreError::Newer(_)) => return Err(error),
                Err(error) => {
                    tracing::error!("{error}: requests are served and counted, and stored when it is well again");
                    past = timeout(START_PATIENCE, ledger::glimpse_at_store(&data_dir)).await.unwrap_or_default();
                    storing::Connection::default()
                }
            },
            Err(_) => {
                tracing::warn!("the database takes its time: requests are served, what it remembers is taken in later");
                storing::Connection::Opening(opening)
            }
        };
        let journal = match read {
            Ok(read) => {
                let (journal, journaled) = open_journal(&data_dir, read.unwrap_or_default());
                past.entries = journaled.entries;
                // A clock that stepped back began a new pass, so the later of two readings is that of the later pass.
                past.at = past.at.into_iter().chain(journaled.at).max_by_key(|reading| (reading.pass, reading.now));
                Ok(journal)
            }
            Err(_) => {
                tracing::warn!("the journal takes its time: requests are served, what it counted is taken in later");
                Err(reading)
            }
        };
        let zone = past.zone.clone();
        Ok(Recorder { data_dir, journal, store, past, zone })
    }
}

impl Recorder {
    /// The clock when something was last written down.
    pub fn last_reading(&self) -> Option<Reading> {
        self.past.at
    }

    /// What was written down before: for the harvest, before anything is counted.
    pub fn take_past(&mut self) -> Past {
        std::mem::take(&mut self.past)
    }

    /// Starts to write down what the harvest has.
    pub fn start(
        self,
        harvest: mpsc::Sender<Errand>,
        clock: Arc<Clock>,
        retention: watch::Receiver<Retention>,
        gauges: Gauges,
    ) -> Recording {
        let [(stop_journaling, journaling_stopped), (stop_storing, storing_stopped)] =
            [watch::channel(false), watch::channel(false)];
        let (journal, replaying) = match self.journal {
            Ok(journal) => (Some(journal), None),
            Err(reading) => (None, Some(reading)),
        };
        let journal = Arc::new(Mutex::new(journal));
        let (pen, dir) = (harvest.clone(), self.data_dir.clone());
        let journaling = Journaling::new(dir, pen, Arc::clone(&journal), replaying, clock, gauges.clone());
        let storing = Storing::new(self.data_dir, self.store, self.zone, harvest, journal, retention, gauges);
        Recording {
            journaling: Loop { stop: stop_journaling, task: tokio::spawn(journaling.run(journaling_stopped)) },
            storing: Loop { stop: stop_storing, task: tokio::spawn(storing.run(storing_stopped)) },
        }
    }
}

impl Recording {
    /// Writes down what is left, as far as the disk takes it within `patience`.
    pub async fn finish(self, patience: Duration) {
        let finished = timeout(patience, async {
            // The journal first: what it takes last the store takes too, and it is empty.
            for Loop { stop, task } in [self.journaling, self.storing] {
                _ = stop.send(true);
                _ = task.await;
            }
        });
        if finished.await.is_err() {
            tracing::error!("the disk did not take in time what was counted last");
        }
    }
}

/// The journal that goes on behind what was read, and what that says.
fn open_journal(data_dir: &Path, mut journaled: Journaled) -> (Journal, Past) {
    journaled.set_damaged_aside();
    (Journal::new(data_dir, journaled.last), journaled.past)
}

/// Asks the harvest. `None`: it is gone.
async fn ask<T>(harvest: &mpsc::Sender<Errand>, errand: impl FnOnce(oneshot::Sender<T>) -> Errand) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    harvest.send(errand(reply)).await.ok()?;
    answer.await.ok()
}

#[cfg(test)]
mod tests;
