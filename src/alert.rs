//! What the operator or the tenant is told.

pub mod reminder;

use std::sync::Arc;

use crate::clock::UnixTime;

/// The kinds of alerts that this version raises; the names are those of the `kind` label and of every channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A bucket closed over the plan's limit, by at most 10 %.
    QpsOver,
    /// A bucket closed over it by more: the domain is throttled.
    QpsThrottled,
    /// No bucket of the window is over it any more.
    ThrottleLifted,
    /// A certificate other than the domain's own has taken over.
    FallbackInstalled,
    /// The domain's own certificate serves again.
    FallbackEnded,
    /// The domain's own certificate ends soon.
    CertificateExpiring,
    /// The domain's own certificate has expired.
    CertificateExpired,
    /// A certificate was issued.
    CertificateIssued,
    /// One that was ordered was not.
    IssuanceFailed,
}

impl AlertKind {
    /// The name.
    pub fn label(self) -> &'static str {
        match self {
            Self::QpsOver => "qps_over",
            Self::QpsThrottled => "qps_throttled",
            Self::ThrottleLifted => "throttle_lifted",
            Self::FallbackInstalled => "fallback_installed",
            Self::FallbackEnded => "fallback_ended",
            Self::CertificateExpiring => "certificate_expiring",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateIssued => "certificate_issued",
            Self::IssuanceFailed => "issuance_failed",
        }
    }
}

/// One occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// To which domain.
    pub domain: Arc<str>,
    /// When.
    pub at: UnixTime,
    /// The figures, in a sentence.
    pub detail: String,
}
