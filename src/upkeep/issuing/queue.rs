//! Who is due when. Looking at it costs what is due, however much is planned.

use std::collections::{BTreeSet, HashMap};

use crate::clock::UnixTime;
use crate::name::DomainName;
use crate::store::inventory::Role;

/// What is issued at a time: a certificate for one subject, in one role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// The subject's first name.
    pub subject: DomainName,
    /// What the certificate is for.
    pub role: Role,
}

/// Tasks by the second from which they are due.
#[derive(Debug, Default)]
pub struct Queue {
    by_time: BTreeSet<(i64, Task)>,
    times: HashMap<Task, i64>,
}

impl Queue {
    /// Plans a task anew; `None`: not at all.
    pub fn plan(&mut self, task: &Task, due: Option<UnixTime>) {
        if let Some(before) = self.times.remove(task) {
            self.by_time.remove(&(before, task.clone()));
        }
        if let Some(due) = due {
            self.times.insert(task.clone(), due.secs());
            self.by_time.insert((due.secs(), task.clone()));
        }
    }

    /// Takes the task that has been due for longest.
    pub fn pop_due(&mut self, now: UnixTime) -> Option<Task> {
        let (due, _) = self.by_time.first()?;
        if *due > now.secs() {
            return None;
        }
        let (_, task) = self.by_time.pop_first()?;
        self.times.remove(&task);
        Some(task)
    }

    /// When a task is due.
    #[cfg(test)]
    pub fn due_at(&self, task: &Task) -> Option<UnixTime> {
        self.times.get(task).copied().map(UnixTime::from_secs)
    }

    /// Every task that is planned.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.times.keys()
    }

    /// How many tasks are planned.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// How many tasks are due.
    pub fn waiting(&self, now: UnixTime) -> usize {
        self.by_time.iter().take_while(|(due, _)| *due <= now.secs()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> Task {
        Task { subject: DomainName::parse(name).unwrap(), role: Role::Own }
    }

    fn at(secs: i64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    #[test]
    fn what_is_due_longest_comes_first_and_once() {
        let mut queue = Queue::default();
        queue.plan(&task("b.example"), Some(at(20)));
        queue.plan(&task("a.example"), Some(at(30)));
        queue.plan(&task("c.example"), Some(at(10)));
        queue.plan(&task("c.example"), Some(at(25)));
        queue.plan(&task("d.example"), Some(at(15)));
        queue.plan(&task("d.example"), None);
        assert_eq!(queue.pop_due(at(19)), None);
        assert_eq!(queue.waiting(at(25)), 2);
        let popped: Vec<Task> = std::iter::from_fn(|| queue.pop_due(at(30))).collect();
        assert_eq!(popped, [task("b.example"), task("c.example"), task("a.example")]);
        assert_eq!(queue.tasks().count(), 0);
    }
}
