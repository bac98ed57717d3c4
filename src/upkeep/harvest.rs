//! Meters -> usage -> verdicts: the workers' counts come in, closed buckets are judged, throttles engaged and lifted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::alerts::Alerts;
use crate::alert::{Alert, AlertKind};
use crate::clock::{Clock, Reading, UnixTime};
use crate::meter::{Bucket, Shipment, Slot};
use crate::plan::{Plan, Standing};
use crate::refusal::OriginFault;
use crate::snapshot::Snapshot;
use crate::throttle::Throttle;
use crate::usage::{AskFigures, Calendar, Exceeded, Figures, Usage, qps};

/// How often closed buckets are looked for: verdicts are out within a second of the close.
const STEP: Duration = Duration::from_millis(200);
/// By how much closing lags behind the clock, so that every worker has shipped its part of a bucket when it is judged.
/// Monotonic time: a wall clock that stands still or jumps does not change who has shipped.
const CLOSING_LAG: Duration = Duration::from_millis(300);
/// How long a request for figures waits for the workers to ship. One that does not answer is late, not wrong.
const SHIP_PATIENCE: Duration = Duration::from_millis(500);
/// How long the wall clock must have run evenly before what left the window is forgotten.
const TRUST_AFTER: Duration = Duration::from_secs(60);
/// How far wall and monotonic time may part between two steps before it is a jump.
const JUMP_MS: i64 = 1_000;

/// What a name is held to and has used.
#[derive(Debug)]
struct Account {
    name: Arc<str>,
    usage: Usage,
    /// What holds the name to its plan, and the plan; `None` while the name is not served.
    served: Option<(Arc<Throttle>, Option<Plan>)>,
    answered: [u64; 5],
    throttled: u64,
    origin_faults: BTreeMap<OriginFault, u64>,
}

/// The snapshot that was published, and the zone whose days are counted from now on.
pub type Published = (Arc<Snapshot>, TimeZone);

/// Asks one worker to ship at once.
pub type ShipNow = mpsc::Sender<oneshot::Sender<()>>;

/// All accounts. A name keeps its account when it is no longer served, and finds it when it comes back.
#[derive(Debug)]
pub struct Harvest {
    /// By slot.
    accounts: BTreeMap<Slot, Account>,
    /// Those with counts that wait for their bucket to close.
    open: BTreeSet<Slot>,
    /// Those under a verdict.
    engaged: BTreeSet<Slot>,
    calendar: Calendar,
    alerts: Arc<Alerts>,
    even: Evenness,
    lagging: LaggingClock,
    /// By when buckets were last closed, and whether counts for such buckets have come in since.
    closed: Option<(Bucket, u32)>,
    has_late: bool,
    /// Counts of names whose snapshot has not come here yet: a worker serves it as soon as it is published. Slots come
    /// only from snapshots, and every snapshot is followed, so this never holds more than what the workers shipped
    /// between the two.
    early: Shipment,
}

/// The clock as it stood [`CLOSING_LAG`] ago.
#[derive(Debug, Default)]
struct LaggingClock(VecDeque<(Instant, Reading)>);

impl LaggingClock {
    fn note(&mut self, now: Reading, mono: Instant) {
        self.0.push_back((mono, now));
        let has_lagged = |(at, _): &(Instant, Reading)| mono.duration_since(*at) >= CLOSING_LAG;
        while self.0.get(1).is_some_and(has_lagged) {
            self.0.pop_front();
        }
    }

    /// `None` at the very beginning.
    fn read(&self, mono: Instant) -> Option<Reading> {
        self.0.front().filter(|(at, _)| mono.duration_since(*at) >= CLOSING_LAG).map(|(_, reading)| *reading)
    }
}

/// Whether wall and monotonic time have run together.
#[derive(Debug, Default)]
struct Evenness {
    offset_ms: Option<i64>,
    since: Option<Instant>,
}

impl Evenness {
    /// Notes both times; says whether the wall clock jumped since the last note.
    fn note(&mut self, wall: UnixTime, mono: Instant) -> bool {
        let began = *self.since.get_or_insert(mono);
        let offset_ms = wall.ms().saturating_sub(i64::try_from(mono.duration_since(began).as_millis()).unwrap_or(0));
        let jumped = self.offset_ms.is_some_and(|last| offset_ms.saturating_sub(last).saturating_abs() > JUMP_MS);
        if jumped {
            self.since = Some(mono);
            self.offset_ms = Some(wall.ms());
        } else {
            self.offset_ms = Some(offset_ms);
        }
        jumped
    }

    fn is_trusted(&self, mono: Instant) -> bool {
        self.since.is_some_and(|since| mono.duration_since(since) >= TRUST_AFTER)
    }
}

impl Harvest {
    /// No accounts yet; days are UTC's until the first snapshot says otherwise.
    pub fn new(alerts: Arc<Alerts>) -> Self {
        Self {
            accounts: BTreeMap::new(),
            open: BTreeSet::new(),
            engaged: BTreeSet::new(),
            calendar: Calendar::new(TimeZone::UTC),
            alerts,
            even: Evenness::default(),
            lagging: LaggingClock::default(),
            closed: None,
            has_late: false,
            early: Shipment::default(),
        }
    }

    /// Takes in what a worker counted. Nothing of it is lost: what belongs to a name not known yet waits for it.
    pub fn take(&mut self, shipment: Shipment) {
        for tally in shipment.tallies {
            let Some(account) = self.accounts.get_mut(&tally.slot) else {
                self.early.tallies.push(tally);
                continue;
            };
            if tally.arrived > 0 {
                account.usage.add(tally.bucket, tally.pass, u64::from(tally.arrived));
                self.open.insert(tally.slot);
                self.has_late |= self.closed.is_some_and(|(by, pass)| tally.bucket < by || tally.pass != pass);
            }
            account.answered.iter_mut().zip(tally.answered).for_each(|(sum, n)| *sum += u64::from(n));
            account.throttled += u64::from(tally.throttled);
        }
        for (slot, fault, n) in shipment.origin_faults {
            match self.accounts.get_mut(&slot) {
                Some(account) => *account.origin_faults.entry(fault).or_default() += u64::from(n),
                None => self.early.origin_faults.push((slot, fault, n)),
            }
        }
    }

    /// Follows a snapshot: names come and go, plans change and are judged at once.
    pub fn follow(&mut self, snapshot: &Snapshot, zone: &TimeZone, now: Reading) {
        for account in self.accounts.values_mut() {
            account.served = None;
        }
        for site in snapshot.sites() {
            let account = self.accounts.entry(site.slot).or_insert_with(|| Account::new(site.name.shared()));
            account.served = Some((Arc::clone(&site.throttle), site.plan.clone()));
        }
        let early = std::mem::take(&mut self.early);
        self.take(early);
        if self.calendar.zone() != zone {
            self.calendar = Calendar::new(zone.clone());
            let today = self.calendar.today(now.now);
            self.accounts.values_mut().for_each(|account| account.usage.rezone(today));
        }
        self.judge_all(now);
    }

    /// Closes what has ended by `now`, and takes and lifts verdicts.
    pub fn step(&mut self, now: Reading, mono: Instant) {
        let jumped = self.even.note(now.now, mono);
        let is_trusted = self.even.is_trusted(mono);
        self.lagging.note(now, mono);
        if let Some(lagging) = self.lagging.read(mono) {
            let closing = Some((Bucket::of(lagging.now), lagging.pass));
            if self.closed != closing || std::mem::take(&mut self.has_late) {
                self.closed = closing;
                self.close(lagging, now, is_trusted);
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
    fn close(&mut self, lagging: Reading, now: Reading, is_trusted: bool) {
        for slot in self.open.clone() {
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            let plan = account.served.as_ref().and_then(|(_, plan)| plan.as_ref());
            let exceeded = account.usage.close(lagging, plan, &mut self.calendar);
            if !account.usage.is_open() {
                self.open.remove(&slot);
            }
            if is_trusted {
                account.usage.trim(now.now);
            }
            for bucket in &exceeded {
                self.alerts.raise(&account.alert_of(bucket));
            }
            self.judge(slot, now, exceeded.iter().any(|bucket| bucket.standing == Standing::Excessive));
        }
    }

    fn judge_all(&mut self, now: Reading) {
        let slots: Vec<Slot> = self.accounts.keys().copied().collect();
        for slot in slots {
            self.judge(slot, now, false);
        }
    }

    /// Takes or lifts a name's verdict. `told`: its reason was raised as an alert already.
    fn judge(&mut self, slot: Slot, now: Reading, told: bool) {
        let Some(account) = self.accounts.get(&slot) else { return };
        let Some((throttle, plan)) = &account.served else {
            self.engaged.remove(&slot);
            return;
        };
        let held = plan.as_ref().and_then(|plan| Some((plan, account.usage.throttled_until(now.now, plan)?)));
        let was_engaged = throttle.is_engaged();
        let change = match (held, was_engaged) {
            (Some((plan, until)), _) => {
                throttle.engage(plan);
                self.engaged.insert(slot);
                let detail = format!("held to {} QPS of plan {} until {until}", plan.max_qps, plan.name);
                (!was_engaged && !told).then_some((AlertKind::QpsThrottled, detail))
            }
            (None, true) => {
                throttle.lift();
                self.engaged.remove(&slot);
                Some((
                    AlertKind::ThrottleLifted,
                    "no bucket of the last 24 hours is over the limit any more".to_owned(),
                ))
            }
            (None, false) => None,
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
        let figures = |account: &Account| {
            let (throttle, plan) = account.served.as_ref()?;
            Some(Figures {
                domain: Arc::clone(&account.name),
                answered: account.answered,
                throttled_requests: account.throttled,
                qps: qps(account.usage.last_closed_count(closed_by)),
                peak_qps: account.usage.peak(today).map_or(0.0, |peak| peak.qps()),
                limit_qps: plan.as_ref().map(|plan| plan.max_qps),
                is_throttled: throttle.is_engaged(),
                origin_faults: account.origin_faults.iter().map(|(fault, n)| (*fault, *n)).collect(),
                alerts: alerts.get(&account.name).cloned().unwrap_or_default(),
            })
        };
        self.accounts.values().filter_map(figures).collect()
    }

    /// Runs until nobody can publish any more.
    pub async fn run(
        mut self,
        clock: Arc<Clock>,
        mut shipments: mpsc::Receiver<Shipment>,
        mut published: mpsc::UnboundedReceiver<Published>,
        mut questions: mpsc::Receiver<AskFigures>,
        workers: Vec<ShipNow>,
    ) {
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

impl Account {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            usage: Usage::default(),
            served: None,
            answered: [0; 5],
            throttled: 0,
            origin_faults: BTreeMap::new(),
        }
    }

    fn alert_of(&self, exceeded: &Exceeded) -> Alert {
        let plan = self.served.as_ref().and_then(|(_, plan)| plan.as_ref());
        let limit =
            plan.map_or_else(String::new, |plan| format!(" over the {} QPS of plan {}", plan.max_qps, plan.name));
        let kind = if exceeded.standing == Standing::Excessive { AlertKind::QpsThrottled } else { AlertKind::QpsOver };
        let detail = format!("{:.1} QPS at {}{limit}", qps(exceeded.count), exceeded.bucket.start());
        Alert { kind, domain: Arc::clone(&self.name), at: exceeded.bucket.end(), detail }
    }
}

#[cfg(test)]
mod tests;
