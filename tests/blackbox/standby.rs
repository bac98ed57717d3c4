//! A certificate held ready, and what happens in the second in which the domain's own expires (SPEC 5 and 10).

use std::fs;
use std::time::Duration;

use rstest::rstest;
use tempfile::TempDir;

use crate::estate::*;
use crate::harness::*;

fn down() -> Fault {
    Fault::unavailable(RetryAfter::Nothing)
}

fn guaranteed(gate: &Lockgate) -> i64 {
    gate.metric(GUARANTEED, &DOMAIN).expect("a series for each domain") as i64
}

/// The authority is down for the whole last month; in the last week another one issues a standby.
#[test]
fn it_takes_over_in_the_second_of_expiry_without_a_failed_handshake() {
    let pki = Pki::new();
    let (first, second) = (FaultCa::start(&pki), FaultCa::start(&pki));
    let both = [&first, &second];
    both.iter().for_each(|authority| authority.set_now(utc(NOON)));
    let setup = managed(&pki, &both).domain(SITE, Scripted::ok("")).uncertified();
    let mut gate = setup.clock_stopped(NOON).start();
    let own = await_own(&gate);
    let end = own.not_after + 1;
    assert_eq!((own.not_after, guaranteed(&gate)), (utc(NOON) + 90 * DAY, 90 * DAY + 1));

    first.set(down());
    for (failures, days) in [(1, 30), (2, 20), (3, 8)] {
        stop_at(&gate, &both, end - days * DAY);
        assert!(gate.await_failures(SITE, failures).contains("503"));
    }
    let_it_look();
    assert_eq!(second.orders(), [], "a standby is for the last week");
    assert_eq!(guaranteed(&gate), 8 * DAY);
    stop_at(&gate, &both, end - 7 * DAY);
    gate.await_metric(GUARANTEED, &DOMAIN, (90 * DAY + 1) as f64);
    assert_eq!((gate.leaf(SITE), issued(&second)), (own.clone(), 1));

    gate.kill();
    gate.clock().stop_at(&date(own.not_after));
    gate.start_again();
    await_source(&gate, SITE, "own");
    let seen = under_load(&gate, &own, || gate.clock().flow_from(&date(own.not_after)));
    let standby = gate.leaf(SITE);
    assert!(seen.iter().all(|(_, _, leaf)| *leaf == own || *leaf == standby), "{seen:?}");
    assert_eq!(standby.not_before, end - 7 * DAY, "the one that was kept");
    await_source(&gate, SITE, "standby");
    gate.await_metric(FALLBACK, &DOMAIN, 1.0);
    gate.await_log(&["certificate_expired", SITE]);
    gate.await_log(&["fallback_installed", SITE, "standby"]);

    first.heal();
    stop_at(&gate, &both, end + 2 * HOUR);
    let renewed = await_other(&gate, &standby);
    assert!((end + 2 * HOUR..end + 3 * HOUR).contains(&renewed.not_before), "{renewed:?}");
    await_source(&gate, SITE, "own");
    gate.await_log(&["fallback_ended", SITE]);
    assert_eq!((issued(&first), issued(&second)), (2, 1));
}

#[test]
fn with_everything_down_the_internal_authority_takes_over_in_that_second() {
    let pki = Pki::new();
    let (first, second) = (FaultCa::start(&pki), FaultCa::start(&pki));
    let both = [&first, &second];
    both.iter().for_each(|authority| authority.set_now(utc(NOON)));
    let setup = managed(&pki, &both).domain(SITE, Scripted::ok("")).uncertified().clock_stopped(NOON).disk();
    let setup = setup.expect_error("journal").expect_error("lockgate.db").expect_error("certificates.db");
    let gate = setup.start();
    let own = await_own(&gate);
    both.iter().for_each(|authority| authority.set(down()));
    let before = both.map(|authority| authority.requests().len());
    stop_at(&gate, &both, own.not_after - 3 * DAY);
    eventually("attempts with both", || {
        let asked = both.map(|authority| authority.requests().len());
        asked.iter().zip(before).all(|(asked, before)| *asked > before).then_some(())
    });
    gate.disk().read_only();
    stop_at(&gate, &both, own.not_after);
    let seen = under_load(&gate, &own, || gate.clock().flow_from(&date(own.not_after)));
    assert!(seen.iter().all(|(_, _, leaf)| leaf.names == [SITE]), "{seen:?}");
    await_source(&gate, SITE, "internal");
    gate.await_log(&["fallback_installed", SITE, "internal"]);
    assert_eq!(guaranteed(&gate), 0);
    gate.disk().well();
}

/// Certificate files for nine days: a third of them is what a standby has.
fn manual(pki: &Pki, authority: &FaultCa, own: &Leaf) -> Setup {
    authority.set_now(utc(NOON));
    managed(pki, &[authority]).domain(SITE, Scripted::ok("")).certificate(own).clock_stopped(NOON)
}

#[test]
fn files_that_nobody_renews_get_company_and_a_new_file_wins_at_once() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let end = utc(NOON) + 9 * DAY;
    let own = pki.issue(&[SITE]).from(NOON).until(&date(end - 1)).leaf();
    let gate = manual(&pki, &authority, &own).start();
    stop_at(&gate, &[&authority], end - 3 * DAY - 1);
    let_it_look();
    assert_eq!(authority.orders(), []);
    assert_eq!(guaranteed(&gate), 3 * DAY + 1);
    stop_at(&gate, &[&authority], end - 3 * DAY);
    gate.await_metric(GUARANTEED, &DOMAIN, (90 * DAY + 1) as f64);
    assert_eq!(gate.leaf(SITE), own);
    stop_at(&gate, &[&authority], end - 1);
    assert_eq!(gate.leaf(SITE), own);
    stop_at(&gate, &[&authority], end);
    let standby = gate.leaf(SITE);
    assert_eq!(standby.not_before, end - 3 * DAY);
    gate.await_log(&["fallback_installed", SITE, "standby"]);
    assert_eq!(source(&gate, SITE), "standby");

    let fresh = pki.issue(&[SITE]).from(NOON).until(&date(end + 30 * DAY)).leaf();
    own.replace_with(&fresh);
    eventually("the new file serves", || (gate.leaf(SITE) == fresh).then_some(()));
    gate.await_log(&["fallback_ended", SITE]);
    assert_eq!(authority.orders().len(), 1);
}

/// Nobody shakes hands with a standby before it is needed: whether its key opens is tried all the same.
#[test]
fn a_standby_whose_key_was_changed_is_not_counted_on() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let end = utc(NOON) + 9 * DAY;
    let own = pki.issue(&[SITE]).from(NOON).until(&date(end - 1)).leaf();
    let mut gate = manual(&pki, &authority, &own).expect_error("does not open").start();
    stop_at(&gate, &[&authority], end - 3 * DAY);
    gate.await_metric(GUARANTEED, &DOMAIN, (90 * DAY + 1) as f64);
    gate.stop();
    authority.set(down());
    in_database(
        &gate,
        "UPDATE certificate SET sealed_key = CAST(substr(sealed_key, 1, 40)
         || CASE hex(substr(sealed_key, 41, 1)) WHEN '00' THEN x'01' ELSE x'00' END || substr(sealed_key, 42) AS BLOB)",
    );
    gate.start_again();
    gate.await_metric(GUARANTEED, &DOMAIN, (3 * DAY) as f64);
    gate.await_log(&["ERROR", SITE, "the key of a kept certificate does not open"]);
    authority.heal();
    assert_eq!(gate.leaf(SITE), own);
}

#[test]
fn files_that_are_renewed_in_time_need_none() {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let end = utc(NOON) + 9 * DAY;
    let own = pki.issue(&[SITE]).from(NOON).until(&date(end - 1)).leaf();
    let gate = manual(&pki, &authority, &own).start();
    let fresh = pki.issue(&[SITE]).from(NOON).until(&date(end + 30 * DAY)).leaf();
    own.replace_with(&fresh);
    eventually("the new file serves", || (gate.leaf(SITE) == fresh).then_some(()));
    for at in [end - 3 * DAY, end] {
        stop_at(&gate, &[&authority], at);
        let_it_look();
    }
    assert_eq!((gate.leaf(SITE) == fresh, authority.orders()), (true, Vec::new()));
}

/// What comes from the authority does not work, and is found out before the day on which it is needed.
#[rstest]
#[case::another_key(Fault::wrong_key())]
#[case::a_broken_chain(Fault::broken_chain())]
#[case::other_names(Fault::wrong_names(&["other.lockgate.test"]))]
#[case::expired(Fault::expired())]
fn one_that_does_not_work_is_none(#[case] fault: Fault) {
    let pki = Pki::new();
    let authority = FaultCa::start(&pki);
    let end = utc(NOON) + 9 * DAY;
    let own = pki.issue(&[SITE]).from(NOON).until(&date(end - 1)).leaf();
    authority.set(fault);
    let gate = manual(&pki, &authority, &own).start();
    stop_at(&gate, &[&authority], end - DAY);
    gate.await_log(&["issuance_failed", SITE]);
    assert_eq!(guaranteed(&gate), DAY);
    stop_at(&gate, &[&authority], end);
    let internal = gate.leaf(SITE);
    assert_eq!((source(&gate, SITE), guaranteed(&gate), &internal.names[..]), ("internal", 0, &[SITE.to_owned()][..]));
    authority.heal();
    stop_at(&gate, &[&authority], end + HOUR);
    gate.await_metric(GUARANTEED, &DOMAIN, (90 * DAY + 1) as f64);
    assert_eq!((source(&gate, SITE), gate.leaf(SITE).not_before), ("standby", end + HOUR));
}

/// How long real authorities may take on a machine that is busy.
const ISSUED_WITHIN: Duration = Duration::from_secs(40);

/// An hour from now: authorities that live by the machine's clock issue nothing that is not valid yet.
fn in_an_hour() -> String {
    date(jiff::Timestamp::now().as_second() + HOUR)
}

/// Whether curl, which lives by the machine's clock, gets an answer of a domain by that root alone.
#[track_caller]
fn is_trusted(gate: &Lockgate, name: &str, root_pem: &str) -> bool {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root.pem");
    fs::write(&root, root_pem).unwrap();
    Curl::new(&format!("https://{name}/"), gate.https(), &root).run().status == 200
}

#[test]
fn when_one_authority_ends_another_one_issues() {
    const OTHER: &str = "blog.lockgate.test";
    let (site, pki) = (Managed::new(), Pki::new());
    let (mut first, second) = (site.authority().start(), site.authority().start());
    let setup = site.setup(&pki, &[&first, &second]).domain(SITE, Scripted::ok("")).uncertified();
    let mut gate = setup.clock_stopped(&in_an_hour()).start();
    gate.await_own(SITE);
    assert!(is_trusted(&gate, SITE, &first.root_pem()));
    assert_eq!((first.orders(), second.orders()), (1, 0));
    first.stop();
    gate.reconfigure(|setup| setup.domain(OTHER, Scripted::ok("")).uncertified());
    let mut failures = 0;
    eventually_within(ISSUED_WITHIN, "a certificate from the second", || {
        let failed = gate.count_log(&["issuance_failed", OTHER]);
        if failed > failures {
            failures = failed;
            // Longer than any pause between two attempts.
            gate.clock().advance(2 * HOUR);
        }
        (gate.source(OTHER)? == "own").then_some(())
    });
    assert!(is_trusted(&gate, OTHER, &second.root_pem()));
    assert_eq!((gate.orders("ca-1", "issued"), second.orders()), (1.0, 1));
}

/// The same as above with authorities that are real: the first one is gone for the whole last month.
#[test]
fn the_standby_of_a_second_pebble_takes_over_from_a_first_one_that_is_gone() {
    let (site, pki) = (Managed::new(), Pki::new());
    let lifetimes = [90 * DAY, 400 * DAY].map(|secs| secs.unsigned_abs());
    let [mut first, second] = lifetimes.map(|secs| site.authority().validity_secs(secs).start());
    let of_second = second.table("second") + "standby_only = true\n";
    let setup = site.setup(&pki, &[&first]).table(&of_second).domain(SITE, Scripted::ok("")).uncertified();
    let gate = setup.clock_stopped(&in_an_hour()).start();
    gate.await_own(SITE);
    let (own, end) = (gate.leaf(SITE), gate.leaf(SITE).not_after + 1);
    assert!(is_trusted(&gate, SITE, &first.root_pem()));
    first.stop();
    for (failures, days) in [(1, 30), (2, 20), (3, 8)] {
        stop_at(&gate, &[], end - days * DAY);
        eventually_within(ISSUED_WITHIN, "another failure", || {
            (gate.count_log(&["issuance_failed", SITE]) >= failures).then_some(())
        });
    }
    assert_eq!((second.orders(), guaranteed(&gate)), (0, 8 * DAY));
    stop_at(&gate, &[], end - 7 * DAY);
    eventually_within(ISSUED_WITHIN, "a standby", || (guaranteed(&gate) > 300 * DAY).then_some(()));
    assert_eq!((gate.leaf(SITE) == own, second.certificates()), (true, 1));

    gate.clock().stop_at(&date(own.not_after));
    await_source(&gate, SITE, "own");
    let seen = under_load(&gate, &own, || gate.clock().flow_from(&date(own.not_after)));
    let standby = gate.leaf(SITE);
    assert!(seen.iter().all(|(_, _, leaf)| *leaf == own || *leaf == standby), "{seen:?}");
    assert!(is_trusted(&gate, SITE, &second.root_pem()));
    await_source(&gate, SITE, "standby");
    gate.await_log(&["certificate_expired", SITE]);
    assert_eq!(second.certificates(), 1);
}

/// Nobody renews files: they are told of at each threshold, once.
#[test]
fn somebody_is_reminded_of_files_that_end() {
    let pki = Pki::new();
    let end = utc(NOON) + 40 * DAY;
    let own = pki.issue(&[SITE]).from("2026-01-01 00:00:00").until(&date(end - 1)).leaf();
    let setup = Lockgate::under(&pki).domain(SITE, Scripted::ok("")).certificate(&own);
    let mut gate = setup.clock_stopped(NOON).start();
    let alerts =
        |gate: &Lockgate, kind| gate.metric("lockgate_alerts_total", &[DOMAIN[0], ("kind", kind)]).unwrap_or(0.0);
    for (told, days) in [(1.0, 30), (2.0, 14)] {
        stop_at(&gate, &[], end - days * DAY);
        gate.await_metric("lockgate_alerts_total", &[DOMAIN[0], ("kind", "certificate_expiring")], told);
    }
    let line = gate.await_log(&["certificate_expiring", SITE, " 14 days left"]);
    assert!(line.contains(own.cert.to_str().unwrap()), "{line}");
    // A start tells the last one again, and no other.
    gate.stop();
    gate.start_again();
    gate.await_metric("lockgate_alerts_total", &[DOMAIN[0], ("kind", "certificate_expiring")], 1.0);
    let_it_look();
    assert_eq!(alerts(&gate, "certificate_expiring"), 1.0);
    // A fresh file ends it.
    own.replace_with(&pki.issue(&[SITE]).from(NOON).until(&date(end + 300 * DAY)).leaf());
    eventually("the new file serves", || (gate.leaf(SITE).not_after > end).then_some(()));
    stop_at(&gate, &[], end);
    let_it_look();
    assert_eq!((alerts(&gate, "certificate_expiring"), alerts(&gate, "certificate_expired")), (1.0, 0.0));
}
