//! The last 24 hours of closed buckets, as far as a verdict can depend on them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::meter::Bucket;

/// How long after its end a bucket counts.
const WINDOW_SECS: i64 = 86_400;
const WINDOW_BUCKETS: i64 = WINDOW_SECS / 10;

/// The window's maxima: a bucket is kept only while no later one within a day of it had as many requests, because
/// until the earlier leaves the window the later one decides as well (the monotonic queue of sliding-window maxima).
/// So the largest count is the first, any limit can be judged at any time, and a day of even traffic takes a few
/// entries, not 8,640.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Ascending by bucket. Within any 24 hours, counts strictly descend.
    stairs: VecDeque<Stair>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stair {
    bucket: Bucket,
    count: u64,
    /// The earliest bucket of equal count that this one stands for, for the peak's time.
    first: Bucket,
}

impl Window {
    /// Raises the count of `bucket` to `count`; in any order of buckets.
    pub fn insert(&mut self, bucket: Bucket, count: u64) {
        let at = self.stairs.partition_point(|s| s.bucket < bucket);
        let within_a_day = |later: &Stair| later.bucket.0.saturating_sub(bucket.0) < WINDOW_BUCKETS;
        // Later counts descend, so the next one is the largest that could stand for this bucket.
        match self.stairs.get_mut(at) {
            Some(next) if next.bucket == bucket && next.count >= count => return,
            Some(next) if next.bucket != bucket && within_a_day(next) && next.count >= count => {
                if next.count == count {
                    next.first = next.first.min(bucket);
                }
                return;
            }
            _ => {}
        }
        if self.stairs.get(at).is_some_and(|s| s.bucket == bucket) {
            self.stairs.remove(at);
        }
        let mut stair = Stair { bucket, count, first: bucket };
        let mut place = at;
        while let Some(earlier) = place.checked_sub(1).and_then(|i| self.stairs.get(i)) {
            if earlier.count > count || bucket.0.saturating_sub(earlier.bucket.0) >= WINDOW_BUCKETS {
                break;
            }
            if earlier.count == count {
                stair.first = earlier.first;
            }
            place -= 1;
            self.stairs.remove(place);
        }
        self.stairs.insert(place, stair);
    }

    /// Takes in another window of the same name.
    pub fn merge(&mut self, other: &Self) {
        for stair in &other.stairs {
            self.insert(stair.bucket, stair.count);
            self.insert(stair.first, stair.count);
        }
    }

    /// Whether no bucket is left.
    pub fn is_empty(&self) -> bool {
        self.stairs.is_empty()
    }

    /// The latest bucket in the window at `now` with more than `count` requests.
    pub fn last_over(&self, count: u64, now: UnixTime) -> Option<Bucket> {
        self.stairs.iter().rev().find(|s| s.count > count && Self::contains(s.bucket, now)).map(|s| s.bucket)
    }

    /// The largest count at or after `start`, and when it was: the earliest of equals that is known.
    pub fn max_since(&self, start: Bucket) -> Option<(Bucket, u64)> {
        let stair = self.stairs.iter().filter(|s| s.bucket >= start).max_by_key(|s| s.count)?;
        Some((if stair.first >= start { stair.first } else { stair.bucket }, stair.count))
    }

    /// The count of `bucket` where it is known: it is not for buckets that a later one stands for.
    pub fn count_of(&self, bucket: Bucket) -> u64 {
        self.stairs.iter().find(|s| s.bucket == bucket).map_or(0, |s| s.count)
    }

    /// The first moment at which `bucket` counts no longer.
    pub fn leaves_at(bucket: Bucket) -> UnixTime {
        bucket.end().plus_secs(WINDOW_SECS)
    }

    /// Forgets the buckets that have left by `now`.
    pub fn trim(&mut self, now: UnixTime) {
        self.stairs.retain(|s| now < Self::leaves_at(s.bucket));
    }

    /// Whether `bucket` counts at `now`. One that lies in the future, because the clock was there and came back,
    /// counts if it is less than a day away.
    fn contains(bucket: Bucket, now: UnixTime) -> bool {
        now < Self::leaves_at(bucket) && bucket.end().plus_secs(-WINDOW_SECS) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn window(buckets: &[(i64, u64)]) -> Window {
        let mut window = Window::default();
        for (bucket, count) in buckets {
            window.insert(Bucket(*bucket), *count);
        }
        window
    }

    fn stairs(window: &Window) -> Vec<(i64, u64, i64)> {
        window.stairs.iter().map(|s| (s.bucket.0, s.count, s.first.0)).collect()
    }

    #[test]
    fn only_maxima_are_kept() {
        assert_eq!(stairs(&window(&[(1, 5), (2, 9), (3, 4), (4, 4), (5, 1)])), [(2, 9, 2), (4, 4, 3), (5, 1, 5)]);
        assert_eq!(stairs(&window(&[(5, 1), (4, 4), (3, 4), (2, 9), (1, 5)])), [(2, 9, 2), (4, 4, 3), (5, 1, 5)]);
    }

    #[test]
    fn a_bucket_leaves_at_its_end_and_a_day() {
        let window = window(&[(10, 500)]);
        let last = 109 + 86_400;
        assert_eq!(window.last_over(499, UnixTime::from_ms(last * 1000 + 999)), Some(Bucket(10)));
        assert_eq!(window.last_over(499, UnixTime::from_secs(last + 1)), None);
        assert_eq!(window.last_over(500, UnixTime::from_secs(110)), None);
    }

    #[test]
    fn a_bucket_met_under_a_clock_far_ahead_hides_nothing_when_the_clock_returns() {
        let window = window(&[(10, 300), (10 + 90 * WINDOW_BUCKETS, 500)]);
        assert_eq!(window.last_over(200, UnixTime::from_secs(200)), Some(Bucket(10)));
    }

    proptest! {
        /// Against the plain definition: all buckets kept, all looked at.
        #[test]
        fn says_what_all_buckets_would_say(
            counts in prop::collection::vec((0i64..20_000, 1u64..50), 1..60),
            limit in 0u64..50,
            start in 0i64..20_000,
        ) {
            let mut all = BTreeMap::<i64, u64>::new();
            let mut window = Window::default();
            for (bucket, count) in counts {
                let known = all.entry(bucket).or_default();
                *known = (*known).max(count);
                window.insert(Bucket(bucket), count);
            }
            let latest = *all.keys().last().unwrap();
            for now in [latest + 1, latest + 4_000, latest + WINDOW_BUCKETS, latest + WINDOW_BUCKETS + 1] {
                let now = Bucket(now).start();
                let plain = all.iter().rev().find(|(b, c)| **c > limit && Window::contains(Bucket(**b), now)).map(|(b, _)| Bucket(*b));
                prop_assert_eq!(window.last_over(limit, now), plain);
            }
            let plain = all.range(start..).map(|(_, c)| *c).max();
            prop_assert_eq!(window.max_since(Bucket(start)).map(|(_, c)| c), plain);
        }
    }
}
