//! Certificates by whom they could serve besides their own domain.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Blueprint, KeptCertificates};
use crate::certificate::{Certificate, PairPaths};
use crate::name::{DomainName, TenantId};
use crate::site::SiteSpec;

/// Every certificate by tenant and name, to find those that cover another domain of the same tenant.
#[derive(Debug, Default)]
pub struct Shelf {
    certificates: HashMap<(Option<TenantId>, DomainName), Vec<Arc<Certificate>>>,
}

impl Shelf {
    /// All of a world.
    pub fn of(blueprint: &Blueprint, good: &HashMap<PairPaths, Arc<Certificate>>, kept: &KeptCertificates) -> Self {
        let mut shelf = Self::default();
        for spec in &blueprint.domains {
            for certificate in spec.certificates.iter().filter_map(|pair| good.get(pair)) {
                shelf.put(spec.tenant.as_ref(), certificate);
            }
        }
        for kept in kept.all() {
            shelf.put(kept.tenant.as_ref(), &kept.certificate);
        }
        shelf
    }

    /// Adds one.
    pub fn put(&mut self, tenant: Option<&TenantId>, certificate: &Arc<Certificate>) {
        for name in certificate.names() {
            let key = (tenant.cloned(), name.clone());
            let on_it = self.certificates.entry(key).or_default();
            // The same one comes again whenever something is said of it.
            if !on_it.iter().any(|other| Arc::ptr_eq(other, certificate)) {
                on_it.push(Arc::clone(certificate));
            }
        }
    }

    /// Those of the same tenant that cover the domain and are none of the `known`.
    pub fn others_for(&self, spec: &SiteSpec, known: &[&[Arc<Certificate>]]) -> Vec<Arc<Certificate>> {
        let of = |name: DomainName| self.certificates.get(&(spec.tenant.clone(), name));
        let over = spec.name.as_str().split_once('.').filter(|_| spec.name.wildcard_parent().is_none());
        let wildcard = over.and_then(|(_, parent)| DomainName::parse(&format!("*.{parent}")).ok()).and_then(of);
        let mut others: Vec<Arc<Certificate>> = Vec::new();
        for certificate in of(spec.name.clone()).into_iter().chain(wildcard).flatten() {
            let is_it = |other: &Arc<Certificate>| Arc::ptr_eq(other, certificate);
            if !known.iter().any(|known| known.iter().any(is_it)) && !others.iter().any(is_it) {
                others.push(Arc::clone(certificate));
            }
        }
        others
    }
}
