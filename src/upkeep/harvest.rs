//! Meters -> usage -> verdicts: the workers' counts come in, closed buckets are judged, throttles engaged and lifted.

mod account;
mod clocks;
mod keeping;
mod resume;
mod served;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::alerts::Alerts;
use crate::alert::{Alert, AlertKind};
use crate::clock::{Clock, Reading, UnixTime};
use crate::meter::{Bucket, Shipment, Slot};
use crate::plan::Standing;
use crate::site::Site;
use crate::snapshot::Snapshot;
use crate::usage::{AskFigures, Calendar, Figures, qps};
use account::Account;
use clocks::{Evenness, LaggingClock};
use keeping::Waiting;
pub use keeping::{Errand, Past, Status};
use served::Served;

/// How often closed buckets are looked for: verdicts are out within a second of the close.
const STEP: Duration = Duration::from_millis(200);
/// How long a request for figures waits for the workers to ship. One that does not answer is late, not wrong.
const SHIP_PATIENCE: Duration = Duration::from_millis(500);
/// Why a verdict lifts.
const LIFTED: &str = "no bucket of the last 24 hours is over the limit any more";

/// The snapshot that was published, and the zone whose days are counted from now on.
pub type Published = (Arc<Snapshot>, TimeZone);

/// Asks one worker to ship at once.
pub type ShipNow = mpsc::Sender<oneshot::Sender<()>>;

/// Everything that comes to the harvest.
#[derive(Debug)]
pub struct Incoming {
    /// What workers counted.
    pub shipments: mpsc::Receiver<Shipment>,
    /// Snapshots, as they are published.
    pub published: mpsc::UnboundedReceiver<Published>,
    /// Questions for figures.
    pub questions: mpsc::Receiver<AskFigures>,
    /// Whoever writes down asks what there is to write.
    pub errands: mpsc::Receiver<Errand>,
    /// How to have the workers ship.
    pub workers: Vec<ShipNow>,
}

/// All accounts. A name has one from its first count on, keeps it when it is no longer served, and finds it when it
/// comes back.
#[derive(Debug)]
pub struct Harvest {
    served: Served,
    /// By slot. Names that the store knew and nobody serves have slots of their own, from the highest down.
    accounts: BTreeMap<Slot, Box<Account>>,
    /// Where the names are that nobody serves.
    dormant: HashMap<Arc<str>, Slot>,
    next_dormant: Slot,
    /// Those with counts that wait for their bucket to close.
    open: BTreeSet<Slot>,
    /// Those under a verdict.
    engaged: BTreeSet<Slot>,
    calendar: Calendar,
    alerts: Arc<Alerts>,
    even: Evenness,
    is_trusted: bool,
    lagging: LaggingClock,
    /// By when buckets were last closed, and whether counts for such buckets have come in since.
    closed: Option<(Bucket, u32)>,
    has_late: bool,
    /// Counts of names whose snapshot has not come here yet: a worker serves it as soon as it is published. Slots come
    /// only from snapshots, and every snapshot is followed, so this never holds more than what the workers shipped
    /// between the two.
    early: Shipment,
    /// What is still to be written down.
    waiting: Waiting,
}

impl Harvest {
    /// No accounts yet; days are UTC's until the first snapshot says otherwise.
    pub fn new(alerts: Arc<Alerts>) -> Self {
        Self {
            served: Served::default(),
            accounts: BTreeMap::new(),
            dormant: HashMap::new(),
            next_dormant: Slot(u32::MAX),
            open: BTreeSet::new(),
            engaged: BTreeSet::new(),
            calendar: Calendar::new(TimeZone::UTC),
            alerts,
            even: Evenness::default(),
            is_trusted: false,
            lagging: LaggingClock::default(),
            closed: None,
            has_late: false,
            early: Shipment::default(),
            waiting: Waiting::default(),
        }
    }

    /// Takes in what a worker counted. Nothing of it is lost: what belongs to a name not known yet waits for it.
    pub fn take(&mut self, shipment: Shipment) {
        for tally in shipment.tallies {
            let Some(account) = account_of(&mut self.accounts, &self.served, tally.slot) else {
                self.early.tallies.push(tally);
                continue;
            };
            account.count(&tally);
            if tally.arrived > 0 {
                self.open.insert(tally.slot);
                self.has_late |= self.closed.is_some_and(|(by, pass)| tally.bucket < by || tally.pass != pass);
                self.waiting.journal(tally.slot, account);
            }
        }
        for (slot, fault, n) in shipment.origin_faults {
            match account_of(&mut self.accounts, &self.served, slot) {
                Some(account) => *account.origin_faults.entry(fault).or_default() += u64::from(n),
                None => self.early.origin_faults.push((slot, fault, n)),
            }
        }
    }

    /// Follows a snapshot: names come and go, plans change and are judged at once.
    pub fn follow(&mut self, snapshot: &Arc<Snapshot>, zone: &TimeZone, now: Reading) {
        let (new, gone) = self.served.follow(snapshot);
        for site in gone {
            self.put_to_sleep(&site);
        }
        if !self.dormant.is_empty() {
            new.iter().for_each(|site| self.wake(site.spec.name.as_str(), site.slot));
        }
        let early = std::mem::take(&mut self.early);
        self.take(early);
        if self.calendar.zone() != zone {
            self.calendar = Calendar::new(zone.clone());
            for (slot, account) in &mut self.accounts {
                account.usage.rezone(&mut self.calendar, now.now);
                self.waiting.save(*slot, account);
            }
            self.look_for_ended_days();
        }
        self.judge_all(now);
    }

    /// Closes what has ended by `now`, and takes and lifts verdicts.
    pub fn step(&mut self, now: Reading, mono: Instant) {
        let jumped = self.even.note(now.now, mono);
        self.is_trusted = self.even.is_trusted(mono);
        self.lagging.note(now, mono);
        if let Some(lagging) = self.lagging.read(mono) {
            let closing = Some((Bucket::of(lagging.now), lagging.pass));
            if self.closed != closing || std::mem::take(&mut self.has_late) {
                self.closed = closing;
                self.close(lagging, now);
            }
        }
        if jumped {
            self.judge_all(now);
        } else {
            for slot in self.engaged.clone() {
                self.judge(slot, now, false);
            }
        }
    }

    /// Closes the buckets that had ended by `lagging`, and judges their names as of `now`.
    fn close(&mut self, lagging: Reading, now: Reading) {
        let by = Bucket::of(lagging.now);
        for slot in self.open.clone() {
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            let waiting = account.usage.closed_count();
            let plan = self.served.plan(slot);
            let exceeded = account.usage.close(lagging, plan, &mut self.calendar);
            if !account.usage.is_open() {
                self.open.remove(&slot);
            }
            if self.is_trusted {
                account.usage.trim(now.now);
            }
            self.waiting.closed(slot, account, waiting, by);
            for bucket in &exceeded {
                self.alerts.raise(&account.alert_of(bucket, plan));
            }
            self.judge(slot, now, exceeded.iter().any(|bucket| bucket.standing == Standing::Excessive));
        }
        self.note_ended_days(lagging, by);
    }

    fn judge_all(&mut self, now: Reading) {
        let slots: Vec<Slot> = self.accounts.keys().copied().collect();
        for slot in slots {
            self.judge(slot, now, false);
        }
    }

    /// Takes or lifts a name's verdict. `told`: its reason was raised as an alert already.
    fn judge(&mut self, slot: Slot, now: Reading, told: bool) {
        let Some(account) = self.accounts.get_mut(&slot) else { return };
        let throttle = self.served.get(slot).and_then(|site| site.throttle.as_deref());
        let plan = self.served.plan(slot);
        let held = plan.and_then(|plan| Some((plan, account.usage.throttled_until(now.now, plan)?)));
        let change = match (held, throttle) {
            (Some((plan, until)), Some(throttle)) => {
                let was_engaged = throttle.is_engaged();
                throttle.engage(plan);
                self.engaged.insert(slot);
                let told = told || was_engaged;
                let detail = || format!("held to {} QPS of plan {} until {until}", plan.max_qps, plan.name);
                let change = (!told).then(|| (AlertKind::QpsThrottled, detail()));
                if account.usage.hold(now.now, until) {
                    self.waiting.save(slot, account);
                }
                change
            }
            (_, throttle) => {
                let lifted = throttle.is_some_and(|throttle| {
                    let was_engaged = throttle.is_engaged();
                    if was_engaged {
                        throttle.lift();
                    }
                    was_engaged
                });
                if self.engaged.remove(&slot) || account.usage.is_held(now.now) {
                    account.usage.release(now.now);
                    self.waiting.save(slot, account);
                }
                lifted.then(|| (AlertKind::ThrottleLifted, LIFTED.to_owned()))
            }
        };
        if let Some((kind, detail)) = change {
            self.alerts.raise(&Alert { kind, domain: Arc::clone(&account.name), at: now.now, detail });
        }
    }

    /// The figures of every served name.
    pub fn figures(&mut self, now: UnixTime, mono: Instant) -> Vec<Figures> {
        let closed_by = self.lagging.read(mono).map_or(now, |reading| reading.now);
        let today = self.calendar.today(now);
        let mut alerts: BTreeMap<Arc<str>, Vec<(AlertKind, u64)>> = BTreeMap::new();
        for (domain, kind, times) in self.alerts.counts() {
            alerts.entry(domain).or_default().push((kind, times));
        }
        let idle = Account::default();
        let figures = |site: &Arc<Site>| {
            let account = self.accounts.get(&site.slot).map_or(&idle, |account| account);
            let domain = site.spec.name.shared();
            Figures {
                answered: account.answered,
                throttled_requests: account.throttled,
                qps: qps(account.usage.last_closed_count(closed_by)),
                peak_qps: account.usage.peak(today).map_or(0.0, |peak| peak.qps()),
                limit_qps: self.served.plan(site.slot).map(|plan| plan.max_qps),
                is_throttled: site.is_throttled(),
                origin_faults: account.origin_faults.iter().map(|(fault, n)| (*fault, *n)).collect(),
                alerts: alerts.get(&domain).cloned().unwrap_or_default(),
                domain,
            }
        };
        self.served.sites().map(figures).collect()
    }

    /// Runs until nobody can publish any more.
    pub async fn run(mut self, clock: Arc<Clock>, incoming: Incoming) {
        let Incoming { mut shipments, mut published, mut questions, mut errands, workers } = incoming;
        let mut tick = interval(STEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(shipment) = shipments.recv() => self.take(shipment),
                news = published.recv() => match news {
                    Some((snapshot, zone)) => self.follow(&snapshot, &zone, clock.read()),
                    None => return,
                },
                Some(reply) = questions.recv() => {
                    self.gather(&workers, &mut shipments).await;
                    _ = reply.send(self.figures(clock.read().now, Instant::now()));
                }
                Some(errand) = errands.recv() => {
                    while let Ok(shipment) = shipments.try_recv() {
                        self.take(shipment);
                    }
                    self.run_errand(errand, clock.read());
                }
                _ = tick.tick() => self.step(clock.read(), Instant::now()),
            }
        }
    }

    /// Has every worker ship what it has, so that figures show what was answered before they were asked for.
    async fn gather(&mut self, workers: &[ShipNow], shipments: &mut mpsc::Receiver<Shipment>) {
        let all_shipped = async {
            let mut done = Vec::new();
            for worker in workers {
                let (tell, told) = oneshot::channel();
                if worker.send(tell).await.is_ok() {
                    done.push(told);
                }
            }
            for told in done {
                _ = told.await;
            }
        };
        let mut all_shipped = std::pin::pin!(timeout(SHIP_PATIENCE, all_shipped));
        loop {
            tokio::select! {
                Some(shipment) = shipments.recv() => self.take(shipment),
                _ = &mut all_shipped => break,
            }
        }
        while let Ok(shipment) = shipments.try_recv() {
            self.take(shipment);
        }
    }
}

/// The account of a slot; a site that is served and has none yet gets it. `None`: nothing is known of the slot yet.
fn account_of<'a>(
    accounts: &'a mut BTreeMap<Slot, Box<Account>>,
    served: &Served,
    slot: Slot,
) -> Option<&'a mut Account> {
    Some(match accounts.entry(slot) {
        Entry::Occupied(account) => account.into_mut(),
        Entry::Vacant(place) => place.insert(Box::new(Account::new(served.get(slot)?.spec.name.shared()))),
    })
}

#[cfg(test)]
mod tests;
