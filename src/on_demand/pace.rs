//! How many new names there are in an hour: each costs an order, and authorities count those.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// When new names were let in, as far as that is less than an hour ago.
#[derive(Debug, Default)]
pub struct Pace {
    /// As many as may be in an hour, at most; in order.
    let_in: VecDeque<Instant>,
}

impl Pace {
    /// Lets another name in at `now`, if fewer than `max_per_hour` were in the hour before.
    ///
    /// # Errors
    /// How long it takes until there is room for one.
    pub fn let_in(&mut self, max_per_hour: usize, now: Instant) -> Result<(), Duration> {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        while self.let_in.front().is_some_and(|at| age(at) >= HOUR) {
            self.let_in.pop_front();
        }
        // A reload may have lowered how many there may be.
        let Some(too_many) = self.let_in.len().checked_sub(max_per_hour) else {
            self.let_in.push_back(now);
            return Ok(());
        };
        Err(self.let_in.get(too_many).map_or(HOUR, |at| HOUR.saturating_sub(age(at))))
    }

    /// The one that was let in last did not use its place.
    pub fn give_back(&mut self) {
        self.let_in.pop_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Tries at these seconds, and with so many per hour; `None`: let in, else seconds to wait.
    #[rstest]
    #[case::none_at_all(&[(0, 0)], &[Some(3600)])]
    #[case::in_any_hour(&[(0, 2), (1800, 2), (3599, 2), (3600, 2), (3600, 2), (5400, 2)], &[None, None, Some(1), None, Some(1800), None])]
    #[case::lowered(&[(0, 3), (10, 3), (20, 3), (30, 1), (3620, 1)], &[None, None, None, Some(3590), None])]
    #[case::raised(&[(0, 1), (1, 1), (2, 2)], &[None, Some(3599), None])]
    fn only_so_many_are_let_in(#[case] tries: &[(u64, usize)], #[case] expected: &[Option<u64>]) {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let mut told = |(at, max)| pace.let_in(max, began + Duration::from_secs(at)).err().map(|it| it.as_secs());
        assert_eq!(tries.iter().map(|it| told(*it)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_place_that_was_not_used_is_there_for_another() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!((pace.let_in(1, now).is_ok(), pace.let_in(1, now).is_ok()), (true, false));
        pace.give_back();
        assert_eq!((pace.let_in(1, now).is_ok(), pace.let_in(1, now).is_ok()), (true, false));
    }
}
