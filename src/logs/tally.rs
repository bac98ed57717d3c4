//! Requests by host and bucket, in bounded memory whatever is counted.

use std::collections::HashMap;
use std::io;

use foldhash::fast::RandomState;

use super::hosts::HostId;
use super::runs::{Counted, Merged, Runs};
use crate::meter::Bucket;

/// How many counts are kept in memory before they go to disk: a table of some 70 MB, full. A site that is never idle
/// fills it in 420 days.
pub const MAX_COUNTS: usize = 3_600_000;

/// Counts requests.
#[derive(Debug)]
pub struct Tally {
    counts: HashMap<u64, u64, RandomState>,
    max_counts: usize,
    runs: Option<Runs>,
    /// The last key and how often it came in a row: neighbours in a log are nearly always of the same ten seconds.
    current: Option<Counted>,
    /// The last bucket of all.
    last: Option<Bucket>,
}

/// A bucket so far from 1970 that there is no room for its number: some 680 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFar;

/// Everything that was counted, host by host and each in order of time.
#[derive(Debug)]
pub struct Counts {
    merged: Merged,
}

/// The order of hosts, then of buckets.
fn key(host: HostId, bucket: Bucket) -> Result<u64, TooFar> {
    let bucket = i32::try_from(bucket.0).map_err(|_| TooFar)?;
    Ok(u64::from(host) << 32 | u64::from(bucket.cast_unsigned() ^ (1 << 31)))
}

fn host_and_bucket(key: u64) -> (HostId, Bucket) {
    let bucket = (key as u32 ^ (1 << 31)).cast_signed();
    ((key >> 32) as HostId, Bucket(i64::from(bucket)))
}

impl Tally {
    /// Keeps at most `max_counts` in memory.
    pub fn new(max_counts: usize) -> Self {
        Self { counts: HashMap::default(), max_counts, runs: None, current: None, last: None }
    }

    /// Counts one request.
    ///
    /// # Errors
    /// [`TooFar`]; or, within, that the disk does not take what memory has no room for.
    pub fn add(&mut self, host: HostId, bucket: Bucket) -> Result<io::Result<()>, TooFar> {
        let key = key(host, bucket)?;
        if let Some((current, count)) = &mut self.current
            && *current == key
        {
            *count = count.saturating_add(1);
            return Ok(Ok(()));
        }
        self.last = self.last.max(Some(bucket));
        match self.current.replace((key, 1)) {
            Some(done) => Ok(self.put(done)),
            None => Ok(Ok(())),
        }
    }

    /// The last bucket with a request.
    pub fn last(&self) -> Option<Bucket> {
        self.last
    }

    /// All of it, in order.
    ///
    /// # Errors
    /// If the disk does not give back what it took.
    pub fn finish(mut self) -> io::Result<Counts> {
        if let Some(done) = self.current.take() {
            self.put(done)?;
        }
        let memory = sorted(&mut self.counts);
        drop(self.counts);
        Ok(Counts { merged: Merged::new(self.runs, memory)? })
    }

    fn put(&mut self, (key, count): Counted) -> io::Result<()> {
        let known = self.counts.entry(key).or_default();
        *known = known.saturating_add(count);
        if self.counts.len() < self.max_counts {
            return Ok(());
        }
        let run = sorted(&mut self.counts);
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert(Runs::new()?),
        };
        runs.push(&run)
    }
}

fn sorted(counts: &mut HashMap<u64, u64, RandomState>) -> Vec<Counted> {
    let mut sorted: Vec<_> = counts.drain().collect();
    sorted.sort_unstable();
    sorted
}

impl Counts {
    /// The next one. `None` at the end.
    ///
    /// # Errors
    /// If the disk does not give back what it took.
    pub fn pop(&mut self) -> io::Result<Option<(HostId, Bucket, u64)>> {
        let next = self.merged.pop()?;
        Ok(next.map(|(key, count)| {
            let (host, bucket) = host_and_bucket(key);
            (host, bucket, count)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(requests: &[(HostId, i64)], max_counts: usize) -> Vec<(HostId, i64, u64)> {
        let mut tally = Tally::new(max_counts);
        requests.iter().for_each(|(host, bucket)| tally.add(*host, Bucket(*bucket)).unwrap().unwrap());
        let mut counts = tally.finish().unwrap();
        let next = || counts.pop().unwrap().map(|(host, bucket, count)| (host, bucket.0, count));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_bucket_of_any_century_has_room_and_one_beyond_says_so() {
        for bucket in [i64::from(i32::MIN), -1, 0, 178_027_200, i64::from(i32::MAX)] {
            assert_eq!(counted(&[(7, bucket)], 9), [(7, bucket, 1)]);
        }
        assert_eq!(Tally::new(9).add(7, Bucket(1 << 31)).unwrap_err(), TooFar);
    }

    proptest! {
        #[test]
        fn what_was_spilled_is_counted_as_if_it_had_not_been(
            requests in prop::collection::vec((0u32..4, -20i64..20), 0..300),
            max_counts in 1usize..20,
        ) {
            let mut plain = std::collections::BTreeMap::new();
            requests.iter().for_each(|request| *plain.entry(*request).or_insert(0) += 1);
            let plain: Vec<_> = plain.into_iter().map(|((host, bucket), count)| (host, bucket, count)).collect();
            prop_assert_eq!(counted(&requests, max_counts), plain.clone());
            prop_assert_eq!(counted(&requests, usize::MAX), plain);
        }
    }
}
