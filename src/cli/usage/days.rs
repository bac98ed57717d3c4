//! The days of a domain: those that were sealed as their records say, the others added up from what was counted.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::cli::text;
use crate::clock::UnixTime;
use crate::meter::Bucket;
use crate::usage::{Calendar, Day, DayFacts, DayRecord, Hash, Series, Totals, Usage};

/// A day as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DayShown {
    pub(super) facts: DayFacts,
    /// The record that holds; `None` before the day is sealed.
    pub(super) seal: Option<Sealed>,
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) record: u64,
    pub(super) hash: Hash,
    /// It amends an earlier one of the same day.
    pub(super) amends: bool,
}

/// Who looks at the days, and when.
#[derive(Debug)]
pub(super) struct View {
    pub(super) calendar: Calendar,
    pub(super) now: UnixTime,
}

impl DayShown {
    /// The zone whose day it is.
    pub(super) fn zone(&self) -> TimeZone {
        TimeZone::get(&self.facts.zone).unwrap_or(TimeZone::UTC)
    }

    /// The local time at which the day's highest bucket began.
    pub(super) fn peak_time(&self) -> String {
        text::local(self.facts.peak_at.start(), &self.zone(), "%H:%M:%S")
    }

    /// The limit as written in a table.
    pub(super) fn limit(&self) -> String {
        self.facts.limit_qps.map_or_else(|| "-".to_owned(), |limit| text::thousands(limit.into()))
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        let facts = &self.facts;
        json!({
            "date": facts.date,
            "zone": facts.zone,
            "requests": facts.requests,
            "peak_qps": facts.peak_qps(),
            "peak_at": text::rfc3339(facts.peak_at.start(), &self.zone()),
            "limit_qps": facts.limit_qps,
            "throttled_secs": facts.throttled_secs,
            "sealed": self.seal.is_some(),
            "amended": self.seal.is_some_and(|seal| seal.amends),
            "record": self.seal.map(|seal| seal.record),
            "hash": self.seal.map(|seal| seal.hash.to_string()),
        })
    }
}

impl View {
    /// The days of `dates` on which there were requests, in order: from the domain's records, its counts, and what a
    /// start would go on with.
    ///
    /// A day that is over and was sealed is what its last record says; under another zone's midnights it is another day.
    pub(super) fn days<'r>(
        &mut self,
        dates: &RangeInclusive<Date>,
        records: impl IntoIterator<Item = &'r DayRecord>,
        series: &Series,
        state: Option<&Usage>,
    ) -> Vec<DayShown> {
        let mut days = BTreeMap::<(Date, String), DayShown>::new();
        for record in records.into_iter().filter(|record| dates.contains(&record.facts.date)) {
            let key = (record.facts.date, record.facts.zone.clone());
            let seal = Sealed { record: record.seq, hash: record.hash, amends: days.contains_key(&key) };
            days.insert(key, DayShown { facts: record.facts.clone(), seal: Some(seal) });
        }
        for (day, totals) in self.add_up(series) {
            let is_waiting = state.is_some_and(|state| state.unsealed(day).is_some());
            let zone = self.zone_name();
            let is_over = day.end <= Bucket::of(self.now);
            // A record of another zone covers the day, too, unless this one is known to wait for its own.
            let is_sealed = match is_waiting {
                true => days.contains_key(&(day.date, zone.clone())),
                false => days.keys().any(|(date, _)| *date == day.date),
            };
            if dates.contains(&day.date)
                && !(is_over && is_sealed)
                && let Some(facts) = self.facts_so_far(day, &totals, &zone, state)
            {
                days.insert((day.date, zone), DayShown { facts, seal: None });
            }
        }
        days.into_values().collect()
    }

    fn add_up(&mut self, series: &Series) -> Vec<(Day, Totals)> {
        let mut days = Vec::<(Day, Totals)>::new();
        for (bucket, count) in series.iter().filter(|(_, count)| **count > 0) {
            match days.last_mut().filter(|(day, _)| day.contains(*bucket)) {
                Some((_, totals)) => totals.add(*bucket, *count),
                None => {
                    let mut totals = Totals::default();
                    totals.add(*bucket, *count);
                    days.push((self.calendar.day_of(*bucket), totals));
                }
            }
        }
        days
    }

    fn facts_so_far(&self, day: Day, totals: &Totals, zone: &str, state: Option<&Usage>) -> Option<DayFacts> {
        let (peak_at, peak_count) = totals.peak?;
        // A verdict is noted with its end, which is still to come.
        let until_now = Bucket(Bucket::of(self.now).0.saturating_add(1)).min(day.end);
        Some(DayFacts {
            date: day.date,
            zone: zone.to_owned(),
            limit_qps: state.and_then(|state| state.unsealed(day)?.limit_qps),
            peak_count,
            peak_at,
            requests: totals.requests,
            throttled_secs: state.map_or(0, |state| state.held_secs(Day { end: until_now, ..day })),
        })
    }

    fn zone_name(&self) -> String {
        self.calendar.zone().iana_name().unwrap_or("UTC").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Reading;
    use crate::plan::Plan;
    use crate::usage::Link;
    use jiff::civil::date;

    fn bucket(at: &str) -> Bucket {
        let at: jiff::Timestamp = at.parse().unwrap();
        Bucket::of(UnixTime::from_secs(at.as_second()))
    }

    fn view(zone: &str, now: &str) -> View {
        View { calendar: Calendar::new(TimeZone::get(zone).unwrap()), now: bucket(now).start() }
    }

    fn series(counts: &[(&str, u64)]) -> Series {
        counts.iter().map(|(at, count)| (bucket(at), *count)).collect()
    }

    fn record(on: Date, zone: &str, requests: u64, seq: u64) -> DayRecord {
        let facts = DayFacts {
            date: on,
            zone: zone.to_owned(),
            limit_qps: Some(10),
            peak_count: requests,
            peak_at: bucket(&format!("{on}T12:00:00Z")),
            requests,
            throttled_secs: 0,
        };
        DayRecord::seal("www.example.com".into(), facts, &Link { seq: seq - 1, hash: Link::GENESIS.hash })
    }

    /// Date, zone, requests, record.
    fn told(days: &[DayShown]) -> Vec<String> {
        let seal = |day: &DayShown| match day.seal {
            Some(Sealed { record, amends, .. }) => format!("{record}{}", if amends { " amended" } else { "" }),
            None => "open".to_owned(),
        };
        days.iter().map(|d| format!("{} {} {} {}", d.facts.date, d.facts.zone, d.facts.requests, seal(d))).collect()
    }

    const ALL: RangeInclusive<Date> = Date::MIN..=Date::MAX;

    #[test]
    fn the_last_record_of_a_day_holds_and_what_has_none_is_added_up() {
        let records = [
            record(date(2026, 6, 1), "UTC", 5, 1),
            record(date(2026, 6, 2), "UTC", 6, 2),
            record(date(2026, 6, 1), "UTC", 7, 3),
        ];
        let counts = series(&[
            ("2026-06-01T12:00:00Z", 99),
            ("2026-06-03T00:00:00Z", 3),
            ("2026-06-03T23:59:50Z", 4),
            ("2026-06-04T00:00:00Z", 1),
        ]);
        let mut view = view("UTC", "2026-06-04T01:00:00Z");
        let days = view.days(&ALL, &records, &counts, None);
        let expected =
            ["2026-06-01 UTC 7 3 amended", "2026-06-02 UTC 6 2", "2026-06-03 UTC 7 open", "2026-06-04 UTC 1 open"];
        assert_eq!(told(&days), expected);
        let some = date(2026, 6, 2)..=date(2026, 6, 3);
        assert_eq!(told(&view.days(&some, &records, &counts, None)), expected[1..3]);
    }

    #[test]
    fn a_day_that_goes_on_again_after_the_clock_went_back_is_open() {
        let records = [record(date(2026, 6, 1), "UTC", 5, 1)];
        let counts = series(&[("2026-06-01T12:00:00Z", 9)]);
        let days = view("UTC", "2026-06-01T13:00:00Z").days(&ALL, &records, &counts, None);
        assert_eq!(told(&days), ["2026-06-01 UTC 9 open"]);
    }

    #[test]
    fn the_record_of_another_zone_covers_its_date_until_then() {
        let records = [record(date(2026, 6, 1), "Asia/Shanghai", 5, 1)];
        let counts = series(&[("2026-06-01T12:00:00Z", 5), ("2026-06-02T12:00:00Z", 2)]);
        let days = view("UTC", "2026-06-02T13:00:00Z").days(&ALL, &records, &counts, None);
        assert_eq!(told(&days), ["2026-06-01 Asia/Shanghai 5 1", "2026-06-02 UTC 2 open"]);
    }

    #[test]
    fn days_of_23_and_25_hours() {
        let counts = series(&[
            ("2026-03-28T22:59:50Z", 1),
            ("2026-03-28T23:00:00Z", 2),
            ("2026-03-29T21:59:50Z", 4),
            ("2026-03-29T22:00:00Z", 8),
            ("2026-10-24T22:00:00Z", 16),
            ("2026-10-25T22:59:50Z", 32),
            ("2026-10-25T23:00:00Z", 64),
        ]);
        let mut view = view("Europe/Berlin", "2026-12-01T00:00:00Z");
        let days = view.days(&ALL, &[], &counts, None);
        assert_eq!(
            told(&days),
            [
                "2026-03-28 Europe/Berlin 1 open",
                "2026-03-29 Europe/Berlin 6 open",
                "2026-03-30 Europe/Berlin 8 open",
                "2026-10-25 Europe/Berlin 48 open",
                "2026-10-26 Europe/Berlin 64 open",
            ]
        );
        assert_eq!(days[1].json()["peak_at"], "2026-03-29T23:59:50+02:00");
        assert_eq!(days[3].json()["peak_at"], "2026-10-25T23:59:50+01:00");
    }

    #[test]
    fn a_verdict_counts_until_now() {
        let plan = Plan::new("basic", 10);
        let (at, mut usage) = (bucket("2026-06-01T12:00:00Z"), Usage::default());
        let mut view = view("UTC", "2026-06-01T13:00:00Z");
        usage.add(at, 0, 115);
        usage.close(Reading { now: at.end(), pass: 0 }, Some(&plan), &mut view.calendar);
        let until = usage.throttled_until(at.end(), &plan).unwrap();
        usage.hold(at.end(), until);
        let days = view.days(&ALL, &[], &series(&[("2026-06-01T12:00:00Z", 115)]), Some(&usage));
        assert_eq!((days[0].facts.limit_qps, days[0].facts.throttled_secs), (Some(10), 3_600));
    }
}
