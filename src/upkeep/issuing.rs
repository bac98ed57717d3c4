//! Certificates that look after themselves: whoever is due gets one, one order at a time per name, so many at once.
//!
//! A tick, then `step(now)`: what the operator wants is looked at when it has changed, what is due is started, what was
//! issued is published. Orders themselves run beside it.

mod accounts;
mod asking;
mod cleaning;
mod due;
mod order;
mod outcome;
mod proving;
mod queue;
mod renewal_info;
mod strangers;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::alerts::Alerts;
use super::custody::{Contents, Custody};
use super::on_demand::{Admission, Asker};
use crate::certificate::key_changes;
use crate::challenge::Board;
use crate::clock::{Clock, UnixTime};
use crate::control::{AskIssuing, Control, Kept, Ordered};
use crate::issuance::subject::{Subject, authorities_for};
use crate::issuance::{Acme, Authority, MAX_ORDERS};
use crate::name::DomainName;
use crate::snapshot::Live;
use crate::store::inventory::{Attempts, CertificateId, Order, OrderId, Role};
use accounts::Accounts;
pub use due::renewal_at;
use due::{Held, due, jitter};
pub use order::Failure;
use order::{Job, Workshop};
use proving::Providers;
use queue::{Queue, Task};
use renewal_info::RenewalInfo;
use strangers::Strangers;

/// How often it is looked who is due.
const TICK: Duration = Duration::from_millis(250);
/// Subjects planned while the pen is held: for a millisecond or two.
const PLANNED_AT_ONCE: usize = 500;
/// Orders started per tick: a thousand names that are due at once do not shake hands all at once.
const STARTS_PER_TICK: usize = 4;
/// Ticks between two looks at what may be given up: a hundred thousand names that live for six days replace more than
/// a thousand an hour.
const TICKS_PER_CLEANING: u32 = 4 * 60;

/// So many failures in a row, a day of them, and optional names are left out, whatever it is that fails.
const OPTIONAL_UNTIL_FAILURES: u32 = 24;

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
    subjects: HashMap<DomainName, Arc<Subject>>,
    /// Of what is wanted now, what was not planned yet.
    unplanned: Vec<DomainName>,
    /// What was asked for and is not configured.
    once: HashMap<Task, Arc<Subject>>,
    queue: Queue,
    renewal_info: RenewalInfo,
    attempts: HashMap<Task, Attempts>,
    orders: HashMap<Task, (OrderId, Order)>,
    /// With the names that each is for.
    under_way: HashMap<Task, Vec<DomainName>>,
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

#[derive(Debug)]
struct Metrics {
    orders: IntCounterVec,
    failures: IntCounterVec,
    under_way: IntGauge,
    waiting: IntGauge,
    put_off: IntCounter,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("lockgate_acme_orders_total", "Certificate orders by authority and outcome.");
        let orders = IntCounterVec::new(opts, &["ca", "result"])?;
        let opts =
            Opts::new("lockgate_acme_failures_total", "Certificate orders that failed, by authority and reason.");
        let failures = IntCounterVec::new(opts, &["ca", "reason"])?;
        let under_way = IntGauge::new("lockgate_acme_orders_under_way", "Certificate orders under way.")?;
        let waiting =
            IntGauge::new("lockgate_acme_orders_waiting", "Certificate orders that are due and wait for their turn.")?;
        let help = "Names on demand that were approved and not ordered: there were as many new ones in the hour as there may be.";
        let put_off = IntCounter::new("lockgate_on_demand_put_off_total", help)?;
        registry.register(Box::new(put_off.clone()))?;
        registry.register(Box::new(orders.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(under_way.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self { orders, failures, under_way, waiting, put_off })
    }
}

impl Issuing {
    /// Knows nothing yet.
    ///
    /// # Errors
    /// If a metric's name is taken.
    pub fn new(
        custody: Arc<Custody>,
        control: Arc<Mutex<Control>>,
        live: Arc<Live>,
        board: Arc<Board>,
        clock: Arc<Clock>,
        alerts: Arc<Alerts>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let (accounts, asker) = (Accounts::new(Arc::clone(&custody)), Arc::default());
        let workshop = Arc::new(Workshop { custody, accounts, board, providers: Providers::default(), clock, asker });
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
            subjects: HashMap::new(),
            unplanned: Vec::new(),
            once: HashMap::new(),
            queue: Queue::default(),
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
                Some(contents) = opened.recv() => self.open_late(contents),
                Some((wanted, reply)) = asks.recv() => self.asked(&wanted, reply),
                Some((name, reply)) = admissions.recv() => self.admit(name, reply),
            }
        }
    }

    fn open_late(&mut self, mut contents: Contents) {
        lock(&self.control).take_in(std::mem::take(&mut contents.certificates));
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
        self.look_at_the_keys(now);
        self.publish(now);
        self.start_what_is_due(now);
        self.renewal_info.step(now, &self.control, &mut self.fresh).await;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_CLEANING) {
            self.clean(now).await;
        }
        self.metrics.under_way.set(i64::try_from(self.under_way.len()).unwrap_or(i64::MAX));
        self.metrics.waiting.set(i64::try_from(self.queue.waiting(now) + self.held_back.len()).unwrap_or(i64::MAX));
    }

    /// Everything is to be planned anew if what is wanted, or a certificate file, has changed.
    fn look_at_the_world(&mut self) {
        let control = Arc::clone(&self.control);
        // Whoever reads files holds it for as long as the disk takes; the next tick is soon.
        let Some(control) = try_lock(&control) else { return };
        // A clock that stepped back has left what is planned in the future.
        let pass = self.workshop.clock.read().pass;
        if control.edition() == self.edition && pass == self.pass {
            return;
        }
        (self.edition, self.pass) = (control.edition(), pass);
        // Secrets may be others by now, behind the same names.
        self.workshop.providers.close();
        self.acme = control.blueprint().acme.clone();
        self.has_http_listener = control.blueprint().has_http_listener;
        self.subjects =
            control.subjects().iter().filter_map(|it| Some((it.names.first()?.clone(), Arc::clone(it)))).collect();
        self.adopt_aliases(&control);
        drop(control);
        self.unplanned = self.subjects.keys().cloned().collect();
        let gone: Vec<Task> = self
            .queue
            .tasks()
            .filter(|task| !self.subjects.contains_key(&task.subject) && !self.once.contains_key(task))
            .cloned()
            .collect();
        for task in gone {
            self.queue.plan(&task, None);
        }
    }

    /// Plans the next of those that are to be planned, as many as may be while others wait for the pen. Whether that is
    /// to be done again.
    fn plan_some(&mut self, now: UnixTime) -> bool {
        if self.unplanned.is_empty() {
            return false;
        }
        let control = Arc::clone(&self.control);
        let Some(control) = try_lock(&control) else { return false };
        let rest = self.unplanned.len().saturating_sub(PLANNED_AT_ONCE);
        for name in self.unplanned.split_off(rest) {
            self.plan(&control, &name, now);
        }
        true
    }

    /// Plans anew what turned out to have a key that does not open: nobody is served by it, so it is not held.
    fn look_at_the_keys(&mut self, now: UnixTime) {
        // Locked, the vault opens nothing, and that says nothing of a key. Read before looking: what breaks meanwhile is
        // looked at next time.
        let changes = key_changes();
        if changes == self.key_changes || !self.workshop.custody.is_unlocked() {
            return;
        }
        let control = Arc::clone(&self.control);
        let Some(control) = try_lock(&control) else { return };
        self.key_changes = changes;
        let broken: Vec<_> = control.kept().all().filter(|it| it.certificate.is_known_broken()).cloned().collect();
        for kept in broken {
            if self.broken.insert(kept.id) {
                tracing::error!(
                    domain = %kept.subject, certificate = kept.id.0,
                    "the key of a kept certificate does not open, although the vault is unlocked: it was changed, or \
                     its data key is lost; the certificate is not served, and another one is ordered"
                );
                self.plan(&control, &kept.subject, now);
            }
        }
    }

    /// When a subject's certificates are to be ordered.
    fn plan(&mut self, control: &Control, name: &DomainName, now: UnixTime) {
        let Some(subject) = self.subjects.get(name).cloned() else { return };
        let kept = control.kept().of(name);
        let newest = |role| {
            let newest = kept.iter().rev().find(|it| it.role == role && it.belongs_to(subject.tenant.as_ref()))?;
            (!self.broken.contains(&newest.id)).then_some(newest)
        };
        let manual = subject.is_manual.then(|| self.live.snapshot().site(name.as_str()).cloned()).flatten();
        let manual = manual.and_then(|site| site.certificates.own_until(now));
        let held = Held { own: newest(Role::Own), standby: newest(Role::Standby), manual };
        for role in [Role::Own, Role::Standby] {
            let task = Task { subject: name.clone(), role };
            if self.under_way.contains_key(&task) || role == Role::Own && self.strangers.is_refused(name) {
                continue;
            }
            // Whoever asks for it does not wait for its time.
            let at = match self.askers.contains_key(&task) {
                true => Some(UnixTime::from_secs(0)),
                false => due(&task, &subject, held, self.attempts.get(&task), now),
            };
            self.queue.plan(&task, at.filter(|_| !self.authorities(&task, &subject, held).is_empty()));
        }
        self.renewal_info.plan(name, held.own, now);
    }

    /// Who may issue it, the one to ask first.
    fn authorities(&self, task: &Task, subject: &Subject, held: Held<'_>) -> Vec<Arc<Authority>> {
        let Some(acme) = &self.acme else { return Vec::new() };
        let failures = self.attempts.get(task).map_or(0, |attempts| attempts.failures);
        let own = held.own.filter(|_| !subject.is_manual);
        let own_ca = own.and_then(|own| acme.authorities.iter().find(|authority| authority.directory == *own.ca));
        let own_ca = own_ca.map(|authority| authority.name.as_str());
        let mut authorities = authorities_for(acme, subject, task.role == Role::Standby, own_ca, failures);
        if task.role == Role::Standby {
            // From the authority that does not renew it, nothing else is to be had.
            authorities.retain(|authority| own_ca != Some(&authority.name));
        }
        authorities
    }

    fn start_what_is_due(&mut self, now: UnixTime) {
        if !self.workshop.custody.is_ready() {
            return;
        }
        let max_orders = self.acme.as_ref().map_or(MAX_ORDERS, |acme| acme.max_orders);
        for _ in 0..STARTS_PER_TICK {
            if self.under_way.len() >= max_orders {
                return;
            }
            // Renewals first; and strangers never have more than half of what there is.
            let Some(task) = self.queue.pop_due(now).or_else(|| self.strangers.pop_due(now, max_orders)) else {
                return;
            };
            self.start(task, now);
        }
    }

    fn start(&mut self, task: Task, now: UnixTime) {
        let control = Arc::clone(&self.control);
        let Some(control) = try_lock(&control) else { return self.plan_again(&task, Some(now)) };
        let stranger = self.once.get(&task).cloned().or_else(|| self.subject_of_stranger(&control, &task));
        let Some(subject) = stranger.or_else(|| self.subjects.get(&task.subject).cloned()) else {
            self.strangers.leave(&task);
            return self.tell(&task, &Ordered::refused("it is not configured any more".to_owned()));
        };
        if self.under_way.contains_key(&task) {
            return;
        }
        // Two orders at once would show different answers at the same place.
        if self.under_way.values().flatten().any(|name| subject.names.contains(name)) {
            return self.held_back.push(task);
        }
        let newest = |role| control.kept().newest(&task.subject, role);
        let held = Held { own: newest(Role::Own), standby: newest(Role::Standby), manual: None };
        let authorities = self.authorities(&task, &subject, held);
        let waits_until = |authority: &Arc<Authority>| {
            let paused = self.workshop.accounts.paused_until(authority, now);
            let attempts = self.attempts.get(&task);
            paused.max(attempts.and_then(|attempts| attempts.held_off_until(&authority.directory, now)))
        };
        let Some(authority) = authorities.iter().find(|authority| waits_until(authority).is_none()).cloned() else {
            let until = authorities.iter().filter_map(waits_until).min();
            self.once.remove(&task);
            if self.turn_away(&task) {
                return;
            }
            self.tell(
                &task,
                &Ordered::refused(match until {
                    Some(until) => format!("every authority wants to be left alone: the next attempt is at {until}"),
                    None => "no authority that is configured issues for it".to_owned(),
                }),
            );
            let until = until.filter(|_| self.subjects.contains_key(&task.subject));
            return self.queue.plan(&task, until.map(|until| until.plus_secs(i64::from(jitter(&task) as u8))));
        };
        let replaces = newest(task.role).cloned();
        drop(control);
        self.once.remove(&task);
        // One without an URL was not placed.
        let is_placed = |(_, order): &(_, Order)| order.ca == authority.directory && !order.url.is_empty();
        let under_way = self.orders.remove(&task).filter(is_placed);
        let failures = self.attempts.get(&task).map_or(0, |attempts| attempts.failures);
        let left_out = match failures < OPTIONAL_UNTIL_FAILURES {
            true => self.left_out.get(&task).cloned().unwrap_or_default(),
            false => subject.optional.iter().cloned().collect(),
        };
        let has_http_listener = self.has_http_listener;
        self.under_way.insert(task.clone(), subject.names.clone());
        let (is_on_demand, question) = self.strangers.begin(&task);
        tracing::info!(domain = %task.subject, role = ?task.role, ca = authority.name, "ordering a certificate");
        let job = Job {
            task,
            subject,
            authority,
            failures,
            left_out,
            has_http_listener,
            replaces,
            under_way,
            is_on_demand,
            question,
        };
        let workshop = Arc::clone(&self.workshop);
        let task = job.task.clone();
        let handle = self.running.spawn(async move {
            let outcome = workshop.carry_out(&job).await;
            (job, outcome)
        });
        self.handles.insert(handle.id(), task);
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

fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
