//! How the world is built: what is wanted, certificates and living parts -> sites -> snapshot -> publish.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::Arc;

use foldhash::HashMap;

use super::living::LivingParts;
use super::shelf::Shelf;
use super::{Control, Kept};
use crate::certificate::{CertificateSet, CommonRanks, Ranks};
use crate::name::DomainName;
use crate::site::{Origin, Site, SiteSpec};
use crate::snapshot::Snapshot;
use crate::store::inventory::Role;

impl Control {
    /// Makes the snapshot of the present blueprint and certificates. Sites that are as they were keep their `Arc`s.
    pub(super) fn publish(&mut self) {
        self.shelf = Shelf::default();
        // Few are on the shelf for what they were ordered for, often none: the table is made at need.
        let tenants = LazyCell::new(|| {
            self.blueprint.domains.iter().map(|spec| (&spec.name, spec.tenant.as_ref())).collect::<HashMap<_, _>>()
        });
        for spec in self.blueprint.domains.iter() {
            for certificate in spec.certificates.iter().filter_map(|pair| self.good.get(pair)) {
                self.shelf.put(spec.tenant.as_ref(), certificate);
            }
        }
        for kept in self.kept.all() {
            self.shelf.put_kept(kept, |subject| tenants.get(subject).copied());
        }
        let configured = self.blueprint.fallback.as_ref().and_then(|pair| self.good.get(pair)).cloned();
        self.common = Arc::new(CommonRanks { configured, last_resort: Arc::clone(&self.internal) as _ });

        let before = self.live.snapshot();
        let mut living = std::mem::take(&mut self.living);
        let mut latest = None;
        let sites: Vec<_> = self
            .blueprint
            .domains
            .iter()
            .filter_map(|spec| self.build(spec, before.named(&spec.name), &mut living, &mut latest))
            .collect();
        let mut snapshot = Snapshot::new(sites, self.blueprint.default.as_ref().map(DomainName::as_str));
        before.sites().filter(|site| snapshot.named(&site.spec.name).is_none()).for_each(|site| living.keep(site));
        self.living = living;
        self.build_aliases(&snapshot, None);
        snapshot.aliases = self.aliases.sites();
        snapshot.on_demand = self.aliases.host().map(|host| Arc::clone(&host.on_demand));
        snapshot.limits = self.blueprint.limits.clone();
        snapshot.trusted_proxies = Arc::clone(&self.blueprint.trusted_proxies);
        snapshot.redirect_port = self.blueprint.redirect_port;
        self.live.publish(snapshot);
    }

    /// Publishes what changes for the names that these certificates cover; nothing else is looked at.
    pub(super) fn publish_covered(&mut self, kept: &[Arc<Kept>]) {
        let names = kept.iter().flat_map(|kept| kept.certificate.names());
        let parents: HashSet<&str> = names.clone().filter_map(DomainName::wildcard_parent).collect();
        let before = self.live.snapshot();
        let mut affected: Vec<&Arc<Site>> = names.clone().filter_map(|name| before.named(name)).collect();
        if !parents.is_empty() {
            let is_below = |site: &&Arc<Site>| {
                let parent = site.spec.name.as_str().split_once('.').map(|(_, parent)| parent);
                parent.is_some_and(|parent| parents.contains(parent))
            };
            affected.extend(before.sites().filter(is_below));
        }
        affected.sort_by_key(|site| site.slot);
        affected.dedup_by_key(|site| site.slot);
        let sites: Vec<_> = affected.iter().filter_map(|site| self.rebuild(site)).collect();
        let has_new_sites = !sites.is_empty();
        let mut snapshot = before.with(sites);
        let host = self.aliases.host().map(|host| host.spec.name.clone());
        let has_new_aliases = match host {
            None => false,
            // All of them may be others.
            Some(host) if !parents.is_empty() || affected.iter().any(|site| site.spec.name == host) => {
                self.build_aliases(&snapshot, None)
            }
            Some(_) => self.build_aliases(&snapshot, Some(&names.cloned().collect::<Vec<_>>())),
        };
        if has_new_sites || has_new_aliases {
            snapshot.aliases = self.aliases.sites();
            self.live.publish(snapshot);
        }
    }

    /// Makes the sites of aliases, or those of `some`, of what is kept now; whether any is new. `configured` has the sites
    /// of all domains.
    fn build_aliases(&mut self, configured: &Snapshot, some: Option<&[DomainName]>) -> bool {
        let mut aliases = std::mem::take(&mut self.aliases);
        let template = aliases.host().and_then(|host| configured.named(&host.spec.name)).cloned();
        let is_configured =
            |name: &DomainName| configured.configured(name.as_str()).is_some() || self.subject_of.contains_key(name);
        let ranks_of = |spec: &SiteSpec| self.ranks(spec);
        let is_new = match some {
            Some(names) => aliases.build_some(names, template.as_ref(), &self.kept, is_configured, ranks_of),
            None => aliases.build(template.as_ref(), &self.kept, is_configured, ranks_of),
        };
        self.aliases = aliases;
        is_new
    }

    /// The site of a domain: `before`, as which it is served now, if nothing about it is new. `None`: its origin is not
    /// open.
    fn build(
        &self,
        spec: &Arc<SiteSpec>,
        before: Option<&Arc<Site>>,
        living: &mut LivingParts,
        latest: &mut Option<Arc<Origin>>,
    ) -> Option<Arc<Site>> {
        // Which is the same for all that is configured as it was.
        if let Some(before) = before.filter(|site| Arc::ptr_eq(&site.spec, spec)) {
            return Some(self.rebuild(before).unwrap_or_else(|| Arc::clone(before)));
        }
        // Its neighbour's, mostly: then it need not be looked for by all that it says.
        let origin = match latest.take_if(|it| Arc::ptr_eq(&it.spec, &spec.origin)) {
            Some(origin) => origin,
            None => Arc::clone(self.origins.get(&spec.origin)?),
        };
        *latest = Some(Arc::clone(&origin));
        let (slot, throttle) = match before {
            Some(site) => (site.slot, site.throttle.clone()),
            None => living.take(&spec.name),
        };
        let throttle = throttle.or_else(|| spec.terms.plan.as_ref().map(|_| Arc::default()));
        let certificates = self.certificates(spec);
        Some(Arc::new(Site { spec: Arc::clone(spec), certificates, origin, slot, throttle }))
    }

    /// The site of a domain that is configured as it was; `None` if its certificates are what they were, too.
    fn rebuild(&self, before: &Arc<Site>) -> Option<Arc<Site>> {
        let certificates = self.certificates(&before.spec);
        let (spec, origin) = (Arc::clone(&before.spec), Arc::clone(&before.origin));
        let (slot, throttle) = (before.slot, before.throttle.clone());
        let is_new = !before.certificates.is_same(&certificates);
        is_new.then(|| Arc::new(Site { spec, certificates, origin, slot, throttle }))
    }

    fn certificates(&self, spec: &SiteSpec) -> CertificateSet {
        CertificateSet::new(&spec.name, self.ranks(spec), Arc::clone(&self.common))
    }

    /// The certificates of a domain by where they come from. Files are the domain's own; what was issued is, where
    /// there are none, so that a user's own certificate wins at once, however old it is.
    fn ranks(&self, spec: &SiteSpec) -> Ranks {
        let mut own: Vec<_> = spec.certificates.iter().filter_map(|pair| self.good.get(pair)).cloned().collect();
        let subject = self.subject_of.get(&spec.name).map_or(&spec.name, |subject| &subject.name);
        let ordered = |role| {
            let of_role = move |kept: &&Arc<Kept>| kept.role == role && kept.belongs_to(spec.tenant.as_ref());
            self.kept.of(subject).iter().filter(of_role).map(|kept| Arc::clone(&kept.certificate))
        };
        // Of several only the last: what it replaced stands behind it, on the shelf.
        if spec.certificates.is_empty() {
            own.extend(ordered(Role::Own).next_back());
        }
        let standby: Vec<_> = ordered(Role::Standby).collect();
        // Also those that were ordered while the domain was another tenant's: they go with it as the last one does.
        let mut store: Vec<_> = ordered(Role::Own).filter(|it| !own.iter().any(|own| Arc::ptr_eq(own, it))).collect();
        store.extend(self.shelf.others_for(spec, &self.kept, &[&own, &standby, &store]));
        Ranks { own, store, standby }
    }
}

#[cfg(test)]
mod tests;
