//! Prometheus text. Per-domain series are written straight from the domains' figures: with 100,000 domains the library's
//! registry would take a fifth of a second and 40 MB to do the same.

use std::fmt::Write as _;

use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::clock::UnixTime;
use crate::meter::STATUS_CLASSES;
use crate::snapshot::Snapshot;
use crate::usage::Figures;

/// Writes all metrics. Label values are configured names and fixed words, so nothing in them needs escaping and no
/// client can make a series.
pub fn render(registry: &Registry, figures: &[Figures], snapshot: &Snapshot, now: UnixTime) -> String {
    let mut process = Vec::new();
    // Fails only for families without a name, of which there are none.
    _ = TextEncoder::new().encode(&registry.gather(), &mut process);
    let mut text = Text(String::from_utf8(process).unwrap_or_default());

    text.family("lockgate_requests_total", "counter", "Requests by the class of their answer.");
    for f in figures {
        for (class, count) in STATUS_CLASSES.iter().zip(f.answered).filter(|(_, count)| *count > 0) {
            text.sample("lockgate_requests_total", &f.domain, Some(("status", class)), count);
        }
    }
    text.each(figures, "lockgate_domain_qps", "gauge", "Requests per second in the last closed bucket.", |f| {
        Some(f.qps)
    });
    text.each(figures, "lockgate_domain_peak_qps", "gauge", "Today's highest QPS of any bucket.", |f| Some(f.peak_qps));
    text.each(figures, "lockgate_domain_limit_qps", "gauge", "The plan's limit.", |f| f.limit_qps);
    text.each(figures, "lockgate_domain_throttled", "gauge", "Whether the domain is held to its limit.", |f| {
        Some(u8::from(f.is_throttled))
    });
    let help = "Requests refused by the throttle.";
    text.each(figures, "lockgate_throttled_requests_total", "counter", help, |f| Some(f.throttled_requests));

    text.family("lockgate_origin_errors_total", "counter", "Failures of the origin.");
    for f in figures {
        for (fault, count) in &f.origin_faults {
            text.sample("lockgate_origin_errors_total", &f.domain, Some(("kind", fault.label())), count);
        }
    }
    text.family("lockgate_alerts_total", "counter", "Alerts raised.");
    for f in figures {
        for (kind, count) in &f.alerts {
            text.sample("lockgate_alerts_total", &f.domain, Some(("kind", kind.label())), count);
        }
    }

    let help = "The last second of the certificate's validity, as Unix time.";
    text.family("lockgate_certificate_not_after_seconds", "gauge", help);
    let names_and_sites = snapshot.sites().map(|site| (&site.spec.name, site));
    let standings: Vec<_> =
        names_and_sites.map(|(name, site)| (name.as_str(), site.certificates.standing(name, now))).collect();
    for (domain, standing) in &standings {
        let name = "lockgate_certificate_not_after_seconds";
        if let Some(own) = standing.own_not_after {
            text.sample(name, domain, Some(("source", "own")), own.secs());
        }
        if let Some(not_after) = standing.not_after.filter(|_| standing.source.is_fallback()) {
            text.sample(name, domain, Some(("source", standing.source.label())), not_after.secs());
        }
    }
    let help = "Whether a certificate other than the domain's own serves.";
    text.family("lockgate_certificate_fallback_active", "gauge", help);
    for (domain, standing) in &standings {
        let active = u8::from(standing.source.is_fallback());
        text.sample("lockgate_certificate_fallback_active", domain, None, active);
    }
    let help = "How long a valid certificate is assured without network, the internal authority's not counted.";
    text.family("lockgate_certificate_guaranteed_seconds", "gauge", help);
    for site in snapshot.sites() {
        // The last second counts whole.
        let name = &site.spec.name;
        let until = site.certificates.guaranteed_until(name, now);
        let left = until.map_or(0, |until| until.secs().saturating_add(1).saturating_sub(now.secs()));
        text.sample("lockgate_certificate_guaranteed_seconds", name.as_str(), None, left);
    }
    text.0
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn each<V: std::fmt::Display>(
        &mut self,
        figures: &[Figures],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&Figures) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for f in figures {
            if let Some(value) = value(f) {
                self.sample(name, &f.domain, None, value);
            }
        }
    }

    fn sample(&mut self, name: &str, domain: &str, label: Option<(&str, &str)>, value: impl std::fmt::Display) {
        _ = match label {
            Some((key, label)) => writeln!(self.0, "{name}{{domain=\"{domain}\",{key}=\"{label}\"}} {value}"),
            None => writeln!(self.0, "{name}{{domain=\"{domain}\"}} {value}"),
        };
    }
}
