//! Subjects: which names a certificate is ordered for together, and on whose account.

mod authority;
mod challenge;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

pub use authority::{authorities_for, can_issue, is_public};
pub use challenge::{ChallengeError, challenges_for, has_another_way, turn_after};

use super::{Acme, CertificateSpec, DomainAcme, Method};
use crate::name::{DomainName, TenantId};
use crate::site::SiteSpec;

/// What one certificate is to be for: at least one name, and what it has in common with many other subjects.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The first of its names. It names the subject: in the store, in logs, on the command line.
    pub name: DomainName,
    /// `None` for nearly all.
    others: Option<Box<Others>>,
    /// How a certificate for it is obtained, and for whom.
    pub terms: Arc<Terms>,
}

/// The names behind the first one.
#[derive(Debug, Clone, Default, PartialEq)]
struct Others {
    required: Vec<DomainName>,
    /// Those that are left out when control over them cannot be proved.
    optional: Vec<DomainName>,
}

/// How certificates are obtained, and for whom. A hundred thousand subjects are on a few terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Whose the certificates are.
    pub tenant: Option<TenantId>,
    /// How they are obtained.
    pub method: Arc<Method>,
    /// Whether the domain has certificate files of its own: then only a standby is ordered.
    pub is_manual: bool,
}

impl Subject {
    /// For one name.
    pub fn new(name: DomainName, terms: Arc<Terms>) -> Self {
        Self { name, others: None, terms }
    }

    /// For all of `names`, the first of them naming it. `None` if there is none.
    pub fn of_all(names: impl IntoIterator<Item = DomainName>, terms: Arc<Terms>) -> Option<Self> {
        let mut names = names.into_iter();
        let subject = Self::new(names.next()?, terms);
        let required: Vec<_> = names.collect();
        let others = (!required.is_empty()).then(|| Box::new(Others { required, ..Others::default() }));
        Some(Self { others, ..subject })
    }

    /// The same with names that are left out when control over them cannot be proved.
    pub fn taking_along(mut self, names: impl IntoIterator<Item = DomainName>) -> Self {
        for name in names {
            self.others.get_or_insert_default().optional.push(name);
        }
        self
    }

    /// All names, in the order in which they are ordered.
    pub fn names(&self) -> impl Iterator<Item = &DomainName> {
        self.required().chain(self.optional())
    }

    /// The names without which there is no certificate.
    pub fn required(&self) -> impl Iterator<Item = &DomainName> {
        std::iter::once(&self.name).chain(self.others.iter().flat_map(|others| &others.required))
    }

    /// The names that are left out when control over them cannot be proved.
    pub fn optional(&self) -> impl Iterator<Item = &DomainName> {
        self.others.iter().flat_map(|others| &others.optional)
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
pub fn subjects(domains: &[Arc<SiteSpec>], groups: &[Arc<CertificateSpec>], acme: Option<&Acme>) -> Vec<Arc<Subject>> {
    let Some(acme) = acme.filter(|acme| acme.agreed_to_terms) else { return Vec::new() };
    let inherited = Arc::new(acme.method.clone());
    let mut inheriting: HashMap<(Option<&TenantId>, bool), Arc<Terms>> = HashMap::new();
    let served: HashMap<&str, &SiteSpec> = domains.iter().map(|spec| (spec.name.as_str(), &**spec)).collect();
    let mut grouped = HashSet::new();
    let mut subjects = Vec::with_capacity(groups.len() + domains.len());
    for group in groups {
        // What one tenant serves is not for another's certificate.
        let is_ours = |name: &&DomainName| served.get(name.as_str()).is_none_or(|spec| spec.tenant == group.tenant);
        let names: Vec<_> = group.names.iter().filter(is_ours).collect();
        grouped.extend(names.iter().copied());
        let terms = Terms { tenant: group.tenant.clone(), method: Arc::new(group.method.clone()), is_manual: false };
        subjects.extend(Subject::of_all(names.into_iter().cloned(), Arc::new(terms)).map(Arc::new));
    }
    for spec in domains.iter().filter(|spec| !grouped.contains(&spec.name)) {
        let is_manual = !spec.certificates.is_empty();
        let terms = |method| Arc::new(Terms { tenant: spec.tenant.clone(), method, is_manual });
        let terms = match &spec.acme {
            DomainAcme::Never => continue,
            DomainAcme::Inherit => {
                let shared = inheriting.entry((spec.tenant.as_ref(), is_manual));
                Arc::clone(shared.or_insert_with(|| terms(Arc::clone(&inherited))))
            }
            DomainAcme::Method(method) => terms(Arc::new((**method).clone())),
        };
        let subject = Subject::new(spec.name.clone(), terms).taking_along(taken_along(spec, &served));
        subjects.push(Arc::new(subject));
    }
    subjects.retain(|subject| can_be_had(acme, subject));
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
    !subject.terms.is_manual && some(false) || subject.terms.method.standby && some(true)
}
