//! Limits and timeouts: what each client may take, and that it is given back (SPEC 8; RELIABILITY 9, 10, 23, 24).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::harness::*;

const SITE: &str = "www.example.test";
/// When something ends for a limit of 700 ms: not by any default, all of which are 10 s or more.
const SOON: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_secs(9);

fn open(gate: &Lockgate) -> f64 {
    gate.metrics().sum("lockgate_open_connections", &[])
}

// RELIABILITY 9.

#[rstest]
#[case::within(12 * 1024, 200)]
#[case::over(20 * 1024, 431)]
#[case::far_over(400 * 1024, 431)]
fn a_head_has_a_limit(#[case] size: usize, #[case] status: u16) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let value = "x".repeat(size);
    let request = format!("GET / HTTP/1.1\r\nHost: www.example.test\r\nX-Large: {value}\r\n\r\n");
    assert_eq!(gate.connect(SITE).ask(request).status, status);
    let mut h2 = H2::connect(&gate, SITE);
    match h2.get("https://www.example.test/", &[("x-large", &value)]) {
        Ok(answer) => assert_eq!(answer.status, status),
        // A connection that is closed upon it may break under the rest of the field before the reason is read.
        Err(refused) => {
            assert!(status == 431 && (refused.is_reset() || refused.is_go_away() || refused.is_io()), "{refused}");
        }
    }
    assert_eq!(gate.get(SITE).text(), "hello");
}

#[test]
fn many_small_fields_are_held_to_the_same_limit() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let fields = "a: b\r\n".repeat(20_000);
    let answer = gate.connect(SITE).ask(format!("GET / HTTP/1.1\r\nHost: www.example.test\r\n{fields}\r\n"));
    assert_eq!(answer.status, 431);
    assert_eq!(origin.received(), "");
}

#[test]
fn the_limit_of_a_head_can_be_set() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).set("limits.max_header", "'64KiB'").start();
    let request = format!("GET / HTTP/1.1\r\nHost: www.example.test\r\nX-Large: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(gate.connect(SITE).ask(request).status, 200);
}

/// One connection that only ever sends header bytes does not grow the program.
#[test]
fn endless_headers_cost_little_memory() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let before = gate.resident_bytes();
    for alpn in ["http/1.1", "h2"] {
        let mut client = gate.tls(SITE).alpn(&[alpn]).connect().unwrap();
        let bytes = if alpn == "h2" {
            continuation_flood()
        } else {
            [b"GET / HTTP/1.1\r\n".as_slice(), &[b'x'; 1 << 22]].concat()
        };
        let _ = client.write_all(&bytes);
        client.expect_end();
    }
    let grown = gate.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    assert_eq!(gate.get(SITE).text(), "hello");
}

/// A HEADERS frame that never ends: four MiB of CONTINUATION.
fn continuation_flood() -> Vec<u8> {
    let frame = |kind: u8, payload: &[u8]| {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [[a, b, c, kind, 0, 0, 0, 0, 1].as_slice(), payload].concat()
    };
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &frame(1, b"\x82")].concat();
    // A literal field without indexing: a name of one letter, a value of 100.
    let field = [b"\x00\x01x\x64".as_slice(), &[b'y'; 100]].concat();
    bytes.extend(frame(9, &field.repeat(150)).repeat(270));
    bytes
}

#[test]
fn streams_of_a_connection_are_limited() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).set("limits.max_streams", "7").start();
    let mut client = H2::connect(&gate, SITE);
    assert_eq!(client.get("https://www.example.test/", &[]).unwrap().status, 200);
    assert_eq!(client.max_streams(), 7);
}

/// RELIABILITY 8: opened and reset, again and again.
#[test]
fn rapid_resets_end_the_connection_and_nobody_elses() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut hostile = H2::connect(&gate, SITE);
    assert!(hostile.rapid_reset("https://www.example.test/", 5000).is_err(), "5000 resets and no GOAWAY");
    assert_eq!(gate.get(SITE).text(), "hello");
}

// RELIABILITY 10, 23: slow clients.

/// What a client does before it falls silent, and what it is told at the limit.
#[rstest]
#[case::nothing("http/1.1", b"".as_slice(), &[])]
#[case::half_a_head("http/1.1", b"GET / HTTP/1.1\r\nHost: www.exa", &[408])]
#[case::half_a_body("http/1.1", b"POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 10\r\n\r\nhalf", &[408, 502, 504])]
#[case::half_a_chunk("http/1.1", b"POST / HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf", &[408, 502, 504])]
#[case::half_a_preface("h2", b"PRI * HTTP/2.0\r\n\r\n", &[])]
#[case::no_preface("h2", b"", &[])]
#[case::a_preface_and_no_more("h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &[])]
#[case::half_a_frame("h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x40\x01\x04\0\0\0\x01\x82", &[])]
fn a_client_that_falls_silent_is_let_go(#[case] alpn: &str, #[case] sent: &[u8], #[case] statuses: &[u16]) {
    let origin = Scripted::ok("hello");
    let setup = Lockgate::serving(SITE, &origin).with("timeouts", "{ idle = '700ms' }");
    let gate = setup.set("limits.header_timeout", "'700ms'").set("limits.idle_timeout", "'700ms'").start();
    let begun = Instant::now();
    let mut client = gate.tls(SITE).alpn(&[alpn]).connect().unwrap();
    client.send(sent);
    let said = client.expect_end();
    assert!(SOON.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let status = String::from_utf8_lossy(&said).split(' ').nth(1).and_then(|code| code.parse().ok());
    let ok = if alpn == "h2" { true } else { status.is_none_or(|status: u16| statuses.contains(&status)) };
    assert!(ok, "{status:?}");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_head_that_trickles_in_is_not_kept_alive_by_every_byte() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).set("limits.header_timeout", "'700ms'").start();
    let mut client = gate.connect(SITE);
    let begun = Instant::now();
    client.set_patience(Duration::from_millis(100));
    for byte in "GET / HTTP/1.1\r\nHost: www.example.test\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x')) {
        assert!(begun.elapsed() < SOON.end, "still listening");
        client.send([byte]);
        let mut answer = [0; 64];
        match client.read(&mut answer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
}

#[test]
fn an_idle_connection_is_closed_at_its_limit_and_not_before() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).set("limits.idle_timeout", "'700ms'").start();
    let mut client = gate.connect(SITE);
    let opened = Instant::now();
    while opened.elapsed() < Duration::from_millis(1000) {
        thread::sleep(Duration::from_millis(50));
        assert_eq!(client.get("/").text(), "hello");
    }
    let begun = Instant::now();
    client.expect_close();
    assert!(SOON.contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn a_crowd_of_slow_clients_does_not_slow_the_others() {
    let setup = Lockgate::serving(SITE, Scripted::ok("hello"));
    let gate = setup.set("limits.handshake_timeout", "'3s'").set("limits.header_timeout", "'3s'").start();
    let before = open(&gate);
    let handshakes: Vec<_> = (0..150)
        .map(|i| {
            let mut tcp = TcpStream::connect(gate.https()).unwrap();
            tcp.write_all(&client_hello(SITE)[..i]).unwrap();
            tcp
        })
        .collect();
    let mut heads: Vec<_> = (0..100).map(|_| gate.connect(SITE)).collect();
    heads.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: www."));
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(gate.get(SITE).text(), "hello");
        assert!(begun.elapsed() < Duration::from_secs(2), "waited for the slow ones: {:?}", begun.elapsed());
    }
    eventually("each is freed at its limit", || (open(&gate) <= before).then_some(()));
    drop((handshakes, heads));
}

// Counts.

#[test]
fn one_client_may_hold_so_many_connections() {
    let setup = Lockgate::serving(SITE, Scripted::ok("hello"));
    let gate = setup.set("limits.max_connections_per_client", "4").start();
    let mut clients: Vec<_> = (0..4).map(|_| gate.connect(SITE)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    assert!(gate.tls(SITE).connect().is_err(), "a fifth");
    assert!(clients.iter_mut().all(Connection::usable), "the four are not harmed");
    clients.pop();
    eventually("its place is free again", || gate.tls(SITE).connect().ok());
}

#[test]
fn all_clients_together_may_hold_so_many() {
    let setup = Lockgate::serving(SITE, Scripted::ok("hello"));
    let gate = setup.set("limits.max_connections", "5").start();
    let mut clients: Vec<_> = (0..5).map(|_| gate.connect(SITE)).collect();
    let waits = TcpStream::connect(gate.https()).and_then(|mut tcp| {
        tcp.set_read_timeout(Some(Duration::from_millis(500)))?;
        tcp.write_all(&client_hello(SITE))?;
        tcp.read(&mut [0; 16])
    });
    assert!(!matches!(waits, Ok(16)), "a sixth shook hands");
    assert!(clients.iter_mut().all(Connection::usable));
    assert_eq!(gate.admin_get("/healthz").status, 200);
    clients.clear();
    eventually("places are free again", || gate.tls(SITE).connect().ok());
}

#[rstest]
#[case::said("Content-Length: 2000\r\n\r\n", true)]
#[case::found_out("Transfer-Encoding: chunked\r\n\r\n", false)]
fn a_body_has_a_limit(#[case] framing: &str, #[case] known: bool) {
    let origin = Scripted::echo();
    let gate = Lockgate::serving(SITE, &origin).with("max_body", "'1KiB'").start();
    let body = "x".repeat(2000);
    let body = if known { body } else { format!("7d0\r\n{body}\r\n0\r\n\r\n") };
    let answer = gate.connect(SITE).ask(format!("POST / HTTP/1.1\r\nHost: www.example.test\r\n{framing}{body}"));
    assert_eq!(answer.status, 413);
    assert!(origin.requests().is_empty(), "never whole at the origin");
    let small =
        "POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 1024\r\n\r\n".to_owned() + &"x".repeat(1024);
    assert_eq!(gate.connect(SITE).ask(small).status, 200);
}

/// RELIABILITY 24.
#[rstest]
#[case::left_to_the_program(None)]
#[case::more_than_there_are(Some("1000"))]
fn without_descriptors_the_admin_listener_answers_and_it_recovers(#[case] max_connections: Option<&str>) {
    let mut setup = Lockgate::serving(SITE, Scripted::ok("hello")).set("limits.handshake_timeout", "'60s'");
    if let Some(max_connections) = max_connections {
        setup = setup.set("limits.max_connections", max_connections);
    }
    let gate = setup.max_fds(120).start();
    let mut crowd: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(gate.https()).ok()).collect();
    assert!(crowd.len() > 100, "{} connections", crowd.len());
    thread::sleep(Duration::from_millis(300));
    let (begun, cpu) = (Instant::now(), gate.cpu_time());
    for _ in 0..5 {
        assert_eq!(gate.admin_get("/healthz").status, 200);
        thread::sleep(Duration::from_millis(150));
    }
    let busy = (gate.cpu_time() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(busy < 0.3, "a busy loop: {busy:.2} of a processor");
    assert!(gate.log().len() < 200, "{} lines", gate.log().len());
    crowd.clear();
    eventually("it serves again", || gate.tls(SITE).connect().ok().map(|mut client| client.get("/")));
}
