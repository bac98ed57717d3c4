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

/// What is to be done, by the second from which it is due. Each stands here twice, so `K` had better be small; and where
/// that is a number, [`Numbered`] is the smaller of the tables.
#[derive(Debug)]
pub struct Queue<K, T = HashMap<K, i64>> {
    by_time: BTreeSet<(i64, K)>,
    times: T,
}

/// From which second each is due.
pub trait Times<K> {
    /// With room for so many: a table that grows step by step leaves twice its size behind.
    fn with_room(many: usize) -> Self;

    /// Notes when it is due, or that it is not planned. What was noted before.
    fn note(&mut self, what: &K, due: Option<i64>) -> Option<i64>;

    /// When it is due; `None`: it is not planned.
    fn of(&self, what: &K) -> Option<i64>;
}

impl<K: Clone + Eq + Hash> Times<K> for HashMap<K, i64> {
    fn with_room(many: usize) -> Self {
        Self::with_capacity(many)
    }

    fn note(&mut self, what: &K, due: Option<i64>) -> Option<i64> {
        match due {
            Some(due) => self.insert(what.clone(), due),
            None => self.remove(what),
        }
    }

    fn of(&self, what: &K) -> Option<i64> {
        self.get(what).copied()
    }
}

/// By numbers that are given without gaps.
#[derive(Debug, Default)]
pub struct Numbered(Vec<i64>);

/// What stands for a number that is not planned: a second that never comes.
const NEVER: i64 = i64::MAX;

impl<K: Copy + Into<usize>> Times<K> for Numbered {
    fn with_room(many: usize) -> Self {
        Self(Vec::with_capacity(many))
    }

    fn note(&mut self, what: &K, due: Option<i64>) -> Option<i64> {
        let place: usize = (*what).into();
        if place >= self.0.len() {
            due?;
            self.0.resize(place.saturating_add(1), NEVER);
        }
        let before = std::mem::replace(self.0.get_mut(place)?, due.unwrap_or(NEVER));
        (before != NEVER).then_some(before)
    }

    fn of(&self, what: &K) -> Option<i64> {
        self.0.get((*what).into()).copied().filter(|due| *due != NEVER)
    }
}

impl<K, T: Default> Default for Queue<K, T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: T::default() }
    }
}

impl<K: Clone + Ord, T: Times<K>> Queue<K, T> {
    /// With room for so much.
    pub fn with_capacity(many: usize) -> Self {
        Self { by_time: BTreeSet::new(), times: T::with_room(many) }
    }

    /// Plans it anew; `None`: not at all.
    pub fn plan(&mut self, what: &K, due: Option<UnixTime>) {
        let due = due.map(UnixTime::secs);
        let before = self.times.note(what, due);
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
        self.times.note(&what, None);
        Some(what)
    }

    /// When the first of all is due.
    pub fn first_due(&self) -> Option<UnixTime> {
        self.by_time.first().map(|(due, _)| UnixTime::from_secs(*due))
    }

    /// When it is due.
    pub fn due_at(&self, what: &K) -> Option<UnixTime> {
        self.times.of(what).map(UnixTime::from_secs)
    }

    /// How much is planned.
    pub fn len(&self) -> usize {
        self.by_time.len()
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
        check(Queue::<char>::default());
        check(Queue::<Letter, Numbered>::default());
    }

    /// A letter by its number.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Letter(char);

    impl From<char> for Letter {
        fn from(letter: char) -> Self {
            Self(letter)
        }
    }

    impl From<Letter> for usize {
        fn from(Letter(letter): Letter) -> Self {
            Self::try_from(u32::from(letter)).unwrap() - 97
        }
    }

    impl From<Letter> for char {
        fn from(Letter(letter): Letter) -> Self {
            letter
        }
    }

    fn check<K: From<char> + Into<char> + Clone + Ord + std::fmt::Debug, T: Times<K>>(mut queue: Queue<K, T>) {
        for (what, due) in [('b', Some(20)), ('a', Some(30)), ('c', Some(10)), ('c', Some(25)), ('d', Some(15))] {
            queue.plan(&what.into(), due.map(at));
        }
        queue.plan(&'d'.into(), None);
        queue.plan(&'z'.into(), None);
        queue.plan(&'a'.into(), Some(at(30)));
        assert_eq!((queue.pop_due(at(19)), queue.len(), queue.due_at(&'c'.into())), (None, 3, Some(at(25))));
        assert_eq!((queue.due_at(&'d'.into()), queue.due_at(&'y'.into()), queue.waiting(at(25))), (None, None, 2));
        let due = std::iter::from_fn(|| queue.pop_due(at(30)));
        assert_eq!(due.map(Into::<char>::into).collect::<String>(), "bca");
        assert_eq!((queue.len(), queue.waiting(at(30)), queue.due_at(&'a'.into())), (0, 0, None));
    }
}
