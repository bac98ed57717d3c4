//! How the writing goes, for metrics.

use prometheus::{
    Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::upkeep::harvest::Status;

/// What is timed: values of the label `operation`.
const TIMED: [&str; 4] = ["journal", "fold", "seal", "trim"];
/// What can fail.
const FAILING: [&str; 5] = ["journal", "open", "fold", "seal", "trim"];

/// The handles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gauges {
    seconds: HistogramVec,
    errors: IntCounterVec,
    backlog_domains: IntGauge,
    backlog_buckets: IntGauge,
    given_up: IntCounter,
    journal_bytes: IntGauge,
}

impl Gauges {
    /// Registers them with `registry`.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "How long it took to write down what was metered.";
        let buckets = vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];
        let opts = HistogramOpts::new("lockgate_store_seconds", help).buckets(buckets);
        let help = "Failures to write down what was metered; nothing is lost by one.";
        let gauge = |name, help| IntGauge::new(name, help);
        let gauges = Self {
            seconds: HistogramVec::new(opts, &["operation"])?,
            errors: IntCounterVec::new(Opts::new("lockgate_store_errors_total", help), &["operation"])?,
            backlog_domains: gauge("lockgate_store_backlog_domains", "Domains whose use is still to be stored.")?,
            backlog_buckets: gauge("lockgate_store_backlog_buckets", "Counts of buckets still to be stored.")?,
            given_up: IntCounter::new(
                "lockgate_store_given_up_buckets_total",
                "Counts of buckets that will not be stored because too many waited.",
            )?,
            journal_bytes: gauge("lockgate_journal_bytes", "Bytes in the journal's files.")?,
        };
        registry.register(Box::new(gauges.seconds.clone()))?;
        registry.register(Box::new(gauges.errors.clone()))?;
        registry.register(Box::new(gauges.backlog_domains.clone()))?;
        registry.register(Box::new(gauges.backlog_buckets.clone()))?;
        registry.register(Box::new(gauges.given_up.clone()))?;
        registry.register(Box::new(gauges.journal_bytes.clone()))?;
        for operation in FAILING {
            gauges.errors.with_label_values(&[operation]);
        }
        for operation in TIMED {
            _ = gauges.histogram(operation);
        }
        Ok(gauges)
    }

    fn histogram(&self, operation: &str) -> Histogram {
        self.seconds.with_label_values(&[operation])
    }

    /// Times one operation from now on.
    pub fn time(&self, operation: &str) -> HistogramTimer {
        self.histogram(operation).start_timer()
    }

    /// Counts a failure.
    pub fn failed(&self, operation: &str) {
        self.errors.with_label_values(&[operation]).inc();
    }

    /// Shows the journal's size.
    pub fn journal_bytes(&self, bytes: u64) {
        self.journal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Shows what waits.
    pub fn waiting(&self, status: &Status, in_hand: usize) {
        let shown = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.backlog_domains.set(shown(status.unsaved.saturating_add(in_hand)));
        self.backlog_buckets.set(shown(status.backlog));
        self.given_up.inc_by(status.given_up.saturating_sub(self.given_up.get()));
    }
}
