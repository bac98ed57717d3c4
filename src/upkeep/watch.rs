//! The expiry watch: which certificate serves each domain, told when it changes. It changes nothing itself: every
//! handshake makes the choice against the clock.

use std::collections::HashMap;

use super::alerts::Alerts;
use crate::alert::{Alert, AlertKind};
use crate::certificate::Source;
use crate::clock::UnixTime;
use crate::meter::Slot;
use crate::snapshot::Snapshot;

/// What served each domain when it was last looked at.
#[derive(Debug, Default)]
pub struct Watch {
    serving: HashMap<Slot, Source>,
}

impl Watch {
    /// Compares what serves at `now` with what served before, and raises an alert for each swap.
    pub fn step(&mut self, now: UnixTime, snapshot: &Snapshot, alerts: &Alerts) {
        for site in snapshot.sites() {
            let standing = site.certificates.standing(now);
            // A domain that is new has lost nothing yet, but a fallback from the first second is still told.
            let serving = self.serving.entry(site.slot).or_insert(Source::Own);
            let before = std::mem::replace(serving, standing.source);
            let raise =
                |kind, detail: String| alerts.raise(&Alert { kind, domain: site.name.shared(), at: now, detail });
            if standing.source == before {
                continue;
            }
            if before == Source::Own
                && let Some(own) = standing.own_not_after
                && own.secs() < now.secs()
            {
                raise(AlertKind::CertificateExpired, format!("its own certificate expired at {own}"));
            }
            if standing.source.is_fallback() {
                raise(AlertKind::FallbackInstalled, format!("served with the {} certificate", standing.source));
            } else {
                raise(AlertKind::FallbackEnded, "its own certificate serves again".to_owned());
            }
        }
    }
}
