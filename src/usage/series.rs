//! A name's history of 10-second counts, as compact bytes, an hour at a time.

use std::collections::BTreeMap;

use crate::meter::Bucket;

/// Buckets in an hour.
const BUCKETS: i64 = 360;

/// Counts by bucket; buckets without requests are left out.
pub type Series = BTreeMap<Bucket, u64>;

/// What counts add up to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// All of them together.
    pub requests: u64,
    /// The highest, the earliest of equals.
    pub peak: Option<(Bucket, u64)>,
}

impl Totals {
    /// Takes in the count of one more bucket; each bucket once.
    pub fn add(&mut self, bucket: Bucket, count: u64) {
        self.requests = self.requests.saturating_add(count);
        if self.peak.is_none_or(|(at, peak)| count > peak || (count == peak && bucket < at)) {
            self.peak = Some((bucket, count));
        }
    }

    /// Takes in a bucket that is known to have had `count`, and may be among the added ones.
    pub fn know(&mut self, bucket: Bucket, count: u64) {
        if self.peak.is_none_or(|(_, peak)| count > peak) {
            self.peak = Some((bucket, count));
            self.requests = self.requests.max(count);
        }
    }
}

/// An hour of UTC: hour `h` covers the seconds `3600 h` to `3600 h + 3599` since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour that `bucket` lies in.
    pub const fn of(bucket: Bucket) -> Self {
        Self(bucket.0.div_euclid(BUCKETS))
    }

    /// Its first bucket.
    pub const fn start(self) -> Bucket {
        Bucket(self.0.saturating_mul(BUCKETS))
    }
}

/// Bytes that are no hour's counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the counts of hour {} are damaged", .0.start().start())]
pub struct DamagedHour(pub Hour);

/// Raises the count of `bucket` to `count`.
pub fn raise(series: &mut Series, bucket: Bucket, count: u64) {
    let known = series.entry(bucket).or_default();
    *known = (*known).max(count);
}

/// The counts as bytes, by hour: a bucket's place in its hour and its count, both as variable-length integers, three or
/// four bytes in all. A bucket may stand in them more than once, and the largest count holds; so pieces of an hour can
/// be joined end to end, in any order, also twice.
pub fn pack(counts: impl IntoIterator<Item = (Bucket, u64)>) -> BTreeMap<Hour, Vec<u8>> {
    let mut hours = BTreeMap::<Hour, Vec<u8>>::new();
    for (bucket, count) in counts {
        let hour = Hour::of(bucket);
        let place = u16::try_from(bucket.0.saturating_sub(hour.start().0)).unwrap_or_default();
        let bytes = hours.entry(hour).or_default();
        // Writing two integers to memory cannot fail; if it did, the bytes are as they were.
        *bytes = postcard::to_extend(&(place, count), std::mem::take(bytes)).unwrap_or_default();
    }
    hours
}

/// Adds what `bytes` say of `hour` to `series`.
///
/// # Errors
/// If they are no hour's counts. What was readable before the damage has been added.
pub fn unpack(hour: Hour, mut bytes: &[u8], series: &mut Series) -> Result<(), DamagedHour> {
    while !bytes.is_empty() {
        let ((place, count), rest) = postcard::take_from_bytes::<(u16, u64)>(bytes).map_err(|_| DamagedHour(hour))?;
        if i64::from(place) >= BUCKETS {
            return Err(DamagedHour(hour));
        }
        raise(series, Bucket(hour.start().0.saturating_add(i64::from(place))), count);
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(counts: &[(i64, u64)]) -> Series {
        counts.iter().map(|(b, c)| (Bucket(*b), *c)).collect()
    }

    fn unpacked(hours: &BTreeMap<Hour, Vec<u8>>) -> Series {
        let mut series = Series::new();
        hours.iter().for_each(|(hour, bytes)| unpack(*hour, bytes, &mut series).unwrap());
        series
    }

    #[test]
    fn an_hour_is_three_hundred_and_sixty_buckets_on_both_sides_of_the_epoch() {
        assert_eq!([-361, -360, -1, 0, 359, 360].map(|b| Hour::of(Bucket(b)).0), [-2, -1, -1, 0, 0, 1]);
    }

    #[test]
    fn of_equal_buckets_the_earliest_is_the_peak() {
        let mut totals = Totals::default();
        [(7, 4), (5, 9), (3, 9), (4, 9)].into_iter().for_each(|(b, count)| totals.add(Bucket(b), count));
        assert_eq!(totals, Totals { requests: 31, peak: Some((Bucket(3), 9)) });
    }

    #[test]
    fn of_a_bucket_that_stands_twice_the_larger_count_holds() {
        let mut twice = pack(series(&[(5, 50), (6, 1)]));
        twice.get_mut(&Hour(0)).unwrap().extend(pack(series(&[(5, 30), (7, 2)])).remove(&Hour(0)).unwrap());
        assert_eq!(unpacked(&twice), series(&[(5, 50), (6, 1), (7, 2)]));
    }

    #[test]
    fn a_busy_bucket_takes_four_bytes_and_a_quiet_one_three() {
        assert_eq!(pack(series(&[(300, 16_000)]))[&Hour(0)].len(), 4);
        assert_eq!(pack(series(&[(300, 100)]))[&Hour(0)].len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_unpacked(
            counts in prop::collection::btree_map(-5_000i64..5_000, 1u64..u64::MAX, 0..100)
        ) {
            let series: Series = counts.into_iter().map(|(b, c)| (Bucket(b), c)).collect();
            prop_assert_eq!(unpacked(&pack(series.clone())), series);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_nothing_worse(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut series = Series::new();
            _ = unpack(Hour(7), &bytes, &mut series);
            prop_assert!(series.keys().all(|bucket| Hour::of(*bucket) == Hour(7)));
        }
    }
}
