//! Going on where the process before ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Account, Harvest, LIFTED, Past};
use crate::alert::{Alert, AlertKind};
use crate::clock::Reading;
use crate::meter::{Bucket, Slot};
use crate::site::Site;

impl Harvest {
    /// Takes in what was written down before this process began. Verdicts stand again at once, and are not told again;
    /// days that ended meanwhile are there to be sealed.
    pub fn resume(&mut self, past: Past, now: Reading) {
        let is_rezoned = past.zone.is_some_and(|zone| Some(zone.as_str()) != self.calendar.zone().iana_name());
        for (name, mut usage) in past.usages {
            if is_rezoned {
                usage.rezone(&mut self.calendar, now.now);
            }
            let slot = self.slot_of(&name);
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            account.usage.resume(usage);
            if account.usage.is_open() {
                self.open.insert(slot);
            }
            if is_rezoned {
                self.waiting.save(slot, account);
            }
        }
        for entries in past.entries.chunk_by(|a, b| a.name == b.name) {
            let Some(first) = entries.first() else { continue };
            let slot = self.slot_of(&first.name);
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            entries.iter().for_each(|entry| account.usage.recall(entry.bucket, entry.pass, entry.count));
            self.open.insert(slot);
            self.waiting.save(slot, account);
        }
        let by = Bucket::of(now.now);
        let mut told = BTreeSet::new();
        for slot in self.open.clone() {
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            let waiting = account.usage.closed_count();
            let plan = self.served.plan(slot);
            for exceeded in account.usage.close(now, plan, &mut self.calendar) {
                // What had closed by then was told by the process that closed it.
                if past.at.is_some_and(|at| exceeded.bucket.end() > at.now) {
                    self.alerts.raise(&account.alert_of(&exceeded, plan));
                    told.insert(slot);
                }
            }
            if !account.usage.is_open() {
                self.open.remove(&slot);
            }
            self.waiting.closed(slot, account, waiting, by);
        }
        for (slot, was_held, is_known) in self.under_a_verdict(past.at, now) {
            self.judge(slot, now, is_known || told.contains(&slot));
            if was_held && !self.engaged.contains(&slot) {
                self.tell_lifted(slot, now);
            }
        }
        self.look_for_ended_days();
    }

    /// Names under a verdict, and those that were when something was last written down: whether they were then, and
    /// whether they are as far as that is known from then.
    fn under_a_verdict(&self, at: Option<Reading>, now: Reading) -> Vec<(Slot, bool, bool)> {
        let look = |(slot, account): (&Slot, &Account)| {
            let was_held = at.is_some_and(|at| account.usage.is_held(at.now));
            let is_known = account.usage.is_held(now.now);
            let is_held =
                self.served.plan(*slot).is_some_and(|plan| account.usage.throttled_until(now.now, plan).is_some());
            (was_held || is_known || is_held).then_some((*slot, was_held, is_known))
        };
        self.accounts.iter().map(|(slot, account)| (slot, &**account)).filter_map(look).collect()
    }

    /// A verdict ended while no process was there to tell. It is stored again, so that the next one does not tell it too.
    fn tell_lifted(&mut self, slot: Slot, now: Reading) {
        if self.served.get(slot).is_none() {
            return;
        }
        let Some(account) = self.accounts.get_mut(&slot) else { return };
        self.waiting.save(slot, account);
        let (kind, domain, detail) = (AlertKind::ThrottleLifted, Arc::clone(&account.name), LIFTED.to_owned());
        self.alerts.raise(&Alert { kind, domain, at: now.now, detail });
    }

    /// A name is not served any more. What workers counted for it may still be on its way.
    pub(super) fn put_to_sleep(&mut self, site: &Site) {
        let account = || Box::new(Account::new(site.spec.name.shared()));
        self.accounts.entry(site.slot).or_insert_with(account);
        self.dormant.insert(site.spec.name.shared(), site.slot);
    }

    /// A name that nobody served is served as `slot` from now on.
    pub(super) fn wake(&mut self, name: &str, slot: Slot) {
        let Some(from) = self.dormant.remove(name).filter(|from| *from != slot) else { return };
        let Some(mut account) = self.accounts.remove(&from) else { return };
        self.waiting.rehouse(from, slot, &mut account);
        if self.open.remove(&from) {
            self.open.insert(slot);
        }
        self.accounts.insert(slot, account);
    }

    /// The slot of a name of which something is known: its account is there.
    fn slot_of(&mut self, name: &Arc<str>) -> Slot {
        let slot = self.served.slot_of(name).or_else(|| self.dormant.get(name).copied()).unwrap_or_else(|| {
            self.next_dormant = Slot(self.next_dormant.0.saturating_sub(1));
            self.dormant.insert(Arc::clone(name), self.next_dormant);
            self.next_dormant
        });
        self.accounts.entry(slot).or_insert_with(|| Box::new(Account::new(Arc::clone(name))));
        slot
    }
}
