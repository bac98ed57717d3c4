use super::*;
use rstest::rstest;

/// The head of a request with these lines, `name: value`.
fn head(version: Version, method: &str, target: &str, lines: &[&str]) -> request::Parts {
    let mut request = Request::builder().version(version).method(method).uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap().into_parts().0
}

const MALFORMED: Result<&str, u16> = Err(400);

#[rstest]
#[case(Version::HTTP_11, "GET", "/", &["Host: WWW.example.com.:443"], Ok("www.example.com"))]
#[case(Version::HTTP_11, "GET", "/", &[], MALFORMED)]
#[case(Version::HTTP_11, "GET", "/", &["Host: a.test", "Host: a.test"], MALFORMED)]
#[case(Version::HTTP_11, "GET", "/", &["Host: a b"], MALFORMED)]
#[case(Version::HTTP_11, "GET", "/", &["Host: user@a.test"], MALFORMED)]
#[case(Version::HTTP_11, "GET", "http://a.test/", &["Host: A.test:80"], Ok("a.test"))]
#[case(Version::HTTP_11, "GET", "http://a.test/", &["Host: b.test"], MALFORMED)]
#[case(Version::HTTP_11, "GET", "http://a.test/", &[], MALFORMED)]
#[case(Version::HTTP_11, "OPTIONS", "*", &["Host: a.test"], Ok("a.test"))]
#[case(Version::HTTP_11, "CONNECT", "a.test:443", &["Host: a.test"], Err(405))]
#[case(Version::HTTP_10, "GET", "/", &["Host: a.test"], Ok("a.test"))]
#[case(Version::HTTP_10, "GET", "/", &[], MALFORMED)]
#[case(Version::HTTP_2, "GET", "https://a.test/", &[], Ok("a.test"))]
#[case(Version::HTTP_2, "GET", "https://a.test/", &["Host: a.test"], Ok("a.test"))]
#[case(Version::HTTP_2, "GET", "https://a.test/", &["Host: b.test"], MALFORMED)]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], MALFORMED)]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Transfer-Encoding: Chunked"], Ok("a.test"))]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Transfer-Encoding: gzip, chunked"], MALFORMED)]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Transfer-Encoding: chunked, chunked"], MALFORMED)]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Transfer-Encoding: "], MALFORMED)]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Content-Length: 5", "Content-Length: 5"], Ok("a.test"))]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Content-Length: 5", "Content-Length: 05"], MALFORMED)]
#[case(Version::HTTP_2, "POST", "https://a.test/", &["Content-Length: 5", "Content-Length: 6"], MALFORMED)]
#[case(Version::HTTP_2, "POST", "https://a.test/", &["Content-Length: "], MALFORMED)]
#[case(Version::HTTP_2, "POST", "https://a.test/", &["Content-Length: +5"], MALFORMED)]
#[case(Version::HTTP_2, "POST", "https://a.test/", &["Content-Length: 5, 5"], MALFORMED)]
#[case(Version::HTTP_11, "GET", "a.test:443", &["Host: a.test"], MALFORMED)]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Expect: 100-Continue"], Ok("a.test"))]
#[case(Version::HTTP_11, "POST", "/", &["Host: a.test", "Expect: a miracle"], Err(417))]
fn a_request_has_one_host_and_one_reading(
    #[case] version: Version,
    #[case] method: &str,
    #[case] target: &str,
    #[case] lines: &[&str],
    #[case] expected: Result<&str, u16>,
) {
    let head = head(version, method, target, lines);
    let got = host(&head).map_err(|refusal| refusal.status().as_u16());
    assert_eq!(got.as_deref(), expected.as_ref().copied());
}

/// The fields left after `change`, as lines in order of name.
fn fields(lines: &[&str], change: impl FnOnce(&mut HeaderMap)) -> Vec<String> {
    let mut headers = head(Version::HTTP_11, "GET", "/", lines).headers;
    change(&mut headers);
    let mut left: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    left.sort();
    left
}

#[test]
fn what_concerns_one_connection_does_not_pass() {
    let lines = [
        "Connection: close, X-Mine",
        "X-Mine: 1",
        "Keep-Alive: 5",
        "TE: trailers",
        "Upgrade: h2c",
        "Trailer: x",
        "A: 1",
    ];
    assert_eq!(fields(&lines, strip_hop_by_hop), ["a: 1", "trailer: x"]);
}

#[test]
fn host_and_length_cannot_be_taken_out_by_naming_them() {
    let lines = ["Connection: host, content-length", "Host: a.test", "Content-Length: 5"];
    assert_eq!(fields(&lines, strip_hop_by_hop), ["content-length: 5", "host: a.test"]);
}

#[test]
fn crumbs_become_one_cookie() {
    assert_eq!(fields(&["Cookie: a=1", "Cookie: b=2; c=3"], join_cookies), ["cookie: a=1; b=2; c=3"]);
}

#[test]
fn trailers_carry_no_framing_no_credentials_and_no_client() {
    let lines = ["Content-Length: 5", "Host: b.test", "Authorization: x", "X-Forwarded-For: 1", "Grpc-Status: 0"];
    assert_eq!(fields(&lines, filter_trailers), ["grpc-status: 0"]);
}

#[rstest]
#[case("/", &["Host: a.test:81"], "a.test:81")]
#[case("https://a.test:82/", &["Host: A.test"], "a.test:82")]
#[case("https://a.test/", &[], "a.test")]
fn the_targets_authority_is_the_host(#[case] target: &str, #[case] lines: &[&str], #[case] expected: &str) {
    assert_eq!(host_field(&head(Version::HTTP_11, "GET", target, lines)).unwrap(), expected);
}

#[rstest]
#[case::as_it_is("POST", Some(5), &["Content-Length: 5"], &["content-length: 5"])]
#[case::once("POST", Some(5), &["Content-Length: 5", "Content-Length: 5"], &["content-length: 5"])]
#[case::unknown("POST", None, &[], &["transfer-encoding: chunked"])]
#[case::unknown_get("GET", None, &["Content-Length: 5"], &["transfer-encoding: chunked"])]
#[case::none("POST", Some(0), &[], &["content-length: 0"])]
#[case::none("PUT", Some(0), &["Content-Length: 0"], &["content-length: 0"])]
#[case::none("GET", Some(0), &[], &[])]
fn a_request_says_how_long_its_body_is(
    #[case] method: &str,
    #[case] bytes: Option<u64>,
    #[case] lines: &[&str],
    #[case] expected: &[&str],
) {
    let size = match bytes {
        Some(0) => None,
        Some(bytes) => Some(SizeHint::with_exact(bytes)),
        None => Some(SizeHint::new()),
    };
    assert_eq!(fields(lines, |headers| frame_request(headers, &method.parse().unwrap(), size)), expected);
}

#[rstest]
#[case::as_it_is(&["Content-Length: 5"], Some(5), &["content-length: 5"])]
#[case::chunked(&["Content-Length: 5", "Transfer-Encoding: chunked"], None, &["transfer-encoding: chunked"])]
#[case::once(&["Content-Length: 5", "Content-Length: 5"], Some(5), &["content-length: 5"])]
#[case::a_list(&["Content-Length: 5, 5"], Some(5), &["content-length: 5"])]
#[case::other_digits(&["Content-Length: 5", "Content-Length: 05"], Some(5), &["content-length: 5"])]
#[case::of_head(&["Content-Length: 5", "Content-Length: 5"], None, &["content-length: 5"])]
#[case::odd_of_head(&["Content-Length: 5", "Content-Length: 6"], None, &[])]
fn an_answer_has_one_length(#[case] lines: &[&str], #[case] body_bytes: Option<u64>, #[case] expected: &[&str]) {
    assert_eq!(fields(lines, |headers| frame_response(headers, body_bytes).unwrap()), expected);
}

#[rstest]
#[case(&["Transfer-Encoding: gzip"])]
#[case(&["Transfer-Encoding: gzip, chunked"])]
#[case(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"])]
#[case(&["Transfer-Encoding: chunked, chunked"])]
fn an_answer_in_a_coding_that_is_not_chunked_is_none(#[case] lines: &[&str]) {
    let mut headers = head(Version::HTTP_11, "GET", "/", lines).headers;
    assert_eq!(frame_response(&mut headers, None), Err(Refusal::Origin(OriginFault::Malformed)));
}

#[rstest]
#[case(&["TE: trailers"], true)]
#[case(&["TE: gzip;q=0.5, Trailers"], true)]
#[case(&["TE: gzip"], false)]
#[case(&[], false)]
fn who_takes_trailers_says_so(#[case] lines: &[&str], #[case] expected: bool) {
    assert_eq!(takes_trailers(&head(Version::HTTP_11, "GET", "/", lines).headers), expected);
}
