//! What a recommendation says, as JSON.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

use crate::advice::{Advice, DayUse, Outcome, Quantiles};
use crate::logs::{ReadLines, Skipped};
use crate::meter::Bucket;

/// Where the counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    Log,
    History,
}

/// Everything that is said.
#[derive(Debug)]
pub(super) struct Report {
    pub source: Source,
    pub zone: TimeZone,
    /// The busiest first.
    pub hosts: Vec<HostAdvice>,
    pub read: ReadLines,
    pub unread: Vec<Unread>,
}

/// What is said of one host.
#[derive(Debug)]
pub(super) struct HostAdvice {
    pub host: Box<str>,
    pub advice: Advice,
}

/// A log that could not be read to its end.
#[derive(Debug, Serialize)]
pub(super) struct Unread {
    pub file: Arc<str>,
    pub why: String,
}

impl Report {
    pub(super) fn new(source: Source, zone: TimeZone, mut hosts: Vec<HostAdvice>) -> Self {
        hosts.sort_by(|a, b| b.advice.requests.cmp(&a.advice.requests).then_with(|| a.host.cmp(&b.host)));
        Self { source, zone, hosts, read: ReadLines::default(), unread: Vec::new() }
    }

    /// A bucket's first moment, RFC 3339 with the zone's offset.
    fn at(&self, bucket: Bucket) -> String {
        let start = bucket.start();
        match Timestamp::from_second(start.secs()) {
            Ok(at) => at.display_with_offset(self.zone.to_offset(at)).to_string(),
            Err(_) => start.to_string(),
        }
    }
}

#[derive(Serialize)]
struct ReportView<'a> {
    source: Source,
    timezone: &'a str,
    hosts: HostViews<'a>,
    lines: u64,
    skipped_lines: u64,
    passed_over_lines: u64,
    skipped: Vec<SkippedView<'a>>,
    unread: &'a [Unread],
}

/// Written one after the other: a million hosts' views would not fit beside a million hosts.
struct HostViews<'a>(&'a Report);

#[derive(Serialize)]
struct HostView<'a> {
    host: &'a str,
    requests: u64,
    first: String,
    last: String,
    peak_qps: f64,
    peak_at: String,
    plan: Option<&'a str>,
    plan_with_grace: Option<&'a str>,
    needed_qps: u64,
    days: Vec<DayView>,
    qps: Option<QuantilesView>,
    plans: Vec<OutcomeView<'a>>,
}

#[derive(Serialize)]
struct DayView {
    date: Date,
    peak_qps: f64,
    peak_at: String,
    requests: u64,
}

#[derive(Serialize)]
struct QuantilesView {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    idle_share: f64,
}

#[derive(Serialize)]
struct OutcomeView<'a> {
    plan: &'a str,
    max_qps: u32,
    alerts_over: u64,
    alerts_throttled: u64,
    throttled_secs: u64,
}

#[derive(Serialize)]
struct SkippedView<'a> {
    file: &'a str,
    line: u64,
    why: String,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ReadLines { lines, skipped, passed_over, places } = &self.read;
        let view = ReportView {
            source: self.source,
            timezone: self.zone.iana_name().unwrap_or("UTC"),
            hosts: HostViews(self),
            lines: *lines,
            skipped_lines: *skipped,
            passed_over_lines: *passed_over,
            skipped: places.iter().map(skipped_view).collect(),
            unread: &self.unread,
        };
        view.serialize(serializer)
    }
}

impl Serialize for HostViews<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(report) = self;
        serializer.collect_seq(report.hosts.iter().map(|host| host_view(report, host)))
    }
}

fn host_view<'a>(report: &Report, host: &'a HostAdvice) -> HostView<'a> {
    let HostAdvice { host, advice } = host;
    HostView {
        host,
        requests: advice.requests,
        first: report.at(advice.first),
        last: report.at(advice.last),
        peak_qps: advice.peak.peak_qps(),
        peak_at: report.at(advice.peak.peak_at),
        plan: advice.plan.as_ref().map(|plan| &*plan.name),
        plan_with_grace: advice.plan_with_grace.as_ref().map(|plan| &*plan.name),
        needed_qps: advice.needed_qps(),
        days: advice.days.iter().map(|day| day_view(report, day)).collect(),
        qps: advice.qps.as_ref().map(quantiles_view),
        plans: advice.outcomes.iter().map(outcome_view).collect(),
    }
}

fn day_view(report: &Report, day: &DayUse) -> DayView {
    DayView { date: day.date, peak_qps: day.peak_qps(), peak_at: report.at(day.peak_at), requests: day.requests }
}

fn quantiles_view(qps: &Quantiles) -> QuantilesView {
    let Quantiles { p50, p90, p99, p999, max, idle_share } = *qps;
    QuantilesView { p50, p90, p99, p999, max, idle_share: (idle_share * 10_000.0).round() / 10_000.0 }
}

fn outcome_view(outcome: &Outcome) -> OutcomeView<'_> {
    OutcomeView {
        plan: &outcome.plan.name,
        max_qps: outcome.plan.max_qps,
        alerts_over: outcome.over,
        alerts_throttled: outcome.excessive,
        throttled_secs: outcome.throttled_secs(),
    }
}

fn skipped_view(skipped: &Skipped) -> SkippedView<'_> {
    SkippedView { file: &skipped.log, line: skipped.line, why: skipped.why.to_string() }
}
