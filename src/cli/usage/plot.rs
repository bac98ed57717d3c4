//! A day's course in a few lines of text.

use jiff::tz::TimeZone;

use crate::cli::text;
use crate::meter::Bucket;
use crate::usage::{Day, Series, qps};

/// How fine a column can be, in buckets: a quarter of an hour, unless that is too wide.
const STEPS: [i64; 5] = [90, 180, 360, 720, 1440];
/// Lines of the plot.
const ROWS: u64 = 5;
/// An eighth of a line, two eighths...
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Hours of the axis are at least so many columns apart.
const LABELS_APART: i64 = 6;
/// Hours between two that are named.
const LABELLED_HOURS: [i8; 4] = [1, 2, 3, 6];
const HOUR_BUCKETS: i64 = 360;
/// A limit that is more than so many times the peak would leave nothing of the course to see.
const LIMIT_FACTOR_MAX: u64 = 3;

/// The highest QPS of each column of `day`, at most `width` characters wide.
pub(super) fn plot(day: Day, zone: &TimeZone, series: &Series, limit_qps: Option<u32>, width: usize) -> String {
    let peak = series.range(day.start..day.end).map(|(_, count)| *count).max().unwrap_or_default().max(1);
    // Ten seconds at the limit.
    let limit = limit_qps.map(|limit| u64::from(limit) * 10);
    let shown_limit = limit.filter(|limit| *limit > 0 && *limit <= peak.saturating_mul(LIMIT_FACTOR_MAX));
    let top = peak.max(shown_limit.unwrap_or_default());
    let top_label = text::qps(qps(top));
    let limit_label = shown_limit.map_or_else(String::new, |limit| format!(" limit {}", text::thousands(limit / 10)));
    let margin = top_label.len() + 2;

    let step = step(day, width.saturating_sub(margin + limit_label.len()));
    let columns = columns(day, series, step);
    let height = |count: u64| scaled(count, top);
    let limit_row = shown_limit.map(|limit| (height(limit).saturating_sub(1)) / 8);
    let mut lines = vec![format!("{}, the highest QPS in every {}", day.date, in_words(step))];
    for row in (0..ROWS).rev() {
        let label = if row + 1 == ROWS { top_label.as_str() } else { "" };
        let empty = if limit_row == Some(row) { '╌' } else { ' ' };
        let cells: String = columns.iter().map(|count| cell(height(*count), row).unwrap_or(empty)).collect();
        let mark = if limit_row == Some(row) { limit_label.as_str() } else { "" };
        lines.push(format!("{label:>width$} │{cells}{mark}", width = margin - 2));
    }
    let hours = labelled_hours(day, zone, step, columns.len());
    let tick = |column: usize| if hours.iter().any(|(at, _)| *at == column) { '┴' } else { '─' };
    let axis: String = (0..columns.len()).map(tick).collect();
    lines.push(format!("{:>width$} └{axis}", "0", width = margin - 2));
    let mut labels = " ".repeat(margin);
    for (column, hour) in hours {
        let gap = (margin + column).saturating_sub(labels.chars().count());
        labels += &format!("{}{hour:02}", " ".repeat(gap));
    }
    lines.push(labels);
    let mut text = String::new();
    for line in lines {
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// How long a column is.
fn in_words(step: i64) -> &'static str {
    match step {
        90 => "quarter of an hour",
        180 => "half hour",
        360 => "hour",
        720 => "two hours",
        _ => "four hours",
    }
}

fn step(day: Day, columns_max: usize) -> i64 {
    let fits = |step: &&i64| usize::try_from(count_columns(day, **step)).is_ok_and(|columns| columns <= columns_max);
    STEPS.iter().find(fits).or(STEPS.last()).copied().unwrap_or(HOUR_BUCKETS)
}

fn count_columns(day: Day, step: i64) -> i64 {
    day.end.0.saturating_sub(day.start.0).saturating_add(step - 1) / step
}

/// Each column's highest count.
fn columns(day: Day, series: &Series, step: i64) -> Vec<u64> {
    let start = |column: i64| Bucket(day.start.0.saturating_add(column.saturating_mul(step)));
    let highest = |column| series.range(start(column)..start(column + 1).min(day.end)).map(|(_, n)| *n).max();
    (0..count_columns(day, step)).map(|column| highest(column).unwrap_or_default()).collect()
}

/// In eighths of a line; whatever is not nothing shows.
fn scaled(count: u64, top: u64) -> u64 {
    let eighths = u128::from(count) * u128::from(ROWS * 8);
    u64::try_from(eighths.div_ceil(u128::from(top.max(1)))).unwrap_or(ROWS * 8)
}

fn cell(height: u64, row: u64) -> Option<char> {
    let filled = usize::try_from(height.saturating_sub(row * 8).min(8)).ok()?;
    BLOCKS.get(filled.checked_sub(1)?).copied()
}

/// Columns that begin with an hour, and the hour as the zone's clocks show it.
fn labelled_hours(day: Day, zone: &TimeZone, step: i64, columns: usize) -> Vec<(usize, i8)> {
    let apart = |hours: &i8| i64::from(*hours) * HOUR_BUCKETS / step >= LABELS_APART;
    let every = LABELLED_HOURS.into_iter().find(apart).unwrap_or(6);
    let mut named = Vec::new();
    for column in 0..columns {
        let offset = i64::try_from(column).unwrap_or_default().saturating_mul(step);
        let at = Bucket(day.start.0.saturating_add(offset)).start();
        let Ok(at) = jiff::Timestamp::from_second(at.secs()) else { continue };
        let at = at.to_zoned_datetime(zone.clone());
        // An hour that the clocks show twice is named once.
        let is_new = named.last().is_none_or(|(_, hour)| *hour != at.hour());
        if at.minute() == 0 && at.hour() % every == 0 && is_new {
            named.push((column, at.hour()));
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Calendar;

    fn day(zone: &TimeZone, date: &str) -> Day {
        Calendar::new(zone.clone()).day(date.parse().unwrap()).unwrap()
    }

    /// A bump around noon, and a spike in the evening.
    fn counts(day: Day) -> Series {
        let bump = |i: i64| (100 - (i - 4320).abs() / 30).max(0).unsigned_abs();
        let mut series: Series = (0..8640).map(|i| (Bucket(day.start.0 + i), bump(i))).collect();
        series.insert(Bucket(day.start.0 + 7205), 132);
        series.retain(|_, count| *count > 0);
        series
    }

    #[test]
    fn a_day_with_a_limit() {
        let day = day(&TimeZone::UTC, "2026-06-01");
        insta::assert_snapshot!(plot(day, &TimeZone::UTC, &counts(day), Some(10), 120));
    }

    #[test]
    fn a_narrow_terminal_has_fewer_columns() {
        let day = day(&TimeZone::UTC, "2026-06-01");
        insta::assert_snapshot!(plot(day, &TimeZone::UTC, &counts(day), Some(10), 80));
        insta::assert_snapshot!(plot(day, &TimeZone::UTC, &counts(day), None, 10));
    }

    #[test]
    fn a_limit_far_away_is_left_out() {
        let day = day(&TimeZone::UTC, "2026-06-01");
        let few = Series::from([(Bucket(day.start.0), 1), (Bucket(day.end.0 - 1), 8)]);
        insta::assert_snapshot!(plot(day, &TimeZone::UTC, &few, Some(100), 120));
    }

    #[test]
    fn days_on_which_the_clocks_change() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for date in ["2026-03-29", "2026-10-25"] {
            let day = day(&berlin, date);
            insta::assert_snapshot!(plot(day, &berlin, &counts(day), None, 120));
        }
    }
}
