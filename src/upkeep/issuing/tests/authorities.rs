//! Which authority is asked, which is left alone, and for how long.

use rstest::rstest;

use super::*;

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
