//! The plain listener: everything that is served is sent to https, the rest is not there (SPEC 6, 8).

use rstest::rstest;

use crate::harness::*;

const SITE: &str = "www.example.test";

#[rstest]
#[case::path_and_query("/a%20b/c?d=e&f")]
#[case::root("/")]
#[case::looks_like_another_host("//evil.test/x")]
fn served_hosts_are_sent_to_https(#[case] target: &str) {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).set("listen.public_https_port", "443").start();
    let answer = gate.curl("http://www.example.test/").arg("--request-target").arg(target).run();
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some(format!("https://www.example.test{target}").as_str()));
    assert_eq!(answer.header("strict-transport-security"), None);
}

#[rstest]
#[case::ours(None)]
#[case::mapped(Some(8443))]
fn a_redirect_names_the_port_that_clients_must_use(#[case] public: Option<u16>) {
    let setup = Lockgate::serving(SITE, Scripted::ok(""));
    let gate = match public {
        Some(port) => setup.set("listen.public_https_port", &port.to_string()).start(),
        None => setup.start(),
    };
    let port = public.unwrap_or(gate.https().port());
    let answer = gate.curl("http://www.example.test/x").run();
    assert_eq!(answer.header("location"), Some(format!("https://www.example.test:{port}/x").as_str()));
}

#[rstest]
#[case::post("POST", SITE, 308)]
#[case::other_case("GET", "WWW.Example.TEST", 308)]
#[case::with_port("GET", "www.example.test:80", 308)]
#[case::trailing_dot("GET", "www.example.test.", 308)]
#[case::wildcard("GET", "a.wild.test", 308)]
#[case::below_the_wildcard("GET", "b.a.wild.test", 404)]
#[case::unknown("GET", "elsewhere.test", 404)]
#[case::address("GET", "127.0.0.1", 404)]
fn only_hosts_that_are_served_exist(#[case] method: &str, #[case] host: &str, #[case] status: u16) {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).domain("*.wild.test", &origin).start();
    let answer = gate.curl("http://x.test/").arg("-X").arg(method).header(&format!("Host: {host}")).run();
    assert_eq!(answer.status, status, "{}", answer.head);
    assert_eq!(answer.header("location").is_some(), status == 308);
    assert_eq!(origin.received(), "", "nothing is served in the clear");
}

#[test]
fn a_challenge_that_nobody_ordered_is_not_there() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).start();
    let answer = gate.curl("http://www.example.test/.well-known/acme-challenge/nothing").run();
    assert!([404, 308].contains(&answer.status), "{}", answer.head);
}

#[test]
fn a_body_on_the_plain_listener_never_becomes_the_next_request() {
    use std::io::{Read, Write};
    let gate = Lockgate::serving(SITE, Scripted::ok("")).start();
    let mut stream = std::net::TcpStream::connect(gate.http()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let inner = "GET /inner HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
    let head = format!("POST / HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: {}\r\n\r\n", inner.len());
    let last = "GET /last HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}{inner}{last}").as_bytes()).unwrap();
    let mut answers = String::new();
    let _ = stream.read_to_string(&mut answers);
    assert!(answers.starts_with("HTTP/1.1 308") && !answers.contains("/inner"), "{answers}");
}

/// Who is approved is sent to where the first handshake has a certificate made; nobody is asked about others.
#[test]
fn names_on_demand_are_sent_to_https_before_their_first_handshake() {
    let asked = Scripted::ok("");
    let gate = Lockgate::serving(SITE, Scripted::ok(""))
        .set("acme.agree_to_terms", "true")
        .set("acme.standby", "false")
        .set("acme.on_demand.site", &format!("'{SITE}'"))
        .set("acme.on_demand.allow", "['*.customers.test']")
        .set("acme.on_demand.ask", &format!("'{}'", asked.url()))
        .table("[[acme.ca]]\nname = 'ca'\ndirectory = 'https://127.0.0.1:1/dir'")
        .start();
    for (host, status) in
        [("a.customers.test", 308), ("b.a.customers.test", 308), ("customers.test", 404), ("shop.test", 404)]
    {
        assert_eq!(plain_get(gate.http(), host, "/a").status, status, "{host}");
    }
    assert_eq!(asked.requests().len(), 0);
}
