//! Which certificate a client is shown, at any second (SPEC 5; RELIABILITY 13, 21).

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rstest::rstest;
use rustix::process::Signal;
use rustls::AlertDescription;
use rustls::SignatureScheme::{ECDSA_NISTP256_SHA256, RSA_PKCS1_SHA256, RSA_PSS_SHA256};

use crate::harness::*;

const SITE: &str = "www.example.test";
/// 112 (RFC 6066, section 3).
const UNRECOGNIZED_NAME: AlertDescription = AlertDescription::UnrecognisedName;
const LONG_AGO: &str = "2021-01-01 00:00:00";
const NOON: &str = "2026-06-01 12:00:00";

#[rstest]
#[case::exact("a.example.test", Some("a.example.test"))]
#[case::wildcard("b.example.test", Some("*.example.test"))]
#[case::two_labels_below("b.a.example.test", None)]
#[case::the_parent("example.test", None)]
#[case::unknown("elsewhere.test", None)]
fn sni_chooses_the_exact_name_before_the_wildcard(#[case] sni: &str, #[case] shown: Option<&str>) {
    let origin = Scripted::ok("");
    let gate = Lockgate::setup().domain("*.example.test", &origin).domain("a.example.test", &origin).start();
    match (gate.tls(sni).connect(), shown) {
        (Ok(connection), Some(name)) => assert_eq!(connection.presented().names, [name]),
        (Err(refused), None) => assert_eq!(refused, Failure::Alert(UNRECOGNIZED_NAME)),
        (other, _) => panic!("{:?}", other.map(|connection| connection.presented())),
    }
}

#[test]
fn without_sni_and_without_default_there_is_no_site() {
    let gate = Lockgate::serving(SITE, Scripted::ok("")).start();
    let refused = gate.tls(SITE).without_sni().connect().err();
    assert_eq!(refused, Some(Failure::Alert(UNRECOGNIZED_NAME)));
}

#[test]
fn the_default_site_answers_clients_without_a_site_but_only_for_its_own_hosts() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::setup()
        .set("listen.default", "'www.example.test'")
        .domain(SITE, &origin)
        .domain("other.example.test", &origin)
        .start();
    for client in [gate.tls(SITE).without_sni(), gate.tls("elsewhere.test")] {
        let mut connection = client.connect().unwrap();
        assert_eq!(connection.presented().names, [SITE]);
        assert_eq!(connection.ask("GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n").status, 200);
        assert_eq!(connection.ask("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").status, 421);
        assert_eq!(connection.ask("GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n").status, 421);
    }
}

#[test]
fn a_domain_that_is_an_address_serves_clients_that_come_to_it() {
    let origin = Scripted::ok("hello");
    let gate = Lockgate::setup().domain("127.0.0.1", &origin).domain(SITE, &origin).start();
    let mut connection = gate.tls("127.0.0.1").connect().unwrap();
    assert_eq!(connection.presented().names, ["127.0.0.1"]);
    assert_eq!(connection.ask(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", gate.https())).text(), "hello");
    assert_eq!(gate.leaf(SITE).names, [SITE]);
}

/// Clients of TLS 1.2 that take one kind of key say so by their suites, and list the other's schemes all the same.
#[rstest]
#[case::rsa_alone("ECDHE-RSA-AES128-GCM-SHA256", true)]
#[case::ecdsa_alone("ECDHE-ECDSA-AES128-GCM-SHA256", false)]
#[case::rsa_first("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", false)]
fn the_clients_suites_choose_between_rsa_and_ecdsa(#[case] suites: &str, #[case] is_rsa: bool) {
    let pki = Pki::new();
    let (rsa, ecdsa) = (pki.issue(&[SITE]).rsa().leaf(), pki.leaf(SITE));
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&rsa).certificate(&ecdsa).start();
    let mut client = Command::new("openssl");
    client.args(["s_client", "-tls1_2", "-cipher", suites, "-connect", &gate.https().to_string(), "-servername", SITE]);
    let output = run(&mut client);
    let shown = if is_rsa { "Server public key is 2048 bit" } else { "Server public key is 256 bit" };
    assert!(output.code == 0 && output.text().contains(shown), "{}", output.text());
}

#[rstest]
#[case::tls13(&rustls::version::TLS13)]
#[case::tls12(&rustls::version::TLS12)]
fn the_clients_signatures_choose_between_rsa_and_ecdsa(#[case] version: &'static rustls::SupportedProtocolVersion) {
    let pki = Pki::new();
    let (rsa, ecdsa) = (pki.issue(&[SITE]).rsa().leaf(), pki.leaf(SITE));
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&rsa).certificate(&ecdsa).start();
    let shown = |schemes: &[_]| gate.tls(SITE).version(version).signatures(schemes).connect().unwrap().presented();
    assert_eq!(shown(&[RSA_PSS_SHA256, RSA_PKCS1_SHA256]), rsa);
    assert_eq!(shown(&[ECDSA_NISTP256_SHA256]), ecdsa);
    assert_eq!(shown(&[RSA_PSS_SHA256, RSA_PKCS1_SHA256, ECDSA_NISTP256_SHA256]), ecdsa, "the cheaper one");
}

#[test]
fn of_two_own_certificates_only_a_valid_one_is_sent() {
    let pki = Pki::new();
    let (rsa, expired) = (pki.issue(&[SITE]).rsa().leaf(), pki.issue(&[SITE]).until(LONG_AGO).leaf());
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&expired).certificate(&rsa).start();
    assert_eq!(gate.leaf(SITE), rsa);
    // A client whom the valid one does not suit is refused, or shown another that is valid.
    let ecdsa_only = gate.tls(SITE).signatures(&[ECDSA_NISTP256_SHA256]).connect();
    match ecdsa_only.map(|connection| connection.presented()) {
        Ok(leaf) => assert!(leaf != expired && leaf.not_after > utc(NOON), "{leaf:?}"),
        Err(refused) => assert_eq!(refused, Failure::Alert(AlertDescription::HandshakeFailure)),
    }
}

/// The heart of it: several clients shake hands without pause while the certificate's last second passes.
#[test]
fn a_certificate_that_expires_under_load_costs_no_handshake() {
    let pki = Pki::new();
    let own = pki.issue(&[SITE]).until("2026-06-01 12:00:01").leaf();
    let setup = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&own);
    let gate = setup.clock_stopped(NOON).start();
    let shown = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let over = AtomicBool::new(false);
    let shake_hands = || {
        let mut seen = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let begun = gate.clock().now_ms().div_euclid(1000);
            let leaf = gate.leaf(SITE);
            shown[usize::from(leaf != own)].fetch_add(1, Ordering::Relaxed);
            seen.push((begun, gate.clock().now_ms().div_euclid(1000), leaf));
        }
        seen
    };
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(shake_hands)).collect();
        let enough = |shown: &AtomicUsize| (shown.load(Ordering::Relaxed) > 40).then_some(());
        eventually("handshakes with its own certificate", || enough(&shown[0]));
        gate.clock().flow_from(NOON);
        eventually("handshakes after it", || enough(&shown[1]));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    gate.await_metric("lockgate_certificate_fallback_active", &[("domain", SITE)], 1.0);
    gate.await_log(&["fallback_installed", SITE]);
    for (begun, done, leaf) in seen {
        assert!(leaf.not_before <= done && begun <= leaf.not_after, "at {begun}: not valid, {leaf:?}");
        assert!(leaf == own || done > utc("2026-06-01 12:00:01"), "own certificate left early, at {done}");
        assert_eq!(leaf.names, [SITE]);
    }
    let fresh = pki.leaf(SITE);
    own.replace_with(&fresh);
    eventually("the fresh certificate serves by itself", || (gate.leaf(SITE) == fresh).then_some(()));
    gate.await_metric("lockgate_certificate_fallback_active", &[("domain", SITE)], 0.0);
    gate.await_log(&["fallback_ended", SITE]);
}

#[test]
fn the_swap_happens_in_the_very_second() {
    let pki = Pki::new();
    let own = pki.issue(&[SITE]).from("2026-06-01 11:00:00").until(NOON).leaf();
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&own).clock_stopped(NOON).start();
    for (date, serves) in [
        ("2026-06-01 12:00:00", true),
        ("2026-06-01 12:00:01", false),
        ("2026-06-01 11:00:00", true),
        ("2026-06-01 10:59:59", false),
        ("2026-06-01 11:30:00", true),
    ] {
        gate.clock().stop_at(date);
        let leaf = gate.leaf(SITE);
        assert_eq!(leaf == own, serves, "at {date}");
        assert!(leaf.not_before <= utc(date) && utc(date) <= leaf.not_after, "at {date}: {leaf:?}");
    }
}

/// What a domain's neighbours and the operator have to offer when its own certificate has expired.
#[rstest]
#[case::same_tenant("acme", true, "store")]
#[case::another_tenant("rival", true, "configured")]
#[case::nothing_but_our_own("rival", false, "internal")]
fn the_order_of_fallbacks(#[case] neighbour: &str, #[case] configured: bool, #[case] source: &str) {
    let pki = Pki::new();
    let expired = pki.issue(&[SITE]).until(LONG_AGO).leaf();
    let (shared, operators) = (pki.issue(&["shop.example.test", SITE]).leaf(), pki.leaf("fallback.test"));
    let origin = Scripted::ok("hello");
    let mut setup = Lockgate::under(&pki).domain(SITE, &origin).tenant("acme").certificate(&expired);
    setup = setup.domain("shop.example.test", &origin).tenant(neighbour).certificate(&shared);
    if configured {
        setup = setup.fallback(&operators);
    }
    let gate = setup.clock(NOON).start();
    let leaf = gate.leaf(SITE);
    match source {
        "store" => assert_eq!(leaf, shared),
        "configured" => assert_eq!(leaf, operators),
        _ => assert!(leaf != shared && leaf.names == [SITE] && leaf.not_after > utc(NOON), "{leaf:?}"),
    }
    assert_eq!(gate.get(SITE).status, 200);
    gate.await_metric("lockgate_certificate_fallback_active", &[("domain", SITE)], 1.0);
    gate.await_metric("lockgate_certificate_fallback_active", &[("domain", "shop.example.test")], 0.0);
    let labels = [("domain", SITE), ("source", source)];
    let not_after = gate.metric("lockgate_certificate_not_after_seconds", &labels).expect("the source that serves");
    assert_eq!(not_after as i64, leaf.not_after);
    gate.await_log(&["fallback_installed", SITE]);
}

#[rstest]
#[case::another_name("other.example.test", false)]
#[case::the_parent("shop.example.test", false)]
#[case::a_wildcard_two_levels_up("*.example.test", false)]
#[case::a_wildcard_one_level_up("*.shop.example.test", true)]
fn a_certificate_serves_only_names_that_it_covers(#[case] names: &str, #[case] covers: bool) {
    const SITE: &str = "www.shop.example.test";
    let pki = Pki::new();
    let (given, expired) = (pki.leaf(names), pki.issue(&[SITE]).until(LONG_AGO).leaf());
    let origin = Scripted::ok("hello");
    // As a domain's own, and as a neighbour's that could stand in.
    let own = Lockgate::under(&pki).domain(SITE, &origin).certificate(&given);
    let neighbours = Lockgate::under(&pki).domain(SITE, &origin).tenant("acme").certificate(&expired);
    let neighbours = neighbours.domain(names, &origin).tenant("acme").certificate(&given);
    for setup in [own, neighbours] {
        let leaf = setup.clock(NOON).start().leaf(SITE);
        assert_eq!(leaf == given, covers, "{leaf:?}");
        assert!(covers || leaf.names == [SITE], "{leaf:?}");
    }
}

#[test]
fn a_configured_fallback_that_has_expired_is_not_sent_either() {
    let pki = Pki::new();
    let expired = pki.issue(&[SITE]).until(LONG_AGO).leaf();
    let gate = Lockgate::under(&pki)
        .domain(SITE, Scripted::ok(""))
        .certificate(&expired)
        .fallback(&expired)
        .clock(NOON)
        .start();
    let leaf = gate.leaf(SITE);
    assert!(leaf.not_after > utc(NOON) && leaf.names == [SITE], "{leaf:?}");
}

#[test]
fn a_domain_without_a_certificate_serves_an_internal_one_that_is_always_the_same() {
    let gate = Lockgate::serving("*.example.test", Scripted::ok("")).uncertified().start();
    let leaf = gate.leaf("a.example.test");
    assert_eq!(leaf.names, ["*.example.test"], "one for the domain, not for the name that a client sends");
    assert_eq!(gate.leaf("b.example.test"), leaf);
}

#[rstest]
#[case::missing(|leaf: &Leaf| fs::remove_file(&leaf.cert).unwrap())]
#[case::no_certificate(|leaf: &Leaf| leaf.break_file())]
#[case::empty(|leaf: &Leaf| fs::write(&leaf.key, "").unwrap())]
#[case::anothers_key(|leaf: &Leaf| { fs::copy(leaf.pki.leaf("x.test").key, &leaf.key).unwrap(); })]
fn a_broken_pair_at_start_darkens_nobody_else(#[case] damage: fn(&Leaf)) {
    let pki = Pki::new();
    let (broken, good) = (pki.leaf(SITE), pki.leaf("good.example.test"));
    damage(&broken);
    let origin = Scripted::ok("hello");
    let setup = Lockgate::under(&pki).domain("good.example.test", &origin).certificate(&good);
    let setup = setup.domain(SITE, &origin).certificate(&broken).expect_error(SITE);

    let check = setup.check();
    assert_eq!(check.code, 2, "{}", check.text());
    let (file, line) =
        (broken.cert.file_stem().unwrap().to_str().unwrap(), setup.line_of(broken.cert.to_str().unwrap()));
    let said = check.text();
    let at = [format!("lockgate.toml:{line}"), format!("lockgate.toml:{}", line + 1)];
    assert!(said.contains(file) && at.iter().any(|at| said.contains(at)), "{at:?} in {said}");

    let gate = setup.start();
    assert_eq!(gate.leaf("good.example.test"), good);
    assert_eq!(gate.leaf(SITE).names, [SITE]);
    assert_eq!(gate.get(SITE).text(), "hello");
    assert_eq!(gate.metric("lockgate_certificate_fallback_active", &[("domain", SITE)]), Some(1.0));
    gate.await_log(&[SITE]);
}

#[test]
fn the_operator_may_prefer_not_to_start_with_a_broken_pair() {
    let pki = Pki::new();
    let broken = pki.leaf(SITE);
    broken.break_file();
    let setup = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&broken);
    let refused = setup.set("on_broken_certificate", "'refuse'").fail_to_start();
    assert_eq!(refused.code, 2, "{}", refused.text());
    assert!(refused.text().contains("lockgate.toml:"), "{}", refused.text());
}

#[test]
fn a_renewed_file_is_picked_up_by_itself() {
    let pki = Pki::new();
    let (own, renewed) = (pki.leaf(SITE), pki.leaf(SITE));
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&own).start();
    assert_eq!(gate.leaf(SITE), own);
    own.replace_with(&renewed);
    eventually("the renewed certificate serves", || (gate.leaf(SITE) == renewed).then_some(()));
}

#[test]
fn after_a_reload_no_handshake_sees_the_older_certificate() {
    let pki = Pki::new();
    let (own, renewed) = (pki.leaf(SITE), pki.leaf(SITE));
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&own).start();
    assert_eq!(gate.leaf(SITE), own);
    own.replace_with(&renewed);
    assert_eq!(gate.reload().code, 0);
    for _ in 0..30 {
        assert_eq!(gate.leaf(SITE), renewed);
    }
}

#[test]
fn a_broken_replacement_never_replaces_a_working_pair() {
    let pki = Pki::new();
    let own = pki.leaf(SITE);
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&own).expect_error("leaf-").start();
    let shown = gate.leaf(SITE);
    own.break_file();
    gate.await_log(&[own.cert.file_name().unwrap().to_str().unwrap()]);
    assert_eq!(gate.leaf(SITE), shown);
    gate.signal(Signal::HUP);
    eventually("SIGHUP is done", || (gate.metrics().sum("lockgate_config_reloads_total", &[]) == 1.0).then_some(()));
    assert_eq!(gate.leaf(SITE), shown);
    own.replace_with(&pki.leaf(SITE));
    eventually("a good one does", || (gate.leaf(SITE) != shown).then_some(()));
    assert_eq!(gate.metric("lockgate_certificate_fallback_active", &[("domain", SITE)]), Some(0.0));
}

/// RELIABILITY 21: certificates while the clock runs away and comes back.
#[test]
fn a_clock_that_jumps_by_months_never_shows_an_expired_certificate() {
    let pki = Pki::new();
    let own = pki.issue(&[SITE]).from("2026-05-20 00:00:00").until("2026-07-01 00:00:00").leaf();
    let origin = Scripted::ok("hello");
    let gate = Lockgate::under(&pki).domain(SITE, &origin).certificate(&own).clock(NOON).start();
    const DAY: i64 = 86_400;
    for (days, serves) in [(0, true), (90, false), (-90, true), (-30, false), (400, false), (-370, true)] {
        gate.clock().advance(days * DAY);
        for _ in 0..3 {
            let mut client = gate.connect(SITE);
            let (leaf, now) = (client.presented(), gate.clock().now_ms() / 1000);
            assert_eq!(leaf == own, serves, "{days} days on");
            assert!(leaf.not_before <= now && now <= leaf.not_after, "{days} days on: {leaf:?}");
            assert_eq!(client.get("/").text(), "hello");
        }
    }
}
