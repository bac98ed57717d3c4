//! Requests go through and come back whole, over either version, both ways (SPEC 8).

use std::fs;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::Signal;
use tungstenite::Message;

use crate::harness::*;

const SITE: &str = "www.example.test";
const MIB: usize = 1024 * 1024;

#[rstest]
#[case("--http1.1", "1.1")]
#[case("--http2", "2")]
fn a_page_arrives_over_verified_tls(#[case] offer: &str, #[case] version: &str) {
    let origin = Nginx::start();
    let gate = Lockgate::serving(SITE, &origin).start();
    let page = gate.curl("https://www.example.test/hello.txt").arg(offer).run();
    assert_eq!((page.code, page.status, page.version.as_str()), (0, 200, version), "{}", page.stderr);
    assert_eq!(page.text(), "hello\n");
}

#[test]
fn thousands_of_requests_are_answered_without_one_error() {
    let origin = Nginx::start();
    let gate = Lockgate::serving("localhost", &origin).start();
    let url = format!("https://localhost:{}/hello.txt", gate.https().port());
    assert_eq!(h2load(&gate, &url, 4000, 20, &["-m10"]), Load::all_good(4000));
    assert_eq!(h2load(&gate, &url, 2000, 20, &["--h1"]), Load::all_good(2000));
    let load = wrk(&gate, "/hello.txt", 20, Duration::from_secs(1));
    assert_eq!(load, Load::all_good(load.done));
    assert!(load.done > 0, "{load:?}");
}

#[rstest]
#[case("--http1.1")]
#[case("--http2")]
fn megabytes_come_down_byte_for_byte(#[case] version: &str) {
    let origin = Nginx::start();
    let wanted = noise(100 * MIB, 7);
    let saved = origin.file("big", &wanted).with_extension("saved");
    let gate = Lockgate::serving(SITE, &origin).start();
    let page = gate.curl("https://www.example.test/big").arg(version).save(&saved).run();
    assert_eq!((page.code, page.status), (0, 200), "{}", page.stderr);
    assert!(sha256(&fs::read(saved).unwrap()) == sha256(&wanted));
}

#[rstest]
#[case("--http1.1")]
#[case("--http2")]
fn megabytes_go_up_byte_for_byte(#[case] version: &str) {
    let origin = Nginx::start();
    let sent = noise(100 * MIB, 8);
    let file = origin.file("to-send", &sent);
    let gate = Lockgate::serving(SITE, &origin).start();
    let page = gate.curl("https://www.example.test/arrived").arg(version).upload(&file).run();
    assert_eq!((page.code, page.status), (0, 201), "{}", page.stderr);
    assert!(sha256(&fs::read(origin.path("arrived")).unwrap()) == sha256(&sent));
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let origin = Scripted::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n",
    );
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: www.example.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n");
        let answer = client.ask("5;x=y\r\npedia\r\n0\r\n\r\n");
        assert_eq!((answer.status, answer.text()), (200, "abcde".to_owned()));
        assert_eq!(origin.last().body, b"wikipedia");
    }
}

#[test]
fn trailers_of_the_origin_reach_an_http2_client() {
    let origin = Scripted::answering(
        "HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n",
    );
    let gate = Lockgate::serving(SITE, &origin).start();
    let answer = H2::connect(&gate, SITE).get("https://www.example.test/", &[("te", "trailers")]).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"ok".as_slice()));
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
}

#[test]
fn a_client_that_expects_100_is_told_to_go_on() {
    let origin = Scripted::echo();
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    client.send("POST / HTTP/1.1\r\nHost: www.example.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut interim = [0; 25];
    std::io::Read::read_exact(&mut client, &mut interim).expect("100 before the body is sent");
    assert_eq!(interim.as_slice(), b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.ask("hello").text(), "hello");
    assert_eq!(origin.last().header("expect"), None, "the promise is ours, not the origin's");
}

#[test]
fn a_websocket_echoes() {
    let origin = websocket_echo();
    let gate = Lockgate::serving(SITE, &origin).start();
    let (mut socket, answer) = tungstenite::client("wss://www.example.test/echo", gate.connect(SITE)).unwrap();
    assert_eq!(answer.status(), 101);
    for text in ["hello", "again", &"long ".repeat(50_000)] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
}

fn websocket_echo() -> Scripted {
    Scripted::new(|peer| {
        let mut socket = tungstenite::accept(peer).map_err(|e| std::io::Error::other(e.to_string()))?;
        while let Ok(message) = socket.read() {
            if message.is_text() {
                let _ = socket.send(message);
            }
        }
        Ok(())
    })
}

#[rstest]
#[case::plain_answers(b"GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n".as_slice())]
#[case::without_case(b"GET / HTTP/1.1\r\nHost: WWW.Example.TEST\r\n\r\n")]
#[case::with_a_port(b"GET / HTTP/1.1\r\nHost: www.example.test:443\r\n\r\n")]
#[case::with_a_trailing_dot(b"GET / HTTP/1.1\r\nHost: www.example.test.\r\n\r\n")]
#[case::absolute(b"GET https://www.example.test/ HTTP/1.1\r\nHost: www.example.test\r\n\r\n")]
#[case::http_1_0(b"GET / HTTP/1.0\r\nHost: www.example.test\r\n\r\n")]
#[case::unusual_method(b"PROPFIND / HTTP/1.1\r\nHost: www.example.test\r\n\r\n")]
fn every_way_to_name_the_site_is_understood(#[case] request: &[u8]) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    assert_eq!(gate.connect(SITE).ask(request).text(), "hello");
    assert!(origin.last().line().contains(" / HTTP/1.1"), "{}", origin.last().head);
}

#[test]
fn the_target_passes_through_byte_for_byte() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    let target = "/a%2Fb//c/./d;e=f?x=%20&y=a+b&&z";
    gate.connect(SITE).get(target);
    assert_eq!(origin.last().line(), format!("GET {target} HTTP/1.1"));
    assert_eq!(origin.last().header("host"), Some(SITE));
}

#[rstest]
#[case("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200)]
#[case("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204)]
#[case("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n", 304)]
fn an_answer_without_a_body_ends_with_its_head(
    #[case] method: &str,
    #[case] answer: &'static str,
    #[case] status: u16,
) {
    let origin = Scripted::new(move |peer| {
        while peer.head()?.is_some() {
            peer.send(answer)?;
        }
        Ok(())
    });
    let gate = Lockgate::serving(SITE, &origin).start();
    let request = format!("{method} / HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    let mut client = gate.connect(SITE);
    for _ in 0..2 {
        client.send(&request);
        assert_eq!(read_answer(&mut std::io::BufReader::new(&mut client), true).unwrap().status, status);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Scripted::each(|request| response(request.line()));
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    let requests: String = (0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: www.example.test\r\n\r\n")).collect();
    client.send(requests);
    for i in 0..20 {
        assert_eq!(client.answer().text(), format!("GET /{i} HTTP/1.1"));
    }
}

#[test]
fn the_origin_learns_who_asked_and_how() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    gate.get(SITE);
    let request = origin.last();
    assert_eq!(request.headers("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.headers("x-forwarded-proto"), ["https"]);
    assert_eq!(request.headers("x-forwarded-host"), [SITE]);
    let forwarded = request.header("forwarded").expect("Forwarded").to_ascii_lowercase();
    for part in ["for=127.0.0.1", "proto=https", "host=www.example.test"] {
        assert!(forwarded.split(';').any(|pair| pair.trim().replace('"', "") == part), "{forwarded}");
    }
}

const FORGED: &str = "GET / HTTP/1.1\r\nHost: www.example.test\r\nX-Forwarded-For: 203.0.113.7\r\n\
    X-Forwarded-Proto: http\r\nX-Forwarded-Host: shop.example.test\r\nForwarded: for=203.0.113.7;proto=http\r\n\r\n";

#[test]
fn what_a_client_says_about_itself_is_replaced() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    gate.connect(SITE).ask(FORGED);
    let head = origin.last().head;
    assert!(!head.contains("203.0.113.7") && !head.contains("shop.example.test"), "{head}");
    assert_eq!(origin.last().headers("x-forwarded-proto"), ["https"]);
}

#[test]
fn what_a_trusted_proxy_says_is_kept() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).set("listen.trusted_proxies", "['127.0.0.0/8']").start();
    gate.connect(SITE).ask(FORGED);
    let request = origin.last();
    assert!(request.header("x-forwarded-for").unwrap().starts_with("203.0.113.7"), "{}", request.head);
    assert_eq!(request.headers("x-forwarded-proto"), ["http"]);
    assert_eq!(request.headers("x-forwarded-host"), ["shop.example.test"]);
    assert!(request.headers("forwarded").join(",").starts_with("for=203.0.113.7"), "{}", request.head);
}

#[test]
fn what_concerns_one_hop_stops_here() {
    let origin = Scripted::answering(
        "HTTP/1.1 200 OK\r\nConnection: x-internal\r\nX-Internal: secret\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nX-Stays: yes\r\nContent-Length: 0\r\n\r\n",
    );
    let gate = Lockgate::serving(SITE, &origin).start();
    let answer = gate.connect(SITE).ask(
        "GET / HTTP/1.1\r\nHost: www.example.test\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Stays: yes\r\n\r\n",
    );
    let request = origin.last();
    for gone in ["x-mine", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(request.header(gone), None, "{}", request.head);
    }
    for gone in ["x-internal", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.header(gone), None, "{answer:?}");
    }
    assert_eq!((request.header("x-stays"), answer.header("x-stays")), (Some("yes"), Some("yes")));
    let over_h2 = H2::connect(&gate, SITE).get("https://www.example.test/", &[]).unwrap();
    assert!(over_h2.headers.contains_key("x-stays") && !over_h2.headers.contains_key("x-internal"));
}

#[test]
fn cookie_crumbs_of_http2_are_joined() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
    H2::connect(&gate, SITE).get("https://www.example.test/", &crumbs).unwrap();
    assert_eq!(origin.last().headers("cookie"), ["a=1; b=2; c=3"]);
}

#[test]
fn hsts_is_promised_only_by_a_real_certificate() {
    let origin = Scripted::ok("");
    let gate = Lockgate::setup()
        .domain(SITE, &origin)
        .with("hsts", "'max-age=31536000'")
        .domain("bare.example.test", &origin)
        .uncertified()
        .with("hsts", "'max-age=31536000'")
        .start();
    assert_eq!(gate.get(SITE).header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(gate.get("bare.example.test").header("strict-transport-security"), None);
}

#[rstest]
#[case::given_ca("{ ca = 'CA', sni = 'origin.example.test' }", 200)]
#[case::other_name("{ ca = 'CA', sni = 'other.example.test' }", 502)]
#[case::other_ca("{ ca = 'OTHER', sni = 'origin.example.test' }", 502)]
#[case::public_roots("{ sni = 'origin.example.test' }", 502)]
#[case::the_operators_word("{ insecure = true }", 200)]
fn an_https_origin_is_verified(#[case] origin_tls: &str, #[case] status: u16) {
    let (pki, other) = (Pki::new(), Pki::new());
    let origin = Nginx::start_tls(&pki.leaf("origin.example.test"));
    let ca = |pki: &Pki| pki.ca_file().display().to_string();
    let origin_tls = origin_tls.replace("CA", &ca(&pki)).replace("OTHER", &ca(&other));
    let gate = Lockgate::serving(SITE, &origin).with("origin_tls", &origin_tls).start();
    assert_eq!(gate.get(SITE).status, status);
}

#[test]
fn an_origin_that_is_down_gives_a_short_502() {
    let gate = Lockgate::serving(SITE, Scripted::down()).start();
    let page = gate.get(SITE);
    assert_eq!(page.status, 502);
    assert!((1..4096).contains(&page.body.len()), "{}", page.text());
    assert!(!page.text().contains("127.0.0.1"), "the visitor is not told where the origin is: {}", page.text());
    assert!(gate.metrics().sum("lockgate_origin_errors_total", &[("domain", SITE)]) >= 1.0);
}

#[test]
fn an_origin_that_says_nothing_gives_504_in_time() {
    let origin = Scripted::silent();
    let gate = Lockgate::serving(SITE, &origin).with("timeouts", "{ response = '300ms' }").start();
    let begun = Instant::now();
    assert_eq!(gate.get(SITE).status, 504);
    assert!((Duration::from_millis(290)..PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_does_not_read_holds_the_origin_back() {
    let origin = Scripted::new(|peer| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")?;
        (0..1024).try_for_each(|_| peer.send(vec![b'x'; MIB]))
    });
    let gate = Lockgate::serving(SITE, &origin).start();
    let before = gate.resident_bytes();
    let mut clients: Vec<_> = (0..3).map(|_| gate.connect(SITE)).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n"));
    thread::sleep(Duration::from_millis(700));
    let grown = gate.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB as u64, "{grown} bytes for three clients that do not read");
}

#[test]
fn an_origin_that_does_not_read_holds_the_client_back() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Scripted::new(move |peer| {
        peer.head()?;
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let gate = Lockgate::serving(SITE, &origin).start();
    let before = gate.resident_bytes();
    let mut client = gate.connect(SITE);
    client.send("PUT / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 1073741824\r\n\r\n");
    let pour = thread::spawn(move || (0..1024).take_while(|_| client.write_all(&vec![b'x'; MIB]).is_ok()).count());
    thread::sleep(Duration::from_millis(700));
    let grown = gate.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB as u64, "{grown} bytes for an origin that does not read");
    go.send(()).unwrap();
    assert!(pour.join().unwrap() < 100, "the client could pour on");
}

#[test]
fn sigterm_finishes_what_runs_and_exits_0() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Scripted::new(move |peer| {
        peer.request()?;
        let _ = wait.lock().unwrap().recv();
        peer.send(response("at last"))
    });
    let mut gate = Lockgate::serving(SITE, &origin).set("shutdown_grace", "'60s'").start();
    let mut client = gate.connect(SITE);
    client.send("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    eventually("the request is under way", || (!origin.requests().is_empty()).then_some(()));
    gate.signal(Signal::TERM);
    eventually("nobody else is let in", || gate.tls(SITE).connect().is_err().then_some(()));
    assert!(!gate.ended());
    go.send(()).unwrap();
    assert_eq!(client.answer().text(), "at last");
    assert_eq!(gate.wait_for_end(PATIENCE), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let origin = Scripted::silent();
    let mut gate = Lockgate::serving(SITE, &origin).set("shutdown_grace", "'60s'").start();
    let mut client = gate.connect(SITE);
    client.send("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    eventually("the request is under way", || (!origin.requests().is_empty()).then_some(()));
    gate.signal(Signal::TERM);
    eventually("draining", || gate.tls(SITE).connect().is_err().then_some(()));
    assert!(!gate.ended());
    gate.signal(Signal::TERM);
    gate.wait_for_end(PATIENCE);
}

#[rstest]
#[case::half_a_head("GET / HTTP/1.1\r\nHost: www.exa")]
#[case::half_a_body("POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: 10\r\n\r\nhalf")]
#[case::no_answer("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n")]
fn nobody_holds_up_the_end_longer_than_the_grace(#[case] unfinished: &str) {
    let origin = Scripted::silent();
    let mut gate = Lockgate::serving(SITE, &origin).set("shutdown_grace", "'1s'").start();
    let mut client = gate.connect(SITE);
    client.send(unfinished);
    gate.signal(Signal::INT);
    assert_eq!(gate.wait_for_end(PATIENCE), Some(0));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let origin = Scripted::ok("");
    let mut gate = Lockgate::serving(SITE, &origin).set("shutdown_grace", "'30s'").start();
    let mut h1 = gate.connect(SITE);
    assert_eq!(h1.get("/").status, 200);
    let mut h2 = H2::connect(&gate, SITE);
    assert_eq!(h2.get("https://www.example.test/", &[]).unwrap().status, 200);
    gate.signal(Signal::TERM);
    let _ = h2.get("https://www.example.test/", &[]);
    assert_eq!(gate.wait_for_end(PATIENCE), Some(0));
}

#[test]
fn ipv6_and_dual_stack_listeners_serve() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).set("listen.https", "['[::]:0']").start();
    for to in ["127.0.0.1", "::1"].map(|ip| (ip.parse::<std::net::IpAddr>().unwrap(), gate.https().port())) {
        assert_eq!(TlsClient::new(to.into(), SITE).connect().unwrap().get("/").text(), "hello", "{to:?}");
    }
    assert_eq!(origin.requests()[0].header("x-forwarded-for"), Some("127.0.0.1"), "not ::ffff:127.0.0.1");
    assert_eq!(origin.requests()[1].header("x-forwarded-for"), Some("::1"));
}
