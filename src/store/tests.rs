//! Every rule of the store, on real files, through its verbs. Raw SQL only plays the part of whoever damages it.

mod damage;
mod days;
mod trouble;

use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use sqlx::Connection as _;
use tempfile::TempDir;

use super::*;
use crate::usage::Calendar;

const UTC: &str = "UTC";
/// 2026-06-01T00:00:00Z.
const JUNE: UnixTime = UnixTime::from_secs(1_780_272_000);

/// A store in a directory of its own.
struct World {
    dir: TempDir,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        Self { dir, store }
    }

    /// Folds counts of one name, with a state.
    async fn fold(&self, name: &str, counts: &[(i64, u64)]) {
        self.store.fold(&[fold(name, counts)], at(JUNE), UTC).await.unwrap();
    }

    async fn series(&self, name: &str) -> Vec<(i64, u64)> {
        series(&self.store, name).await
    }

    /// Carries out SQL as somebody else would.
    async fn tamper(&self, sql: &'static str) {
        tamper(self.dir.path(), sql).await;
    }
}

async fn open(dir: &Path) -> Store {
    let opened = Store::open(dir, JUNE).await.unwrap();
    assert_eq!(opened.set_aside, None);
    opened.store
}

async fn tamper(dir: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(FILE)).foreign_keys(false);
    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

async fn series(store: &Store, name: &str) -> Vec<(i64, u64)> {
    let series = store.series(name, Bucket(i64::MIN), Bucket(i64::MAX)).await.unwrap();
    series.into_iter().map(|(Bucket(bucket), count)| (bucket, count)).collect()
}

fn at(now: UnixTime) -> Reading {
    Reading { now, pass: 3 }
}

fn fold(name: &str, counts: &[(i64, u64)]) -> Fold {
    let counts = counts.iter().map(|(bucket, count)| (Bucket(*bucket), *count)).collect();
    Fold { name: name.into(), state: format!("state of {name}").into_bytes(), counts }
}

fn day(zone: &str, date: &str) -> Day {
    let noon: jiff::Timestamp = format!("{date}T12:00:00Z").parse().unwrap();
    Calendar::new(TimeZone::get(zone).unwrap()).today(UnixTime::from_secs(noon.as_second()))
}

/// To seal what is stored of `name` already.
fn seal(name: &str, zone: &str, date: &str) -> Seal {
    Seal {
        fold: fold(name, &[]),
        day: day(zone, date),
        zone: zone.into(),
        limit_qps: Some(10),
        throttled_secs: 0,
        peak: None,
    }
}

#[tokio::test]
async fn folding_twice_is_folding_once() {
    let world = World::new().await;
    world.fold("a", &[(1, 5), (400, 7)]).await;
    world.fold("a", &[(1, 5), (400, 7)]).await;
    assert_eq!(world.series("a").await, [(1, 5), (400, 7)]);
}

#[tokio::test]
async fn halves_of_an_hour_join_and_of_a_bucket_the_larger_count_holds() {
    let world = World::new().await;
    world.fold("a", &[(1, 5), (2, 300)]).await;
    world.fold("a", &[(2, 30), (3, u64::MAX)]).await;
    world.fold("a", &[(1, 6)]).await;
    assert_eq!(world.series("a").await, [(1, 6), (2, 300), (3, u64::MAX)]);
}

#[tokio::test]
async fn a_name_may_stand_in_a_call_more_than_once() {
    let world = World::new().await;
    let mut later = fold("a", &[(1, 4), (2, 2), (9, 0)]);
    later.state = b"later".into();
    world.store.fold(&[fold("a", &[(1, 5), (1, 3)]), later], at(JUNE), UTC).await.unwrap();
    assert_eq!(world.series("a").await, [(1, 5), (2, 2)]);
    assert_eq!(world.store.remembered().await.unwrap().states, [("a".into(), b"later".into())]);
}

#[tokio::test]
async fn a_range_ends_before_its_end_and_names_do_not_mix() {
    let world = World::new().await;
    world.fold("a", &[(-361, 1), (10, 2), (20, 3), (5000, 4)]).await;
    world.fold("b", &[(10, 99)]).await;
    let of = async |from, to| -> Vec<i64> {
        world.store.series("a", Bucket(from), Bucket(to)).await.unwrap().into_keys().map(|b| b.0).collect()
    };
    assert_eq!(of(10, 20).await, [10]);
    assert_eq!(of(-361, 11).await, [-361, 10]);
    assert_eq!(of(11, 5000).await, [20]);
    assert_eq!(of(20, 10).await, [0i64; 0]);
    assert_eq!(series(&world.store, "nobody").await, []);
}

#[tokio::test]
async fn a_start_finds_the_clock_the_zone_and_each_state_as_last_folded() {
    let world = World::new().await;
    let before = world.store.remembered().await.unwrap();
    assert!(before.at.is_none() && before.zone.is_none() && before.states.is_empty());
    world.store.fold(&[fold("a", &[(1, 1)]), fold("b", &[])], at(JUNE), UTC).await.unwrap();
    let gone = Fold { state: vec![], ..fold("b", &[]) };
    let last = Reading { now: JUNE.plus_secs(9), pass: 4 };
    world.store.fold(&[gone], last, "Asia/Shanghai").await.unwrap();
    world.store.close().await;
    let found = open(world.dir.path()).await.remembered().await.unwrap();
    assert_eq!((found.at, found.zone.as_deref()), (Some(last), Some("Asia/Shanghai")));
    assert_eq!(found.states, [("a".into(), b"state of a".into())]);
}

#[tokio::test]
async fn names_are_in_order_and_a_fold_that_says_nothing_makes_none_known() {
    let world = World::new().await;
    let nothing = Fold { name: "c".into(), state: vec![], counts: vec![] };
    world.store.fold(&[fold("b", &[]), nothing, fold("*.a", &[(1, 1)])], at(JUNE), UTC).await.unwrap();
    assert_eq!(world.store.names().await.unwrap(), ["*.a".into(), Arc::<str>::from("b")]);
}

#[tokio::test]
async fn more_names_than_a_statement_holds_are_stored_and_found() {
    let world = World::new().await;
    let folds: Vec<_> = (0..1203).map(|n| fold(&format!("n{n}"), &[(n, 1), (n + 360, 2)])).collect();
    for _ in 0..2 {
        world.store.fold(&folds, at(JUNE), UTC).await.unwrap();
    }
    assert_eq!(world.store.names().await.unwrap().len(), 1203);
    assert_eq!(world.store.remembered().await.unwrap().states.len(), 1203);
    assert_eq!(world.series("n1202").await, [(1202, 1), (1562, 2)]);
}

#[tokio::test]
async fn a_bucket_that_is_stored_again_and_again_does_not_grow() {
    let world = World::new().await;
    let hour: Vec<_> = (0..360).map(|bucket| (bucket, 20_000)).collect();
    for n in 0..20u64 {
        world.fold("a", &hour).await;
        world.fold("a", &[(7, 20_000 + n)]).await;
    }
    let mut expected = hour.clone();
    expected[7].1 = 20_019;
    assert_eq!(world.series("a").await, expected);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.dir.path().join(FILE));
    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let bytes: i64 = sqlx::query_scalar("SELECT length(counts) FROM series").fetch_one(&mut conn).await.unwrap();
    assert!(bytes < 10_000, "{bytes}");
}

#[tokio::test]
async fn absurd_times_are_stored_like_others() {
    let world = World::new().await;
    let far = UnixTime::from_secs(900_000_000_000);
    for now in [far, UnixTime::from_ms(i64::MIN), UnixTime::from_ms(i64::MAX)] {
        let bucket = Bucket::of(now);
        let day = Calendar::new(TimeZone::UTC).day_of(bucket);
        let seal = Seal { fold: fold("a", &[(bucket.0, 5)]), day, ..seal("a", UTC, "2026-06-01") };
        world.store.fold(&[fold("a", &[(bucket.0, 3)])], at(now), UTC).await.unwrap();
        assert_eq!(world.store.seal(&[seal], at(now)).await.unwrap()[0].facts.requests, 5, "{now}");
        assert_eq!(world.store.remembered().await.unwrap().at.unwrap().now, now);
    }
    assert_eq!(world.store.chain("a").await.unwrap().unwrap().flaws(), []);
    world.store.fold(&[fold("a", &[(i64::MIN, 1), (i64::MAX, 1)])], at(far), UTC).await.unwrap();
    world.store.trim(Hour(i64::MAX), civil::Date::MAX, u32::MAX).await.unwrap();
}

#[tokio::test]
async fn a_reader_sees_what_is_written_beside_it_and_also_when_nobody_writes() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Store::open_to_read(dir.path()).await.unwrap().is_none());
    let writer = open(dir.path()).await;
    let reader = Store::open_to_read(dir.path()).await.unwrap().unwrap();
    writer.fold(&[fold("a", &[(1, 1)])], at(JUNE), UTC).await.unwrap();
    assert_eq!(series(&reader, "a").await, [(1, 1)]);
    writer.fold(&[fold("a", &[(2, 2)])], at(JUNE), UTC).await.unwrap();
    assert_eq!(series(&reader, "a").await, [(1, 1), (2, 2)]);
    writer.close().await;
    assert_eq!(series(&reader, "a").await, [(1, 1), (2, 2)]);
    reader.close().await;
    let alone = Store::open_to_read(dir.path()).await.unwrap().unwrap();
    assert_eq!(series(&alone, "a").await, [(1, 1), (2, 2)]);
    let refused = alone.fold(&[fold("a", &[(3, 3)])], at(JUNE), UTC).await;
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn in_any_order_and_however_often_each_bucket_keeps_its_largest_count(
        folds in prop::collection::vec(
            (0..3u8, prop::collection::vec((-800i64..800, 1u64..u64::MAX), 0..8)),
            0..12,
        ),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let again = order.iter().filter(|_| !folds.is_empty()).map(|index| index.get(&folds));
        let all: Vec<_> = folds.iter().chain(again).map(|(name, counts)| fold(&name.to_string(), counts)).collect();
        let mut expected = std::collections::BTreeMap::<_, Series>::new();
        for (name, counts) in &folds {
            let series = expected.entry(name.to_string()).or_default();
            counts.iter().for_each(|(bucket, count)| crate::usage::raise(series, Bucket(*bucket), *count));
        }
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let world = World::new().await;
            for some in all.chunks(3) {
                world.store.fold(some, at(JUNE), UTC).await.unwrap();
            }
            for (name, expected) in expected {
                let found = world.store.series(&name, Bucket(-800), Bucket(800)).await.unwrap();
                assert_eq!(found, expected);
            }
        });
    }
}
