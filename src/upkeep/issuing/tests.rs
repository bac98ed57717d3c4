//! The loop, step by step, at any date. Orders are begun for real, with authorities that nobody reaches; how they end is
//! for each test to say.

mod authorities;
mod bench;
mod strangers;

use rstest::rstest;

use super::*;
use crate::certificate::fixture::{DAY, NOW};
use bench::{Bench, failure, name, own, rate_limit, silence, standby, unproved};
use failure::Blame;

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

#[tokio::test]
async fn whoever_has_the_pen_for_long_keeps_no_order_from_ending_and_nobody_from_being_answered() {
    let mut bench = Bench::new(&["a.example", "b.example", "c.example"], |acme| acme.max_orders = 2).await;
    bench.step(NOW).await;
    assert_eq!(bench.under_way(), [own("a.example"), own("b.example")]);
    let pen = bench.hold_the_pen();
    bench.failed(&own("a.example"), failure()).await;
    bench.issued(&own("b.example"), 0, 90).await;
    bench.step(NOW).await;
    let inventory = bench.issuing.workshop.custody.inventory().unwrap();
    assert_eq!(inventory.certificates().await.unwrap().certificates.len(), 1, "it is stored");
    assert_eq!(inventory.attempts().await.unwrap().len(), 1, "and so is what failed");
    bench.issuing.clean(NOW.plus_secs(DAY)).await;
    pen.release();
    // What waited for the pen is made up for.
    assert!(bench.kept().is_empty());
    bench.step(NOW).await;
    assert_eq!(bench.kept(), ["b.example"]);
    assert_eq!(bench.under_way(), [own("c.example")]);
}

#[tokio::test]
async fn an_inventory_that_opens_late_waits_for_the_pen_and_keeps_no_thread() {
    let mut bench = Bench::new(&["a.example"], |_| ()).await;
    let pen = bench.hold_the_pen();
    tokio::select! {
        biased;
        () = bench.issuing.open_late(Contents::default()) => panic!("the pen was not free"),
        () = std::future::ready(()) => {}
    }
    pen.release();
    bench.issuing.open_late(Contents::default()).await;
}
