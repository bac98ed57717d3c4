//! What became of an order: published, or told and tried again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use super::asking::answer;
use super::due::jitter;
use super::order::{Failure, Job};
use super::queue::Task;
use super::{Issuing, try_lock};
use crate::alert::{Alert, AlertKind};
use crate::clock::UnixTime;
use crate::control::{Kept, Ordered};
use crate::issuance::Authority;
use crate::issuance::backoff::next_attempt;
use crate::name::DomainName;
use crate::store::inventory::{Attempts, HeldOff, Role};

/// The longest that an authority is left alone with a task because it asked for that.
const HELD_OFF_MAX_SECS: i64 = 7 * 86_400;
/// When what failed for trouble of our own is tried again.
const AFTER_OWN_TROUBLE_SECS: i64 = 60;

impl Issuing {
    /// An order of ours is over, and its names are free.
    fn is_over(&mut self, task: &Task, now: UnixTime) {
        self.under_way.remove(task);
        for task in std::mem::take(&mut self.held_back) {
            self.plan_again(&task, Some(now));
        }
    }

    /// What should not happen to an order costs that order.
    pub(super) fn broke_off(&mut self, error: &JoinError) {
        tracing::error!("an order ended in an internal error: {error}");
        let Some(task) = self.handles.remove(&error.id()) else { return };
        let now = self.workshop.clock.read().now;
        self.is_over(&task, now);
        let next_at = next_attempt(1, now, now, None, jitter(&task));
        self.wanted.plan(&task, Some(next_at));
        self.strangers.leave(&task);
        self.tell(&task, &Ordered::refused("an internal error: see the log".to_owned()));
    }

    /// Takes in what became of an order.
    pub(super) async fn finished(&mut self, job: Job, outcome: Result<Arc<Kept>, Failure>) {
        let now = self.workshop.clock.read().now;
        let Job { task, authority, subject, .. } = job;
        self.is_over(&task, now);
        if let Err(failure) = &outcome
            && failure.is_withdrawn
        {
            tracing::info!(domain = %task.subject, "not approved any more: it is not renewed");
            self.strangers.refuse(&task.subject);
            return self.tell(&task, &answer(&outcome));
        }
        let result = if outcome.is_ok() { "issued" } else { "failed" };
        let counted = self.metrics.orders.with_label_values(&[&*authority.name, result]);
        match &outcome {
            Ok(_) => {
                let askers = self.askers.remove(&task).into_iter().flatten();
                self.told_when_published.extend(askers.map(|asker| (asker, answer(&outcome))));
            }
            Err(_) => self.tell(&task, &answer(&outcome)),
        }
        match outcome {
            Ok(kept) => {
                self.attempts.remove(&task);
                self.left_out.remove(&task);
                let (issuer, end) = (kept.certificate.issuer().to_owned(), kept.certificate.not_after());
                let role = if task.role == Role::Standby { "a standby" } else { "a certificate" };
                self.raise(
                    AlertKind::CertificateIssued,
                    &task,
                    now,
                    format!("{role} was issued by {issuer}, valid until {end}"),
                );
                self.strangers.leave(&task);
                self.fresh.push(kept);
                self.publish(now);
            }
            Err(failure) => {
                if let Some(name) = failure.unproved.as_deref().filter(|name| subject.optional().any(|it| it == *name))
                {
                    self.left_out.entry(task.clone()).or_default().insert(name.clone());
                }
                self.failed(&task, &authority, failure, now).await;
                if self.strangers.leave(&task) {
                    self.forget_old_failures(&task).await;
                }
            }
        }
        // Last: whoever sees it may rely on what is kept.
        counted.inc();
    }

    /// Notes what failed, tells it, and plans the next attempt.
    async fn failed(&mut self, task: &Task, authority: &Authority, failure: Failure, now: UnixTime) {
        if failure.is_rate_limit {
            let pause = failure.retry_after.unwrap_or(Duration::from_secs(60));
            self.workshop.accounts.note_refusal(authority, &task.subject, pause, now);
        }
        self.metrics.failures.with_label_values(&[&*authority.name, failure.reason]).inc();
        // Trouble of our own, a full disk perhaps, is no authority's fault, and may be over any minute.
        let is_ours = failure.ca.is_empty();
        let before = self.attempts.get(task).filter(|attempts| attempts.last_at <= now);
        let failures = before.map_or(0, |attempts| attempts.failures).saturating_add(u32::from(!is_ours));
        let first_at = before.map_or(now, |attempts| attempts.first_at);
        let retry_after =
            failure.retry_after.map(|after| now.plus_secs(i64::try_from(after.as_secs()).unwrap_or(i64::MAX)));
        // Whoever asked to be left alone is; another authority need not be.
        let is_alone = self.acme.as_ref().is_none_or(|acme| acme.authorities.len() < 2);
        let mut held_off = before.map_or_else(Vec::new, |attempts| attempts.held_off.clone());
        held_off.retain(|of| now < of.until && (retry_after.is_none() || of.ca != authority.directory));
        held_off.extend(retry_after.map(|until| HeldOff {
            ca: authority.directory.clone(),
            until: until.min(now.plus_secs(HELD_OFF_MAX_SECS)),
        }));
        let next_at = match is_ours {
            true => now.plus_secs(AFTER_OWN_TROUBLE_SECS),
            false => next_attempt(failures, first_at, now, retry_after.filter(|_| is_alone), jitter(task)),
        };
        let attempts = Attempts {
            subject: task.subject.clone(),
            role: task.role,
            failures,
            first_at,
            last_at: now,
            next_at,
            ca: failure.ca.clone(),
            problem: failure.problem.clone(),
            advice: failure.advice.clone(),
            held_off,
        };
        if let Ok(inventory) = self.workshop.custody.inventory() {
            if let Err(error) = inventory.note_attempts(&attempts).await {
                tracing::warn!("what failed cannot be noted: {error}");
            }
            // What is under way there still is gone on with.
            if let Ok(Some(order)) = inventory.order_of(&task.subject, task.role).await
                && !order.1.url.is_empty()
            {
                self.orders.insert(task.clone(), order);
            }
        }
        // Told when it is kept: whoever hears of it may end the process.
        let Failure { problem, advice, .. } = &failure;
        let advice = if advice.is_empty() { String::new() } else { format!(" To do: {advice}.") };
        let detail = format!("{}: {problem}.{advice} Next attempt at {next_at}", authority.name);
        self.raise(AlertKind::IssuanceFailed, task, now, detail);
        self.attempts.insert(task.clone(), attempts);
        // What is wanted may be another by now; and if nobody can tell at this moment, it is tried again.
        let control = Arc::clone(&self.control);
        match try_lock(&control) {
            Some(control) => self.plan(&control, &task.subject, now),
            None => self.wanted.plan(task, Some(next_at)),
        }
    }

    /// Brings what was issued into the world.
    pub(super) fn publish(&mut self, now: UnixTime) {
        if self.fresh.is_empty() {
            return;
        }
        let control = Arc::clone(&self.control);
        let Some(mut control) = try_lock(&control) else { return };
        let fresh = std::mem::take(&mut self.fresh);
        let subjects: HashSet<DomainName> = fresh.iter().map(|kept| kept.subject.clone()).collect();
        control.take_in(fresh);
        for (asker, ordered) in self.told_when_published.drain(..) {
            _ = asker.send(ordered);
        }
        for subject in &subjects {
            self.adopt_alias(&control, subject);
        }
        for subject in subjects {
            self.plan(&control, &subject, now);
        }
    }

    fn raise(&self, kind: AlertKind, task: &Task, at: UnixTime, detail: String) {
        // Nothing is counted by a name that a client brought.
        let (domain, detail) = match self.strangers.site_of(task) {
            Some(site) => (site.shared(), format!("{}: {detail}", task.subject)),
            None => (task.subject.shared(), detail),
        };
        self.alerts.raise(&Alert { kind, domain, at, detail });
    }
}
