//! Certificates that cover other domains than the one that they were issued for.

use std::sync::Arc;

use foldhash::HashMap;

use super::KeptCertificates;
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
    /// Puts a certificate where it is found by its names; `subject` is what it was issued for, if it was issued.
    pub(super) fn put(
        &mut self,
        tenant: Option<&TenantId>,
        certificate: &Arc<Certificate>,
        subject: Option<&DomainName>,
    ) {
        for name in certificate.names() {
            let places = match name.wildcard_parent() {
                Some(parent) => self.wildcard.entry(parent.into()).or_default(),
                None if subject == Some(name) => continue,
                None => self.exact.entry(name.shared()).or_default(),
            };
            if !places.iter().any(|(_, other)| Arc::ptr_eq(other, certificate)) {
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

    /// Those of the same tenant that may cover the domain and are none of the `known`.
    pub(super) fn others_for(
        &self,
        spec: &SiteSpec,
        kept: &KeptCertificates,
        known: &[&[Arc<Certificate>]],
    ) -> Vec<Arc<Certificate>> {
        let name = spec.name.as_str();
        let parent = name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        let shelved = self.exact.get(name).into_iter().chain(parent).flatten().map(|(tenant, it)| (tenant, it));
        let issued = kept.of(&spec.name).iter().map(|kept| (&kept.tenant, &kept.certificate));
        let mut others: Vec<Arc<Certificate>> = Vec::new();
        for (_, certificate) in issued.chain(shelved).filter(|(tenant, _)| **tenant == spec.tenant) {
            let is_it = |other: &Arc<Certificate>| Arc::ptr_eq(other, certificate);
            if !known.iter().any(|known| known.iter().any(is_it)) && !others.iter().any(is_it) {
                others.push(Arc::clone(certificate));
            }
        }
        others
    }
}
