//! The inventory's certificates, as the world is made of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use foldhash::HashMap;

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

impl Kept {
    /// Whether it may serve what is `tenant`'s as its own: what was ordered for a name goes with the name; what somebody
    /// uploaded stays theirs.
    pub fn belongs_to(&self, tenant: Option<&TenantId>) -> bool {
        !self.ca.is_empty() || self.tenant.as_ref() == tenant
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct KeptCertificates {
    by_id: BTreeMap<CertificateId, Arc<Kept>>,
    /// Nearly every subject has one, so that no room is left for more.
    by_subject: HashMap<Arc<str>, Box<[Arc<Kept>]>>,
}

impl KeptCertificates {
    /// Adds one, in the place of the one with its number: what is learnt of an old one does not make it the newest.
    pub fn put(&mut self, kept: Arc<Kept>) {
        self.remove(kept.id);
        let of_subject = self.by_subject.entry(kept.subject.shared()).or_default();
        let mut all = std::mem::take(of_subject).into_vec();
        let place = all.partition_point(|other| other.id < kept.id);
        all.insert(place, Arc::clone(&kept));
        *of_subject = all.into();
        self.by_id.insert(kept.id, kept);
    }

    /// Takes one away.
    pub fn remove(&mut self, id: CertificateId) -> Option<Arc<Kept>> {
        let kept = self.by_id.remove(&id)?;
        if let Some(of_subject) = self.by_subject.get_mut(kept.subject.as_str()) {
            *of_subject = of_subject.iter().filter(|other| other.id != id).cloned().collect();
            if of_subject.is_empty() {
                self.by_subject.remove(kept.subject.as_str());
            }
        }
        Some(kept)
    }

    /// Those that were ordered for `subject`, in the order in which they came.
    pub fn of(&self, subject: &DomainName) -> &[Arc<Kept>] {
        self.by_subject.get(subject.as_str()).map(|kept| &**kept).unwrap_or_default()
    }

    /// The last one that was ordered for `subject` in that role.
    pub fn newest(&self, subject: &DomainName, role: Role) -> Option<&Arc<Kept>> {
        self.of(subject).iter().rev().find(|kept| kept.role == role)
    }

    /// Those with a higher number than `id`, in the order of their numbers.
    pub fn after(&self, id: CertificateId) -> impl Iterator<Item = &Arc<Kept>> {
        self.by_id.range((Bound::Excluded(id), Bound::Unbounded)).map(|(_, kept)| kept)
    }

    /// All, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.by_id.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::fixture::pair;

    #[test]
    fn what_is_put_again_keeps_its_place() {
        let subject = DomainName::parse("www.example.com").unwrap();
        let kept = |id, role| {
            let certificate = pair(&["www.example.com"]).make();
            let (subject, ca) = (subject.clone(), "".into());
            Arc::new(Kept {
                id: CertificateId(id),
                subject,
                tenant: None,
                role,
                ca,
                certificate,
                ari: None,
                is_on_demand: false,
            })
        };
        let (old, new, standby) = (kept(1, Role::Own), kept(2, Role::Own), kept(3, Role::Standby));
        let mut all = KeptCertificates::default();
        for kept in [&new, &standby, &old, &old] {
            all.put(Arc::clone(kept));
        }
        assert_eq!(all.of(&subject).iter().map(|kept| kept.id.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(all.newest(&subject, Role::Own).map(|kept| kept.id), Some(new.id));
        assert_eq!(all.all().count(), 3);
        assert_eq!(all.after(old.id).map(|kept| kept.id.0).collect::<Vec<_>>(), [2, 3]);
    }
}
