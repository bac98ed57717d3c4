//! How issuing goes, in numbers.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The handles.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Orders by authority and outcome.
    pub(super) orders: IntCounterVec,
    /// Failures by authority and reason.
    pub(super) failures: IntCounterVec,
    /// Orders under way.
    pub(super) under_way: IntGauge,
    /// Orders that are due and wait for their turn.
    pub(super) waiting: IntGauge,
    /// Names on demand that were approved and not ordered.
    pub(super) put_off: IntCounter,
}

impl Metrics {
    /// Registers them with `registry`.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("lockgate_acme_orders_total", "Certificate orders by authority and outcome.");
        let orders = IntCounterVec::new(opts, &["ca", "result"])?;
        let opts =
            Opts::new("lockgate_acme_failures_total", "Certificate orders that failed, by authority and reason.");
        let failures = IntCounterVec::new(opts, &["ca", "reason"])?;
        let under_way = IntGauge::new("lockgate_acme_orders_under_way", "Certificate orders under way.")?;
        let waiting =
            IntGauge::new("lockgate_acme_orders_waiting", "Certificate orders that are due and wait for their turn.")?;
        let help = "Names on demand that were approved and not ordered: there were as many new ones in the hour as there may be.";
        let put_off = IntCounter::new("lockgate_on_demand_put_off_total", help)?;
        registry.register(Box::new(put_off.clone()))?;
        registry.register(Box::new(orders.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(under_way.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self { orders, failures, under_way, waiting, put_off })
    }
}
