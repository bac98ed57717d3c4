mod restart;

use super::*;
use crate::control::{Blueprint, Control};
use crate::meter::Tally;
use crate::name::DomainName;
use crate::plan::Plan;
use crate::refusal::OriginFault;
use crate::site::{OriginSpec, SiteSpec, Terms};
use crate::snapshot::Live;

/// 2026-06-01 00:00:00 UTC.
const MIDNIGHT: i64 = 1_780_272_000;

/// A harvest over one domain, driven by two clocks that the test holds.
struct Field {
    control: Control,
    live: Arc<Live>,
    harvest: Harvest,
    alerts: Arc<Alerts>,
    wall_s: i64,
    pass: u32,
    mono: Instant,
}

impl Field {
    fn with(plan: Option<Plan>) -> Self {
        let alerts = Arc::new(Alerts::default());
        let live = Arc::new(Live::default());
        let harvest = Harvest::new(Arc::clone(&alerts));
        let control = Control::new(Arc::clone(&live));
        let mut field = Self { control, live, harvest, alerts, wall_s: MIDNIGHT, pass: 0, mono: Instant::now() };
        field.publish(&["www.example.com"], plan);
        field
    }

    fn publish(&mut self, names: &[&str], plan: Option<Plan>) {
        let spec = |name: &&str| {
            let spec = SiteSpec::new(DomainName::parse(name).unwrap(), OriginSpec::http("127.0.0.1", 1));
            let plan = plan.clone().map(Arc::new);
            Arc::new(SiteSpec { terms: Arc::new(Terms { plan, ..Terms::default() }), ..spec })
        };
        let domains = names.iter().map(spec).collect();
        self.control.apply(Blueprint { domains, ..Blueprint::default() }).unwrap();
        self.harvest.follow(&self.live.snapshot(), &TimeZone::UTC, self.now());
    }

    /// The process ends, and another one begins with what `past` says.
    fn restart(&mut self, past: Past) {
        self.restart_with(past, basic());
    }

    fn restart_with(&mut self, past: Past, plan: Option<Plan>) {
        self.live = Arc::new(Live::default());
        self.control = Control::new(Arc::clone(&self.live));
        self.alerts = Arc::new(Alerts::default());
        self.harvest = Harvest::new(Arc::clone(&self.alerts));
        self.publish(&["www.example.com"], plan);
        let now = self.now();
        self.harvest.resume(past, now);
    }

    fn now(&self) -> Reading {
        Reading { now: UnixTime::from_secs(self.wall_s), pass: self.pass }
    }

    /// What a worker ships after `arrived` requests now.
    fn arrive(&mut self, arrived: u32) -> &mut Self {
        let bucket = Bucket::of(self.now().now);
        let tally =
            Tally { slot: Slot(0), bucket, pass: self.pass, arrived, answered: [0, arrived, 0, 0, 0], throttled: 0 };
        self.harvest.take(Shipment { tallies: vec![tally], origin_faults: Vec::new() });
        self
    }

    /// Both clocks run on, with a step as soon as they are there, and those that the lag of closing needs.
    fn pass_time(&mut self, secs: i64) -> &mut Self {
        self.wall_s += secs;
        self.mono += Duration::from_secs(secs as u64);
        self.harvest.step(self.now(), self.mono);
        self.jump(0)
    }

    /// The wall clock jumps; monotonic time does not.
    fn jump(&mut self, secs: i64) -> &mut Self {
        self.wall_s += secs;
        self.pass += u32::from(secs < 0);
        for _ in 0..3 {
            self.mono += Duration::from_millis(200);
            self.harvest.step(self.now(), self.mono);
        }
        self
    }

    fn figures(&mut self) -> Figures {
        self.harvest.figures(self.now().now, self.mono).remove(0)
    }

    fn is_throttled(&self) -> bool {
        self.live.snapshot().site("www.example.com").unwrap().is_throttled()
    }

    fn alerts(&self) -> Vec<(&'static str, u64)> {
        self.alerts.counts().into_iter().map(|(_, kind, times)| (kind.label(), times)).collect()
    }
}

fn basic() -> Option<Plan> {
    Some(Plan::new("basic", 10))
}

#[test]
fn a_bucket_is_judged_within_a_second_of_its_close() {
    let mut field = Field::with(basic());
    field.arrive(111).pass_time(9);
    assert!(!field.is_throttled(), "the bucket is open");
    field.pass_time(1);
    assert!(field.is_throttled());
    assert_eq!(field.alerts(), [("qps_throttled", 1)]);
    let figures = field.figures();
    assert_eq!((figures.qps, figures.peak_qps, figures.limit_qps, figures.is_throttled), (11.1, 11.1, Some(10), true));
}

#[test]
fn each_bucket_over_the_limit_counts_once() {
    let mut field = Field::with(basic());
    for _ in 0..3 {
        field.arrive(105).pass_time(10);
    }
    assert_eq!((field.alerts(), field.is_throttled()), (vec![("qps_over", 3)], false));
}

#[test]
fn what_a_worker_ships_late_is_judged_again() {
    let mut field = Field::with(basic());
    field.arrive(108).pass_time(10);
    assert!(!field.is_throttled());
    field.wall_s -= 10;
    field.arrive(3);
    field.wall_s += 10;
    field.pass_time(1);
    assert!(field.is_throttled());
}

#[test]
fn the_verdict_lifts_in_the_second_in_which_the_bucket_leaves() {
    let mut field = Field::with(basic());
    field.arrive(200).pass_time(10 + 86_400 - 1);
    assert!(field.is_throttled());
    field.pass_time(1);
    assert!(!field.is_throttled());
    assert_eq!(field.alerts(), [("qps_throttled", 1), ("throttle_lifted", 1)]);
}

#[test]
fn another_plan_is_judged_at_once() {
    let mut field = Field::with(basic());
    field.arrive(200).pass_time(10);
    field.publish(&["www.example.com"], Some(Plan::new("pro", 30)));
    assert!(!field.is_throttled());
    field.publish(&["www.example.com"], basic());
    assert!(field.is_throttled());
    field.publish(&["www.example.com"], None);
    assert!(!field.is_throttled());
}

#[test]
fn a_domain_that_gets_a_plan_is_held_to_it_at_once() {
    let mut field = Field::with(None);
    field.arrive(200).pass_time(10);
    assert!(!field.is_throttled());
    field.publish(&["www.example.com"], basic());
    assert!(field.is_throttled());
}

#[test]
fn a_name_that_comes_back_finds_its_window() {
    let mut field = Field::with(basic());
    field.arrive(200).pass_time(10);
    field.publish(&[], None);
    assert_eq!(field.harvest.figures(field.now().now, field.mono), []);
    field.pass_time(3600);
    field.publish(&["www.example.com"], basic());
    assert!(field.is_throttled());
}

#[test]
fn verdicts_follow_a_clock_that_jumps_and_nothing_is_forgotten_before_a_minute() {
    let mut field = Field::with(basic());
    field.arrive(200).pass_time(10);
    field.jump(90 * 86_400);
    assert!(!field.is_throttled());
    field.arrive(5).pass_time(10);
    field.jump(-90 * 86_400);
    assert!(field.is_throttled());
    assert_eq!(field.figures().peak_qps, 20.0);
}

#[test]
fn after_a_trusted_minute_what_left_the_window_is_forgotten() {
    let mut field = Field::with(basic());
    field.arrive(200).pass_time(10);
    field.jump(90 * 86_400).pass_time(70);
    field.arrive(5).pass_time(10);
    field.jump(-90 * 86_400);
    assert!(!field.is_throttled());
}

#[test]
fn what_is_counted_before_the_snapshot_comes_is_not_lost() {
    let alerts = Arc::new(Alerts::default());
    let mut early = Field::with(basic());
    // The workers serve what is published; the harvest hears of it a little later.
    early.harvest = Harvest::new(Arc::clone(&alerts));
    early.arrive(111);
    let faults = Shipment { tallies: Vec::new(), origin_faults: vec![(Slot(0), OriginFault::Connect, 2)] };
    early.harvest.take(faults);
    early.publish(&["www.example.com"], basic());
    early.pass_time(10);
    assert!(early.is_throttled());
    let figures = early.figures();
    assert_eq!((figures.qps, figures.answered[1]), (11.1, 111));
    assert_eq!(figures.origin_faults, [(OriginFault::Connect, 2)]);
}

#[test]
fn a_name_without_requests_is_shown_and_has_no_account() {
    let mut field = Field::with(basic());
    field.publish(&["www.example.com", "idle.example.com"], basic());
    field.arrive(1).pass_time(10);
    field.publish(&["www.example.com", "idle.example.com"], Some(Plan::new("pro", 30)));
    let figures = field.harvest.figures(field.now().now, field.mono);
    let shown: Vec<_> = figures.iter().map(|of| (&*of.domain, of.answered[1], of.qps, of.limit_qps)).collect();
    assert_eq!(shown, [("www.example.com", 1, 0.1, Some(30)), ("idle.example.com", 0, 0.0, Some(30))]);
    assert_eq!(field.harvest.accounts.len(), 1);
}

#[test]
fn what_was_counted_of_a_name_that_is_gone_by_now_is_not_lost() {
    let mut field = Field::with(basic());
    field.publish(&[], None);
    field.arrive(111).pass_time(10);
    assert_eq!(field.harvest.take_changes().len(), 1);
    field.publish(&["www.example.com"], basic());
    assert!(field.is_throttled());
    assert_eq!(field.figures().answered[1], 111);
}
