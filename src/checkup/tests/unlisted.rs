//! Names that nobody lists: not in the public DNS, or not in the configuration.

use super::*;

#[rstest]
#[case("demo.localhost")]
#[case("shop.lockgate.test")]
#[case("db.internal")]
fn a_private_name_is_told_apart_from_one_that_is_missing(#[case] text: &str) {
    let no = NoAnswer { why: Why::NoSuchName, words: String::new() };
    let looked_up = LookedUp { name: text.to_owned(), role: Role::Itself, addresses: Err(no), aliases: Vec::new() };
    let report = examine(&Facts { name: name(text), names: vec![looked_up], ways: Vec::new(), ..fine() });
    let dns = report.findings.iter().find(|it| it.what == What::Dns).unwrap();
    assert_eq!(dns.state, State::Note);
    assert!(dns.says.contains("is a private name") && !dns.says.contains("exist"), "{}", dns.says);
    let remedy = dns.remedy.as_deref().unwrap();
    assert!(remedy.contains("give clients the address") && remedy.contains("none but a private authority"), "{remedy}");
}

/// A name that nobody configured, with what is said of it.
fn on_demand(approval: Approval, certificates: Certificates) -> Report {
    let mut facts = fine();
    facts.serving.domain = None;
    facts.serving.on_demand = Some((name("shops.example.com"), approval));
    facts.certificates = Some(certificates);
    examine(&facts)
}

/// What is said of one thing, and in which state it is.
fn told_of(report: &Report, what: What) -> (State, &str, &str) {
    let it = report.findings.iter().find(|it| it.what == what).unwrap();
    (it.state, &it.says, it.remedy.as_deref().unwrap_or_default())
}

#[test]
fn a_name_on_demand_is_judged_by_who_approves_it() {
    let url = || "http://127.0.0.1:9000/allowed".to_owned();
    for (approval, state, remedy) in [
        (Approval::Allowed, State::Ok, ""),
        (Approval::Approved(url()), State::Ok, ""),
        (Approval::Refused(url()), State::Wrong, "have http://127.0.0.1:9000/allowed approve shop.example.com"),
        (Approval::Unanswered(url()), State::Wrong, "see that http://127.0.0.1:9000/allowed answers"),
    ] {
        let report = on_demand(approval.clone(), certificates(Source::Own));
        let (found, says, to_do) = told_of(&report, What::Serving);
        assert!(found == state && to_do.starts_with(remedy), "{approval:?}: {says}; {to_do}");
        assert_eq!(told_of(&report, What::Certificate).0, State::Ok);
    }
}

#[test]
fn a_name_on_demand_without_a_certificate_says_what_is_missing() {
    let none = || Certificates {
        standing: Standing { source: Source::Internal, not_after: None, own_not_after: None },
        issuer: None,
        guaranteed_until: None,
        ..certificates(Source::Internal)
    };
    let report = on_demand(Approval::Allowed, none());
    let (state, says, remedy) = told_of(&report, What::Certificate);
    assert!(state == State::Note && says.ends_with("one is ordered at a handshake for it"), "{says}");
    assert_eq!(remedy, "open https://shop.example.com/ once");
    let failed = Failed {
        is_standby: false,
        failures: 1,
        last_at: NOW,
        next_at: NOW.plus_secs(600),
        authority: "letsencrypt".to_owned(),
        problem: "no such host".to_owned(),
        advice: "add it".to_owned(),
    };
    let report = on_demand(Approval::Allowed, Certificates { failed: vec![failed], ..none() });
    assert_eq!((told_of(&report, What::Certificate).0, report.first_remedy()), (State::Wrong, Some("add it")));
    assert!(report.findings.iter().any(|it| it.says.contains("letsencrypt: no such host")), "{report}");
}
