//! Which certificate serves which domain (SPEC, section 5), as far as dates say it: no key is opened here.

use std::collections::HashMap;

use super::entry::{Entry, For};
use super::gather::{Gathered, Wanted};
use crate::name::DomainName;
use crate::site::SiteSpec;
use crate::store::inventory::Role;

/// All certificates that can be sent to clients, by their names: a domain's are found without looking at all.
pub(super) struct Deployed<'a> {
    wanted: &'a Wanted,
    /// A wildcard under its own name.
    by_name: HashMap<&'a str, Vec<&'a Entry>>,
    fallbacks: Vec<&'a Entry>,
}

impl<'a> Deployed<'a> {
    pub(super) fn of(entries: &'a [Entry], wanted: &'a Wanted) -> Self {
        let mut deployed = Self { wanted, by_name: HashMap::new(), fallbacks: Vec::new() };
        for entry in entries.iter().filter(|entry| entry.is_usable()) {
            if entry.role == For::Fallback {
                deployed.fallbacks.push(entry);
                continue;
            }
            entry.names.iter().for_each(|name| deployed.by_name.entry(name.as_str()).or_default().push(entry));
        }
        deployed
    }

    /// The rank of what serves a domain; `None`: the internal authority does.
    pub(super) fn best(&self, spec: &SiteSpec) -> Option<u8> {
        let name = spec.name.as_str();
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let keys = [Some(name), wildcard.as_deref()];
        let named = keys.into_iter().flatten().filter_map(|key| self.by_name.get(key)).flatten();
        named.chain(&self.fallbacks).filter_map(|entry| rank(entry, spec, self.wanted)).min()
    }

    /// The domains that a certificate serves now, and those that it could take over.
    fn domains_of(&self, entry: &Entry) -> (Vec<DomainName>, Vec<DomainName>) {
        let (mut serves, mut stands_by_for) = (Vec::new(), Vec::new());
        for spec in self.wanted.domains.iter() {
            let Some(rank) = rank(entry, spec, self.wanted) else { continue };
            let to = if self.best(spec) == Some(rank) { &mut serves } else { &mut stands_by_for };
            to.push(spec.name.clone());
        }
        (serves, stands_by_for)
    }
}

impl Gathered {
    /// Notes which domains the entries at `indices` serve now, and which they could take over.
    pub(super) fn deploy(&mut self, indices: &[usize]) {
        let Some(wanted) = &self.wanted else { return };
        let deployed = Deployed::of(&self.entries, wanted);
        let usable = |index: &usize| Some((*index, self.entries.get(*index).filter(|entry| entry.is_usable())?));
        let found: Vec<_> =
            indices.iter().filter_map(usable).map(|(index, entry)| (index, deployed.domains_of(entry))).collect();
        for (index, (serves, stands_by_for)) in found {
            if let Some(entry) = self.entries.get_mut(index) {
                (entry.serves, entry.stands_by_for) = (serves, stands_by_for);
            }
        }
    }
}

/// Notes which domains the internal authority serves: at what they have or wait for, or, where they have neither, as a
/// certificate of its own.
pub(super) fn note_internal(entries: &mut Vec<Entry>, wanted: &Wanted) {
    let deployed = Deployed::of(entries, wanted);
    let mut unserved: HashMap<DomainName, _> = HashMap::new();
    for spec in wanted.domains.iter().filter(|spec| deployed.best(spec).is_none()) {
        unserved.insert(spec.name.clone(), (spec, false));
    }
    for entry in entries.iter_mut().filter(|entry| entry.is_newest && !entry.is_usable()) {
        for name in &entry.names {
            if let Some((_, is_shown)) = unserved.get_mut(name) {
                (*is_shown, entry.is_internal_serving) = (true, true);
            }
        }
    }
    let hidden = unserved.into_values().filter(|(_, is_shown)| !is_shown);
    entries.extend(hidden.map(|(spec, _)| Entry::internal(spec)));
}

/// Where a certificate stands among those of a domain, the lowest serving it. `None`: it is none of them.
fn rank(entry: &Entry, spec: &SiteSpec, wanted: &Wanted) -> Option<u8> {
    if entry.role == For::Fallback {
        return Some(3);
    }
    if !entry.covers(&spec.name) {
        return None;
    }
    let files = entry.held.as_ref().and_then(|held| held.files.as_ref());
    if files.is_some_and(|files| spec.certificates.contains(files)) {
        return Some(0);
    }
    let is_of_tenant = entry.tenant == spec.tenant;
    let subject = wanted.subject_of(&spec.name).map_or(&spec.name, |subject| &subject.name);
    // What was ordered for a name goes with the name; what somebody uploaded stays theirs.
    let is_its = entry.id.is_some() && entry.name == subject.as_str() && (is_of_tenant || !entry.ca.is_empty());
    match entry.role {
        For::Domain(Role::Own) if is_its && entry.is_newest && spec.certificates.is_empty() => Some(0),
        For::Domain(Role::Standby) if is_its => Some(2),
        _ => is_of_tenant.then_some(1),
    }
}
