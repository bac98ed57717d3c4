//! Which reminder of a certificate's end is due: a pure rule over its dates, how it is renewed, and now.
//!
//! Nothing is remembered between two starts: of all thresholds the last one that has passed is the one that is due, so
//! that a process tells at most one of them when it starts, and each of the later ones in its second.

use crate::clock::UnixTime;
use crate::issuance::renewal;

const DAY_SECS: i64 = 86_400;

/// Days before the end at which somebody is told.
const THRESHOLD_DAYS: [i64; 5] = [30, 14, 7, 3, 1];

/// Days after the end on which it is told again.
const EXPIRED_DAYS: i64 = 30;

/// From how many days before its end a certificate that is renewed by hand may be replaced.
const REPLACEABLE_DAYS: i64 = 90;

/// How a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// By whoever puts its files there.
    ByHand,
    /// By Lockgate: only once that is late there is something to tell.
    ByItself,
}

/// A threshold that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reminder {
    /// So many days are left, or less.
    Expiring {
        /// One of the thresholds.
        days: i64,
    },
    /// It is over, for so many whole days or more.
    Expired {
        /// From 0 on.
        days: i64,
    },
}

impl Reminder {
    /// Whether it comes after the other one in a certificate's life.
    pub fn is_after(self, other: Self) -> bool {
        let place = |it| match it {
            Self::Expiring { days } => -days,
            Self::Expired { days } => days,
        };
        place(self) > place(other)
    }
}

/// The reminder that is due at `now` for a certificate with these first and last seconds.
pub fn due(not_before: UnixTime, not_after: UnixTime, renewed: Renewed, now: UnixTime) -> Option<Reminder> {
    let over_secs = now.secs().saturating_sub(end_secs(not_after));
    if over_secs >= 0 {
        return Some(Reminder::Expired { days: (over_secs / DAY_SECS).min(EXPIRED_DAYS) });
    }
    let has_passed = |days: &i64| at(not_after, *days).secs() <= now.secs();
    let days = thresholds(not_before, not_after, renewed).filter(has_passed).min()?;
    Some(Reminder::Expiring { days })
}

/// The first second after `now` at which another reminder is due; `None`: none will be.
pub fn next_at(not_before: UnixTime, not_after: UnixTime, renewed: Renewed, now: UnixTime) -> Option<UnixTime> {
    let before = thresholds(not_before, not_after, renewed).map(|days| at(not_after, days));
    let after = (0..=EXPIRED_DAYS).map(|days| at(not_after, -days));
    before.chain(after).find(|it| it.secs() > now.secs())
}

/// From when on a certificate that is renewed by hand may be replaced.
pub fn replaceable_from(not_before: UnixTime, not_after: UnixTime) -> UnixTime {
    at(not_after, REPLACEABLE_DAYS).max(not_before)
}

/// In words: what is left, or for how long it has been over.
pub fn left(not_after: UnixTime, now: UnixTime) -> String {
    let left_secs = end_secs(not_after).saturating_sub(now.secs());
    let days = |secs: i64| match secs / DAY_SECS {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    match left_secs {
        1.. => format!("expires at {not_after}, {} left", days(left_secs)),
        _ if left_secs > -DAY_SECS => format!("expired at {not_after}"),
        _ => format!("expired at {not_after}, {} ago", days(left_secs.saturating_neg())),
    }
}

/// The thresholds of a certificate, the first one first. None is before it begins. One that is renewed by itself has
/// those at which it should have been: a third of its life is left when renewal is due (half of a short one), and its
/// authority may like it somewhat later.
fn thresholds(not_before: UnixTime, not_after: UnixTime, renewed: Renewed) -> impl Iterator<Item = i64> {
    let lifetime = end_secs(not_after).saturating_sub(not_before.secs());
    let longest = match renewed {
        Renewed::ByHand => lifetime,
        Renewed::ByItself => end_secs(not_after).saturating_sub(renewal::late_at(not_before, not_after).secs()),
    };
    THRESHOLD_DAYS.into_iter().filter(move |days| days * DAY_SECS < longest)
}

/// So many days before it is over.
fn at(not_after: UnixTime, days: i64) -> UnixTime {
    UnixTime::from_secs(end_secs(not_after).saturating_sub(days * DAY_SECS))
}

/// The first second at which it is over.
fn end_secs(not_after: UnixTime) -> i64 {
    not_after.secs().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reminder::{Expired, Expiring};
    use Renewed::{ByHand, ByItself};
    use proptest::prelude::*;
    use rstest::rstest;

    const START: i64 = 1_800_000_000;

    /// The dates of one that lives for so many days.
    fn dates(days: i64) -> (UnixTime, UnixTime) {
        (UnixTime::from_secs(START), UnixTime::from_secs(START + days * DAY_SECS - 1))
    }

    /// All reminders of its life and long after, each with its second as days before the end.
    fn reminders(days: i64, renewed: Renewed) -> Vec<(i64, Reminder)> {
        let (from, to) = dates(days);
        let (mut now, mut told) = (UnixTime::from_secs(START), Vec::new());
        assert_eq!(due(from, to, renewed, now), None, "nothing at birth");
        while let Some(next) = next_at(from, to, renewed, now) {
            assert_eq!(due(from, to, renewed, next.plus_secs(-1)), told.last().map(|(_, reminder)| *reminder));
            now = next;
            let (left, rest) = ((end_secs(to) - now.secs()) / DAY_SECS, (end_secs(to) - now.secs()) % DAY_SECS);
            assert_eq!(rest, 0);
            told.push((left, due(from, to, renewed, now).unwrap()));
        }
        told
    }

    #[rstest]
    #[case::a_year_by_hand(365, ByHand, &[30, 14, 7, 3, 1])]
    #[case::ninety_days_by_hand(90, ByHand, &[30, 14, 7, 3, 1])]
    #[case::thirty_days_by_hand(30, ByHand, &[14, 7, 3, 1])]
    #[case::a_year(365, ByItself, &[30, 14, 7, 3, 1])]
    #[case::ninety_days(90, ByItself, &[14, 7, 3, 1])]
    #[case::forty_seven_days(47, ByItself, &[7, 3, 1])]
    #[case::six_days(6, ByItself, &[1])]
    #[case::one_day(1, ByItself, &[])]
    fn each_threshold_is_told_in_its_second(#[case] days: i64, #[case] renewed: Renewed, #[case] expected: &[i64]) {
        let before: Vec<_> = expected.iter().map(|days| (*days, Expiring { days: *days })).collect();
        let after = (0..=EXPIRED_DAYS).map(|days| (-days, Expired { days }));
        assert_eq!(reminders(days, renewed), before.into_iter().chain(after).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_starts_late_tells_the_last_threshold_alone() {
        let (from, to) = dates(90);
        let at = |days_left: i64| UnixTime::from_secs(end_secs(to) - days_left * DAY_SECS);
        assert_eq!(due(from, to, ByHand, at(10)), Some(Expiring { days: 14 }));
        assert_eq!(due(from, to, ByHand, at(-1000)), Some(Expired { days: EXPIRED_DAYS }));
        assert_eq!(next_at(from, to, ByHand, at(-1000)), None);
    }

    #[rstest]
    #[case(14 * DAY_SECS, "expires at 2027-01-15T08:00:00Z, 14 days left")]
    #[case(DAY_SECS + 1, "expires at 2027-01-15T08:00:00Z, 1 day left")]
    #[case(1, "expires at 2027-01-15T08:00:00Z, less than a day left")]
    #[case(0, "expired at 2027-01-15T08:00:00Z")]
    #[case(-3 * DAY_SECS, "expired at 2027-01-15T08:00:00Z, 3 days ago")]
    fn what_is_left_in_words(#[case] left_secs: i64, #[case] words: &str) {
        let not_after = UnixTime::from_secs(START);
        assert_eq!(left(not_after, not_after.plus_secs(1 - left_secs)), words);
    }

    #[test]
    fn it_may_be_replaced_ninety_days_before_its_end() {
        let (from, to) = dates(365);
        assert_eq!(replaceable_from(from, to).secs(), START + 275 * DAY_SECS);
        let (from, to) = dates(47);
        assert_eq!(replaceable_from(from, to), from);
    }

    proptest! {
        #[test]
        fn no_dates_make_it_panic(from: i64, to: i64, now: i64, by_hand: bool) {
            let [from, to, now] = [from, to, now].map(UnixTime::from_ms);
            let renewed = if by_hand { ByHand } else { ByItself };
            due(from, to, renewed, now);
            next_at(from, to, renewed, now);
            replaceable_from(from, to);
            left(to, now);
        }
    }
}
