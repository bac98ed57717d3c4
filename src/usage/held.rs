//! When a verdict held: the record of a day says for how long.

use serde::{Deserialize, Serialize};

use super::Day;
use crate::meter::Bucket;

/// Spans that are kept. A verdict holds for a day, so more than a few come only from plans changed back and forth.
const MAX_SPANS: usize = 64;

/// Spans of buckets in any part of which the verdict stood. They may overlap where the clock went back.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held(Vec<Span>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    from: Bucket,
    /// The first bucket after it. As long as the verdict stands: where it will end.
    until: Bucket,
}

impl Held {
    /// Notes that the verdict stands at `now`, and until when. Says whether that is news.
    pub fn hold(&mut self, now: Bucket, until: Bucket) -> bool {
        if let Some(span) = self.0.iter_mut().rev().find(|span| span.from <= now && now <= span.until) {
            return std::mem::replace(&mut span.until, until) != until;
        }
        if self.0.len() >= MAX_SPANS {
            self.0.remove(0);
        }
        self.0.push(Span { from: now, until });
        true
    }

    /// Notes that the verdict stands no longer after `now`'s bucket.
    pub fn release(&mut self, now: Bucket) {
        let end = Bucket(now.0.saturating_add(1));
        // One that begins later was met under a clock that came back.
        self.0.retain(|span| span.from <= now);
        self.0.iter_mut().for_each(|span| span.until = span.until.min(end));
    }

    /// Whether the verdict stands in `now`'s bucket.
    pub fn contains(&self, now: Bucket) -> bool {
        self.0.iter().any(|span| span.from <= now && now < span.until)
    }

    /// Buckets of `day` under the verdict.
    pub fn buckets_in(&self, day: Day) -> u64 {
        let mut spans: Vec<_> = self.0.iter().map(|s| (s.from.max(day.start).0, s.until.min(day.end).0)).collect();
        spans.sort_unstable();
        let mut counted_to = i64::MIN;
        let mut buckets = 0;
        for (from, until) in spans {
            let from = from.max(counted_to);
            if from < until {
                buckets += until.saturating_sub(from).unsigned_abs();
                counted_to = until;
            }
        }
        buckets
    }

    /// Forgets spans that ended before `bucket`.
    pub fn forget_before(&mut self, bucket: Bucket) {
        self.0.retain(|span| span.until > bucket);
    }

    /// Takes in the spans of another.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().filter(|span| !self.0.contains(span)).copied().collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    const DAY: Day = Day { start: Bucket(0), end: Bucket(8640), date: date(1970, 1, 1) };

    fn held(notes: &[(i64, Option<i64>)]) -> u64 {
        let mut held = Held::default();
        for (now, until) in notes {
            match until {
                Some(until) => _ = held.hold(Bucket(*now), Bucket(*until)),
                None => held.release(Bucket(*now)),
            }
        }
        held.buckets_in(DAY)
    }

    #[test]
    fn a_verdict_that_lifts_by_itself_held_until_its_end() {
        assert_eq!(held(&[(10, Some(100)), (50, Some(100)), (100, None), (5000, None)]), 90);
    }

    #[test]
    fn a_verdict_lifted_early_holds_to_the_end_of_its_bucket() {
        assert_eq!(held(&[(10, Some(100)), (19, None)]), 10);
        assert_eq!(held(&[(10, Some(100)), (10, None), (10, Some(100)), (12, None)]), 3);
    }

    #[test]
    fn a_verdict_can_be_prolonged_and_shortened() {
        assert_eq!(held(&[(10, Some(100)), (50, Some(200))]), 190);
        assert_eq!(held(&[(10, Some(200)), (50, Some(100))]), 90);
    }

    #[test]
    fn only_the_days_part_counts_and_nothing_twice() {
        assert_eq!(held(&[(-100, Some(100))]), 100);
        assert_eq!(held(&[(8600, Some(9000))]), 40);
        assert_eq!(held(&[(-100, Some(9000))]), 8640);
        // The clock was at 1000 and came back.
        assert_eq!(held(&[(1000, Some(2000)), (500, Some(1500))]), 1500);
    }

    #[test]
    fn says_what_is_news() {
        let mut held = Held::default();
        assert_eq!([100, 100, 120].map(|until| held.hold(Bucket(5), Bucket(until))), [true, false, true]);
        assert_eq!([4, 5, 119, 120].map(|now| held.contains(Bucket(now))), [false, true, true, false]);
        held.forget_before(Bucket(120));
        assert_eq!(held, Held::default());
    }
}
