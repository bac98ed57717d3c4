//! Authorities as they are: with wishes of their own, slow, broken, hostile, gone.

use std::fs;

use rstest::rstest;
use tempfile::TempDir;

use crate::cert_commands::command;
use crate::estate::in_database;
use crate::harness::{
    Authority, Curl, Fault, FaultCa, Lockgate, Managed, Pki, Resource, RetryAfter, Setup, eventually, utc,
};

const SITE: &str = "shop.lockgate.test";
const NOWHERE: &str = "http://127.0.0.1:1";
const NOON: &str = "2027-06-01 12:00:00";
/// Longer than the first back-off with its jitter.
const BACK_OFF_SECS: i64 = 700;

/// An authority that looks at nothing, by its own clock at [`NOON`].
fn fault_ca(pki: &Pki) -> FaultCa {
    let ca = FaultCa::start(pki);
    ca.set_now(utc(NOON));
    ca
}

/// A proxy at [`NOON`] with one domain and these authorities.
fn setup(pki: &Pki, authorities: &[&dyn Authority]) -> Setup {
    Lockgate::under(pki).acme(authorities).clock_stopped(NOON).domain(SITE, NOWHERE).uncertified()
}

/// Both clocks, so many seconds on.
fn later(gate: &Lockgate, authorities: &[&FaultCa], secs: i64) {
    gate.clock().advance(secs);
    for ca in authorities {
        ca.set_now(gate.clock().now_ms() / 1000);
    }
}

/// What curl says of a handshake for a domain by that root alone.
fn is_trusted(gate: &Lockgate, name: &str, root_pem: &str) -> bool {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root.pem");
    fs::write(&root, root_pem).unwrap();
    // The origin is down; whoever says so was trusted.
    Curl::new(&format!("https://{name}/"), gate.https(), &root).run().status == 502
}

#[rstest]
#[case::p384("p384", false)]
#[case::rsa("rsa2048", true)]
fn the_key_is_as_configured(#[case] key: &str, #[case] is_rsa: bool) {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    let gate = setup(&pki, &[&ca]).with("acme", &format!("{{ key = '{key}' }}")).start();
    gate.await_own(SITE);
    let leaf = gate.leaf(SITE);
    // id-ecPublicKey on secp384r1, in DER.
    let p384 = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    assert_eq!((leaf.rsa, leaf.der.windows(p384.len()).any(|part| part == p384)), (is_rsa, !is_rsa));
}

#[test]
fn the_chain_is_the_one_that_is_preferred() {
    let (site, pki) = (Managed::new(), Pki::new());
    let authority = site.authority().alternate_roots(2).start();
    let root = authority.root_pem_of(2);
    let (_, parsed) = x509_parser::pem::parse_x509_pem(root.as_bytes()).unwrap();
    let name = parsed.parse_x509().unwrap().subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let setup = site.setup(&pki, &[&authority]).set("acme.preferred_chain", &format!("'{name}'"));
    let gate = setup.domain(SITE, NOWHERE).uncertified().start();
    gate.await_own(SITE);
    assert!(is_trusted(&gate, SITE, &root));
    assert!(!is_trusted(&gate, SITE, &authority.root_pem_of(0)));
}

#[test]
fn an_authority_is_known_by_its_root() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    let table = format!("[[acme.ca]]\nname = 'ours'\ndirectory = '{}'", ca.directory());
    let unknown = Lockgate::under(&pki).set("acme.agree_to_terms", "true").table(&table).clock_stopped(NOON);
    // Nobody's name on the Internet: only a private authority issues for it, and that has a root of its own.
    let check = unknown.clone().domain(SITE, NOWHERE).uncertified().check();
    assert!(check.text().contains("ca_file"), "{}", check.text());
    let gate = unknown.domain("shop.lockgate.dev", NOWHERE).uncertified().start();
    let failed = gate.await_failures("shop.lockgate.dev", 1);
    for words in ["ours: ", "certificate", "UnknownIssuer", "`ca_file`"] {
        assert!(failed.contains(words), "{words:?} is not in {failed}");
    }
}

#[test]
fn an_external_account_and_a_contact_are_sent() {
    let (pki, dir) = (Pki::new(), TempDir::new().unwrap());
    let ca = fault_ca(&pki);
    let key = dir.path().join("eab.key");
    fs::write(&key, "bG9ja2dhdGUtdGVzdC1rZXktMzItYnl0ZXMtbG9uZyE\n").unwrap();
    let table = ca.table("ours") + &format!("eab = {{ kid = 'kid-7', hmac_key_file = '{}' }}", key.display());
    let setup = setup(&pki, &[]).set("acme.email", "'ops@lockgate.test'").table(&table);
    let gate = setup.start();
    gate.await_own(SITE);
    let made = ca.requests_for(Resource::NewAccount);
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].external_account().as_deref(), Some("kid-7"));
    assert_eq!(made[0].payload["contact"][0], "mailto:ops@lockgate.test");
    assert_eq!(made[0].payload["termsOfServiceAgreed"], true);
}

#[test]
fn an_authority_is_told_once_of_another_contact_and_that_there_is_none_any_more() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    let mut gate = setup(&pki, &[&ca]).set("acme.email", "'ops@lockgate.test'").start();
    gate.await_own(SITE);
    let told = || -> Vec<String> {
        ca.requests_for(Resource::Account).iter().map(|it| it.payload["contact"].to_string()).collect()
    };
    let renewed = |gate: &Lockgate| assert_eq!(command(gate, &["cert", "renew", SITE]).code, 0);
    renewed(&gate);
    assert_eq!(told(), [""; 0], "it knows from the beginning");
    gate.reconfigure(|setup| setup.set("acme.email", "'desk@lockgate.test'"));
    renewed(&gate);
    let desk = r#"["mailto:desk@lockgate.test"]"#;
    assert_eq!(told(), [desk]);
    gate.kill();
    gate.start_again();
    renewed(&gate);
    assert_eq!(told(), [desk], "it is remembered what it was told");
    gate.reconfigure(|setup| setup.unset("acme.email"));
    renewed(&gate);
    assert_eq!((told(), ca.accounts()), (vec![desk.to_owned(), "[]".to_owned()], 1));
}

#[test]
fn an_external_account_is_bound_and_its_want_is_explained() {
    let (site, pki, dir) = (Managed::new(), Pki::new(), TempDir::new().unwrap());
    let hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let authority = site.authority().external_account("kid-1", hmac).start();
    let key = dir.path().join("eab.key");
    fs::write(&key, hmac).unwrap();
    let with = |table: &str| {
        let setup = site.setup(&pki, &[]).domain(SITE, NOWHERE).uncertified();
        setup.table(&(authority.table("ours") + table))
    };
    let gate = with("").start();
    let failed = gate.await_failures(SITE, 1);
    assert!(failed.contains("hmac_key_file"), "{failed}");
    drop(gate);
    let gate = with(&format!("eab = {{ kid = 'kid-1', hmac_key_file = '{}' }}", key.display())).start();
    gate.await_own(SITE);
}

#[test]
fn a_profile_is_asked_for_and_one_that_is_not_offered_is_named() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.profiles(&["classic", "shortlived"]);
    let setup = setup(&pki, &[&ca]).with("acme", "{ profile = 'shortlived' }");
    let gate = setup.domain("b.lockgate.test", NOWHERE).uncertified().with("acme", "{ profile = 'fast' }").start();
    gate.await_own(SITE);
    let failed = gate.await_failures("b.lockgate.test", 1);
    assert!(failed.contains("no profile `fast`; it has classic, shortlived"), "{failed}");
    let orders: Vec<_> = ca.orders().into_iter().map(|order| order.profile).collect();
    assert_eq!(orders, [Some("shortlived".to_owned())]);
}

#[test]
fn half_the_nonces_may_be_refused() {
    let (site, pki) = (Managed::new(), Pki::new());
    let authority = site.authority().reject_nonces_percent(50).start();
    let gate = site.setup(&pki, &[&authority]).domain(SITE, NOWHERE).uncertified().start();
    gate.await_own(SITE);
    assert_eq!(gate.orders("ca-0", "failed"), 0.0);
}

#[rstest]
#[case::caa("caa", "CAA record for shop.lockgate.test prevents issuance", &["CAA records of shop.lockgate.test"], 1)]
#[case::dns("dns", "SERVFAIL looking up A", &["make the name servers of shop.lockgate.test answer"], 2)]
#[case::connection("connection", "203.0.113.7: Timeout", &["let port 80 through every firewall"], 2)]
#[case::unauthorized("unauthorized", "Invalid response from 203.0.113.7", &["was answered by somebody else"], 2)]
fn a_refusal_is_told_in_the_authoritys_words(
    #[case] kind: &str,
    #[case] detail: &str,
    #[case] advice: &[&str],
    #[case] ways: u32,
) {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(Fault::invalid_authorization(kind, detail));
    let gate = setup(&pki, &[&ca]).start();
    let failed = gate.await_failures(SITE, 1);
    let words = [detail, &format!("urn:ietf:params:acme:error:{kind}"), "Next attempt at 2027-06-01T12:10"];
    for words in words.iter().chain(advice) {
        assert!(failed.contains(words), "{words:?} is not in {failed}");
    }
    assert_eq!(gate.metric("lockgate_alerts_total", &[("domain", SITE), ("kind", "issuance_failed")]), Some(1.0));
    let reason = [("ca", "ca-0"), ("reason", kind)];
    assert_eq!(gate.metric("lockgate_acme_failures_total", &reason), Some(f64::from(ways)));
    // And it is not asked again before its time, nor without end after.
    ca.heal();
    gate.clock().advance(590);
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(ca.orders().len(), ways as usize);
    later(&gate, &[&ca], BACK_OFF_SECS);
    gate.await_own(SITE);
    assert_eq!(ca.orders().len(), ways as usize + 1);
}

#[rstest]
#[case::wrong_key(Fault::wrong_key(), "for another key")]
#[case::wrong_names(Fault::wrong_names(&["other.lockgate.test"]), SITE)]
#[case::no_chain(Fault::broken_chain(), "")]
#[case::expired(Fault::expired(), "is valid from 2027-03-03T11:59:59Z to 2027-06-01T11:59:59Z")]
fn a_bad_certificate_is_never_kept(#[case] fault: Fault, #[case] why: &str) {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(fault);
    let mut gate = setup(&pki, &[&ca]).start();
    let failed = gate.await_failures(SITE, 1);
    assert!(failed.contains(why), "{failed}");
    assert_ne!(gate.source(SITE).as_deref(), Some("own"));
    ca.heal();
    // Neither is it taken from the order that brought it.
    gate.kill();
    gate.start_again();
    later(&gate, &[&ca], BACK_OFF_SECS);
    gate.await_own(SITE);
    assert_eq!((ca.orders().len(), ca.accounts()), (2, 1));
}

#[rstest]
#[case::unavailable(Fault::unavailable(RetryAfter::Nothing), "down for maintenance")]
#[case::garbage(Fault::garbage(), "not understood")]
#[case::endless(Fault::endless_body(), "larger than 1048576 bytes")]
#[case::at_the_order(Fault::garbage().at(Resource::NewOrder), "not understood")]
#[case::endless_order(Fault::endless_body().at(Resource::NewOrder), "larger than")]
#[case::endless_chain(Fault::endless_body().at(Resource::Certificate), "larger than")]
fn an_authority_that_errs_is_asked_again_later(#[case] fault: Fault, #[case] why: &str) {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(fault);
    let gate = setup(&pki, &[&ca]).start();
    let failed = gate.await_failures(SITE, 1);
    assert!(failed.contains(why), "{failed}");
    let asked = ca.requests().len();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(ca.requests().len(), asked);
    ca.heal();
    later(&gate, &[&ca], BACK_OFF_SECS);
    gate.await_own(SITE);
}

#[rstest]
#[case::secs(RetryAfter::Secs(7200))]
#[case::date(RetryAfter::DateIn(7200))]
fn it_is_not_asked_before_it_said(#[case] retry_after: RetryAfter) {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(Fault::rate_limited(retry_after));
    let mut gate = setup(&pki, &[&ca]).start();
    let failed = gate.await_failures(SITE, 1);
    assert!(failed.contains("too many certificates already issued"), "{failed}");
    ca.heal();
    // Also after a restart.
    gate.kill();
    gate.start_again();
    later(&gate, &[&ca], 7100);
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(ca.orders().len(), 0);
    later(&gate, &[&ca], 200);
    gate.await_own(SITE);
    assert_eq!(ca.requests_for(Resource::NewOrder).len(), 2);
}

#[test]
fn another_authority_is_asked_instead_also_after_a_restart() {
    let pki = Pki::new();
    let (first, second) = (fault_ca(&pki), fault_ca(&pki));
    first.set(Fault::rate_limited(RetryAfter::Secs(7200)));
    second.set(Fault::unavailable(RetryAfter::Nothing));
    let mut gate = setup(&pki, &[&first, &second]).start();
    gate.await_failures(SITE, 1);
    first.heal();
    second.heal();
    gate.kill();
    gate.start_again();
    later(&gate, &[&first, &second], BACK_OFF_SECS);
    gate.await_own(SITE);
    assert_eq!((first.requests_for(Resource::NewOrder).len(), second.orders().len()), (1, 1));
}

#[test]
fn an_authority_that_limits_several_is_left_alone() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(Fault::rate_limited(RetryAfter::Secs(3600)));
    let mut setup = setup(&pki, &[&ca]).set("acme.max_orders", "1");
    for number in 0..20 {
        setup = setup.domain(&format!("d{number}.test"), NOWHERE).uncertified();
    }
    let gate = setup.start();
    gate.await_log(&["asks for less haste", "ca-0"]);
    std::thread::sleep(std::time::Duration::from_millis(1000));
    assert_eq!(ca.requests_for(Resource::NewOrder).len(), 3);
    ca.heal();
    later(&gate, &[&ca], 2 * 3600);
    gate.await_own("d19.test");
}

#[test]
fn one_name_that_is_limited_does_not_hold_up_the_others() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(Fault::rate_limited(RetryAfter::Nothing));
    let mut gate = setup(&pki, &[&ca]).start();
    for failures in 1..=4 {
        gate.await_failures(SITE, failures);
        later(&gate, &[&ca], BACK_OFF_SECS);
    }
    gate.await_failures(SITE, 5);
    assert_eq!(gate.count_log(&["asks for less haste"]), 0);
    ca.heal();
    gate.reconfigure(|setup| setup.domain("b.lockgate.test", NOWHERE).uncertified());
    gate.await_own("b.lockgate.test");
}

#[test]
fn another_authority_takes_over() {
    let pki = Pki::new();
    let (first, second) = (fault_ca(&pki), fault_ca(&pki));
    first.set(Fault::unavailable(RetryAfter::Nothing));
    let gate = setup(&pki, &[&first, &second]).start();
    gate.await_own(SITE);
    assert_eq!((second.orders().len(), gate.orders("ca-0", "failed"), gate.orders("ca-1", "issued")), (1, 1.0, 1.0));
    assert!(gate.leaf(SITE).names.contains(&SITE.to_owned()));
    gate.await_log(&["down for maintenance", "ca-1 is asked", SITE]);
    assert_eq!(gate.count_log(&["issuance_failed"]), 0);
}

#[test]
fn where_all_authorities_fail_each_is_quoted_and_the_back_off_begins() {
    let pki = Pki::new();
    let (first, second) = (fault_ca(&pki), fault_ca(&pki));
    first.set(Fault::unavailable(RetryAfter::Nothing));
    second.set(Fault::problem(403, "rejectedIdentifier", "not for you").at(Resource::NewOrder));
    let gate = setup(&pki, &[&first, &second]).start();
    let failed = gate.await_failures(SITE, 1);
    for words in ["ca-0: ", "down for maintenance", "ca-1: ", "not for you", "Next attempt at 2027-06-01T12:10"] {
        assert!(failed.contains(words), "{words:?} is not in {failed}");
    }
    let asked = first.requests().len();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!((first.requests().len(), second.requests_for(Resource::NewOrder).len()), (asked, 1));
    assert_eq!((gate.orders("ca-0", "failed"), gate.orders("ca-1", "failed")), (1.0, 1.0));
}

/// What one authority cannot validate is no reason to use up what all of them allow in failed validations.
#[test]
fn what_cannot_be_proved_to_one_authority_is_not_shown_to_the_next() {
    let pki = Pki::new();
    let (first, second) = (fault_ca(&pki), fault_ca(&pki));
    first.set(Fault::invalid_authorization("connection", "203.0.113.7: Timeout"));
    let gate = setup(&pki, &[&first, &second]).start();
    gate.await_failures(SITE, 1);
    // Both ways, each once.
    assert_eq!((first.orders().len(), second.requests().len()), (2, 0));
}

/// Which of its certificates an order replaces (RFC 9773, section 5) is for the one to know that issued it.
#[test]
fn what_another_authority_issued_is_not_named_as_replaced() {
    let pki = Pki::new();
    let (first, second) = (fault_ca(&pki), fault_ca(&pki));
    for ca in [&first, &second] {
        ca.ari(utc(NOON) + 60 * 86_400, utc(NOON) + 61 * 86_400, 3600);
    }
    let mut gate = setup(&pki, &[&first, &second]).with("acme", "{ ca = ['ca-0'] }").start();
    gate.await_own(SITE);
    gate.reconfigure(|setup| setup.with("acme", "{ ca = ['ca-1'] }"));
    for _ in 0..2 {
        let renewed = gate.command(&["cert", "renew", SITE]);
        assert_eq!(renewed.code, 0, "{}", renewed.text());
    }
    let replaces: Vec<_> = second.orders().into_iter().map(|order| order.replaces.is_some()).collect();
    assert_eq!((first.orders().len(), replaces), (1, vec![false, true]));
}

#[test]
fn an_account_that_is_gone_is_made_anew() {
    let (site, pki) = (Managed::new(), Pki::new());
    let mut authority = site.authority().start();
    let mut gate = site.setup(&pki, &[&authority]).domain(SITE, NOWHERE).uncertified().start();
    gate.await_own(SITE);
    authority.stop();
    authority.start_again();
    gate.reconfigure(|setup| setup.domain("b.lockgate.test", NOWHERE).uncertified());
    gate.await_own("b.lockgate.test");
    assert_eq!((authority.accounts(), authority.orders(), gate.orders("ca-0", "failed")), (1, 1, 0.0));
}

/// Who may say that a certificate is replaced is the account that it was issued to, which is another one by then.
#[test]
fn a_certificate_is_renewed_with_another_account() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.ari(utc(NOON) + 30 * 86_400, utc(NOON) + 31 * 86_400, 3600);
    let gate = setup(&pki, &[&ca]).start();
    gate.await_own(SITE);
    ca.forget_accounts();
    let renewed = gate.command(&["cert", "renew", SITE]);
    assert_eq!(renewed.code, 0, "{}", renewed.text());
    // Of the account that is gone, of another one, and without a word about what is replaced.
    let asked: Vec<_> = ca.requests_for(Resource::NewOrder).into_iter().skip(1).collect();
    assert_eq!(asked.iter().map(|it| it.payload["replaces"].is_string()).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!((ca.orders().len(), ca.accounts(), gate.orders("ca-0", "failed")), (2, 2, 0.0));
    // And with that one as ever.
    let renewed = gate.command(&["cert", "renew", SITE]);
    assert_eq!(renewed.code, 0, "{}", renewed.text());
    assert!(ca.orders()[2].replaces.is_some());
}

#[test]
fn an_account_whose_key_is_lost_is_made_anew() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.ari(utc(NOON) + 30 * 86_400, utc(NOON) + 31 * 86_400, 3600);
    let mut gate = setup(&pki, &[&ca]).expect_error("the account's key is lost").start();
    gate.await_own(SITE);
    gate.stop();
    in_database(&gate, "UPDATE account SET sealed_key = zeroblob(64)");
    gate.start_again();
    let renewed = gate.command(&["cert", "renew", SITE]);
    assert_eq!(renewed.code, 0, "{}", renewed.text());
    gate.await_log(&["ERROR", "the account's key is lost, and another account is made", "ca-0"]);
    assert_eq!((ca.orders().len(), ca.accounts()), (2, 2));
}

/// The key of an external account is often good for one account only.
#[test]
fn an_account_is_made_once_although_the_process_ended_before_the_answer_came() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set(Fault::lost_answer().at(Resource::NewAccount));
    let mut gate = setup(&pki, &[&ca]).start();
    eventually("an account is made", || (ca.accounts() == 1).then_some(()));
    gate.kill();
    ca.heal();
    gate.start_again();
    gate.await_own(SITE);
    assert_eq!((ca.requests_for(Resource::NewAccount).len(), ca.accounts(), ca.orders().len()), (2, 1, 1));
}

#[test]
fn a_certificate_that_begins_later_is_kept_until_then() {
    let pki = Pki::new();
    let ca = fault_ca(&pki);
    ca.set_now(utc(NOON) + 3600);
    let gate = setup(&pki, &[&ca]).start();
    eventually("it is issued", || (gate.orders("ca-0", "issued") > 0.0).then_some(()));
    assert_ne!(gate.leaf(SITE).not_before, utc(NOON) + 3600);
    later(&gate, &[&ca], 3600);
    gate.await_own(SITE);
    assert_eq!((gate.leaf(SITE).not_before, ca.orders().len()), (utc(NOON) + 3600, 1));
}

#[test]
fn a_silent_authority_holds_up_nobody_else() {
    let pki = Pki::new();
    let (silent, other) = (fault_ca(&pki), fault_ca(&pki));
    silent.set(Fault::silence());
    let setup = setup(&pki, &[&silent, &other]).domain("b.lockgate.test", NOWHERE).uncertified();
    let gate = setup.with("acme", "{ ca = ['ca-1'] }").start();
    gate.await_own("b.lockgate.test");
    assert_ne!(gate.source(SITE).as_deref(), Some("own"));
}
