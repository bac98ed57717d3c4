//! Certificates that cover other domains than the one that they were issued for.

use std::sync::Arc;

use foldhash::HashMap;

use super::{Kept, KeptCertificates};
use crate::certificate::Certificate;
use crate::name::{DomainName, TenantId};
use crate::site::SiteSpec;

/// Certificates by their names, but for those that are found by their subject: most are for nothing else.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    exact: HashMap<Arc<str>, Vec<OfTenant>>,
    /// By parent: `*.example.com` is found under `example.com`.
    wildcard: HashMap<Arc<str>, Vec<OfTenant>>,
}

type OfTenant = (Option<TenantId>, Arc<Certificate>);

impl Shelf {
    /// Puts a certificate of a tenant's files where it is found by its names.
    pub(super) fn put(&mut self, tenant: Option<&TenantId>, certificate: &Arc<Certificate>) {
        self.put_for(tenant, certificate, None);
    }

    /// Puts one of the inventory where it is found by its names, but for the one that it is found by anyway: its
    /// subject. What was ordered goes with the domain that it was ordered for, to whom `tenant_of` says that belongs now;
    /// `None` there: it is no domain any more.
    pub(super) fn put_kept<'t>(
        &mut self,
        kept: &'t Kept,
        tenant_of: impl FnOnce(&DomainName) -> Option<Option<&'t TenantId>>,
    ) {
        // Nearly all: whose they are need not be looked up.
        let is_subject = |name: &DomainName| *name == kept.subject && name.wildcard_parent().is_none();
        if kept.certificate.names().iter().all(is_subject) {
            return;
        }
        let now = if kept.ca.is_empty() { None } else { tenant_of(&kept.subject) };
        self.put_for(now.unwrap_or(kept.tenant.as_ref()), &kept.certificate, Some(&kept.subject));
    }

    fn put_for(&mut self, tenant: Option<&TenantId>, certificate: &Arc<Certificate>, subject: Option<&DomainName>) {
        for name in certificate.names() {
            let places = match name.wildcard_parent() {
                Some(parent) => self.wildcard.entry(parent.into()).or_default(),
                None if subject == Some(name) => continue,
                None => self.exact.entry(name.shared()).or_default(),
            };
            // Two tenants may name the same files.
            if !places.iter().any(|(of, other)| of.as_ref() == tenant && Arc::ptr_eq(other, certificate)) {
                places.push((tenant.cloned(), Arc::clone(certificate)));
            }
        }
    }

    /// Takes a certificate away.
    pub(super) fn remove(&mut self, certificate: &Arc<Certificate>) {
        for name in certificate.names() {
            let (places, key) = match name.wildcard_parent() {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            if let Some(place) = places.get_mut(key) {
                place.retain(|(_, other)| !Arc::ptr_eq(other, certificate));
                if place.is_empty() {
                    places.remove(key);
                }
            }
        }
    }

    /// Those of the same tenant, and what was once ordered for the domain, that may cover it and are none of the `known`.
    pub(super) fn others_for(
        &self,
        spec: &SiteSpec,
        kept: &KeptCertificates,
        known: &[&[Arc<Certificate>]],
    ) -> Vec<Arc<Certificate>> {
        let name = spec.name.as_str();
        let parent = name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        let shelved = self.exact.get(name).into_iter().chain(parent).flatten();
        let shelved = shelved.filter(|(tenant, _)| *tenant == spec.tenant).map(|(_, certificate)| certificate);
        let issued = kept.of(&spec.name).iter().filter(|kept| kept.belongs_to(spec.tenant.as_ref()));
        let mut others: Vec<Arc<Certificate>> = Vec::new();
        for certificate in issued.map(|kept| &kept.certificate).chain(shelved) {
            let is_it = |other: &Arc<Certificate>| Arc::ptr_eq(other, certificate);
            if !known.iter().any(|known| known.iter().any(is_it)) && !others.iter().any(is_it) {
                others.push(Arc::clone(certificate));
            }
        }
        others
    }
}
