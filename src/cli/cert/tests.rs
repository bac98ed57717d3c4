//! Entries of every kind, and what is said of them.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::deployed::{Deployed, note_internal};
use super::entry::{Entry, For, State};
use super::gather::{Gathered, Wanted, mark_newest, to_be};
use super::json::certificate;
use super::list::in_words;
use crate::certificate::fixture::{DAY, NOW, Stored, pair};
use crate::config;
use crate::name::{DomainName, TenantId};
use crate::store::inventory::{Attempts, CertificateId, NewCertificate, Order, Provenance, Role, StoredCertificate};

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// One of the inventory for `names`, ordered for the first of them by the operator, valid for so many days before and
/// after [`NOW`].
fn stored(id: i64, names: &[&str], days: (i64, i64)) -> StoredCertificate {
    let Stored { facts, chain, key } = pair(names).valid(days.0 * DAY, days.1 * DAY).pem().stored();
    let certificate = NewCertificate {
        subject: name(names[0]),
        tenant: None,
        role: Role::Own,
        provenance: Provenance::Acme,
        ca: "https://ca.test/dir".into(),
        chain,
        facts,
        sealed_key: key.into(),
        at: NOW,
    };
    StoredCertificate { id: CertificateId(id), certificate, revoked_at: None, ari: None }
}

fn entry(stored: StoredCertificate) -> Entry {
    Entry::of_stored(stored, NOW)
}

/// What this configuration wants.
fn wanted(domains: &str) -> Wanted {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lockgate.toml");
    let authority = "[acme]\nagree_to_terms = true\n[[acme.ca]]\ndirectory = 'https://ca.test/dir'\n";
    std::fs::write(&file, format!("{authority}{domains}")).unwrap();
    Wanted::of(&config::load(&file).unwrap().config)
}

fn domain(name: &str, lines: &str) -> String {
    format!("[[domain]]\nname = '{name}'\norigin = 'http://127.0.0.1:1'\n{lines}\n")
}

fn gathered(mut entries: Vec<Entry>, wanted: Wanted) -> Gathered {
    mark_newest(&mut entries);
    note_internal(&mut entries, &wanted);
    let (data_dir, zone) = ("/nowhere".into(), TimeZone::UTC);
    Gathered { data_dir, zone, now: NOW, wanted: Some(wanted), entries, notes: Vec::new() }
}

/// Of each entry some of what scripts see.
fn seen(gathered: &Gathered, keys: &[&str]) -> Vec<Value> {
    let all = gathered.entries.iter().map(|entry| json!(certificate(entry, gathered, true)));
    all.map(|it| keys.iter().map(|key| it[key].clone()).collect()).collect()
}

#[test]
fn every_state_is_told() {
    let of = |days, revoked| StoredCertificate { revoked_at: revoked, ..stored(1, &["a.example.com"], days) };
    for (stored, state, days_left) in [
        (of((-10, 80), None), "issued", 80),
        (of((-70, 20), None), "expiring", 20),
        (of((-90, 0), None), "expiring", 0),
        (of((-91, -1), None), "expired", -1),
        (of((-10, 80), Some(NOW)), "revoked", 80),
        (of((-91, -1), Some(NOW)), "revoked", -1),
    ] {
        let gathered = gathered(vec![entry(stored)], wanted(&domain("a.example.com", "")));
        let first = &seen(&gathered, &["state", "days_left", "source", "type", "on_demand"])[0];
        assert_eq!(*first, json!([state, days_left, "acme", "internal", false]));
        let states = BTreeMap::from([(gathered.entries[0].state, 1)]);
        let words = in_words(&[&gathered.entries[0]], &states, &gathered);
        assert!(words.ends_with(&format!("{state} 1\n")), "{words}");
    }
}

#[test]
fn what_is_under_way_validates_and_what_waits_for_another_try_has_failed() {
    let wanted = wanted(&["a", "b", "c"].map(|label| domain(&format!("{label}.example.com"), "")).concat());
    let order = |subject: &str| Order {
        subject: name(subject),
        role: Role::Own,
        ca: "https://ca.test/dir".to_owned(),
        url: "https://ca.test/order/1".to_owned(),
        names: vec![name(subject)],
        sealed_key: None,
        placed_at: NOW,
    };
    let attempts = |subject: &str, next_at| Attempts {
        subject: name(subject),
        role: Role::Own,
        failures: 2,
        first_at: NOW.plus_secs(-DAY),
        last_at: NOW.plus_secs(-60),
        next_at,
        ca: "https://ca.test/dir".to_owned(),
        problem: "no such host".to_owned(),
        advice: "add it".to_owned(),
        held_off: Vec::new(),
    };
    // The order of `b.` is gone on with when its next attempt is due.
    let orders = vec![order("a.example.com"), order("b.example.com")];
    let failed = vec![attempts("a.example.com", NOW.plus_secs(-1)), attempts("b.example.com", NOW.plus_secs(60))];
    let entries = to_be(&[], Some(&wanted), orders, failed, NOW);
    let gathered = gathered(entries, wanted);
    let row = |name: &str, state: &str, failures: Value, problem: Value| json!([name, state, failures, problem, true]);
    assert_eq!(
        seen(&gathered, &["name", "state", "failures", "problem", "internal_serves"]),
        [
            row("a.example.com", "validating", json!(2), json!("no such host")),
            row("b.example.com", "failed", json!(2), json!("no such host")),
            row("c.example.com", "waiting", Value::Null, Value::Null),
        ]
    );
}

#[test]
fn a_domain_that_nobody_else_serves_is_shown_as_internal() {
    let domains = [("own", ""), ("none", "acme = false"), ("expired", ""), ("wild", "acme = false")];
    let wanted = wanted(&domains.map(|(label, lines)| domain(&format!("{label}.example.com"), lines)).concat());
    let expired = entry(stored(2, &["expired.example.com"], (-90, -1)));
    let entries = vec![entry(stored(1, &["own.example.com", "wild.example.com"], (-1, 80))), expired];
    let gathered = gathered(entries, wanted);
    let keys = ["name", "source", "state", "role", "type", "internal_serves", "serves"];
    assert_eq!(
        seen(&gathered, &keys)[1..],
        [
            json!(["expired.example.com", "acme", "expired", "own", "internal", true, []]),
            json!(["none.example.com", "internal", "issued", "fallback", "internal", true, ["none.example.com"]]),
        ]
    );
    assert_eq!(seen(&gathered, &["internal_serves"])[0], json!([false]));
    let states = BTreeMap::from([(State::Issued, 1)]);
    let words = |at: usize| in_words(&[&gathered.entries[at]], &states, &gathered);
    assert!(words(1).contains("acme (internal serves)") && words(2).contains(" internal "), "{}{}", words(1), words(2));
}

#[test]
fn a_name_on_demand_is_of_acme_and_says_so() {
    let mut of_demand = stored(1, &["a.customers.test"], (-1, 80));
    of_demand.certificate.provenance = Provenance::OnDemand;
    let gathered = gathered(vec![entry(of_demand)], wanted(""));
    assert_eq!(seen(&gathered, &["source", "on_demand"]), [json!(["acme", true])]);
}

/// What was ordered for a name goes with it to another tenant; what others issue covers only the same tenant's.
#[test]
fn a_certificate_that_was_ordered_goes_with_its_name() {
    let wanted = wanted(&(domain("a.example.com", "tenant = 'new'") + &domain("b.example.com", "tenant = 'other'")));
    let mut of_old = stored(1, &["a.example.com", "b.example.com"], (-1, 80));
    of_old.certificate.tenant = TenantId::new("old");
    let mut gathered = gathered(vec![entry(of_old.clone())], wanted);
    gathered.deploy(&[0]);
    assert_eq!(gathered.entries[0].serves, [name("a.example.com")]);
    // Its renewal is the new tenant's, and takes its place.
    let mut renewed = stored(2, &["a.example.com"], (0, 90));
    renewed.certificate.tenant = TenantId::new("new");
    let mut both = vec![entry(of_old), entry(renewed)];
    mark_newest(&mut both);
    assert_eq!(both.iter().map(|entry| entry.is_newest).collect::<Vec<_>>(), [false, true]);
}

/// The index finds for each domain what a look at every certificate would.
#[test]
fn what_serves_is_found_by_name_and_by_wildcard() {
    let names = ["www.example.com", "a.example.com", "b.example.com", "*.example.com", "x.a.example.com", "192.0.2.1"];
    let wanted = wanted(&names.map(|name| domain(name, "acme = false")).concat());
    let mut standby = stored(5, &["b.example.com"], (-1, 80));
    standby.certificate.role = Role::Standby;
    let mut entries = vec![
        entry(stored(1, &["*.example.com", "example.com"], (-1, 80))),
        entry(stored(2, &["www.example.com"], (-1, 80))),
        entry(stored(3, &["a.example.com"], (-90, -1))),
        entry(stored(4, &["c.example.com", "x.a.example.com"], (-1, 80))),
        entry(standby),
    ];
    mark_newest(&mut entries);
    let ranks = |entries: &[Entry]| {
        let deployed = Deployed::of(entries, &wanted);
        wanted.domains.iter().map(|spec| deployed.best(spec)).collect::<Vec<_>>()
    };
    assert_eq!(ranks(&entries), [Some(0), Some(1), Some(1), Some(0), Some(1), None]);
    let fallback = Entry { role: For::Fallback, ..entry(stored(6, &["other.test"], (-1, 80))) };
    entries.push(fallback);
    assert_eq!(ranks(&entries)[5], Some(3));
    let mut gathered = gathered(entries, wanted);
    gathered.deploy(&[0]);
    let wild = &gathered.entries[0];
    let texts = |names: &[DomainName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&wild.serves), ["a.example.com", "b.example.com", "*.example.com"]);
    assert_eq!(texts(&wild.stands_by_for), ["www.example.com"]);
}
