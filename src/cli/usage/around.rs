//! The 10-second counts around a peak.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use serde_json::json;

use super::days::View;
use super::show::Known;
use super::{print_json, stdout};
use crate::cli::books::{Books, Unsealed};
use crate::cli::failure::Failure;
use crate::cli::text;
use crate::clock::UnixTime;
use crate::meter::{BUCKET_SECS, Bucket};
use crate::usage::qps;

const HOUR_BUCKETS: i64 = 360;

#[derive(Debug, Args)]
pub(super) struct Around {
    /// Print a domain's 10-second counts around its highest peak, as CSV or with --json
    #[arg(long)]
    series: bool,
    /// With --series: around this time instead, as in `14:30`, `2026-06-01 14:30:10` or `2026-06-01T14:30:10+02:00`
    #[arg(long, value_name = "TIME", requires = "series")]
    around: Option<String>,
    /// With --series: so many hours before and after
    #[arg(long, value_name = "N", requires = "series", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=744))]
    hours: i64,
}

impl Around {
    pub(super) fn is_asked(&self) -> bool {
        self.series
    }

    /// Counts are one domain's.
    pub(super) fn require_one_domain(&self, names: &[Arc<str>]) -> Result<(), Failure> {
        match names {
            [_] => Ok(()),
            _ if self.series => Err(Failure::Usage("--series shows one domain: name it".to_owned())),
            _ => Ok(()),
        }
    }

    /// Shows the counts; times without a date are of `last`.
    pub(super) async fn show(
        &self,
        books: &Books,
        unsealed: &Unsealed,
        view: &mut View,
        known: &Known,
        last: Date,
        json: bool,
    ) -> Result<ExitCode, Failure> {
        let center = match &self.around {
            Some(text) => moment(text, last, &books.zone).map(Bucket::of)?,
            None => highest_peak(known)?,
        };
        let reach = self.hours.saturating_mul(HOUR_BUCKETS);
        let from = Bucket(center.0.saturating_sub(reach));
        // What is still to come has no counts, not even none.
        let now = Bucket(Bucket::of(view.now).0.saturating_add(1));
        let to = Bucket(center.0.saturating_add(reach).saturating_add(1)).min(now).max(from);
        let series = books.series(unsealed, &known.name, from..to).await?;
        let counts = (from.0..to.0).map(Bucket).map(|bucket| {
            let count = series.get(&bucket).copied().unwrap_or_default();
            (text::rfc3339(bucket.start(), &books.zone), count)
        });
        if json {
            let counts = counts.map(|(at, n)| json!({ "at": at, "requests": n, "qps": qps(n) }));
            print_json(&json!({
                "domain": known.name,
                "zone": books.zone.iana_name().unwrap_or("UTC"),
                "bucket_secs": BUCKET_SECS,
                "counts": counts.collect::<Vec<_>>(),
            }))?;
        } else {
            let mut out = stdout();
            writeln!(out, "at,requests,qps")?;
            for (at, n) in counts {
                writeln!(out, "{at},{n},{:.1}", qps(n))?;
            }
            out.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn highest_peak(known: &Known) -> Result<Bucket, Failure> {
    let highest = known.days.iter().map(|day| &day.facts).max_by_key(|f| (f.peak_count, std::cmp::Reverse(f.peak_at)));
    highest.map(|facts| facts.peak_at).ok_or_else(|| {
        Failure::Work(format!("{} had no requests on these days: name others with --from and --to", known.name))
    })
}

/// A time as a person writes it.
fn moment(text: &str, day: Date, zone: &TimeZone) -> Result<UnixTime, Failure> {
    let local = |at: DateTime| at.to_zoned_datetime(zone.clone()).ok().map(|at| at.timestamp());
    let at = text.parse::<Timestamp>().ok();
    let at = at.or_else(|| local(text.parse::<DateTime>().ok()?));
    // Last: jiff would take a time behind a date, too, and leave the date out.
    let at = at.or_else(|| local(text.parse::<Time>().ok()?.on(day.year(), day.month(), day.day())));
    at.map(|at| UnixTime::from_secs(at.as_second())).ok_or_else(|| {
        let examples = "`14:30`, `2026-06-01 14:30:10` or `2026-06-01T14:30:10+02:00`";
        Failure::Usage(format!("--around `{text}` is not a time: write it as in {examples}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("14:30", Some("2026-06-01T12:30:00Z"))]
    #[case("14:30:10", Some("2026-06-01T12:30:10Z"))]
    #[case("2026-06-02 14:30:10", Some("2026-06-02T12:30:10Z"))]
    #[case("2026-12-02T14:30", Some("2026-12-02T13:30:00Z"))]
    #[case("2026-06-01T14:30:10+08:00", Some("2026-06-01T06:30:10Z"))]
    #[case("2026-06-01T14:30:10Z", Some("2026-06-01T14:30:10Z"))]
    #[case("noon", None)]
    #[case("25:00", None)]
    fn moments(#[case] text: &str, #[case] at: Option<&str>) {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let read = moment(text, "2026-06-01".parse().unwrap(), &zone).ok();
        assert_eq!(read.map(|at| at.to_string()).as_deref(), at);
    }
}
