//! Who can set TXT records, for all orders together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::{Record, clear_all};
use crate::dns::{DnsError, Shelves, TxtRecords};
use crate::issuance::Dns;
use crate::vault::read_secret;

/// How long it may take to read a provider's secrets.
const READING_PATIENCE: Duration = Duration::from_secs(10);
/// The pauses before what could not be cleared is tried again.
const PAUSES: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(600)];
/// Records that wait to be tried again; more are given up.
const WAITING_MAX: usize = 1000;
/// How long the end of the process waits for records to be cleared.
const ENDING_PATIENCE: Duration = Duration::from_secs(2);

/// Who can set TXT records, by how it is configured.
pub struct Providers {
    state: Mutex<State>,
    /// Outlives what is open: orders under way may have been told otherwise who sets the records of the same zone.
    shelves: Arc<Shelves>,
    waiting: Arc<Semaphore>,
    pauses: &'static [Duration],
}

#[derive(Default)]
struct State {
    open: Vec<Opened>,
    /// How often everything was forgotten.
    closings: u64,
    /// What no authority was told of yet.
    untold: Vec<Weak<Record>>,
    is_ending: bool,
}

type Opened = (Arc<Dns>, Arc<TxtRecords>);

impl Default for Providers {
    fn default() -> Self {
        Self::pausing(&PAUSES)
    }
}

impl Providers {
    pub(super) fn pausing(pauses: &'static [Duration]) -> Self {
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        Self { state: Mutex::default(), shelves: Arc::default(), waiting, pauses }
    }

    /// Forgets how they were opened: the next order reads their secrets anew. Orders under way keep theirs.
    pub fn close(&self) {
        let mut state = self.lock();
        state.open.clear();
        state.closings = state.closings.wrapping_add(1);
    }

    /// Who sets records as `dns` says, its secrets read.
    ///
    /// # Errors
    /// If it cannot be opened, which is no name's fault.
    pub(super) async fn get(&self, dns: &Arc<Dns>) -> Result<Arc<TxtRecords>, String> {
        let closings = {
            let state = self.lock();
            if let Some(records) = state.find(dns) {
                return Ok(records);
            }
            state.closings
        };
        let (how, shelves) = (Arc::clone(dns), Arc::clone(&self.shelves));
        let reading = spawn_blocking(move || {
            TxtRecords::open(&how, shelves, |source| read_secret(source).map_err(|error| error.to_string()))
        });
        let read = timeout(READING_PATIENCE, reading).await.map_err(|_| {
            format!("its secrets could not be read within {}", humantime::format_duration(READING_PATIENCE))
        })?;
        let records = Arc::new(read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?);
        let mut state = self.lock();
        if let Some(other) = state.find(dns) {
            return Ok(other);
        }
        // What was read before everything was forgotten may be old: it is for this order alone.
        if state.closings == closings {
            // Those that no configuration and no order knows any more.
            state.open.retain(|(dns, records)| Arc::strong_count(dns) > 1 || Arc::strong_count(records) > 1);
            state.open.push((Arc::clone(dns), Arc::clone(&records)));
        }
        Ok(records)
    }

    /// Notes what is about to be set. At the end of the process nothing is set any more, and this does not come back.
    pub(super) async fn note(&self, record: &Arc<Record>) {
        if !self.note_untold(record) {
            std::future::pending::<()>().await;
        }
    }

    /// Notes that an authority is told of these now. At the end of the process it is told nothing, and this does not come
    /// back: the order goes on when the process has started again.
    pub(super) async fn tell(&self, records: &[Arc<Record>]) {
        if !self.note_told(records) {
            std::future::pending::<()>().await;
        }
    }

    fn note_untold(&self, record: &Arc<Record>) -> bool {
        let mut state = self.lock();
        state.untold.retain(|record| record.strong_count() > 0);
        state.untold.push(Arc::downgrade(record));
        !state.is_ending
    }

    fn note_told(&self, records: &[Arc<Record>]) -> bool {
        let mut state = self.lock();
        let is_told = |record: &Weak<Record>| records.iter().any(|it| Weak::ptr_eq(record, &Arc::downgrade(it)));
        if !state.is_ending {
            state.untold.retain(|record| !is_told(record));
        }
        records.is_empty() || !state.is_ending
    }

    /// Clears what no authority was told of, for the process ends. What one looks for at this moment stays: without it,
    /// the order would be lost.
    pub async fn end(&self) {
        let records: Vec<_> = {
            let mut state = self.lock();
            state.is_ending = true;
            state.untold.drain(..).filter_map(|record| record.upgrade()).collect()
        };
        let left = |_, error| tracing::warn!("a TXT record of an order under way is left: {error}");
        _ = timeout(ENDING_PATIENCE, clear_all(records, left)).await;
    }

    /// Has a record cleared that could not be now, after some pauses, and gives it up then. It does no harm.
    pub(super) fn sweep_later(&self, record: Arc<Record>, error: &DnsError) {
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return tracing::warn!("a TXT record of an order that is over is left, as many others are: {error}");
        };
        tracing::warn!("a TXT record of an order that is over is left for now: {error}");
        let pauses = self.pauses;
        tokio::spawn(async move {
            let _permit = permit;
            for (number, pause) in pauses.iter().enumerate() {
                sleep(*pause).await;
                match record.records.sweep(&record.shown).await {
                    Ok(()) => return,
                    Err(error) if number + 1 == pauses.len() => {
                        tracing::warn!("a TXT record of an order that is over is left for good: {error}");
                    }
                    Err(_) => {}
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, dns: &Arc<Dns>) -> Option<Arc<TxtRecords>> {
        self.open.iter().find(|(known, _)| known == dns).map(|(_, records)| Arc::clone(records))
    }
}

#[cfg(test)]
impl Providers {
    /// Whether no record waits to be cleared again.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.available_permits() == WAITING_MAX
    }
}
