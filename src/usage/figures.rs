//! What the outside is shown of a domain's use.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::alert::AlertKind;
use crate::refusal::OriginFault;

/// One domain's figures, for metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Whose.
    pub domain: Arc<str>,
    /// Answers by status class, since the process began.
    pub answered: [u64; 5],
    /// Of those, refused by the throttle.
    pub throttled_requests: u64,
    /// QPS of the last closed bucket.
    pub qps: f64,
    /// Today's peak QPS; 0 before today's first request.
    pub peak_qps: f64,
    /// The plan's limit; `None` if the domain has no plan.
    pub limit_qps: Option<u32>,
    /// Whether the verdict holds.
    pub is_throttled: bool,
    /// Failures of the origin, by kind.
    pub origin_faults: Vec<(OriginFault, u64)>,
    /// Alerts raised, by kind.
    pub alerts: Vec<(AlertKind, u64)>,
}

/// A question for the figures of all served domains, as of now.
pub type AskFigures = oneshot::Sender<Vec<Figures>>;
