//! Header fields that tell when to come back and what else there is.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, LINK, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// The longest that an authority may send us away: the longest of the well-known rate limits is a week.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Links that are looked at in one answer.
const MAX_LINKS: usize = 16;

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, which counts from the answer's own `Date`, so that a
/// wrong clock here does no harm. At most [`MAX_RETRY_AFTER`].
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        // More digits than fit say "very long".
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let from = date(headers.get(DATE)?.to_str().ok()?)?;
        Duration::from_secs(u64::try_from(date(text)?.as_second() - from.as_second()).unwrap_or(0))
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// IMF-fixdate (RFC 9110, section 5.6.7); the two obsolete forms have died out.
fn date(text: &str) -> Option<Timestamp> {
    rfc2822::parse(text.trim()).ok().map(|date| date.timestamp())
}

/// The targets of `Link` fields (RFC 8288) with `rel="alternate"`, as they stand there.
pub(super) fn alternates(headers: &HeaderMap) -> Vec<String> {
    let fields = headers.get_all(LINK).iter().filter_map(|field| field.to_str().ok());
    let links = fields.flat_map(|field| field.split('<').skip(1));
    let of = |link: &str| {
        let (target, rest) = link.split_once('>')?;
        rest.split([';', ',']).any(is_alternate).then(|| target.trim().to_owned())
    };
    links.filter_map(of).take(MAX_LINKS).collect()
}

fn is_alternate(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut kinds = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && kinds.any(|kind| kind.eq_ignore_ascii_case("alternate"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[rstest]
    #[case("120", Some(120))]
    #[case(" 0 ", Some(0))]
    #[case("18446744073709551615", Some(604_800))]
    #[case("99999999999999999999999999", Some(604_800))]
    #[case("Sun, 06 Nov 1994 08:51:37 GMT", Some(120))]
    #[case("Sun, 06 Nov 1994 08:00:00 GMT", Some(0))]
    #[case("Sun, 06 Nov 2094 08:00:00 GMT", None)]
    #[case("Sat, 06 Nov 2094 08:00:00 GMT", Some(604_800))]
    #[case("-5", None)]
    #[case("", None)]
    #[case("soon", None)]
    fn when_to_come_back(#[case] value: &str, #[case] secs: Option<u64>) {
        let headers = headers(&[("retry-after", value), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(retry_after(&headers), secs.map(Duration::from_secs));
    }

    #[test]
    fn a_date_without_a_date_to_count_from_says_nothing() {
        assert_eq!(retry_after(&headers(&[("retry-after", "Sun, 06 Nov 1994 08:51:37 GMT")])), None);
    }

    #[rstest]
    #[case(&["<https://ca.example/a>;rel=\"alternate\""], &["https://ca.example/a"])]
    #[case(&["<https://ca.example/dir>;rel=\"index\", </a>; REL=alternate"], &["/a"])]
    #[case(&["</a,b>;rel=\"alternate\"", "</c>; title=x; rel=\"next alternate\""], &["/a,b", "/c"])]
    #[case(&["</a;rel=\"alternate\"", "alternate", "</b>;rel=\"up\"", "</c>"], &[])]
    fn what_else_there_is(#[case] fields: &[&str], #[case] targets: &[&str]) {
        let headers = headers(&fields.iter().map(|field| ("link", *field)).collect::<Vec<_>>());
        assert_eq!(alternates(&headers), targets);
    }
}
