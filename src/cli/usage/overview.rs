//! All domains on one day.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::civil::Date;
use serde_json::json;

use super::days::{DayShown, View};
use super::show::domain_json;
use super::{print_json, stdout};
use crate::cli::books::{Books, Unsealed};
use crate::cli::failure::Failure;
use crate::cli::text::{self, Edge};
use crate::usage::{DayRecord, Series};

/// Shows the `top` domains of `date` with the highest peaks; as JSON all.
pub(super) async fn show(
    books: &Books,
    unsealed: &Unsealed,
    view: &mut View,
    date: Date,
    top: usize,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut days = find_days(books, unsealed, view, date).await?;
    if json {
        days.sort_by(|(a, _), (b, _)| a.cmp(b));
        let of_one = days.chunk_by(|(a, _), (b, _)| a == b).filter_map(|of_one| {
            let days: Vec<_> = of_one.iter().map(|(_, day)| day.clone()).collect();
            of_one.first().map(|(name, _)| domain_json(books, name, &days))
        });
        print_json(&json!({ "domains": of_one.collect::<Vec<_>>() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let zone = books.zone.iana_name().unwrap_or("UTC");
    let mut out = stdout();
    if days.is_empty() {
        match books.names(unsealed).await?.len() {
            0 => writeln!(out, "{}", books.nothing())?,
            n => writeln!(out, "no requests on {date} ({zone}); {} known", text::counted(n, "domain"))?,
        }
    } else {
        write!(out, "{}", render(&mut days, date, zone, top))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn find_days(
    books: &Books,
    unsealed: &Unsealed,
    view: &mut View,
    date: Date,
) -> Result<Vec<(Arc<str>, DayShown)>, Failure> {
    let mut all = HashMap::<Arc<str>, (Vec<DayRecord>, Series)>::new();
    if let Some(store) = &books.store {
        for record in store.records_of(date).await? {
            all.entry(Arc::clone(&record.domain)).or_default().0.push(record);
        }
    }
    if let Some(day) = view.calendar.day(date) {
        for (name, series) in books.series_of_all(unsealed, day.start..day.end).await? {
            all.entry(name).or_default().1 = series;
        }
    }
    let mut days = Vec::new();
    for (name, (records, series)) in all {
        let of_one = view.days(&(date..=date), &records, &series, unsealed.state(&name));
        days.extend(of_one.into_iter().map(|day| (Arc::clone(&name), day)));
    }
    Ok(days)
}

/// The table of one day; the highest peak first, of equals by name.
fn render(days: &mut [(Arc<str>, DayShown)], date: Date, zone: &str, top: usize) -> String {
    days.sort_by(|(a, one), (b, other)| other.facts.peak_count.cmp(&one.facts.peak_count).then_with(|| a.cmp(b)));
    let rows: Vec<_> = days.iter().take(top).map(|(name, day)| row(name, day, zone)).collect();
    let columns = [
        ("domain", Edge::Left),
        ("requests", Edge::Right),
        ("peak QPS", Edge::Right),
        ("at", Edge::Left),
        ("limit", Edge::Right),
        ("throttled", Edge::Right),
        ("", Edge::Left),
    ];
    let mut text = format!("{date} ({zone})\n\n{}", text::table(columns, &rows));
    let more = days.len().saturating_sub(top);
    if more > 0 {
        text += &format!("\nand {} more: see them with --top {}\n", text::thousands(more as u64), days.len());
    }
    text
}

fn row(name: &str, day: &DayShown, zone: &str) -> [String; 7] {
    let facts = &day.facts;
    let mut state = if day.seal.is_some() { "sealed" } else { "so far" }.to_owned();
    if facts.zone != zone {
        state += &format!(", {}", facts.zone);
    }
    [
        name.to_owned(),
        text::thousands(facts.requests),
        text::qps(facts.peak_qps()),
        day.peak_time(),
        day.limit(),
        text::duration(facts.throttled_secs),
        state,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::usage::days::Sealed;
    use crate::meter::Bucket;
    use crate::usage::{DayFacts, Hash};

    #[test]
    fn the_busiest_come_first() {
        let date: Date = "2026-06-01".parse().unwrap();
        let day = |name: &str, requests: u64, peak_count: u64, limit_qps: Option<u32>, is_sealed: bool| {
            let facts = DayFacts {
                date,
                zone: "UTC".to_owned(),
                limit_qps,
                peak_count,
                peak_at: Bucket(178_030_800 + requests.cast_signed() % 100),
                requests,
                throttled_secs: if peak_count > 110 { 3_600 } else { 0 },
            };
            let seal = is_sealed.then_some(Sealed { record: 1, hash: Hash([0; 32]), amends: false });
            (Arc::from(name), DayShown { facts, seal })
        };
        let mut days = [
            day("quiet.example", 3, 2, None, true),
            day("www.example.com", 1_234_567, 12_345, Some(1_000), false),
            day("*.example.com", 500, 115, Some(10), true),
            day("a.example", 500, 115, Some(10), true),
        ];
        insta::assert_snapshot!(render(&mut days, date, "UTC", 3));
    }
}
