//! The times that access logs write.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

use crate::clock::UnixTime;

/// Length of `10/Oct/2000:13:55:36 -0700`.
pub const COMMON_BYTES: usize = 26;
/// Length of `2026-06-01T12:00:00`.
const CIVIL_BYTES: usize = 19;

/// Reads times. Remembers the last one of each kind, because the next line's is nearly always the same.
#[derive(Debug, Default)]
pub struct Stamps {
    common: Option<([u8; COMMON_BYTES], i64)>,
    civil: Option<([u8; CIVIL_BYTES], i64)>,
}

impl Stamps {
    /// `10/Oct/2000:13:55:36 -0700`, as between the brackets of the common log format.
    pub fn common(&mut self, text: &[u8; COMMON_BYTES]) -> Option<UnixTime> {
        let secs = match &self.common {
            Some((last, secs)) if last == text => *secs,
            _ => {
                let secs = common(text)?;
                self.common = Some((*text, secs));
                secs
            }
        };
        Some(UnixTime::from_secs(secs))
    }

    /// `2026-06-01T12:00:00.123Z` (RFC 3339), also with an offset with or without colon (ISO 8601).
    pub fn rfc_3339(&mut self, text: &[u8]) -> Option<UnixTime> {
        let (civil, rest) = text.split_first_chunk::<CIVIL_BYTES>()?;
        let as_utc = match &self.civil {
            Some((last, secs)) if last == civil => *secs,
            _ => {
                let secs = civil_secs(civil)?;
                self.civil = Some((*civil, secs));
                secs
            }
        };
        let (fraction, zone) = match rest.split_first() {
            Some((b'.', rest)) => rest.split_at(rest.iter().take_while(|b| b.is_ascii_digit()).count()),
            _ => (&[][..], rest),
        };
        let ms = fraction.iter().chain(b"000").take(3).fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0'));
        let offset = match *zone {
            [b'Z' | b'z'] => 0,
            [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => offset(sign, [h1, h2, m1, m2])?,
            _ => return None,
        };
        Some(UnixTime::from_ms((as_utc - offset) * 1000 + ms))
    }
}

fn common(text: &[u8; COMMON_BYTES]) -> Option<i64> {
    let [d1, d2, b'/', n1, n2, n3, b'/', y1, y2, y3, y4, b':', rest @ ..] = text else { return None };
    let [h1, h2, b':', m1, m2, b':', s1, s2, b' ', sign, zone @ ..] = rest else { return None };
    let month = match &[*n1, *n2, *n3] {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    let date = Date::new(year([*y1, *y2, *y3, *y4])?, month, two(*d1, *d2)?).ok()?;
    Some(utc_secs(date, [*h1, *h2, *m1, *m2, *s1, *s2])? - offset(*sign, *zone)?)
}

fn civil_secs(text: &[u8; CIVIL_BYTES]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', n1, n2, b'-', d1, d2, b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2] = text
    else {
        return None;
    };
    let date = Date::new(year([*y1, *y2, *y3, *y4])?, two(*n1, *n2)?, two(*d1, *d2)?).ok()?;
    utc_secs(date, [*h1, *h2, *m1, *m2, *s1, *s2])
}

fn utc_secs(date: Date, [h1, h2, m1, m2, s1, s2]: [u8; 6]) -> Option<i64> {
    // A leap second belongs to the second before it, as in Unix time.
    let time = Time::new(two(h1, h2)?, two(m1, m2)?, two(s1, s2).map(|s| if s == 60 { 59 } else { s })?, 0).ok()?;
    Some(Offset::UTC.to_timestamp(DateTime::from_parts(date, time)).ok()?.as_second())
}

/// Seconds east of Greenwich.
fn offset(sign: u8, [h1, h2, m1, m2]: [u8; 4]) -> Option<i64> {
    let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
    let secs = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Some(secs),
        b'-' => Some(-secs),
        _ => None,
    }
}

fn year([y1, y2, y3, y4]: [u8; 4]) -> Option<i16> {
    Some(i16::from(two(y1, y2)?) * 100 + i16::from(two(y3, y4)?))
}

fn two(tens: u8, ones: u8) -> Option<i8> {
    let digit = |b: u8| b.is_ascii_digit().then_some((b & 0x0f).cast_signed());
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn common(text: &str) -> Option<String> {
        Stamps::default().common(text.as_bytes().try_into().unwrap()).map(|at| at.to_string())
    }

    #[rstest]
    #[case("10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36Z")]
    #[case("01/Jun/2026:00:00:00 +0000", "2026-06-01T00:00:00Z")]
    #[case("29/Feb/2024:23:59:59 +0530", "2024-02-29T18:29:59Z")]
    #[case("31/Dec/2025:23:30:00 -0330", "2026-01-01T03:00:00Z")]
    #[case("31/Dec/2016:23:59:60 +0000", "2016-12-31T23:59:59Z")]
    #[case("31/Dec/1969:23:59:59 +0000", "1969-12-31T23:59:59Z")]
    fn common_times_are_read(#[case] text: &str, #[case] at: &str) {
        assert_eq!(common(text).as_deref(), Some(at));
    }

    #[rstest]
    #[case("29/Feb/2023:00:00:00 +0000")]
    #[case("00/Jan/2023:00:00:00 +0000")]
    #[case("10/Okt/2000:13:55:36 +0200")]
    #[case("10/Oct/2000:24:00:00 +0200")]
    #[case("10/Oct/2000:13:61:36 +0200")]
    #[case("10/Oct/2000:13:55:36 *0200")]
    #[case("10/Oct/2000:13:55:36 +0260")]
    #[case("1x/Oct/2000:13:55:36 +0200")]
    fn what_is_no_time_is_not(#[case] text: &str) {
        assert_eq!(common(text), None);
    }

    #[rstest]
    #[case("2026-06-01T12:00:00Z", Some(1_780_315_200_000))]
    #[case("2026-06-01T12:00:00.1Z", Some(1_780_315_200_100))]
    #[case("2026-06-01T12:00:00.123999Z", Some(1_780_315_200_123))]
    #[case("2026-06-01T20:00:00.123+08:00", Some(1_780_315_200_123))]
    #[case("2026-06-01T08:30:00.000-0330", Some(1_780_315_200_000))]
    #[case("2026-06-01 12:00:00Z", Some(1_780_315_200_000))]
    #[case("2026-06-01T12:00:00", None)]
    #[case("2026-06-31T12:00:00Z", None)]
    #[case("2026/06/01 12:00:00", None)]
    #[case("", None)]
    fn rfc_3339_is_read(#[case] text: &str, #[case] ms: Option<i64>) {
        assert_eq!(Stamps::default().rfc_3339(text.as_bytes()).map(UnixTime::ms), ms);
    }

    proptest! {
        /// Against jiff, with what is remembered of the time before.
        #[test]
        fn both_agree_with_jiff(times in prop::collection::vec((-10_000_000_000i64..90_000_000_000, -86_000i32..86_000), 1..5)) {
            let mut stamps = Stamps::default();
            for (secs, offset) in times {
                let zone = jiff::tz::TimeZone::fixed(Offset::from_seconds(offset / 60 * 60).unwrap());
                let at = jiff::Timestamp::from_second(secs).unwrap().to_zoned_datetime(zone);
                let text = at.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
                prop_assert_eq!(stamps.common(text.as_bytes().try_into().unwrap()), Some(UnixTime::from_secs(secs)));
                let text = at.strftime("%Y-%m-%dT%H:%M:%S.25%:z").to_string();
                prop_assert_eq!(stamps.rfc_3339(text.as_bytes()), Some(UnixTime::from_ms(secs * 1000 + 250)));
            }
        }
    }
}
