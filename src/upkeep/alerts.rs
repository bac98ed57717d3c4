//! Where alerts go: the log, and a count per domain and kind. Inbox and channels will hang here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::alert::{Alert, AlertKind};
use crate::clock::UnixTime;

/// How long the same alert of the same domain is only counted after it was logged.
const QUIET_SECS: i64 = 3600;

/// Alerts so far. As many entries as domains and kinds that ever had one.
#[derive(Debug, Default)]
pub struct Alerts {
    raised: Mutex<BTreeMap<(Arc<str>, AlertKind), Raised>>,
}

#[derive(Debug, Clone, Copy)]
struct Raised {
    times: u64,
    logged: UnixTime,
}

impl Alerts {
    /// Raises one alert. A domain that is over its limit in every bucket of a day does not fill the log with it.
    pub fn raise(&self, alert: &Alert) {
        let mut raised = self.lock();
        let entry = raised.entry((Arc::clone(&alert.domain), alert.kind));
        let is_new = matches!(entry, std::collections::btree_map::Entry::Vacant(_));
        let raised = entry.or_insert(Raised { times: 0, logged: alert.at });
        raised.times += 1;
        let quiet =
            !is_new && (alert.at.secs() - raised.logged.secs()).abs() < QUIET_SECS && alert.kind == AlertKind::QpsOver;
        if !quiet {
            raised.logged = alert.at;
            let Alert { kind, domain, detail, .. } = alert;
            match kind {
                AlertKind::CertificateIssued => tracing::info!(kind = kind.label(), %domain, "{detail}"),
                _ => tracing::warn!(kind = kind.label(), %domain, "{detail}"),
            }
        }
    }

    /// How often each was raised.
    pub fn counts(&self) -> Vec<(Arc<str>, AlertKind, u64)> {
        self.lock().iter().map(|((domain, kind), raised)| (Arc::clone(domain), *kind, raised.times)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Arc<str>, AlertKind), Raised>> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
