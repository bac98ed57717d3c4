//! What is wanted, and when it is to be ordered: looked at when it has changed.

use std::sync::Arc;

use super::due::{Held, due};
use super::queue::Task;
use super::wanted::{Lane, Wanted};
use super::{Issuing, try_lock};
use crate::certificate::key_changes;
use crate::clock::UnixTime;
use crate::control::{Control, Ordered};
use crate::issuance::Authority;
use crate::issuance::subject::{Subject, authorities_for};
use crate::name::DomainName;
use crate::store::inventory::Role;

/// Subjects planned while the pen is held: for a millisecond or two.
const PLANNED_AT_ONCE: usize = 500;

impl Issuing {
    /// Everything is to be planned anew if what is wanted, or a certificate file, has changed.
    pub(super) fn look_at_the_world(&mut self) {
        let control = Arc::clone(&self.control);
        // Whoever reads files holds it for as long as the disk takes; the next tick is soon.
        let Some(control) = try_lock(&control) else { return };
        // A clock that stepped back has left what is planned in the future.
        let pass = self.workshop.clock.read().pass;
        if control.edition() == self.edition && pass == self.pass {
            return;
        }
        (self.edition, self.pass) = (control.edition(), pass);
        // Secrets may be others by now, behind the same names.
        self.workshop.providers.close();
        self.acme = control.blueprint().acme.clone();
        self.has_http_listener = control.blueprint().has_http_listener;
        let authorities = self.acme.as_ref().map_or(0, |acme| acme.authorities.len());
        self.wanted = Wanted::new(control.subjects(), authorities);
        self.renewal_info.begin_anew(control.subjects().len());
        self.adopt_aliases(&control);
    }

    /// Plans the next of those that are to be planned, as many as may be while others wait for the pen. Whether that is
    /// to be done again.
    pub(super) fn plan_some(&mut self, now: UnixTime) -> bool {
        if self.wanted.is_looked_at() {
            return false;
        }
        let control = Arc::clone(&self.control);
        let Some(control) = try_lock(&control) else { return false };
        for name in self.wanted.look_at(PLANNED_AT_ONCE) {
            self.plan(&control, &name, now);
        }
        true
    }

    /// Plans anew what turned out to have a key that does not open: nobody is served by it, so it is not held.
    pub(super) fn look_at_the_keys(&mut self, now: UnixTime) {
        // Locked, the vault opens nothing, and that says nothing of a key. Read before looking: what breaks meanwhile is
        // looked at next time.
        let changes = key_changes();
        if changes == self.key_changes || !self.workshop.custody.is_unlocked() {
            return;
        }
        let control = Arc::clone(&self.control);
        let Some(control) = try_lock(&control) else { return };
        self.key_changes = changes;
        let broken: Vec<_> = control.kept().all().filter(|it| it.certificate.is_known_broken()).cloned().collect();
        for kept in broken {
            if self.broken.insert(kept.id) {
                tracing::error!(
                    domain = %kept.subject, certificate = kept.id.0,
                    "the key of a kept certificate does not open, although the vault is unlocked: it was changed, or \
                     its data key is lost; the certificate is not served, and another one is ordered"
                );
                self.plan(&control, &kept.subject, now);
            }
        }
    }

    /// When a subject's certificates are to be ordered.
    pub(super) fn plan(&mut self, control: &Control, name: &DomainName, now: UnixTime) {
        let Some(number) = self.wanted.number_of(name) else { return };
        let Some(subject) = self.wanted.subject(number).cloned() else { return };
        let kept = control.kept().of(name);
        let newest = |role| {
            let newest =
                kept.iter().rev().find(|it| it.role == role && it.belongs_to(subject.terms.tenant.as_ref()))?;
            (!self.broken.contains(&newest.id)).then_some(newest)
        };
        let manual = subject.terms.is_manual.then(|| self.live.snapshot().site(name.as_str()).cloned()).flatten();
        let manual = manual.and_then(|site| site.certificates.own_until(now));
        let held = Held { own: newest(Role::Own), standby: newest(Role::Standby), manual };
        for role in [Role::Own, Role::Standby] {
            let task = Task { subject: name.clone(), role };
            if self.under_way.contains_key(&task) || role == Role::Own && self.strangers.is_refused(name) {
                continue;
            }
            // Whoever asks for it does not wait for its time.
            let at = match self.askers.contains_key(&task) {
                true => Some(UnixTime::from_secs(0)),
                false => due(&task, &subject, held, self.attempts.get(&task), now),
            };
            let first = self.authorities(&task, &subject, held).into_iter().next();
            let lane = first.as_ref().map_or(0, |first| self.lane_of(first));
            self.wanted.plan_in(&task, lane, at.filter(|_| first.is_some()));
        }
        self.renewal_info.plan(number, name, held.own, now);
    }

    /// Tells whoever waits for a task that nobody will begin: what was to be ordered is not wanted any more.
    pub(super) fn tell_whose_task_is_gone(&mut self) {
        if self.askers.is_empty() || !self.wanted.is_looked_at() {
            return;
        }
        let is_gone = |task: &&Task| {
            let is_planned = self.wanted.due_at(task).is_some() || self.once.has(task) || self.strangers.is_first(task);
            !is_planned && !self.under_way.contains_key(*task) && !self.held_back.contains(task)
        };
        let gone: Vec<Task> = self.askers.keys().filter(is_gone).cloned().collect();
        for task in gone {
            self.tell(&task, &Ordered::refused("it is not configured any more".to_owned()));
        }
    }

    fn lane_of(&self, authority: &Authority) -> Lane {
        let all = self.acme.iter().flat_map(|acme| &acme.authorities);
        let place = all.zip(0..).find(|(it, _)| it.name == authority.name);
        place.map_or(0, |(_, lane)| lane)
    }

    /// Who may issue it, the one to ask first: where an order is under way, it is gone on with.
    pub(super) fn authorities(&self, task: &Task, subject: &Subject, held: Held<'_>) -> Vec<Arc<Authority>> {
        let Some(acme) = &self.acme else { return Vec::new() };
        let failures = self.attempts.get(task).map_or(0, |attempts| attempts.failures);
        let own = held.own.filter(|_| !subject.terms.is_manual);
        let own_ca = own.and_then(|own| acme.authorities.iter().find(|authority| authority.directory == *own.ca));
        let own_ca = own_ca.map(|authority| authority.name.as_str());
        let mut authorities = authorities_for(acme, subject, task.role == Role::Standby, own_ca, failures);
        if task.role == Role::Standby {
            // From the authority that does not renew it, nothing else is to be had.
            authorities.retain(|authority| own_ca != Some(&authority.name));
        }
        if let Some((_, order)) = self.orders.get(task).filter(|(_, order)| !order.url.is_empty()) {
            authorities.sort_by_key(|authority| authority.directory != order.ca);
        }
        authorities
    }
}
