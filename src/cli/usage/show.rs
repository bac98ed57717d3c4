//! `lockgate usage show`

use std::io::{IsTerminal as _, Write as _};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::around::Around;
use super::days::{DayShown, View};
use super::plot::plot;
use super::range::Range;
use super::{print_json, stdout};
use crate::cli::books::{Books, Place, Unsealed, parse_names};
use crate::cli::failure::Failure;
use crate::cli::text::{self, Edge};
use crate::meter::Bucket;
use crate::usage::{Calendar, Series};

/// Days shown of a domain, unless told otherwise.
const USUAL_DAYS: i64 = 30;
/// Columns of a plot that nobody told how wide the screen is: a day in quarters of an hour, and what stands beside it.
const USUAL_WIDTH: usize = 120;

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// Show these domains day by day; without any, all domains on one day
    #[arg(value_name = "DOMAIN")]
    domains: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    range: Range,
    /// Without a domain: show so many, those with the highest peaks
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "domains")]
    top: usize,
    #[command(flatten)]
    around: Around,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of a domain in a range of days.
pub(super) struct Known {
    pub(super) name: Arc<str>,
    pub(super) days: Vec<DayShown>,
    pub(super) series: Series,
}

impl Show {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let names = parse_names(&self.domains)?;
        let (books, unsealed) = self.place.open_all().await?;
        let (now, mut calendar) = (books.now, Calendar::new(books.zone.clone()));
        let today = calendar.today(now).date;
        let mut view = View { calendar, now };
        if names.is_empty() {
            let dates = self.range.last_days(today, 1)?;
            self.around.require_one_domain(&names)?;
            if dates.start() != dates.end() {
                return Err(Failure::Usage(
                    "all domains are shown of one day: write --date DATE, or name a domain".to_owned(),
                ));
            }
            return super::overview::show(&books, &unsealed, &mut view, *dates.end(), self.top, self.json).await;
        }
        self.around.require_one_domain(&names)?;
        let dates = self.range.last_days(today, USUAL_DAYS)?;
        let known = known_names(&books, &unsealed, &names).await?;
        let mut shown = Vec::new();
        for name in known {
            shown.push(find_days(&books, &unsealed, &mut view, name, &dates).await?);
        }
        if self.around.is_asked()
            && let Some(known) = shown.first()
        {
            return self.around.show(&books, &unsealed, &mut view, known, *dates.end(), self.json).await;
        }
        if self.json {
            let domains: Vec<_> = shown.iter().map(|known| domain_json(&books, &known.name, &known.days)).collect();
            print_json(&json!({ "domains": domains }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = stdout();
        for (i, known) in shown.iter().enumerate() {
            let gap = if i > 0 { "\n" } else { "" };
            write!(out, "{gap}{}", domain_text(&mut view, known, &dates, width()))?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Those names, if something is known of each.
async fn known_names(books: &Books, unsealed: &Unsealed, names: &[Arc<str>]) -> Result<Vec<Arc<str>>, Failure> {
    let known = books.names(unsealed).await?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name)) {
        return Err(books.unknown(unknown, &known.into_iter().collect::<Vec<_>>()));
    }
    Ok(names.to_vec())
}

async fn find_days(
    books: &Books,
    unsealed: &Unsealed,
    view: &mut View,
    name: Arc<str>,
    dates: &RangeInclusive<Date>,
) -> Result<Known, Failure> {
    let first = view.calendar.day(*dates.start()).map_or(Bucket(i64::MIN), |day| day.start);
    let after = view.calendar.day(*dates.end()).map_or(Bucket(i64::MAX), |day| day.end);
    let series = books.series(unsealed, &name, first..after).await?;
    let chain = match &books.store {
        Some(store) => store.chain(&name).await?,
        None => None,
    };
    let records = chain.iter().flat_map(|chain| &chain.records);
    let days = view.days(dates, records, &series, unsealed.state(&name));
    Ok(Known { name, days, series })
}

/// A domain's days for scripts.
pub(super) fn domain_json(books: &Books, name: &str, days: &[DayShown]) -> Value {
    let days: Vec<_> = days.iter().map(DayShown::json).collect();
    json!({ "domain": name, "zone": books.zone.iana_name().unwrap_or("UTC"), "days": days })
}

fn domain_text(view: &mut View, known: &Known, dates: &RangeInclusive<Date>, width: usize) -> String {
    let Known { name, days, series } = known;
    let zone = view.calendar.zone().clone();
    let zone_name = zone.iana_name().unwrap_or("UTC");
    let (first, last) = (dates.start(), dates.end());
    let between = if first == last { format!("on {first}") } else { format!("from {first} to {last}") };
    if days.is_empty() {
        return format!("{name}: no requests {between} ({zone_name})\n");
    }
    let rows: Vec<_> = days.iter().map(|day| day_row(day, zone_name)).collect();
    let columns = [
        ("date", Edge::Left),
        ("requests", Edge::Right),
        ("peak QPS", Edge::Right),
        ("at", Edge::Left),
        ("limit", Edge::Right),
        ("throttled", Edge::Right),
        ("record", Edge::Left),
    ];
    let mut text = format!("{name} {between} ({zone_name})\n\n{}", text::table(columns, &rows));
    let limit = days.iter().rfind(|day| day.facts.date == *last).and_then(|day| day.facts.limit_qps);
    if let Some(day) = view.calendar.day(*last)
        && series.range(day.start..day.end).next().is_some()
    {
        text += &format!("\n{}", plot(day, &zone, series, limit, width));
    }
    text
}

fn day_row(day: &DayShown, zone_name: &str) -> [String; 7] {
    let facts = &day.facts;
    let record = match day.seal {
        Some(seal) if seal.amends => format!("{}, amended", seal.record),
        Some(seal) => seal.record.to_string(),
        None => "open".to_owned(),
    };
    let date = match facts.zone == zone_name {
        true => facts.date.to_string(),
        false => format!("{} {}", facts.date, facts.zone),
    };
    [
        date,
        text::thousands(facts.requests),
        text::qps(facts.peak_qps()),
        day.peak_time(),
        day.limit(),
        text::duration(facts.throttled_secs),
        record,
    ]
}

/// How wide the terminal is.
fn width() -> usize {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return USUAL_WIDTH;
    }
    match rustix::termios::tcgetwinsize(&stdout) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => USUAL_WIDTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::usage::{DayFacts, DayRecord, Link};
    use jiff::tz::TimeZone;

    #[test]
    fn a_domain_as_people_read_it() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let mut calendar = Calendar::new(zone);
        let last = calendar.day("2026-06-03".parse().unwrap()).unwrap();
        let mut view = View { calendar, now: last.start.start().plus_secs(13 * 3600) };
        let mut head = Link::GENESIS;
        let mut records = Vec::new();
        for (date, zone, requests, limit) in [
            ("2026-06-01", "UTC", 86_400, None),
            ("2026-06-02", "Asia/Shanghai", 7, Some(10)),
            ("2026-06-02", "Asia/Shanghai", 1_234_567, Some(1_000)),
        ] {
            let facts = DayFacts {
                date: date.parse().unwrap(),
                zone: zone.to_owned(),
                limit_qps: limit,
                peak_count: requests / 100 + 1,
                peak_at: Bucket::of(UnixTime::from_secs(1_780_308_000)),
                requests,
                throttled_secs: requests / 1_000 * 10,
            };
            let record = DayRecord::seal("www.example.com".into(), facts, &head);
            head = record.link();
            records.push(record);
        }
        let series: Series = (0..1_000).map(|i| (Bucket(last.start.0 + 3_000 + i), 50 + (i as u64 % 10))).collect();
        let dates = "2026-06-01".parse().unwrap()..=last.date;
        let days = view.days(&dates, &records, &series, None);
        let mut known = Known { name: "www.example.com".into(), days, series };
        insta::assert_snapshot!(domain_text(&mut view, &known, &dates, USUAL_WIDTH));
        known.days.clear();
        insta::assert_snapshot!(domain_text(&mut view, &known, &dates, USUAL_WIDTH));
    }
}
