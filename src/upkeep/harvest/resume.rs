//! Going on where the process before ended.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Account, Harvest, Past};
use crate::clock::Reading;
use crate::meter::{Bucket, Slot};

impl Harvest {
    /// Takes in what was written down before this process began. Verdicts stand again at once, and are not told again;
    /// days that ended meanwhile are there to be sealed.
    pub fn resume(&mut self, past: Past, now: Reading) {
        let mut slots: HashMap<Arc<str>, Slot> =
            self.accounts.iter().map(|(slot, account)| (Arc::clone(&account.name), *slot)).collect();
        let is_rezoned = past.zone.is_some_and(|zone| Some(zone.as_str()) != self.calendar.zone().iana_name());
        for (name, mut usage) in past.usages {
            if is_rezoned {
                usage.rezone(&mut self.calendar, now.now);
            }
            let slot = self.slot_of(&name, &mut slots);
            if let Some(account) = self.accounts.get_mut(&slot) {
                account.usage.resume(usage);
                if account.usage.is_open() {
                    self.open.insert(slot);
                }
                if is_rezoned {
                    self.waiting.save(slot, account);
                }
            }
        }
        for entry in past.entries {
            let slot = self.slot_of(&entry.name, &mut slots);
            if let Some(account) = self.accounts.get_mut(&slot) {
                account.usage.recall(entry.bucket, entry.pass, entry.count);
                self.open.insert(slot);
                self.waiting.save(slot, account);
            }
        }
        let by = Bucket::of(now.now);
        for slot in self.open.clone() {
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            let waiting = account.usage.closed_count();
            let plan = account.served.as_ref().and_then(|(_, plan)| plan.as_ref());
            // Whatever these buckets exceeded, it was told when it happened, or the verdict tells it.
            account.usage.close(now, plan, &mut self.calendar);
            if !account.usage.is_open() {
                self.open.remove(&slot);
            }
            self.waiting.closed(slot, account, waiting, by);
        }
        let held: Vec<(Slot, bool)> =
            self.accounts.iter().map(|(slot, account)| (*slot, account.usage.is_held(now.now))).collect();
        for (slot, was_held) in held {
            self.judge(slot, now, was_held);
        }
        self.look_for_ended_days();
    }

    /// A name that nobody served is served as `slot` from now on.
    pub(super) fn wake(&mut self, name: &str, slot: Slot) {
        let Some(from) = self.dormant.remove(name) else { return };
        let Some(mut account) = self.accounts.remove(&from) else { return };
        self.waiting.rehouse(from, slot, &mut account);
        if self.open.remove(&from) {
            self.open.insert(slot);
        }
        self.accounts.insert(slot, account);
    }

    fn slot_of(&mut self, name: &Arc<str>, slots: &mut HashMap<Arc<str>, Slot>) -> Slot {
        if let Some(slot) = slots.get(name) {
            return *slot;
        }
        self.next_dormant = Slot(self.next_dormant.0.saturating_sub(1));
        let slot = self.next_dormant;
        slots.insert(Arc::clone(name), slot);
        self.dormant.insert(Arc::clone(name), slot);
        self.accounts.insert(slot, Account::new(Arc::clone(name)));
        slot
    }
}
