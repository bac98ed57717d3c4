//! Names remembered for a while: so many at most, the oldest forgotten first.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::name::DomainName;

/// Names, each until a moment of its own.
#[derive(Debug)]
pub struct Recent {
    max_names: usize,
    until: HashMap<DomainName, Instant>,
    /// In the order in which they came, so that one is found to be forgotten when there are too many.
    order: VecDeque<DomainName>,
}

impl Recent {
    /// Remembers none yet, and never more than `max_names`.
    pub fn new(max_names: usize) -> Self {
        Self { max_names, until: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers a name. Returns whether it was not known.
    pub fn put(&mut self, name: DomainName, until: Instant) -> bool {
        if let Some(known) = self.until.get_mut(&name) {
            *known = until;
            return false;
        }
        while self.order.len() >= self.max_names.max(1) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.until.remove(&oldest);
        }
        self.order.push_back(name.clone());
        self.until.insert(name, until);
        true
    }

    /// Forgets a name.
    pub fn forget(&mut self, name: &DomainName) {
        self.until.remove(name);
    }

    /// Whether a name is remembered at `now`.
    pub fn has(&self, name: &DomainName, now: Instant) -> bool {
        self.until.get(name).is_some_and(|until| now < *until)
    }
}
