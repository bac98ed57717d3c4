//! Which sites are served, by slot: their names, and what holds them to their plans.

use std::sync::Arc;

use crate::meter::Slot;
use crate::plan::Plan;
use crate::site::Site;
use crate::snapshot::Snapshot;

/// The sites of the snapshot that was followed last. What a name weighs here that never had a request is a pointer.
#[derive(Debug, Default)]
pub(super) struct Served {
    snapshot: Arc<Snapshot>,
    /// As long as there are slots: one for each name that was ever served.
    by_slot: Vec<Option<Arc<Site>>>,
}

impl Served {
    /// Follows a snapshot. Gives back the sites that may be new or others than before, and those whose names are gone.
    pub(super) fn follow(&mut self, snapshot: &Arc<Snapshot>) -> (Vec<Arc<Site>>, Vec<Arc<Site>>) {
        let before = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        let is_gone = |site: &&Arc<Site>| snapshot.named(&site.spec.name).is_none();
        let gone: Vec<_> = before.sites_unlike(snapshot).filter(is_gone).cloned().collect();
        for site in &gone {
            if let Some(place) = self.by_slot.get_mut(site.slot.index()) {
                *place = None;
            }
        }
        let new: Vec<_> = snapshot.sites_unlike(&before).cloned().collect();
        let slots = new.iter().map(|site| site.slot.index() + 1).max().unwrap_or_default();
        if slots > self.by_slot.len() {
            self.by_slot.resize(slots, None);
        }
        for site in &new {
            if let Some(place) = self.by_slot.get_mut(site.slot.index()) {
                *place = Some(Arc::clone(site));
            }
        }
        (new, gone)
    }

    /// The site of a slot.
    pub(super) fn get(&self, slot: Slot) -> Option<&Arc<Site>> {
        self.by_slot.get(slot.index())?.as_ref()
    }

    /// What the site of a slot is held to.
    pub(super) fn plan(&self, slot: Slot) -> Option<&Plan> {
        self.get(slot)?.spec.terms.plan.as_deref()
    }

    /// The slot of this very name.
    pub(super) fn slot_of(&self, name: &str) -> Option<Slot> {
        self.snapshot.site(name).filter(|site| site.spec.name.as_str() == name).map(|site| site.slot)
    }

    /// All of them, in the order of their slots.
    pub(super) fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.by_slot.iter().flatten()
    }
}
