//! Clients that do not take what they asked for, or go away, or send what nobody wants: how long they are borne, and what
//! they still get.

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::*;

const SITE: &str = "www.example.test";

/// A preface, SETTINGS with a window of 0, and a GET of the site on stream 1.
fn get_with_closed_window() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0");
    let mut fields = vec![0x82, 0x87, 0x84, 0x41, SITE.len() as u8];
    fields.extend(SITE.as_bytes());
    bytes.extend([0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(fields);
    bytes
}

#[test]
fn a_closed_window_holds_an_origin_no_longer_than_an_idle_client() {
    let origin = Scripted::ok(&"x".repeat(1 << 20));
    let gate = Lockgate::serving(SITE, &origin).set("limits.idle_timeout", "'700ms'").start();
    let mut client = gate.tls(SITE).alpn(&["h2"]).connect().unwrap();
    client.send(get_with_closed_window());
    client.expect_end();
    eventually("the origin's connection is given up", || (origin.open() == 0).then_some(()));
}

#[test]
fn a_slow_reader_is_not_cut_off_by_a_drain() {
    let body = "x".repeat(24 << 20);
    let mut gate = Lockgate::serving(SITE, Scripted::ok(&body)).set("shutdown_grace", "'60s'").start();
    let mut client = gate.connect(SITE);
    client.send(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"));
    client.read_exact(&mut [0; 1024]).unwrap();
    gate.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(1500));
    let rest = client.rest();
    assert!(rest.ends_with(b"xxx") && rest.len() > body.len() - 1024, "{} bytes", rest.len());
    assert_eq!(gate.wait_for_end(PATIENCE), Some(0));
}

#[test]
fn a_request_on_its_way_when_the_drain_begins_is_served() {
    let origin = Scripted::new(|peer| {
        peer.request()?;
        thread::sleep(Duration::from_millis(1500));
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    });
    let mut gate = Lockgate::serving(SITE, &origin).set("shutdown_grace", "'60s'").start();
    let mut client = gate.connect(SITE);
    client.send(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n"));
    thread::sleep(Duration::from_millis(300));
    gate.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(300));
    client.send("\r\n");
    assert_eq!(client.answer().text(), "hello");
    assert_eq!(gate.wait_for_end(PATIENCE), Some(0));
}

#[test]
fn a_client_that_gives_up_is_counted_and_frees_the_origin() {
    let origin = Scripted::silent();
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    client.send(format!("GET / HTTP/1.1\r\nHost: {SITE}\r\n\r\n"));
    eventually("the origin has it", || (origin.requests().len() == 1).then_some(()));
    drop(client);
    gate.await_metric("lockgate_requests_total", &[("domain", SITE), ("status", "4xx")], 1.0);
    eventually("the origin is free", || (origin.open() == 0).then_some(()));
}

#[test]
fn who_sends_all_before_reading_still_learns_why_it_was_refused() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).with("max_body", "'1KiB'").start();
    for _ in 0..5 {
        let mut client = gate.connect(SITE);
        client.send(format!("POST / HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 900000\r\n\r\n"));
        // A kernel that closes with unread bytes resets, and on many systems a reset takes the answer with it.
        for _ in 0..90 {
            client.try_send("x".repeat(10_000)).unwrap();
            thread::sleep(Duration::from_micros(500));
        }
        assert_eq!(client.answer().status, 413);
    }
}

#[test]
fn an_early_answer_does_not_make_the_rest_of_the_body_a_slow_head() {
    let origin = Scripted::new(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")?;
        peer.stall()
    });
    let gate = Lockgate::serving(SITE, &origin).set("limits.header_timeout", "'500ms'").start();
    let mut client = gate.connect(SITE);
    client.send(format!("POST / HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: 2000\r\n\r\n"));
    for _ in 0..15 {
        client.try_send("x".repeat(100)).unwrap();
        thread::sleep(Duration::from_millis(70));
    }
    assert_eq!(client.answer().text(), "early");
}

#[test]
fn answers_are_dated_by_the_clock_also_when_it_steps_back() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).clock_stopped("2026-06-30 12:00:00").start();
    let date = || gate.get(SITE).header("date").map(str::to_owned);
    assert_eq!(date().as_deref(), Some("Tue, 30 Jun 2026 12:00:00 GMT"));
    gate.clock().stop_at("2026-05-31 12:00:00");
    assert_eq!(date().as_deref(), Some("Sun, 31 May 2026 12:00:00 GMT"));
}

#[test]
fn http2_streams_that_are_given_up_leave_the_connection_alone() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let mut client = H2::connect(&gate, SITE);
    for _ in 0..3 {
        assert_eq!(client.get("https://www.example.test/", &[]).unwrap().body, b"hello");
    }
}
