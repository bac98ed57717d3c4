//! The CA that errs, by the client that does not.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{ChallengeType, Error};
use rstest::rstest;
use serde_json::Value;

use super::client::{Client, Issued, Wish, problem_of};
use super::{SITE, now, presented, verified, wish};
use crate::harness::{Curl, Fault, FaultCa, Pki, Resource, RetryAfter, utc};

const NOON: &str = "2026-06-01 12:00:00";

fn fault_ca() -> (FaultCa, Client) {
    let ca = FaultCa::start(&Pki::new());
    let client = Client::register(ca.directory(), &ca.ca_file(), None).unwrap();
    (ca, client)
}

/// curl at the CA's API.
fn curl(ca: &FaultCa, url: &str) -> Curl {
    let to = ca.directory().split('/').nth(2).unwrap().parse().unwrap();
    Curl::new(url, to, &ca.ca_file())
}

/// curl's exit code, the status and the head of the directory, within so many seconds.
fn curl_directory(ca: &FaultCa, max_time_secs: &str) -> (i32, u16, String) {
    let answer = curl(ca, &ca.directory()).arg("--max-time").arg(max_time_secs).run();
    (answer.code, answer.status, answer.head)
}

#[test]
fn the_fault_ca_issues_by_its_own_clock_and_remembers() {
    let (ca, client) = fault_ca();
    ca.set_now(utc(NOON));
    ca.set_validity_secs(3600);
    let names = [SITE, "*.example.test"];
    let issued = client.issue(wish(&names), ChallengeType::Dns01, async |_, _, _| {}).unwrap();
    let leaf = presented(&issued);
    assert_eq!(
        (leaf.names.as_slice(), leaf.not_before, leaf.not_after),
        (&names.map(String::from)[..], utc(NOON), utc(NOON) + 3600)
    );
    assert!(verified(&issued, &ca.root_pem(0), utc(NOON) + 1800));
    assert!(!verified(&issued, &ca.root_pem(0), utc(NOON) + 3700));
    let orders = ca.orders();
    assert_eq!(
        (orders.len(), orders[0].names.as_slice(), orders[0].is_issued),
        (1, &names.map(String::from)[..], true)
    );
    assert_eq!(ca.accounts(), 1);
    assert_eq!(ca.requests_for(Resource::Challenge).len(), 2);
    assert!(ca.requests_for(Resource::Certificate).iter().all(|seen| seen.is_post_as_get()));
    let finalized = ca.requests_for(Resource::Finalize);
    assert!(
        finalized[0].payload["csr"].is_string()
            && finalized[0].account() == ca.requests_for(Resource::NewOrder)[0].account()
    );
    assert_eq!(ca.requests()[0].path, "/directory");
}

#[test]
fn the_fault_ca_knows_renewal_windows_and_profiles() {
    let (ca, client) = fault_ca();
    let first = client.get(wish(&[SITE])).unwrap();
    assert!(matches!(client.renewal_info(&first), Err(Error::Unsupported(_))));
    ca.ari(utc(NOON), utc(NOON) + 60, 21_600);
    ca.profiles(&["classic", "shortlived"]);
    // What a CA offers is read once, with its directory.
    let client = Client::register(ca.directory(), &ca.ca_file(), Some(("kid-7", b"any key"))).unwrap();
    let (info, _) = client.renewal_info(&first).unwrap();
    let window = [info.suggested_window.start, info.suggested_window.end].map(|at| at.unix_timestamp());
    assert_eq!(window, [utc(NOON), utc(NOON) + 60]);
    let asked = ca.requests_for(Resource::RenewalInfo);
    assert_eq!(asked[0].path, format!("/renewal-info/{}", first.ari_id()));
    let mut profiles = client.profiles();
    profiles.sort();
    assert_eq!(profiles, ["classic", "shortlived"]);
    assert_eq!(ca.requests_for(Resource::NewAccount)[1].external_account().as_deref(), Some("kid-7"));

    let of_another = Wish { names: &[SITE], profile: Some("shortlived"), replaces: Some(&first) };
    assert_eq!(problem_of(client.get(of_another)).0, "unauthorized");
    let own = client.get(wish(&[SITE])).unwrap();
    let renewal = Wish { replaces: Some(&own), ..of_another };
    client.get(renewal).unwrap();
    let last = ca.orders().pop().unwrap();
    assert_eq!((last.profile.as_deref(), last.replaces), (Some("shortlived"), Some(own.ari_id().to_string())));
    assert_eq!(problem_of(client.get(renewal)).0, "alreadyReplaced");
    assert_eq!(problem_of(client.get(Wish { profile: Some("other"), replaces: None, ..renewal })).0, "invalidProfile");
    assert_eq!(ca.orders().len(), 3);
    ca.no_ari();
    assert!(client.renewal_info(&first).is_err());
}

#[rstest]
#[case::rate_limited(Fault::rate_limited(RetryAfter::Secs(60)), "rateLimited")]
#[case::unavailable(Fault::unavailable(RetryAfter::Nothing).at(Resource::NewOrder), "serverInternal")]
#[case::only_there(Fault::problem(403, "unauthorized", "no").at(Resource::Finalize), "unauthorized")]
#[case::no_nonce_is_good(Fault::bad_nonce(1), "badNonce")]
#[case::caa(Fault::invalid_authorization("caa", "forbidden by CAA"), "caa")]
#[case::dns(Fault::invalid_authorization("dns", "SERVFAIL"), "dns")]
fn the_fault_ca_refuses_until_it_is_healed(#[case] fault: Fault, #[case] kind: &str) {
    let (ca, client) = fault_ca();
    ca.set(fault.clone().times(100));
    for _ in 0..2 {
        assert_eq!(problem_of(client.get(wish(&[SITE]))).0, kind);
    }
    ca.heal();
    client.get(wish(&[SITE])).unwrap();
    ca.set(fault.times(0));
    client.get(wish(&[SITE])).unwrap();
}

#[test]
fn the_fault_ca_refuses_so_often_and_in_so_many_words() {
    let (ca, client) = fault_ca();
    ca.set(Fault::rate_limited(RetryAfter::Nothing).times(1));
    ca.set(Fault::invalid_authorization("connection", "Timeout during connect").times(1));
    ca.set(Fault::bad_nonce(2));
    assert_eq!(problem_of(client.get(wish(&[SITE]))).0, "rateLimited");
    let (kind, detail) = problem_of(client.get(wish(&[SITE])));
    assert_eq!((kind.as_str(), detail.as_str()), ("connection", "Timeout during connect"));
    client.get(wish(&[SITE])).expect("a nonce may be bad every other time");
    ca.forget_accounts();
    assert_eq!(problem_of(client.get(wish(&[SITE]))).0, "accountDoesNotExist");
    Client::register(ca.directory(), &ca.ca_file(), None).unwrap().get(wish(&[SITE])).unwrap();
    assert_eq!(ca.accounts(), 2);
}

#[test]
fn the_fault_ca_says_when_to_come_back() {
    let ca = FaultCa::start(&Pki::new());
    ca.set_now(utc(NOON));
    ca.set(Fault::unavailable(RetryAfter::DateIn(90)).times(1));
    ca.set(Fault::unavailable(RetryAfter::Secs(90)));
    for field in ["retry-after: Mon, 01 Jun 2026 12:01:30 GMT", "retry-after: 90"] {
        let (_, status, head) = curl_directory(&ca, "10");
        assert!(status == 503 && head.lines().any(|line| line.eq_ignore_ascii_case(field)), "{head}");
    }
}

#[test]
fn the_fault_ca_falls_silent_talks_nonsense_and_without_end() {
    const TIMED_OUT: i32 = 28;
    let (ca, client) = fault_ca();
    ca.set(Fault::silence().times(1));
    ca.set(Fault::endless_body().times(1));
    ca.set(Fault::garbage());
    assert_eq!(curl_directory(&ca, "0.3").0, TIMED_OUT);
    let (code, status, _) = curl_directory(&ca, "0.3");
    assert_eq!((code, status), (TIMED_OUT, 200));
    let (code, status, _) = curl_directory(&ca, "10");
    assert_eq!((code, status), (0, 200));
    assert!(matches!(client.get(wish(&[SITE])), Err(Error::Str(_) | Error::Json(_))));
}

#[test]
fn the_fault_ca_issues_what_was_not_ordered() {
    let (ca, client) = fault_ca();
    let get = |fault: Fault| {
        ca.set(fault.times(1));
        client.get(wish(&[SITE]))
    };
    let fits = |issued: &Issued| {
        let (_, leaf) = x509_parser::parse_x509_certificate(issued.leaf()).unwrap();
        leaf.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&issued.key)
    };
    assert!(!fits(&get(Fault::wrong_key()).unwrap()));
    assert_eq!(presented(&get(Fault::wrong_names(&["other.test"])).unwrap()).names, ["other.test"]);
    assert!(presented(&get(Fault::expired()).unwrap()).not_after < now());
    assert!(matches!(get(Fault::broken_chain()), Err(Error::Other(_))));
    let right = client.get(wish(&[SITE])).unwrap();
    assert!(fits(&right) && presented(&right).names == [SITE] && verified(&right, &ca.root_pem(0), now()));
}

#[rstest]
#[case::pending(Fault::stuck_pending(), Resource::Challenge)]
#[case::processing(Fault::stuck_processing(), Resource::Finalize)]
fn the_fault_ca_keeps_an_order_waiting(#[case] fault: Fault, #[case] last: Resource) {
    let (ca, mut client) = fault_ca();
    ca.set(fault);
    client.polls = client.polls.timeout(Duration::from_millis(300));
    assert!(matches!(client.get(wish(&[SITE])), Err(Error::Timeout(_))));
    let (seen, polled): (Vec<_>, Vec<_>) = ca.requests().into_iter().partition(|seen| seen.resource != Resource::Order);
    assert!(seen.last().unwrap().resource == last && polled.len() > 1, "{seen:#?}");
    assert!(!ca.orders()[0].is_issued);
    ca.heal();
    assert_eq!(
        post_as_get(&ca, &polled[0].path).0["status"],
        if last == Resource::Challenge { "ready" } else { "valid" }
    );
}

#[test]
fn the_fault_ca_offers_other_chains() {
    let (ca, client) = fault_ca();
    ca.alternate_chains(2);
    let mut issued = client.get(wish(&[SITE])).unwrap();
    let (_, head) = post_as_get(&ca, "/certificate/0");
    let links: Vec<_> = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("link: ")).collect();
    assert_eq!(links.len(), 2, "{head}");
    for (chain, link) in (1..).zip(links) {
        let url = link.split(['<', '>']).nth(1).unwrap();
        assert!(link.ends_with(";rel=\"alternate\""), "{link}");
        issued.pem = post_as_get_text(&ca, url).0;
        assert!(verified(&issued, &ca.root_pem(chain), now()) && !verified(&issued, &ca.root_pem(0), now()));
    }
}

/// What is at that URL of the CA's, for its first account; with the head.
fn post_as_get_text(ca: &FaultCa, url: &str) -> (String, String) {
    let base = ca.directory().replace("/directory", "");
    let protected = URL_SAFE_NO_PAD.encode(format!("{{\"kid\":\"{base}/account/0\"}}"));
    let jws = format!("{{\"protected\":\"{protected}\",\"payload\":\"\",\"signature\":\"\"}}");
    let answer = curl(ca, url).arg("-d").arg(&jws).run();
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text(), answer.head)
}

fn post_as_get(ca: &FaultCa, path: &str) -> (Value, String) {
    let (text, head) = post_as_get_text(ca, &ca.directory().replace("/directory", path));
    (serde_json::from_str(&text).unwrap_or_default(), head)
}
