//! What of the accounts is still to be written down: counts for the journal, accounts for the store, days to seal.
//!
//! The harvest writes nothing itself. Whoever does asks for it, batch by batch, and has to see it through; what a slow
//! disk has not taken yet gathers here.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Account, Harvest};
use crate::clock::Reading;
use crate::journal::Entry;
use crate::meter::{Bucket, Slot};
use crate::store::{Fold, Seal};
use crate::usage::{Day, Usage};

/// Counts of closed buckets that wait for the store, of all names together; 16 bytes each. Beyond it the oldest of the
/// names that go on counting are given up: peaks, windows and verdicts stay, the finest history does not.
const MAX_BACKLOG: usize = 8_000_000;

/// What whoever writes asks of the harvest.
#[derive(Debug)]
pub enum Errand {
    /// Counts that the journal does not have.
    Changes(oneshot::Sender<Vec<Entry>>),
    /// How things stand.
    Status(oneshot::Sender<Status>),
    /// The accounts that have waited longest for the store, at most so many.
    Folds(usize, oneshot::Sender<Vec<Fold>>),
    /// Days that are over, of at most so many accounts.
    Seals(usize, oneshot::Sender<Vec<Seal>>),
    /// What was written down before this process began.
    Resume(Box<Past>),
    /// The store is another one: it has nothing of any account.
    SaveAll,
}

/// What was written down before this process began.
#[derive(Debug, Default)]
pub struct Past {
    /// The clock when it was written.
    pub at: Option<Reading>,
    /// The zone whose days were counted: an IANA name.
    pub zone: Option<String>,
    /// By name, what the store had.
    pub usages: Vec<(Arc<str>, Usage)>,
    /// What the journal had.
    pub entries: Vec<Entry>,
}

/// How things stand between the accounts and the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The clock.
    pub now: Reading,
    /// The first bucket that has not been closed yet.
    pub closed_by: Option<Bucket>,
    /// Whether the clock has run evenly for a minute, so that what is old may be forgotten.
    pub is_trusted: bool,
    /// The zone whose days are counted: an IANA name.
    pub zone: String,
    /// Accounts that wait for the store.
    pub unsaved: usize,
    /// The ticket of the account that has waited longest.
    pub oldest: Option<u64>,
    /// The ticket of the next one to wait.
    pub next: u64,
    /// Counts of closed buckets that wait for the store.
    pub backlog: usize,
    /// Such counts given up because there were too many.
    pub given_up: u64,
    /// Accounts with days to seal.
    pub to_seal: usize,
}

/// What waits to be written down.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    unjournaled: Vec<Slot>,
    /// Accounts with their tickets, the longest waiting first. An account that was taken meanwhile, or asked for a new
    /// ticket, has another one or none; then its place here means nothing.
    unsaved: VecDeque<(u64, Slot)>,
    unsaved_count: usize,
    next_ticket: u64,
    backlog: usize,
    given_up: u64,
    /// Accounts with days that are over.
    ended: BTreeSet<Slot>,
    /// The day for which all accounts were last asked.
    today: Option<Day>,
}

impl Waiting {
    /// The account changed: the store is to have it.
    pub(super) fn save(&mut self, slot: Slot, account: &mut Account) {
        if account.unsaved.is_none() {
            account.unsaved = Some(self.next_ticket);
            self.unsaved.push_back((self.next_ticket, slot));
            self.next_ticket += 1;
            self.unsaved_count += 1;
        }
    }

    /// The account counted: the journal is to have it, and the store.
    pub(super) fn journal(&mut self, slot: Slot, account: &mut Account) {
        if !account.is_unjournaled {
            account.is_unjournaled = true;
            self.unjournaled.push(slot);
        }
        self.save(slot, account);
    }

    /// Some of the account's buckets closed, before which it had `known` counts waiting.
    pub(super) fn closed(&mut self, slot: Slot, account: &mut Account, known: usize, by: Bucket) {
        let mut waiting = account.usage.closed_count();
        if waiting == known {
            return;
        }
        self.backlog = self.backlog.saturating_add(waiting).saturating_sub(known);
        while self.backlog > MAX_BACKLOG && waiting > 0 {
            account.usage.drop_closed();
            waiting -= 1;
            self.backlog -= 1;
            self.given_up += 1;
        }
        if account.usage.has_ended(by) {
            self.ended.insert(slot);
        }
        self.save(slot, account);
    }

    /// The account has another slot from now on.
    pub(super) fn rehouse(&mut self, from: Slot, to: Slot, account: &mut Account) {
        // It keeps its place: a round that is under way counts on it.
        if let Some(ticket) = account.unsaved
            && let Ok(at) = self.unsaved.binary_search_by_key(&ticket, |(ticket, _)| *ticket)
            && let Some((_, slot)) = self.unsaved.get_mut(at)
        {
            *slot = to;
        }
        if std::mem::take(&mut account.is_unjournaled) {
            self.journal(to, account);
        }
        if self.ended.remove(&from) {
            self.ended.insert(to);
        }
    }

    fn take(&mut self, account: &mut Account) -> Fold {
        self.unsaved_count -= usize::from(account.unsaved.is_some());
        self.backlog = self.backlog.saturating_sub(account.usage.closed_count());
        account.fold()
    }
}

impl Harvest {
    /// Carries out an errand.
    pub(super) fn run_errand(&mut self, errand: Errand, now: Reading) {
        match errand {
            Errand::Changes(reply) => _ = reply.send(self.take_changes()),
            Errand::Status(reply) => _ = reply.send(self.status(now)),
            Errand::Folds(at_most, reply) => _ = reply.send(self.take_folds(at_most)),
            Errand::Seals(at_most, reply) => _ = reply.send(self.take_seals(at_most)),
            Errand::Resume(past) => self.resume(*past, now),
            Errand::SaveAll => self.save_all(),
        }
    }

    /// Counts that the journal does not have. Whoever takes them has to write them.
    pub fn take_changes(&mut self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.waiting.unjournaled.len());
        for slot in self.waiting.unjournaled.drain(..) {
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            account.is_unjournaled = false;
            let Account { name, usage, .. } = &mut **account;
            let changed = usage.take_unjournaled();
            entries.extend(changed.map(|(bucket, pass, count)| Entry { name: Arc::clone(name), bucket, pass, count }));
        }
        entries
    }

    /// How things stand.
    pub fn status(&self, now: Reading) -> Status {
        let Waiting { unsaved, unsaved_count, next_ticket, backlog, given_up, ended, .. } = &self.waiting;
        let is_waiting = |(ticket, slot): &&(u64, Slot)| {
            self.accounts.get(slot).is_some_and(|account| account.unsaved == Some(*ticket))
        };
        Status {
            now,
            closed_by: self.closed.map(|(by, _)| by),
            is_trusted: self.is_trusted,
            zone: zone_name(&self.calendar),
            unsaved: *unsaved_count,
            oldest: unsaved.iter().find(is_waiting).map(|(ticket, _)| *ticket),
            next: *next_ticket,
            backlog: *backlog,
            given_up: *given_up,
            to_seal: ended.len(),
        }
    }

    /// The accounts that have waited longest for the store. Whoever takes them has to store them.
    pub fn take_folds(&mut self, at_most: usize) -> Vec<Fold> {
        let mut folds = Vec::new();
        while folds.len() < at_most
            && let Some((ticket, slot)) = self.waiting.unsaved.pop_front()
        {
            if let Some(account) = self.accounts.get_mut(&slot).filter(|account| account.unsaved == Some(ticket)) {
                folds.push(self.waiting.take(account));
            }
        }
        folds
    }

    /// Days that are over, with what the store does not have of their accounts. Whoever takes them has to seal them.
    pub fn take_seals(&mut self, at_most: usize) -> Vec<Seal> {
        let Some((by, _)) = self.closed else { return Vec::new() };
        let zone = zone_name(&self.calendar);
        let mut seals = Vec::new();
        for _ in 0..at_most {
            let Some(slot) = self.waiting.ended.pop_first() else { break };
            let Some(account) = self.accounts.get_mut(&slot) else { continue };
            let ended: Vec<_> =
                account.usage.take_ended(by).into_iter().map(|day| (day, account.usage.peak(day.day))).collect();
            if ended.is_empty() {
                continue;
            }
            let mut fold = self.waiting.take(account);
            for (day, peak) in ended {
                let rest = Fold { counts: Vec::new(), ..fold.clone() };
                let throttled_secs = account.usage.held_secs(day.day);
                let fold = std::mem::replace(&mut fold, rest);
                let (day, zone, limit_qps) = (day.day, zone.clone(), day.limit_qps);
                seals.push(Seal { fold, day, zone, limit_qps, throttled_secs, peak });
            }
        }
        self.forget_stale_tickets();
        seals
    }

    /// Places at the front of the queue whose accounts were taken another way.
    fn forget_stale_tickets(&mut self) {
        let is_waiting = |(ticket, slot): &(u64, Slot)| {
            self.accounts.get(slot).is_some_and(|account| account.unsaved == Some(*ticket))
        };
        while self.waiting.unsaved.front().is_some_and(|front| !is_waiting(front)) {
            self.waiting.unsaved.pop_front();
        }
    }

    /// Looks for days that ended, when one did.
    pub(super) fn note_ended_days(&mut self, now: Reading, by: Bucket) {
        let today = self.calendar.today(now.now);
        if self.waiting.today.replace(today) != Some(today) {
            let ended = self.accounts.iter().filter(|(_, account)| account.usage.has_ended(by));
            self.waiting.ended.extend(ended.map(|(slot, _)| *slot));
        }
    }

    /// Has all accounts looked at for ended days, at the next close.
    pub(super) fn look_for_ended_days(&mut self) {
        self.waiting.today = None;
    }

    fn save_all(&mut self) {
        for (slot, account) in &mut self.accounts {
            self.waiting.save(*slot, account);
        }
    }
}

/// Zones come from the configuration, by their IANA names.
fn zone_name(calendar: &crate::usage::Calendar) -> String {
    calendar.zone().iana_name().unwrap_or("UTC").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;

    #[test]
    fn counts_beyond_what_memory_has_room_for_are_given_up() {
        let mut account = Account::new("a.test".into());
        (0..3).for_each(|bucket| account.usage.add(Bucket(bucket), 0, 1));
        let mut calendar = crate::usage::Calendar::new(jiff::tz::TimeZone::UTC);
        account.usage.close(Reading { now: UnixTime::from_secs(30), pass: 0 }, None, &mut calendar);
        let mut waiting = Waiting { backlog: MAX_BACKLOG - 1, ..Waiting::default() };
        waiting.closed(Slot(0), &mut account, 0, Bucket(3));
        assert_eq!((waiting.backlog, waiting.given_up), (MAX_BACKLOG, 2));
        assert_eq!(account.usage.take_closed(), [(Bucket(2), 1)], "the oldest first");
    }
}
