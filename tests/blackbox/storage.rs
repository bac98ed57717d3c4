//! The disk fails: full, read-only, broken, once or for long. Requests are served, counted and judged as ever, and what
//! was not written is written when the disk is back.

use std::fs;
use std::path::Path;

use lockgate::meter::Bucket;
use lockgate::store::Store;
use rstest::rstest;
use rustix::io::Errno;

use crate::harness::*;

const SITE: &str = "www.example.test";
const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
const NOON: &str = "2026-06-01 12:00:00";

fn on_a_bad_disk() -> Setup {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").clock_stopped(NOON);
    setup.disk().expect_error("journal").expect_error("database").expect_error("lockgate.db")
}

fn errors(gate: &Lockgate, operation: &str) -> f64 {
    gate.metric("lockgate_store_errors_total", &[("operation", operation)]).unwrap_or(0.0)
}

/// Stored counts, bucket after bucket.
fn stored(data_dir: &Path) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let series = runtime.block_on(async {
        let store = Store::open_to_read(data_dir).await.ok()??;
        let series = store.series(SITE, Bucket(0), Bucket(1 << 40)).await.ok();
        store.close().await;
        series
    });
    series.unwrap_or_default().into_values().collect()
}

/// Requests of every sealed day.
fn records(data_dir: &Path) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let chain = runtime.block_on(async {
        let store = Store::open_to_read(data_dir).await.ok()??;
        let chain = store.chain(SITE).await.ok()?;
        store.close().await;
        chain
    });
    chain.map(|chain| chain.records.iter().map(|record| record.facts.requests).collect()).unwrap_or_default()
}

#[track_caller]
fn await_stored(data_dir: &Path, counts: &[u64]) {
    let mut found = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while found != counts {
        assert!(std::time::Instant::now() < deadline, "stored {found:?}, not {counts:?}");
        found = stored(data_dir);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[rstest]
#[case::full(Disk::full)]
#[case::read_only(Disk::read_only)]
#[case::broken(Disk::broken)]
fn a_disk_that_fails_for_long_costs_nothing(#[case] fail: fn(&Disk)) {
    let mut gate = on_a_bad_disk().start();
    fill_bucket(&gate, SITE, 20);
    await_stored(&gate.data_dir(), &[20]);
    fail(gate.disk());
    fill_bucket(&gate, SITE, 30);
    fill_bucket(&gate, SITE, 150);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 15.0);
    eventually("both are said to fail", || {
        (errors(&gate, "journal") > 0.0 && errors(&gate, "fold") > 0.0).then_some(())
    });
    fill_bucket(&gate, SITE, 40);
    assert!(gate.metric("lockgate_store_backlog_buckets", &[]).unwrap() > 0.0);
    assert_eq!(gate.count_log(&[" ERROR ", "journal"]), 1, "an outage is told once");
    gate.disk().well();
    await_stored(&gate.data_dir(), &[20, 30, 150, 40]);
    gate.await_metric("lockgate_store_backlog_buckets", &[], 0.0);
    gate.await_log(&["the database is well again"]);
    gate.await_log(&["the journal can be written again"]);
    gate.kill();
    gate.start_again();
    assert_eq!(gate.metric("lockgate_domain_throttled", &DOMAIN), Some(1.0));
    assert_eq!(gate.metric("lockgate_domain_peak_qps", &DOMAIN), Some(15.0));
}

#[test]
fn a_disk_that_fails_over_midnight_costs_no_record_a_request() {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").clock_stopped("2026-06-01 23:59:40").disk();
    let gate = setup.expect_error("journal").expect_error("lockgate.db").start();
    fill_bucket(&gate, SITE, 20);
    await_stored(&gate.data_dir(), &[20]);
    gate.disk().full();
    // Closed together with the day: storing it fails when the day is to be sealed.
    fill_bucket(&gate, SITE, 40);
    eventually("the failure", || (errors(&gate, "fold") > 0.0).then_some(()));
    gate.disk().well();
    await_stored(&gate.data_dir(), &[20, 40]);
    let requests = eventually("the record", || records(&gate.data_dir()).pop());
    assert_eq!(requests, 60);
}

#[rstest]
#[case::every_odd_one_fails(Disk::fail_nth, 1)]
#[case::every_even_one_tears(Disk::tear_nth, 2)]
fn one_call_that_fails_costs_nothing_whichever_it_is(#[case] fail_nth: fn(&Disk, i64, Errno), #[case] first: i64) {
    let mut gate = on_a_bad_disk().start();
    fill_bucket(&gate, SITE, 1);
    let mut sent = vec![1];
    // More calls than a bucket takes from its first request to the end of the journal's file that had it.
    let before = gate.disk().calls();
    fill_bucket(&gate, SITE, 2);
    sent.push(2);
    await_stored(&gate.data_dir(), &sent);
    let calls = gate.disk().calls() - before;
    assert!((5..30).contains(&calls), "{calls} calls for one bucket");
    for n in (first..=calls + 2).step_by(2) {
        fail_nth(gate.disk(), n, if n % 4 < 2 { Errno::NOSPC } else { Errno::IO });
        while gate.disk().is_armed() {
            let count = 2 + sent.len() % 2;
            fill_bucket(&gate, SITE, count);
            sent.push(count as u64);
        }
    }
    await_stored(&gate.data_dir(), &sent);
    gate.await_metric("lockgate_store_backlog_buckets", &[], 0.0);
    gate.get_many(SITE, 7);
    std::thread::sleep(std::time::Duration::from_secs(1));
    gate.kill();
    gate.start_again();
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 0.7);
}

#[test]
fn a_start_on_a_full_disk_serves_and_stores_later() {
    let mut gate = on_a_bad_disk().start();
    fill_bucket(&gate, SITE, 150);
    await_stored(&gate.data_dir(), &[150]);
    gate.stop();
    gate.disk().full();
    gate.start_again();
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    fill_bucket(&gate, SITE, 12);
    gate.disk().well();
    await_stored(&gate.data_dir(), &[150, 12]);
}

/// A proxy that keeps its data on a small disk.
fn serving_on(disk: &SmallDisk) -> Setup {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").clock_stopped(NOON).keeping_on(disk);
    setup.expect_error("journal").expect_error("lockgate.db")
}

#[test]
fn a_file_system_that_fills_up_costs_nothing() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let data_dir = disk.data_dir();
    let gate = serving_on(&disk).start();
    fill_bucket(&gate, SITE, 20);
    await_stored(&data_dir, &[20]);
    let ballast = disk.path("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).unwrap_err();
    fill_bucket(&gate, SITE, 150);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    eventually("a failure", || (errors(&gate, "journal") + errors(&gate, "fold") > 0.0).then_some(()));
    fs::remove_file(&ballast).unwrap();
    await_stored(&data_dir, &[20, 150]);
    gate.await_metric("lockgate_store_backlog_buckets", &[], 0.0);
}

#[test]
fn a_start_on_a_read_only_file_system_serves_and_stores_later() {
    let Some(disk) = SmallDisk::mount("1m") else { return };
    let data_dir = disk.data_dir();
    let mut gate = serving_on(&disk).expect_error("control.sock").expect_error("certificates.db").start();
    fill_bucket(&gate, SITE, 150);
    await_stored(&data_dir, &[150]);
    gate.stop();
    disk.remount("ro");
    gate.start_again();
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    fill_bucket(&gate, SITE, 12);
    disk.remount("rw");
    await_stored(&data_dir, &[150, 12]);
    // With the database open it has more descriptors than it began with.
    gate.kill();
}
