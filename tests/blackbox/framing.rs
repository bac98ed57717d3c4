//! Requests that have fooled other proxies (RELIABILITY 1 to 7): the answer to each, and that nothing of it reached the
//! origin.

use rstest::rstest;

use crate::harness::*;

const SITE: &str = "www.example.test";

/// A complete request with these extra fields and whatever follows the head.
fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: www.example.test\r\n{fields}\r\n\r\n{body}")
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: www.example.test\r\n{fields}\r\n\r\n")
}

/// The door of the table: what is answered, and that the connection ends there and the origin saw nothing.
#[track_caller]
fn refused(request: impl AsRef<[u8]>, statuses: &[u16]) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).domain("other.example.test", &origin).start();
    let mut client = gate.connect(SITE);
    let answer = client.ask(&request);
    assert!(statuses.contains(&answer.status), "{} {}", answer.status, answer.text());
    assert_eq!(origin.received(), "", "nothing reaches the origin");
    if answer.status == 400 {
        client.expect_close();
    }
    assert!(gate.connect(SITE).usable(), "others are served");
}

// 1 and 2: a length that can be read in two ways.
#[rstest]
#[case::two_lines(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"))]
#[case::two_different_lines(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"))]
#[case::split_lines(post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "0\r\n\r\n"))]
#[case::not_chunked(post("Transfer-Encoding: gzip", ""))]
#[case::not_chunked_last(post("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"))]
#[case::identity(post("Transfer-Encoding: identity", ""))]
#[case::almost_chunked(post("Transfer-Encoding: xchunked", "0\r\n\r\n"))]
#[case::chunked_in_quotes(post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"))]
#[case::empty(post("Transfer-Encoding: ", "0\r\n\r\n"))]
#[case::two_codings(post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"))]
#[case::chunked_twice(post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"))]
#[case::http_1_0("POST / HTTP/1.0\r\nHost: www.example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned())]
fn transfer_encodings_that_do_not_simply_say_chunked(#[case] request: String) {
    refused(request, &[400, 501]);
}

#[rstest]
#[case::plus("+5")]
#[case::minus("-5")]
#[case::a_list("5,5")]
#[case::a_list_of_two("5, 6")]
#[case::empty("")]
#[case::hexadecimal("0x5")]
#[case::fraction("5.0")]
#[case::spaces("5 5")]
#[case::letters("five")]
#[case::overflow("18446744073709551621")]
#[case::far_overflow("99999999999999999999999999")]
fn content_lengths_that_are_not_digits(#[case] length: &str) {
    refused(post(&format!("Content-Length: {length}"), "hello"), &[400]);
}

#[test]
fn two_different_content_lengths() {
    refused(post("Content-Length: 5\r\nContent-Length: 6", "hello!"), &[400]);
}

#[rstest]
#[case::nul(get("X-A: a\0b"))]
#[case::control(get("X-A: a\x01b"))]
#[case::delete(get("X-A: a\x7fb"))]
#[case::lone_cr(get("X-A: a\rX-B: b"))]
#[case::no_colon(get("X-A"))]
#[case::no_name(get(": a"))]
#[case::space_before_colon(get("Content-Length : 5"))]
#[case::space_in_name(get("X A: b"))]
#[case::folded(get("X-A: a\r\n  b"))]
#[case::nul_in_target("GET /\0 HTTP/1.1\r\nHost: www.example.test\r\n\r\n".to_owned())]
#[case::space_in_target("GET /a b HTTP/1.1\r\nHost: www.example.test\r\n\r\n".to_owned())]
#[case::no_version("GET /\r\nHost: www.example.test\r\n\r\n".to_owned())]
#[case::nonsense("\x16\x03\x01 not HTTP at all\r\n\r\n".to_owned())]
fn heads_that_are_not_heads(#[case] request: String) {
    refused(request, &[400, 505]);
}

// 6: whose request is it?
#[rstest]
#[case::no_host("GET / HTTP/1.1\r\n\r\n", &[400])]
#[case::empty_host("GET / HTTP/1.1\r\nHost:\r\n\r\n", &[400, 421])]
#[case::two_hosts("GET / HTTP/1.1\r\nHost: www.example.test\r\nHost: www.example.test\r\n\r\n", &[400])]
#[case::two_different_hosts("GET / HTTP/1.1\r\nHost: www.example.test\r\nHost: other.example.test\r\n\r\n", &[400, 421])]
#[case::list("GET / HTTP/1.1\r\nHost: www.example.test, other.example.test\r\n\r\n", &[400, 421])]
#[case::another_site("GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n", &[421])]
#[case::no_site("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n", &[421])]
#[case::userinfo("GET / HTTP/1.1\r\nHost: www.example.test@other.example.test\r\n\r\n", &[400, 421])]
#[case::absolute_elsewhere("GET https://other.example.test/ HTTP/1.1\r\nHost: www.example.test\r\n\r\n", &[400, 421])]
#[case::host_elsewhere("GET https://www.example.test/ HTTP/1.1\r\nHost: other.example.test\r\n\r\n", &[400, 421])]
#[case::authority_form("GET www.example.test:443 HTTP/1.1\r\nHost: www.example.test\r\n\r\n", &[400])]
#[case::connect("CONNECT www.example.test:443 HTTP/1.1\r\nHost: www.example.test\r\n\r\n", &[400, 405, 421, 501])]
fn hosts_that_are_not_the_one_of_the_handshake(#[case] request: &str, #[case] statuses: &[u16]) {
    refused(request, statuses);
}

#[rstest]
#[case::another_site("https://other.example.test/", None, &[421])]
#[case::host_differs("https://www.example.test/", Some("other.example.test"), &[400, 421])]
fn http2_authorities_that_are_not_the_one_of_the_handshake(
    #[case] uri: &str,
    #[case] host: Option<&str>,
    #[case] statuses: &[u16],
) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).domain("other.example.test", &origin).start();
    let fields: Vec<_> = host.iter().map(|host| ("host", *host)).collect();
    let mut client = H2::connect(&gate, SITE);
    match client.get(uri, &fields) {
        Ok(answer) => assert!(statuses.contains(&answer.status), "{answer:?}"),
        Err(refused) => assert!(refused.is_reset(), "{refused}"),
    }
    assert_eq!(origin.received(), "");
    assert_eq!(client.get("https://www.example.test/", &[]).unwrap().status, 200, "the connection stays usable");
}

#[test]
fn a_target_with_an_authority_says_the_host() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let answer = gate
        .connect(SITE)
        .ask("GET https://www.example.test:8443/a HTTP/1.1\r\nHost: WWW.example.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = origin.last();
    assert_eq!((request.line(), request.headers("host")), ("GET /a HTTP/1.1", vec!["www.example.test:8443"]));
}

#[rstest]
#[case::different(&["5", "6"])]
#[case::empty(&[""])]
#[case::plus(&["+5"])]
#[case::a_list(&["5, 5"])]
fn http2_content_lengths_that_are_not_one_number(#[case] lengths: &[&str]) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
    let mut client = H2::connect(&gate, SITE);
    match client.request("POST", "https://www.example.test/", &fields, Some(b"hello")) {
        Ok(answer) => assert_eq!(answer.status, 400, "{answer:?}"),
        Err(refused) => assert!(refused.is_reset(), "{refused}"),
    }
    assert_eq!(origin.received(), "");
    assert_eq!(client.get("https://www.example.test/", &[]).unwrap().status, 200, "the connection stays usable");
}

// What HTTP/2 says without a length, HTTP/1.1 has to say with one.
#[rstest]
#[case::get("GET", Some("hello"), &[], "hello")]
#[case::head("HEAD", Some("hello"), &[], "hello")]
#[case::post("POST", Some("hello"), &[], "hello")]
#[case::sized_get("GET", Some("hello"), &[("content-length", "5")], "hello")]
#[case::post_of_nothing("POST", None, &[], "")]
#[case::put_of_nothing("PUT", None, &[], "")]
fn a_body_over_http2_arrives_whole_and_framed(
    #[case] method: &str,
    #[case] body: Option<&str>,
    #[case] fields: &[(&str, &str)],
    #[case] expected: &str,
) {
    let origin = Scripted::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = H2::connect(&gate, SITE);
    let answer = client.request(method, "https://www.example.test/", fields, body.map(str::as_bytes)).unwrap();
    assert_eq!(answer.status, 204);
    let request = origin.last();
    assert_eq!(String::from_utf8_lossy(&request.body), expected, "{}", request.head);
    let (lengths, codings) = (request.headers("content-length"), request.headers("transfer-encoding"));
    assert_eq!(lengths.len() + codings.len(), 1, "{}", request.head);
}

#[test]
fn a_get_in_chunks_arrives_whole() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let body = "5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(gate.connect(SITE).ask(get("Transfer-Encoding: chunked") + body).status, 200);
    assert_eq!(origin.last().body, b"hello");
}

#[test]
fn a_refused_head_has_no_body_over_either_protocol() {
    let gate = Lockgate::serving(SITE, Scripted::down()).start();
    let answer = H2::connect(&gate, SITE).request("HEAD", "https://www.example.test/", &[], None).unwrap();
    let length = answer.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    assert_eq!((answer.status, answer.body.len()), (502, 0), "{answer:?}");
    assert!(length.is_some_and(|length| length > 0), "{answer:?}");
    let mut client = gate.connect(SITE);
    client.send("HEAD / HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n");
    let all = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(all.starts_with("HTTP/1.1 502") && all.ends_with("\r\n\r\n"), "{all}");
    assert!(all.contains(&format!("content-length: {}", length.unwrap())), "{all}");
}

// The same of answers.
#[rstest]
#[case::gzip("Transfer-Encoding: gzip\r\nConnection: close", "hello")]
#[case::gzip_and_chunked("Transfer-Encoding: gzip, chunked", "5\r\nhello\r\n0\r\n\r\n")]
#[case::chunked_twice("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
#[case::different_lengths("Content-Length: 5\r\nContent-Length: 6", "hello!")]
fn an_answer_that_could_be_read_in_two_ways_is_none(#[case] fields: &str, #[case] body: &str) {
    let origin = Scripted::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"));
    let gate = Lockgate::serving(SITE, &origin).start();
    assert_eq!(gate.get(SITE).status, 502);
    gate.await_metric("lockgate_origin_errors_total", &[("domain", SITE), ("kind", "malformed")], 1.0);
}

#[rstest]
#[case::chunked("Content-Length: 3\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", &[])]
#[case::two_lines("Content-Length: 5\r\nContent-Length: 5", "hello", &["5"])]
#[case::a_list("Content-Length: 5, 5", "hello", &["5"])]
fn an_answer_keeps_one_length(#[case] fields: &str, #[case] body: &str, #[case] lengths: &[&str]) {
    let origin = Scripted::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"));
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
    let got: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "content-length").map(|(_, v)| &**v).collect();
    assert_eq!(got, lengths, "{answer:?}");
    let answer = H2::connect(&gate, SITE).get("https://www.example.test/", &[]).unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(answer.headers.get_all("content-length").iter().collect::<Vec<_>>(), lengths);
}

// 3: length and chunks together.
#[test]
fn content_length_beside_chunks_is_never_forwarded_with_them() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: www.example.test\r\n\r\n";
    client.send(post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{smuggled}")));
    let answer = client.answer();
    client.expect_close();
    assert!([200, 400].contains(&answer.status), "{}", answer.status);
    assert!(!origin.received().contains("/smuggled"), "{}", origin.received());
    for request in origin.requests() {
        assert!(request.header("content-length").is_none(), "{}", request.head);
    }
}

#[rstest]
#[case::not_hexadecimal("zz\r\nhello\r\n0\r\n\r\n")]
#[case::plus("+5\r\nhello\r\n0\r\n\r\n")]
#[case::minus("-1\r\nhello\r\n0\r\n\r\n")]
#[case::overflow("10000000000000005\r\nhello\r\n0\r\n\r\n")]
#[case::long("5\r\nhello!!\r\n0\r\n\r\n")]
#[case::no_size("\r\nhello\r\n0\r\n\r\n")]
fn a_chunk_that_breaks_ends_both_connections(#[case] body: &str) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    client.send(post("Transfer-Encoding: chunked", &format!("3\r\nabc\r\n{body}")));
    assert_eq!(client.answer().status, 400);
    client.expect_close();
    assert!(origin.requests().is_empty(), "a request that never ended is never complete at the origin");
    assert!(gate.connect(SITE).usable());
}

// 4: a body that nobody read.
#[rstest]
#[case::down(Lockgate::serving(SITE, Scripted::down()), 502)]
#[case::too_large(Lockgate::serving(SITE, Scripted::down()).with("max_body", "'10B'"), 413)]
#[case::another_site(Lockgate::serving("other.example.test", Scripted::down()), 421)]
fn a_body_that_nobody_read_never_becomes_the_next_request(#[case] setup: Setup, #[case] status: u16) {
    let gate = if status == 421 { setup.domain(SITE, Scripted::down()).start() } else { setup.start() };
    let mut client = gate.connect(SITE);
    let inner = "GET /inner HTTP/1.1\r\nHost: www.example.test\r\n\r\n".repeat(20);
    let host = if status == 421 { "other.example.test" } else { SITE };
    client.send(format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()));
    let answer = client.answer();
    assert_eq!(answer.status, status);
    // Either the connection is closed, or the next answer is the one to the next request.
    client.send("GET / HTTP/1.1\r\nHost: elsewhere.test\r\nConnection: close\r\n\r\n");
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(rest.is_empty() || (rest.starts_with("HTTP/1.1 421") && rest.matches("HTTP/1.1").count() == 1), "{rest}");
}

// 5: tunnels.
#[test]
fn a_tunnel_opens_only_after_the_origins_101() {
    let origin = Scripted::ok("not a tunnel");
    let gate = Lockgate::serving(SITE, &origin).start();
    let mut client = gate.connect(SITE);
    let upgrade = get(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    );
    client.send(upgrade + "GET /next HTTP/1.1\r\nHost: other.example.test\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "not a tunnel".to_owned()));
    // What follows is a request like any other, held against the site like any other.
    let next = client.try_answer().map(|answer| answer.status).ok();
    assert!(matches!(next, None | Some(421)), "{next:?}");
    assert!(!origin.received().contains("/next"), "{}", origin.received());
}

#[test]
fn a_101_that_nobody_asked_for_is_no_answer() {
    let origin =
        Scripted::answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let gate = Lockgate::serving(SITE, &origin).start();
    assert_eq!(gate.get(SITE).status, 502);
}

#[test]
fn an_upgrade_with_a_body_is_refused_or_no_upgrade() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5";
    let answer = gate.connect(SITE).ask(post(fields, "hello"));
    assert!([200, 400].contains(&answer.status), "{}", answer.status);
    assert!(origin.requests().iter().all(|request| request.header("upgrade").is_none()), "{}", origin.received());
}

#[rstest]
#[case::h2c("Upgrade: h2c")]
#[case::h2c_of_a_draft("Upgrade: h2c-14")]
#[case::another_http("Upgrade: HTTP/2.0")]
#[case::a_list("Upgrade: websocket, h2c")]
#[case::two_lines("Upgrade: websocket\r\nUpgrade: h2c")]
fn no_tunnel_for_what_is_http_or_more_than_one(#[case] field: &str) {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::serving(SITE, &origin).start();
    let answer = gate.connect(SITE).ask(get(&format!("Connection: Upgrade\r\n{field}")));
    assert!([200, 400].contains(&answer.status), "{}", answer.status);
    assert!(origin.requests().iter().all(|request| request.header("upgrade").is_none()), "{}", origin.received());
}

#[test]
fn who_takes_trailers_is_said_to_take_them() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    H2::connect(&gate, SITE).get("https://www.example.test/", &[("te", "trailers")]).unwrap();
    let request = origin.last();
    assert_eq!(
        (request.header("te"), request.header("connection")),
        (Some("trailers"), Some("TE")),
        "{}",
        request.head
    );
    gate.get(SITE);
    assert_eq!(origin.last().header("te"), None);
}

// 7: what the origin believes about the client.
#[test]
fn names_in_connection_cannot_strip_forwarding_headers() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    gate.connect(SITE).ask(get("Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, Host"));
    let request = origin.last();
    for (name, value) in [("host", SITE), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https")] {
        assert_eq!(request.header(name), Some(value), "{}", request.head);
    }
    assert!(request.header("forwarded").is_some() && request.header("x-forwarded-host").is_some(), "{}", request.head);
}

#[rstest]
#[case("X-Real-IP: 203.0.113.7")]
#[case("X-Forwarded-Port: 65001")]
#[case("X-Forwarded-Server: evil.test")]
#[case("X_Forwarded_For: 203.0.113.7")]
#[case("X-Forwarded-For : 203.0.113.7")]
fn relatives_of_forwarding_headers_do_not_slip_through(#[case] field: &str) {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    gate.connect(SITE).ask(get(field));
    let forged = field.rsplit(": ").next().unwrap();
    assert!(!origin.received().contains(forged), "{}", origin.received());
}

#[test]
fn trailers_cannot_say_what_headers_cannot() {
    let origin = Scripted::ok("");
    let gate = Lockgate::serving(SITE, &origin).start();
    let trailers = "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\nHost: other.example.test\r\n\
        Content-Length: 98765\r\nTransfer-Encoding: gzip\r\nConnection: close\r\nX-Checksum: abc";
    let names = trailers.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let names = names.collect::<Vec<_>>().join(", ");
    let request = post(
        &format!("Trailer: {names}\r\nTransfer-Encoding: chunked"),
        &format!("2\r\nok\r\n0\r\n{trailers}\r\n\r\n"),
    );
    assert_eq!(gate.connect(SITE).ask(request).status, 200);
    assert_eq!(origin.last().trailers.to_ascii_lowercase(), "x-checksum: abc\n");
    for forged in ["203.0.113.7", "other.example.test", "gzip", "98765"] {
        assert!(!origin.received().contains(forged), "{}", origin.received());
    }
}
