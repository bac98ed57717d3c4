//! What was asked for and is not configured: ordered once.

use std::collections::HashMap;
use std::sync::Arc;

use super::queue::{Queue, Task};
use crate::clock::UnixTime;
use crate::issuance::subject::Subject;

/// Tasks until their orders begin.
#[derive(Debug, Default)]
pub(super) struct Once {
    subjects: HashMap<Task, Arc<Subject>>,
    queue: Queue<Task>,
}

impl Once {
    /// Has it ordered now.
    pub(super) fn insert(&mut self, task: &Task, subject: Subject) {
        self.subjects.insert(task.clone(), Arc::new(subject));
        self.plan(task, Some(UnixTime::from_secs(0)));
    }

    /// Plans a task that could not be begun; `None`: not at all.
    pub(super) fn plan(&mut self, task: &Task, at: Option<UnixTime>) {
        self.queue.plan(task, at);
    }

    /// Takes the task that has been due for longest.
    pub(super) fn pop_due(&mut self, now: UnixTime) -> Option<Task> {
        self.queue.pop_due(now)
    }

    /// How many tasks are due.
    pub(super) fn waiting(&self, now: UnixTime) -> usize {
        self.queue.waiting(now)
    }

    /// What a task is for.
    pub(super) fn subject(&self, task: &Task) -> Option<&Arc<Subject>> {
        self.subjects.get(task)
    }

    /// Whether it is one.
    pub(super) fn has(&self, task: &Task) -> bool {
        self.subjects.contains_key(task)
    }

    /// It was begun, or cannot be.
    pub(super) fn remove(&mut self, task: &Task) {
        self.subjects.remove(task);
        self.plan(task, None);
    }
}
