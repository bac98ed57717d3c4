//! The inventory's certificates, as the world is made of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::certificate::Certificate;
use crate::name::{DomainName, TenantId};
use crate::store::inventory::{Ari, CertificateId, Role};

/// A certificate of the inventory.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its number.
    pub id: CertificateId,
    /// What it was ordered for.
    pub subject: DomainName,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// What it is for.
    pub role: Role,
    /// Whether its name was approved at a handshake: nobody wrote it into the configuration then.
    pub is_on_demand: bool,
    /// The authority's directory URL; empty if it was uploaded.
    pub ca: Arc<str>,
    /// What a handshake needs.
    pub certificate: Arc<Certificate>,
    /// When the authority would like it to be renewed, if it was asked.
    pub ari: Option<Ari>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct KeptCertificates {
    by_id: BTreeMap<CertificateId, Arc<Kept>>,
    by_subject: HashMap<DomainName, Vec<Arc<Kept>>>,
}

impl KeptCertificates {
    /// Adds one, in the place of the one with its number.
    pub fn put(&mut self, kept: Arc<Kept>) {
        self.remove(kept.id);
        self.by_subject.entry(kept.subject.clone()).or_default().push(Arc::clone(&kept));
        self.by_id.insert(kept.id, kept);
    }

    /// Takes one away.
    pub fn remove(&mut self, id: CertificateId) -> Option<Arc<Kept>> {
        let kept = self.by_id.remove(&id)?;
        if let Some(of_subject) = self.by_subject.get_mut(&kept.subject) {
            of_subject.retain(|other| other.id != id);
            if of_subject.is_empty() {
                self.by_subject.remove(&kept.subject);
            }
        }
        Some(kept)
    }

    /// Those that were ordered for `subject`, in the order in which they came.
    pub fn of(&self, subject: &DomainName) -> &[Arc<Kept>] {
        self.by_subject.get(subject).map(Vec::as_slice).unwrap_or_default()
    }

    /// All, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.by_id.values()
    }
}
