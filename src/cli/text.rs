//! How numbers, moments and tables are written for people, and moments for scripts.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::UnixTime;

/// `1,234,567`
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// QPS to one decimal, which is all there is of it.
pub(super) fn qps(qps: f64) -> String {
    let tenths = (qps * 10.0).round() as u64;
    format!("{}.{}", thousands(tenths / 10), tenths % 10)
}

/// `2h 5m`; nothing if there is none.
pub(super) fn duration(secs: u64) -> String {
    let parts = [(secs / 3600, "h"), (secs / 60 % 60, "m"), (secs % 60, "s")];
    let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    parts.join(" ")
}

/// A file's name for a terminal, which obeys control characters.
pub(super) fn file(path: &Path) -> String {
    path.display().to_string().replace(char::is_control, "\u{fffd}")
}

/// `1 record`, `2 records`.
pub(super) fn counted(n: usize, one: &str) -> String {
    format!("{} {one}{}", thousands(n as u64), if n == 1 { "" } else { "s" })
}

/// What the clocks of `zone` show then; far outside the calendar, as [`UnixTime`] is written.
pub(super) fn local(at: UnixTime, zone: &TimeZone, format: &str) -> String {
    match Timestamp::from_second(at.secs()) {
        Ok(t) => t.to_zoned_datetime(zone.clone()).strftime(format).to_string(),
        Err(_) => at.to_string(),
    }
}

/// RFC 3339 with the zone's offset.
pub(super) fn rfc3339(at: UnixTime, zone: &TimeZone) -> String {
    local(at, zone, "%Y-%m-%dT%H:%M:%S%:z")
}

/// Which edge a column's entries keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Left,
    Right,
}

/// Columns as wide as what stands in them, two spaces apart.
pub(super) fn table<const N: usize>(columns: [(&str, Edge); N], rows: &[[String; N]]) -> String {
    let mut widths = columns.map(|(title, _)| title.chars().count());
    for row in rows {
        for (width, entry) in widths.iter_mut().zip(row) {
            *width = entry.chars().count().max(*width);
        }
    }
    let titles = columns.map(|(title, _)| title.to_owned());
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for ((entry, width), (_, edge)) in row.iter().zip(widths).zip(columns) {
            match edge {
                Edge::Left => line += &format!("{entry:<width$}  "),
                Edge::Right => line += &format!("{entry:>width$}  "),
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn numbers() {
        assert_eq!([0, 999, 1_000, 123_456, 1_234_567].map(thousands), ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!([0.0, 1.0, 11.5, 12_345.6].map(qps), ["0.0", "1.0", "11.5", "12,345.6"]);
        assert_eq!([0, 1, 2].map(|n| counted(n, "flaw")), ["0 flaws", "1 flaw", "2 flaws"]);
    }

    #[rstest]
    #[case(0, "")]
    #[case(10, "10s")]
    #[case(3600, "1h")]
    #[case(3670, "1h 1m 10s")]
    #[case(90_000, "25h")]
    fn durations(#[case] secs: u64, #[case] text: &str) {
        assert_eq!(duration(secs), text);
    }

    #[test]
    fn moments() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(rfc3339(UnixTime::from_secs(1_780_308_000), &berlin), "2026-06-01T12:00:00+02:00");
        assert_eq!(rfc3339(UnixTime::from_secs(1 << 50), &berlin), "@1125899906842624");
    }

    #[test]
    fn a_table() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long name".to_owned(), "1,000".to_owned()]];
        insta::assert_snapshot!(table([("name", Edge::Left), ("count", Edge::Right)], &rows));
    }
}
