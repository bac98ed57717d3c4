//! Who is due when. Looking at it costs what is due, however much is planned.

use std::collections::BTreeSet;
use std::hash::Hash;

use foldhash::{HashMap, HashMapExt as _};

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

/// What is to be done, by the second from which it is due. Each stands here twice, so `K` had better be small.
#[derive(Debug)]
pub struct Queue<K> {
    by_time: BTreeSet<(i64, K)>,
    times: HashMap<K, i64>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: HashMap::default() }
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// With room for so much: a table that grows step by step leaves twice its size behind.
    pub fn with_capacity(many: usize) -> Self {
        Self { by_time: BTreeSet::new(), times: HashMap::with_capacity(many) }
    }

    /// Plans it anew; `None`: not at all.
    pub fn plan(&mut self, what: &K, due: Option<UnixTime>) {
        let due = due.map(UnixTime::secs);
        let before = match due {
            Some(due) => self.times.insert(what.clone(), due),
            None => self.times.remove(what),
        };
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, what.clone()));
        }
        self.by_time.extend(due.map(|due| (due, what.clone())));
    }

    /// Takes what has been due for longest.
    pub fn pop_due(&mut self, now: UnixTime) -> Option<K> {
        let (due, _) = self.by_time.first()?;
        if *due > now.secs() {
            return None;
        }
        let (_, what) = self.by_time.pop_first()?;
        self.times.remove(&what);
        Some(what)
    }

    /// When the first of all is due.
    pub fn first_due(&self) -> Option<UnixTime> {
        self.by_time.first().map(|(due, _)| UnixTime::from_secs(*due))
    }

    /// When it is due.
    pub fn due_at(&self, what: &K) -> Option<UnixTime> {
        self.times.get(what).copied().map(UnixTime::from_secs)
    }

    /// How much is planned.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// How much is due.
    pub fn waiting(&self, now: UnixTime) -> usize {
        self.by_time.iter().take_while(|(due, _)| *due <= now.secs()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    #[test]
    fn what_is_due_longest_comes_first_and_once() {
        let mut queue = Queue::default();
        for (what, due) in [('b', Some(20)), ('a', Some(30)), ('c', Some(10)), ('c', Some(25)), ('d', Some(15))] {
            queue.plan(&what, due.map(at));
        }
        queue.plan(&'d', None);
        queue.plan(&'a', Some(at(30)));
        assert_eq!((queue.pop_due(at(19)), queue.len(), queue.due_at(&'c')), (None, 3, Some(at(25))));
        assert_eq!(queue.waiting(at(25)), 2);
        assert_eq!(std::iter::from_fn(|| queue.pop_due(at(30))).collect::<String>(), "bca");
        assert_eq!((queue.len(), queue.waiting(at(30))), (0, 0));
    }
}
