//! When a certificate is to be renewed.

use crate::clock::UnixTime;

const DAY_SECS: i64 = 86_400;

/// Below this lifetime half of it is left for renewing, not a third: two bad days must not be the end.
const SHORT_LIFETIME_SECS: i64 = 10 * DAY_SECS;

/// How many days before its end a domain's own certificate gets company, where a third of its lifetime is longer.
const STANDBY_SECS: i64 = 7 * DAY_SECS;

/// When a certificate begins to count as expiring, where a third of its lifetime is longer.
const EXPIRING_SECS: i64 = 30 * DAY_SECS;

/// Renewals of one moment are spread over this part of the lifetime.
const SPREAD_PARTS: i64 = 20;

/// What is left of the lifetime, as a part of it, when an authority's wish to wait is no longer followed.
const LAST_CALL_PARTS: i64 = 10;

/// When the authority would like a certificate to be renewed (RFC 9773, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub start: UnixTime,
    /// Not after.
    pub end: UnixTime,
}

/// When a certificate is to be renewed. With the authority's `window`: at the point in it that `jitter` chooses (RFC
/// 9773, section 4.2), but never so late that less than a tenth of the lifetime would be left. Else when a third of the
/// lifetime is left, half if it is less than 10 days, or up to a 20th of the lifetime earlier, as `jitter` chooses.
/// Never before notBefore. `jitter` is a hash of the subject: the same at every call, so that the moment stands still.
pub fn due_at(not_before: UnixTime, not_after: UnixTime, window: Option<Window>, jitter: u64) -> UnixTime {
    let lifetime = lifetime_secs(not_before, not_after);
    let end = end_secs(not_after);
    // An end that is not after the start is no window (RFC 9773, section 4.2).
    let due = match window.filter(|it| it.start < it.end) {
        Some(Window { start, end: until }) => {
            let width = until.secs().saturating_sub(start.secs());
            start.secs().saturating_add(below(jitter, width)).min(end.saturating_sub(lifetime / LAST_CALL_PARTS))
        }
        None => {
            let left = part(lifetime);
            end.saturating_sub(left).saturating_sub(below(jitter, lifetime / SPREAD_PARTS))
        }
    };
    UnixTime::from_secs(due.max(not_before.secs()))
}

/// When a certificate that is renewed by itself is late: a 20th of its lifetime after renewal was due.
pub fn late_at(not_before: UnixTime, not_after: UnixTime) -> UnixTime {
    let lifetime = lifetime_secs(not_before, not_after);
    let left = part(lifetime).saturating_sub(lifetime / SPREAD_PARTS);
    UnixTime::from_secs(end_secs(not_after).saturating_sub(left))
}

/// When a standby is to be there for a certificate that has not been renewed: 7 days before its end, or when a third of
/// the lifetime is left where that is later.
pub fn standby_due_at(not_before: UnixTime, not_after: UnixTime) -> UnixTime {
    let left = STANDBY_SECS.min(lifetime_secs(not_before, not_after) / 3);
    UnixTime::from_secs(end_secs(not_after).saturating_sub(left))
}

/// Whether a certificate counts as expiring at `now`: 30 days or less are left, and less than a third of its lifetime
/// (half if it is less than 10 days) where that is less than 90 days. One that is not renewed then is late; one that
/// lives for six days is not expiring from birth. Neither is one that has expired.
pub fn is_expiring(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> bool {
    let lifetime = lifetime_secs(not_before, not_after);
    let left = end_secs(not_after).saturating_sub(now.secs());
    let is_late = if lifetime < 3 * EXPIRING_SECS { left < part(lifetime) } else { left <= EXPIRING_SECS };
    left > 0 && is_late
}

/// What is left when renewal is due.
fn part(lifetime_secs: i64) -> i64 {
    lifetime_secs / if lifetime_secs < SHORT_LIFETIME_SECS { 2 } else { 3 }
}

/// The last second belongs to it (RFC 5280, section 4.1.2.5).
fn lifetime_secs(not_before: UnixTime, not_after: UnixTime) -> i64 {
    end_secs(not_after).saturating_sub(not_before.secs()).max(0)
}

/// The first second at which it is over.
fn end_secs(not_after: UnixTime) -> i64 {
    not_after.secs().saturating_add(1)
}

/// A number from 0 to `max` that `jitter` chooses.
fn below(jitter: u64, max: i64) -> i64 {
    let choices = u64::try_from(max).unwrap_or_default().saturating_add(1);
    i64::try_from(jitter % choices).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const START: i64 = 1_800_000_000;

    /// Dates of a certificate that begins at [`START`] and lives for so many seconds.
    fn dates(lifetime_secs: i64) -> (UnixTime, UnixTime) {
        (UnixTime::from_secs(START), UnixTime::from_secs(START + lifetime_secs - 1))
    }

    fn at(days: f64) -> UnixTime {
        UnixTime::from_secs(START + (days * DAY_SECS as f64) as i64)
    }

    #[rstest]
    #[case::ninety_days(90., 60., 55.5)]
    #[case::forty_seven(47., 47. * 2. / 3., 47. * (2. / 3. - 0.05))]
    #[case::ten(10., 10. * 2. / 3., 10. * (2. / 3. - 0.05))]
    #[case::six(6., 3., 2.7)]
    fn without_a_window_a_third_is_left(#[case] lifetime: f64, #[case] latest: f64, #[case] earliest: f64) {
        let (from, to) = dates((lifetime * DAY_SECS as f64) as i64);
        let spread = (lifetime * DAY_SECS as f64) as u64 / 20;
        let check = |jitter, days: f64| {
            let due = due_at(from, to, None, jitter);
            assert!((due.secs() - at(days).secs()).abs() <= 1, "{due} instead of {}", at(days));
        };
        check(0, latest);
        check(spread, earliest);
        check(spread + 1, latest);
    }

    #[rstest]
    #[case::begins(59., 61., 0, 59.)]
    #[case::ends(59., 61., 2 * 86_400, 61.)]
    #[case::half_way(59., 61., 86_400, 60.)]
    #[case::around_again(59., 61., 2 * 86_400 + 1, 59.)]
    #[case::past(-9., -8., 0, 0.)]
    #[case::revoked_soon(2., 3., 0, 2.)]
    #[case::too_late(89., 4000., 0, 81.)]
    #[case::backwards(61., 59., 0, 60.)]
    #[case::empty(59., 59., 0, 60.)]
    fn the_authoritys_window_is_followed(#[case] from: f64, #[case] to: f64, #[case] jitter: u64, #[case] due: f64) {
        let (not_before, not_after) = dates(90 * DAY_SECS);
        let window = Window { start: at(from), end: at(to) };
        assert_eq!(due_at(not_before, not_after, Some(window), jitter), at(due));
    }

    #[rstest]
    #[case(90, 83.)]
    #[case(21, 14.)]
    #[case(20, 20. * 2. / 3.)]
    #[case(6, 4.)]
    fn a_standby_is_due_seven_days_before_the_end_or_with_a_third_left(#[case] lifetime: i64, #[case] due: f64) {
        let (from, to) = dates(lifetime * DAY_SECS);
        assert_eq!(standby_due_at(from, to), at(due));
    }

    #[rstest]
    #[case::a_year(365, 334.9, false)]
    #[case::a_years_last_month(365, 335., true)]
    #[case::ninety_days(90, 59.9, false)]
    #[case::ninety_days_end(90, 60., true)]
    #[case::forty_seven(47, 31.3, false)]
    #[case::forty_seven_end(47, 31.4, true)]
    #[case::a_week_at_birth(6, 0., false)]
    #[case::a_week_half_way(6, 3., false)]
    #[case::a_week_late(6, 3.1, true)]
    #[case::expired(90, 90., false)]
    fn it_is_expiring(#[case] lifetime: i64, #[case] now: f64, #[case] expected: bool) {
        let (from, to) = dates(lifetime * DAY_SECS);
        assert_eq!(is_expiring(from, to, at(now)), expected);
    }

    proptest! {
        #[test]
        fn it_is_always_due_before_it_is_late(
            lifetime in 1_i64..400 * DAY_SECS,
            window in prop::option::of((any::<i64>(), any::<i64>())),
            jitter: u64,
        ) {
            let (from, to) = dates(lifetime);
            let window = window.map(|(start, end)| Window { start: UnixTime::from_ms(start), end: UnixTime::from_ms(end) });
            let due = due_at(from, to, window, jitter);
            prop_assert!(from <= due && due.secs() <= to.secs() + 1 - lifetime / 10);
            let due = due_at(from, to, None, jitter);
            prop_assert!(!is_expiring(from, to, due.plus_secs(-1)));
            prop_assert!(due <= standby_due_at(from, to).plus_secs(1));
        }

        #[test]
        fn no_dates_make_it_panic(from: i64, to: i64, start: i64, end: i64, now: i64, jitter: u64) {
            let [from, to, start, end, now] = [from, to, start, end, now].map(UnixTime::from_ms);
            due_at(from, to, Some(Window { start, end }), jitter);
            due_at(from, to, None, jitter);
            standby_due_at(from, to);
            is_expiring(from, to, now);
        }
    }
}
