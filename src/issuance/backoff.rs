//! When something that failed is tried again.

use crate::clock::UnixTime;

const HOUR_SECS: i64 = 3600;

/// Between two attempts while the first failure is less than an hour ago.
const SOON_SECS: i64 = 600;

/// An attempt comes up to this part of the interval later, so that those that failed together do not return together.
const JITTER_PARTS: i64 = 20;

/// The longest that an authority's Retry-After is followed.
const MAX_RETRY_AFTER_SECS: i64 = 7 * 86_400;

/// When to try again what failed `failures` times, first at `first_at` and last at `last_at`: every 10 minutes while the
/// first failure is less than an hour ago, hourly after; and not before `retry_after` (RFC 9110, section 10.2.3), as
/// long as that is within 7 days. `jitter`, any number, makes it up to a 20th of the interval later.
///
/// What did not fail may be tried at once: at `last_at`.
pub fn next_attempt(
    failures: u32,
    first_at: UnixTime,
    last_at: UnixTime,
    retry_after: Option<UnixTime>,
    jitter: u64,
) -> UnixTime {
    if failures == 0 {
        return last_at;
    }
    // If the clock stepped back in between, the first failure lies in the future, and less than an hour ago it is.
    let is_recent = last_at.secs().saturating_sub(first_at.secs()) < HOUR_SECS;
    let interval = if is_recent { SOON_SECS } else { HOUR_SECS };
    let own = last_at.plus_secs(interval);
    let asked = retry_after.map_or(own, |at| at.min(last_at.plus_secs(MAX_RETRY_AFTER_SECS)));
    let choices = u64::try_from(interval / JITTER_PARTS).unwrap_or_default().saturating_add(1);
    own.max(asked).plus_secs(i64::try_from(jitter % choices).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing_failed(0, 0, None, 0, 0)]
    #[case::first(1, 0, None, 0, 600)]
    #[case::jitter(1, 0, None, 30, 630)]
    #[case::jitter_is_bounded(1, 0, None, 31, 600)]
    #[case::for_an_hour(6, 3599, None, 0, 600)]
    #[case::after_it(7, 3600, None, 0, 3600)]
    #[case::for_ever(u32::MAX, 400 * 86_400, None, 180, 3780)]
    #[case::asked_to_wait(1, 0, Some(5000), 7, 5007)]
    #[case::asked_for_less(1, 0, Some(60), 0, 600)]
    #[case::asked_for_the_past(1, 0, Some(-60), 0, 600)]
    #[case::asked_for_ever(1, 0, Some(1_000_000_000), 0, 7 * 86_400)]
    #[case::the_clock_stepped_back(3, -86_400, None, 0, 600)]
    fn it_is_tried_again(
        #[case] failures: u32,
        #[case] since_first: i64,
        #[case] retry_after: Option<i64>,
        #[case] jitter: u64,
        #[case] later_secs: i64,
    ) {
        let last = UnixTime::from_secs(1_800_000_000);
        let retry_after = retry_after.map(|secs| last.plus_secs(secs));
        let next = next_attempt(failures, last.plus_secs(-since_first), last, retry_after, jitter);
        assert_eq!(next.secs() - last.secs(), later_secs);
    }

    proptest! {
        #[test]
        fn it_is_never_long(first: i64, last in -(1_i64 << 60)..1 << 60, retry: Option<i64>, failures: u32, jitter: u64) {
            let [first, last] = [first, last].map(UnixTime::from_ms);
            let next = next_attempt(failures, first, last, retry.map(UnixTime::from_ms), jitter);
            let longest = if retry.is_some() { MAX_RETRY_AFTER_SECS } else { HOUR_SECS };
            prop_assert!(last <= next && next <= last.plus_secs(longest + HOUR_SECS / JITTER_PARTS));
        }
    }
}
