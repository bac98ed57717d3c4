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
    m.usage.rezone(&mut m.calendar, Bucket(MIDNIGHT).start());
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

/// The days that wait for their records, as (first bucket, limit).
fn unsealed(usage: &Usage) -> Vec<(i64, Option<u32>)> {
    usage.unsealed.iter().map(|u| (u.day.start.0 - MIDNIGHT, u.limit_qps)).collect()
}

#[test]
fn a_day_with_requests_waits_for_its_record_until_it_is_over_and_taken() {
    let mut m = Metered::basic();
    m.add(0, 0, 5).add(8640, 0, 1).close(8640, 0);
    assert_eq!(unsealed(&m.usage), [(0, Some(10)), (8640, Some(10))]);
    let by = Bucket(MIDNIGHT + 8640);
    assert!(m.usage.has_ended(by) && !m.usage.has_ended(Bucket(by.0 - 1)));
    assert_eq!(m.usage.take_ended(by).iter().map(|u| u.day.start.0 - MIDNIGHT).collect::<Vec<_>>(), [0]);
    assert_eq!(unsealed(&m.usage), [(8640, Some(10))]);
    // What arrives late waits for another record.
    m.add(0, 0, 1).close(8640, 0);
    assert_eq!(unsealed(&m.usage), [(8640, Some(10)), (0, Some(10))]);
}

#[test]
fn a_day_is_held_against_the_limit_of_its_last_bucket() {
    let mut m = Metered::basic();
    m.add(0, 0, 5).close(0, 0);
    m.plan = Plan::new("pro", 30);
    m.add(1, 0, 5).close(1, 0);
    assert_eq!(unsealed(&m.usage), [(0, Some(30))]);
}

#[test]
fn a_bucket_is_kept_until_it_was_judged_however_many_come_meanwhile() {
    let mut m = Metered::basic();
    (0..9).for_each(|bucket| _ = m.add(bucket, 0, 120 - bucket as u64));
    assert_eq!(m.close(0, 0), [(0, 120, Standing::Excessive)]);
    assert_eq!(m.close(8, 0).len(), 8);
}

#[test]
fn a_day_that_waits_for_its_record_is_kept_when_its_peak_is_forgotten() {
    let mut m = Metered::basic();
    m.add(0, 0, 111).close(0, 0);
    m.usage.hold(Bucket(MIDNIGHT + 1).start(), Bucket(MIDNIGHT + 11).start());
    m.usage.trim(Bucket(MIDNIGHT + 4 * 8640).start());
    let day = m.calendar.day_of(Bucket(MIDNIGHT));
    assert_eq!((m.usage.held_secs(day), m.peak(0)), (100, None));
    assert_eq!(unsealed(&Usage::load(&m.usage.save()).unwrap()), [(0, Some(10))]);
}

#[test]
fn a_changed_zone_leaves_no_hour_without_a_record() {
    let mut m = Metered::basic();
    m.add(0, 0, 5).add(8500, 0, 1).close(8500, 0);
    // Two hours east of UTC midnight was 720 buckets ago: the day that is sealed next is the zone's own.
    m.calendar = Calendar::new(TimeZone::fixed(jiff::tz::offset(2)));
    m.usage.rezone(&mut m.calendar, Bucket(MIDNIGHT + 8500).start());
    assert_eq!(unsealed(&m.usage).iter().map(|(day, _)| *day).collect::<Vec<_>>(), [-720, 7920]);
}

#[test]
fn days_met_under_a_clock_far_ahead_stay_as_they_are_when_the_zone_changes() {
    let mut m = Metered::basic();
    m.add(90 * 8640, 0, 7).close(90 * 8640, 0);
    let day = m.calendar.day_of(Bucket(MIDNIGHT + 90 * 8640));
    m.calendar = Calendar::new(TimeZone::fixed(jiff::tz::offset(2)));
    m.usage.rezone(&mut m.calendar, Bucket(MIDNIGHT).start());
    assert_eq!((m.usage.peak(day).map(|peak| peak.count), unsealed(&m.usage)), (Some(7), vec![(90 * 8640, Some(10))]));
}

#[test]
fn a_journal_hears_of_every_count_once() {
    let mut m = Metered::basic();
    let journaled = |m: &mut Metered| -> Vec<_> {
        m.usage.take_unjournaled().map(|(b, pass, count)| (b.0 - MIDNIGHT, pass, count)).collect()
    };
    m.add(0, 0, 5).add(1, 0, 2);
    assert_eq!(journaled(&mut m), [(0, 0, 5), (1, 0, 2)]);
    assert_eq!(journaled(&mut m), []);
    m.add(1, 0, 1).close(0, 0);
    assert_eq!(journaled(&mut m), [(1, 0, 3)]);
}

#[test]
fn a_store_hears_of_every_closed_bucket_once() {
    let mut m = Metered::basic();
    m.add(0, 0, 5).add(1, 0, 2).close(0, 0);
    assert_eq!(m.usage.take_closed(), [(Bucket(MIDNIGHT), 5)]);
    m.add(0, 0, 1).close(1, 0);
    assert_eq!(m.usage.take_closed(), [(Bucket(MIDNIGHT), 6), (Bucket(MIDNIGHT + 1), 2)]);
    assert_eq!(m.usage.take_closed(), []);
}

#[test]
fn two_halves_of_a_bucket_around_a_restart_add_up_and_the_verdict_is_the_same() {
    let mut m = Metered::basic();
    m.add(0, 3, 60);
    let saved = m.usage.save();
    m.add(0, 3, 1);
    // The store has 60 of them, the journal all 61; the clock goes on in the same pass.
    let mut after = Metered::basic();
    after.usage = Usage::load(&saved).unwrap();
    after.usage.recall(Bucket(MIDNIGHT), 3, 61);
    after.usage.recall(Bucket(MIDNIGHT), 3, 60);
    assert_eq!(after.usage.take_unjournaled().count(), 0, "the journal that says so has it");
    assert_eq!(after.add(0, 3, 50).close(0, 3), [(0, 111, Standing::Excessive)]);
    // After a step back of the clock they are two visits, and the larger counts.
    let mut back = Metered::basic();
    back.usage = Usage::load(&saved).unwrap();
    assert_eq!(back.add(0, 4, 50).close(0, 4), []);
    assert_eq!(back.peak(0), Some((0, 60)));
}

#[test]
fn what_is_saved_is_what_is_loaded_and_nothing_costs_nothing() {
    let mut m = Metered::basic();
    assert!(m.usage.save().is_empty());
    m.add(0, 0, 200).add(1, 0, 3).close(0, 0);
    m.usage.hold(Bucket(MIDNIGHT + 1).start(), Bucket(MIDNIGHT + 8641).start());
    m.usage.take_closed();
    let saved = m.usage.save();
    assert!(saved.len() < 120, "{} bytes", saved.len());
    let mut loaded = Usage::load(&saved).unwrap();
    assert_eq!(loaded.take_unjournaled().count(), 2);
    assert_eq!(loaded.save(), saved);
    assert_eq!((loaded.window, loaded.held, loaded.days), (m.usage.window, m.usage.held, m.usage.days));
    assert!(matches!(Usage::load(&saved[..saved.len() - 3]), Err(UnreadableState::Damaged)));
    assert!(matches!(Usage::load(&[&[99], &saved[1..]].concat()), Err(UnreadableState::Version(99))));
}

#[test]
fn what_was_saved_can_come_late() {
    let mut m = Metered::basic();
    m.add(-100, 0, 200).add(-1, 0, 30).close(-1, 0);
    m.usage.hold(Bucket(MIDNIGHT - 99).start(), Bucket(MIDNIGHT - 90).start());
    let saved = Usage::load(&m.usage.save()).unwrap();
    let mut late = Metered::basic();
    late.add(0, 0, 5).close(0, 0);
    late.usage.hold(Bucket(MIDNIGHT - 1).start(), Bucket(MIDNIGHT).start());
    late.usage.resume(saved);
    assert_eq!(late.usage.held_secs(late.calendar.day_of(Bucket(MIDNIGHT - 1))), 100);
    assert_eq!(late.throttled_until(1), m.throttled_until(1));
    assert_eq!((late.peak(-1), late.peak(0)), (Some((-100, 200)), Some((0, 5))));
    assert_eq!(unsealed(&late.usage).len(), 2);
}

#[test]
fn a_day_says_how_long_it_was_held() {
    let mut m = Metered::basic();
    m.add(0, 0, 111).close(0, 0);
    let until = m.usage.throttled_until(Bucket(MIDNIGHT + 1).start(), &m.plan).unwrap();
    m.usage.hold(Bucket(MIDNIGHT + 1).start(), until);
    m.usage.release(until);
    let [day, next] = [0, 8640].map(|b| m.calendar.day_of(Bucket(MIDNIGHT + b)));
    assert_eq!((m.usage.held_secs(day), m.usage.held_secs(next)), (86_390, 10));
}
