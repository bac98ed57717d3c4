//! The common log format and what grew out of it: combined, and both with the host in front (`vhost_combined`).

use std::borrow::Cow;
use std::net::IpAddr;

use memchr::memchr_iter;

use super::line::{Line, Why};
use super::stamp::{COMMON_BYTES, Stamps};

/// Brackets that are looked at for a time: user names may have some, too.
const MAX_BRACKETS: usize = 16;

/// `[HOST[:PORT]] CLIENT IDENT USER [TIME] "REQUEST" STATUS ...`
pub fn parse<'a>(line: &'a [u8], stamps: &mut Stamps) -> Result<Line<'a>, Why> {
    let mut why = Why::Unknown;
    for at in memchr_iter(b'[', line).take(MAX_BRACKETS) {
        let (front, rest) = line.split_at_checked(at).unwrap_or_default();
        let Some(front) = front.strip_suffix(b" ") else { continue };
        let Some((time, rest)) = rest.get(1..).and_then(|rest| rest.split_first_chunk::<COMMON_BYTES>()) else { break };
        let Some(rest) = rest.strip_prefix(b"]") else { continue };
        let Some(arrival) = stamps.common(time) else {
            why = Why::NoTime;
            continue;
        };
        // A user's name can look like a time: what follows tells.
        if !rest.strip_prefix(b" \"").is_some_and(has_status) {
            why = Why::NoRequest;
            continue;
        }
        return Ok(Line::Request { host: host(front)?.map(Cow::Borrowed), arrival });
    }
    Err(why)
}

/// Whether a quote is followed by a status, wherever: servers escape the quotes of a request as `\"`, as `\x22`, or not.
fn has_status(request: &[u8]) -> bool {
    memchr_iter(b'"', request).any(|quote| match request.get(quote + 1..).unwrap_or_default() {
        [b' ', a, b, c, rest @ ..] => [a, b, c].into_iter().all(u8::is_ascii_digit) && matches!(rest, [] | [b' ', ..]),
        _ => false,
    })
}

/// The host, if `front` has one before the client, its identity (nearly always `-`) and the user, who may have spaces.
fn host(front: &[u8]) -> Result<Option<&[u8]>, Why> {
    let mut words = front.split(|b| *b == b' ').filter(|word| !word.is_empty());
    let (Some(first), Some(second)) = (words.next(), words.next()) else { return Err(Why::Unknown) };
    // A list of clients, as proxies forward it.
    let is_client = second == b"-" || first.ends_with(b",");
    let (Some(third), false) = (words.next(), is_client) else { return Ok(None) };
    if words.next().is_none() || (third != b"-" && is_address(first)) { Ok(None) } else { Ok(Some(first)) }
}

fn is_address(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parsed(line: &[u8]) -> Result<(String, String), Why> {
        match parse(line, &mut Stamps::default())? {
            Line::Request { host, arrival } => {
                let host = host.map(|host| String::from_utf8_lossy(&host).into_owned());
                Ok((host.unwrap_or_default(), arrival.to_string()))
            }
            Line::Other => panic!("{line:?} is a request"),
        }
    }

    const AT: &str = "[10/Oct/2000:13:55:36 -0700]";

    #[rstest]
    #[case::common(r#"1.2.3.4 - - AT "GET / HTTP/1.0" 200 2326"#, "")]
    #[case::combined(r#"1.2.3.4 - frank AT "GET / HTTP/1.1" 200 5 "http://a.test/" "Mozilla/5.0 (X11)""#, "")]
    #[case::ipv6_client(r#"2001:db8::1 - - AT "GET / HTTP/1.1" 200 5 "-" "-""#, "")]
    #[case::no_bytes(r#"1.2.3.4 - - AT "HEAD / HTTP/1.1" 304 -"#, "")]
    #[case::status_last(r#"1.2.3.4 - - AT "GET / HTTP/1.1" 200"#, "")]
    #[case::no_request(r#"1.2.3.4 - - AT "-" 408 - "-" "-""#, "")]
    #[case::empty_request(r#"1.2.3.4 - - AT "" 400 0 "-" "-""#, "")]
    #[case::tls_on_plain(r#"1.2.3.4 - - AT "\x16\x03\x01\x00\xF8" 400 157 "-" "-""#, "")]
    #[case::quotes_as_apache(r#"1.2.3.4 - - AT "GET /?q=\"a\" HTTP/1.1" 200 5 "-" "\"evil\" agent""#, "")]
    #[case::quotes_as_nginx(r#"1.2.3.4 - - AT "GET /?q=\x22a\x22 HTTP/1.1" 200 5 "-" "\x22evil\x22""#, "")]
    #[case::quotes_as_nobody(r#"1.2.3.4 - - AT "GET /?q="a" HTTP/1.1" 200 5"#, "")]
    #[case::brackets_in_the_request(r#"1.2.3.4 - - AT "GET /?a[0]=[1] HTTP/1.1" 200 5"#, "")]
    #[case::user_with_spaces(r#"1.2.3.4 - John M. Doe AT "GET / HTTP/1.1" 200 5"#, "")]
    #[case::user_with_brackets(r#"1.2.3.4 - a [b] AT "GET / HTTP/1.1" 200 5"#, "")]
    #[case::identity(r#"1.2.3.4 ident john AT "GET / HTTP/1.1" 200 5"#, "")]
    #[case::identity_and_spaces(r#"1.2.3.4 ident John Doe AT "GET / HTTP/1.1" 200 5"#, "")]
    #[case::forwarded_for(r#"10.0.0.1, 10.0.0.2 - - AT "GET / HTTP/1.1" 200 5"#, "")]
    #[case::vhost(r#"www.example.com:443 1.2.3.4 - - AT "GET / HTTP/1.1" 200 5 "-" "-""#, "www.example.com:443")]
    #[case::vhost_without_port(r#"WWW.Example.com. 1.2.3.4 - - AT "GET / HTTP/1.1" 200 5 "-" "-""#, "WWW.Example.com.")]
    #[case::vhost_ipv6_client(r#"example.com:443 2001:db8::1 - - AT "GET / HTTP/2.0" 200 5"#, "example.com:443")]
    #[case::vhost_address(r#"[2001:db8::1]:443 1.2.3.4 - - AT "GET / HTTP/1.1" 200 5"#, "[2001:db8::1]:443")]
    #[case::vhost_ipv4(r#"192.0.2.1 1.2.3.4 - - AT "GET / HTTP/1.1" 200 5"#, "192.0.2.1")]
    #[case::vhost_user(r#"a.test:443 1.2.3.4 - john doe AT "GET / HTTP/1.1" 200 5"#, "a.test:443")]
    #[case::vhost_clients(r#"a.test 1.2.3.4, 5.6.7.8 - - AT "GET / HTTP/1.1" 200 5"#, "a.test")]
    fn a_request_is_seen_with_its_host_and_time(#[case] line: &str, #[case] host: &str) {
        let parsed = parsed(line.replace("AT", AT).as_bytes());
        assert_eq!(parsed, Ok((host.to_owned(), "2000-10-10T20:55:36Z".to_owned())));
    }

    #[test]
    fn octets_that_are_no_text_do_not_matter() {
        let line =
            [b"1.2.3.4 - \xff\xfe ", AT.as_bytes(), b" \"GET /\xc3\x28\x00 HTTP/1.1\" 200 5 \"-\" \"\xf0\""].concat();
        assert!(parsed(&line).is_ok());
    }

    #[rstest]
    #[case::words("hello world", Why::Unknown)]
    #[case::error_log("2026/06/01 12:00:00 [error] 7#7: *1 open() failed", Why::Unknown)]
    #[case::no_client(r#"[10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 5"#, Why::Unknown)]
    #[case::wrong_date(r#"1.2.3.4 - - [31/Feb/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 5"#, Why::NoTime)]
    #[case::cut_in_the_time("1.2.3.4 - - [10/Oct/2000:13:", Why::Unknown)]
    #[case::cut_in_the_request("1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET /", Why::NoRequest)]
    #[case::cut_in_the_status("1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 2", Why::NoRequest)]
    #[case::no_request_at_all("1.2.3.4 - - [10/Oct/2000:13:55:36 -0700]", Why::NoRequest)]
    fn what_is_no_request_says_why(#[case] line: &str, #[case] why: Why) {
        assert_eq!(parsed(line.as_bytes()), Err(why));
    }
}
