//! The journal's side of the recorder.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::{Gauges, SharedJournal, ask, open_journal};
use crate::clock::{Clock, Reading};
use crate::journal::{Entry, Journal};
use crate::upkeep::harvest::Errand;
use crate::upkeep::ledger::Journaled;

/// How often counts are journaled. Workers ship theirs five times a second, so a killed process loses less than half a
/// second of arrivals.
const JOURNAL_EVERY: Duration = Duration::from_millis(250);
/// How often the disk is asked to keep what the journal has: the bound of what a power cut costs.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// The journal's bytes beyond which nothing is appended until the store has taken what it says.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;
/// Counts that wait for a journal that cannot be written. Beyond, the oldest are left to the store alone.
const MAX_PENDING: usize = 1_000_000;
/// The first and the longest pause after a failure.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// Appends what changed to the journal.
pub(super) struct Journaling {
    data_dir: PathBuf,
    harvest: mpsc::Sender<Errand>,
    journal: SharedJournal,
    /// The old journal, while it is still being read.
    replaying: Option<JoinHandle<Journaled>>,
    clock: Arc<Clock>,
    gauges: Gauges,
    /// What the journal did not take yet, the oldest first.
    pending: Vec<Entry>,
    syncing: Option<JoinHandle<std::io::Result<()>>>,
    synced: Instant,
    pause: Duration,
    retry_at: Option<Instant>,
}

impl Journaling {
    pub(super) fn new(
        data_dir: PathBuf,
        harvest: mpsc::Sender<Errand>,
        journal: SharedJournal,
        replaying: Option<JoinHandle<Journaled>>,
        clock: Arc<Clock>,
        gauges: Gauges,
    ) -> Self {
        let [pause, _] = RETRY;
        let (pending, synced) = (Vec::new(), Instant::now());
        Self {
            data_dir,
            harvest,
            journal,
            replaying,
            clock,
            gauges,
            pending,
            syncing: None,
            synced,
            pause,
            retry_at: None,
        }
    }

    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut tick = interval(JOURNAL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = tick.tick() => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            if !self.has_replayed().await {
                if is_last {
                    return;
                }
                continue;
            }
            if is_last || self.retry_at.is_none_or(|at| Instant::now() >= at) {
                let Some(changes) = ask(&self.harvest, Errand::Changes).await else { return };
                self.append(changes).await;
            }
            if is_last {
                self.sync().await;
                return self.reap().await;
            }
            if self.syncing.as_ref().is_some_and(JoinHandle::is_finished) {
                self.reap().await;
            }
            if self.synced.elapsed() >= SYNC_EVERY && self.syncing.is_none() {
                self.sync().await;
            }
        }
    }

    /// Whether what the old journal says was taken in: only then counts of this process may stand in the new one.
    async fn has_replayed(&mut self) -> bool {
        let Some(replaying) = self.replaying.take_if(|replaying| replaying.is_finished()) else {
            return self.replaying.is_none();
        };
        let (journal, past) = open_journal(&self.data_dir, replaying.await.unwrap_or_default());
        _ = self.harvest.send(Errand::Resume(Box::new(past))).await;
        *lock(&self.journal) = Some(journal);
        true
    }

    async fn append(&mut self, changes: Vec<Entry>) {
        let mut entries = std::mem::take(&mut self.pending);
        entries.extend(changes);
        if entries.is_empty() {
            return;
        }
        let (journal, at) = (Arc::clone(&self.journal), self.clock.read());
        let timer = self.gauges.time("journal");
        let written = spawn_blocking(move || {
            let mut journal = lock(&journal);
            let Some(journal) = journal.as_mut() else { return (Ok(()), 0, entries) };
            (append(journal, at, &entries), journal.bytes(), entries)
        });
        let Ok((outcome, bytes, mut entries)) = written.await else { return };
        self.gauges.journal_bytes(bytes);
        match outcome {
            Ok(()) => {
                timer.observe_duration();
                let [first, _] = RETRY;
                if self.retry_at.take().is_some() {
                    tracing::info!("the journal can be written again");
                }
                self.pause = first;
            }
            Err(error) => {
                timer.stop_and_discard();
                self.gauges.failed("journal");
                let [_, longest] = RETRY;
                if self.retry_at.replace(Instant::now() + self.pause).is_none() {
                    tracing::error!("the journal cannot be written: {error}; counting goes on in memory");
                }
                self.pause = (self.pause * 2).min(longest);
                entries.drain(..entries.len().saturating_sub(MAX_PENDING));
                self.pending = entries;
            }
        }
    }

    /// Has the disk asked to keep what was appended, beside what goes on.
    async fn sync(&mut self) {
        self.reap().await;
        self.synced = Instant::now();
        let journal = Arc::clone(&self.journal);
        self.syncing = Some(spawn_blocking(move || {
            let unsynced = lock(&journal).as_mut().map(Journal::unsynced);
            unsynced.map_or(Ok(()), |unsynced| unsynced?.wait())
        }));
    }

    /// Waits for what the disk says to the last time that it was asked.
    async fn reap(&mut self) {
        if let Some(syncing) = self.syncing.take()
            && let Ok(Err(error)) = syncing.await
        {
            self.gauges.failed("journal");
            tracing::error!("the disk does not keep what the journal has: {error}; a power cut would cost it");
            if let Some(journal) = lock(&self.journal).as_mut() {
                journal.doubt();
            }
        }
    }
}

fn append(journal: &mut Journal, at: Reading, entries: &[Entry]) -> std::io::Result<()> {
    if journal.bytes() > MAX_JOURNAL_BYTES {
        return Err(std::io::Error::other("it is full, because the database does not take what it says"));
    }
    journal.append(at, entries)
}

/// The journal. If its last holder panicked, a torn frame at worst ends its file.
pub(super) fn lock(journal: &SharedJournal) -> std::sync::MutexGuard<'_, Option<Journal>> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::meter::Bucket;

    #[test]
    fn a_journal_that_nobody_empties_is_full_one_day() {
        let dir = tempfile::tempdir().unwrap();
        let at = Reading { now: UnixTime::from_secs(0), pass: 0 };
        let entries = [Entry { name: "a".into(), bucket: Bucket(0), pass: 0, count: 1 }];
        append(&mut Journal::new(dir.path(), None), at, &entries).unwrap();
        let last = crate::journal::replay(dir.path()).unwrap().last;
        let file = dir.path().join("journal").join("000000000001.log");
        for (bytes, is_taken) in [(MAX_JOURNAL_BYTES, true), (MAX_JOURNAL_BYTES + 1, false)] {
            std::fs::File::options().write(true).open(&file).unwrap().set_len(bytes).unwrap();
            assert_eq!(append(&mut Journal::new(dir.path(), last), at, &entries).is_ok(), is_taken);
        }
    }

    #[tokio::test]
    async fn at_the_end_the_disk_is_asked_to_keep_what_was_appended() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(std::sync::Mutex::new(Some(Journal::new(dir.path(), None))));
        let (harvest, mut asked) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(Errand::Changes(reply)) = asked.recv().await {
                let entry = Entry { name: "a".into(), bucket: Bucket(0), pass: 0, count: 1 };
                _ = reply.send(vec![entry]);
            }
        });
        let gauges = Gauges::register(&prometheus::Registry::new()).unwrap();
        let (shared, clock) = (Arc::clone(&journal), Arc::new(Clock::default()));
        let journaling = Journaling::new(dir.path().to_owned(), harvest, shared, None, clock, gauges);
        journaling.run(watch::channel(true).1).await;
        let mut journal = lock(&journal);
        let journal = journal.as_mut().unwrap();
        assert!(journal.bytes() > 0);
        assert_eq!(format!("{:?}", journal.unsynced().unwrap()), "Unsynced { files: [], directories: [] }");
    }
}
