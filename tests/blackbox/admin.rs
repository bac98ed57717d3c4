//! The admin listener: who may speak to it, and that nobody can make it say what was not configured (RELIABILITY 26, 27).

use rstest::rstest;

use crate::harness::*;

const SITE: &str = "www.example.test";

/// What SPEC 9 promises of a served domain.
const FAMILIES: [&str; 10] = [
    "lockgate_requests_total",
    "lockgate_domain_qps",
    "lockgate_domain_peak_qps",
    "lockgate_domain_limit_qps",
    "lockgate_domain_throttled",
    "lockgate_throttled_requests_total",
    "lockgate_certificate_not_after_seconds",
    "lockgate_certificate_fallback_active",
    "lockgate_tls_handshakes_total",
    "lockgate_open_connections",
];

#[test]
fn it_is_healthy_and_tells_its_metrics() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).plan("basic").start();
    assert_eq!(gate.admin_get("/healthz").status, 200);
    let answer = gate.admin_get("/metrics");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    gate.get(SITE);
    let metrics = gate.metrics();
    for family in FAMILIES {
        assert!(metrics.has(family), "{family}");
    }
}

#[rstest]
#[case::address("127.0.0.1:9180", true)]
#[case::address_without_port("127.0.0.1", true)]
#[case::other_address("192.0.2.7", true)]
#[case::ipv6("[::1]:9180", true)]
#[case::localhost("localhost:9180", true)]
#[case::localhost_in_capitals("LOCALHOST", true)]
#[case::configured("ops.example.test", true)]
#[case::configured_with_port("ops.example.test:9180", true)]
#[case::rebound("evil.test", false)]
#[case::a_served_site(SITE, false)]
#[case::looks_like_an_address("127.0.0.1.evil.test", false)]
#[case::looks_like_localhost("localhost.evil.test", false)]
#[case::below_a_configured_one("x.ops.example.test", false)]
#[case::empty("", false)]
fn only_its_own_names_are_answered(#[case] host: &str, #[case] welcome: bool) {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).set("listen.admin_hosts", "['ops.example.test']");
    let gate = setup.start();
    for path in ["/metrics", "/healthz"] {
        let answer = plain_get(gate.admin(), host, path);
        assert_eq!(answer.status == 200, welcome, "{path}: {}", answer.status);
        assert!(welcome || (400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
}

#[rstest]
#[case("/")]
#[case("/metricsx")]
#[case("/metrics/../secret")]
#[case("/healthz/x")]
#[case("//metrics")]
#[case("/config")]
fn other_paths_are_not_there(#[case] path: &str) {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).start();
    assert_eq!(gate.admin_get(path).status, 404);
}

#[test]
fn the_metrics_listener_shows_metrics_and_health_alone() {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).set("listen.metrics", "'127.0.0.1:0'");
    let gate = setup.start();
    let at = gate.metrics_address();
    assert_ne!(at, gate.admin());
    let metrics = plain_get(at, &at.to_string(), "/metrics");
    assert!(metrics.status == 200 && Metrics::parse(&metrics.text()).has("lockgate_open_connections"));
    assert_eq!(plain_get(at, &at.to_string(), "/healthz").status, 200);
    assert_eq!(plain_get(at, &at.to_string(), "/").status, 404);
}

#[test]
fn the_admin_pages_are_not_on_the_public_listeners() {
    let origin = Scripted::ok("the site's own");
    let gate = Lockgate::serving(SITE, &origin).start();
    assert_eq!(gate.get("www.example.test/metrics").text(), "the site's own");
    assert_eq!(gate.curl("http://127.0.0.1/metrics").run().status, 404);
}

/// RELIABILITY 27.
#[test]
fn a_client_cannot_mint_a_series() {
    let origin = Scripted::answering("HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n");
    let gate = Lockgate::serving("*.example.test", &origin).start();
    let minted = |i: usize| format!("made-up-{i}.example.test");
    for i in 0..3 {
        gate.connect(&minted(i)).get("/");
    }
    let before = gate.metrics();
    for i in 3..60 {
        let mut client = gate.connect(&minted(i));
        client.ask(format!("M{i} /{i} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {i}\r\n\r\n", minted(i)));
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").status, 421);
        let _ = gate.tls(&format!("unknown-{i}.test")).connect();
    }
    let after = gate.metrics();
    assert_eq!(after.label_values("domain"), ["*.example.test"]);
    assert!(after.len() <= before.len() + 4, "{} series became {}", before.len(), after.len());
    let text = gate.admin_get("/metrics").text();
    assert!(!text.contains("made-up") && !text.contains("unknown-"), "{text}");
}

#[test]
fn open_connections_are_told_by_protocol_and_go_back() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).start();
    let open = || gate.metrics().sum("lockgate_open_connections", &[]);
    let before = open();
    let mut clients: Vec<_> = (0..5).map(|_| gate.connect(SITE)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    let h2 = H2::connect(&gate, SITE);
    eventually("six more", || (open() == before + 6.0).then_some(()));
    drop((clients, h2));
    eventually("and back", || (open() == before).then_some(()));
}

#[test]
fn cross_site_posts_change_nothing() {
    use std::io::{BufReader, Write};
    let gate = Lockgate::serving(SITE, Scripted::ok("")).start();
    let mut stream = std::net::TcpStream::connect(gate.admin()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = gate.admin();
    write!(stream, "POST /healthz HTTP/1.1\r\nHost: {host}\r\nOrigin: https://evil.test\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let answer = read_answer(&mut BufReader::new(stream), false).unwrap();
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[rstest]
#[case::admin(false)]
#[case::metrics(true)]
fn who_says_nothing_keeps_nobody_else_out(#[case] metrics: bool) {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).set("listen.metrics", "'127.0.0.1:0'");
    let gate = setup.start();
    let at = if metrics { gate.metrics_address() } else { gate.admin() };
    let silent: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
    if gate.count_fds().is_some() {
        let open = || gate.count_fds().unwrap();
        eventually("as many as it takes are accepted", || (open() > 64).then_some(()));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(open() < 150, "{} are open", open());
    }
    drop(silent);
    eventually("others are served", || (plain_get(at, &at.to_string(), "/healthz").status == 200).then_some(()));
}
