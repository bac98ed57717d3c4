//! One domain as served.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls_pki_types::CertificateDer;

use crate::certificate::{CertificateSet, PairPaths};
use crate::issuance::DomainAcme;
use crate::meter::Slot;
use crate::name::{DomainName, TenantId};
use crate::plan::Plan;
use crate::throttle::Throttle;

/// One domain as served. Immutable but for its living parts, which are carried from one snapshot to the next by name.
#[derive(Debug)]
pub struct Site {
    /// What the operator wants of it.
    pub spec: Arc<SiteSpec>,
    /// Its certificates, in the order in which they may serve.
    pub certificates: CertificateSet,
    /// The server behind.
    pub origin: Arc<Origin>,
    /// Living: where every worker counts its requests.
    pub slot: Slot,
    /// Living: what holds it to its plan. `None`: it never had one.
    pub throttle: Option<Arc<Throttle>>,
}

/// An origin server, shared by all sites that name it in the same way.
#[derive(Debug)]
pub struct Origin {
    /// Its place in every worker's pools; never reused.
    pub id: u64,
    /// Where it is.
    pub spec: Arc<OriginSpec>,
    /// How it is verified; `None` for `http`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// What the operator wants of a domain: the configuration's `[[domain]]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteSpec {
    /// The name it is served and metered under.
    pub name: DomainName,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// On which terms it is served; of a configuration, one for all domains that say the same.
    pub terms: Arc<Terms>,
    /// The server behind; of a configuration, one for all domains that say the same.
    pub origin: Arc<OriginSpec>,
    /// Certificate files, in the order written. Empty: none of its own.
    pub certificates: Box<[PairPaths]>,
    /// What it says of certificates that are issued.
    pub acme: DomainAcme,
}

/// What groups of domains have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Terms {
    /// What a domain is held to; `None` is metered and never throttled.
    pub plan: Option<Arc<Plan>>,
    /// The value of `Strict-Transport-Security`, withheld while an internal certificate serves.
    pub hsts: Option<HeaderValue>,
    /// The largest request body in bytes; `None` is unlimited.
    pub max_body_bytes: Option<u64>,
    /// How long the origin may take.
    pub timeouts: Timeouts,
}

impl Site {
    /// Whether it is held to its plan at this moment.
    pub fn is_throttled(&self) -> bool {
        self.throttle.as_ref().is_some_and(|throttle| throttle.is_engaged())
    }
}

impl SiteSpec {
    /// A domain that says no more than it must: a name and an `http` origin.
    pub fn new(name: DomainName, origin: impl Into<Arc<OriginSpec>>) -> Self {
        Self {
            name,
            tenant: None,
            terms: Arc::default(),
            origin: origin.into(),
            certificates: [].into(),
            acme: DomainAcme::Inherit,
        }
    }
}

impl OriginSpec {
    /// A plain HTTP/1.1 origin.
    pub fn http(host: &str, port: u16) -> Self {
        Self { scheme: Scheme::Http, host: host.to_owned(), port, tls: OriginTls::default() }
    }
}

/// Where an origin is and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginSpec {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// A host name or an address, without brackets.
    pub host: String,
    /// 80 or 443 unless written.
    pub port: u16,
    /// How an `https` origin is verified; the default for `http`, where it means nothing.
    pub tls: OriginTls,
}

/// The protocol towards an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 over verified TLS.
    Https,
}

/// How an `https` origin is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OriginTls {
    /// The name sent and checked; default: the origin's host.
    pub sni: Option<String>,
    /// Roots to trust instead of the system's.
    pub ca: Option<Arc<[CertificateDer<'static>]>>,
    /// The operator's explicit word that nothing is to be verified.
    pub insecure: bool,
}

/// How long an origin may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// To accept a connection (and shake hands).
    pub connect: Duration,
    /// From the request sent to the response's head.
    pub response: Duration,
    /// Between two pieces of a body, in either direction, and of a tunnel.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), response: Duration::from_secs(60), idle: Duration::from_secs(60) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_domains_weigh_little() {
        assert!(size_of::<Site>() <= 64, "{}", size_of::<Site>());
        assert!(size_of::<SiteSpec>() <= 96, "{}", size_of::<SiteSpec>());
    }
}
