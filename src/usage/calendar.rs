//! Days: whose midnight is when.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, civil};
use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::meter::Bucket;

/// One day of a zone, as the buckets that begin in it: 8,640 of them, or an hour's fewer or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Day {
    /// The bucket of midnight.
    pub start: Bucket,
    /// The first bucket of the next day.
    pub end: Bucket,
    /// What the zone calls it.
    pub date: civil::Date,
}

impl Day {
    /// Whether `bucket` begins in it.
    pub fn contains(&self, bucket: Bucket) -> bool {
        self.start <= bucket && bucket < self.end
    }
}

/// A zone's days. Remembers the last one asked for, because it is nearly always the next one asked for.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    last: Option<Day>,
}

impl Calendar {
    /// The days of `zone`.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, last: None }
    }

    /// Whose days these are.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The day that `bucket` begins in.
    pub fn day_of(&mut self, bucket: Bucket) -> Day {
        match self.last {
            Some(day) if day.contains(bucket) => day,
            _ => {
                let day = self.find(bucket).unwrap_or_else(|| utc_day(bucket));
                self.last = Some(day);
                day
            }
        }
    }

    /// The day that the zone calls `date`. `None` if the zone has no such day, or nobody will see it.
    pub fn day(&mut self, date: civil::Date) -> Option<Day> {
        let start = date.to_zoned_datetime(self.zone.clone()).ok()?.timestamp();
        let day = self.day_of(Bucket(start.as_second().saturating_add(9).div_euclid(10)));
        (day.date == date).then_some(day)
    }

    /// The day of `now`.
    pub fn today(&mut self, now: UnixTime) -> Day {
        self.day_of(Bucket::of(now))
    }

    /// `None` outside the years that jiff knows.
    fn find(&self, bucket: Bucket) -> Option<Day> {
        let at = Timestamp::from_second(bucket.start().secs()).ok()?.to_zoned_datetime(self.zone.clone());
        let start = at.start_of_day().ok()?;
        let end = start.checked_add(1.day()).ok()?.start_of_day().ok()?;
        let first_bucket = |t: jiff::ZonedDateTime| Bucket(t.timestamp().as_second().saturating_add(9).div_euclid(10));
        let day = Day { start: first_bucket(start), end: first_bucket(end), date: at.date() };
        day.contains(bucket).then_some(day)
    }
}

/// A day by arithmetic, for clocks that show years nobody will see; the date is then jiff's last or first.
fn utc_day(bucket: Bucket) -> Day {
    let start = bucket.0.div_euclid(8_640).saturating_mul(8_640);
    let date = if start < 0 { civil::Date::MIN } else { civil::Date::MAX };
    Day { start: Bucket(start), end: Bucket(start.saturating_add(8_640)), date }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn day(zone: &str, at: &str) -> (String, i64) {
        let at: Timestamp = at.parse().unwrap();
        let day = Calendar::new(TimeZone::get(zone).unwrap()).today(UnixTime::from_secs(at.as_second()));
        (day.date.to_string(), day.end.0 - day.start.0)
    }

    #[rstest]
    #[case("UTC", "2026-06-01T23:59:59Z", "2026-06-01", 8640)]
    #[case("UTC", "2026-06-02T00:00:00Z", "2026-06-02", 8640)]
    #[case("Asia/Shanghai", "2026-06-01T15:59:59Z", "2026-06-01", 8640)]
    #[case("Asia/Shanghai", "2026-06-01T16:00:00Z", "2026-06-02", 8640)]
    #[case("Asia/Kathmandu", "2026-06-01T18:15:00Z", "2026-06-02", 8640)]
    #[case("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", 8280)]
    #[case("Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25", 9000)]
    #[case("America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04", 8280)]
    fn a_day_is_the_zones(#[case] zone: &str, #[case] at: &str, #[case] date: &str, #[case] buckets: i64) {
        assert_eq!(day(zone, at), (date.to_owned(), buckets));
    }

    #[rstest]
    #[case("UTC", "2026-06-01", Some(8640))]
    #[case("Europe/Berlin", "2026-10-25", Some(9000))]
    #[case("America/Sao_Paulo", "2018-11-04", Some(8280))]
    #[case("Pacific/Apia", "2011-12-30", None)]
    fn a_date_is_found_again(#[case] zone: &str, #[case] date: civil::Date, #[case] buckets: Option<i64>) {
        let day = Calendar::new(TimeZone::get(zone).unwrap()).day(date);
        assert_eq!(day.map(|day| day.end.0 - day.start.0), buckets);
    }

    #[test]
    fn no_clock_is_too_wild() {
        let mut calendar = Calendar::new(TimeZone::UTC);
        for bucket in [i64::MIN, i64::MIN / 10, -1, 0, i64::MAX / 10, i64::MAX] {
            calendar.day_of(Bucket(bucket));
        }
    }
}
