//! The store's side of the recorder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::journaling::lock;
use super::{Gauges, Opening, Retention, SharedJournal, ask};
use crate::clock::{Reading, UnixTime};
use crate::journal::{Journal, Segment};
use crate::meter::Bucket;
use crate::store::{FILE, Fold, Seal, Store, StoreError};
use crate::upkeep::harvest::{Errand, Status};
use crate::upkeep::ledger::{self, Stored};
use crate::usage::Hour;

/// How often it is looked for something to do.
const STEP: Duration = Duration::from_millis(250);
/// Accounts folded when a bucket closes. With more active ones than this each waits its turn, and the journal has what
/// it counted meanwhile.
const FOLDS_AT_ONCE: usize = 5_000;
/// Accounts whose days are sealed in one transaction.
const SEALS_AT_ONCE: usize = 500;
/// The first pause after a failure; each is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// How often what is old is looked for, when there was no more of it.
const TRIM_EVERY: Duration = Duration::from_secs(60);
/// How many rows of it are forgotten at a time; other work has its turn in between.
const TRIMMED_AT_ONCE: u32 = 2_000;

/// The store, as far as it is there.
#[derive(Debug, Default)]
pub(super) enum Connection {
    /// It could not be opened.
    #[default]
    Closed,
    /// It is being opened and read.
    Opening(Opening),
    /// It is there, and what it remembers was taken in.
    Open(Store),
}

/// What was taken out of the harvest and is not stored yet.
enum Job {
    Folds(Vec<Fold>),
    Seals(Vec<Seal>),
}

/// A round through all accounts that waited when the journal's file was ended: at its end the store has what the file
/// says.
struct Round {
    /// The file; `None` if nothing was journaled.
    segment: Option<Segment>,
    /// Accounts with tickets before this one belong to the round.
    until: u64,
    zone: String,
}

pub(super) struct Storing {
    data_dir: PathBuf,
    store: Connection,
    harvest: mpsc::Sender<Errand>,
    journal: SharedJournal,
    retention: watch::Receiver<Retention>,
    gauges: Gauges,
    job: Option<Job>,
    round: Option<Round>,
    folded_by: Option<Bucket>,
    /// The zone whose days all that is stored counts: it follows a change when a round has stored all accounts anew.
    zone: Option<String>,
    trim_at: Instant,
    pause: Duration,
    retry_at: Option<Instant>,
}

/// What came of opening the store.
pub(super) fn opened(outcome: Result<Result<Stored, StoreError>, JoinError>) -> Result<Stored, StoreError> {
    outcome.unwrap_or_else(|panic| {
        let source = std::io::Error::other(panic).into();
        Err(StoreError::Unavailable { path: PathBuf::new(), source })
    })
}

impl Storing {
    pub(super) fn new(
        data_dir: PathBuf,
        store: Connection,
        zone: Option<String>,
        harvest: mpsc::Sender<Errand>,
        journal: SharedJournal,
        retention: watch::Receiver<Retention>,
        gauges: Gauges,
    ) -> Self {
        Self {
            data_dir,
            store,
            harvest,
            journal,
            retention,
            gauges,
            job: None,
            round: None,
            folded_by: None,
            zone,
            trim_at: Instant::now(),
            pause: FIRST_RETRY,
            retry_at: None,
        }
    }

    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut tick = interval(STEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                _ = tick.tick() => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            let Some(status) = ask(&self.harvest, Errand::Status).await else { return };
            let in_hand = self.job.as_ref().map_or(0, Job::len);
            self.gauges.waiting(&status, in_hand);
            if is_last {
                self.retry_at = None;
                return self.finish(status).await;
            }
            if self.retry_at.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            self.retry_at = None;
            self.step(&status).await;
        }
    }

    async fn step(&mut self, status: &Status) {
        let Some(store) = self.open(status.now.now).await else { return };
        if !self.settle(&store, status.now).await {
            return;
        }
        // Another one, not a later one: the clock may have gone back.
        if status.closed_by != self.folded_by {
            self.folded_by = status.closed_by;
            self.fold(&store, status).await;
        }
        // What is in hand must be settled before anything else is taken: nobody else has it.
        if self.job.is_none() && status.to_seal > 0 {
            self.seal(&store).await;
        }
        if self.job.is_none() && status.is_trusted && Instant::now() >= self.trim_at {
            self.trim(&store, status).await;
        }
    }

    /// Everything that waits is stored now, or never by this process.
    async fn finish(mut self, mut status: Status) {
        let Some(store) = self.open(status.now.now).await else { return };
        while self.settle(&store, status.now).await {
            if status.to_seal > 0 {
                self.seal(&store).await;
            } else if status.unsaved > 0 || self.round.is_some() {
                self.fold(&store, &status).await;
            } else {
                break;
            }
            let Some(next) = ask(&self.harvest, Errand::Status).await else { break };
            status = next;
        }
        store.close().await;
    }

    /// The store, if it is there and what it remembers was taken in.
    async fn open(&mut self, now: UnixTime) -> Option<Store> {
        let opening = match &mut self.store {
            Connection::Open(store) => return Some(store.clone()),
            Connection::Opening(opening) if !opening.is_finished() => return None,
            Connection::Opening(opening) => opening,
            Connection::Closed => {
                let opening = tokio::spawn(ledger::open_store(self.data_dir.clone(), now));
                self.store = Connection::Opening(opening);
                return None;
            }
        };
        let outcome = opened(opening.await);
        self.store = Connection::Closed;
        match outcome {
            Ok(Stored { store, past, .. }) => {
                self.zone = self.zone.take().or_else(|| past.zone.clone());
                self.harvest.send(Errand::Resume(Box::new(past))).await.ok()?;
                self.reopened(store.clone()).await;
                self.succeeded();
                Some(store)
            }
            Err(error) => {
                self.failed("open", &error);
                None
            }
        }
    }

    /// Carries out what was taken on. Says whether nothing is left of it.
    async fn settle(&mut self, store: &Store, now: Reading) -> bool {
        let Some(job) = &self.job else { return true };
        let operation = job.operation();
        let timer = self.gauges.time(operation);
        let zone = self.zone.clone().unwrap_or_default();
        let outcome = match job {
            Job::Folds(folds) => store.fold(folds, now, &zone).await,
            Job::Seals(seals) => store.seal(seals, now).await.map(|records| tell(&records)),
        };
        match outcome {
            Ok(()) => {
                timer.observe_duration();
                self.job = None;
                self.succeeded();
                true
            }
            Err(error) => {
                timer.stop_and_discard();
                self.failed(operation, &error);
                if matches!(error, StoreError::Damaged { .. }) {
                    self.replace(store, now.now).await;
                } else if !self.data_dir.join(FILE).exists() {
                    // Somebody removed it: opening makes it anew.
                    store.close().await;
                    self.store = Connection::Closed;
                }
                false
            }
        }
    }

    /// The database is damaged: a new one gets everything that is known.
    async fn replace(&mut self, store: &Store, now: UnixTime) {
        store.close().await;
        self.store = Connection::Closed;
        match Store::replace(&self.data_dir, now).await {
            Ok(opened) => {
                ledger::report_set_aside(&opened);
                self.reopened(opened.store).await;
                self.retry_at = None;
            }
            Err(error) => self.failed("open", &error),
        }
    }

    /// The store may be another one than before: it gets every account, and a round begins anew.
    async fn reopened(&mut self, store: Store) {
        self.store = Connection::Open(store);
        self.round = None;
        _ = self.harvest.send(Errand::SaveAll).await;
    }

    async fn fold(&mut self, store: &Store, status: &Status) {
        if self.zone.is_none() {
            self.zone = Some(status.zone.clone());
        }
        if self.round.is_none() && status.unsaved > 0 {
            let segment = self.on_journal(Journal::rotate).await.flatten();
            let Some(after) = ask(&self.harvest, Errand::Status).await else { return };
            self.round = Some(Round { segment, until: after.next, zone: after.zone });
        }
        self.fold_some(store, status.now).await;
        let Some(after) = ask(&self.harvest, Errand::Status).await else { return };
        let is_round_over = |round: &mut Round| after.oldest.is_none_or(|oldest| oldest >= round.until);
        if self.job.is_none()
            && let Some(Round { segment, zone, .. }) = self.round.take_if(is_round_over)
        {
            self.zone = Some(zone);
            if let Some(segment) = segment
                && let Some(Err(error)) = self.on_journal(move |journal| journal.remove_through(segment)).await
            {
                tracing::warn!("an old file of the journal cannot be removed: {error}");
            }
        }
    }

    async fn fold_some(&mut self, store: &Store, now: Reading) {
        let folds = ask(&self.harvest, |reply| Errand::Folds(FOLDS_AT_ONCE, reply)).await.unwrap_or_default();
        if !folds.is_empty() {
            self.job = Some(Job::Folds(folds));
            self.settle(store, now).await;
        }
    }

    async fn seal(&mut self, store: &Store) {
        loop {
            let seals = ask(&self.harvest, |reply| Errand::Seals(SEALS_AT_ONCE, reply)).await.unwrap_or_default();
            let Some(status) = ask(&self.harvest, Errand::Status).await else { return };
            if seals.is_empty() {
                return;
            }
            self.job = Some(Job::Seals(seals));
            if !self.settle(store, status.now).await {
                return;
            }
        }
    }

    async fn trim(&mut self, store: &Store, status: &Status) {
        let Retention { series, days } = *self.retention.borrow();
        let now = status.now.now;
        let ago = |kept: Duration| now.plus_secs(-i64::try_from(kept.as_secs()).unwrap_or(i64::MAX));
        let Ok(oldest) = Timestamp::from_second(ago(days).secs()) else { return };
        let zone = TimeZone::get(&status.zone).unwrap_or(TimeZone::UTC);
        let (hour, date) = (Hour::of(Bucket::of(ago(series))), oldest.to_zoned_datetime(zone).date());
        let timer = self.gauges.time("trim");
        match store.trim(hour, date, TRIMMED_AT_ONCE).await {
            Ok(trimmed) => {
                timer.observe_duration();
                if trimmed < u64::from(TRIMMED_AT_ONCE) {
                    self.trim_at = Instant::now() + TRIM_EVERY;
                }
            }
            Err(error) => {
                timer.stop_and_discard();
                self.failed("trim", &error);
            }
        }
    }

    async fn on_journal<T: Send + 'static>(&self, work: impl FnOnce(&mut Journal) -> T + Send + 'static) -> Option<T> {
        let journal = Arc::clone(&self.journal);
        spawn_blocking(move || lock(&journal).as_mut().map(work)).await.ok().flatten()
    }

    fn failed(&mut self, operation: &str, error: &StoreError) {
        self.gauges.failed(operation);
        if self.pause == FIRST_RETRY {
            tracing::error!("{error}: requests are served and counted, and stored when it is well again");
        }
        self.retry_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
    }

    fn succeeded(&mut self) {
        if std::mem::replace(&mut self.pause, FIRST_RETRY) != FIRST_RETRY {
            tracing::info!("the database is well again");
        }
    }
}

impl Job {
    fn operation(&self) -> &'static str {
        match self {
            Self::Folds(_) => "fold",
            Self::Seals(_) => "seal",
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Folds(folds) => folds.len(),
            Self::Seals(seals) => seals.len(),
        }
    }
}

fn tell(records: &[crate::usage::DayRecord]) {
    for record in records {
        let (domain, date, hash) = (&record.domain, record.facts.date, record.hash);
        tracing::debug!(%domain, %date, %hash, "sealed");
    }
}
