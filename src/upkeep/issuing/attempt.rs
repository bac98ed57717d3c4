//! An attempt: one order, and others at once where they can do what it could not.
//!
//! What an authority fails for by its own fault, the next one may do, in the same second. What cannot be proved is the
//! name's trouble, and no other authority's: at the first attempt it is tried once more at once, in another way or
//! without the name that is optional. Only then the back-off begins.

use std::time::Duration;

use super::Issuing;
use super::failure::{Blame, Failure, Said};
use super::order::Job;
use super::queue::Task;
use crate::clock::UnixTime;
use crate::issuance::Authority;
use crate::issuance::subject::{Subject, has_another_way};
use crate::issuer::acme::ErrorKind;
use crate::name::DomainName;
use crate::store::inventory::{Attempts, HeldOff, Order, OrderId};

/// The longest that an authority is left alone with a task because it asked for that.
const HELD_OFF_MAX_SECS: i64 = 7 * 86_400;
/// How long an authority that does not say when to come back is asked to be left alone by everybody.
const LESS_HASTE: Duration = Duration::from_secs(60);

impl Issuing {
    /// The order that is placed at once after one that failed; `None`: the attempt is over.
    pub(super) fn next_order(&self, job: &Job, failure: &Failure, now: UnixTime) -> Option<Job> {
        let is_first_attempt = job.failures == 0;
        let optional = failure.unproved.as_deref().filter(|name| job.subject.optional().any(|it| it == *name));
        let next = Job { under_way: None, question: None, ..job.clone() };
        // What failed on this side, a record that cannot be set perhaps, would fail for the other names, too.
        let was_looked_at = failure.reason != ErrorKind::Local.label();
        let is_optional = |name: &&DomainName| is_first_attempt && was_looked_at && !job.left_out.contains(*name);
        if let Some(name) = optional.filter(is_optional) {
            let mut left_out = job.left_out.clone();
            left_out.insert(name.clone());
            return Some(Job { left_out, ..next });
        }
        match failure.blame {
            Blame::Authority => {
                let mut others = job.others.iter();
                let authority = others.find(|authority| self.may_be_asked(&job.task, authority, now))?;
                Some(Job { authority: authority.clone(), others: others.cloned().collect(), ..next })
            }
            Blame::Proof if is_first_attempt && job.turn == 0 => {
                let other = has_another_way(&job.subject, &job.names(), job.has_http_listener, true);
                other.then_some(Job { turn: 1, ..next })
            }
            Blame::Proof | Blame::Nobody => None,
        }
    }

    /// Whether an authority is configured still, and does not want to be left alone.
    fn may_be_asked(&self, task: &Task, authority: &Authority, now: UnixTime) -> bool {
        let acme = self.acme.as_ref().filter(|acme| acme.agreed_to_terms);
        let is_configured = acme.is_some_and(|acme| acme.authorities.iter().any(|it| **it == *authority));
        is_configured && self.waits_until(task, authority, now).is_none()
    }

    /// Until when an authority is left alone with a task: it wants to be, or does not answer.
    pub(super) fn waits_until(&self, task: &Task, authority: &Authority, now: UnixTime) -> Option<UnixTime> {
        let paused = self.workshop.accounts.paused_until(authority, self.strangers.is_first(task), now);
        let held_off = self.attempts.get(task).and_then(|it| it.held_off_until(&authority.directory, now));
        paused.max(held_off)
    }

    /// Whether an authority is left alone for its silence only, with a task that somebody asks for at this moment: whoever
    /// mended a firewall need not wait.
    pub(super) fn may_be_tried(&self, task: &Task, authority: &Authority, now: UnixTime) -> bool {
        let is_asked = self.askers.contains_key(task) && !self.strangers.is_first(task);
        let held_off = self.attempts.get(task).and_then(|it| it.held_off_until(&authority.directory, now));
        is_asked && held_off.max(self.workshop.accounts.haste_until(authority, now)).is_none()
    }

    /// Notes what an order failed for, and begins the next one of the same attempt.
    pub(super) async fn go_on(&mut self, job: &Job, failure: Failure, mut next: Job, now: UnixTime) {
        let (task, authority) = (&job.task, &job.authority);
        self.note_trouble(job, &failure, now);
        let how = match (next.authority.name == authority.name, next.turn == job.turn) {
            (false, _) => format!("{} is asked", next.authority.name),
            (true, true) => "it is ordered without that name".to_owned(),
            (true, false) => "it is proved another way".to_owned(),
        };
        let problem = &failure.problem;
        tracing::warn!(domain = %task.subject, role = ?task.role, ca = authority.name, "{problem}: {how}");
        if failure.retry_after.is_some() {
            // Known after a restart, too, which goes on with whoever is next.
            let attempts = self.attempts_with(job, &failure, now);
            if let Ok(inventory) = self.workshop.custody.inventory()
                && let Err(error) = inventory.note_attempts(&attempts).await
            {
                tracing::warn!("who wants to be left alone cannot be noted: {error}");
            }
            self.attempts.insert(task.clone(), attempts);
        }
        if next.passed_over.is_none() && failure.is_passing {
            next.passed_over = self.kept_order(task).await.map(|(_, order)| order);
        }
        next.before.push(failure.said_by(authority));
        self.metrics.orders.with_label_values(&[&*authority.name, "failed"]).inc();
        self.spawn(next, now);
    }

    /// Counts what failed, and leaves an authority alone that wants to be, or does not answer.
    pub(super) fn note_trouble(&mut self, job: &Job, failure: &Failure, now: UnixTime) {
        let (authority, subject) = (&job.authority, &job.task.subject);
        let (accounts, is_stranger) = (&self.workshop.accounts, self.strangers.is_first(&job.task));
        if failure.is_rate_limit {
            let pause = failure.retry_after.unwrap_or(LESS_HASTE);
            accounts.note_refusal(authority, subject, is_stranger, pause, now);
        }
        if failure.is_silence {
            accounts.note_silence(authority, subject, is_stranger, now);
        } else if !failure.ca.is_empty() {
            accounts.note_answer(authority);
        }
        self.metrics.failures.with_label_values(&[&*authority.name, failure.reason]).inc();
        if let Some(name) = failure.unproved.as_deref().filter(|name| job.subject.optional().any(|it| it == *name)) {
            self.left_out.entry(job.task.clone()).or_default().insert(name.clone());
        }
    }

    /// What is known of a task's attempts, with what this authority says of when it may be asked again. The attempt is
    /// not over: it does not count as failed.
    pub(super) fn attempts_with(&self, job: &Job, failure: &Failure, now: UnixTime) -> Attempts {
        let before = self.attempts.get(&job.task).filter(|attempts| attempts.last_at <= now);
        let ca = &job.authority.directory;
        let until = failure.retry_after.map(|after| until(now, after));
        let mut held_off = before.map_or_else(Vec::new, |attempts| attempts.held_off.clone());
        held_off.retain(|of| now < of.until && (until.is_none() || of.ca != *ca));
        held_off
            .extend(until.map(|until| HeldOff { ca: ca.clone(), until: until.min(now.plus_secs(HELD_OFF_MAX_SECS)) }));
        // The first failure is the first that counts: trouble of our own makes no back-off older.
        let counted = before.filter(|attempts| attempts.failures > 0);
        Attempts {
            subject: job.task.subject.clone(),
            role: job.task.role,
            failures: before.map_or(0, |attempts| attempts.failures),
            first_at: counted.map_or(now, |attempts| attempts.first_at),
            last_at: now,
            next_at: now,
            ca: failure.ca.clone(),
            problem: failure.problem.clone(),
            advice: failure.advice.clone(),
            held_off,
        }
    }

    /// The order that the inventory has for a task, if it was placed.
    pub(super) async fn kept_order(&self, task: &Task) -> Option<(OrderId, Order)> {
        let inventory = self.workshop.custody.inventory().ok()?;
        let order = inventory.order_of(&task.subject, task.role).await.ok()??;
        (!order.1.url.is_empty()).then_some(order)
    }
}

/// When a wait that begins now is over.
pub(super) fn until(now: UnixTime, wait: Duration) -> UnixTime {
    now.plus_secs(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX))
}

impl Failure {
    fn said_by(self, authority: &Authority) -> Said {
        Said { by: authority.name.clone(), problem: self.problem, advice: self.advice }
    }

    /// The same of the whole attempt: what each of those says who were asked, and what to do about all of it.
    pub(super) fn of_attempt(self, before: &[Said], authority: &Authority) -> Self {
        if before.is_empty() {
            return self;
        }
        let last = self.clone().said_by(authority);
        let said = || before.iter().chain([&last]);
        let problem = said().map(|it| format!("{}: {}", it.by, it.problem)).collect::<Vec<_>>().join("; ");
        let mut advice: Vec<&str> = said().map(|it| it.advice.as_str()).filter(|advice| !advice.is_empty()).collect();
        let mut known = std::collections::HashSet::new();
        advice.retain(|advice| known.insert(*advice));
        let advice = advice.join("; ");
        Self { problem, advice, ..self }
    }
}

/// Whether an order that was placed before is for what is wanted now: all that must be, and nothing else.
pub(super) fn is_for(order: &Order, subject: &Subject) -> bool {
    let is_wanted = |name: &DomainName| subject.names().any(|it| it == name);
    subject.required().all(|name| order.names.contains(name)) && order.names.iter().all(is_wanted)
}
