//! A certificate, or one that is to be, with all that is known of it.

use std::fmt;

use clap::ValueEnum;
use rustls_pki_types::CertificateDer;

use crate::certificate::{Facts, PairPaths};
use crate::clock::UnixTime;
use crate::issuance::renewal::is_expiring;
use crate::issuance::subject::Subject;
use crate::name::{DomainName, TenantId};
use crate::site::SiteSpec;
use crate::store::inventory::{Ari, Attempts, CertificateId, Provenance, Role, StoredCertificate};

const DAY_SECS: i64 = 86_400;

/// Where a certificate stands. The first three are of one that is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// A managed domain has none, and none is under way
    Waiting,
    /// An order is under way
    Validating,
    /// The last order failed
    Failed,
    /// It is there, and its end is far
    Issued,
    /// Its end is near
    Expiring,
    /// Its end is over
    Expired,
    /// It was revoked through Lockgate
    Revoked,
}

impl State {
    /// In the order in which they are counted out.
    pub(super) const ALL: [Self; 7] =
        [Self::Waiting, Self::Validating, Self::Issued, Self::Expiring, Self::Failed, Self::Expired, Self::Revoked];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::Issued => "issued",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum For {
    /// To be the domain's own, or its standby.
    Domain(Role),
    /// To serve where there is no other: the operator's own, or one of the internal authority.
    Fallback,
}

impl For {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Domain(role) => role.label(),
            Self::Fallback => "fallback",
        }
    }
}

/// A certificate that is there.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// What the leaf says.
    pub(super) facts: Facts,
    /// Leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Its files, if it lies in files.
    pub(super) files: Option<PairPaths>,
    pub(super) revoked_at: Option<UnixTime>,
    pub(super) ari: Option<Ari>,
}

/// A certificate, or one that is to be.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its number in the inventory.
    pub(super) id: Option<CertificateId>,
    /// What it is called: the first name of what it was ordered for, or the domain that has its files.
    pub(super) name: String,
    /// `file`, `uploaded`, `acme`, `internal`.
    pub(super) source: &'static str,
    /// Whether nobody wrote its name into the configuration: it was approved at a handshake.
    pub(super) is_on_demand: bool,
    /// Whether its domain is served with a certificate of the internal authority.
    pub(super) is_internal_serving: bool,
    pub(super) role: For,
    pub(super) tenant: Option<TenantId>,
    /// The authority's directory URL, as far as there is one.
    pub(super) ca: String,
    /// The names that it is for, or is to be for.
    pub(super) names: Vec<DomainName>,
    pub(super) state: State,
    /// Whether no newer one was issued for the same subject and role.
    pub(super) is_newest: bool,
    /// `None`: it is to be.
    pub(super) held: Option<Held>,
    /// When it is renewed by itself.
    pub(super) renew_at: Option<UnixTime>,
    /// What failed since the last success.
    pub(super) attempts: Option<Attempts>,
    /// Domains that it serves now.
    pub(super) serves: Vec<DomainName>,
    /// Domains that it could take over.
    pub(super) stands_by_for: Vec<DomainName>,
}

impl Entry {
    /// One that lies in files.
    pub(super) fn of_files(name: String, role: For, tenant: Option<TenantId>, held: Held, now: UnixTime) -> Self {
        Self {
            id: None,
            name,
            source: "file",
            is_on_demand: false,
            is_internal_serving: false,
            role,
            tenant,
            ca: String::new(),
            names: held.facts.names.to_vec(),
            state: held.state(now),
            is_newest: true,
            held: Some(held),
            renew_at: None,
            attempts: None,
            serves: Vec::new(),
            stands_by_for: Vec::new(),
        }
    }

    /// One of the inventory.
    pub(super) fn of_stored(stored: StoredCertificate, now: UnixTime) -> Self {
        let StoredCertificate { id, certificate, revoked_at, ari } = stored;
        let held = Held { facts: certificate.facts, chain: certificate.chain, files: None, revoked_at, ari };
        let role = For::Domain(certificate.role);
        let entry = Self::of_files(certificate.subject.to_string(), role, certificate.tenant, held, now);
        let (source, is_on_demand) = match certificate.provenance {
            Provenance::Acme => ("acme", false),
            Provenance::OnDemand => ("acme", true),
            Provenance::Uploaded => ("uploaded", false),
        };
        Self { id: Some(id), source, is_on_demand, ca: certificate.ca.to_string(), ..entry }
    }

    /// One that is to be.
    pub(super) fn to_be(name: &DomainName, role: Role, state: State, subject: Option<&Subject>) -> Self {
        Self {
            id: None,
            name: name.to_string(),
            source: "acme",
            is_on_demand: false,
            is_internal_serving: false,
            role: For::Domain(role),
            tenant: subject.and_then(|subject| subject.terms.tenant.clone()),
            ca: String::new(),
            names: subject.map_or_else(|| vec![name.clone()], |subject| subject.names().cloned().collect()),
            state,
            is_newest: true,
            held: None,
            renew_at: None,
            attempts: None,
            serves: Vec::new(),
            stands_by_for: Vec::new(),
        }
    }

    /// The one that the internal authority makes for a domain that has no other. It is in the memory of the process that
    /// serves it, so its facts are not known here.
    pub(super) fn internal(spec: &SiteSpec) -> Self {
        let to_be = Self::to_be(&spec.name, Role::Own, State::Issued, None);
        let (tenant, serves) = (spec.tenant.clone(), vec![spec.name.clone()]);
        Self { source: "internal", role: For::Fallback, tenant, serves, is_internal_serving: true, ..to_be }
    }

    /// Whether it may be sent to clients.
    pub(super) fn is_usable(&self) -> bool {
        self.held.is_some() && matches!(self.state, State::Issued | State::Expiring)
    }

    /// Whether it is good for every name that `domain` serves.
    pub(super) fn covers(&self, domain: &DomainName) -> bool {
        self.names.iter().any(|name| name.covers(domain.as_str()))
    }

    pub(super) fn not_after(&self) -> Option<UnixTime> {
        self.held.as_ref().map(|held| held.facts.not_after)
    }

    /// Whole days until its end; negative once it is over.
    pub(super) fn days_left(&self, now: UnixTime) -> Option<i64> {
        let end = self.not_after()?.secs().saturating_add(1);
        Some(end.saturating_sub(now.secs()).div_euclid(DAY_SECS))
    }
}

impl Held {
    fn state(&self, now: UnixTime) -> State {
        let Facts { not_before, not_after, .. } = self.facts;
        match self.revoked_at {
            Some(_) => State::Revoked,
            None if now.secs() > not_after.secs() => State::Expired,
            None if is_expiring(not_before, not_after, now) => State::Expiring,
            None => State::Issued,
        }
    }
}
