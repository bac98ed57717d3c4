//! How control over names is proved, to authorities that look.

use rstest::rstest;

use crate::harness::{Bind, Fault, FaultCa, Lockgate, Managed, Pebble, Pki, RetryAfter, Setup, free_port, utc};

const SITE: &str = "shop.lockgate.test";
const NOWHERE: &str = "http://127.0.0.1:1";
/// Longer than the first back-off with its jitter.
const BACK_OFF_SECS: i64 = 700;

fn names(gate: &Lockgate, name: &str) -> Vec<String> {
    let mut names = gate.leaf(name).names;
    names.sort();
    names
}

#[rstest]
#[case::http(true, |setup: Setup| setup)]
#[case::no_listener(false, |setup: Setup| setup.set("listen.http", "[]"))]
#[case::configured(false, |setup: Setup| setup.set("acme.challenge", "'tls-alpn-01'"))]
#[case::only_here(false, |setup: Setup| setup.with("acme", "{ challenge = 'tls-alpn-01' }"))]
fn control_is_proved_where_there_is_a_listener(#[case] by_http: bool, #[case] change: impl FnOnce(Setup) -> Setup) {
    let (site, pki) = (Managed::new(), Pki::new());
    // The other port is somebody else's.
    let (http, https) = if by_http { (site.http, free_port()) } else { (free_port(), site.https) };
    let authority = site.authority().validates_at(http, https).start();
    let setup = site.setup(&pki, &[&authority]).domain(SITE, NOWHERE).uncertified();
    let gate = change(setup).start();
    gate.await_own(SITE);
    assert_eq!((authority.orders(), gate.orders("ca-0", "issued"), gate.orders("ca-0", "failed")), (1, 1.0, 0.0));
}

#[test]
fn what_fails_one_way_is_proved_the_other() {
    let (site, pki) = (Managed::new(), Pki::new());
    // Somebody else's port.
    let authority = site.authority().validates_at(free_port(), site.https).start();
    let gate = site.setup(&pki, &[&authority]).domain(SITE, NOWHERE).uncertified().start();
    gate.await_own(SITE);
    gate.await_log(&["urn:ietf:params:acme:error:connection", SITE, "it is proved another way"]);
    assert_eq!((authority.orders(), gate.orders("ca-0", "failed"), gate.orders("ca-0", "issued")), (2, 1.0, 1.0));
    assert_eq!(gate.count_log(&["issuance_failed"]), 0);
}

#[test]
fn what_fails_both_ways_is_told_for_both() {
    let (site, pki) = (Managed::new(), Pki::new());
    let authority = site.authority().validates_at(free_port(), free_port()).start();
    let gate = site.setup(&pki, &[&authority]).domain(SITE, NOWHERE).uncertified().start();
    let failed = gate.await_failures(SITE, 1);
    for words in ["urn:ietf:params:acme:error:connection", "port 80", "port 443", "AAAA", SITE, "Next attempt at"] {
        assert!(failed.contains(words), "{words:?} is not in {failed}");
    }
    assert_eq!(gate.metric("lockgate_alerts_total", &[("domain", SITE), ("kind", "issuance_failed")]), Some(1.0));
    assert_eq!((authority.orders(), gate.orders("ca-0", "failed")), (2, 2.0));
}

/// Whoever sets records for the operator's own wildcard has nothing to say in the zones of customers.
#[test]
fn a_wildcards_records_are_no_other_names_proof() {
    let (site, pki) = (Managed::new(), Pki::new());
    let bind = Bind::start(&["hoster.test"]);
    let authority = site.authority().start();
    let setup = site.setup(&pki, &[&authority]).acme_dns(&bind);
    let gate = setup.domain("*.hoster.test", NOWHERE).uncertified().domain(SITE, NOWHERE).uncertified().start();
    gate.await_own(SITE);
    assert_eq!(gate.orders("ca-0", "issued"), 1.0);
}

#[rstest]
#[case::http(None)]
#[case::tls(Some("tls-alpn-01"))]
fn an_address_gets_a_certificate(#[case] challenge: Option<&str>) {
    let (site, pki) = (Managed::new(), Pki::new());
    let authority = site.authority().start();
    let mut setup = site.setup(&pki, &[&authority]).domain("127.0.0.1", NOWHERE).uncertified();
    if let Some(challenge) = challenge {
        setup = setup.set("acme.challenge", &format!("'{challenge}'"));
    }
    let gate = setup.start();
    gate.await_own("127.0.0.1");
    assert_eq!(names(&gate, "127.0.0.1"), ["127.0.0.1"]);
}

#[test]
fn a_wildcard_is_proved_in_a_real_zone_and_takes_its_apex_along() {
    let pki = Pki::new();
    let bind = Bind::start(&["lockgate.test"]);
    let authority = Pebble::setup().dns(bind.server()).start();
    let gate = Lockgate::under(&pki)
        .acme(&[&authority])
        .acme_dns(&bind)
        .domain("*.lockgate.test", NOWHERE)
        .uncertified()
        .start();
    gate.await_own("*.lockgate.test");
    assert_eq!(names(&gate, "any.lockgate.test"), ["*.lockgate.test", "lockgate.test"]);
    // Two values at one name, and none is left.
    assert_eq!((authority.orders(), authority.count_log(&["authz", "VALID"])), (1, 2));
    assert_eq!(bind.txt("_acme-challenge.lockgate.test"), Vec::<String>::new());
}

#[test]
fn www_takes_the_apex_along_and_leaves_it_where_it_is_not_to_be_had() {
    let (site, pki) = (Managed::new(), Pki::new());
    let authority = site.authority().start();
    let setup = site.setup(&pki, &[&authority]).domain("www.lockgate.test", NOWHERE).uncertified();
    let mut gate = setup.domain("lockgate.test", NOWHERE).uncertified().start();
    gate.await_own("www.lockgate.test");
    assert_eq!(names(&gate, "www.lockgate.test"), ["lockgate.test", "www.lockgate.test"]);

    // Somebody else's machine.
    site.names.add_a("other.test", &["127.0.0.2".parse().unwrap()]);
    gate.reconfigure(|setup| {
        setup.domain("www.other.test", NOWHERE).uncertified().domain("other.test", NOWHERE).uncertified()
    });
    gate.await_own("www.other.test");
    gate.await_log(&["www.other.test", "it is ordered without that name"]);
    assert_eq!(names(&gate, "www.other.test"), ["www.other.test"]);
    assert_ne!(gate.source("other.test").as_deref(), Some("own"));
}

#[rstest]
#[case::down(Fault::unavailable(RetryAfter::Nothing))]
#[case::the_other_name(Fault::invalid_authorization("dns", "SERVFAIL looking up A"))]
#[case::bad_certificate(Fault::wrong_key())]
fn the_apex_is_left_out_for_nothing_but_its_own_proof(#[case] fault: Fault) {
    let (pki, noon) = (Pki::new(), "2027-06-01 12:00:00");
    let ca = FaultCa::start(&pki);
    ca.set_now(utc(noon));
    ca.set(fault);
    let setup = Lockgate::under(&pki).acme(&[&ca]).domain("www.lockgate.test", NOWHERE).uncertified();
    let gate = setup.domain("lockgate.test", NOWHERE).uncertified().clock_stopped(noon).start();
    for name in ["www.lockgate.test", "lockgate.test"] {
        gate.await_failures(name, 1);
    }
    ca.heal();
    gate.clock().advance(BACK_OFF_SECS);
    ca.set_now(gate.clock().now_ms() / 1000);
    gate.await_own("www.lockgate.test");
    assert_eq!(names(&gate, "www.lockgate.test"), ["lockgate.test", "www.lockgate.test"]);
}

#[test]
fn one_certificate_for_several_names_serves_its_tenants_domains_and_no_others() {
    let pki = Pki::new();
    let bind = Bind::start(&["lockgate.test", "example.test"]);
    let authority = Pebble::setup().dns(bind.server()).start();
    let group = "[[certificate]]\nnames = ['lockgate.test', '*.lockgate.test', 'www.example.test']\ntenant = 'red'";
    let gate = Lockgate::under(&pki)
        .acme(&[&authority])
        .acme_dns(&bind)
        .set("acme.challenge", "'dns-01'")
        .table(group)
        .domain("lockgate.test", NOWHERE)
        .uncertified()
        .tenant("red")
        .domain("a.lockgate.test", NOWHERE)
        .uncertified()
        .tenant("red")
        .with("acme", "false")
        .domain("b.lockgate.test", NOWHERE)
        .uncertified()
        .tenant("blue")
        .with("acme", "false")
        .domain("www.example.test", NOWHERE)
        .uncertified()
        .tenant("blue")
        .start();
    gate.await_own("lockgate.test");
    let of_red = gate.leaf("lockgate.test");
    assert_eq!(names(&gate, "lockgate.test"), ["*.lockgate.test", "lockgate.test"]);
    assert_eq!(gate.leaf("a.lockgate.test"), of_red);
    // Its name is covered, and it is somebody else's.
    assert_ne!(gate.leaf("b.lockgate.test"), of_red);
    gate.await_own("www.example.test");
    assert_eq!(names(&gate, "www.example.test"), ["www.example.test"]);
    assert_eq!(authority.orders(), 2);
}
