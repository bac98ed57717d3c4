//! What an earlier export tells of a chain.

use jiff::civil::Date;

use super::exported::{ExportedDomain, ExportedLink};
use crate::usage::{Chain, Flaw};

/// One thing wrong with a domain's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The record's number, if it is one record's.
    pub(super) record: Option<u64>,
    /// The record's date, if that is known.
    pub(super) date: Option<Date>,
    /// What is wrong; names number and date.
    pub(super) what: String,
}

impl Finding {
    pub(super) fn of_domain(what: impl Into<String>) -> Self {
        Self { record: None, date: None, what: what.into() }
    }

    fn of_record(record: u64, date: Date, what: &str) -> Self {
        Self { record: Some(record), date: Some(date), what: format!("record {record} of {date} {what}") }
    }
}

impl From<Flaw> for Finding {
    fn from(flaw: Flaw) -> Self {
        let what = flaw.to_string();
        let (record, date) = match flaw {
            Flaw::Changed { seq, date } | Flaw::Unlinked { seq, date } | Flaw::NotTheHead { seq, date } => {
                (Some(seq), Some(date))
            }
            Flaw::Removed { first, last } => ((first == last).then_some(first), None),
        };
        Self { record, date, what }
    }
}

/// What of an export is not so any more, and what of it was never so. Records that were trimmed since are not missed.
pub(super) fn compare(exported: &ExportedDomain, chain: Option<&Chain>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for record in exported.records.iter().filter(|record| !record.is_as_hashed(&exported.domain)) {
        let edited = "was edited in the export: there its content does not have the hash it carries";
        findings.push(Finding::of_record(record.record, record.date, edited));
    }
    let Some(chain) = chain else {
        if !exported.records.is_empty() || exported.head.record > 0 {
            findings.push(Finding::of_domain("is in the export, and nothing is known of it any more"));
        }
        return findings;
    };
    for record in &exported.records {
        let link = ExportedLink { record: record.record, hash: record.hash };
        match fate(link, chain) {
            Fate::Kept => {}
            Fate::Missing => {
                findings.push(Finding::of_record(
                    record.record,
                    record.date,
                    "is in the export, and was removed since",
                ));
            }
            Fate::Other => {
                let rebuilt = "is not the one that was exported: the chain was rebuilt since the export";
                findings.push(Finding::of_record(record.record, record.date, rebuilt));
            }
        }
    }
    findings.extend(compare_head(exported, chain));
    findings
}

/// The head speaks of a record that an export of some days only does not have.
fn compare_head(exported: &ExportedDomain, chain: &Chain) -> Option<Finding> {
    let ExportedLink { record: number, hash } = exported.head;
    if let Some(record) = exported.records.iter().find(|record| record.record == number) {
        let edited = "is not the last one that the export names: the export was edited";
        return (record.hash != hash).then(|| Finding::of_record(number, record.date, edited));
    }
    let what = match fate(exported.head, chain) {
        Fate::Kept => return None,
        Fate::Missing => "was removed since",
        Fate::Other => "is another one now: the chain was rebuilt since the export",
    };
    let what = format!("record {number}, the last when the export was made, {what}");
    Some(Finding { record: Some(number), date: None, what })
}

enum Fate {
    /// It is there, or was trimmed for its age.
    Kept,
    Missing,
    Other,
}

fn fate(exported: ExportedLink, chain: &Chain) -> Fate {
    let now = chain.records.iter().find(|record| record.seq == exported.record).map(|record| record.link());
    let now = now.or((chain.anchor.seq == exported.record).then_some(chain.anchor));
    match now {
        Some(link) if link.hash == exported.hash => Fate::Kept,
        Some(_) => Fate::Other,
        None if exported.record <= chain.anchor.seq => Fate::Kept,
        None => Fate::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Bucket;
    use crate::usage::{DayFacts, DayRecord, Link};

    fn chain(requests: &[u64]) -> Chain {
        let mut chain =
            Chain { domain: "www.example.com".into(), anchor: Link::GENESIS, records: vec![], head: Link::GENESIS };
        for (day, requests) in (1..).zip(requests) {
            let facts = DayFacts {
                date: jiff::civil::date(2026, 6, day),
                zone: "UTC".to_owned(),
                limit_qps: None,
                peak_count: 15,
                peak_at: Bucket(178_030_800),
                requests: *requests,
                throttled_secs: 0,
            };
            let record = DayRecord::seal(chain.domain.clone(), facts, &chain.head);
            chain.head = record.link();
            chain.records.push(record);
        }
        chain
    }

    fn export(chain: &Chain) -> ExportedDomain {
        ExportedDomain::of(chain, |_| true)
    }

    fn found(exported: &ExportedDomain, chain: Option<&Chain>) -> String {
        let findings = compare(exported, chain);
        findings.iter().map(|finding| format!("{}\n", finding.what)).collect()
    }

    #[test]
    fn a_chain_that_went_on_is_as_exported_also_after_trimming() {
        let exported = export(&chain(&[1, 2, 3]));
        let mut now = chain(&[1, 2, 3, 4, 5]);
        assert_eq!(found(&exported, Some(&now)), "");
        for _ in 0..4 {
            now.anchor = now.records.remove(0).link();
            assert_eq!(found(&exported, Some(&now)), "");
        }
    }

    #[test]
    fn a_chain_rebuilt_from_some_day_on_shows_from_there() {
        let rebuilt = chain(&[1, 20, 3]);
        assert_eq!(rebuilt.flaws(), []);
        insta::assert_snapshot!(found(&export(&chain(&[1, 2, 3])), Some(&rebuilt)));
    }

    #[test]
    fn a_rebuilt_anchor_shows() {
        let mut rebuilt = chain(&[1, 20, 3]);
        rebuilt.anchor = rebuilt.records.drain(..).next_back().unwrap().link();
        insta::assert_snapshot!(found(&export(&chain(&[1, 2, 3])), Some(&rebuilt)));
    }

    #[test]
    fn a_chain_cut_short_shows() {
        insta::assert_snapshot!(found(&export(&chain(&[1, 2, 3])), Some(&chain(&[1]))));
    }

    #[test]
    fn a_domain_that_is_gone_shows() {
        insta::assert_snapshot!(found(&export(&chain(&[1])), None));
        assert_eq!(found(&export(&chain(&[])), None), "");
    }

    #[test]
    fn an_edited_export_shows() {
        let now = chain(&[1, 2]);
        let mut edited = export(&now);
        edited.records[0].requests = 9;
        edited.head.hash.0[0] ^= 1;
        insta::assert_snapshot!(found(&edited, Some(&now)));
    }

    #[test]
    fn the_head_of_an_export_of_some_days_is_compared() {
        let mut exported = export(&chain(&[1, 2, 3]));
        exported.records.pop();
        assert_eq!(found(&exported, Some(&chain(&[1, 2, 3, 4]))), "");
        insta::assert_snapshot!(found(&exported, Some(&chain(&[1, 2, 30]))));
        insta::assert_snapshot!(found(&exported, Some(&chain(&[1, 2]))));
    }
}
