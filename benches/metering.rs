//! What metering costs off the workers, with 100,000 domains: closing a bucket, journaling it, storing it, and starting
//! again with what was stored.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::tz::TimeZone;
use lockgate::clock::{Reading, UnixTime};
use lockgate::control::{Blueprint, Control};
use lockgate::journal::{self, Journal};
use lockgate::meter::{Bucket, Shipment, Slot, Tally};
use lockgate::name::DomainName;
use lockgate::plan::Plan;
use lockgate::site::{OriginSpec, SiteSpec, Terms};
use lockgate::snapshot::{Live, Snapshot};
use lockgate::store::{Fold, Store};
use lockgate::upkeep::alerts::Alerts;
use lockgate::upkeep::harvest::{Harvest, Past};
use lockgate::usage::Usage;
use tokio::runtime::Runtime;

const DOMAINS: u32 = 100_000;
/// Domains whose history is stored when the hours around a peak are read.
const STORED_DOMAINS: u32 = 10_000;
/// 2026-06-01 12:00:00 UTC.
const NOON: i64 = 1_780_315_200;

/// A harvest over all domains, and both its clocks.
struct Field {
    harvest: Harvest,
    secs: i64,
    mono: Instant,
}

impl Field {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        let mut field = Self { harvest: Harvest::new(Arc::new(Alerts::default())), secs: NOON, mono: Instant::now() };
        field.harvest.follow(snapshot, &TimeZone::UTC, field.now());
        field
    }

    fn now(&self) -> Reading {
        Reading { now: UnixTime::from_secs(self.secs), pass: 0 }
    }

    /// Every domain has `count` requests in the bucket that the clock stands in.
    fn arrive(&mut self, count: u32) {
        let bucket = Bucket::of(self.now().now);
        let tally =
            |i| Tally { slot: Slot(i), bucket, pass: 0, arrived: count, answered: [0, count, 0, 0, 0], throttled: 0 };
        self.harvest.take(Shipment { tallies: (0..DOMAINS).map(tally).collect(), origin_faults: Vec::new() });
    }

    /// To the moment before the bucket is closed.
    fn end_bucket(&mut self) {
        self.secs += 10;
        self.mono += Duration::from_secs(10);
        self.harvest.step(self.now(), self.mono);
        self.mono += Duration::from_millis(400);
    }

    fn step(&mut self) {
        self.harvest.step(self.now(), self.mono);
    }

    /// A bucket in which every domain was active, closed.
    fn bucket(&mut self) {
        self.arrive(7 + (self.secs / 10 % 13) as u32);
        self.end_bucket();
        self.step();
    }
}

fn snapshot() -> Arc<Snapshot> {
    let origin = Arc::new(OriginSpec::http("127.0.0.1", 8080));
    let terms = Arc::new(Terms { plan: Some(Arc::new(Plan::new("basic", 10))), ..Terms::default() });
    let spec = |i| {
        let name = DomainName::parse(&format!("shop-{i}.example.com")).unwrap();
        Arc::new(SiteSpec { terms: Arc::clone(&terms), ..SiteSpec::new(name, Arc::clone(&origin)) })
    };
    let live = Arc::new(Live::default());
    let blueprint = Blueprint { domains: (0..DOMAINS).map(spec).collect(), ..Blueprint::default() };
    Control::new(Arc::clone(&live)).apply(blueprint).unwrap();
    live.snapshot()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn open(dir: &Path, runtime: &Runtime) -> Store {
    runtime.block_on(Store::open(dir, UnixTime::from_secs(NOON))).unwrap().store
}

fn metering(c: &mut Criterion) {
    let snapshot = snapshot();
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &runtime);
    let mut group = c.benchmark_group("100,000 active domains");
    group.sample_size(10);

    let mut field = Field::new(&snapshot);
    field.bucket();
    group.bench_function("close a bucket", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                field.arrive(5);
                field.end_bucket();
                let began = Instant::now();
                field.step();
                took += began.elapsed();
                while !field.harvest.take_folds(5_000).is_empty() {}
            }
            took
        });
    });

    let journal_dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::new(journal_dir.path(), None);
    field.harvest.take_changes();
    group.bench_function("journal what changed", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                field.bucket();
                let began = Instant::now();
                let changes = field.harvest.take_changes();
                assert_eq!(changes.len(), DOMAINS as usize);
                journal.append(field.now(), &changes).unwrap();
                took += began.elapsed();
                while !field.harvest.take_folds(5_000).is_empty() {}
            }
            took
        });
    });

    // All are stored once, so that the database has its size.
    field.bucket();
    let store_all = |field: &mut Field| loop {
        let folds = field.harvest.take_folds(5_000);
        if folds.is_empty() {
            break;
        }
        runtime.block_on(store.fold(&folds, field.now(), "UTC")).unwrap();
    };
    store_all(&mut field);
    group.bench_function("store 5,000 of them", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                field.bucket();
                let began = Instant::now();
                let folds = field.harvest.take_folds(5_000);
                runtime.block_on(store.fold(&folds, field.now(), "UTC")).unwrap();
                took += began.elapsed();
                while !field.harvest.take_folds(5_000).is_empty() {}
            }
            took
        });
    });
    group.finish();

    field.bucket();
    store_all(&mut field);
    field.bucket();
    let changes = field.harvest.take_changes();
    let mut journal = Journal::new(dir.path(), None);
    journal.append(field.now(), &changes).unwrap();
    let now = field.now();
    drop(field);
    let mut group = c.benchmark_group("start with 100,000 domains");
    group.sample_size(10);
    group.bench_function("store and journal read", |b| {
        b.iter_with_large_drop(|| {
            let remembered = runtime.block_on(store.remembered()).unwrap();
            let usages = remembered.states.into_iter().map(|(name, state)| (name, Usage::load(&state).unwrap()));
            let entries = journal::replay(dir.path()).unwrap().entries;
            Past { at: remembered.at, zone: remembered.zone, usages: usages.collect(), entries }
        });
    });
    group.bench_function("taken in by the harvest", |b| {
        let remembered = runtime.block_on(store.remembered()).unwrap();
        let past = || {
            let usages = remembered.states.iter().map(|(name, state)| (Arc::clone(name), Usage::load(state).unwrap()));
            let entries = journal::replay(dir.path()).unwrap().entries;
            (
                Field::new(&snapshot),
                Past { at: remembered.at, zone: remembered.zone.clone(), usages: usages.collect(), entries },
            )
        };
        b.iter_batched(
            past,
            |(mut field, past)| {
                field.harvest.resume(past, now);
                field
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// 24 hours of 10,000 domains, each with requests in every minute.
fn history(c: &mut Criterion) {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &runtime);
    let at = Reading { now: UnixTime::from_secs(NOON), pass: 0 };
    for hour in 0..24 {
        let first = NOON / 10 - (hour + 1) * 360;
        let counts: Vec<_> = (0..60).map(|minute| (Bucket(first + minute * 6), 100 + minute as u64)).collect();
        let fold = |i| Fold { name: format!("shop-{i}.example.com").into(), state: Vec::new(), counts: counts.clone() };
        let folds: Vec<_> = (0..STORED_DOMAINS).map(fold).collect();
        folds.chunks(5_000).for_each(|folds| runtime.block_on(store.fold(folds, at, "UTC")).unwrap());
    }
    let mut group = c.benchmark_group("10,000 domains stored");
    let mut next = (0..STORED_DOMAINS).step_by(97).cycle();
    group.bench_function("six hours around a peak", |b| {
        b.iter(|| {
            let name = format!("shop-{}.example.com", next.next().unwrap());
            let (from, to) = (Bucket(NOON / 10 - 12 * 360), Bucket(NOON / 10 - 6 * 360));
            let series = runtime.block_on(store.series(black_box(&name), from, to)).unwrap();
            assert_eq!(series.len(), 360);
        });
    });
    group.finish();
}

criterion_group!(benches, metering, history);
criterion_main!(benches);
