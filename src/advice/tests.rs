use super::*;
use crate::clock::UnixTime;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

fn bucket(at: &str) -> Bucket {
    Bucket::of(UnixTime::from_secs(at.parse::<Timestamp>().unwrap().as_second()))
}

fn advise(zone: &str, counts: &[(Bucket, u64)], sealed: &[DayUse]) -> Option<Advice> {
    let mut calendar = Calendar::new(TimeZone::get(zone).unwrap());
    let end = counts.last().map_or(Bucket(0), |(bucket, _)| *bucket);
    let mut advisor = Advisor::new(&Plan::built_in(), &mut calendar, end);
    counts.iter().for_each(|(bucket, count)| advisor.add(*bucket, *count));
    advisor.finish(sealed.iter().copied())
}

fn plans_for(count: u64) -> (Option<String>, Option<String>, u64) {
    let advice = advise("UTC", &[(Bucket(0), count)], &[]).unwrap();
    let name = |plan: Option<Plan>| plan.map(|plan| plan.name.to_string());
    (name(advice.plan.clone()), name(advice.plan_with_grace.clone()), advice.needed_qps())
}

#[test]
fn the_plan_is_exact_to_one_request() {
    let said = |plan: &str, with_grace: &str, needed| {
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        (name(plan), name(with_grace), needed)
    };
    assert_eq!(plans_for(1), said("basic", "basic", 1));
    assert_eq!(plans_for(100), said("basic", "basic", 10));
    assert_eq!(plans_for(101), said("pro", "basic", 11));
    assert_eq!(plans_for(110), said("pro", "basic", 11));
    assert_eq!(plans_for(111), said("pro", "pro", 12));
    assert_eq!(plans_for(1000), said("enterprise", "enterprise", 100));
    assert_eq!(plans_for(1100), said("", "enterprise", 110));
    assert_eq!(plans_for(1101), said("", "", 111));
}

#[test]
fn nothing_counted_is_no_advice() {
    assert_eq!(advise("UTC", &[], &[]), None);
}

#[test]
fn days_are_the_zones_and_their_peak_is_the_earliest_of_equals() {
    let at = [
        (bucket("2026-06-01T15:59:50Z"), 7),
        (bucket("2026-06-01T16:00:00Z"), 3),
        (bucket("2026-06-01T16:00:10Z"), 30),
        (bucket("2026-06-01T16:00:20Z"), 30),
    ];
    let advice = advise("Asia/Shanghai", &at, &[]).unwrap();
    let day =
        |day, peak_count, peak_at, requests| DayUse { date: civil::date(2026, 6, day), peak_count, peak_at, requests };
    assert_eq!(advice.days, [day(1, 7, at[0].0, 7), day(2, 30, at[2].0, 63)]);
    assert_eq!(advice.days[0].peak_qps(), 1.0);
    assert_eq!((advice.first, advice.last, advice.peak), (at[0].0, at[3].0, advice.days[1]));
    assert_eq!(advise("UTC", &at, &[]).unwrap().days, [day(1, 30, at[2].0, 70)]);
}

#[test]
fn sealed_days_count_towards_the_plan() {
    let sealed = |day, peak_count, requests| DayUse {
        date: civil::date(2026, 6, day),
        peak_count,
        peak_at: bucket(&format!("2026-06-0{day}T12:00:00Z")),
        requests,
    };
    let fine = [(bucket("2026-06-03T00:00:00Z"), 50)];
    let advice = advise("UTC", &fine, &[sealed(1, 200, 400), sealed(3, 40, 90)]).unwrap();
    assert_eq!(advice.plan.as_ref().unwrap().name.as_ref(), "pro");
    assert_eq!((advice.requests, advice.first), (490, sealed(1, 1, 1).peak_at));
    assert_eq!(
        advice.days[1],
        DayUse { date: civil::date(2026, 6, 3), peak_count: 50, peak_at: fine[0].0, requests: 90 }
    );
    let alone = advise("UTC", &[], &[sealed(1, 200, 400)]).unwrap();
    assert_eq!((alone.qps, alone.requests, alone.peak.peak_count), (None, 400, 200));
}

#[test]
fn of_equal_peaks_the_earliest_is_named_whoever_knows_it() {
    let at = [bucket("2026-06-01T12:00:00Z"), bucket("2026-06-02T12:00:00Z")];
    assert_eq!(advise("UTC", &at.map(|at| (at, 30)), &[]).unwrap().peak.peak_at, at[0]);
    let sealed = DayUse { date: civil::date(2026, 6, 1), peak_count: 30, peak_at: Bucket(at[0].0 - 9), requests: 30 };
    assert_eq!(advise("UTC", &[(at[0], 30)], &[sealed]).unwrap().peak.peak_at, sealed.peak_at);
    let later = DayUse { peak_at: Bucket(at[0].0 + 9), ..sealed };
    assert_eq!(advise("UTC", &[(at[0], 30)], &[later]).unwrap().peak.peak_at, at[0]);
}

#[test]
fn idle_is_what_lies_between() {
    let advice = advise("UTC", &[(Bucket(0), 5), (Bucket(3), 15)], &[]).unwrap();
    let qps = advice.qps.unwrap();
    assert_eq!((qps.idle_share, qps.p50, qps.p90, qps.max), (0.5, 0.5, 1.5, 1.5));
}

proptest! {
    /// Against the plain definition: every bucket asked whether an excessive one lies in the day before it.
    #[test]
    fn the_simulation_is_its_definition(
        counts in prop::collection::btree_map(0i64..40_000, 1u64..60, 1..30),
        max_qps in 1u32..6,
        beyond in 0i64..10_000,
    ) {
        let plan = Plan::new("p", max_qps);
        let end = counts.keys().last().unwrap() + beyond;
        let mut outcome = Outcome::new(plan.clone(), Bucket(end));
        counts.iter().for_each(|(bucket, count)| outcome.add(Bucket(*bucket), *count));
        let limit = u64::from(max_qps);
        prop_assert_eq!(outcome.over, counts.values().filter(|c| **c > 10 * limit && **c <= 11 * limit).count() as u64);
        let excessive: Vec<i64> = counts.iter().filter(|(_, c)| **c > 11 * limit).map(|(b, _)| *b).collect();
        prop_assert_eq!(outcome.excessive, excessive.len() as u64);
        let held = (0..=end).filter(|b| excessive.iter().any(|v| v < b && *b <= v + 8640)).count();
        prop_assert_eq!(outcome.throttled_secs(), 10 * held as u64);
    }
}
