//! Origins that misbehave: the right answer in time, nothing sent twice, neighbours unharmed (RELIABILITY 22).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::harness::*;

const SITE: &str = "www.example.test";

fn impatient(origin: impl ToOrigin) -> Setup {
    Lockgate::serving(SITE, origin).with("timeouts", "{ connect = '1s', response = '700ms', idle = '700ms' }")
}

/// What an origin may answer instead of HTTP, and what the client gets for it, soon.
#[rstest]
#[case::nothing(Scripted::new(|peer| peer.request().map(drop)), &[502])]
#[case::a_reset(Scripted::new(|peer| { peer.request()?; peer.reset() }), &[502])]
#[case::a_reset_at_once(Scripted::new(|peer| { peer.head()?; peer.reset() }), &[502])]
#[case::silence(Scripted::silent(), &[504])]
#[case::half_a_head(half("HTTP/1.1 200 OK\r\nContent-Le"), &[504])]
#[case::half_a_head_and_the_end(Scripted::new(|peer| { peer.request()?; peer.send("HTTP/1.1 200 OK\r\nX") }), &[502])]
#[case::another_protocol(Scripted::answering("SSH-2.0-OpenSSH_9.2\r\n"), &[502])]
#[case::no_status(Scripted::answering("HTTP/1.1 OK\r\n\r\n"), &[502])]
#[case::impossible_status(Scripted::answering("HTTP/1.1 42 Odd\r\nContent-Length: 0\r\n\r\n"), &[502])]
#[case::bad_length(Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"), &[502])]
#[case::two_lengths(Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), &[502])]
#[case::control_characters(Scripted::answering("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"), &[502])]
#[case::a_huge_head(Scripted::answering(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(2_000_000))), &[502])]
#[case::many_fields(Scripted::answering(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(50_000))), &[502])]
#[case::interim_for_ever(flood("", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), &[502, 504])]
#[case::continue_for_ever(flood("", b"HTTP/1.1 100 Continue\r\n\r\n"), &[502, 504])]
#[case::endless_head(flood("HTTP/1.1 200 OK\r\nX: ", b"x"), &[502, 504])]
fn nonsense_is_answered_for_the_origin(#[case] origin: Scripted, #[case] statuses: &[u16]) {
    let neighbour = Scripted::ok("unharmed");
    let gate = impatient(&origin).domain("neighbour.test", &neighbour).start();
    let before = gate.resident_bytes();
    let begun = Instant::now();
    let mut client = gate.connect(SITE);
    let page = client.get("/");
    assert!(statuses.contains(&page.status), "{}", page.status);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!((1..4096).contains(&page.body.len()), "a short page: {}", page.text());
    assert!(gate.resident_bytes().saturating_sub(before) < 32 << 20);
    assert!(gate.metrics().sum("lockgate_origin_errors_total", &[("domain", SITE)]) >= 1.0);
    assert_eq!(gate.get("neighbour.test").text(), "unharmed");
    assert!(client.usable(), "the client's own connection is not to blame");
}

/// Says this much and then nothing.
fn half(head: &'static str) -> Scripted {
    Scripted::new(move |peer| {
        peer.request()?;
        peer.send(head)?;
        peer.stall()
    })
}

/// Says the one, then the other without end.
fn flood(first: &'static str, bytes: &'static [u8]) -> Scripted {
    Scripted::new(move |peer| {
        peer.request()?;
        peer.send(first)?;
        loop {
            peer.send(bytes.repeat(20))?;
            thread::sleep(Duration::from_millis(1));
        }
    })
}

#[rstest]
#[case::bad_chunk("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", "malformed")]
#[case::huge_chunk_size("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nfffffffffffffffff\r\n", "malformed")]
#[case::cut_in_a_chunk("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo", "broken")]
#[case::no_last_chunk("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "broken")]
#[case::shorter_than_said("Content-Length: 100\r\n\r\nhello", "broken")]
fn a_body_that_breaks_never_looks_complete(#[case] rest: &'static str, #[case] kind: &str) {
    let origin = Scripted::new(move |peer| {
        peer.request()?;
        peer.send(format!("HTTP/1.1 200 OK\r\n{rest}"))
    });
    let gate = impatient(&origin).start();
    for (version, codes) in [("--http1.1", [18, 56]), ("--http2", [92, 18])] {
        let page = gate.curl("https://www.example.test/").arg(version).run();
        assert!(codes.contains(&page.code), "{version}: curl says {} {}", page.code, page.stderr);
    }
    gate.await_metric("lockgate_origin_errors_total", &[("domain", SITE), ("kind", kind)], 2.0);
}

#[test]
fn a_body_that_stalls_is_cut_at_the_idle_limit() {
    let origin = half("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    let gate = impatient(&origin).start();
    let begun = Instant::now();
    let page = gate.curl("https://www.example.test/").http1().run();
    assert!([18, 56].contains(&page.code), "curl says {} {}", page.code, page.stderr);
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[test]
fn what_comes_after_the_body_belongs_to_nobody() {
    let inner = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let origin = Scripted::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello{inner}"));
    let gate = impatient(&origin).start();
    for _ in 0..10 {
        assert_eq!(gate.get(SITE).text(), "hello");
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let origin = Scripted::new(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")?;
        peer.half_close()?;
        peer.stall()
    });
    let gate = impatient(&origin).start();
    let mut client = gate.connect(SITE);
    client.send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 1000000\r\n\r\nthe beginning");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "big".to_owned()));
    let refused = H2::connect(&gate, SITE).request("PUT", "https://www.example.test/", &[], Some(&noise(60_000, 3)));
    assert_eq!(refused.unwrap().status, 413);
}

#[test]
fn an_answer_until_the_end_of_the_connection_is_whole() {
    let origin = Scripted::new(|peer| {
        peer.request()?;
        peer.send(format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(100_000)))
    });
    let gate = impatient(&origin).start();
    for _ in 0..3 {
        assert_eq!(gate.get(SITE).body.len(), 100_000);
    }
}

#[test]
fn interim_answers_do_not_count_as_the_answer() {
    let origin = Scripted::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    );
    let gate = impatient(&origin).start();
    assert_eq!(gate.get(SITE).text(), "hello");
    assert_eq!(gate.get(SITE).text(), "hello");
}

// Uploads.

/// An origin that does not read the upload, without an answer or with one that comes early.
#[rstest]
#[case::no_answer(None, 504)]
#[case::an_early_answer(Some("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"), 413)]
fn an_origin_that_never_reads_leaves_nothing_behind(#[case] answer: Option<&'static str>, #[case] status: u16) {
    let origin = Scripted::new(move |peer| {
        peer.head()?;
        // By then the upload does not move any more.
        thread::sleep(Duration::from_millis(400));
        peer.send(answer.unwrap_or_default())?;
        peer.ignore()
    });
    let gate = impatient(&origin).start();
    let before = descriptors(&gate);
    for _ in 0..8 {
        let upload = noise(8 << 20, 5);
        let answer = H2::connect(&gate, SITE).request("PUT", "https://www.example.test/", &[], Some(&upload));
        assert_eq!(answer.unwrap().status, status);
    }
    assert_eq!(origin.connections().len(), 8);
    eventually("all connections are closed", || (descriptors(&gate) < before + 5).then_some(()));
}

/// All that are open, connections to origins too.
fn descriptors(gate: &Lockgate) -> usize {
    gate.count_fds().unwrap_or_default()
}

#[test]
fn the_response_timeout_runs_from_the_end_of_the_upload() {
    let origin = Scripted::new(|peer| {
        peer.request()?;
        thread::sleep(Duration::from_secs(1));
        peer.send(response("at last"))
    });
    let gate = Lockgate::serving(SITE, &origin).with("timeouts", "{ response = '2s' }").start();
    let mut client = gate.connect(SITE);
    client.send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..19 {
        thread::sleep(Duration::from_millis(200));
        client.send("1\r\nx\r\n");
    }
    client.send("0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "at last".to_owned()));
}

#[test]
fn while_the_client_is_awaited_the_origin_is_not_late() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).with("timeouts", "{ response = '500ms', idle = '3s' }").start();
    let mut client = gate.connect(SITE);
    client.send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 2\r\n\r\nx");
    thread::sleep(Duration::from_millis(1500));
    client.send("y");
    assert_eq!(client.answer().status, 200);
    client.send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 2\r\n\r\nx");
    assert_eq!(client.answer().status, 408);
}

// Connections that are kept.

/// The keep-alive of HTTP/1.0 is an extension that we did not ask for.
#[test]
fn connections_of_http_1_0_are_not_kept() {
    let origin = Scripted::answering("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello");
    let gate = Lockgate::serving(SITE, &origin).set("workers", "1").start();
    for served in 1..=3 {
        assert_eq!(gate.get(SITE).text(), "hello");
        assert_eq!(origin.connections().len(), served);
    }
}

#[rstest]
#[case::less_than_most_servers_allow("", Duration::from_secs(3), Duration::from_secs(5))]
#[case::less_than_this_one_allows("Keep-Alive: timeout=2\r\n", Duration::from_millis(500), Duration::from_secs(2))]
#[case::as_long_as_this_one_allows("Keep-Alive: timeout=7\r\n", Duration::from_secs(5), Duration::from_secs(7))]
fn an_idle_connection_is_closed_before_the_origin_would(
    #[case] field: &str,
    #[case] from: Duration,
    #[case] until: Duration,
) {
    let origin = Scripted::answering(format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 5\r\n\r\nhello"));
    let gate = Lockgate::serving(SITE, &origin).start();
    assert_eq!(gate.get(SITE).text(), "hello");
    let begun = Instant::now();
    eventually("it is closed", || (origin.open() == 0).then_some(()));
    assert!((from..until + Duration::from_secs(1)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// An origin that closes every kept connection on the next request, as one that restarts does.
#[test]
fn a_request_is_sent_in_vain_only_once() {
    let origin = Scripted::new(|peer| {
        peer.request()?;
        thread::sleep(Duration::from_millis(500));
        peer.send(response("hello"))?;
        peer.request().map(drop)
    });
    let gate = Lockgate::serving(SITE, &origin).set("workers", "1").start();
    let mut clients: Vec<_> = (0..4).map(|_| gate.connect(SITE)).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n"));
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
    assert_eq!((origin.connections().len(), origin.requests().len()), (4, 4));
    assert_eq!(gate.get(SITE).status, 200);
    assert_eq!((origin.connections().len(), origin.requests().len()), (5, 6));
}

// How many connections there are.

/// Half of this limit is kept for other things, and half of the rest for clients.
const FILES: u32 = 120;
const ROOM: usize = 30;

#[test]
fn an_origin_that_hangs_takes_no_more_connections_than_there_is_room_for() {
    let origin = Scripted::silent();
    let setup = Lockgate::serving(SITE, &origin).with("timeouts", "{ response = '4s' }");
    let gate = setup.domain("neighbour.test", Scripted::ok("unharmed")).max_fds(FILES).start();
    let load = h2load(&gate, "https://www.example.test/", 60, 1, &["-m", "60"]);
    assert_eq!(load.done, 60);
    assert_eq!(origin.connections().len(), ROOM);
    let faults = |kind| gate.metrics().sum("lockgate_origin_errors_total", &[("domain", SITE), ("kind", kind)]);
    gate.await_metric("lockgate_origin_errors_total", &[("domain", SITE), ("kind", "busy")], 30.0);
    assert_eq!((faults("timeout"), faults("connect")), (30.0, 0.0));
    assert_eq!(gate.get("neighbour.test").text(), "unharmed");
}

#[test]
fn idle_connections_make_room_for_those_that_are_needed() {
    let name = |i| format!("site{i}.test");
    let domains = (0..ROOM + 5).fold(Lockgate::setup(), |setup, i| setup.domain(&name(i), Scripted::ok("hello")));
    let gate = domains.set("workers", "1").max_fds(FILES).start();
    for i in 0..ROOM + 5 {
        assert_eq!(gate.get(&name(i)).text(), "hello", "{i}");
    }
}

#[test]
fn connections_to_the_origin_are_kept() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).set("workers", "1").start();
    for _ in 0..20 {
        assert_eq!(gate.get(SITE).text(), "hello");
    }
    assert_eq!(origin.connections().len(), 1);
}

#[test]
fn an_origin_that_closes_idle_connections_costs_no_request() {
    let origin = Scripted::new(|peer| {
        peer.request()?;
        peer.send(response("hello"))
    });
    let gate = impatient(&origin).start();
    let mut client = gate.connect(SITE);
    for i in 0..30 {
        let method = ["GET", "POST"][i % 2];
        eventually("the origin has closed", || (origin.open() == 0).then_some(()));
        let request = format!("{method} / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.ask(request).text(), "hello", "{method} {i}");
    }
}

/// The origin closes a kept connection just when a request arrives on it.
#[rstest]
#[case::safe("GET", "X: y\r\n\r\n", 200, 3)]
#[case::not_safe("POST", "Content-Length: 0\r\n\r\n", 502, 2)]
#[case::safe_but_its_body_is_gone("PUT", "Content-Length: 4\r\n\r\nbody", 502, 2)]
fn only_a_safe_request_is_sent_again(
    #[case] method: &str,
    #[case] rest: &str,
    #[case] status: u16,
    #[case] arrivals: usize,
) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let origin = Scripted::new(move |peer| {
        while peer.request()?.is_some() {
            if count.fetch_add(1, Ordering::SeqCst) == 1 {
                return Ok(());
            }
            peer.send(response("hello"))?;
        }
        Ok(())
    });
    let gate = impatient(&origin).set("workers", "1").start();
    let mut client = gate.connect(SITE);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.ask(format!("{method} / HTTP/1.1\r\nHost: www.example.test\r\n{rest}")).status, status);
    assert_eq!(seen.load(Ordering::SeqCst), arrivals);
}

#[test]
fn an_origin_that_comes_back_is_used_again() {
    let gate_origin = format!("http://127.0.0.1:{}", free_port());
    let gate = impatient(&gate_origin).start();
    assert_eq!(gate.get(SITE).status, 502);
    let listener = std::net::TcpListener::bind(gate_origin.trim_start_matches("http://")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nback");
        }
    });
    eventually("the origin is used again", || (gate.get(SITE).status == 200).then_some(()));
}

#[test]
fn a_client_that_gives_up_frees_the_origin() {
    let origin = Scripted::silent();
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    client.send("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    eventually("the request is under way", || (!origin.requests().is_empty()).then_some(()));
    drop(client);
    eventually("the connection is given up", || (origin.open() == 0).then_some(()));
}

#[test]
fn names_are_resolved_and_one_that_does_not_exist_gives_502() {
    let origin = Scripted::ok("hello");
    let by_name = origin.url().replace("127.0.0.1", "localhost");
    let gate = impatient(&by_name).domain("lost.test", "http://nowhere.invalid:80").start();
    assert_eq!(gate.get(SITE).text(), "hello");
    assert_eq!(gate.get("lost.test").status, 502);
}
