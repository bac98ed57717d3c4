//! Certificates that look after themselves: what the operator writes, and what comes of it.

use crate::harness::{FaultCa, Lockgate, Managed, Nginx, Pki, Setup, eventually, lockgate, utc};

const SITE: &str = "shop.lockgate.test";
const NOON: &str = "2027-06-01 12:00:00";
const DAY_SECS: i64 = 86_400;

/// An authority that looks at nothing, and a proxy that has its certificates from there, both at [`NOON`].
fn at_noon() -> (FaultCa, Setup) {
    let pki = Pki::new();
    let ca = FaultCa::start(&pki);
    ca.set_now(utc(NOON));
    let setup = Lockgate::under(&pki).acme(&[&ca]).clock_stopped(NOON);
    (ca, setup)
}

/// Both clocks, so many days on.
fn days_later(gate: &Lockgate, ca: &FaultCa, days: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "days of a test")]
    gate.clock().advance((days * DAY_SECS as f64) as i64);
    ca.set_now(gate.clock().now_ms() / 1000);
}

/// An order takes a processor milliseconds, and there may be a thousand: where no processor is left, requests go first.
#[test]
fn whoever_orders_gives_way_to_requests() {
    let (_ca, setup) = at_noon();
    let gate = setup.domain(SITE, "http://127.0.0.1:1").uncertified().start();
    gate.await_own(SITE);
    let threads = gate.niceness();
    let of = |is_it: fn(&str) -> bool| {
        threads.iter().filter(|(name, _)| is_it(name)).map(|(_, niceness)| *niceness).collect::<Vec<_>>()
    };
    let workers = of(|name| name.strip_prefix("lockgate-").is_some_and(|it| it.parse::<usize>().is_ok()));
    let (in_time, quiet) = (of(|name| name == "lockgate-office"), of(|name| name == "lockgate-quiet"));
    // Of those that give way one waits for orders, and another has tried what was issued.
    assert!(!workers.is_empty() && !in_time.is_empty() && quiet.len() > 1, "{threads:?}");
    // What the whole process was started with.
    let own = of(|name| name == "lockgate")[0];
    assert!(workers.iter().chain(&in_time).all(|niceness| *niceness == own), "{threads:?}");
    assert!(quiet.iter().all(|niceness| *niceness == (own + 10).min(19)), "{threads:?}");
}

#[test]
fn two_lines_and_a_domain_is_on_https() {
    let (site, pki) = (Managed::new(), Pki::new());
    let authority = site.authority().start();
    let origin = Nginx::start();
    let mut gate = site.setup(&pki, &[&authority]).domain(SITE, origin).uncertified().start();
    gate.await_own(SITE);
    let (orders, leaf) = (authority.orders(), gate.leaf(SITE));
    assert_eq!((orders, leaf.names.as_slice()), (1, &[SITE.to_owned()][..]));
    assert_eq!(gate.metric("lockgate_alerts_total", &[("domain", SITE), ("kind", "certificate_issued")]), Some(1.0));

    // Its key is sealed to whoever only looks, and that is no fault.
    let config = gate.config_file();
    let checked = lockgate(&["domain", "check", SITE, "-c", config.to_str().unwrap(), "--resolver", "127.0.0.1:9"]);
    assert!(checked.stdout.contains("has a certificate from CN=Pebble"), "{}", checked.stdout);

    gate.kill();
    gate.start_again();
    assert_eq!(gate.leaf(SITE), leaf);
    assert_eq!((authority.orders(), authority.accounts()), (1, 1));
}

#[test]
fn nothing_is_ordered_before_terms_are_agreed_to() {
    let (ca, setup) = at_noon();
    let setup = setup.set("acme.agree_to_terms", "false").domain(SITE, "http://127.0.0.1:1").uncertified();
    let check = setup.check();
    assert!(check.text().contains("agree_to_terms = true"), "{}", check.text());
    let mut gate = setup.start();
    let fallback = gate.leaf(SITE);
    assert_eq!(ca.requests().len(), 0);
    gate.reconfigure(|setup| setup.set("acme.agree_to_terms", "true"));
    gate.await_own(SITE);
    assert_ne!(gate.leaf(SITE), fallback);
    assert_eq!((ca.orders().len(), ca.accounts()), (1, 1));
}

#[test]
fn a_changed_configuration_is_followed() {
    let (ca, setup) = at_noon();
    let mut gate = setup.domain("a.lockgate.test", "http://127.0.0.1:1").uncertified().start();
    gate.await_own("a.lockgate.test");
    let first = gate.leaf("a.lockgate.test");
    gate.reconfigure(|setup| setup.domain("b.lockgate.test", "http://127.0.0.1:1").uncertified());
    gate.await_own("b.lockgate.test");
    // Another kind of key is for the next certificate: this one is good.
    gate.reconfigure(|setup| setup.set("acme.key", "'rsa2048'").without_domain("b.lockgate.test"));
    assert_eq!(gate.leaf("a.lockgate.test"), first);
    days_later(&gate, &ca, 61.0);
    eventually("another key", || gate.leaf("a.lockgate.test").rsa.then_some(()));
    // What is gone is not renewed.
    let names: Vec<_> = ca.orders().into_iter().flat_map(|order| order.names).collect();
    assert_eq!(names, ["a.lockgate.test", "b.lockgate.test", "a.lockgate.test"]);
    // It was kept, and serves at once where it is good.
    gate.reconfigure(|setup| setup.domain("b.lockgate.test", "http://127.0.0.1:1").uncertified());
    gate.await_own("b.lockgate.test");
}

#[test]
fn a_certificate_of_ones_own_wins_at_the_next_handshake_and_leaves_the_issued_one_behind() {
    let (ca, setup) = at_noon();
    let mut gate = setup.domain(SITE, "http://127.0.0.1:1").uncertified().start();
    gate.await_own(SITE);
    let issued = gate.leaf(SITE);
    // Older, and with less time left: it is the user's word that counts.
    let own = Pki::new().issue(&[SITE]).from("2027-01-01 00:00:00").until("2027-06-10 00:00:00").leaf();
    gate.reconfigure(|setup| setup.certificate(&own));
    assert!(gate.leaf(SITE) == own);
    gate.reconfigure(Setup::uncertified);
    assert_eq!(gate.leaf(SITE), issued);
    // Only a standby for the files may have been ordered beside it.
    assert!(ca.orders().len() <= 2, "{:?}", ca.orders());
}
