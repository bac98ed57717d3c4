//! What became of an order: published, or told and tried again.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinError;

use super::asking::answer;
use super::attempt::until;
use super::due::jitter;
use super::failure::Failure;
use super::order::Job;
use super::queue::Task;
use super::{Issuing, try_lock};
use crate::alert::{Alert, AlertKind};
use crate::clock::UnixTime;
use crate::control::{Kept, Ordered};
use crate::issuance::backoff::next_attempt;
use crate::name::DomainName;
use crate::store::inventory::{Attempts, Role};

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
        if error.is_cancelled() {
            // Only the end of the process does that. What is under way is gone on with by the next one.
            return;
        }
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
        if let Err(failure) = &outcome
            && failure.is_withdrawn
        {
            self.is_over(&job.task, now);
            tracing::info!(domain = %job.task.subject, "not approved any more: it is not renewed");
            self.strangers.refuse(&job.task.subject);
            return self.tell(&job.task, &answer(&outcome));
        }
        let outcome = match outcome {
            Ok(kept) => Ok(kept),
            Err(failure) => match self.next_order(&job, &failure, now) {
                Some(next) => return self.go_on(&job, failure, next, now).await,
                None => Err(failure),
            },
        };
        let task = job.task.clone();
        self.is_over(&task, now);
        let result = if outcome.is_ok() { "issued" } else { "failed" };
        let counted = self.metrics.orders.with_label_values(&[&*job.authority.name, result]);
        match outcome {
            Ok(kept) => {
                let answered = answer(&Ok(Arc::clone(&kept)));
                let askers = self.askers.remove(&task).into_iter().flatten();
                self.told_when_published.extend(askers.map(|asker| (asker, answered.clone())));
                self.workshop.accounts.note_answer(&job.authority);
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
                self.note_trouble(&job, &failure, now);
                let failure = failure.of_attempt(&job.before, &job.authority);
                self.tell(&task, &answer(&Err(failure.clone())));
                self.failed(&job, &failure, now).await;
                if self.strangers.leave(&task) {
                    self.forget_old_failures(&task).await;
                }
            }
        }
        // Last: whoever sees it may rely on what is kept.
        counted.inc();
    }

    /// Notes an attempt that failed, tells it, and plans the next one.
    async fn failed(&mut self, job: &Job, failure: &Failure, now: UnixTime) {
        let (task, authority) = (&job.task, &job.authority);
        // Trouble of our own, a full disk perhaps, is no authority's fault, and may be over any minute.
        let is_ours = failure.ca.is_empty();
        let attempts = self.attempts_with(job, failure, now);
        let failures = attempts.failures.saturating_add(u32::from(!is_ours));
        let retry_after = failure.retry_after.map(|after| until(now, after));
        // Whoever asked to be left alone is; another authority need not be.
        let is_alone = self.acme.as_ref().is_none_or(|acme| acme.authorities.len() < 2);
        let next_at = match is_ours {
            true => now.plus_secs(AFTER_OWN_TROUBLE_SECS),
            false => next_attempt(failures, attempts.first_at, now, retry_after.filter(|_| is_alone), jitter(task)),
        };
        let attempts = Attempts { failures, next_at, ..attempts };
        if let Ok(inventory) = self.workshop.custody.inventory() {
            if let Err(error) = inventory.note_attempts(&attempts).await {
                tracing::warn!("what failed cannot be noted: {error}");
            }
            // What is under way there still is gone on with; there is room for one, and the first is preferred.
            let order = match &job.passed_over {
                Some(order) => inventory.begin_order(order).await.ok().map(|id| (id, order.clone())),
                None => self.kept_order(task).await,
            };
            self.orders.extend(order.map(|order| (task.clone(), order)));
        }
        // Told when it is kept: whoever hears of it may end the process.
        let Failure { problem, advice, .. } = failure;
        let advice = if advice.is_empty() { String::new() } else { format!(" To do: {advice}.") };
        let by = if job.before.is_empty() { format!("{}: ", authority.name) } else { String::new() };
        self.raise(AlertKind::IssuanceFailed, task, now, format!("{by}{problem}.{advice} Next attempt at {next_at}"));
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
