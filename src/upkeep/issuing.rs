//! Certificates that look after themselves: whoever is due gets one, one order at a time per name, so many at once.
//!
//! A tick, then `step(now)`: what the operator wants is looked at when it has changed, what is due is started, what was
//! issued is published. Orders themselves run beside it.

mod accounts;
mod asking;
mod attempt;
mod cleaning;
mod due;
mod failure;
mod keeping;
mod metrics;
mod once;
mod order;
mod outcome;
mod pauses;
mod planning;
mod proving;
mod queue;
mod renewal_info;
mod starting;
mod strangers;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::alerts::Alerts;
use super::custody::{Contents, Custody, pen};
use super::on_demand::{Admission, Asker};
use crate::challenge::Board;
use crate::clock::{Clock, UnixTime};
use crate::control::{AskIssuing, Control, Kept, Ordered};
use crate::issuance::{Acme, Authority};
use crate::name::DomainName;
use crate::snapshot::Live;
use crate::store::inventory::{Attempts, CertificateId, Order, OrderId};
use accounts::Accounts;
pub use due::renewal_at;
pub use failure::Failure;
use metrics::Metrics;
use once::Once;
use order::{Job, Workshop};
pub use proving::Providers;
use queue::Task;
use renewal_info::RenewalInfo;
use strangers::Strangers;
use wanted::Wanted;

/// How often it is looked who is due.
const TICK: Duration = Duration::from_millis(250);
/// Orders started per tick: a thousand names that are due at once do not shake hands all at once.
const STARTS_PER_TICK: usize = 4;
/// Ticks between two looks at what may be given up: a hundred thousand names that live for six days replace more than
/// a thousand an hour.
const TICKS_PER_CLEANING: u32 = 4 * 60;

/// So many failures in a row, a day of them, and optional names are left out, whatever it is that fails.
const OPTIONAL_UNTIL_FAILURES: u32 = 24;

/// An order that is under way.
struct UnderWay {
    /// What it is for.
    names: Vec<DomainName>,
    /// By whom.
    authority: Arc<Authority>,
}

/// The loop and what it knows.
pub struct Issuing {
    workshop: Arc<Workshop>,
    control: Arc<Mutex<Control>>,
    live: Arc<Live>,
    alerts: Arc<Alerts>,
    /// Whether the inventory has been read: before, nobody knows what is held already.
    is_open: bool,
    edition: u64,
    /// The clock's, as of the last plan.
    pass: u32,
    acme: Option<Arc<Acme>>,
    has_http_listener: bool,
    wanted: Wanted,
    once: Once,
    renewal_info: RenewalInfo,
    attempts: HashMap<Task, Attempts>,
    orders: HashMap<Task, (OrderId, Order)>,
    under_way: HashMap<Task, UnderWay>,
    /// Due, for a name that another order is under way for.
    held_back: Vec<Task>,
    running: JoinSet<(Job, Result<Arc<Kept>, Failure>)>,
    /// Which of those is whose: one that panics says no more.
    handles: HashMap<tokio::task::Id, Task>,
    /// Issued and stored, to be published.
    fresh: Vec<Arc<Kept>>,
    /// Who waits for an order of theirs.
    askers: HashMap<Task, Vec<oneshot::Sender<Ordered>>>,
    /// Who is told when what is fresh is published.
    told_when_published: Vec<(oneshot::Sender<Ordered>, Ordered)>,
    /// Names that nobody configured.
    strangers: Strangers,
    /// Optional names that could not be proved since the last success.
    left_out: HashMap<Task, HashSet<DomainName>>,
    /// Certificates whose keys do not open although the vault does.
    broken: HashSet<CertificateId>,
    /// As of the last look.
    key_changes: u64,
    ticks: u32,
    metrics: Metrics,
}

impl Issuing {
    /// Knows nothing yet. On `quiet` runs what nobody waits for.
    ///
    /// # Errors
    /// If a metric's name is taken.
    pub fn new(
        custody: Arc<Custody>,
        control: Arc<Mutex<Control>>,
        board: Arc<Board>,
        clock: Arc<Clock>,
        alerts: Arc<Alerts>,
        quiet: Handle,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let live = Arc::clone(control.lock().unwrap_or_else(PoisonError::into_inner).live());
        let (accounts, asker) = (Accounts::new(Arc::clone(&custody)), Arc::default());
        let workshop = Arc::new(Workshop { custody, accounts, board, providers: Arc::default(), clock, asker, quiet });
        Ok(Self {
            renewal_info: RenewalInfo::new(Arc::clone(&workshop)),
            workshop,
            control,
            live,
            alerts,
            is_open: false,
            edition: 0,
            pass: 0,
            acme: None,
            has_http_listener: false,
            wanted: Wanted::default(),
            once: Once::default(),
            attempts: HashMap::new(),
            orders: HashMap::new(),
            under_way: HashMap::new(),
            held_back: Vec::new(),
            handles: HashMap::new(),
            running: JoinSet::new(),
            fresh: Vec::new(),
            askers: HashMap::new(),
            told_when_published: Vec::new(),
            strangers: Strangers::default(),
            left_out: HashMap::new(),
            broken: HashSet::new(),
            key_changes: 0,
            ticks: 0,
            metrics: Metrics::register(registry)?,
        })
    }

    /// Who is asked about names that nobody configured.
    pub fn asker(&self) -> &Arc<Asker> {
        &self.workshop.asker
    }

    /// Who sets TXT records: told when the process ends.
    pub fn providers(&self) -> &Arc<Providers> {
        &self.workshop.providers
    }

    /// Takes over what the inventory held. Its certificates are in the world already.
    pub fn take_over(&mut self, contents: Contents) {
        let task = |subject, role| Task { subject, role };
        self.attempts = contents.attempts.into_iter().map(|it| (task(it.subject.clone(), it.role), it)).collect();
        self.strangers.remember_failures(self.attempts.keys());
        self.orders = contents.orders.into_iter().map(|it| (task(it.1.subject.clone(), it.1.role), it)).collect();
        self.is_open = true;
        self.edition = 0;
    }

    /// Runs until the process ends. `opened` brings what the inventory held when it opens late.
    pub async fn run(
        mut self,
        mut asks: mpsc::Receiver<AskIssuing>,
        mut admissions: mpsc::Receiver<Admission>,
        mut opened: mpsc::Receiver<Contents>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.step(self.workshop.clock.read().now).await,
                Some(done) = self.running.join_next_with_id() => match done {
                    Ok((id, (job, outcome))) => {
                        self.handles.remove(&id);
                        self.finished(job, outcome).await;
                    }
                    Err(error) => self.broke_off(&error),
                },
                Some(contents) = opened.recv() => self.open_late(contents).await,
                Some((wanted, reply)) = asks.recv() => self.asked(&wanted, reply),
                Some((name, reply)) = admissions.recv() => self.admit(name, reply),
            }
        }
    }

    async fn open_late(&mut self, mut contents: Contents) {
        pen(&self.control).await.take_in(std::mem::take(&mut contents.certificates));
        self.take_over(contents);
    }

    /// What there is to do at `now`.
    pub async fn step(&mut self, now: UnixTime) {
        if !self.is_open {
            return;
        }
        self.look_at_the_world();
        while self.plan_some(now) {
            tokio::task::yield_now().await;
        }
        self.tell_whose_task_is_gone();
        self.look_at_the_keys(now);
        self.publish(now);
        self.start_what_is_due(now);
        self.renewal_info.step(now, &self.control, &self.wanted, &mut self.fresh).await;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_CLEANING) {
            self.clean(now).await;
        }
        self.metrics.under_way.set(i64::try_from(self.under_way.len()).unwrap_or(i64::MAX));
        let waiting = self.once.waiting(now) + self.wanted.waiting(now) + self.held_back.len();
        self.metrics.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

/// The pen, unless somebody writes at this moment.
fn try_lock(control: &Mutex<Control>) -> Option<MutexGuard<'_, Control>> {
    match control.try_lock() {
        Ok(control) => Some(control),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}
