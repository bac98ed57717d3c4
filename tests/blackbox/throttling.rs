//! A domain held to its plan, and everybody else who is not (SPEC 3; RELIABILITY 4, 25).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::*;

const SITE: &str = "www.example.test";
const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
const NOON: &str = "2026-06-01 12:00:00";

/// A proxy whose site has just earned its verdict, with a full burst still to spend.
fn throttled(setup: Setup, count: usize) -> Lockgate {
    let gate = setup.clock_stopped(NOON).start();
    gate.get_many(SITE, count);
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_throttled", &DOMAIN, 1.0);
    gate
}

/// Sends until a request is refused; the connection, and that answer.
fn first_refusal(gate: &Lockgate) -> (Connection, Answer) {
    let mut client = gate.connect(SITE);
    let refused = (0..1000).map(|_| client.get("/")).find(|answer| answer.status == 429);
    (client, refused.expect("a refusal"))
}

#[test]
fn a_refusal_says_when_to_come_back_and_keeps_the_connection() {
    let origin = Scripted::ok("hello");
    let gate = throttled(Lockgate::serving(SITE, &origin).plan("basic"), 111);
    let (mut client, refused) = first_refusal(&gate);
    let seconds: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("whole seconds");
    assert!((1..=10).contains(&seconds), "{refused:?}");
    let (limit, policy) = (refused.header("ratelimit"), refused.header("ratelimit-policy"));
    assert!(limit.is_some_and(|value| value.contains("r=0")), "{limit:?}");
    assert!(policy.is_some_and(|value| value.contains("q=10")), "{policy:?}");
    assert!(!refused.closes() && (1..4096).contains(&refused.body.len()), "{refused:?}");
    thread::sleep(Duration::from_secs(seconds));
    assert_eq!(client.get("/").text(), "hello", "the same connection, after the time that it named");
}

#[test]
fn refused_requests_are_counted_and_never_reach_the_origin() {
    let origin = Scripted::ok("");
    let gate = throttled(Lockgate::serving(SITE, &origin).plan("basic"), 111);
    let before = origin.requests().len();
    let begun = Instant::now();
    let statuses = gate.get_many(SITE, 60);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    let admitted = 10..=11 + (begun.elapsed().as_secs_f64() * 10.0) as usize;
    assert!(admitted.contains(&(60 - refused)), "a burst of 10, then 10 a second: {refused} refused of 60");
    assert_eq!(origin.requests().len() - before, 60 - refused);
    let metrics = gate.metrics();
    assert_eq!(metrics.get("lockgate_throttled_requests_total", &DOMAIN), Some(refused as f64));
    assert_eq!(metrics.get("lockgate_requests_total", &[("domain", SITE), ("status", "4xx")]), Some(refused as f64));
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 6.0);
}

#[test]
fn http2_streams_are_refused_one_by_one() {
    let origin = Scripted::ok("hello");
    let gate = throttled(Lockgate::serving(SITE, &origin).plan("basic"), 111);
    let mut client = H2::connect(&gate, SITE);
    let mut get = || client.get("https://www.example.test/", &[]).unwrap();
    let refused = (0..50).map(|_| get()).find(|answer| answer.status == 429).expect("a refusal");
    for field in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(refused.headers.contains_key(field), "{refused:?}");
    }
    eventually("the same connection is admitted again", || (get().status == 200).then_some(()));
}

#[test]
fn a_refused_body_is_drained_and_never_becomes_a_request() {
    let origin = Scripted::ok("");
    let gate = throttled(Lockgate::serving(SITE, &origin).plan("basic"), 111);
    let (mut client, _) = first_refusal(&gate);
    let inner = "GET /inner HTTP/1.1\r\nHost: www.example.test\r\n\r\n".repeat(100);
    for _ in 0..5 {
        let head = format!("POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: {}\r\n\r\n", inner.len());
        client.send(head + &inner);
        assert!([200, 429].contains(&client.answer().status));
    }
    assert!([200, 429].contains(&client.get("/after").status), "drained, and still usable");
    assert!(!origin.requests().iter().any(|request| request.line().contains("/inner")));
}

/// The rest of it is waited for, for a while.
#[test]
fn a_refused_body_that_comes_in_pieces_is_drained_too() {
    let origin = Scripted::ok("");
    let gate = throttled(Lockgate::serving(SITE, &origin).plan("basic"), 111);
    let (mut client, _) = first_refusal(&gate);
    let piece = "x".repeat(10_000);
    client.send(format!("POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 30000\r\n\r\n{piece}"));
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(100));
        client.send(&piece);
    }
    assert!([200, 429].contains(&client.answer().status));
    assert!([200, 429].contains(&client.get("/after").status), "drained, and still usable");
}

#[test]
fn a_refused_body_over_http2_leaves_the_connection_alone() {
    let gate = throttled(Lockgate::serving(SITE, Scripted::ok("")).plan("basic"), 111);
    first_refusal(&gate);
    let mut client = H2::connect(&gate, SITE);
    for _ in 0..5 {
        match client.request("POST", "https://www.example.test/", &[], Some(&noise(30_000, 1))) {
            Ok(answer) => assert!([200, 429].contains(&answer.status), "{answer:?}"),
            Err(stopped) => assert_eq!(stopped.reason(), Some(h2::Reason::NO_ERROR), "answered early"),
        }
    }
    assert!([200, 429].contains(&client.get("https://www.example.test/", &[]).unwrap().status));
}

#[test]
fn a_refused_client_that_expects_100_never_sends_its_body() {
    let gate = throttled(Lockgate::serving(SITE, Scripted::ok("")).plan("basic"), 111);
    let (mut client, _) = first_refusal(&gate);
    client
        .send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n");
    let mut begin = [0; 12];
    std::io::Read::read_exact(&mut client, &mut begin).unwrap();
    assert_eq!(String::from_utf8_lossy(&begin), "HTTP/1.1 429");
}

#[test]
fn an_endless_refused_body_is_not_drained_for_ever() {
    let gate = throttled(Lockgate::serving(SITE, Scripted::ok("")).plan("basic"), 111);
    let (mut client, _) = first_refusal(&gate);
    client.send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 1000000000000\r\n\r\n");
    assert_eq!(client.answer().status, 429);
    let poured = (0..512).take_while(|_| std::io::Write::write_all(&mut client, &[b'x'; 1 << 20]).is_ok()).count();
    assert!(poured < 512, "half a gibibyte drained");
}

/// Over more load than its limit, what is admitted is the limit's, to one percent.
#[test]
fn the_admitted_rate_is_exact() {
    let origin = Scripted::ok("");
    let gate = throttled(Lockgate::serving(SITE, &origin).plan("pro"), 331);
    let (mut client, _) = first_refusal(&gate);
    let begun = Instant::now();
    let mut admitted = 0.0;
    // It ends with a refusal, as it began: whatever a pause of this machine saved up is spent.
    loop {
        let is_admitted = client.get("/").status == 200;
        admitted += f64::from(u8::from(is_admitted));
        if !is_admitted && begun.elapsed() > Duration::from_secs(6) {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let paid = begun.elapsed().as_secs_f64() * 30.0;
    assert!((admitted - paid).abs() <= paid * 0.01 + 1.0, "{admitted} admitted, {paid} paid for");
}

#[test]
fn a_plans_own_limit_and_burst_hold() {
    let origin = Scripted::ok("");
    let plan = "[plans.trickle]\nmax_qps = 5\nburst = 1";
    let gate = throttled(Lockgate::serving(SITE, &origin).table(plan).plan("trickle"), 56);
    let begun = Instant::now();
    let statuses = gate.get_many(SITE, 50);
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    let bound = 1 + (begun.elapsed().as_secs_f64() * 5.0).ceil() as usize;
    assert!((1..=bound).contains(&admitted), "{admitted} admitted in {:?}", begun.elapsed());
}

#[test]
fn a_domain_without_a_plan_is_metered_and_never_throttled() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).clock_stopped(NOON).start();
    gate.get_many(SITE, 1500);
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &DOMAIN, 150.0);
    assert!(gate.get_many(SITE, 50).iter().all(|status| *status == 200));
    assert_eq!(gate.metrics().sum("lockgate_domain_throttled", &DOMAIN), 0.0);
}

/// RELIABILITY 25: one tenant at a hundred times its limit.
#[test]
fn other_tenants_do_not_feel_it() {
    let origin = Nginx::start();
    let setup = Lockgate::setup().domain("other.example.test", &origin).tenant("good").plan("enterprise");
    let gate = throttled(setup.domain(SITE, &origin).tenant("loud").plan("basic"), 111);
    let over = AtomicBool::new(false);
    let (slowest, statuses) = thread::scope(|scope| {
        let loud = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                h2load(&gate, "https://www.example.test/", 2000, 20, &["-m5"]);
            }
        });
        let mut client = gate.connect("other.example.test");
        let mut statuses = BTreeMap::<u16, usize>::new();
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let begun = Instant::now();
                *statuses.entry(client.get("/").status).or_default() += 1;
                thread::sleep(Duration::from_millis(5));
                begun.elapsed()
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        loud.join().unwrap();
        times.sort_unstable();
        (times[197], statuses)
    });
    assert_eq!(statuses, BTreeMap::from([(200, 200)]));
    assert!(slowest < Duration::from_millis(500), "p99 {slowest:?}");
    assert_eq!(gate.metrics().sum("lockgate_throttled_requests_total", &[("domain", "other.example.test")]), 0.0);
}
