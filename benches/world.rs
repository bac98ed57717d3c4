//! What a request does before it goes to its origin, and what publishing a change costs, with 100,000 domains.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lockgate::clock::Clock;
use lockgate::control::{Blueprint, Control};
use lockgate::meter::WorkerMeter;
use lockgate::name::{DomainName, normalize_host};
use lockgate::plan::Plan;
use lockgate::site::{OriginSpec, SiteSpec, Terms};
use lockgate::snapshot::Live;

const DOMAINS: usize = 100_000;

fn blueprint() -> Blueprint {
    let origin = Arc::new(OriginSpec::http("127.0.0.1", 8080));
    let terms = Arc::new(Terms { plan: Some(Arc::new(Plan::new("basic", 10))), ..Terms::default() });
    let spec = |i| {
        let name = DomainName::parse(&format!("shop-{i}.example.com")).unwrap();
        Arc::new(SiteSpec { terms: Arc::clone(&terms), ..SiteSpec::new(name, Arc::clone(&origin)) })
    };
    Blueprint { domains: (0..DOMAINS).map(spec).collect(), ..Blueprint::default() }
}

/// Host -> site -> count -> throttle -> count of the answer: everything of the request's way that is ours alone.
fn request(c: &mut Criterion) {
    let live = Arc::new(Live::default());
    Control::new(Arc::clone(&live)).apply(blueprint()).unwrap();
    let (clock, meter) = (Clock::default(), WorkerMeter::default());
    let hosts: Vec<String> = (0..1024).map(|i| format!("shop-{}.example.com", i * 97 % DOMAINS)).collect();

    let mut group = c.benchmark_group("request");
    group.throughput(Throughput::Elements(1));
    let arrival = clock.read();
    // Few busy domains stay in the processor's nearest cache; many in turn show what the memory costs.
    for busy in [32, 1024] {
        let mut next = hosts.iter().take(busy).cycle();
        group.bench_function(format!("look-up and metering, {busy} busy domains"), |b| {
            b.iter(|| {
                let host = normalize_host(black_box(next.next().unwrap())).unwrap();
                let site = Arc::clone(live.glance().site(&host).unwrap());
                meter.count_arrival(site.slot, arrival);
                assert!(!site.is_throttled());
                meter.count_answer(site.slot, http::StatusCode::OK, false);
            });
        });
    }
    let mut next = hosts.iter().cycle();
    group.bench_function("clock", |b| b.iter(|| clock.read()));
    let snapshot = live.snapshot();
    group.bench_function("look-up", |b| b.iter(|| snapshot.site(black_box(next.next().unwrap())).unwrap().slot));
    let slot = snapshot.site(&hosts[0]).unwrap().slot;
    group.bench_function("count", |b| b.iter(|| meter.count_arrival(black_box(slot), arrival)));
    group.finish();
}

fn world(c: &mut Criterion) {
    let blueprint = blueprint();
    let mut group = c.benchmark_group("world");
    group.sample_size(10);
    group.bench_function("publish 100,000 new domains", |b| {
        b.iter_with_large_drop(|| {
            let mut control = Control::new(Arc::new(Live::default()));
            control.apply(blueprint.clone()).unwrap();
            control
        });
    });
    let mut control = Control::new(Arc::new(Live::default()));
    control.apply(blueprint.clone()).unwrap();
    let mut changed = blueprint.clone();
    let mut domains = changed.domains.to_vec();
    let one = domains.pop().unwrap();
    domains.push(Arc::new(SiteSpec { terms: Arc::default(), ..(*one).clone() }));
    changed.domains = domains.into();
    let mut turns = [changed, blueprint].into_iter().cycle();
    group.bench_function("publish a change to one of 100,000", |b| {
        b.iter(|| control.apply(turns.next().unwrap()).unwrap());
    });
    let live = Arc::new(Live::default());
    Control::new(Arc::clone(&live)).apply(turns.next().unwrap()).unwrap();
    group.finish();
}

criterion_group!(benches, request, world);
criterion_main!(benches);
