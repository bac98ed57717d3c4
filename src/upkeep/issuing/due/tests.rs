use std::collections::HashSet;

use rstest::rstest;

use super::*;
use crate::certificate::fixture::{DAY, NOW, pair};
use crate::issuance::subject::Terms;
use crate::issuance::{KeyAlgorithm, Method};
use crate::store::inventory::{Ari, CertificateId};

const HOUR: i64 = 3600;
/// Up to a 20th of 90 days.
const SPREAD: i64 = 90 * DAY / 20;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn task(subject: &str, role: Role) -> Task {
    Task { subject: name(subject), role }
}

/// Its second name is optional.
fn subject(names: &[&str], is_manual: bool, standby: bool) -> Subject {
    let mut names = names.iter().map(|text| name(text));
    let key = KeyAlgorithm::default();
    let method = Method { authorities: None, challenge: None, dns: None, key, profile: None, standby };
    let terms = Terms { tenant: None, method: method.into(), is_manual };
    Subject::new(names.next().unwrap(), terms.into()).taking_along(names)
}

/// For `a.org`, from so many days after [`NOW`] to so many.
fn kept(from: i64, to: i64) -> Arc<Kept> {
    Arc::new(Kept {
        id: CertificateId(1),
        subject: name("a.org"),
        tenant: None,
        role: Role::Own,
        is_on_demand: false,
        ca: "https://ca.example/directory".into(),
        certificate: pair(&["a.org"]).valid(from * DAY, to * DAY - 1).make(),
        ari: None,
    })
}

fn in_days(days: i64) -> UnixTime {
    NOW.plus_secs(days * DAY)
}

/// Whether it is that moment, or earlier by no more than the spread.
#[track_caller]
fn assert_spread(due: Option<UnixTime>, latest: UnixTime) {
    let early = latest.secs() - due.expect("due some day").secs();
    assert!((0..=SPREAD).contains(&early), "{due:?} instead of {latest}");
}

#[test]
fn an_own_one_is_renewed_with_a_third_left_and_ordered_at_once_where_there_is_none() {
    let (of, own) = (subject(&["a.org"], false, true), kept(0, 90));
    let task = task("a.org", Role::Own);
    assert_eq!(due(&task, &of, Held::default(), None, NOW), Some(UnixTime::from_secs(0)));
    let held = Held { own: Some(&own), ..Held::default() };
    assert_spread(due(&task, &of, held, None, NOW), in_days(60));
    let files = subject(&["a.org"], true, true);
    assert_eq!(due(&task, &files, held, None, NOW), None, "files are not ours to renew");
}

#[rstest]
#[case::all(&["a.org"], false)]
#[case::without_an_optional_one(&["a.org", "www.a.org"], false)]
#[case::without_one_that_is_wanted(&["b.org"], true)]
fn one_that_is_not_for_all_that_is_wanted_is_replaced_at_once(#[case] names: &[&str], #[case] at_once: bool) {
    let own = kept(0, 90);
    let held = Held { own: Some(&own), ..Held::default() };
    let due = due(&task("a.org", Role::Own), &subject(names, false, true), held, None, NOW);
    assert_eq!(due == Some(UnixTime::from_secs(0)), at_once, "{due:?}");
}

#[rstest]
#[case::waits(0, 600, 0, 600)]
#[case::for_long(0, 7 * DAY, HOUR, 7 * DAY)]
#[case::is_over(0, 600, 700, 600)]
// It failed in what is the future now that the clock stepped back: no longer than a back-off.
#[case::failed_tomorrow(DAY, DAY + 600, 0, 600)]
#[case::failed_in_a_moment(60, 120, 0, 120)]
fn what_failed_waits_for_its_next_attempt(
    #[case] last: i64,
    #[case] next: i64,
    #[case] now: i64,
    #[case] expected: i64,
) {
    let attempts = Attempts {
        subject: name("a.org"),
        role: Role::Own,
        failures: 1,
        first_at: NOW.plus_secs(last),
        last_at: NOW.plus_secs(last),
        next_at: NOW.plus_secs(next),
        ca: String::new(),
        problem: String::new(),
        advice: String::new(),
        held_off: Vec::new(),
    };
    let at = |held, now| due(&task("a.org", Role::Own), &subject(&["a.org"], false, true), held, Some(&attempts), now);
    let now = NOW.plus_secs(now);
    assert_eq!(at(Held::default(), now), Some(NOW.plus_secs(expected)));
    // And what is not wanted before is not ordered before.
    let own = kept(0, 900);
    assert!(at(Held { own: Some(&own), ..Held::default() }, now) > Some(in_days(500)));
}

#[rstest]
#[case::own_is_good(false, Some((0, 90)), None, None, Some(83))]
#[case::own_is_new(false, None, None, None, None)]
#[case::files(true, None, None, Some((0, 90)), Some(83))]
#[case::files_come_before_what_was_issued(true, Some((0, 90)), None, Some((0, 60)), Some(53))]
#[case::files_are_broken(true, None, None, None, Some(0))]
#[case::there_is_one(true, None, Some((0, 90)), Some((-80, 10)), None)]
#[case::there_is_an_old_one(true, None, Some((-89, 1)), Some((-80, 10)), Some(3))]
fn a_standby_is_ordered_a_week_before_it_is_needed(
    #[case] is_manual: bool,
    #[case] own: Option<(i64, i64)>,
    #[case] standby: Option<(i64, i64)>,
    #[case] manual: Option<(i64, i64)>,
    #[case] days: Option<i64>,
) {
    let [own, standby] = [own, standby].map(|dates| dates.map(|(from, to)| kept(from, to)));
    let manual = manual.map(|(from, to)| (in_days(from), in_days(to).plus_secs(-1)));
    let held = Held { own: own.as_ref(), standby: standby.as_ref(), manual };
    let task = task("a.org", Role::Standby);
    let found = due(&task, &subject(&["a.org"], is_manual, true), held, None, NOW);
    match (days, &standby) {
        // One that is there is renewed like any other.
        (None, Some(_)) => assert_spread(found, in_days(60)),
        (days, _) => assert_eq!(found, days.map(in_days)),
    }
    assert_eq!(due(&task, &subject(&["a.org"], is_manual, false), held, None, NOW), None);
}

/// What the authority would like, in hours after it begins, and when it is renewed.
#[rstest]
#[case::later(240, 240)]
#[case::in_the_past(-1000, 6)]
#[case::at_once(0, 6)]
fn a_window_is_followed_but_not_for_ever_at_once(#[case] hours: i64, #[case] expected: i64) {
    let own = kept(0, 90);
    let (start, end) = (NOW.plus_secs(hours * HOUR), NOW.plus_secs(hours * HOUR + 1));
    let ari = Some(Ari { window: Some(Window { start, end }), next_at: NOW });
    let own = Arc::new(Kept { ari, ..Kept::clone(&own) });
    let held = Held { own: Some(&own), ..Held::default() };
    let found = due(&task("a.org", Role::Own), &subject(&["a.org"], false, true), held, None, NOW).unwrap();
    assert!((0..=1).contains(&(found.secs() - NOW.secs() - expected * HOUR)), "{found}");
    let validity = (own.certificate.not_before(), own.certificate.not_after());
    assert_eq!(renewal_at(&name("a.org"), Role::Own, validity, own.ari.unwrap().window), found, "what is shown");
}

#[test]
fn many_of_one_moment_are_spread_and_stay_where_they_are() {
    let tasks: Vec<_> = (0..1000).map(|number| task(&format!("d{number}.example"), Role::Own)).collect();
    let before: Vec<_> = tasks.iter().map(jitter).collect();
    assert_eq!(tasks.iter().map(jitter).collect::<Vec<_>>(), before);
    let hours = before.iter().map(|jitter| jitter % SPREAD as u64 / HOUR as u64);
    let mut per_hour = vec![0; (SPREAD / HOUR) as usize + 1];
    hours.for_each(|hour| per_hour[hour as usize] += 1);
    assert!(per_hour.iter().all(|count| *count < 40), "ten an hour: {per_hour:?}");
    assert_eq!(before.iter().collect::<HashSet<_>>().len(), 1000);
    assert_ne!(jitter(&task("a.org", Role::Own)), jitter(&task("a.org", Role::Standby)));
    // By `printf 'own a.org' | sha256sum`: what any version says.
    assert_eq!(jitter(&task("a.org", Role::Own)), 0x1926_51a4_7f01_d0be);
}
