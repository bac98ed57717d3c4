//! What is wanted: subjects, each under a number for as long as what is wanted is the same, and when they are due.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::queue::{Queue, Task};
use crate::clock::UnixTime;
use crate::issuance::subject::Subject;
use crate::name::DomainName;
use crate::store::inventory::Role;

/// A subject's place in [`Wanted`]. Whatever is kept by it is given up when what is wanted is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number(u32);

/// What certificates are to be had for, and when they are to be ordered.
#[derive(Debug, Default)]
pub struct Wanted {
    /// By number: what the configuration says, in its order, then names on demand.
    subjects: Vec<Option<Arc<Subject>>>,
    /// Numbers of those that are gone.
    free: Vec<Number>,
    numbers: HashMap<ByName, Number>,
    /// How many were looked at, to be planned.
    looked_at: usize,
    /// One for each authority: whoever is to be asked first decides in which one a task stands.
    lanes: Vec<Queue<(Number, Role)>>,
    /// In which lane the tasks of a number stand, its own and its standby.
    places: Vec<[Lane; 2]>,
}

/// The place of an authority among those that are configured.
pub type Lane = u8;

/// A subject that is found by its name, which therefore does not stand beside it once more.
#[derive(Debug)]
struct ByName(Arc<Subject>);

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl Borrow<DomainName> for ByName {
    fn borrow(&self) -> &DomainName {
        &self.0.name
    }
}

impl Wanted {
    /// What the configuration says, with so many authorities. Nothing is planned yet.
    pub fn new(configured: &[Arc<Subject>], authorities: usize) -> Self {
        let mut numbers = HashMap::with_capacity(configured.len());
        numbers.extend(configured.iter().zip(0..).map(|(it, number)| (ByName(Arc::clone(it)), Number(number))));
        let subjects = configured.iter().cloned().map(Some).collect();
        // Most stand where the first authority is asked.
        let mut lanes = vec![Queue::with_capacity(configured.len())];
        lanes.resize_with(authorities.clamp(1, usize::from(Lane::MAX)), Queue::default);
        Self { subjects, numbers, lanes, places: vec![[0; 2]; configured.len()], ..Self::default() }
    }

    /// Takes a name on demand in, in the place of whatever has its name.
    pub fn insert(&mut self, subject: Arc<Subject>) {
        self.remove(&subject.name);
        let number = self.free.pop().unwrap_or_else(|| {
            self.subjects.push(None);
            self.places.push([0; 2]);
            Number(u32::try_from(self.subjects.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(place) = self.subjects.get_mut(number.index()) {
            *place = Some(Arc::clone(&subject));
            self.numbers.insert(ByName(subject), number);
        }
    }

    /// Gives a subject up. Gives back what its number was.
    pub fn remove(&mut self, name: &DomainName) -> Option<Number> {
        let number = self.numbers.remove(name)?;
        if let Some(place) = self.subjects.get_mut(number.index()) {
            *place = None;
        }
        for role in [Role::Own, Role::Standby] {
            self.plan_number(number, role, None);
        }
        self.free.push(number);
        Some(number)
    }

    /// The subject of this name.
    pub fn get(&self, name: &DomainName) -> Option<&Arc<Subject>> {
        self.subject(self.number_of(name)?)
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &DomainName) -> bool {
        self.numbers.contains_key(name)
    }

    /// The subject's number.
    pub fn number_of(&self, name: &DomainName) -> Option<Number> {
        self.numbers.get(name).copied()
    }

    /// The subject of this number.
    pub fn subject(&self, number: Number) -> Option<&Arc<Subject>> {
        self.subjects.get(number.index())?.as_ref()
    }

    /// Whether all were looked at, to be planned.
    pub fn is_looked_at(&self) -> bool {
        self.looked_at >= self.subjects.len()
    }

    /// The next few to be looked at, to be planned.
    pub fn look_at(&mut self, at_most: usize) -> Vec<DomainName> {
        let next = self.subjects.iter().skip(self.looked_at).take(at_most);
        let names = next.flatten().map(|subject| subject.name.clone()).collect();
        self.looked_at = self.looked_at.saturating_add(at_most).min(self.subjects.len());
        names
    }

    /// Plans a task anew, in the lane in which it stands; `None`: not at all. One that is not wanted is never due.
    pub fn plan(&mut self, task: &Task, at: Option<UnixTime>) {
        if let Some(number) = self.number_of(&task.subject) {
            self.plan_number(number, task.role, at);
        }
    }

    /// The same in another lane.
    pub fn plan_in(&mut self, task: &Task, lane: Lane, at: Option<UnixTime>) {
        let Some(number) = self.number_of(&task.subject) else { return };
        if self.lane_of(number, task.role) != lane {
            self.plan_number(number, task.role, None);
            if let Some(place) = self.places.get_mut(number.index()).and_then(|it| it.get_mut(place_of(task.role))) {
                *place = lane;
            }
        }
        self.plan_number(number, task.role, at);
    }

    fn plan_number(&mut self, number: Number, role: Role, at: Option<UnixTime>) {
        let lane = self.lane_of(number, role);
        if let Some(queue) = self.lanes.get_mut(usize::from(lane)) {
            queue.plan(&(number, role), at);
        }
    }

    fn lane_of(&self, number: Number, role: Role) -> Lane {
        self.places.get(number.index()).and_then(|it| it.get(place_of(role))).copied().unwrap_or_default()
    }

    /// Lanes in which a task is due, the one that has been due for longest first.
    pub fn lanes_due(&self, now: UnixTime) -> Vec<Lane> {
        let first = |(queue, lane): (&Queue<_>, Lane)| Some((queue.first_due().filter(|due| *due <= now)?, lane));
        let mut due: Vec<_> = self.lanes.iter().zip(0..).filter_map(first).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, lane)| lane).collect()
    }

    /// Takes the task of a lane that has been due for longest.
    pub fn pop_due(&mut self, lane: Lane, now: UnixTime) -> Option<Task> {
        let (number, role) = self.lanes.get_mut(usize::from(lane))?.pop_due(now)?;
        Some(Task { subject: self.subject(number)?.name.clone(), role })
    }

    /// How many tasks are due.
    pub fn waiting(&self, now: UnixTime) -> usize {
        self.lanes.iter().map(|queue| queue.waiting(now)).sum()
    }

    /// When a task is due; `None`: it is not planned.
    pub fn due_at(&self, task: &Task) -> Option<UnixTime> {
        let number = self.number_of(&task.subject)?;
        self.lanes.get(usize::from(self.lane_of(number, task.role)))?.due_at(&(number, task.role))
    }
}

fn place_of(role: Role) -> usize {
    match role {
        Role::Own => 0,
        Role::Standby => 1,
    }
}

impl From<Number> for usize {
    fn from(number: Number) -> Self {
        number.index()
    }
}

impl Number {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuance::subject::Terms;
    use crate::issuance::{KeyAlgorithm, Method};

    fn subject(text: &str) -> Arc<Subject> {
        let key = KeyAlgorithm::default();
        let method = Method { authorities: None, challenge: None, dns: None, key, profile: None, standby: true };
        let terms = Terms { tenant: None, method: Arc::new(method), is_manual: false };
        Arc::new(Subject::new(DomainName::parse(text).unwrap(), Arc::new(terms)))
    }

    fn task(text: &str) -> Task {
        Task { subject: subject(text).name.clone(), role: Role::Own }
    }

    #[test]
    fn what_is_gone_is_never_due_and_its_number_is_given_again() {
        let mut wanted = Wanted::new(&[subject("a.test"), subject("b.test"), subject("c.test")], 1);
        let looked_at: Vec<_> = (0..4).map(|_| (wanted.is_looked_at(), wanted.look_at(2).len())).collect();
        assert_eq!(looked_at, [(false, 2), (false, 1), (true, 0), (true, 0)]);
        let now = UnixTime::from_secs(9);
        ["c.test", "b.test", "a.test", "d.test"].iter().for_each(|name| wanted.plan(&task(name), Some(now)));
        let number = wanted.remove(&task("b.test").subject);
        assert_eq!((wanted.waiting(now), wanted.remove(&task("b.test").subject)), (2, None));
        wanted.insert(subject("d.test"));
        assert_eq!((wanted.number_of(&task("d.test").subject), wanted.due_at(&task("d.test"))), (number, None));
        // What takes another's place takes its number, and is planned anew.
        wanted.insert(subject("c.test"));
        wanted.insert(subject("e.test"));
        wanted.plan(&task("e.test"), Some(now));
        let due: Vec<_> = std::iter::from_fn(|| wanted.pop_due(0, now)).map(|task| task.subject.to_string()).collect();
        assert_eq!(due, ["a.test", "e.test"]);
        assert!(wanted.has(&task("c.test").subject) && wanted.get(&task("b.test").subject).is_none());
    }

    #[test]
    fn a_task_stands_in_one_lane_and_the_lane_that_waits_longest_comes_first() {
        let mut wanted = Wanted::new(&[subject("a.test"), subject("b.test")], 3);
        let at = |secs| Some(UnixTime::from_secs(secs));
        wanted.plan_in(&task("a.test"), 1, at(5));
        wanted.plan_in(&task("b.test"), 0, at(7));
        assert_eq!(wanted.lanes_due(UnixTime::from_secs(6)), [1]);
        assert_eq!(wanted.lanes_due(UnixTime::from_secs(7)), [1, 0]);
        wanted.plan_in(&task("a.test"), 2, at(6));
        wanted.plan(&task("a.test"), at(8));
        assert_eq!((wanted.lanes_due(UnixTime::from_secs(9)), wanted.due_at(&task("a.test"))), (vec![0, 2], at(8)));
        wanted.remove(&task("b.test").subject);
        // What takes its number over stands where it is put.
        wanted.insert(subject("c.test"));
        wanted.plan_in(&task("c.test"), 1, at(1));
        assert_eq!((wanted.lanes_due(UnixTime::from_secs(9)), wanted.waiting(UnixTime::from_secs(9))), (vec![1, 2], 2));
        assert_eq!(wanted.pop_due(1, UnixTime::from_secs(9)), Some(task("c.test")));
    }
}
