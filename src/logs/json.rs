//! JSON lines: Lockgate's own log, whose time is the arrival, and Caddy's, whose time is the end.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Visitor};

use super::line::{Line, Why};
use super::stamp::{COMMON_BYTES, Stamps};
use crate::clock::UnixTime;

/// What of both is of interest; the rest is passed over unread.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    ts: Option<Scalar<'a>>,
    /// Lockgate's.
    #[serde(borrow)]
    domain: Option<Text<'a>>,
    /// Lockgate's: there also where no site was chosen and so nothing was metered.
    client: Option<IgnoredAny>,
    /// Caddy's.
    #[serde(borrow)]
    request: Option<Request<'a>>,
    /// Caddy's.
    #[serde(borrow)]
    duration: Option<Scalar<'a>>,
    /// Caddy's: errors and debugging tell of requests, too, that the access log has told of.
    #[serde(borrow)]
    logger: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    host: Option<Text<'a>>,
}

/// Borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A number or a text: Caddy can be told to write times either way.
enum Scalar<'a> {
    Number(f64),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number as f64))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(number as f64))
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads one object.
pub fn parse<'a>(line: &'a [u8], stamps: &mut Stamps) -> Result<Line<'a>, Why> {
    let entry: Entry = serde_json::from_slice(line)
        .map_err(|error| if error.is_data() { Why::UnknownJson } else { Why::BrokenJson })?;
    match entry {
        Entry { request: Some(request), .. } => caddy(entry.ts, request, entry.duration, entry.logger, stamps),
        Entry { domain: Some(Text(domain)), .. } if !matches!(&*domain, "" | "-") => {
            let Some(Scalar::Text(ts)) = entry.ts else { return Err(Why::NoTime) };
            let arrival = stamps.rfc_3339(ts.as_bytes()).ok_or(Why::NoTime)?;
            Ok(Line::Request { host: Some(octets(domain)), arrival })
        }
        Entry { ts: Some(_), client: Some(_), .. } => Ok(Line::Other),
        _ => Err(Why::UnknownJson),
    }
}

fn caddy<'a>(
    ts: Option<Scalar<'a>>,
    request: Request<'a>,
    duration: Option<Scalar<'a>>,
    logger: Option<Text<'a>>,
    stamps: &mut Stamps,
) -> Result<Line<'a>, Why> {
    if logger.is_some_and(|Text(logger)| !logger.starts_with("http.log.access")) {
        return Ok(Line::Other);
    }
    let ended_ms = match ts {
        Some(Scalar::Number(number)) => unix_ms(number),
        Some(Scalar::Text(text)) => written_ms(&text, stamps),
        None => None,
    };
    let took_ms = match duration {
        None => 0.0,
        Some(Scalar::Number(secs)) => secs * 1000.0,
        Some(Scalar::Text(text)) => go_duration_ms(&text).ok_or(Why::NoTime)?,
    };
    let arrival = ended_ms.ok_or(Why::NoTime)? - took_ms.max(0.0);
    let host = request.host.ok_or(Why::NoHost)?.0;
    Ok(Line::Request { host: Some(octets(host)), arrival: UnixTime::from_ms(arrival.floor() as i64) })
}

fn octets(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// `unix_seconds_float`, `unix_milli_float` or `unix_nano`: which one shows from the size, for some thousand years.
fn unix_ms(number: f64) -> Option<f64> {
    match number.abs() {
        secs if secs < 1e11 => Some(number * 1e3),
        ms if ms < 1e14 => Some(number),
        us if us < 1e17 => Some(number / 1e3),
        ns if ns < 1e20 => Some(number / 1e6),
        _ => None,
    }
}

/// `rfc3339`, `rfc3339_nano`, `iso8601` or `common_log`. `wall` has no zone, so that nobody can tell when it was.
fn written_ms(text: &str, stamps: &mut Stamps) -> Option<f64> {
    let at = match <&[u8; COMMON_BYTES]>::try_from(text.as_bytes()).ok().and_then(|text| stamps.common(text)) {
        Some(at) => at,
        None => stamps.rfc_3339(text.as_bytes())?,
    };
    Some(at.ms() as f64)
}

/// `1h2m3.5s`, `1.2ms`, as Go writes a duration.
fn go_duration_ms(mut text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] =
        [("h", 3_600_000.0), ("ms", 1.0), ("m", 60_000.0), ("s", 1000.0), ("µs", 1e-3), ("us", 1e-3), ("ns", 1e-6)];
    let mut sum = 0.0;
    while !text.is_empty() {
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, rest) = text.split_at_checked(digits)?;
        let (unit, ms) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        sum += number.parse::<f64>().ok()? * ms;
        text = rest.get(unit.len()..)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parsed(line: &str) -> Result<Option<(String, i64)>, Why> {
        Ok(match parse(line.as_bytes(), &mut Stamps::default())? {
            Line::Request { host, arrival } => {
                Some((String::from_utf8(host.unwrap().into_owned()).unwrap(), arrival.ms()))
            }
            Line::Other => None,
        })
    }

    const CADDY: &str = r#"{"level":"info","ts":TS,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":"192.0.2.1","remote_port":"41342","client_ip":"192.0.2.1","proto":"HTTP/2.0","method":"GET","host":"HOST","uri":"/?q=\"x\"","headers":{"User-Agent":["curl/7.82.0 \"quoted\" é"],"Accept":["*/*"]},"tls":{"resumed":false,"version":772}},"bytes_read":0,"user_id":"","duration":DURATION,"size":10900,"status":200,"resp_headers":{"Server":["Caddy"]}}"#;

    #[rstest]
    #[case::default("1700000000.123", "0.0012", 1_700_000_000_121)]
    #[case::whole_second("1700000010", "0", 1_700_000_010_000)]
    #[case::into_the_bucket_before("1700000010.5", "1.25", 1_700_000_009_250)]
    #[case::milliseconds("1700000000123.5", "0.001", 1_700_000_000_122)]
    #[case::nanoseconds("1700000000123000000", "0", 1_700_000_000_123)]
    #[case::rfc_3339("\"2023-11-14T22:13:20.5Z\"", "0.25", 1_700_000_000_250)]
    #[case::iso_8601("\"2023-11-14T23:13:20.500+0100\"", "0.25", 1_700_000_000_250)]
    #[case::common_log("\"14/Nov/2023:22:13:20 +0000\"", "0", 1_700_000_000_000)]
    #[case::duration_as_text("1700000000", "\"1m1.5s\"", 1_699_999_938_500)]
    #[case::duration_in_microseconds("1700000000", "\"250µs\"", 1_699_999_999_999)]
    fn caddy_stamps_the_end(#[case] ts: &str, #[case] duration: &str, #[case] arrival: i64) {
        let line = CADDY.replace("TS", ts).replace("HOST", "example.com:443").replace("DURATION", duration);
        assert_eq!(parsed(&line), Ok(Some(("example.com:443".to_owned(), arrival))));
    }

    #[rstest]
    #[case::wall_has_no_zone("\"2023/11/14 22:13:20\"", "0", Err(Why::NoTime))]
    #[case::null("null", "0", Err(Why::NoTime))]
    #[case::far("1e300", "0", Err(Why::NoTime))]
    #[case::no_duration("1700000000", "\"soon\"", Err(Why::NoTime))]
    #[case::object("{}", "0", Err(Why::UnknownJson))]
    #[case::huge_duration("1700000000", "1e300", Ok(Some(("h".to_owned(), i64::MIN))))]
    fn what_caddy_never_writes_does_no_harm(
        #[case] ts: &str,
        #[case] duration: &str,
        #[case] said: Result<Option<(String, i64)>, Why>,
    ) {
        assert_eq!(parsed(&CADDY.replace("TS", ts).replace("HOST", "h").replace("DURATION", duration)), said);
    }

    #[test]
    fn what_else_caddy_logs_of_requests_is_not_counted_twice() {
        let line = CADDY.replace("TS", "1700000000").replace("DURATION", "0");
        for logger in ["http.log.error.log0", "http.handlers.reverse_proxy"] {
            assert_eq!(parsed(&line.replace("http.log.access.log0", logger)), Ok(None));
        }
    }

    #[rstest]
    #[case::host(
        r#""domain":"www.example.com","host":"www.example.com","client":"192.0.2.1""#,
        Some("www.example.com")
    )]
    #[case::wildcard(r#""domain":"*.example.com","host":"a.example.com","client":"192.0.2.1""#, Some("*.example.com"))]
    #[case::escaped(r#""domain":"www.ex\u0061mple.com","client":"2001:db8::1""#, Some("www.example.com"))]
    #[case::no_site(r#""domain":null,"host":"x.test","client":"192.0.2.1""#, None)]
    #[case::no_site_and_no_field(r#""host":"x.test","client":"192.0.2.1""#, None)]
    #[case::empty(r#""domain":"","client":"192.0.2.1""#, None)]
    fn lockgate_stamps_the_arrival_and_names_the_meter(#[case] fields: &str, #[case] domain: Option<&str>) {
        let line = format!(
            r#"{{"ts":"2026-06-01T12:00:09.999Z",{fields},"method":"GET","uri":"/x","protocol":"HTTP/2.0","status":200,"bytes":123,"duration_ms":25000.2,"throttled":false}}"#
        );
        assert_eq!(parsed(&line), Ok(domain.map(|domain| (domain.to_owned(), 1_780_315_209_999))));
    }

    #[rstest]
    #[case::nginx_before_escape_json(
        r#"{"ts":"2026-06-01T12:00:00Z","domain":"a.test","uri":"/\x22"}"#,
        Why::BrokenJson
    )]
    #[case::cut(r#"{"ts":"2026-06-01T12:00:00Z","dom"#, Why::BrokenJson)]
    #[case::two(r#"{"ts":1} {"ts":2}"#, Why::BrokenJson)]
    #[case::program_log(r#"{"timestamp":"2026-06-01T12:00:00Z","level":"INFO","fields":{}}"#, Why::UnknownJson)]
    #[case::nginx_json(r#"{"time":"x","host":"a.test","request":"GET / HTTP/1.1"}"#, Why::UnknownJson)]
    #[case::no_zone(r#"{"ts":"2026-06-01T12:00:00","domain":"a.test"}"#, Why::NoTime)]
    #[case::no_host(r#"{"ts":1,"request":{"method":"GET"}}"#, Why::NoHost)]
    fn what_is_no_request_says_why(#[case] line: &str, #[case] why: Why) {
        assert_eq!(parsed(line), Err(why));
    }
}
