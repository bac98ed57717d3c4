//! Subjects: which names a certificate is ordered for together, and on whose account.

mod authority;
mod challenge;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use authority::{authorities_for, can_issue};
pub use challenge::{ChallengeError, challenges_for};

use super::{Acme, CertificateSpec, DomainAcme, Method};
use crate::name::{DomainName, TenantId};
use crate::site::SiteSpec;

/// What one certificate is to be for. Its first name names it: in the store, in logs, on the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// In the order in which they are ordered; never empty.
    pub names: Vec<DomainName>,
    /// Of those, the ones that are left out when control over them cannot be proved.
    pub optional: Vec<DomainName>,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// How it is obtained.
    pub method: Arc<Method>,
    /// Whether the domain has certificate files of its own: then only a standby is ordered.
    pub is_manual: bool,
}

impl Subject {
    /// The names without which there is no certificate.
    pub fn required(&self) -> impl Iterator<Item = &DomainName> {
        self.names.iter().filter(|name| !self.optional.contains(name))
    }
}

/// What certificates are to be had for: one subject for each group, and one for each domain that is in no group of its
/// tenant's under its very name. In that order, each in the order given; no two have the same first name, as long as no
/// two groups do.
///
/// A domain with certificate files is only for a standby, if it is to have one. `*.example.com` takes `example.com`
/// along, unless that is another tenant's here or is not to be managed; `www.example.com` does where `example.com` is
/// a managed domain of the same tenant. What none of the authorities can issue for is left out, as is everything
/// before the operator agreed to their terms.
pub fn subjects(domains: &[Arc<SiteSpec>], groups: &[Arc<CertificateSpec>], acme: Option<&Acme>) -> Vec<Subject> {
    let Some(acme) = acme.filter(|acme| acme.agreed_to_terms) else { return Vec::new() };
    let inherited = Arc::new(acme.method.clone());
    let served: HashMap<&str, &SiteSpec> = domains.iter().map(|spec| (spec.name.as_str(), &**spec)).collect();
    let mut grouped = HashSet::new();
    let mut subjects = Vec::new();
    for group in groups {
        // What one tenant serves is not for another's certificate.
        let is_ours = |name: &&DomainName| served.get(name.as_str()).is_none_or(|spec| spec.tenant == group.tenant);
        let names: Vec<_> = group.names.iter().filter(is_ours).collect();
        grouped.extend(names.iter().copied());
        subjects.push(Subject {
            names: names.into_iter().cloned().collect(),
            optional: Vec::new(),
            tenant: group.tenant.clone(),
            method: Arc::new(group.method.clone()),
            is_manual: false,
        });
    }
    for spec in domains.iter().filter(|spec| !grouped.contains(&spec.name)) {
        let method = match &spec.acme {
            DomainAcme::Never => continue,
            DomainAcme::Inherit => Arc::clone(&inherited),
            DomainAcme::Method(method) => Arc::new((**method).clone()),
        };
        let optional: Vec<_> = taken_along(spec, &served).into_iter().collect();
        subjects.push(Subject {
            names: std::iter::once(spec.name.clone()).chain(optional.clone()).collect(),
            optional,
            tenant: spec.tenant.clone(),
            method,
            is_manual: !spec.certificates.is_empty(),
        });
    }
    subjects.retain(|subject| !subject.names.is_empty() && can_be_had(acme, subject));
    subjects
}

/// The name that `spec`'s certificate is for as well, if it can be proved.
fn taken_along(spec: &SiteSpec, served: &HashMap<&str, &SiteSpec>) -> Option<DomainName> {
    let wildcard = spec.name.wildcard_parent();
    let apex = wildcard.or_else(|| spec.name.as_str().strip_prefix("www."))?;
    let is_welcome = match served.get(apex) {
        Some(other) if other.tenant != spec.tenant || other.acme == DomainAcme::Never => false,
        Some(other) => wildcard.is_some() || other.certificates.is_empty(),
        None => wildcard.is_some(),
    };
    let apex = DomainName::parse(apex).ok().filter(|_| is_welcome)?;
    // `www.lan2` may be somebody's on the Internet, `lan2` is not: no authority issues for both.
    (authority::is_public(&apex) == authority::is_public(&spec.name)).then_some(apex)
}

/// Whether some authority can issue what is wanted.
fn can_be_had(acme: &Acme, subject: &Subject) -> bool {
    let some = |is_standby| !authorities_for(acme, subject, is_standby, None, 0).is_empty();
    !subject.is_manual && some(false) || subject.method.standby && some(true)
}
