//! The inventory's certificates, as the world is made of them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::HashSet;

use crate::certificate::Certificate;
use crate::name::{DomainName, TenantId};
use crate::store::inventory::{Ari, CertificateId, Role};
use crate::text::SharedText;

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
    /// The authority's directory URL; empty if it was uploaded. As thin as [`crate::certificate::Facts::issuer`].
    pub ca: SharedText,
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

/// All of them. What they are found by is their own, and does not stand beside them once more.
#[derive(Debug, Default)]
pub struct KeptCertificates {
    /// In the order of their numbers: a new one is the last.
    all: Vec<Arc<Kept>>,
    by_subject: HashSet<OfSubject>,
}

/// All that were ordered for one subject, at least one, in the order of their numbers. Nearly every subject has one, so
/// that no room is left for more.
#[derive(Debug)]
struct OfSubject(Box<[Arc<Kept>]>);

impl Borrow<str> for OfSubject {
    fn borrow(&self) -> &str {
        self.0.first().map_or("", |kept| kept.subject.as_str())
    }
}

impl PartialEq for OfSubject {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<str>::borrow(self) == Borrow::<str>::borrow(other)
    }
}

impl Eq for OfSubject {}

impl Hash for OfSubject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

impl KeptCertificates {
    /// Adds one, in the place of the one with its number: what is learnt of an old one does not make it the newest.
    pub fn put(&mut self, kept: Arc<Kept>) {
        self.remove(kept.id);
        let of_subject = self.by_subject.take(kept.subject.as_str());
        let mut of_subject = of_subject.map_or_else(Vec::new, |OfSubject(all)| all.into_vec());
        for all in [&mut of_subject, &mut self.all] {
            let place = all.partition_point(|other| other.id < kept.id);
            all.insert(place, Arc::clone(&kept));
        }
        self.by_subject.insert(OfSubject(of_subject.into()));
    }

    /// Takes one away.
    pub fn remove(&mut self, id: CertificateId) -> Option<Arc<Kept>> {
        let place = self.all.binary_search_by_key(&id, |kept| kept.id).ok()?;
        let kept = self.all.remove(place);
        if let Some(OfSubject(all)) = self.by_subject.take(kept.subject.as_str()) {
            let others: Box<[_]> = all.into_iter().filter(|other| other.id != id).collect();
            if !others.is_empty() {
                self.by_subject.insert(OfSubject(others));
            }
        }
        Some(kept)
    }

    /// Those that were ordered for `subject`, in the order in which they came.
    pub fn of(&self, subject: &DomainName) -> &[Arc<Kept>] {
        self.by_subject.get(subject.as_str()).map(|OfSubject(all)| &**all).unwrap_or_default()
    }

    /// The last one that was ordered for `subject` in that role.
    pub fn newest(&self, subject: &DomainName, role: Role) -> Option<&Arc<Kept>> {
        self.of(subject).iter().rev().find(|kept| kept.role == role)
    }

    /// Those with a higher number than `id`, in the order of their numbers.
    pub fn after(&self, id: CertificateId) -> impl Iterator<Item = &Arc<Kept>> {
        self.all.iter().skip(self.all.partition_point(|kept| kept.id <= id))
    }

    /// All, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.all.iter()
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
        assert_eq!(all.remove(new.id).map(|kept| kept.id), Some(new.id));
        assert!(all.remove(new.id).is_none());
        assert_eq!(all.of(&subject).iter().map(|kept| kept.id.0).collect::<Vec<_>>(), [1, 3]);
        [old.id, standby.id].iter().for_each(|id| drop(all.remove(*id)));
        assert!(all.of(&subject).is_empty() && all.by_subject.is_empty() && all.all().next().is_none());
    }
}
