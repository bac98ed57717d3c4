//! Whose turn it is, and how an order begins.

use std::sync::Arc;

use super::attempt::is_for;
use super::due::{Held, jitter};
use super::order::Job;
use super::queue::Task;
use super::wanted::Lane;
use super::{Issuing, OPTIONAL_UNTIL_FAILURES, STARTS_PER_TICK, UnderWay, try_lock};
use crate::clock::UnixTime;
use crate::control::Ordered;
use crate::issuance::subject::turn_after;
use crate::issuance::{Authority, MAX_ORDERS};
use crate::store::inventory::{Order, OrderId, Role};

impl Issuing {
    pub(super) fn start_what_is_due(&mut self, now: UnixTime) {
        if !self.workshop.custody.is_ready() {
            return;
        }
        let max_orders = self.acme.as_ref().map_or(MAX_ORDERS, |acme| acme.max_orders);
        for _ in 0..STARTS_PER_TICK {
            if self.under_way.len() >= max_orders {
                return;
            }
            let Some(task) = self.pop_due(now, max_orders) else { return };
            self.start(task, now);
        }
    }

    /// What is asked for first, then renewals, then strangers; but they have every fourth turn, so that whoever waits in
    /// a handshake does not wait for all of them.
    fn pop_due(&mut self, now: UnixTime, max_orders: usize) -> Option<Task> {
        if self.strangers.have_waited()
            && let Some(stranger) = self.strangers.pop_due(now, max_orders)
        {
            return Some(stranger);
        }
        let wanted = self.once.pop_due(now).or_else(|| self.pop_wanted(now, max_orders));
        if wanted.is_some() {
            self.strangers.wait();
            return wanted;
        }
        self.strangers.pop_due(now, max_orders)
    }

    /// What is due for longest, unless its authority has its share.
    fn pop_wanted(&mut self, now: UnixTime, max_orders: usize) -> Option<Task> {
        let due = self.wanted.lanes_due(now);
        let due: Vec<_> = due.into_iter().map(|lane| (lane, self.asked_in(lane, now))).collect();
        let held = |ca: &str| self.under_way.values().filter(|it| it.authority.directory == ca).count();
        let lane = turn(&due, held, max_orders)?;
        self.wanted.pop_due(lane, now)
    }

    /// The directory of whom those of a lane are ordered from now: an authority that is paused is passed over.
    fn asked_in(&self, lane: Lane, now: UnixTime) -> String {
        let all = self.acme.as_ref().map_or(&[][..], |acme| &acme.authorities);
        let (before, from) = all.split_at_checked(usize::from(lane)).unwrap_or((all, &[]));
        let is_open = |it: &&Arc<Authority>| self.workshop.accounts.paused_until(it, false, now).is_none();
        let asked = from.iter().chain(before).find(is_open).or_else(|| from.first());
        asked.map(|authority| authority.directory.clone()).unwrap_or_default()
    }

    fn start(&mut self, task: Task, now: UnixTime) {
        let control = Arc::clone(&self.control);
        let Some(control) = try_lock(&control) else { return self.plan_again(&task, Some(now)) };
        let stranger = self.once.subject(&task).cloned().or_else(|| self.subject_of_stranger(&control, &task));
        let Some(subject) = stranger.or_else(|| self.wanted.get(&task.subject).cloned()) else {
            self.strangers.give_back(&task);
            self.strangers.leave(&task);
            return self.tell(&task, &Ordered::refused("it is not configured any more".to_owned()));
        };
        if self.under_way.contains_key(&task) {
            return;
        }
        // Two orders at once would show different answers at the same place.
        let is_ordered = |name| self.under_way.values().any(|other| other.names.contains(name));
        if subject.names().any(is_ordered) {
            return self.held_back.push(task);
        }
        let newest = |role| control.kept().newest(&task.subject, role);
        let held = Held { own: newest(Role::Own), standby: newest(Role::Standby), manual: None };
        let authorities = self.authorities(&task, &subject, held);
        let waits_until = |authority: &Arc<Authority>| self.waits_until(&task, authority, now);
        let open = authorities.iter().position(|authority| waits_until(authority).is_none());
        let tried = || authorities.iter().position(|authority| self.may_be_tried(&task, authority, now));
        let Some(at) = open.or_else(tried) else {
            let until = authorities.iter().filter_map(waits_until).min();
            return self.put_off(&task, until);
        };
        let replaces = newest(task.role).cloned();
        drop(control);
        self.once.remove(&task);
        let failures = self.attempts.get(&task).map_or(0, |attempts| attempts.failures);
        let left_out = match failures < OPTIONAL_UNTIL_FAILURES {
            true => self.left_out.get(&task).cloned().unwrap_or_default(),
            false => subject.optional().cloned().collect(),
        };
        let mut others = authorities.into_iter().skip(at);
        let Some(authority) = others.next() else { return };
        // One without an URL was not placed.
        let goes_on = |(_, order): &(OrderId, Order)| {
            order.ca == authority.directory && !order.url.is_empty() && is_for(order, &subject)
        };
        let under_way = self.orders.remove(&task).filter(goes_on);
        let (is_on_demand, question) = self.strangers.begin(&task);
        let job = Job {
            task,
            authority,
            others: others.collect(),
            before: Vec::new(),
            passed_over: None,
            failures,
            turn: turn_after(failures),
            left_out,
            has_http_listener: self.has_http_listener,
            replaces,
            under_way,
            is_on_demand,
            question,
            subject,
        };
        self.spawn(job, now);
    }

    /// Nobody issues for a task now: it waits, or is given up.
    fn put_off(&mut self, task: &Task, until: Option<UnixTime>) {
        self.once.remove(task);
        let later = until.map(|until| until.plus_secs(i64::from(jitter(task) as u8)));
        if self.turn_away(task) {
            // The renewal that it took the place of.
            return self.wanted.plan(task, later);
        }
        self.tell(
            task,
            &Ordered::refused(match until {
                Some(until) => format!("every authority wants to be left alone: the next attempt is at {until}"),
                None => "no authority that is configured issues for it".to_owned(),
            }),
        );
        self.wanted.plan(task, later);
    }

    /// Has an order carried out beside the loop.
    pub(super) fn spawn(&mut self, job: Job, now: UnixTime) {
        let task = job.task.clone();
        let names = job.subject.names().cloned().collect();
        self.under_way.insert(task.clone(), UnderWay { names, authority: Arc::clone(&job.authority) });
        self.workshop.accounts.note_begin(&job.authority, self.strangers.is_first(&task), now);
        tracing::info!(domain = %task.subject, role = ?task.role, ca = job.authority.name, "ordering a certificate");
        let workshop = Arc::clone(&self.workshop);
        let is_waited_for = self.strangers.is_first(&task) || self.askers.contains_key(&task);
        let order = async move {
            let outcome = workshop.carry_out(&job).await;
            (job, outcome)
        };
        let handle = match is_waited_for {
            true => self.running.spawn(order),
            false => self.running.spawn_on(order, &self.workshop.quiet),
        };
        self.handles.insert(handle.id(), task);
    }
}

/// Whose turn it is: of lanes in which something is due, the one that waits longest first, with whom is asked for it. No
/// authority has more than half of the places, and one in any case, while something is due that another one is asked for:
/// one that takes minutes for each order would have all of them.
fn turn(due: &[(Lane, String)], held: impl Fn(&str) -> usize, max_orders: usize) -> Option<Lane> {
    let share = |ca: &str| match due.iter().any(|(_, other)| other != ca) {
        true => (max_orders / 2).max(1),
        false => max_orders,
    };
    due.iter().find(|(_, ca)| held(ca) < share(ca)).map(|(lane, _)| *lane)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Lanes by the authority that is asked, what `a` and `b` hold of how many places.
    #[rstest]
    #[case::nothing("", 0, 0, 16, None)]
    #[case::alone("a", 15, 0, 16, Some(0))]
    #[case::alone_in_two_lanes("a a", 12, 0, 16, Some(0))]
    #[case::longest_first("a b", 7, 0, 16, Some(0))]
    #[case::has_its_share("a b", 8, 0, 16, Some(1))]
    #[case::both_have("a b", 8, 8, 16, None)]
    #[case::one_in_any_case("a b", 0, 0, 1, Some(0))]
    #[case::of_three("a a b", 9, 1, 16, Some(2))]
    fn it_is_the_turn_of(
        #[case] lanes: &str,
        #[case] a: usize,
        #[case] b: usize,
        #[case] max_orders: usize,
        #[case] expected: Option<Lane>,
    ) {
        let due: Vec<_> = (0..).zip(lanes.split_whitespace().map(str::to_owned)).collect();
        let held = |ca: &str| if ca == "a" { a } else { b };
        assert_eq!(turn(&due, held, max_orders), expected);
    }
}
