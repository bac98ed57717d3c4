//! When a certificate is to be ordered: the rule, from what is held, what failed, and what the authority would like.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use super::queue::Task;
use crate::clock::UnixTime;
use crate::control::Kept;
use crate::issuance::renewal::{Window, due_at, standby_due_at};
use crate::issuance::subject::Subject;
use crate::name::DomainName;
use crate::store::inventory::{Attempts, Role};

/// When a task that failed before the clock stepped back is tried again at the latest.
const AFTER_STEP_BACK_SECS: i64 = 600;

/// How long a certificate is used at least, whatever its authority would like.
const LEAST_USED_SECS: i64 = 6 * 3600;

/// What is held for a subject.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held<'a> {
    /// The certificate that was issued last to be the domain's own.
    pub own: Option<&'a Arc<Kept>>,
    /// The standby that was issued last.
    pub standby: Option<&'a Arc<Kept>>,
    /// First and last second of the best of the domain's certificate files, if it has any that work.
    pub manual: Option<(UnixTime, UnixTime)>,
}

/// When `task` is to be carried out; `None`: never as things are.
pub fn due(
    task: &Task,
    subject: &Subject,
    held: Held<'_>,
    attempts: Option<&Attempts>,
    now: UnixTime,
) -> Option<UnixTime> {
    let wanted = match task.role {
        Role::Own if subject.terms.is_manual => return None,
        Role::Own => renewal(held.own, subject, jitter(task)),
        Role::Standby if !subject.terms.method.standby => return None,
        Role::Standby => {
            let of_kept = |kept: &Arc<Kept>| (kept.certificate.not_before(), kept.certificate.not_after());
            let own = held.manual.or(held.own.map(of_kept));
            let needed = match own {
                Some((not_before, not_after)) => standby_due_at(not_before, not_after),
                // A domain whose files are broken or missing; one that is managed is about to get its own.
                None if subject.terms.is_manual => now,
                None => return None,
            };
            needed.max(renewal(held.standby, subject, jitter(task)))
        }
    };
    Some(match attempts {
        None => wanted,
        // Nothing that failed in what is now the future keeps a name waiting for longer than a back-off.
        Some(attempts) if attempts.last_at > now => {
            wanted.max(now.plus_secs(AFTER_STEP_BACK_SECS).min(attempts.next_at))
        }
        Some(attempts) => wanted.max(attempts.next_at),
    })
}

/// When a certificate is renewed; at once if there is none, or it is not for all that is wanted.
fn renewal(kept: Option<&Arc<Kept>>, subject: &Subject, jitter: u64) -> UnixTime {
    let is_for_all = |kept: &&Arc<Kept>| subject.required().all(|name| kept.certificate.covers(name));
    let Some(kept) = kept.filter(is_for_all) else { return UnixTime::from_secs(0) };
    let window = kept.ari.and_then(|ari| ari.window);
    renewal_of((kept.certificate.not_before(), kept.certificate.not_after()), window, jitter)
}

/// When a certificate with these first and last seconds is renewed, of which the authority says `window`: what the loop
/// does, as far as nothing else about it is wrong.
pub fn renewal_at(
    subject: &DomainName,
    role: Role,
    validity: (UnixTime, UnixTime),
    window: Option<Window>,
) -> UnixTime {
    renewal_of(validity, window, jitter(&Task { subject: subject.clone(), role }))
}

fn renewal_of((not_before, not_after): (UnixTime, UnixTime), window: Option<Window>, jitter: u64) -> UnixTime {
    let by_itself = due_at(not_before, not_after, None, jitter);
    match window {
        // An authority whose windows are always in the past must not have us renew for ever.
        Some(window) => due_at(not_before, not_after, Some(window), jitter)
            .max(not_before.plus_secs(LEAST_USED_SECS).min(by_itself)),
        None => by_itself,
    }
}

/// The same for a subject whenever it is asked, by any version of this program, so that neither a restart nor an update
/// moves anything; and another one for each.
pub fn jitter(task: &Task) -> u64 {
    let hash = digest(&SHA256, format!("{} {}", task.role.label(), task.subject).as_bytes());
    hash.as_ref().first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests;
