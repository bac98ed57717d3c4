//! Orders in numbers, orders that outlive the process, and renewal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use crate::harness::{
    Fault, FaultCa, Lockgate, Pki, Presented, Resource, RetryAfter, Scripted, Setup, eventually, eventually_within, utc,
};

const SITE: &str = "shop.lockgate.test";
const NOWHERE: &str = "http://127.0.0.1:1";
const NOON: &str = "2027-06-01 12:00:00";
const DAY_SECS: i64 = 86_400;
/// Longer than the first back-off with its jitter.
const BACK_OFF_SECS: i64 = 700;
/// Some ticks of the loop that looks who is due.
const SOME_TICKS: Duration = Duration::from_millis(700);

/// An authority that looks at nothing, and a proxy that has its certificates from there, both at [`NOON`].
fn at_noon() -> (FaultCa, Setup) {
    let pki = Pki::new();
    let ca = FaultCa::start(&pki);
    ca.set_now(utc(NOON));
    let setup = Lockgate::under(&pki).acme(&[&ca]).clock_stopped(NOON);
    (ca, setup)
}

/// Both clocks, so many seconds on.
fn later(gate: &Lockgate, ca: &FaultCa, secs: i64) {
    ca.set_now(gate.clock().now_ms() / 1000 + secs);
    gate.clock().advance(secs);
}

/// How many orders there are, and how many of them are issued.
fn orders(ca: &FaultCa) -> (usize, usize) {
    let orders = ca.orders();
    (orders.len(), orders.iter().filter(|order| order.is_issued).count())
}

fn name(number: usize) -> String {
    format!("d{number}.lockgate.test")
}

fn many(mut setup: Setup, count: usize, origin: &str) -> Setup {
    for number in 0..count {
        setup = setup.domain(&name(number), origin).uncertified();
    }
    setup
}

#[rstest]
#[case::pending(Fault::stuck_pending(), Resource::Order, false)]
#[case::finalized(Fault::stuck_processing(), Resource::Finalize, false)]
#[case::pending_and_kept(Fault::stuck_pending(), Resource::Order, true)]
#[case::issued(Fault::silence().at(Resource::Certificate), Resource::Certificate, false)]
fn an_order_outlives_the_process(#[case] fault: Fault, #[case] until: Resource, #[case] later_too: bool) {
    let (ca, setup) = at_noon();
    ca.set(fault);
    let mut gate = setup.domain(SITE, NOWHERE).uncertified().start();
    eventually("the order is under way", || (!ca.requests_for(until).is_empty()).then_some(()));
    thread::sleep(Duration::from_millis(50));
    gate.kill();
    if later_too {
        // Half a day.
        gate.start_again();
        later(&gate, &ca, DAY_SECS / 2);
        gate.kill();
    }
    ca.heal();
    gate.start_again();
    gate.await_own(SITE);
    assert_eq!((orders(&ca), ca.accounts()), ((1, 1), 1));
    assert_eq!(ca.requests_for(Resource::Finalize).len(), 1);
}

/// Also without a restart: what fails for a moment is no reason to place another order, what fails for days is.
#[rstest]
#[case::half_a_day(DAY_SECS / 2, 1)]
#[case::two_days(2 * DAY_SECS, 2)]
fn an_order_is_gone_on_with_for_a_day(
    #[case] secs: i64,
    #[case] expected: usize,
    #[values(Resource::Challenge, Resource::Order)] fails: Resource,
) {
    let (ca, setup) = at_noon();
    ca.set(Fault::unavailable(RetryAfter::Nothing).at(fails));
    let gate = setup.domain(SITE, NOWHERE).uncertified().start();
    gate.await_failures(SITE, 1);
    later(&gate, &ca, secs);
    gate.await_failures(SITE, 2);
    assert_eq!(orders(&ca), (1, 0));
    ca.heal();
    // Longer than any back-off.
    later(&gate, &ca, 2 * BACK_OFF_SECS + 3600);
    gate.await_own(SITE);
    assert_eq!((orders(&ca), ca.accounts()), ((expected, 1), 1));
}

#[rstest]
#[case::gone(Fault::problem(404, "malformed", "no such order"))]
#[case::unreadable(Fault::garbage())]
#[case::without_end(Fault::endless_body())]
fn an_order_that_cannot_be_gone_on_with_is_placed_anew(#[case] fault: Fault) {
    let (ca, setup) = at_noon();
    ca.set(Fault::stuck_pending());
    let mut gate = setup.domain(SITE, NOWHERE).uncertified().start();
    eventually("the order is under way", || (!ca.requests_for(Resource::Challenge).is_empty()).then_some(()));
    gate.kill();
    ca.heal();
    ca.set(fault.at(Resource::Order).times(1));
    gate.start_again();
    gate.await_own(SITE);
    assert_eq!(orders(&ca), (2, 1));
}

/// Trouble of the authority's own passes; an order that is invalid for it does not come back.
#[test]
fn an_invalid_order_is_not_gone_on_with_whatever_it_is_invalid_for() {
    let (ca, setup) = at_noon();
    ca.set(Fault::invalid_authorization("serverInternal", "out of paper").times(1));
    let gate = setup.domain(SITE, NOWHERE).uncertified().start();
    let failed = gate.await_failures(SITE, 1);
    assert!(failed.contains("out of paper"), "{failed}");
    later(&gate, &ca, BACK_OFF_SECS);
    gate.await_own(SITE);
    assert_eq!(orders(&ca), (2, 1));
}

#[test]
fn a_restart_asks_nobody_again() {
    let (ca, setup) = at_noon();
    ca.set(Fault::problem(403, "rejectedIdentifier", "not for you").at(Resource::NewOrder));
    let mut gate = many(setup, 10, NOWHERE).start();
    eventually("all failed", || (gate.orders("ca-0", "failed") >= 10.0).then_some(()));
    for _ in 0..2 {
        gate.kill();
        gate.start_again();
        thread::sleep(SOME_TICKS);
    }
    assert_eq!(ca.requests_for(Resource::NewOrder).len(), 10);
    ca.heal();
    later(&gate, &ca, BACK_OFF_SECS);
    for number in 0..10 {
        gate.await_own(&name(number));
    }
    assert_eq!((orders(&ca), ca.accounts()), ((10, 10), 1));
}

#[test]
fn many_names_due_at_once_make_an_orderly_queue() {
    const NAMES: usize = 120;
    const MAX_ORDERS: usize = 8;
    let (ca, setup) = at_noon();
    ca.set(Fault::stuck_processing());
    let origin = Scripted::ok("hello");
    let setup = many(setup.set("acme.max_orders", &MAX_ORDERS.to_string()), NAMES, &origin.url());
    let gate = setup.domain("busy.lockgate.test", &origin).start();
    eventually("as many as may be", || (orders(&ca).0 == MAX_ORDERS).then_some(()));
    thread::sleep(SOME_TICKS);
    assert_eq!(orders(&ca), (MAX_ORDERS, 0));
    let before = gate.resident_bytes();
    ca.heal();
    let mut slowest = Duration::ZERO;
    eventually_within(Duration::from_secs(60), "all are issued", || {
        let began = Instant::now();
        assert_eq!(gate.get("busy.lockgate.test").status, 200);
        slowest = slowest.max(began.elapsed());
        let (placed, issued) = orders(&ca);
        assert!(placed - issued <= MAX_ORDERS, "{placed} orders, {issued} of them issued");
        (issued == NAMES).then_some(())
    });
    for number in 0..NAMES {
        gate.await_own(&name(number));
    }
    let mut names: Vec<_> = ca.orders().into_iter().flat_map(|order| order.names).collect();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), orders(&ca).0, ca.accounts()), (NAMES, NAMES, 1));
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(gate.resident_bytes() < before + (32 << 20), "{before} -> {}", gate.resident_bytes());
}

/// All of them would take a minute: the first few hundred behave like the rest.
#[test]
fn a_thousand_names_due_at_once_are_taken_in_hand_a_few_at_a_time() {
    const NAMES: usize = 1_000;
    const MAX_ORDERS: usize = 100;
    const ENOUGH: usize = 200;
    /// Four per tick of 250 ms.
    const STARTS_PER_SEC: f64 = 16.0;
    /// What may have been started before the clock of this test.
    const SLACK: f64 = 36.0;
    const STRANGER: &str = "stranger.test";
    let (ca, setup) = at_noon();
    ca.set(Fault::stuck_processing());
    let setup = setup
        .set("acme.max_orders", &MAX_ORDERS.to_string())
        .set("acme.on_demand.site", &format!("'{}'", name(0)))
        .set("acme.on_demand.allow", &format!("['{STRANGER}']"));
    let gate = many(setup, NAMES, NOWHERE).start();
    let began = Instant::now();
    let look = || {
        let secs = began.elapsed().as_secs_f64();
        let (placed, issued) = orders(&ca);
        #[expect(clippy::cast_precision_loss, reason = "hundreds")]
        let allowed = placed as f64 <= STARTS_PER_SEC * secs + SLACK;
        assert!(allowed, "{placed} orders after {secs} s");
        assert!(placed - issued <= MAX_ORDERS, "{placed} orders, {issued} of them issued");
        (placed, issued)
    };
    eventually_within(Duration::from_secs(30), "as many as may be", || (look().0 == MAX_ORDERS).then_some(()));
    thread::sleep(SOME_TICKS);
    assert_eq!(look(), (MAX_ORDERS, 0));
    thread::scope(|scope| {
        // Whoever waits in a handshake does not wait for all of them.
        let stranger = scope.spawn(|| gate.tls(STRANGER).connect().is_ok());
        ca.heal();
        eventually_within(Duration::from_secs(40), "enough are issued", || (look().1 >= ENOUGH).then_some(()));
        assert!(stranger.join().unwrap());
    });
    let waiting = gate.metric("lockgate_acme_orders_waiting", &[]).unwrap();
    assert!(waiting > 100.0, "{waiting}");
    let mut names: Vec<_> = ca.orders().into_iter().flat_map(|order| order.names).collect();
    let placed = names.len();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), ca.accounts(), gate.orders("ca-0", "failed")), (placed, 1, 0.0));
    assert!(names.contains(&STRANGER.to_owned()));
}

#[test]
fn one_name_is_in_one_order_at_a_time() {
    let (ca, setup) = at_noon();
    ca.set(Fault::stuck_pending());
    let setup = setup.domain("lockgate.test", NOWHERE).uncertified();
    let gate = setup.domain("www.lockgate.test", NOWHERE).uncertified().start();
    eventually("an order", || (orders(&ca).0 > 0).then_some(()));
    thread::sleep(SOME_TICKS);
    assert_eq!(orders(&ca), (1, 0));
    ca.heal();
    gate.await_own("lockgate.test");
    gate.await_own("www.lockgate.test");
    assert_eq!(orders(&ca), (2, 2));
}

#[test]
fn a_silent_authority_is_waited_for_by_all_at_once() {
    let (ca, setup) = at_noon();
    // The first request of all, which is for the account that all of them need.
    ca.set(Fault::problem(500, "serverInternal", "out of paper").at(Resource::NewAccount));
    let gate = many(setup, 4, NOWHERE).start();
    eventually("all failed", || (gate.orders("ca-0", "failed") >= 4.0).then_some(()));
    let asked = ca.requests_for(Resource::NewAccount).len();
    assert!(asked <= 3, "the library tries three times, and nobody after it: {asked}");
}

#[test]
fn after_a_renewal_no_handshake_sees_the_old_certificate() {
    let (ca, setup) = at_noon();
    let gate = setup.domain(SITE, NOWHERE).uncertified().start();
    gate.await_own(SITE);
    let old = gate.leaf(SITE);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen: Vec<Presented> = Vec::new();
                    let mut after = 0;
                    while after < 20 {
                        after += usize::from(is_over.load(Ordering::Relaxed));
                        let leaf = gate.leaf(SITE);
                        if seen.last() != Some(&leaf) {
                            seen.push(leaf);
                        }
                    }
                    seen
                })
            })
            .collect();
        later(&gate, &ca, 61 * DAY_SECS);
        eventually("renewed", || (gate.leaf(SITE) != old).then_some(()));
        is_over.store(true, Ordering::Relaxed);
        let new = gate.leaf(SITE);
        for client in clients {
            let seen = client.join().unwrap();
            // Never back again.
            assert_eq!(seen, [old.clone(), new.clone()]);
        }
    });
    assert_eq!(ca.orders().len(), 2);
}

#[test]
fn the_authoritys_window_is_followed() {
    let (ca, setup) = at_noon();
    let window = (utc(NOON) + 10 * DAY_SECS, utc(NOON) + 10 * DAY_SECS + 3600);
    ca.ari(window.0, window.1, 6 * 3600);
    let gate = setup.domain(SITE, NOWHERE).uncertified().with("acme", "{ standby = false }").start();
    gate.await_own(SITE);
    gate.await_log(&["the authority suggests renewal from 2027-06-11T12:00:00Z"]);
    let asked = || ca.requests_for(Resource::RenewalInfo).len();
    assert_eq!(asked(), 1);
    // Retry-After is honoured.
    later(&gate, &ca, 6 * 3600 - 60);
    thread::sleep(SOME_TICKS);
    assert_eq!(asked(), 1);
    later(&gate, &ca, 120);
    eventually("asked again", || (asked() == 2).then_some(()));
    // The answer's time counts from when it is taken in.
    thread::sleep(SOME_TICKS);
    later(&gate, &ca, 9 * DAY_SECS);
    eventually("asked again", || (asked() == 3).then_some(()));
    thread::sleep(SOME_TICKS);
    assert_eq!(ca.orders().len(), 1);
    later(&gate, &ca, DAY_SECS);
    eventually("renewed", || (orders(&ca) == (2, 2)).then_some(()));
    assert!(ca.orders()[0].replaces.is_none() && ca.orders()[1].replaces.is_some(), "{:?}", ca.orders());
    // The window is in the past for the new one, too: it is used for a while all the same. Nor does the answer about
    // the old one, which was asked about in the same second, make that the newest again.
    thread::sleep(SOME_TICKS);
    assert_eq!(ca.orders().len(), 2);
}

#[rstest]
#[case::for_a_while(RetryAfter::Nothing, false)]
#[case::as_long_as_it_says(RetryAfter::Secs(8 * 3600), true)]
fn an_authority_that_does_not_answer_about_one_is_not_asked_about_others(
    #[case] retry_after: RetryAfter,
    #[case] is_long: bool,
) {
    const NAMES: usize = 24;
    /// Questions under way at once.
    const AT_ONCE: usize = 4;
    let (ca, setup) = at_noon();
    ca.ari(utc(NOON) + 60 * DAY_SECS, utc(NOON) + 61 * DAY_SECS, 3600);
    let gate = many(setup, NAMES, NOWHERE).start();
    let asked = || ca.requests_for(Resource::RenewalInfo).len();
    eventually("all are asked about", || (asked() == NAMES).then_some(()));
    thread::sleep(SOME_TICKS);
    ca.set(Fault::unavailable(retry_after).at(Resource::RenewalInfo));
    later(&gate, &ca, 3660);
    eventually("asked again", || (asked() > NAMES).then_some(()));
    thread::sleep(SOME_TICKS);
    let before = asked();
    assert!(before <= NAMES + AT_ONCE, "{before}");
    // Everybody's turn has come again by then.
    later(&gate, &ca, 6 * 3600);
    match is_long {
        true => thread::sleep(SOME_TICKS),
        false => eventually("asked again", || (asked() > before).then_some(())),
    }
    assert_eq!(asked() == before, is_long, "{before} -> {}", asked());
}

#[rstest]
#[case::offered_no_more(None)]
#[case::broken(Some(Fault::garbage().at(Resource::RenewalInfo)))]
#[case::down(Some(Fault::unavailable(RetryAfter::Nothing).at(Resource::RenewalInfo)))]
fn without_a_window_the_lifetime_decides(#[case] fault: Option<Fault>) {
    let (ca, setup) = at_noon();
    ca.ari(utc(NOON) + 80 * DAY_SECS, utc(NOON) + 80 * DAY_SECS + 3600, 3600);
    let is_lost = fault.is_none();
    if let Some(fault) = fault {
        ca.set(fault);
    }
    let gate = setup.domain(SITE, NOWHERE).uncertified().with("acme", "{ standby = false }").start();
    gate.await_own(SITE);
    let asked = || ca.requests_for(Resource::RenewalInfo).len();
    eventually("asked", || (asked() == 1).then_some(()));
    if is_lost {
        gate.await_log(&["the authority suggests renewal"]);
        ca.no_ari();
        later(&gate, &ca, 2 * 3600);
        eventually("asked again", || (asked() == 2).then_some(()));
        thread::sleep(SOME_TICKS);
    }
    later(&gate, &ca, 61 * DAY_SECS);
    eventually("renewed", || (orders(&ca) == (2, 2)).then_some(()));
}
