//! What authorities would like: renewal information (RFC 9773), asked for now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::order::Workshop;
use super::queue::{Queue, Task};
use super::try_lock;
use crate::clock::UnixTime;
use crate::control::{Control, Kept};
use crate::issuance::renewal::Window;
use crate::name::DomainName;
use crate::store::inventory::{Ari, Role};

/// Questions under way at once.
const MAX_ASKED: usize = 4;
/// When an authority that offers none, or does not answer, is asked again.
const ASK_AGAIN_SECS: i64 = 86_400;
const AFTER_FAILURE_SECS: i64 = 6 * 3600;

/// Whom to ask about which certificate, and when.
pub struct RenewalInfo {
    workshop: Arc<Workshop>,
    queue: Queue,
    certificates: HashMap<DomainName, Arc<Kept>>,
    asked: JoinSet<(Arc<Kept>, Result<Answer, String>)>,
}

/// What an authority said.
struct Answer {
    window: Option<Window>,
    ask_again_secs: i64,
}

impl RenewalInfo {
    /// Asks about nothing yet.
    pub fn new(workshop: Arc<Workshop>) -> Self {
        Self { workshop, queue: Queue::default(), certificates: HashMap::new(), asked: JoinSet::new() }
    }

    /// Plans when to ask about a subject's certificate: at once if nothing is known of it.
    pub fn plan(&mut self, subject: &DomainName, own: Option<&Arc<Kept>>, now: UnixTime) {
        let task = Task { subject: subject.clone(), role: Role::Own };
        let Some(own) = own.filter(|kept| !kept.ca.is_empty()) else {
            self.certificates.remove(subject);
            return self.queue.plan(&task, None);
        };
        let before = self.certificates.insert(subject.clone(), Arc::clone(own));
        let is_same = before.is_some_and(|before| before.id == own.id);
        match (own.ari, self.queue.due_at(&task)) {
            // No answer holds for longer than a day, also if the clock was wrong when it came.
            (Some(ari), _) => self.queue.plan(&task, Some(ari.next_at.min(now.plus_secs(ASK_AGAIN_SECS)))),
            (None, Some(_)) if is_same => {}
            (None, _) => self.queue.plan(&task, Some(UnixTime::from_secs(0))),
        }
    }

    /// Asks who is due, and takes in what was answered: into `fresh`, to be published.
    pub async fn step(&mut self, now: UnixTime, control: &Mutex<Control>, fresh: &mut Vec<Arc<Kept>>) {
        while let Some(answered) = self.asked.try_join_next() {
            let Ok((kept, answer)) = answered else { continue };
            let task = Task { subject: kept.subject.clone(), role: Role::Own };
            // One that was replaced, or taken away, while it was asked about.
            if self.certificates.get(&kept.subject).is_none_or(|current| current.id != kept.id) {
                continue;
            }
            let answer = answer.unwrap_or_else(|problem| {
                tracing::debug!(domain = %kept.subject, "renewal information: {problem}");
                Answer { window: kept.ari.and_then(|ari| ari.window), ask_again_secs: AFTER_FAILURE_SECS }
            });
            let ari = Ari { window: answer.window, next_at: now.plus_secs(answer.ask_again_secs) };
            self.queue.plan(&task, Some(ari.next_at));
            if let Ok(inventory) = self.workshop.custody.inventory()
                && let Err(error) = inventory.note_ari(kept.id, ari.window, ari.next_at).await
            {
                tracing::warn!(domain = %kept.subject, "renewal information cannot be kept: {error}");
            }
            if let Some(window) = ari.window.filter(|window| kept.ari.and_then(|before| before.window) != Some(*window))
            {
                let (start, end) = (window.start, window.end);
                tracing::info!(domain = %kept.subject, "the authority suggests renewal from {start} to {end}");
            }
            fresh.push(Arc::new(Kept { ari: Some(ari), ..Kept::clone(&kept) }));
        }
        while self.asked.len() < MAX_ASKED {
            let Some(task) = self.queue.pop_due(now) else { return };
            let Some(kept) = self.certificates.get(&task.subject).cloned() else { continue };
            // Whoever holds it reads files: soon again.
            let Some(locked) = try_lock(control) else { return self.queue.plan(&task, Some(now)) };
            let authority =
                locked.blueprint().acme.as_ref().and_then(|acme| {
                    acme.authorities.iter().find(|authority| authority.directory == *kept.ca).cloned()
                });
            drop(locked);
            let Some(authority) = authority else {
                self.queue.plan(&task, Some(now.plus_secs(AFTER_FAILURE_SECS)));
                continue;
            };
            let workshop = Arc::clone(&self.workshop);
            self.asked.spawn(async move {
                let asked = async {
                    let entered = workshop.accounts.enter(&authority, now).await.map_err(|failure| failure.problem)?;
                    let leaf = kept.certificate.chain().into_iter().next().ok_or("it has no leaf")?;
                    let window = entered.renewal_window(&leaf).await.map_err(|error| error.problem())?;
                    let secs = |again: std::time::Duration| i64::try_from(again.as_secs()).unwrap_or(i64::MAX);
                    Ok(match window {
                        Some((window, again)) => Answer { window: Some(window), ask_again_secs: secs(again) },
                        None => Answer { window: None, ask_again_secs: ASK_AGAIN_SECS },
                    })
                };
                let answer = asked.await;
                (kept, answer)
            });
        }
    }
}
