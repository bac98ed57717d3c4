//! Harvest -> journal and store: what was counted is written down, so that no restart forgets it.
//!
//! Two loops. One asks four times a second for counts that changed and appends them to the journal. The other folds
//! accounts into the store when a bucket closes, seals days, trims what is old, and removes the journal's files when the
//! store has what they say. Neither is ever waited for: while the disk is full, slow or gone the harvest goes on, and
//! what was not written is written when the disk is back.

mod gauges;
mod storing;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::harvest::{Errand, Past};
use super::ledger::{self, Journaled, Stored};
use crate::clock::{Clock, Reading, UnixTime};
use crate::journal::{Entry, Journal};
use crate::store::StoreError;
pub use gauges::Gauges;
use storing::Storing;

/// How often counts are journaled. Workers ship theirs five times a second, so a killed process loses less than half a
/// second of arrivals.
const JOURNAL_EVERY: Duration = Duration::from_millis(250);
/// How often the disk is asked to keep what the journal has: the bound of what a power cut costs.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// How long a start waits for the store. After it requests are served, and what the store remembers is taken in when it
/// comes.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// The journal's bytes beyond which nothing is appended until the store has taken what it says.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;
/// Counts that wait for a journal that cannot be written; beyond, the store alone will have them.
const MAX_PENDING: usize = 1_000_000;

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
    journal: Journal,
    store: storing::Connection,
    past: Vec<Past>,
    at: Option<Reading>,
}

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

impl Recorder {
    /// Reads what was written down before.
    ///
    /// # Errors
    /// If a newer Lockgate wrote it: this one must not. Whatever else is wrong is reported, and tried again later.
    pub async fn begin(data_dir: &Path, now: UnixTime) -> Result<Self, StoreError> {
        let began = Instant::now();
        let mut opening = tokio::spawn(ledger::open_store(data_dir.to_owned(), now));
        let directory = data_dir.to_owned();
        let reading = spawn_blocking(move || ledger::read_journal(&directory));
        let journaled = match timeout(START_PATIENCE, reading).await {
            Ok(journaled) => journaled.unwrap_or_default(),
            Err(_) => {
                tracing::error!("the journal cannot be read in time: what it had counted is not known until a restart");
                Journaled::default()
            }
        };
        let Journaled { past: journaled, at: journaled_at, last } = journaled;
        let mut recorder = Self {
            data_dir: data_dir.to_owned(),
            journal: Journal::new(data_dir, last),
            store: storing::Connection::default(),
            past: Vec::new(),
            at: journaled_at,
        };
        match timeout(START_PATIENCE.saturating_sub(began.elapsed()), &mut opening).await {
            Ok(opened) => match storing::opened(opened) {
                Ok(Stored { store, past, at }) => {
                    recorder.store = storing::Connection::Open(store);
                    recorder.take_in((past, at));
                }
                Err(error @ StoreError::Newer(_)) => return Err(error),
                Err(error) => {
                    tracing::error!("{error}: requests are served and counted, and stored when it is well again");
                    let glimpse = timeout(START_PATIENCE, ledger::glimpse_at_store(data_dir)).await;
                    recorder.take_in(glimpse.unwrap_or_default());
                }
            },
            Err(_) => {
                tracing::warn!("the database takes its time: requests are served, what it remembers is taken in later");
                recorder.store = storing::Connection::Opening(opening);
            }
        }
        recorder.past.push(journaled);
        Ok(recorder)
    }

    /// A clock that stepped back began a new pass, so the later of two readings is that of the later pass.
    fn take_in(&mut self, (past, at): (Past, Option<Reading>)) {
        self.past.push(past);
        self.at = self.at.into_iter().chain(at).max_by_key(|reading| (reading.pass, reading.now));
    }

    /// The clock when something was last written down.
    pub fn last_reading(&self) -> Option<Reading> {
        self.at
    }

    /// What was written down before: for the harvest, before anything is counted.
    pub fn take_past(&mut self) -> Vec<Past> {
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
        let journal = Arc::new(Mutex::new(self.journal));
        let journaling = Journaling {
            harvest: harvest.clone(),
            journal: Arc::clone(&journal),
            clock,
            gauges: gauges.clone(),
            pending: HashMap::new(),
            is_failing: false,
        };
        let storing = Storing::new(self.data_dir, self.store, harvest, journal, retention, gauges);
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

/// Appends what changed to the journal.
struct Journaling {
    harvest: mpsc::Sender<Errand>,
    journal: Arc<Mutex<Journal>>,
    clock: Arc<Clock>,
    gauges: Gauges,
    /// What the journal did not take yet.
    pending: HashMap<(Arc<str>, i64, u32), Entry>,
    is_failing: bool,
}

impl Journaling {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut tick = interval(JOURNAL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut synced = Instant::now();
        loop {
            let is_last = tokio::select! {
                _ = tick.tick() => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            let Some(changes) = ask(&self.harvest, Errand::Changes).await else { return };
            let sync = is_last || synced.elapsed() >= SYNC_EVERY;
            self.append(changes, sync).await;
            if sync {
                synced = Instant::now();
            }
            if is_last {
                return;
            }
        }
    }

    async fn append(&mut self, mut changes: Vec<Entry>, sync: bool) {
        if !self.pending.is_empty() {
            changes.into_iter().for_each(|entry| _ = self.pending.insert(key(&entry), entry));
            changes = self.pending.drain().map(|(_, entry)| entry).collect();
        }
        let (journal, at) = (Arc::clone(&self.journal), self.clock.read());
        let timer = self.gauges.time("journal");
        let written = spawn_blocking(move || {
            let mut journal = lock(&journal);
            let outcome = write(&mut journal, at, &changes, sync);
            (outcome, journal.bytes(), changes)
        });
        let Ok((outcome, bytes, changes)) = written.await else { return };
        self.gauges.journal_bytes(bytes);
        match outcome {
            Ok(()) => {
                timer.observe_duration();
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the journal can be written again");
                }
            }
            Err(error) => {
                timer.stop_and_discard();
                self.gauges.failed("journal");
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!("the journal cannot be written: {error}; counting goes on in memory");
                }
                self.pending = changes.into_iter().take(MAX_PENDING).map(|entry| (key(&entry), entry)).collect();
            }
        }
    }
}

fn key(entry: &Entry) -> (Arc<str>, i64, u32) {
    (Arc::clone(&entry.name), entry.bucket.0, entry.pass)
}

fn write(journal: &mut Journal, at: Reading, changes: &[Entry], sync: bool) -> std::io::Result<()> {
    if !changes.is_empty() {
        if journal.bytes() > MAX_JOURNAL_BYTES {
            return Err(std::io::Error::other("it is full, because the database does not take what it says"));
        }
        journal.append(at, changes)?;
    }
    if sync { journal.sync() } else { Ok(()) }
}

/// Asks the harvest. `None`: it is gone.
async fn ask<T>(harvest: &mpsc::Sender<Errand>, errand: impl FnOnce(oneshot::Sender<T>) -> Errand) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    harvest.send(errand(reply)).await.ok()?;
    answer.await.ok()
}

/// The journal. If its last holder panicked, a torn frame at worst ends its file.
fn lock(journal: &Mutex<Journal>) -> std::sync::MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
