//! The loop, step by step, at any date. Orders are begun for real, with authorities that nobody reaches; how they end is
//! for each test to say.

mod bench;

use rstest::rstest;

use super::*;
use crate::certificate::fixture::{DAY, NOW};
use bench::{Bench, failure, name, own, rate_limit, silence, standby, unproved};
use order::Blame;

const HOUR: i64 = 3600;
/// The first back-off, and its jitter.
const BACK_OFF: i64 = 600;
const JITTER: i64 = 30;

#[tokio::test]
async fn a_thousand_names_due_at_once_make_an_orderly_queue() {
    const NAMES: usize = 1000;
    const MAX: usize = 16;
    let names: Vec<String> = (0..NAMES).map(|number| format!("d{number:03}.many.example")).collect();
    let mut bench =
        Bench::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), |acme| acme.max_orders = MAX).await;
    bench.ring("stranger.example");
    let (mut begun, mut rounds) = (Vec::new(), 0);
    while begun.len() <= NAMES {
        let before = bench.under_way();
        bench.step(NOW).await;
        let fresh: Vec<_> = bench.under_way().into_iter().filter(|task| !before.contains(task)).collect();
        assert!(fresh.len() <= STARTS_PER_TICK && before.len() + fresh.len() <= MAX, "{before:?} {fresh:?}");
        let is_configured = |task: &&Task| task.subject.as_str() != "stranger.example";
        let waiting = NAMES - begun.iter().chain(&fresh).filter(is_configured).count();
        assert_eq!(bench.issuing.metrics.waiting.get(), i64::try_from(waiting).unwrap());
        begun.extend(fresh);
        // Some take longer than others.
        if bench.under_way().len() == MAX || begun.len() >= NAMES {
            for task in bench.under_way().into_iter().take(1 + rounds % 4) {
                bench.issued(&task, 0, 90).await;
            }
        }
        rounds += 1;
        assert!(rounds < 2 * NAMES, "{} begun", begun.len());
    }
    let subjects: Vec<_> = begun.iter().map(|task| task.subject.as_str()).collect();
    assert_eq!(
        subjects.iter().position(|it| *it == "stranger.example"),
        Some(3),
        "whoever waits has every fourth turn"
    );
    let configured: Vec<_> = subjects.into_iter().filter(|it| *it != "stranger.example").collect();
    assert_eq!(configured, names, "each once, in order");
}

#[tokio::test]
async fn strangers_have_half_of_the_places_and_renewals_go_before_them() {
    let mut bench = Bench::new(&["a.example"], |acme| acme.max_orders = 4).await;
    bench.step(NOW).await;
    bench.issued(&own("a.example"), 0, 90).await;
    for number in 0..4 {
        bench.ring(&format!("s{number}.test"));
    }
    bench.step(NOW.plus_secs(61 * DAY)).await;
    assert_eq!(bench.under_way(), [own("a.example"), own("s0.test"), own("s1.test")]);
    bench.failed(&own("s0.test"), failure()).await;
    bench.step(NOW.plus_secs(61 * DAY)).await;
    assert_eq!(bench.under_way(), [own("a.example"), own("s1.test"), own("s2.test")]);
}

#[tokio::test]
async fn a_stranger_that_failed_is_not_ordered_again_at_once() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.ring("s.test");
    bench.step(NOW).await;
    bench.failed(&own("s.test"), failure()).await;
    bench.set(NOW.plus_secs(BACK_OFF - 1));
    let refused = bench.ring("s.test").try_recv().unwrap();
    assert!(refused.message.contains("out of paper Next attempt at"), "{refused:?}");
    bench.set(NOW.plus_secs(BACK_OFF + JITTER));
    assert!(bench.ring("s.test").try_recv().is_err(), "it is ordered, and waited for");
}

#[tokio::test]
async fn one_that_is_not_approved_again_is_not_renewed_before_somebody_rings() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.ring("s.test");
    bench.step(NOW).await;
    bench.issued(&own("s.test"), 0, 90).await;
    bench.step(NOW.plus_secs(61 * DAY)).await;
    bench.failed(&own("s.test"), Failure { is_withdrawn: true, ..failure() }).await;
    // Whatever else makes it be planned anew.
    bench.replan("s.test");
    bench.step(NOW.plus_secs(62 * DAY)).await;
    assert!(!bench.under_way().contains(&own("s.test")));
    assert_eq!(bench.planned(&own("s.test")), None);
    // Its certificate serves to its end; then it is a stranger again, and may be approved.
    assert!(bench.ring("s.test").try_recv().unwrap().ok);
    bench.set(NOW.plus_secs(91 * DAY));
    assert!(bench.ring("s.test").try_recv().is_err());
    bench.step(NOW.plus_secs(91 * DAY)).await;
    bench.issued(&own("s.test"), 91, 181).await;
    assert!(bench.planned(&own("s.test")).is_some(), "approved is not refused");
}

#[tokio::test]
async fn a_clock_that_stepped_back_has_everything_planned_anew() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), Failure { retry_after: Some(Duration::from_secs(86_400)), ..failure() }).await;
    let planned = bench.planned(&own("a.example")).unwrap();
    assert!(planned >= NOW.plus_secs(DAY), "{planned}");
    let earlier = NOW.plus_secs(-10 * DAY);
    bench.step(earlier).await;
    assert_eq!(bench.planned(&own("a.example")), Some(earlier.plus_secs(BACK_OFF)));
}

#[tokio::test]
async fn whoever_failed_is_tried_every_ten_minutes_for_an_hour_and_hourly_after_also_by_a_restart() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    let (task, mut now, mut pauses) = (own("a.example"), NOW, Vec::new());
    for _ in 0..9 {
        bench.step(now).await;
        assert_eq!(bench.under_way(), std::slice::from_ref(&task), "at {now}");
        bench.failed(&task, failure()).await;
        let next = bench.planned(&task).unwrap();
        bench.step(next.plus_secs(-1)).await;
        assert_eq!(bench.under_way(), []);
        pauses.push((next.secs() - now.secs()) / BACK_OFF);
        now = next;
    }
    assert_eq!(pauses, [1, 1, 1, 1, 1, 1, 6, 6, 6]);
    bench.set(now.plus_secs(-1));
    let mut bench = bench.restarted(&["a.example"]).await;
    bench.step(now.plus_secs(-1)).await;
    assert_eq!((bench.under_way(), bench.planned(&task)), (vec![], Some(now)));
    // What succeeds has never failed.
    bench.step(now).await;
    bench.issued(&task, 0, 90).await;
    assert!(bench.issuing.attempts.is_empty());
}

#[tokio::test]
async fn trouble_of_our_own_is_no_failure_of_the_authoritys() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    for round in 0..20 {
        let now = NOW.plus_secs(round * 60);
        bench.step(now).await;
        assert_eq!(bench.under_way(), [own("a.example")], "after a minute, however often");
        bench.failed(&own("a.example"), Failure { ca: String::new(), ..failure() }).await;
        assert_eq!(bench.planned(&own("a.example")), Some(now.plus_secs(60)));
    }
    assert_eq!(bench.issuing.attempts[&own("a.example")].failures, 0);
}

#[tokio::test]
async fn who_wants_to_be_left_alone_with_a_name_is() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), rate_limit(HOUR)).await;
    bench.step(NOW.plus_secs(HOUR - 1)).await;
    assert_eq!(bench.under_way(), []);
    bench.step(NOW.plus_secs(HOUR + JITTER)).await;
    assert_eq!(bench.under_way(), [own("a.example")]);
}

#[rstest]
#[case::silent(silence())]
#[case::limited(rate_limit(HOUR))]
#[case::of_another_mind(Failure { blame: Blame::Authority, ..failure() })]
#[tokio::test]
async fn where_one_authority_fails_the_next_is_asked_at_once(#[case] failure: Failure) {
    let mut bench = Bench::with(&["a.example"], &["one private", "two private", "three private"], |_| ()).await;
    let task = own("a.example");
    bench.step(NOW).await;
    let waiting = bench.ask(&["a.example"]);
    for asked in ["one", "two", "three"] {
        assert_eq!((bench.begun(&task).await.0.as_str(), bench.planned(&task)), (asked, None));
        bench.step(NOW).await;
        assert_eq!(bench.under_way(), std::slice::from_ref(&task), "one order at a time");
        let problem = format!("{asked} is out of paper");
        bench.failed(&task, Failure { problem, advice: "wait".to_owned(), ..failure.clone() }).await;
    }
    // Now the back-off begins, once.
    let attempts = &bench.issuing.attempts[&task];
    let all = "one: one is out of paper; two: two is out of paper; three: three is out of paper";
    assert_eq!((attempts.failures, attempts.problem.as_str(), attempts.advice.as_str()), (1, all, "wait"));
    assert_eq!(waiting.await.unwrap().message, all);
    let planned = bench.planned(&task).unwrap().secs() - NOW.secs();
    assert!((BACK_OFF..=BACK_OFF + JITTER).contains(&planned), "{planned}");
    for asked in ["one", "two", "three"] {
        let [orders, failures] = [&bench.issuing.metrics.orders, &bench.issuing.metrics.failures];
        assert_eq!(orders.with_label_values(&[asked, "failed"]).get(), 1);
        assert_eq!(failures.with_label_values(&[asked, "local"]).get(), 1);
    }
}

#[tokio::test]
async fn the_next_authority_issues_in_the_same_second_and_nothing_has_failed() {
    let mut bench = Bench::with(&["a.example"], &["one private", "two private"], |_| ()).await;
    bench.ring("s.test");
    bench.step(NOW).await;
    for task in [own("a.example"), own("s.test")] {
        bench.failed(&task, rate_limit(HOUR)).await;
        assert_eq!(bench.begun(&task).await.0, "two");
        bench.issued(&task, 0, 90).await;
    }
    assert!(bench.issuing.attempts.is_empty() && bench.under_way().is_empty());
    let inventory = bench.issuing.workshop.custody.inventory().unwrap();
    assert_eq!(inventory.attempts().await.unwrap(), []);
}

#[rstest]
#[case::the_proof(unproved("a.example"), 2)]
#[case::records_that_forbid_it(failure(), 1)]
#[case::our_own_disk(Failure { ca: String::new(), ..failure() }, 1)]
#[tokio::test]
async fn what_is_the_names_trouble_is_no_other_authoritys(#[case] failure: Failure, #[case] orders: usize) {
    let mut bench = Bench::with(&["a.example"], &["one private", "two private"], |_| ()).await;
    bench.step(NOW).await;
    for order in 1..=orders {
        assert_eq!(bench.begun(&own("a.example")).await.0, "one", "{order}");
        bench.failed(&own("a.example"), failure.clone()).await;
    }
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), []);
}

#[tokio::test]
async fn who_wants_to_be_left_alone_or_is_configured_no_more_is_passed_over() {
    let all = ["one private", "two private", "three private", "four private"];
    let mut bench = Bench::with(&["a.example"], &all, |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), silence()).await;
    bench.failed(&own("a.example"), rate_limit(DAY)).await;
    bench.failed(&own("a.example"), unproved("a.example")).await;
    bench.failed(&own("a.example"), unproved("a.example")).await;
    // `two` is left alone for a day.
    bench.step(NOW.plus_secs(BACK_OFF + JITTER)).await;
    assert_eq!(bench.begun(&own("a.example")).await.0, "one");
    bench.apply(&["a.example"], &["one private", "two private", "four private"], |_| ());
    bench.step(NOW.plus_secs(BACK_OFF + JITTER)).await;
    bench.failed(&own("a.example"), silence()).await;
    assert_eq!(bench.begun(&own("a.example")).await.0, "four");
}

#[tokio::test]
async fn an_order_that_can_be_gone_on_with_outlives_those_of_other_authorities() {
    let mut bench = Bench::with(&[], &["one private", "two private"], |_| ()).await;
    let (url, task) = ("https://one.invalid/order/7", own("a.example"));
    bench.leave_orders(&[("a.example", "one", url)]).await;
    bench.apply(&["a.example"], &["one private", "two private"], |_| ());
    for (now, failures) in [(NOW, 1), (NOW.plus_secs(BACK_OFF + JITTER), 2)] {
        bench.step(now).await;
        assert_eq!(bench.begun(&task).await, ("one".to_owned(), true));
        bench.failed(&task, silence()).await;
        assert_eq!(bench.begun(&task).await, ("two".to_owned(), false));
        bench.failed(&task, failure()).await;
        assert_eq!(bench.issuing.attempts[&task].failures, failures);
        let kept = [("a.example".to_owned(), "https://one.invalid/directory".to_owned(), url.to_owned())];
        assert_eq!(bench.kept_orders().await, kept);
    }
}

#[tokio::test]
async fn at_the_first_attempt_the_other_way_is_tried_at_once_and_later_they_take_turns() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    let (task, mut now, mut turns) = (own("a.example"), NOW, Vec::new());
    bench.step(now).await;
    for _ in 0..5 {
        turns.push((bench.ordered(&task).await.0, now.secs() - NOW.secs() > 0));
        bench.failed(&task, unproved("a.example")).await;
        if bench.under_way().is_empty() {
            now = bench.planned(&task).unwrap();
            bench.step(now).await;
        }
    }
    assert_eq!(turns, [(0, false), (1, false), (2, true), (3, true), (4, true)]);
    let problem = &bench.issuing.attempts[&task].problem;
    assert_eq!(problem, "out of paper");
}

#[tokio::test]
async fn an_optional_name_that_is_not_proved_is_left_out_at_once() {
    let mut bench = Bench::new(&["www.a.example", "a.example"], |_| ()).await;
    let (task, names) = (own("www.a.example"), ["www.a.example".to_owned(), "a.example".to_owned()]);
    bench.step(NOW).await;
    assert_eq!(bench.ordered(&task).await, (0, names.to_vec()));
    bench.failed(&task, unproved("a.example")).await;
    assert_eq!(bench.ordered(&task).await, (0, names[..1].to_vec()));
    bench.failed(&task, unproved("www.a.example")).await;
    assert_eq!(bench.ordered(&task).await, (1, names[..1].to_vec()));
    bench.failed(&task, unproved("www.a.example")).await;
    assert!(!bench.under_way().contains(&task));
    bench.step(NOW).await;
    bench.issued(&own("a.example"), 0, 90).await;
    // At a later attempt what could be left out was.
    bench.step(NOW.plus_secs(BACK_OFF + JITTER)).await;
    assert_eq!(bench.ordered(&task).await, (2, names[..1].to_vec()));
}

#[tokio::test]
async fn many_names_of_a_silent_authority_keep_nobody_elses_waiting() {
    let names: Vec<String> = (0..40).map(|number| format!("d{number:02}.example at one")).collect();
    let mut domains: Vec<_> = names.iter().map(String::as_str).collect();
    domains.push("well.example at two");
    let mut bench = Bench::with(&domains, &["one private", "two private"], |acme| acme.max_orders = 8).await;
    let well = own("well.example");
    for _ in 0..4 {
        bench.step(NOW).await;
    }
    let begun = bench.under_way();
    assert!(begun.contains(&well) && begun.len() <= 8, "{begun:?}");
    bench.issued(&well, 0, 90).await;
    for _ in 0..4 {
        bench.step(NOW).await;
    }
    assert_eq!(bench.under_way().len(), 8, "nobody else waits: it has all places");
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_passed_over_until_one_order_shows_that_it_does() {
    let names: Vec<String> = (0..9).map(|number| format!("d{number}.example")).collect();
    let domains: Vec<_> = names.iter().map(String::as_str).chain(["own.example at one"]).collect();
    let mut bench = Bench::with(&domains, &["one private", "two private"], |acme| acme.max_orders = 3).await;
    bench.step(NOW).await;
    for name in &names[..3] {
        assert_eq!(bench.begun(&own(name)).await.0, "one");
        bench.failed(&own(name), silence()).await;
        assert_eq!(bench.begun(&own(name)).await.0, "two");
        bench.issued(&own(name), 0, 90).await;
    }
    bench.step(NOW).await;
    for name in &names[3..6] {
        assert_eq!(bench.begun(&own(name)).await.0, "two", "straight to the next");
        bench.issued(&own(name), 0, 90).await;
    }
    let later = NOW.plus_secs(BACK_OFF);
    bench.step(later).await;
    let mut asked = Vec::new();
    for name in &names[6..9] {
        asked.push(bench.begun(&own(name)).await.0);
    }
    assert_eq!(asked, ["one", "two", "two"], "one order shows");
    bench.issued(&own(&names[6]), 0, 90).await;
    // Whoever is for this authority alone has waited.
    let waited = own("own.example");
    bench.issued(&own(&names[7]), 0, 90).await;
    bench.step(NOW.plus_secs(BACK_OFF + 256)).await;
    assert_eq!(bench.begun(&waited).await.0, "one");
}

#[tokio::test]
async fn whoever_asks_for_it_need_not_wait_until_a_silence_is_over() {
    let domains = ["a.example", "b.example", "c.example", "d.example"];
    let mut bench = Bench::new(&domains, |acme| acme.max_orders = 3).await;
    bench.step(NOW).await;
    for name in &domains[..3] {
        bench.failed(&own(name), silence()).await;
    }
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), []);
    bench.ask(&["d.example"]);
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), [own("d.example")]);
    bench.failed(&own("d.example"), rate_limit(HOUR)).await;
    let mut refused = bench.ask(&["d.example"]);
    bench.step(NOW).await;
    assert!(refused.try_recv().unwrap().message.contains("wants to be left alone"));
}

#[tokio::test]
async fn a_name_of_a_certificate_that_is_configured_is_no_stranger() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.group(&["a.example"], &["g.test", "h.test"]);
    bench.step(NOW).await;
    for name in ["g.test", "h.test"] {
        let refused = bench.ring(name).try_recv().unwrap();
        assert!(refused.message.contains("no `[[domain]]` serves it"), "{refused:?}");
    }
    assert!(bench.ring("i.test").try_recv().is_err(), "it is waited for");
}

#[tokio::test]
async fn a_stranger_that_is_turned_away_takes_no_place_of_the_hour_and_its_renewal_waits() {
    let mut bench = Bench::new(&["a.example"], |acme| {
        acme.on_demand.as_mut().unwrap().max_new_per_hour = 2;
    })
    .await;
    bench.step(NOW).await;
    bench.ring("s.test");
    bench.step(NOW).await;
    bench.issued(&own("s.test"), 0, 10).await;
    bench.issued(&own("a.example"), 0, 1).await;
    let (one, now) = (bench.authority("one"), NOW.plus_secs(11 * DAY));
    for subject in ["x.org", "y.org", "z.org"] {
        let accounts = &bench.issuing.workshop.accounts;
        accounts.note_refusal(&one, &name(subject), false, Duration::from_secs(3600), now);
    }
    bench.step(now).await;
    for stranger in ["t.test", "u.test", "s.test"] {
        let mut refused = bench.ring(stranger);
        assert!(refused.try_recv().is_err(), "{stranger} has a place");
        bench.step(now).await;
        assert!(refused.try_recv().unwrap().message.contains("no authority issues for it now"));
    }
    let planned = bench.planned(&own("s.test")).unwrap().secs() - now.secs();
    assert!((HOUR..HOUR + 256).contains(&planned), "{planned}");
    assert_eq!(bench.planned(&own("t.test")), None);
}

#[tokio::test]
async fn strangers_that_are_refused_for_their_haste_keep_nobody_waiting_but_strangers() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.step(NOW).await;
    bench.issued(&own("a.example"), 0, 90).await;
    for stranger in ["s.test", "t.test", "u.test"] {
        bench.ring(stranger);
        bench.step(NOW).await;
        bench.failed(&own(stranger), rate_limit(HOUR)).await;
    }
    let mut turned_away = bench.ring("v.test");
    bench.step(NOW).await;
    assert!(turned_away.try_recv().is_ok());
    bench.ask(&["a.example"]);
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), [own("a.example")]);
}

#[tokio::test]
async fn who_asks_for_other_names_than_are_ordered_is_told() {
    let mut bench = Bench::new(&["a.example", "b.example", "c.example"], |acme| acme.max_orders = 1).await;
    bench.step(NOW).await;
    let refused = bench.ask(&["a.example", "b.example"]).try_recv().unwrap();
    assert!(!refused.ok && refused.message.contains("another order for a.example is under way"), "{refused:?}");
    let mut asks = |names: &[&str]| bench.ask(names);
    let (mut both, mut same) = (asks(&["c.example", "b.example"]), asks(&["c.example"]));
    let other = asks(&["c.example", "a.example"]).try_recv().unwrap();
    assert!(!other.ok && other.message.contains("another order for c.example waits"), "{other:?}");
    bench.issued(&own("a.example"), 0, 90).await;
    bench.step(NOW).await;
    assert_eq!(bench.ordered(&own("c.example")).await.1, ["c.example", "b.example"]);
    bench.issued(&own("c.example"), 0, 90).await;
    assert!(both.try_recv().unwrap().ok && same.try_recv().unwrap().ok);
}

#[tokio::test]
async fn an_order_for_other_names_is_not_gone_on_with() {
    let mut bench = Bench::new(&[], |_| ()).await;
    bench.leave_orders(&[("a.example", "one", "https://one.invalid/order/7")]).await;
    bench.apply(&["a.example", "b.example"], &["one private"], |_| ());
    bench.issuing.step(NOW).await;
    assert!(bench.begun(&own("a.example")).await.1);
    bench.failed(&own("a.example"), silence()).await;
    bench.issued(&own("b.example"), 0, 90).await;
    bench.ask(&["a.example", "b.example"]);
    bench.step(NOW).await;
    assert!(!bench.begun(&own("a.example")).await.1);
}

#[tokio::test]
async fn who_waits_for_what_a_reload_takes_away_is_told() {
    let mut bench = Bench::new(&["a.example", "b.example"], |acme| acme.max_orders = 1).await;
    bench.step(NOW).await;
    let mut waiting = bench.ask(&["b.example"]);
    bench.step(NOW).await;
    assert!(waiting.try_recv().is_err());
    bench.apply(&["a.example"], &["one private"], |acme| acme.max_orders = 1);
    bench.step(NOW).await;
    assert!(waiting.try_recv().unwrap().message.contains("not configured any more"));
    // Of those who wait for what is under way there are only so many.
    let mut waiting: Vec<_> = (0..101).map(|_| bench.ask(&["a.example"])).collect();
    let told: Vec<_> = waiting.iter_mut().map(|it| it.try_recv().is_ok()).collect();
    assert_eq!((told.iter().filter(|told| **told).count(), told.last()), (1, Some(&true)));
    drop(waiting);
    assert!(bench.ask(&["a.example"]).try_recv().is_err(), "whoever went away does not count");
}

#[tokio::test]
async fn what_is_asked_for_is_had_as_the_first_domain_says_and_of_one_tenant() {
    let domains = ["a.example at two", "b.example", "c.example of red"];
    let mut bench = Bench::with(&domains, &["one private", "two private"], |_| ()).await;
    bench.step(NOW).await;
    for name in ["a.example", "b.example", "c.example"] {
        bench.issued(&own(name), 0, 90).await;
    }
    bench.ask(&["a.example", "b.example", "nobodys.example"]);
    bench.step(NOW).await;
    assert_eq!(bench.begun(&own("a.example")).await.0, "two");
    let refused = bench.ask(&["b.example", "c.example"]).try_recv().unwrap();
    assert!(!refused.ok && refused.message.contains("c.example is another tenant's"), "{refused:?}");
}

#[tokio::test]
async fn trouble_of_our_own_makes_no_back_off_older() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), Failure { ca: String::new(), ..failure() }).await;
    let later = NOW.plus_secs(2 * HOUR);
    bench.step(later).await;
    bench.failed(&own("a.example"), failure()).await;
    let planned = bench.planned(&own("a.example")).unwrap().secs() - later.secs();
    assert!((BACK_OFF..=BACK_OFF + JITTER).contains(&planned), "{planned}");
}

#[tokio::test]
async fn who_wanted_to_be_left_alone_is_asked_again_after_a_success() {
    let mut bench = Bench::with(&["a.example"], &["one private", "two private"], |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), rate_limit(5 * DAY)).await;
    bench.step(NOW.plus_secs(HOUR)).await;
    assert_eq!(bench.begun(&own("a.example")).await.0, "two");
    bench.issued(&own("a.example"), 0, 90).await;
    bench.ask(&["a.example"]);
    bench.step(NOW.plus_secs(2 * HOUR)).await;
    assert_eq!(bench.begun(&own("a.example")).await.0, "one");
}

#[tokio::test]
async fn no_authority_is_left_alone_for_longer_than_a_week() {
    let mut bench = Bench::with(&["a.example"], &["one private", "two private"], |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), rate_limit(1000 * DAY)).await;
    let until: Vec<_> = bench.issuing.attempts.values().flat_map(|it| &it.held_off).map(|of| of.until).collect();
    assert_eq!(until, [NOW.plus_secs(7 * DAY)]);
}

#[tokio::test]
async fn who_refuses_three_for_their_haste_is_left_alone_by_all() {
    let names = ["a.example", "b.example", "c.example", "d.example"];
    let mut bench = Bench::new(&names, |acme| acme.max_orders = 3).await;
    bench.step(NOW).await;
    for (number, refused) in names[..3].iter().enumerate() {
        let until = bench.issuing.workshop.accounts.paused_until(&bench.authority("one"), false, NOW);
        assert_eq!(until, None, "{number} were refused");
        bench.failed(&own(refused), rate_limit(HOUR)).await;
    }
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), []);
    let planned = bench.planned(&own("d.example")).unwrap().secs() - NOW.secs();
    assert!((HOUR..HOUR + 256).contains(&planned), "{planned}");
    // A clock that steps back makes no pause longer than the longest.
    bench.step(NOW.plus_secs(-30 * DAY)).await;
    bench.step(NOW.plus_secs(-30 * DAY + BACK_OFF)).await;
    assert!(!bench.under_way().is_empty());
}

#[tokio::test]
async fn refusals_with_an_order_in_between_are_not_in_a_row() {
    let bench = {
        let mut bench = Bench::new(&[], |_| ()).await;
        bench.step(NOW).await;
        bench
    };
    let (accounts, one) = (&bench.issuing.workshop.accounts, bench.authority("one"));
    let refuse = |subject: &str| {
        accounts.note_refusal(&one, &name(subject), false, Duration::from_secs(60), NOW);
        accounts.paused_until(&one, false, NOW)
    };
    // One that is refused again and again is its own affair.
    assert_eq!(["a.org", "a.org", "a.org", "b.org"].map(refuse), [None; 4]);
    accounts.note_order(&one);
    assert_eq!(["c.org", "d.org", "e.org"].map(refuse), [None, None, Some(NOW.plus_secs(60))]);
    assert_eq!(accounts.paused_until(&one, false, NOW.plus_secs(60)), None);
}

#[tokio::test]
async fn of_failures_of_strangers_only_so_many_are_remembered() {
    const MAX: usize = 10_000;
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), failure()).await;
    bench.ring("s.test");
    bench.step(NOW).await;
    bench.failed(&own("s.test"), failure()).await;
    let tasks: Vec<_> = (0..MAX).map(|number| own(&format!("n{number}.test"))).collect();
    bench.issuing.strangers.remember_failures([own("a.example"), own("s.test")].iter().chain(&tasks[..MAX - 2]));
    bench.issuing.forget_old_failures(&tasks[MAX - 2]).await;
    assert!(bench.issuing.attempts.contains_key(&own("a.example")), "what is configured is not forgotten");
    assert!(bench.issuing.attempts.contains_key(&own("s.test")));
    bench.issuing.forget_old_failures(&tasks[MAX - 1]).await;
    assert!(!bench.issuing.attempts.contains_key(&own("s.test")));
    let inventory = bench.issuing.workshop.custody.inventory().unwrap();
    let stored: Vec<_> = inventory.attempts().await.unwrap().into_iter().map(|it| it.subject).collect();
    assert_eq!(stored, [name("a.example")]);
}

#[rstest]
#[case::from_another(&["one private", "two private"], Some("two"))]
#[case::nobody_else(&["one private"], None)]
#[case::of_a_domain_that_another_served(&["two private"], Some("two"))]
#[tokio::test]
async fn a_standby_comes_from_another_authority_than_the_one_that_does_not_renew(
    #[case] authorities: &[&str],
    #[case] from: Option<&str>,
) {
    let mut bench = Bench::with(&["a.example"], &["one private"], |_| ()).await;
    bench.step(NOW).await;
    bench.issued(&own("a.example"), 0, 90).await;
    bench.apply(&["a.example"], authorities, |_| ());
    bench.step(NOW.plus_secs(84 * DAY)).await;
    // One name is in one order at a time: its own comes first.
    assert_eq!(bench.under_way(), [own("a.example")]);
    bench.failed(&own("a.example"), failure()).await;
    bench.step(NOW.plus_secs(84 * DAY)).await;
    match from {
        Some(from) => assert_eq!(bench.begun(&standby("a.example")).await.0, from),
        None => assert_eq!(bench.under_way(), []),
    }
}

#[rstest]
#[case::there(&["one private", "two private"], true)]
#[case::elsewhere(&["two private"], false)]
#[tokio::test]
async fn an_order_goes_on_where_it_was_placed(#[case] authorities: &[&str], #[case] goes_on: bool) {
    let mut bench = Bench::with(&[], authorities, |_| ()).await;
    let url = "https://one.invalid/order/7";
    bench.leave_orders(&[("a.example", "one", url), ("b.example", "two", "")]).await;
    bench.apply(&["a.example", "b.example"], authorities, |_| ());
    bench.step(NOW).await;
    assert_eq!(bench.begun(&own("a.example")).await.1, goes_on);
    assert!(!bench.begun(&own("b.example")).await.1, "one without an URL was not placed");
}

#[tokio::test]
async fn an_order_that_was_not_placed_leaves_nothing_behind() {
    let mut bench = Bench::new(&["a.example", "b.example"], |_| ()).await;
    bench.step(NOW).await;
    assert_eq!(bench.begun(&own("a.example")).await, ("one".to_owned(), false));
    bench.failed(&own("a.example"), failure()).await;
    bench.failed(&own("b.example"), failure()).await;
    let inventory = bench.issuing.workshop.custody.inventory().unwrap();
    assert_eq!(inventory.orders().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_not_configured_any_more_is_forgotten_and_what_is_asked_for_does_not_wait() {
    let mut bench = Bench::new(&["a.example", "b.example"], |acme| acme.max_orders = 1).await;
    bench.step(NOW).await;
    bench.failed(&own("a.example"), failure()).await;
    bench.step(NOW).await;
    bench.apply(&["a.example"], &["one private"], |_| ());
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), [own("b.example")], "what is under way is not broken off");
    bench.issued(&own("b.example"), 0, 90).await;
    assert_eq!(bench.planned(&own("b.example")), None);
    bench.apply(&["a.example", "b.example"], &["one private"], |_| ());
    bench.step(NOW).await;
    assert!(bench.planned(&own("b.example")).is_some());
    bench.apply(&["a.example"], &["one private"], |_| ());
    bench.step(NOW).await;
    assert_eq!(bench.planned(&own("b.example")), None);
    assert!(bench.ask(&["a.example"]).try_recv().is_err(), "it is waited for");
    // Also if it is planned anew meanwhile.
    bench.replan("a.example");
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), [own("a.example")]);
    bench.issued(&own("a.example"), 0, 90).await;
    bench.apply(&["a.example"], &["one private"], |acme| acme.agreed_to_terms = false);
    bench.step(NOW).await;
    let refused = bench.ask(&["a.example"]).try_recv().unwrap();
    assert!(!refused.ok && refused.message.contains("agree_to_terms"), "{refused:?}");
}

#[rstest]
#[case::uploaded_by_another_tenant("", Some("red"), true)]
#[case::uploaded_by_its_own("", None, false)]
#[case::issued_when_it_was_another_tenants("https://one.invalid/directory", Some("red"), false)]
#[tokio::test]
async fn what_another_tenant_uploaded_is_nobody_elses_own(
    #[case] ca: &str,
    #[case] tenant: Option<&str>,
    #[case] is_ordered: bool,
) {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.hold("a.example", ca, tenant);
    bench.step(NOW).await;
    assert_eq!(bench.under_way().contains(&own("a.example")), is_ordered);
}

#[tokio::test]
async fn names_of_an_order_under_way_are_in_no_other() {
    let mut bench = Bench::new(&["a.example", "www.a.example"], |_| ()).await;
    bench.step(NOW).await;
    // `www` takes its parent along; they are ordered as they are configured.
    assert_eq!(bench.under_way(), [own("a.example")]);
    bench.issued(&own("a.example"), 0, 90).await;
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), [own("www.a.example")]);
}

#[tokio::test]
async fn what_was_replaced_is_given_up_a_week_after_its_end_and_what_is_last_never() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    bench.step(NOW).await;
    bench.issued(&own("a.example"), -90, -1).await;
    bench.step(NOW).await;
    bench.issued(&own("a.example"), -60, 0).await;
    let mut kept_at = async |days: i64| {
        bench.issuing.give_up_what_is_old(NOW.plus_secs(days * DAY)).await;
        lock(&bench.issuing.control).kept().of(&name("a.example")).len()
    };
    assert_eq!([kept_at(5).await, kept_at(7).await, kept_at(400).await], [2, 1, 1]);
}
