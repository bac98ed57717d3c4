//! What a name has for as long as the process lives, served or not: usage belongs to the name.

use std::sync::Arc;

use foldhash::HashMap;

use crate::meter::Slot;
use crate::name::DomainName;
use crate::site::Site;
use crate::throttle::Throttle;

/// The living parts of names that are not served now, and who is next. Those of a name that is served are in its site
/// alone.
#[derive(Debug, Default)]
pub(super) struct LivingParts {
    former: HashMap<Arc<str>, (Slot, Option<Arc<Throttle>>)>,
    next_slot: u32,
}

impl LivingParts {
    /// Those of a name that was not served until now: its own from before, or a new slot.
    pub(super) fn take(&mut self, name: &DomainName) -> (Slot, Option<Arc<Throttle>>) {
        self.former.remove(name.as_str()).unwrap_or_else(|| {
            let slot = Slot(self.next_slot);
            self.next_slot = self.next_slot.saturating_add(1);
            (slot, None)
        })
    }

    /// Keeps those of a site that is not served any more.
    pub(super) fn keep(&mut self, site: &Site) {
        self.former.insert(site.spec.name.shared(), (site.slot, site.throttle.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Blueprint, Control};
    use crate::plan::Plan;
    use crate::site::{OriginSpec, SiteSpec, Terms};
    use crate::snapshot::Live;

    #[test]
    fn a_name_that_comes_back_has_its_slot_and_its_throttle() {
        let live = Arc::new(Live::default());
        let mut control = Control::new(Arc::clone(&live));
        let mut serve = |names: &[&str]| {
            let plan = Plan { name: "gold".into(), max_qps: 1, burst: 1 };
            let terms = Arc::new(Terms { plan: Some(Arc::new(plan)), ..Terms::default() });
            let spec = |name: &&str| SiteSpec::new(DomainName::parse(name).unwrap(), OriginSpec::http("127.0.0.1", 1));
            let on_terms = |spec: SiteSpec| Arc::new(SiteSpec { terms: Arc::clone(&terms), ..spec });
            let domains = names.iter().map(spec).map(on_terms).collect();
            assert!(control.apply(Blueprint { domains, ..Blueprint::default() }).unwrap().is_empty());
            names.iter().map(|name| Arc::clone(live.snapshot().site(name).unwrap())).collect::<Vec<_>>()
        };
        let first = serve(&["a.example.com", "b.example.com"]);
        assert_ne!(first[0].slot, first[1].slot);
        let alone = serve(&["b.example.com"]);
        assert!(Arc::ptr_eq(&alone[0], &first[1]), "nothing about it is new");
        let again = serve(&["c.example.com", "b.example.com", "a.example.com"]);
        assert_eq!(again[2].slot, first[0].slot);
        let throttle = |site: &Arc<Site>| Arc::as_ptr(site.throttle.as_ref().unwrap());
        assert_eq!(throttle(&again[2]), throttle(&first[0]));
        assert_ne!(throttle(&again[0]), throttle(&again[1]));
        assert_eq!(again.iter().map(|site| site.slot.0).collect::<Vec<_>>(), [2, 1, 0]);
    }
}
