//! How counts are spread, in bounded memory.

use std::collections::BTreeMap;

use super::Quantiles;
use crate::meter::Bucket;
use crate::usage::qps;

/// Leading bits of a count that are kept: counts below 2,048 have a cell of their own, larger ones share it with those
/// that differ by less than 0.1 %. So there are at most some 56,000 cells, whatever is counted.
const KEPT_BITS: u32 = 11;

/// How many buckets had which count.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    /// By the smallest count of a cell.
    cells: BTreeMap<u64, u64>,
    buckets: u64,
    max: u64,
}

impl Spread {
    /// Takes one bucket's count in.
    pub fn add(&mut self, count: u64) {
        let shift = (u64::BITS - count.leading_zeros()).saturating_sub(KEPT_BITS);
        let buckets = self.cells.entry(count >> shift << shift).or_default();
        *buckets = buckets.saturating_add(1);
        self.buckets = self.buckets.saturating_add(1);
        self.max = self.max.max(count);
    }

    /// The count that at least `per_mille` of 1000 buckets did not exceed (nearest rank).
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let rank = self.buckets.saturating_mul(per_mille).div_ceil(1000).max(1);
        let mut seen = 0_u64;
        for (count, buckets) in &self.cells {
            seen = seen.saturating_add(*buckets);
            if seen >= rank {
                return *count;
            }
        }
        self.max
    }

    /// The usual ones, over buckets that lie from `first` to `last`.
    pub(super) fn quantiles(&self, first: Bucket, last: Bucket) -> Quantiles {
        let of = |per_mille| qps(self.quantile(per_mille));
        let all = last.0.saturating_sub(first.0).saturating_add(1);
        Quantiles {
            p50: of(500),
            p90: of(900),
            p99: of(990),
            p999: of(999),
            max: qps(self.max),
            idle_share: 1.0 - self.buckets as f64 / all as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quantile_is_a_count_that_was_there() {
        let mut spread = Spread::default();
        (1..=1000).for_each(|count| spread.add(count));
        assert_eq!([0, 1, 500, 900, 990, 999, 1000].map(|q| spread.quantile(q)), [1, 1, 500, 900, 990, 999, 1000]);
    }

    proptest! {
        #[test]
        fn a_quantile_is_exact_or_less_than_a_thousandth_too_low(
            mut counts in prop::collection::vec(prop_oneof![1u64..2_048, 1u64..1_000_000, any::<u64>()], 1..50),
            per_mille in 1u64..=1000,
        ) {
            let mut spread = Spread::default();
            counts.iter().for_each(|count| spread.add(*count));
            counts.sort_unstable();
            let rank = (counts.len() as u64 * per_mille).div_ceil(1000) as usize;
            let (exact, said) = (counts[rank - 1], spread.quantile(per_mille));
            prop_assert!(said <= exact && exact - said <= if exact < 2_048 { 0 } else { exact / 1000 }, "{said} of {exact}");
        }
    }
}
