//! Names that nobody configured.

use super::*;

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
