//! Sealing and trimming.

use rstest::rstest;

use super::*;
use crate::usage::{DayFacts, Flaw, Link};

/// The bucket of a moment.
fn bucket(at: &str) -> i64 {
    Bucket::of(UnixTime::from_secs(at.parse::<jiff::Timestamp>().unwrap().as_second())).0
}

async fn chain(world: &World, name: &str) -> Chain {
    let chain = world.store.chain(name).await.unwrap().unwrap();
    assert_eq!(chain.flaws(), []);
    chain
}

async fn sealed_dates(world: &World, name: &str) -> Vec<String> {
    chain(world, name).await.records.iter().map(|record| record.facts.date.to_string()).collect()
}

/// A name with a request on each of these days of June, sealed in this order.
async fn seal_days(world: &World, name: &str, days: &[i8]) {
    for day in days {
        let date = civil::date(2026, 6, *day).to_string();
        world.fold(name, &[(bucket(&format!("{date}T09:00:00Z")), 100 + *day as u64)]).await;
        assert_eq!(world.store.seal(&[seal(name, UTC, &date)], at(JUNE)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_record_says_exactly_what_is_stored_of_the_day() {
    let world = World::new().await;
    let noon = bucket("2026-06-01T12:00:00Z");
    world.fold("a", &[(noon - 4320, 3), (noon - 1, 70), (noon, 115), (noon + 4319, 1), (noon + 4320, 900)]).await;
    let mut seal = seal("a", UTC, "2026-06-01");
    seal.fold = fold("a", &[(noon + 9, 115), (noon - 1, 71), (noon - 4321, 800)]);
    seal.throttled_secs = 86_400;
    let sealed = world.store.seal(std::slice::from_ref(&seal), at(JUNE)).await.unwrap();
    let expected = DayFacts {
        date: civil::date(2026, 6, 1),
        zone: UTC.into(),
        limit_qps: Some(10),
        peak_count: 115,
        peak_at: Bucket(noon),
        requests: 3 + 71 + 115 + 115 + 1,
        throttled_secs: 86_400,
    };
    assert_eq!(sealed, [DayRecord::seal("a".into(), expected, &Link::GENESIS)]);
    assert_eq!(chain(&world, "a").await.records, sealed);
    // What came with it is stored too.
    assert!(world.series("a").await.contains(&(noon + 9, 115)));
}

#[rstest]
#[case::midnight_in_the_middle_of_an_hour("Asia/Kathmandu", "2026-06-02", "2026-06-01T18:15:00Z", 8640)]
#[case::twenty_three_hours("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", 8280)]
#[case::twenty_five_hours("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", 9000)]
#[tokio::test]
async fn a_day_is_from_its_zones_midnight_to_the_next(
    #[case] zone: &str,
    #[case] date: &str,
    #[case] midnight: &str,
    #[case] buckets: i64,
) {
    let world = World::new().await;
    let start = bucket(midnight);
    world.fold("a", &[(start - 1, 1000), (start, 5), (start + buckets - 1, 6), (start + buckets, 1000)]).await;
    let sealed = world.store.seal(&[seal("a", zone, date)], at(JUNE)).await.unwrap();
    assert_eq!((sealed[0].facts.requests, sealed[0].facts.peak_at), (11, Bucket(start + buckets - 1)));
}

#[tokio::test]
async fn a_day_sealed_twice_is_sealed_once_and_an_idle_one_not_at_all() {
    let world = World::new().await;
    world.fold("a", &[(bucket("2026-06-01T12:00:00Z"), 5)]).await;
    let nobody = Seal { fold: Fold { state: vec![], ..fold("b", &[]) }, ..seal("b", UTC, "2026-06-01") };
    let seals = [seal("a", UTC, "2026-06-01"), seal("a", UTC, "2026-06-02"), seal("a", UTC, "2026-06-01"), nobody];
    assert_eq!(world.store.seal(&seals, at(JUNE)).await.unwrap().len(), 1);
    assert_eq!(world.store.seal(&seals, at(JUNE)).await.unwrap(), []);
    assert_eq!(chain(&world, "a").await.records.len(), 1);
    assert_eq!(world.store.chain("b").await.unwrap(), None);
}

#[tokio::test]
async fn what_comes_late_amends_the_day_by_another_record() {
    let world = World::new().await;
    seal_days(&world, "a", &[1, 2]).await;
    let mut late = seal("a", UTC, "2026-06-01");
    late.fold = fold("a", &[(bucket("2026-06-01T10:00:00Z"), 700)]);
    let amended = world.store.seal(&[late], at(JUNE)).await.unwrap();
    assert_eq!((amended[0].seq, amended[0].facts.requests, amended[0].facts.peak_count), (3, 801, 700));
    assert_eq!(sealed_dates(&world, "a").await, ["2026-06-01", "2026-06-02", "2026-06-01"]);
    assert_eq!(world.store.seal(&[seal("a", UTC, "2026-06-01")], at(JUNE)).await.unwrap(), []);
}

#[tokio::test]
async fn the_same_date_of_another_zone_is_another_day() {
    let world = World::new().await;
    world.fold("a", &[(bucket("2026-06-01T12:00:00Z"), 5)]).await;
    for zone in [UTC, "Asia/Shanghai", UTC, "Asia/Shanghai"] {
        world.store.seal(&[seal("a", zone, "2026-06-01")], at(JUNE)).await.unwrap();
    }
    assert_eq!(chain(&world, "a").await.records.len(), 2);
}

#[tokio::test]
async fn many_days_of_many_names_are_chained_by_day_in_one_call() {
    let world = World::new().await;
    let names: Vec<_> = (0..700).map(|n| format!("n{n}")).collect();
    let mut seals = Vec::new();
    for name in &names {
        for date in ["2026-06-03", "2026-06-01", "2026-06-02"] {
            let mut seal = seal(name, UTC, date);
            seal.fold = fold(name, &[(bucket(&format!("{date}T23:59:50Z")), 4)]);
            seals.push(seal);
        }
    }
    assert_eq!(world.store.seal(&seals, at(JUNE)).await.unwrap().len(), 2100);
    for name in &names {
        assert_eq!(sealed_dates(&world, name).await, ["2026-06-01", "2026-06-02", "2026-06-03"]);
    }
}

#[tokio::test]
async fn a_damaged_hour_does_not_keep_the_others_from_being_sealed() {
    let world = World::new().await;
    let noon = bucket("2026-06-01T12:00:00Z");
    world.fold("a", &[(noon, 5)]).await;
    world.tamper("UPDATE series SET counts = CAST(counts || x'ffffffff' AS BLOB)").await;
    world.fold("a", &[(noon + 360, 7)]).await;
    let sealed = world.store.seal(&[seal("a", UTC, "2026-06-01")], at(JUNE)).await.unwrap();
    assert_eq!(sealed[0].facts.requests, 12);
}

#[tokio::test]
async fn history_that_is_gone_does_not_shrink_a_sealed_day() {
    let world = World::new().await;
    seal_days(&world, "a", &[1]).await;
    world.store.trim(Hour::of(Bucket(bucket("2026-06-01T10:00:00Z"))), civil::Date::MIN, 10).await.unwrap();
    let mut late = seal("a", UTC, "2026-06-01");
    late.fold = fold("a", &[(bucket("2026-06-01T11:00:00Z"), 1)]);
    assert_eq!(world.store.seal(&[late], at(JUNE)).await.unwrap(), []);
}

#[tokio::test]
async fn numbers_beyond_the_databases_are_its_largest_and_the_chain_holds() {
    let world = World::new().await;
    let noon = bucket("2026-06-01T12:00:00Z");
    world.fold("a", &[(noon, u64::MAX), (noon + 1, u64::MAX)]).await;
    let seal = Seal { throttled_secs: u64::MAX, limit_qps: Some(u32::MAX), ..seal("a", UTC, "2026-06-01") };
    world.store.seal(std::slice::from_ref(&seal), at(JUNE)).await.unwrap();
    assert_eq!(chain(&world, "a").await.records[0].facts.requests, i64::MAX as u64);
    assert_eq!(world.store.seal(&[seal], at(JUNE)).await.unwrap(), []);
}

#[tokio::test]
async fn whoever_changes_a_record_is_given_away() {
    let world = World::new().await;
    seal_days(&world, "a", &[1, 2, 3]).await;
    world.tamper("UPDATE day SET date = 'yesterday', hash = x'00' WHERE seq = 1; DELETE FROM day WHERE seq = 3").await;
    let flaws = world.store.chain("a").await.unwrap().unwrap().flaws();
    let changed = Flaw::Changed { seq: 1, date: civil::Date::MIN };
    assert!(flaws.contains(&changed), "{flaws:?}");
    assert!(flaws.contains(&Flaw::Removed { first: 3, last: 3 }), "{flaws:?}");
}

#[tokio::test]
async fn a_head_that_was_set_back_shows_and_keeps_nobody_from_being_sealed() {
    let world = World::new().await;
    seal_days(&world, "a", &[1, 2, 3]).await;
    world.tamper("UPDATE domain SET head_seq = 1").await;
    seal_days(&world, "a", &[4]).await;
    let chain = world.store.chain("a").await.unwrap().unwrap();
    assert_eq!((chain.records.len(), chain.flaws()), (4, vec![]));
    world.tamper("UPDATE domain SET head_seq = 1, head_hash = zeroblob(32)").await;
    seal_days(&world, "a", &[5]).await;
    let flaws = world.store.chain("a").await.unwrap().unwrap().flaws();
    assert_eq!(flaws, [Flaw::Unlinked { seq: 5, date: civil::date(2026, 6, 5) }]);
}

#[tokio::test]
async fn trimming_leaves_an_anchor_and_no_flaw() {
    let world = World::new().await;
    seal_days(&world, "a", &[1, 2, 3, 4]).await;
    let before = chain(&world, "a").await;
    assert_eq!(world.store.trim(Hour(i64::MIN), civil::date(2026, 6, 3), 100).await.unwrap(), 2);
    let after = chain(&world, "a").await;
    assert_eq!(
        (after.anchor, &after.records[..], after.head),
        (before.records[1].link(), &before.records[2..], before.head)
    );
    assert_eq!(world.store.trim(Hour(i64::MIN), civil::Date::MAX, 100).await.unwrap(), 2);
    assert_eq!(chain(&world, "a").await.anchor, before.head);
    // And it goes on behind it.
    seal_days(&world, "a", &[5]).await;
    assert_eq!(chain(&world, "a").await.records[0].seq, 5);
}

#[tokio::test]
async fn an_old_record_behind_a_newer_one_waits_for_it() {
    let world = World::new().await;
    seal_days(&world, "a", &[2, 9, 1, 3]).await;
    seal_days(&world, "b", &[1]).await;
    assert_eq!(world.store.trim(Hour(i64::MIN), civil::date(2026, 6, 5), 100).await.unwrap(), 2);
    assert_eq!(sealed_dates(&world, "a").await, ["2026-06-09", "2026-06-01", "2026-06-03"]);
    assert_eq!(world.store.trim(Hour(i64::MIN), civil::date(2026, 6, 10), 100).await.unwrap(), 3);
    assert_eq!(chain(&world, "a").await.records, []);
}

#[tokio::test]
async fn trimming_goes_in_steps_until_nothing_is_left_to_forget() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        seal_days(&world, name, &[3, 1, 2, 4, 5]).await;
    }
    let (hours, days) = (Hour::of(Bucket(bucket("2026-06-04T00:00:00Z"))), civil::date(2026, 6, 4));
    let mut steps = Vec::new();
    while steps.last().is_none_or(|went| *went >= 2) {
        steps.push(world.store.trim(hours, days, 2).await.unwrap());
        for name in ["a", "b", "c"] {
            chain(&world, name).await;
        }
    }
    // Nine hours and nine records; the states speak of later.
    assert_eq!(steps, [4, 4, 4, 4, 2, 0]);
    assert_eq!(world.series("a").await.len(), 2);
    assert_eq!(sealed_dates(&world, "a").await, ["2026-06-04", "2026-06-05"]);
}

#[tokio::test]
async fn a_state_is_forgotten_when_its_last_bucket_is() {
    let world = World::new().await;
    let hour = 360 * Hour::of(Bucket::of(JUNE)).0;
    world.fold("old", &[]).await;
    world.fold("ahead", &[(hour + 5 * 360, 1)]).await;
    world.fold("ahead", &[(hour, 1)]).await;
    let later = at(JUNE.plus_secs(2 * 3600));
    world.store.fold(&[fold("touched", &[])], later, UTC).await.unwrap();
    let left = async || -> Vec<Arc<str>> {
        world.store.remembered().await.unwrap().states.into_iter().map(|(name, _)| name).collect()
    };
    let trim = async |hours| world.store.trim(Hour(hour / 360 + hours), civil::Date::MIN, 100).await.unwrap();
    assert_eq!(trim(0).await, 0);
    // One hour of counts and one state.
    assert_eq!(trim(1).await, 2);
    assert_eq!(left().await, ["ahead".into(), Arc::<str>::from("touched")]);
    assert_eq!(trim(5).await, 1);
    assert_eq!(left().await, [Arc::<str>::from("ahead")]);
}

#[tokio::test]
async fn a_peak_that_was_counted_holds_although_its_bucket_is_not_stored() {
    let world = World::new().await;
    let noon = bucket("2026-06-01T12:00:00Z");
    world.fold("a", &[(noon, 5)]).await;
    let seal = seal("a", UTC, "2026-06-01");
    let peak = Some(crate::usage::Peak { day: seal.day, count: 70, at: Bucket(noon - 1) });
    let sealed = world.store.seal(&[Seal { peak, ..seal }], at(JUNE)).await.unwrap();
    assert_eq!((sealed[0].facts.peak_count, sealed[0].facts.peak_at), (70, Bucket(noon - 1)));
}

#[tokio::test]
async fn what_comes_late_takes_no_throttled_second_away() {
    let world = World::new().await;
    let noon = bucket("2026-06-01T12:00:00Z");
    for (at_bucket, throttled_secs, said) in [(noon, 500, 500), (noon + 1, 0, 500), (noon + 2, 600, 600)] {
        let seal = Seal { fold: fold("a", &[(at_bucket, 9)]), throttled_secs, ..seal("a", UTC, "2026-06-01") };
        assert_eq!(world.store.seal(&[seal], at(JUNE)).await.unwrap()[0].facts.throttled_secs, said);
    }
}
