//! Which plan fits: the rules of metering, run over counts of the past.
//!
//! Arrivals are taken as they were: what a throttled domain would have refused is not taken off, so that each plan is
//! held against the same traffic.

mod outcome;
mod spread;

use std::collections::BTreeMap;

use jiff::civil;

use crate::meter::{BUCKET_SECS, Bucket};
use crate::plan::Plan;
use crate::usage::{Calendar, qps};

pub use outcome::Outcome;
pub use spread::Spread;

/// A day with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayUse {
    /// What the zone calls the day.
    pub date: civil::Date,
    /// Requests in its highest bucket.
    pub peak_count: u64,
    /// That bucket, the earliest of equals.
    pub peak_at: Bucket,
    /// Requests in all.
    pub requests: u64,
}

impl DayUse {
    /// The day's peak as shown: at least 1.
    pub fn peak_qps(&self) -> f64 {
        qps(self.peak_count).max(1.0)
    }

    /// The larger of what two sources say of the same day.
    fn or_larger(self, other: Self) -> Self {
        let peak = match other.peak_count.cmp(&self.peak_count) {
            std::cmp::Ordering::Greater => other,
            std::cmp::Ordering::Equal if other.peak_at < self.peak_at => other,
            _ => self,
        };
        Self { requests: self.requests.max(other.requests), ..peak }
    }
}

/// Takes one host's counts in and says what they mean for each plan.
#[derive(Debug)]
pub struct Advisor<'a> {
    calendar: &'a mut Calendar,
    outcomes: Vec<Outcome>,
    days: Vec<DayUse>,
    spread: Spread,
    first: Option<Bucket>,
    last: Bucket,
}

/// What a host's counts mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// Requests in all.
    pub requests: u64,
    /// The first bucket that is known to have had requests.
    pub first: Bucket,
    /// The last one.
    pub last: Bucket,
    /// Days with requests, in order.
    pub days: Vec<DayUse>,
    /// The day with the highest peak, the earliest of equals.
    pub peak: DayUse,
    /// How busy the buckets with requests were; `None` if only days are known.
    pub qps: Option<Quantiles>,
    /// The smallest plan whose limit no bucket was over: not one alert.
    pub plan: Option<Plan>,
    /// The smallest plan that no bucket was more than 10 % over: never throttled.
    pub plan_with_grace: Option<Plan>,
    /// What each plan would have meant, the smallest first. Days of which only the peak is known are not in it.
    pub outcomes: Vec<Outcome>,
}

/// Requests per second that were not exceeded in that share of the buckets with requests. Each is exact below 200 QPS
/// and at most 0.1 % too low above; the maximum is always exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    /// Half of them.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// All.
    pub max: f64,
    /// The share of all buckets from the first to the last that had no request.
    pub idle_share: f64,
}

impl<'a> Advisor<'a> {
    /// For a host whose counts reach to `end`, the last bucket of what was looked at; a verdict ends there. `plans` are
    /// sorted by [`sort_plans`].
    pub fn new(plans: &[Plan], calendar: &'a mut Calendar, end: Bucket) -> Self {
        Self {
            calendar,
            outcomes: plans.iter().map(|plan| Outcome::new(plan.clone(), end)).collect(),
            days: Vec::new(),
            spread: Spread::default(),
            first: None,
            last: end,
        }
    }

    /// Takes the `count` of `bucket`, which is later than all before it.
    pub fn add(&mut self, bucket: Bucket, count: u64) {
        if count == 0 {
            return;
        }
        self.first.get_or_insert(bucket);
        self.last = bucket;
        let date = self.calendar.day_of(bucket).date;
        match self.days.last_mut().filter(|day| day.date == date) {
            Some(day) => {
                day.requests = day.requests.saturating_add(count);
                if count > day.peak_count {
                    (day.peak_count, day.peak_at) = (count, bucket);
                }
            }
            None => self.days.push(DayUse { date, peak_count: count, peak_at: bucket, requests: count }),
        }
        self.spread.add(count);
        for outcome in &mut self.outcomes {
            outcome.add(bucket, count);
        }
    }

    /// What it all means, together with `sealed` days of which only the sums are known. `None` if there was no request.
    pub fn finish(self, sealed: impl IntoIterator<Item = DayUse>) -> Option<Advice> {
        let mut days: BTreeMap<civil::Date, DayUse> = self.days.into_iter().map(|day| (day.date, day)).collect();
        for day in sealed {
            days.entry(day.date).and_modify(|known| *known = known.or_larger(day)).or_insert(day);
        }
        let days: Vec<DayUse> = days.into_values().collect();
        let peak =
            days.iter().copied().reduce(|peak, day| if day.peak_count > peak.peak_count { day } else { peak })?;
        let buckets = self.first.map(|first| (first, self.last));
        let known = || days.iter().map(|day| day.peak_at).chain(buckets.into_iter().flat_map(|(a, b)| [a, b]));
        let plans = || self.outcomes.iter().map(|outcome| &outcome.plan);
        Some(Advice {
            requests: days.iter().fold(0, |sum, day| sum.saturating_add(day.requests)),
            first: known().min().unwrap_or(peak.peak_at),
            last: known().max().unwrap_or(peak.peak_at),
            peak,
            qps: buckets.map(|(first, last)| self.spread.quantiles(first, last)),
            plan: plans().find(|plan| plan.judge(peak.peak_count) == crate::plan::Standing::Within).cloned(),
            plan_with_grace: plans().find(|plan| peak.peak_count <= plan.excessive_above()).cloned(),
            days,
            outcomes: self.outcomes,
        })
    }
}

impl Advice {
    /// The limit that would have held every bucket without an alert.
    pub fn needed_qps(&self) -> u64 {
        self.peak.peak_count.div_ceil(BUCKET_SECS)
    }
}

/// Puts the smallest plan first; of equals the one whose name comes first.
pub fn sort_plans(plans: &mut [Plan]) {
    plans.sort_by(|a, b| (a.max_qps, &a.name).cmp(&(b.max_qps, &b.name)));
}

#[cfg(test)]
mod tests;
