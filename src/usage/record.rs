//! Sealed days: what a name used on one day, chained by hashes so that no record can be changed, removed or slipped in
//! without showing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::civil;

use crate::meter::{BUCKET_SECS, Bucket};
use crate::usage::qps;

/// A SHA-256 hash, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no hash: 64 hexadecimal digits")]
pub struct NoHash(String);

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NoHash(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

/// A place in a name's chain: the record's number, from 1, and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The record's number; 0 is before the first.
    pub seq: u64,
    /// The record's hash; all zeros before the first.
    pub hash: Hash,
}

impl Link {
    /// What the first record follows.
    pub const GENESIS: Self = Self { seq: 0, hash: Hash([0; 32]) };
}

/// What a name used on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayFacts {
    /// What the zone calls the day.
    pub date: civil::Date,
    /// Whose midnights bound it: an IANA name.
    pub zone: String,
    /// The plan's limit when the day's last bucket with requests closed; `None` without a plan.
    pub limit_qps: Option<u32>,
    /// Requests in the day's highest bucket; at least 1.
    pub peak_count: u64,
    /// That bucket, the earliest of equals.
    pub peak_at: Bucket,
    /// Requests that arrived in all.
    pub requests: u64,
    /// 10 s for each bucket in which the domain was held to its limit.
    pub throttled_secs: u64,
}

impl DayFacts {
    /// The day's peak as shown: at least 1.
    pub fn peak_qps(&self) -> f64 {
        qps(self.peak_count).max(1.0)
    }
}

/// A day that is over: a record that nothing rewrites. What arrives late appends another one of the same date, which
/// amends it; the last one of a date holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayRecord {
    /// Whose.
    pub domain: Arc<str>,
    /// Its number in the domain's chain, from 1.
    pub seq: u64,
    /// What it records.
    pub facts: DayFacts,
    /// The hash of the domain's record before it.
    pub previous: Hash,
    /// SHA-256 of [`Self::canonical`].
    pub hash: Hash,
}

impl DayRecord {
    /// Seals a day behind the record that is last so far.
    pub fn seal(domain: Arc<str>, facts: DayFacts, last: &Link) -> Self {
        let seq = last.seq.saturating_add(1);
        let mut record = Self { domain, seq, facts, previous: last.hash, hash: Link::GENESIS.hash };
        record.hash = record.computed_hash();
        record
    }

    /// Its place in the chain.
    pub fn link(&self) -> Link {
        Link { seq: self.seq, hash: self.hash }
    }

    /// The text that is hashed: one fact a line, so that anybody can check it with `sha256sum`.
    pub fn canonical(&self) -> String {
        let Self { domain, seq, facts, previous, .. } = self;
        let DayFacts { date, zone, limit_qps, peak_count, peak_at, requests, throttled_secs } = facts;
        let limit = limit_qps.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        let peak_at = peak_at.start();
        format!(
            "lockgate day record, version 1\ndomain: {domain}\nrecord: {seq}\ndate: {date}\nzone: {zone}\n\
             limit_qps: {limit}\npeak_requests_in_{BUCKET_SECS}s: {peak_count}\npeak_at: {peak_at}\n\
             requests: {requests}\nthrottled_secs: {throttled_secs}\nprevious: {previous}\n"
        )
    }

    /// SHA-256 of [`Self::canonical`], computed now; [`Self::hash`] is what the record carries.
    pub fn computed_hash(&self) -> Hash {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, self.canonical().as_bytes()).as_ref()) {
            *to = *from;
        }
        Hash(hash)
    }
}

/// A name's records as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Whose.
    pub domain: Arc<str>,
    /// The last record that was trimmed for its age; [`Link::GENESIS`] if none was.
    pub anchor: Link,
    /// Those that are kept, in order of their numbers.
    pub records: Vec<DayRecord>,
    /// The last one, noted apart from the records.
    pub head: Link,
}

/// What is wrong with a chain, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A record does not have the hash that it carries.
    #[error("record {seq} of {date} was changed: its content does not have the hash it carries")]
    Changed {
        /// Its number.
        seq: u64,
        /// Its date, as it says now.
        date: civil::Date,
    },
    /// A record carries another hash of the one before it than that one has.
    #[error("record {seq} of {date} does not follow the record before it, which was changed or replaced")]
    Unlinked {
        /// Its number.
        seq: u64,
        /// Its date.
        date: civil::Date,
    },
    /// Records are not there.
    #[error("{} removed", records_from_to(*.first, *.last))]
    Removed {
        /// The first one's number.
        first: u64,
        /// The last one's.
        last: u64,
    },
    /// The last record is not the one that was noted as the last.
    #[error("record {seq} of {date} is not the one that was sealed last: the end of the chain was rebuilt")]
    NotTheHead {
        /// Its number.
        seq: u64,
        /// Its date.
        date: civil::Date,
    },
}

fn records_from_to(first: u64, last: u64) -> String {
    if first == last { format!("record {first} was") } else { format!("records {first} to {last} were") }
}

impl Chain {
    /// Everything that is wrong with it in itself. A chain rebuilt whole has no flaw: only an earlier export tells.
    pub fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let mut last = self.anchor;
        for record in &self.records {
            let (seq, date) = (record.seq, record.facts.date);
            let is_next = seq == last.seq.saturating_add(1);
            if seq > last.seq && !is_next {
                flaws.push(Flaw::Removed { first: last.seq.saturating_add(1), last: seq.saturating_sub(1) });
            }
            if record.hash != record.computed_hash() {
                flaws.push(Flaw::Changed { seq, date });
            } else if seq <= last.seq || (is_next && record.previous != last.hash) {
                flaws.push(Flaw::Unlinked { seq, date });
            }
            last = record.link();
        }
        if last.seq < self.head.seq {
            flaws.push(Flaw::Removed { first: last.seq.saturating_add(1), last: self.head.seq });
        } else if last != self.head
            && let Some(record) = self.records.last()
        {
            flaws.push(Flaw::NotTheHead { seq: record.seq, date: record.facts.date });
        }
        flaws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(day: i8, requests: u64) -> DayFacts {
        DayFacts {
            date: civil::date(2026, 6, day),
            zone: "Asia/Shanghai".to_owned(),
            limit_qps: Some(10),
            peak_count: 115,
            peak_at: Bucket(178_027_200 + 8640 * i64::from(day)),
            requests,
            throttled_secs: 86_400,
        }
    }

    fn chain(requests: &[u64]) -> Chain {
        let mut chain =
            Chain { domain: "www.example.com".into(), anchor: Link::GENESIS, records: vec![], head: Link::GENESIS };
        for (day, requests) in requests.iter().enumerate() {
            let record = DayRecord::seal(chain.domain.clone(), facts(day as i8 + 1, *requests), &chain.head);
            chain.head = record.link();
            chain.records.push(record);
        }
        chain
    }

    #[test]
    fn a_record_is_a_text_that_anybody_can_hash() {
        let record = chain(&[4321]).records.remove(0);
        insta::assert_snapshot!(record.canonical());
        insta::assert_snapshot!(record.hash);
    }

    #[test]
    fn a_chain_as_sealed_has_no_flaw_also_behind_an_anchor() {
        let mut chain = chain(&[1, 2, 3, 4]);
        assert_eq!(chain.flaws(), []);
        chain.anchor = chain.records.drain(..2).next_back().unwrap().link();
        assert_eq!(chain.flaws(), []);
    }

    #[test]
    fn a_changed_record_is_named() {
        let mut chain = chain(&[1, 2, 3]);
        chain.records[1].facts.requests += 1;
        assert_eq!(chain.flaws(), [Flaw::Changed { seq: 2, date: civil::date(2026, 6, 2) }]);
    }

    #[test]
    fn a_record_that_was_hashed_again_does_not_fit_the_one_behind() {
        let mut chain = chain(&[1, 2, 3]);
        chain.records[1] = DayRecord::seal(chain.domain.clone(), facts(2, 9), &chain.records[0].link());
        assert_eq!(chain.flaws(), [Flaw::Unlinked { seq: 3, date: civil::date(2026, 6, 3) }]);
    }

    #[test]
    fn removed_records_are_named_wherever_they_stood() {
        for (at, number) in [(0, 1), (1, 2), (2, 3)] {
            let mut chain = chain(&[1, 2, 3]);
            chain.records.remove(at);
            assert_eq!(chain.flaws(), [Flaw::Removed { first: number, last: number }]);
        }
        let mut chain = chain(&[1, 2, 3]);
        chain.records.clear();
        assert_eq!(chain.flaws(), [Flaw::Removed { first: 1, last: 3 }]);
    }

    #[test]
    fn the_last_record_cannot_be_replaced_alone() {
        let mut chain = chain(&[1, 2]);
        chain.records[1] = DayRecord::seal(chain.domain.clone(), facts(2, 9), &chain.records[0].link());
        assert_eq!(chain.flaws(), [Flaw::NotTheHead { seq: 2, date: civil::date(2026, 6, 2) }]);
    }

    #[test]
    fn hashes_are_read_as_they_are_written() {
        let hash = chain(&[1]).head.hash;
        assert_eq!(hash.to_string().parse(), Ok(hash));
        "12".parse::<Hash>().unwrap_err();
    }
}
