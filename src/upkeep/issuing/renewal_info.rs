//! What authorities would like: renewal information (RFC 9773), asked for now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use super::accounts::Accounts;
use super::due::jitter;
use super::failure::Failure;
use super::order::Workshop;
use super::queue::{Numbered, Queue, Task};
use super::try_lock;
use super::wanted::{Number, Wanted};
use crate::clock::UnixTime;
use crate::control::{Control, Kept};
use crate::issuance::renewal::Window;
use crate::issuance::{Acme, Authority};
use crate::issuer::acme::{AcmeError, ErrorKind};
use crate::name::DomainName;
use crate::store::inventory::{Ari, Role};
use crate::text::SharedText;

/// Questions under way at once.
const MAX_ASKED: usize = 4;
/// When an authority that offers none is asked again.
const ASK_AGAIN_SECS: i64 = 86_400;
/// How often it is each certificate's turn, unless its authority said when to ask: each has its own second in this time.
const ROUND_SECS: i64 = 6 * 3600;
/// Questions per second for which nobody waits; what is overdue at a start is spread so that there are no more.
const ASKED_PER_SEC: i64 = 5;
/// How long a certificate is new: asked about at once.
const NEW_SECS: i64 = 86_400;
/// How long an authority that does not answer is not asked about other certificates, and the longest that it may want
/// that itself.
const SILENCE_SECS: i64 = 600;
const SILENCE_SECS_MAX: i64 = 86_400;

/// Whom to ask about which certificate, and when.
pub struct RenewalInfo {
    workshop: Arc<Workshop>,
    queue: Queue<Number, Numbered>,
    /// Authorities that did not answer, and until when they are not asked.
    silent: HashMap<SharedText, UnixTime>,
    asked: JoinSet<(Arc<Kept>, Result<Answer, Unanswered>)>,
}

/// Why nothing was said.
struct Unanswered {
    problem: String,
    /// How long nobody else would be answered.
    silent_secs: Option<i64>,
}

impl Unanswered {
    fn here(problem: &str) -> Self {
        Self { problem: problem.to_owned(), silent_secs: None }
    }

    /// The authority was not entered.
    fn outside(failure: Failure) -> Self {
        Self { problem: failure.problem, silent_secs: Some(silent_secs(failure.retry_after)) }
    }
}

impl From<AcmeError> for Unanswered {
    fn from(error: AcmeError) -> Self {
        let is_silent = matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::RateLimited);
        Self { problem: error.problem(), silent_secs: is_silent.then(|| silent_secs(error.retry_after())) }
    }
}

/// What an authority said.
struct Answer {
    window: Option<Window>,
    ask_again_secs: i64,
}

impl RenewalInfo {
    /// Asks about nothing yet.
    pub fn new(workshop: Arc<Workshop>) -> Self {
        Self { workshop, queue: Queue::default(), silent: HashMap::new(), asked: JoinSet::new() }
    }

    /// Plans when to ask about a subject's certificate: about a new one at once, about others of which nothing is known
    /// some time soon, so that a start with many asks no sooner than it has to.
    pub fn plan(&mut self, number: Number, subject: &DomainName, own: Option<&Arc<Kept>>, now: UnixTime) {
        let at = own.filter(|kept| !kept.ca.is_empty()).map(|own| match own.ari {
            // No answer holds for longer than a day, also if the clock was wrong when it came.
            Some(ari) if now < ari.next_at => ari.next_at.min(now.plus_secs(ASK_AGAIN_SECS)),
            // Nobody asked while nothing ran.
            Some(_) => self.soon(subject, now),
            None if now.secs() < own.certificate.not_before().secs().saturating_add(NEW_SECS) => UnixTime::from_secs(0),
            None => self.soon(subject, now),
        });
        self.queue.plan(&number, at);
    }

    /// Asks about this subject's no more.
    pub fn forget(&mut self, number: Number) {
        self.queue.plan(&number, None);
    }

    /// Forgets all numbers: what is wanted is another, for so many subjects.
    pub fn begin_anew(&mut self, subjects: usize) {
        self.queue = Queue::with_capacity(subjects);
    }

    /// When to ask about one of those about which it is time to ask.
    fn soon(&self, subject: &DomainName, now: UnixTime) -> UnixTime {
        let all = i64::try_from(self.queue.len()).unwrap_or(i64::MAX);
        // Where there are few, this very second.
        turn_of(subject, now.plus_secs(-1), (all / ASKED_PER_SEC).clamp(1, ROUND_SECS))
    }

    /// Asks who is due, and takes in what was answered: into `fresh`, to be published.
    pub async fn step(&mut self, now: UnixTime, control: &Mutex<Control>, wanted: &Wanted, fresh: &mut Vec<Arc<Kept>>) {
        while let Some(answered) = self.asked.try_join_next() {
            let Ok((kept, answer)) = answered else { continue };
            let Some(number) = wanted.number_of(&kept.subject) else { continue };
            // It may have been replaced, or taken away, while it was asked about. Whoever holds the pen reads files.
            let Some(is_current) = is_current(control, &kept) else {
                self.queue.plan(&number, Some(now));
                continue;
            };
            if !is_current {
                continue;
            }
            let answer = match answer {
                Ok(answer) => answer,
                Err(Unanswered { problem, silent_secs }) => {
                    tracing::debug!(domain = %kept.subject, "renewal information: {problem}");
                    if let Some(secs) = silent_secs {
                        self.silent.insert(kept.ca.clone(), now.plus_secs(secs));
                    }
                    self.queue.plan(&number, Some(turn_of(&kept.subject, now, ROUND_SECS)));
                    continue;
                }
            };
            let ari = Ari { window: answer.window, next_at: now.plus_secs(answer.ask_again_secs) };
            self.queue.plan(&number, Some(ari.next_at));
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
            let Some(number) = self.queue.pop_due(now) else { return };
            let Some(control) = try_lock(control) else { return self.queue.plan(&number, Some(now)) };
            let Some(kept) = wanted.subject(number).and_then(|subject| newest(&control, &subject.name)) else {
                continue;
            };
            let is_silent = self.silent.get(&kept.ca).is_some_and(|until| is_before(now, *until));
            let acme = control.blueprint().acme.as_deref().filter(|_| !is_silent);
            let known = |acme: &Acme| acme.authorities.iter().find(|it| it.directory == *kept.ca).cloned();
            let Some(authority) = acme.and_then(known) else {
                self.queue.plan(&number, Some(turn_of(&kept.subject, now, ROUND_SECS)));
                continue;
            };
            drop(control);
            let workshop = Arc::clone(&self.workshop);
            let quiet = self.workshop.quiet.clone();
            let question = async move {
                let answer = ask(&workshop.accounts, &authority, &kept, now).await;
                (kept, answer)
            };
            self.asked.spawn_on(question, &quiet);
        }
    }
}

async fn ask(
    accounts: &Accounts,
    authority: &Arc<Authority>,
    kept: &Kept,
    now: UnixTime,
) -> Result<Answer, Unanswered> {
    let account = accounts.enter(authority, now).await.map_err(Unanswered::outside)?;
    let leaf = kept.certificate.chain().into_iter().next().ok_or_else(|| Unanswered::here("it has no leaf"))?;
    let mut window = account.renewal_window(&leaf).await;
    let is_not_found = |window: &Result<_, AcmeError>| window.as_ref().is_err_and(AcmeError::is_not_found);
    // Before it is believed that nothing is said any more, it is asked where the directory says today.
    if is_not_found(&window) {
        let again = accounts.enter_again(authority, &account, now).await.map_err(Unanswered::outside)?;
        if let Some(account) = again {
            window = account.renewal_window(&leaf).await;
        }
    }
    let window = if is_not_found(&window) { None } else { window? };
    let secs = |again: Duration| i64::try_from(again.as_secs()).unwrap_or(i64::MAX);
    Ok(match window {
        Some((window, again)) => Answer { window: Some(window), ask_again_secs: secs(again) },
        None => Answer { window: None, ask_again_secs: ASK_AGAIN_SECS },
    })
}

/// How long an authority that did not answer is left alone.
fn silent_secs(retry_after: Option<Duration>) -> i64 {
    let wanted = retry_after.map_or(0, |after| i64::try_from(after.as_secs()).unwrap_or(i64::MAX));
    wanted.clamp(SILENCE_SECS, SILENCE_SECS_MAX)
}

/// Whether it is its subject's own certificate still; `None` if nobody can tell at this moment.
fn is_current(control: &Mutex<Control>, kept: &Kept) -> Option<bool> {
    let control = try_lock(control)?;
    Some(control.kept().newest(&kept.subject, Role::Own).is_some_and(|newest| newest.id == kept.id))
}

/// The subject's own certificate that was issued last.
fn newest(control: &Control, subject: &DomainName) -> Option<Arc<Kept>> {
    control.kept().of(subject).iter().rev().find(|kept| kept.role == Role::Own && !kept.ca.is_empty()).cloned()
}

/// Whether `now` is before the end of a silence, wherever the clock was set meanwhile.
fn is_before(now: UnixTime, until: UnixTime) -> bool {
    (1..=SILENCE_SECS_MAX).contains(&until.secs().saturating_sub(now.secs()))
}

/// The next second after `now` at which it is the turn of a subject's own certificate: always the same in each round of so many, so that a
/// restart brings nothing forward.
fn turn_of(subject: &DomainName, now: UnixTime, round_secs: i64) -> UnixTime {
    let task = Task { subject: subject.clone(), role: Role::Own };
    let own = i64::try_from(jitter(&task) % round_secs.unsigned_abs()).unwrap_or_default();
    let next = now.plus_secs(1);
    next.plus_secs((own - next.secs()).rem_euclid(round_secs))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::accounts::tests::World;
    use super::*;
    use crate::certificate::fixture::NOW;
    use crate::issuer::acme::tests::fake::{Reply, problem, says};
    use crate::issuer::acme::tests::renewable;
    use crate::store::inventory::CertificateId;

    fn gone() -> Reply {
        problem(404, "malformed", "there is nothing here")
    }

    /// `Some(true)`: a window; `Some(false)`: none; `None`: no answer.
    #[rstest]
    #[case::just_read(false, &[gone()], &[], Some(false))]
    #[case::said_elsewhere(true, &[gone()], &[], Some(true))]
    #[case::said_nowhere(true, &[gone(), gone()], &[], Some(false))]
    #[case::unreadable(true, &[gone()], &[says(503, "")], None)]
    #[tokio::test]
    async fn that_nothing_is_said_any_more_is_believed_once_the_directory_was_read_again(
        #[case] is_old: bool,
        #[case] replies: &[Reply],
        #[case] directory: &[Reply],
        #[case] expected: Option<bool>,
    ) {
        let world = World::new().await;
        let (pair, path) = renewable();
        let kept = Kept {
            id: CertificateId(1),
            subject: DomainName::parse("www.example.com").unwrap(),
            tenant: None,
            role: Role::Own,
            is_on_demand: false,
            ca: world.authority.directory.as_str().into(),
            certificate: Arc::new(pair.parse()),
            ari: None,
        };
        world.accounts.enter(&world.authority, NOW).await.unwrap();
        if is_old {
            world.has_entered_before().await;
        }
        world.fake.script(&path, replies);
        world.fake.script("/dir", directory);
        let answer = ask(&world.accounts, &world.authority, &kept, NOW).await;
        assert_eq!(answer.map(|answer| answer.window.is_some()).ok(), expected);
    }

    #[test]
    fn everyones_turn_comes_once_a_round_and_not_with_all_others() {
        let start = 1_800_000_000;
        let name = |i| DomainName::parse(&format!("s{i}.example")).unwrap();
        let mut turns: Vec<i64> = Vec::new();
        for i in 0..1000 {
            let turn = turn_of(&name(i), UnixTime::from_secs(start), ROUND_SECS).secs();
            assert!((start + 1..=start + ROUND_SECS).contains(&turn), "{turn}");
            assert_eq!(
                turn_of(&name(i), UnixTime::from_secs(turn - 1), ROUND_SECS).secs(),
                turn,
                "a restart moves nothing"
            );
            assert_eq!(turn_of(&name(i), UnixTime::from_secs(turn), ROUND_SECS).secs(), turn + ROUND_SECS);
            turns.push(turn);
        }
        let early = turns.iter().filter(|turn| **turn < start + ROUND_SECS / 10).count();
        assert!((50..150).contains(&early), "{early} of 1000 in the first tenth");
    }
}
