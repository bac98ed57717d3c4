//! The expiry watch: which certificate serves each domain, told when it changes; and that its own ends, told ahead. It
//! changes nothing itself: every handshake makes the choice against the clock.
//!
//! How a domain stands changes when its certificates do (there is a new snapshot), when one of them begins or ends
//! (known ahead, and so are reminders), when a key turns out not to open (counted), or when the clock is set back. Only then is it looked at:
//! a hundred thousand domains cost nothing while nothing happens.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

mod ending;

use super::alerts::Alerts;
use crate::alert::reminder::Reminder;
use crate::alert::{Alert, AlertKind};
use crate::certificate::{Source, Standing, key_changes};
use crate::clock::UnixTime;
use crate::meter::Slot;
use crate::site::Site;
use crate::snapshot::Snapshot;
use ending::Ending;

/// What served each domain when it was last looked at, and when to look again.
#[derive(Debug)]
pub struct Watch {
    /// By slot: one for each name ever served.
    watched: Vec<Watched>,
    /// What served each name when it was last looked at, if that was not its own.
    not_own: HashMap<Slot, Source>,
    /// The last second of each domain's own certificate, and which reminder of it was due, if one was.
    reminded: HashMap<Slot, (UnixTime, Reminder)>,
    /// By the time at which the clock alone changes something.
    due: BTreeSet<(UnixTime, Slot)>,
    /// When it was last looked.
    looked_at: UnixTime,
    /// Whose sites are watched.
    snapshot: Arc<Snapshot>,
    /// Reads how often keys turned out not to open, which is [`key_changes`] everywhere but in tests.
    read_key_changes: fn() -> u64,
    key_changes: u64,
}

#[derive(Debug, Clone, Default)]
struct Watched {
    /// The site as of the last snapshot; gone if that had none of this name.
    site: Weak<Site>,
    /// Its place in [`Watch::due`].
    due: Option<UnixTime>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new(key_changes)
    }
}

impl Watch {
    fn new(read_key_changes: fn() -> u64) -> Self {
        Self {
            watched: Vec::new(),
            not_own: HashMap::new(),
            reminded: HashMap::new(),
            due: BTreeSet::new(),
            looked_at: UnixTime::from_ms(i64::MIN),
            snapshot: Arc::default(),
            read_key_changes,
            key_changes: 0,
        }
    }

    /// Compares what serves at `now` with what served before, and raises an alert for each swap. Gives back how many
    /// sites had to be looked at.
    pub fn step(&mut self, now: UnixTime, snapshot: &Arc<Snapshot>, alerts: &Alerts) -> usize {
        // Read before looking: what breaks meanwhile is looked at next time.
        let key_changes = (self.read_key_changes)();
        let all = now < self.looked_at || key_changes != self.key_changes;
        (self.looked_at, self.key_changes) = (now, key_changes);
        let before = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        for site in before.sites_unlike(snapshot).filter(|site| snapshot.named(&site.spec.name).is_none()) {
            self.forget(site.slot);
        }
        let (mut looked, mut next) = (0, Vec::new());
        let nothing = Snapshot::default();
        let before = if all { &nothing } else { &*before };
        let slots = snapshot.sites_unlike(before).map(|site| site.slot.index() + 1).max().unwrap_or_default();
        self.watched.resize(slots.max(self.watched.len()), Watched::default());
        for site in snapshot.sites_unlike(before) {
            let known = self.watched.get(site.slot.index());
            if all || known.is_some_and(|it| !std::ptr::eq(it.site.as_ptr(), Arc::as_ptr(site))) {
                next.extend(self.look(site, now, alerts));
                looked += 1;
            }
        }
        self.put(next);
        while let Some((at, slot)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            match self.watched.get(slot.index()).and_then(|it| it.site.upgrade()) {
                Some(site) => {
                    let next = self.look(&site, now, alerts);
                    self.due.extend(next);
                    looked += 1;
                }
                None => _ = self.due.remove(&(at, slot)),
            }
        }
        looked
    }

    /// A name that is not served any more is not looked at; what served it last is kept, for when it is again.
    fn forget(&mut self, slot: Slot) {
        if let Some(watched) = self.watched.get_mut(slot.index()) {
            watched.site = Weak::new();
            if let Some(due) = watched.due.take() {
                self.due.remove(&(due, slot));
            }
        }
    }

    /// A set that is made at once is half the size of one that grows.
    fn put(&mut self, next: Vec<(UnixTime, Slot)>) {
        match self.due.is_empty() {
            true => self.due = next.into_iter().collect(),
            false => self.due.extend(next),
        }
    }

    /// Looks at a site, and tells what has changed. Gives back its next place in [`Watch::due`].
    fn look(&mut self, site: &Arc<Site>, now: UnixTime, alerts: &Alerts) -> Option<(UnixTime, Slot)> {
        let standing = site.certificates.standing(&site.spec.name, now);
        let ending = Ending::of(site, now);
        let reminder = ending.as_ref().and_then(|ending| ending.next_at(now));
        let next = site.certificates.next_change(now).into_iter().chain(reminder).min();
        let watched = Watched { site: Arc::downgrade(site), due: next };
        let before = self.watched.get_mut(site.slot.index()).map(|place| std::mem::replace(place, watched));
        if let Some(due) = before.and_then(|it| it.due) {
            self.due.remove(&(due, site.slot));
        }
        self.tell(site, standing, now, alerts);
        self.remind(site, ending, now, alerts);
        next.map(|at| (at, site.slot))
    }

    /// Tells if another certificate serves than before.
    fn tell(&mut self, site: &Site, standing: Standing, now: UnixTime, alerts: &Alerts) {
        // A domain that is new has lost nothing yet, but a fallback from the first second is still told.
        let before = match standing.source {
            Source::Own => self.not_own.remove(&site.slot),
            other => self.not_own.insert(site.slot, other),
        };
        let before = before.unwrap_or(Source::Own);
        if standing.source == before {
            return;
        }
        let raise =
            |kind, detail: String| alerts.raise(&Alert { kind, domain: site.spec.name.shared(), at: now, detail });
        if standing.source.is_fallback() {
            raise(AlertKind::FallbackInstalled, format!("served with the {} certificate", standing.source));
        } else {
            raise(AlertKind::FallbackEnded, "its own certificate serves again".to_owned());
        }
    }

    /// Tells that the domain's own certificate ends or has ended, once for each threshold. After a step back of the clock
    /// those that were told come again in their time.
    fn remind(&mut self, site: &Site, ending: Option<Ending>, now: UnixTime, alerts: &Alerts) {
        let due = ending.and_then(|ending| Some((ending.due(now)?, ending)));
        let Some((reminder, ending)) = due else {
            self.reminded.remove(&site.slot);
            return;
        };
        let before = self.reminded.insert(site.slot, (ending.not_after, reminder));
        let is_new = |(end, told): (UnixTime, Reminder)| end != ending.not_after || reminder.is_after(told);
        if before.is_none_or(is_new) {
            let kind = match reminder {
                Reminder::Expiring { .. } => AlertKind::CertificateExpiring,
                Reminder::Expired { .. } => AlertKind::CertificateExpired,
            };
            let detail = ending.in_words(site, now);
            alerts.raise(&Alert { kind, domain: site.spec.name.shared(), at: now, detail });
        }
    }
}

#[cfg(test)]
mod tests;
