//! Names on demand in the loop: their first orders wait behind others, and have every fourth turn; their renewals are like
//! everybody's.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Issuing;
use super::queue::{Queue, Task};
use crate::clock::UnixTime;
use crate::control::{Control, Ordered};
use crate::issuance::OnDemand;
use crate::issuance::subject::Subject;
use crate::name::DomainName;
use crate::on_demand::Pace;
use crate::store::inventory::Role;

/// Failures of names that nobody configured that are remembered, lest the authority is asked again too soon.
const MAX_FAILURES: usize = 10_000;
/// After so many orders of others it is the turn of a name that nobody configured.
const OTHERS_BEFORE: u32 = 3;
/// Pause between two complaints that there are too many new ones.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(3600);

/// What the loop knows of names that nobody configured.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// First orders.
    queue: Queue<Task>,
    /// What they are for: waiting, or under way.
    first: HashMap<Task, First>,
    under_way: HashSet<Task>,
    /// Orders of others that began since one of theirs did.
    others_begun: u32,
    /// Names of certificates that are configured, beside those that they are named by.
    configured: HashSet<DomainName>,
    /// Those that have a certificate, and who approves of them.
    aliases: HashMap<DomainName, Arc<OnDemand>>,
    /// Of those, the ones that were not approved again when they were to be renewed.
    refused: HashSet<DomainName>,
    /// Tasks that failed, in the order in which they did.
    failed: VecDeque<Task>,
    pace: Pace,
    /// When it was last said that there are too many new ones.
    complained: Option<Instant>,
}

/// A first order.
#[derive(Debug)]
struct First {
    on_demand: Arc<OnDemand>,
    /// Whether it counts as a new name of this hour.
    is_counted: bool,
}

impl Strangers {
    /// Whether it is their turn.
    pub(super) fn have_waited(&self) -> bool {
        self.others_begun >= OTHERS_BEFORE
    }

    /// An order of somebody else begins.
    pub(super) fn wait(&mut self) {
        self.others_begun = self.others_begun.saturating_add(1);
    }

    /// The first order that is due next, if there is room for it: at most half of `max_orders`, and one in any case.
    pub(super) fn pop_due(&mut self, now: UnixTime, max_orders: usize) -> Option<Task> {
        if self.under_way.len() >= (max_orders / 2).max(1) {
            return None;
        }
        let task = self.queue.pop_due(now)?;
        self.others_begun = 0;
        Some(task)
    }

    /// An order begins. Says whether nobody configured its name, and who must be asked first.
    pub(super) fn begin(&mut self, task: &Task) -> (bool, Option<Arc<OnDemand>>) {
        if self.first.contains_key(task) {
            self.under_way.insert(task.clone());
            return (true, None);
        }
        let on_demand = self.aliases.get(&task.subject).cloned();
        (on_demand.is_some(), on_demand)
    }

    /// A first order is over, or was never begun. Whether it was one.
    pub(super) fn leave(&mut self, task: &Task) -> bool {
        self.under_way.remove(task);
        self.queue.plan(task, None);
        self.first.remove(task).is_some()
    }

    /// Whether it is a first order that waits, or is under way.
    pub(super) fn is_first(&self, task: &Task) -> bool {
        self.first.contains_key(task)
    }

    /// Whether it was not approved again.
    pub(super) fn is_refused(&self, name: &DomainName) -> bool {
        self.refused.contains(name)
    }

    /// It was not approved again: what it has serves until it ends.
    pub(super) fn refuse(&mut self, name: &DomainName) {
        self.refused.insert(name.clone());
    }

    /// The domain that serves a name that nobody configured.
    pub(super) fn site_of(&self, task: &Task) -> Option<&DomainName> {
        let first = self.first.get(task).map(|first| &first.on_demand);
        first.or_else(|| self.aliases.get(&task.subject)).map(|on_demand| &on_demand.site)
    }

    /// A first order will not begin: another new name may be let in instead.
    pub(super) fn give_back(&mut self, task: &Task) {
        if self.first.get(task).is_some_and(|first| first.is_counted) {
            self.pace.give_back();
        }
    }

    /// Forgets that it failed.
    pub(super) fn forget_failure(&mut self, task: &Task) {
        self.failed.retain(|failed| failed != task);
    }

    /// Notes what failed before: of a start, all that did.
    pub(super) fn remember_failures<'a>(&mut self, tasks: impl Iterator<Item = &'a Task>) {
        self.failed = tasks.cloned().collect();
    }
}

impl Issuing {
    /// A name that was approved: ordered, if there is no valid certificate, and not before it may be tried again.
    pub(super) fn admit(&mut self, name: DomainName, reply: oneshot::Sender<Ordered>) {
        match self.begin_to_admit(&name) {
            Ok(Some(task)) => self.wait_for(task, reply),
            Ok(None) => _ = reply.send(Ordered { ok: true, id: None, message: String::new(), advice: None }),
            Err(why) => _ = reply.send(Ordered::refused(why)),
        }
    }

    /// The order to wait for; `None`: there is a certificate.
    fn begin_to_admit(&mut self, name: &DomainName) -> Result<Option<Task>, String> {
        let now = self.workshop.clock.read().now;
        if !self.is_open || !self.workshop.custody.is_ready() {
            return Err("inventory or vault is not open yet".to_owned());
        }
        let task = Task { subject: name.clone(), role: Role::Own };
        let is_alias = self.strangers.aliases.contains_key(name);
        // Without a domain that serves it, its certificate would be ordered again at every handshake.
        if self.strangers.configured.contains(name) || self.wanted.has(name) && !is_alias {
            return Err("it is a name of a certificate that is configured, and no `[[domain]]` serves it".to_owned());
        }
        if self.under_way.contains_key(&task) || self.strangers.first.contains_key(&task) {
            return Ok(Some(task));
        }
        let snapshot = self.live.snapshot();
        let known = snapshot.aliases.get(name.as_str());
        if known.is_some_and(|site| site.certificates.guaranteed_until(name, now).is_some()) {
            return Ok(None);
        }
        let on_demand = snapshot.on_demand.clone().ok_or("no names are served on demand any more")?;
        if let Some(attempts) = self.attempts.get(&task).filter(|it| it.last_at <= now && now < it.next_at) {
            return Err(format!("{} Next attempt at {}", attempts.problem, attempts.next_at));
        }
        // One that was served before is renewed here.
        if !is_alias {
            self.let_in(on_demand.max_new_per_hour, Instant::now())?;
        }
        self.strangers.refused.remove(name);
        self.strangers.first.insert(task.clone(), First { on_demand, is_counted: !is_alias });
        // Once: an expired name's renewal is this order.
        self.wanted.plan(&task, None);
        self.strangers.queue.plan(&task, Some(now));
        Ok(Some(task))
    }

    /// Another new name, if there may be one in this hour.
    fn let_in(&mut self, max_per_hour: usize, now: Instant) -> Result<(), String> {
        let Err(wait) = self.strangers.pace.let_in(max_per_hour, now) else { return Ok(()) };
        self.metrics.put_off.inc();
        let minutes = wait.as_secs() / 60 + 1;
        let problem = format!("there were {max_per_hour} new names on demand in the hour: the next in {minutes} min");
        let is_due = |at: Instant| now.saturating_duration_since(at) >= COMPLAINT_PAUSE;
        if self.strangers.complained.is_none_or(is_due) {
            self.strangers.complained = Some(now);
            tracing::warn!("{problem}, unless `acme.on_demand.max_new_per_hour` is raised");
        }
        Err(problem)
    }

    /// What a first order is for.
    pub(super) fn subject_of_stranger(&self, control: &Control, task: &Task) -> Option<Arc<Subject>> {
        self.strangers.first.get(task)?;
        Some(Arc::new(control.alias_subject(&task.subject)?.0))
    }

    /// Gives a first order up before it began. Whether it was one.
    pub(super) fn turn_away(&mut self, task: &Task) -> bool {
        self.strangers.give_back(task);
        let is_first = self.strangers.leave(task);
        if is_first {
            self.tell(task, &Ordered::refused("no authority issues for it now".to_owned()));
        }
        is_first
    }

    /// Plans a task that could not be begun, if somebody wants it still.
    pub(super) fn plan_again(&mut self, task: &Task, at: Option<UnixTime>) {
        if self.strangers.is_first(task) {
            self.strangers.queue.plan(task, at);
        } else if self.once.has(task) {
            self.once.plan(task, at);
        } else {
            self.wanted.plan(task, at);
        }
    }

    /// Tells whoever waits for a task what became of it.
    pub(super) fn tell(&mut self, task: &Task, ordered: &Ordered) {
        for asker in self.askers.remove(task).into_iter().flatten() {
            _ = asker.send(ordered.clone());
        }
    }

    /// Takes all names over that are served and not configured.
    pub(super) fn adopt_aliases(&mut self, control: &Control) {
        self.strangers.aliases.clear();
        self.strangers.refused.clear();
        let names = control.subjects().iter().filter(|it| it.required().nth(1).is_some());
        self.strangers.configured = names.flat_map(|subject| subject.required().skip(1).cloned()).collect();
        for name in control.aliases() {
            self.adopt_alias(control, name);
        }
    }

    /// Takes one over, if it is one.
    pub(super) fn adopt_alias(&mut self, control: &Control, name: &DomainName) {
        if control.is_alias(name)
            && let Some((subject, on_demand)) = control.alias_subject(name)
        {
            self.wanted.insert(Arc::new(subject));
            self.strangers.aliases.insert(name.clone(), on_demand);
        }
    }

    /// Forgets names whose last certificate was given up.
    pub(super) fn forget_gone_aliases(&mut self, control: &Control) {
        let gone: Vec<_> = self.strangers.aliases.keys().filter(|name| !control.is_alias(name)).cloned().collect();
        for name in gone {
            self.strangers.aliases.remove(&name);
            self.strangers.refused.remove(&name);
            if let Some(number) = self.wanted.remove(&name) {
                self.renewal_info.forget(number);
            }
        }
    }

    /// Notes a failure, and forgets the oldest where there are too many: names are as many as clients like.
    pub(super) async fn forget_old_failures(&mut self, task: &Task) {
        self.strangers.forget_failure(task);
        self.strangers.failed.push_back(task.clone());
        while self.strangers.failed.len() > MAX_FAILURES {
            let Some(oldest) = self.strangers.failed.pop_front() else { return };
            if self.wanted.has(&oldest.subject) {
                continue;
            }
            self.attempts.remove(&oldest);
            let order = self.orders.remove(&oldest);
            let Ok(inventory) = self.workshop.custody.inventory() else { continue };
            let forgotten = async {
                if let Some((id, _)) = order {
                    inventory.end_order(id).await?;
                }
                inventory.forget_attempts(&oldest.subject, oldest.role).await
            };
            if let Err(error) = forgotten.await {
                tracing::warn!("what failed cannot be forgotten: {error}");
            }
        }
    }
}
