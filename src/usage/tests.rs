use super::*;
use jiff::tz::TimeZone;
use rstest::rstest;

/// 2026-06-01 00:00:00 UTC, as a bucket.
const MIDNIGHT: i64 = 1_780_272_000 / 10;

struct Metered {
    usage: Usage,
    calendar: Calendar,
    plan: Plan,
}

impl Metered {
    fn basic() -> Self {
        Self { usage: Usage::default(), calendar: Calendar::new(TimeZone::UTC), plan: Plan::new("basic", 10) }
    }

    fn add(&mut self, bucket: i64, pass: u32, count: u64) -> &mut Self {
        self.usage.add(Bucket(MIDNIGHT + bucket), pass, count);
        self
    }

    /// Closes at the first moment at which `bucket` may be judged.
    fn close(&mut self, bucket: i64, pass: u32) -> Vec<(i64, u64, Standing)> {
        let now = Bucket(MIDNIGHT + bucket).end();
        let exceeded = self.usage.close(Reading { now, pass }, Some(&self.plan), &mut self.calendar);
        exceeded.iter().map(|e| (e.bucket.0 - MIDNIGHT, e.count, e.standing)).collect()
    }

    fn throttled_until(&self, bucket: i64) -> Option<i64> {
        let until = self.usage.throttled_until(Bucket(MIDNIGHT + bucket).start(), &self.plan)?;
        Some(Bucket::of(until).0 - MIDNIGHT)
    }

    fn peak(&mut self, bucket: i64) -> Option<(i64, u64)> {
        let day = self.calendar.day_of(Bucket(MIDNIGHT + bucket));
        self.usage.peak(day).map(|p| (p.at.0 - MIDNIGHT, p.count))
    }
}

#[rstest]
#[case(100, None, false)]
#[case(101, Some(Standing::Over), false)]
#[case(110, Some(Standing::Over), false)]
#[case(111, Some(Standing::Excessive), true)]
fn a_closed_bucket_is_judged_once(#[case] count: u64, #[case] standing: Option<Standing>, #[case] throttled: bool) {
    let mut m = Metered::basic();
    m.add(0, 0, count);
    assert_eq!(m.close(-1, 0), [], "not before it closes");
    assert_eq!(m.close(0, 0), standing.map(|s| (0, count, s)).into_iter().collect::<Vec<_>>());
    assert_eq!(m.throttled_until(1).is_some(), throttled);
    assert_eq!(m.close(5, 0), [], "and not again");
}

#[test]
fn what_is_late_is_added_and_judged_again() {
    let mut m = Metered::basic();
    m.add(0, 0, 100).close(0, 0);
    assert_eq!(m.add(0, 0, 1).close(1, 0), [(0, 101, Standing::Over)]);
    assert_eq!(m.add(0, 0, 1).close(1, 0), []);
    assert_eq!(m.add(0, 0, 9).close(1, 0), [(0, 111, Standing::Excessive)]);
    assert_eq!(m.peak(0), Some((0, 111)));
}

#[test]
fn the_verdict_holds_until_the_last_bucket_over_leaves_the_window() {
    let mut m = Metered::basic();
    m.add(0, 0, 111).add(7, 0, 120).add(9, 0, 100).close(9, 0);
    assert_eq!(m.throttled_until(10), Some(8 + 8640));
    assert_eq!(m.throttled_until(7 + 8640), Some(8 + 8640));
    assert_eq!(m.throttled_until(8 + 8640), None);
}

#[test]
fn another_limit_is_judged_against_the_same_window() {
    let mut m = Metered::basic();
    m.add(0, 0, 330).close(0, 0);
    for (max_qps, throttled) in [(10, true), (29, true), (30, false), (100, false), (10, true)] {
        m.plan = Plan::new("p", max_qps);
        assert_eq!(m.throttled_until(1).is_some(), throttled, "{max_qps}");
    }
}

#[test]
fn after_a_jump_back_a_bucket_keeps_the_larger_of_its_counts() {
    let mut m = Metered::basic();
    m.add(5, 0, 105).close(5, 0);
    assert_eq!(m.add(5, 1, 60).close(5, 1), []);
    assert_eq!(m.peak(5), Some((5, 105)));
    assert_eq!(m.add(5, 1, 55).close(5, 1), [(5, 115, Standing::Excessive)]);
    assert_eq!(m.peak(5), Some((5, 115)));
}

#[test]
fn a_bucket_that_the_clock_left_backwards_is_judged_at_once() {
    let mut m = Metered::basic();
    assert_eq!(m.add(100, 0, 200).close(3, 1), [(100, 200, Standing::Excessive)]);
    assert!(m.throttled_until(4).is_some());
}

#[test]
fn of_equal_buckets_the_earliest_is_the_peak() {
    let mut m = Metered::basic();
    m.add(3, 0, 50).add(9, 0, 50).close(9, 0);
    assert_eq!(m.peak(0), Some((3, 50)));
    m.add(1, 0, 50).close(9, 0);
    assert_eq!(m.peak(0), Some((1, 50)));
}

#[test]
fn a_day_ends_at_midnight_and_a_jump_erases_no_peak() {
    let mut m = Metered::basic();
    m.add(-1, 0, 70).add(0, 0, 20).close(0, 0);
    assert_eq!((m.peak(-1), m.peak(0)), (Some((-1, 70)), Some((0, 20))));
    m.add(90 * 8640, 0, 5).close(90 * 8640, 0);
    m.add(1, 1, 6).close(1, 1);
    assert_eq!((m.peak(-1), m.peak(0)), (Some((-1, 70)), Some((0, 20))));
}

#[test]
fn a_changed_zone_counts_today_anew_and_keeps_the_days_before() {
    let mut m = Metered::basic();
    m.add(-8640, 0, 90).add(-100, 0, 70).add(0, 0, 20).close(0, 0);
    // Two hours east of UTC the day began 720 buckets ago: yesterday's 70 is today's.
    let east = TimeZone::fixed(jiff::tz::offset(2));
    m.calendar = Calendar::new(east);
    let today = m.calendar.day_of(Bucket(MIDNIGHT));
    m.usage.rezone(today);
    assert_eq!(m.peak(0), Some((-100, 70)));
}

#[test]
fn a_peak_below_one_is_shown_as_one() {
    let mut m = Metered::basic();
    m.add(0, 0, 3).close(0, 0);
    let day = m.calendar.day_of(Bucket(MIDNIGHT));
    assert_eq!(m.usage.peak(day).unwrap().qps(), 1.0);
    assert_eq!(qps(105), 10.5);
}

#[test]
fn the_last_closed_bucket_is_the_one_before_now() {
    let mut m = Metered::basic();
    m.add(0, 0, 42).close(0, 0);
    assert_eq!([1, 2].map(|b| m.usage.last_closed_count(Bucket(MIDNIGHT + b).start())), [42, 0]);
}
