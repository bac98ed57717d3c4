//! What is counted, in which bucket, and what follows from it (SPEC 2). The clock stands still while a bucket fills.

use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustls::AlertDescription;

use crate::harness::*;

const SITE: &str = "www.example.test";
const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
const NOON: &str = "2026-06-01 12:00:00";

/// Sends `count` requests within the bucket in which the clock stands, and closes it.
#[track_caller]
fn fill_bucket(gate: &Lockgate, count: usize) {
    gate.get_many(SITE, count);
    gate.clock().advance(10);
}

fn alerts(gate: &Lockgate, kind: &str) -> f64 {
    gate.metric("lockgate_alerts_total", &[("domain", SITE), ("kind", kind)]).unwrap_or(0.0)
}

fn basic(origin: impl ToOrigin) -> Setup {
    Lockgate::serving(SITE, origin).plan("basic").clock_stopped(NOON)
}

#[rstest]
#[case::at_the_limit(100, None)]
#[case::just_over(101, Some("qps_over"))]
#[case::over(105, Some("qps_over"))]
#[case::ten_percent_over(110, Some("qps_over"))]
#[case::more_than_ten_percent(111, Some("qps_throttled"))]
#[case::much_more(115, Some("qps_throttled"))]
fn the_verdict_on_a_bucket(#[case] count: usize, #[case] kind: Option<&str>) {
    let gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, count);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, count as f64 / 10.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, count as f64 / 10.0);
    let throttled = kind == Some("qps_throttled");
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, f64::from(u8::from(throttled)));
    for known in ["qps_over", "qps_throttled", "throttle_lifted"] {
        let told = kind == Some(known);
        assert_eq!(alerts(&gate, known), f64::from(u8::from(told)), "{known}");
        assert_eq!(gate.count_log(&[known, SITE]) > 0, told, "{known}");
    }
    assert_eq!(gate.get_many(SITE, 40).contains(&429), throttled);
}

#[test]
fn a_verdict_is_published_within_a_second_of_the_close() {
    let gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, 111);
    let closed = Instant::now();
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    assert!(closed.elapsed() < Duration::from_millis(2000), "{:?}", closed.elapsed());
}

#[test]
fn the_metrics_of_a_domain_say_what_it_pays_for() {
    let origin = Scripted::ok("");
    let gate = basic(&origin).domain("pro.example.test", &origin).plan("pro").start();
    let metrics = gate.metrics();
    assert_eq!(metrics.get("lockgate_domain_limit_qps", &DOMAIN), Some(10.0));
    assert_eq!(metrics.get("lockgate_domain_limit_qps", &[("domain", "pro.example.test")]), Some(30.0));
    assert_eq!(metrics.get("lockgate_domain_throttled", &DOMAIN), Some(0.0));
}

#[test]
fn a_bucket_edge_under_load_loses_nothing() {
    let origin = Nginx::start();
    let gate = Lockgate::serving(SITE, &origin).clock_stopped(NOON).start();
    let url = "https://www.example.test/hello.txt";
    thread::scope(|scope| {
        let load = scope.spawn(|| h2load(&gate, url, 6000, 8, &["-m10"]));
        let seen = || gate.metrics().sum("lockgate_requests_total", &DOMAIN);
        eventually("some requests in the first bucket", || (seen() > 500.0).then_some(()));
        gate.clock().advance(10);
        assert_eq!(load.join().unwrap(), Load::all_good(6000));
    });
    assert_eq!(gate.metrics().sum("lockgate_requests_total", &DOMAIN), 6000.0);
    eventually("the first bucket", || gate.metric("lockgate_domain_qps", &DOMAIN).filter(|qps| *qps > 0.0));
    let first = gate.metric("lockgate_domain_qps", &DOMAIN).unwrap();
    gate.clock().advance(10);
    eventually("both buckets make up all", || {
        let second = gate.metric("lockgate_domain_qps", &DOMAIN).unwrap();
        ((first + second - 600.0).abs() < 1e-6 && first >= 50.0 && second > 0.0).then_some(())
    });
}

#[test]
fn bucket_edges_of_a_flowing_clock_lose_nothing_either() {
    let origin = Nginx::start();
    let gate = Lockgate::serving(SITE, &origin).clock("2026-06-01 11:59:59").start();
    gate.clock().flow_from("2026-06-01 12:59:59");
    for args in [["-m10"], ["--h1"]] {
        assert_eq!(h2load(&gate, "https://www.example.test/hello.txt", 3000, 10, &args), Load::all_good(3000));
    }
    assert_eq!(gate.metric("lockgate_requests_total", &[("domain", SITE), ("status", "2xx")]), Some(6000.0));
}

#[test]
fn the_verdict_lifts_when_the_bucket_leaves_the_window() {
    let gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, 111);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 11.1);
    // The bucket ended at 12:00:10; a day later, to the second, it is out.
    gate.clock().stop_at("2026-06-02 12:00:09");
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 0.0);
    assert_eq!(gate.metric("lockgate_domain_throttled", &DOMAIN), Some(1.0));
    gate.clock().stop_at("2026-06-02 12:00:10");
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 0.0);
    gate.await_log(&["throttle_lifted", SITE]);
    assert_eq!(alerts(&gate, "throttle_lifted"), 1.0);
    assert!(gate.get_many(SITE, 50).iter().all(|status| *status == 200));
}

#[test]
fn verdicts_follow_a_clock_that_jumps_forth_and_back() {
    let gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, 111);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    for days in [90, -30] {
        gate.clock().advance(days * 86_400);
        // A verdict lies in the window of the day on which it was taken, before and after.
        gate.await_metric("lockgate_domain_throttled", &DOMAIN, 0.0);
        fill_bucket(&gate, 20);
        gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 2.0);
        gate.clock().advance(-days * 86_400);
        gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
        gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 11.1);
    }
}

#[rstest]
#[case::fewer(30, 5.0)]
#[case::more(80, 8.0)]
fn a_bucket_met_twice_keeps_the_larger_count(#[case] second: usize, #[case] peak: f64) {
    let gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, 50);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 5.0);
    gate.clock().advance(20);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 0.0);
    gate.clock().stop_at(NOON);
    gate.get_many(SITE, second);
    gate.clock().advance(40);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, peak);
}

#[test]
fn a_changed_plan_is_judged_at_once_up_and_down() {
    let mut gate = basic(Scripted::ok("")).start();
    fill_bucket(&gate, 120);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.reconfigure(|setup| setup.plan("pro"));
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 0.0);
    assert!(gate.get_many(SITE, 60).iter().all(|status| *status == 200), "the site is free immediately");
    gate.reconfigure(|setup| setup.plan("basic"));
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_limit_qps", &DOMAIN, 10.0);
}

#[test]
fn counts_survive_a_reload() {
    let mut gate = basic(Scripted::ok("")).start();
    gate.get_many(SITE, 60);
    assert_eq!(gate.reload().code, 0);
    fill_bucket(&gate, 55);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 11.5);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.reconfigure(|setup| setup.domain("other.example.test", Scripted::down()));
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 11.5);
}

#[test]
fn a_domain_that_comes_back_within_a_day_finds_its_window() {
    let origin = Scripted::ok("");
    let mut gate = basic(&origin).domain("other.example.test", &origin).start();
    fill_bucket(&gate, 115);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.reconfigure(|setup| setup.without_domain(SITE));
    assert_eq!(gate.tls(SITE).connect().err(), Some(Failure::Alert(AlertDescription::UnrecognisedName)));
    gate.clock().advance(3600);
    gate.reconfigure(|setup| setup.domain(SITE, &origin).plan("basic"));
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 11.5);
}

#[test]
fn only_requests_that_get_a_site_are_counted() {
    let origin = Scripted::ok("");
    let gate = basic(&origin).domain("other.example.test", &origin).start();
    for _ in 0..5 {
        assert_eq!(gate.connect(SITE).ask("GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n").status, 421);
        assert_eq!(gate.connect(SITE).ask("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").status, 421);
        assert_eq!(gate.connect(SITE).ask("GET / HTTP/1.1\r\n\r\n").status, 400);
        assert_eq!(gate.curl("http://www.example.test/").run().status, 308);
        assert_eq!(gate.curl("http://elsewhere.test/").run().status, 404);
        assert_eq!(gate.admin_get("/healthz").status, 200);
    }
    fill_bucket(&gate, 7);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 0.7);
    assert_eq!(gate.metrics().sum("lockgate_requests_total", &DOMAIN), 7.0);
    assert_eq!(gate.metrics().sum("lockgate_requests_total", &[("domain", "other.example.test")]), 0.0);
}

#[test]
fn what_counts_is_what_arrived() {
    let gate = Lockgate::serving(SITE, Scripted::down()).plan("basic").clock_stopped(NOON).start();
    assert!(gate.get_many(SITE, 5).iter().all(|status| *status == 502));
    let mut h2 = H2::connect(&gate, SITE);
    for _ in 0..6 {
        assert_eq!(h2.get("https://www.example.test/", &[]).unwrap().status, 502);
    }
    let upgrade = "GET / HTTP/1.1\r\nHost: www.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(gate.connect(SITE).ask(upgrade).status, 502);
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 1.2);
    gate.await_metric("lockgate_requests_total", &[("domain", SITE), ("status", "5xx")], 12.0);
}

#[test]
fn a_wildcard_is_one_meter_without_the_names_that_have_their_own() {
    let origin = Scripted::ok("");
    let gate = Lockgate::setup().domain("*.example.test", &origin).domain("own.example.test", &origin).start();
    for (name, count) in [("a.example.test", 3), ("b.example.test", 4), ("own.example.test", 5)] {
        gate.get_many(name, count);
    }
    let metrics = gate.metrics();
    assert_eq!(metrics.sum("lockgate_requests_total", &[("domain", "*.example.test")]), 7.0);
    assert_eq!(metrics.sum("lockgate_requests_total", &[("domain", "own.example.test")]), 5.0);
    assert_eq!(metrics.label_values("domain"), ["*.example.test", "own.example.test"]);
}

#[rstest]
#[case::utc("UTC", "2026-06-01 23:59:40")]
#[case::shanghai("Asia/Shanghai", "2026-06-01 15:59:40")]
#[case::half_an_hour("Asia/Kolkata", "2026-06-01 18:29:40")]
#[case::summer_time_ends("Europe/Berlin", "2026-10-24 21:59:40")]
fn midnight_of_the_configured_zone_begins_a_new_peak(#[case] zone: &str, #[case] before_midnight: &str) {
    let origin = Scripted::ok("");
    let setup = Lockgate::serving(SITE, &origin).set("timezone", &format!("'{zone}'"));
    let gate = setup.clock_stopped(before_midnight).start();
    fill_bucket(&gate, 50);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 5.0);
    gate.clock().advance(9);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 5.0);
    assert_eq!(gate.metric("lockgate_domain_peak_qps", &DOMAIN), Some(5.0));
    gate.clock().advance(1);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 0.0);
    fill_bucket(&gate, 1);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 0.1);
    gate.await_metric("lockgate_domain_peak_qps", &DOMAIN, 1.0);
}
