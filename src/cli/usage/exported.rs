//! An export as it stands in a file: written and read domain by domain, because there may be very many.

mod read;

use std::io::{self, Write};
use std::sync::Arc;

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

pub(super) use read::read;

use crate::clock::UnixTime;
use crate::meter::Bucket;
use crate::usage::{Chain, DayFacts, DayRecord, Hash, Link, qps};

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A line for each record
    Csv,
    /// Records by domain, with where each chain begins and ends
    Json,
}

/// A domain's part of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ExportedDomain {
    pub(super) domain: Arc<str>,
    /// The last record that had been trimmed for its age; number 0: none. CSV does not say.
    #[serde(default)]
    pub(super) anchor: ExportedLink,
    /// The record that was the last.
    pub(super) head: ExportedLink,
    pub(super) records: Vec<ExportedRecord>,
}

/// A record's number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct ExportedLink {
    pub(super) record: u64,
    #[serde(with = "hex_text")]
    pub(super) hash: Hash,
}

/// A record: everything that its hash is of, besides the domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ExportedRecord {
    pub(super) record: u64,
    pub(super) date: Date,
    pub(super) zone: String,
    pub(super) limit_qps: Option<u32>,
    pub(super) peak_requests: u64,
    pub(super) peak_qps: f64,
    /// In UTC, as it is hashed.
    pub(super) peak_at: String,
    pub(super) requests: u64,
    pub(super) throttled_secs: u64,
    #[serde(with = "hex_text")]
    pub(super) previous: Hash,
    #[serde(with = "hex_text")]
    pub(super) hash: Hash,
}

/// A line of CSV: the crate cannot put one struct into another.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    domain: Arc<str>,
    record: u64,
    date: Date,
    zone: String,
    limit_qps: Option<u32>,
    peak_requests: u64,
    peak_qps: f64,
    peak_at: String,
    requests: u64,
    throttled_secs: u64,
    #[serde(with = "hex_text")]
    previous: Hash,
    #[serde(with = "hex_text")]
    hash: Hash,
    head_record: u64,
    #[serde(with = "hex_text")]
    head_hash: Hash,
}

const COLUMNS: [&str; 14] = [
    "domain",
    "record",
    "date",
    "zone",
    "limit_qps",
    "peak_requests",
    "peak_qps",
    "peak_at",
    "requests",
    "throttled_secs",
    "previous",
    "hash",
    "head_record",
    "head_hash",
];

mod hex_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::usage::Hash;

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Default for ExportedLink {
    fn default() -> Self {
        Link::GENESIS.into()
    }
}

impl From<Link> for ExportedLink {
    fn from(link: Link) -> Self {
        Self { record: link.seq, hash: link.hash }
    }
}

impl From<&DayRecord> for ExportedRecord {
    fn from(record: &DayRecord) -> Self {
        let facts = &record.facts;
        Self {
            record: record.seq,
            date: facts.date,
            zone: facts.zone.clone(),
            limit_qps: facts.limit_qps,
            peak_requests: facts.peak_count,
            peak_qps: facts.peak_qps(),
            peak_at: facts.peak_at.start().to_string(),
            requests: facts.requests,
            throttled_secs: facts.throttled_secs,
            previous: record.previous,
            hash: record.hash,
        }
    }
}

impl ExportedRecord {
    /// Whether it says what its hash is of.
    pub(super) fn is_as_hashed(&self, domain: &Arc<str>) -> bool {
        let Some(peak_at) = bucket_of(&self.peak_at) else { return false };
        let facts = DayFacts {
            date: self.date,
            zone: self.zone.clone(),
            limit_qps: self.limit_qps,
            peak_count: self.peak_requests,
            peak_at,
            requests: self.requests,
            throttled_secs: self.throttled_secs,
        };
        // QPS is not hashed: it follows from the requests.
        let is_peak_right = (self.peak_qps - qps(self.peak_requests).max(1.0)).abs() < 0.05;
        let (domain, previous) = (Arc::clone(domain), self.previous);
        let record = DayRecord { domain, seq: self.record, facts, previous, hash: self.hash };
        is_peak_right && record.computed_hash() == self.hash
    }
}

/// The bucket that begins at the time written; `None` if none does.
fn bucket_of(text: &str) -> Option<Bucket> {
    let secs = match text.strip_prefix('@') {
        Some(secs) => secs.parse().ok()?,
        None => text.parse::<Timestamp>().ok()?.as_second(),
    };
    let bucket = Bucket::of(UnixTime::from_secs(secs));
    (bucket.start().to_string() == text).then_some(bucket)
}

impl ExportedDomain {
    /// The records of a chain whose dates `takes` takes.
    pub(super) fn of(chain: &Chain, takes: impl Fn(Date) -> bool) -> Self {
        let records = chain.records.iter().filter(|record| takes(record.facts.date));
        Self {
            domain: Arc::clone(&chain.domain),
            anchor: chain.anchor.into(),
            head: chain.head.into(),
            records: records.map(ExportedRecord::from).collect(),
        }
    }
}

/// An export being written.
pub(super) enum Writer<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Json { out: W, is_first: bool },
}

impl<W: Write> Writer<W> {
    /// Writes what an export begins with.
    pub(super) fn begin(format: Format, mut out: W, now: UnixTime) -> io::Result<Self> {
        match format {
            Format::Csv => {
                let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
                csv.write_record(COLUMNS).map_err(io::Error::from)?;
                Ok(Self::Csv(Box::new(csv)))
            }
            Format::Json => {
                write!(out, "{{\"exported_at\":\"{now}\",\"domains\":[")?;
                Ok(Self::Json { out, is_first: true })
            }
        }
    }

    pub(super) fn put(&mut self, exported: ExportedDomain) -> io::Result<()> {
        match self {
            Self::Csv(csv) => {
                let ExportedDomain { domain, head, records, .. } = exported;
                for record in records {
                    csv.serialize(Line::new(Arc::clone(&domain), record, head)).map_err(io::Error::from)?;
                }
                Ok(())
            }
            Self::Json { out, is_first } => {
                let between: &[u8] = if std::mem::take(is_first) { b"\n" } else { b",\n" };
                out.write_all(between)?;
                Ok(serde_json::to_writer(out, &exported)?)
            }
        }
    }

    /// Writes what an export ends with.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Csv(mut csv) => csv.flush(),
            Self::Json { mut out, .. } => {
                out.write_all(b"\n]}\n")?;
                out.flush()
            }
        }
    }
}

impl Line {
    fn new(domain: Arc<str>, record: ExportedRecord, head: ExportedLink) -> Self {
        Self {
            domain,
            record: record.record,
            date: record.date,
            zone: record.zone,
            limit_qps: record.limit_qps,
            peak_requests: record.peak_requests,
            peak_qps: record.peak_qps,
            peak_at: record.peak_at,
            requests: record.requests,
            throttled_secs: record.throttled_secs,
            previous: record.previous,
            hash: record.hash,
            head_record: head.record,
            head_hash: head.hash,
        }
    }

    fn into_parts(self) -> (Arc<str>, ExportedRecord, ExportedLink) {
        let record = ExportedRecord {
            record: self.record,
            date: self.date,
            zone: self.zone,
            limit_qps: self.limit_qps,
            peak_requests: self.peak_requests,
            peak_qps: self.peak_qps,
            peak_at: self.peak_at,
            requests: self.requests,
            throttled_secs: self.throttled_secs,
            previous: self.previous,
            hash: self.hash,
        };
        (self.domain, record, ExportedLink { record: self.head_record, hash: self.head_hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains() -> Vec<Chain> {
        let mut chains = Vec::new();
        for (domain, days) in [("*.example.com", 2), ("www.example.com", 1)] {
            let mut chain =
                Chain { domain: domain.into(), anchor: Link::GENESIS, records: vec![], head: Link::GENESIS };
            for day in 1..=days {
                let facts = DayFacts {
                    date: jiff::civil::date(2026, 6, day),
                    zone: "Asia/Shanghai".to_owned(),
                    limit_qps: (day == 1).then_some(10),
                    peak_count: 115,
                    peak_at: Bucket(178_030_800),
                    requests: 4_321,
                    throttled_secs: 10,
                };
                let record = DayRecord::seal(Arc::clone(&chain.domain), facts, &chain.head);
                chain.head = record.link();
                chain.records.push(record);
            }
            chains.push(chain);
        }
        chains
    }

    fn written(format: Format) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(format, &mut bytes, UnixTime::from_secs(1_780_308_000)).unwrap();
        for chain in chains() {
            writer.put(ExportedDomain::of(&chain, |_| true)).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn read_text(text: &str) -> Result<Vec<ExportedDomain>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut domains = Vec::new();
        read(file.path(), |domain| {
            domains.push(domain);
            true
        })
        .map_err(|why| why.replace(&file.path().display().to_string(), "FILE"))?;
        Ok(domains)
    }

    #[test]
    fn what_is_written_is_read() {
        let domains: Vec<_> = chains().iter().map(|chain| ExportedDomain::of(chain, |_| true)).collect();
        for format in [Format::Csv, Format::Json] {
            insta::assert_snapshot!(written(format));
            assert_eq!(read_text(&written(format)).unwrap(), domains);
        }
        assert!(domains.iter().all(|of| of.records.iter().all(|record| record.is_as_hashed(&of.domain))));
    }

    #[test]
    fn every_column_is_covered_by_the_hash() {
        let changes: [fn(&mut ExportedRecord); 10] = [
            |r| r.record += 1,
            |r| r.date = r.date.tomorrow().unwrap(),
            |r| r.zone = "UTC".to_owned(),
            |r| r.limit_qps = None,
            |r| r.peak_requests += 1,
            |r| r.peak_qps += 0.1,
            |r| r.peak_at = "2026-06-01T00:00:00Z".to_owned(),
            |r| r.requests += 1,
            |r| r.throttled_secs = 0,
            |r| r.previous.0[0] ^= 1,
        ];
        let of = ExportedDomain::of(&chains()[1], |_| true);
        for change in changes {
            let mut record = of.records[0].clone();
            change(&mut record);
            assert!(!record.is_as_hashed(&of.domain), "{record:?}");
        }
        assert!(!of.records[0].is_as_hashed(&"other.example.com".into()));
    }

    #[test]
    fn what_is_no_export_is_told_why() {
        let (json, csv) = (written(Format::Json), written(Format::Csv));
        let wrong = [
            "",
            "hello\n",
            "{}",
            "{\"domains\": 7}",
            &json[..json.len() / 2],
            &format!("{json}more"),
            &csv[..csv.len() - 40],
            "domain,record,date\na,1,2026-06-01\n",
            &csv.replacen("4321", "many", 1),
        ];
        insta::assert_snapshot!(wrong.map(|text| read_text(text).unwrap_err()).join("\n"));
    }

    #[test]
    fn an_export_of_nothing_is_one() {
        let header = written(Format::Csv).lines().next().unwrap().to_owned();
        assert_eq!(read_text(&header), Ok(vec![]));
        assert_eq!(read_text("{\"domains\":[]}"), Ok(vec![]));
    }
}
