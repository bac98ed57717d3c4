use super::*;
use crate::certificate::PairPaths;
use crate::issuance::{Authority, Challenge, Dns, DnsProvider, KeyAlgorithm};
use crate::site::OriginSpec;
use rstest::rstest;
use std::time::Duration;

fn method() -> Method {
    Method { authorities: None, challenge: None, dns: None, key: KeyAlgorithm::default(), profile: None, standby: true }
}

fn terms(method: Method) -> Arc<Terms> {
    Arc::new(Terms { tenant: None, method: Arc::new(method), is_manual: false })
}

/// An authority as a word: `le`, with `private`, `standby` or `profile` behind it.
fn authority(text: &str) -> Arc<Authority> {
    let mut words = text.split(' ');
    let name = words.next().unwrap().to_owned();
    let words: Vec<_> = words.collect();
    Arc::new(Authority {
        directory: format!("https://{name}.example/directory"),
        name,
        roots: words.contains(&"private").then(|| [vec![].into()].into()),
        email: None,
        eab: None,
        profile: words.contains(&"profile").then(|| "shortlived".to_owned()),
        preferred_chain: None,
        is_standby_only: words.contains(&"standby"),
    })
}

fn acme(authorities: &[&str]) -> Acme {
    Acme {
        agreed_to_terms: true,
        authorities: authorities.iter().map(|text| authority(text)).collect(),
        method: method(),
        max_orders: 1,
        on_demand: None,
    }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// A domain as words: its name, then `of TENANT`, `files`, `never`, `own` (settings), `no-standby` (own, too).
fn domain(text: &str) -> Arc<SiteSpec> {
    let mut words = text.split(' ');
    let mut spec = SiteSpec::new(name(words.next().unwrap()), OriginSpec::http("127.0.0.1", 1));
    while let Some(word) = words.next() {
        match word {
            "of" => spec.tenant = TenantId::new(words.next().unwrap()),
            "files" => spec.certificates = [PairPaths { cert: "a.pem".into(), key: "a.key".into() }].into(),
            "never" => spec.acme = DomainAcme::Never,
            "own" => {
                spec.acme =
                    DomainAcme::Method(Box::new(Method { authorities: Some(vec!["other".to_owned()]), ..method() }));
            }
            "no-standby" => spec.acme = DomainAcme::Method(Box::new(Method { standby: false, ..method() })),
            _ => panic!("{word}"),
        }
    }
    Arc::new(spec)
}

/// A group as words: its names, then `of TENANT`.
fn group(text: &str) -> Arc<CertificateSpec> {
    let (names, tenant) =
        text.split_once(" of ").map_or((text, None), |(names, tenant)| (names, TenantId::new(tenant)));
    Arc::new(CertificateSpec { names: names.split(' ').map(name).collect(), tenant, method: method() })
}

/// A subject as words: its names, optional ones in parentheses; then whether it is for a standby only.
fn show(subject: &Subject) -> String {
    let required = subject.required().map(ToString::to_string);
    let optional = subject.optional().map(|name| format!("({name})"));
    let tenant = subject.terms.tenant.iter().map(|tenant| format!("of {}", tenant.as_str()));
    let manual = subject.terms.is_manual.then(|| "standby".to_owned());
    required.chain(optional).chain(tenant).chain(manual).collect::<Vec<_>>().join(" ")
}

#[rstest]
#[case::each_its_own(&["a.org", "b.org of acme"], &[], &["a.org", "b.org of acme"])]
#[case::a_wildcard_and_its_parent(&["*.a.org"], &[], &["*.a.org (a.org)"])]
#[case::a_parent_of_the_same_tenant(&["*.a.org", "a.org"], &[], &["*.a.org (a.org)", "a.org"])]
#[case::a_parent_of_another_tenant(&["*.a.org", "a.org of acme"], &[], &["*.a.org", "a.org of acme"])]
#[case::a_parent_left_alone(&["*.a.org", "a.org never"], &[], &["*.a.org"])]
#[case::www_alone(&["www.a.org"], &[], &["www.a.org"])]
#[case::www_and_its_parent(&["www.a.org", "a.org"], &[], &["www.a.org (a.org)", "a.org"])]
#[case::www_of_another_tenant(&["www.a.org of acme", "a.org"], &[], &["www.a.org of acme", "a.org"])]
#[case::www_and_a_parent_with_files(&["www.a.org", "a.org files"], &[], &["www.a.org", "a.org standby"])]
#[case::www_and_a_parent_left_alone(&["www.a.org", "a.org never"], &[], &["www.a.org"])]
#[case::www_of_a_single_label(&["www.a", "a"], &[], &["www.a"])]
#[case::files(&["a.org files"], &[], &["a.org standby"])]
#[case::files_without_standby(&["a.org files no-standby"], &[], &[])]
#[case::never(&["a.org never", "b.org files never"], &[], &[])]
#[case::a_group(&["a.org", "b.org"], &["a.org c.org"], &["a.org c.org", "b.org"])]
#[case::a_group_of_its_tenant(&["a.org of acme"], &["a.org b.org of acme"], &["a.org b.org of acme"])]
#[case::a_group_of_another(&["a.org of acme"], &["a.org b.org"], &["b.org", "a.org of acme"])]
#[case::a_group_of_nothing_else(&["a.org of acme"], &["a.org"], &["a.org of acme"])]
#[case::a_group_with_a_wildcard(&["www.a.org", "*.a.org"], &["*.a.org a.org"], &["*.a.org a.org", "www.a.org"])]
#[case::private_names(&["localhost", "a.test", "*.b.internal", "10.0.0.1", "8.8.8.8"], &[], &[])]
#[case::with_an_authority_that_is_not_there(&["a.org own"], &[], &[])]
fn certificates_are_ordered_for(#[case] domains: &[&str], #[case] groups: &[&str], #[case] expected: &[&str]) {
    let domains: Vec<_> = domains.iter().map(|text| domain(text)).collect();
    let groups: Vec<_> = groups.iter().map(|text| group(text)).collect();
    let acme = acme(&["le"]);
    let made = subjects(&domains, &groups, Some(&acme));
    assert_eq!(made.iter().map(|it| show(it)).collect::<Vec<_>>(), expected);
    assert!(subjects(&domains, &groups, None).is_empty());
    assert!(subjects(&domains, &groups, Some(&Acme { agreed_to_terms: false, ..acme })).is_empty());
}

#[test]
fn a_private_authority_issues_for_private_names() {
    let domains = ["localhost", "*.a.test", "10.0.0.1"].map(domain);
    let made = subjects(&domains, &[], Some(&acme(&["le", "ours private"])));
    assert_eq!(made.iter().map(|it| show(it)).collect::<Vec<_>>(), ["localhost", "*.a.test (a.test)", "10.0.0.1"]);
}

#[rstest]
#[case("le", "www.example.com", true)]
#[case("le", "*.example.com", true)]
#[case("le", "intranet", false)]
#[case("le", "a.test", false)]
#[case("le", "*.a.internal", false)]
#[case("le", "printer.local", false)]
#[case("le", "a.home.arpa", false)]
#[case("le", "chrome.arpa", true)]
#[case("le", "test.example.com", true)]
#[case("le", "8.8.8.8", false)]
#[case("le profile", "8.8.8.8", true)]
#[case("le profile", "2606:4700::1", true)]
#[case("le profile", "127.0.0.1", false)]
#[case("le profile", "192.168.1.1", false)]
#[case("le profile", "100.64.0.1", false)]
#[case("le profile", "::1", false)]
#[case("le profile", "fd00::1", false)]
#[case("le profile", "a.test", false)]
#[case("ours private", "127.0.0.1", true)]
#[case("ours private", "a.test", true)]
#[case("ours private", "www.example.com", true)]
fn an_authority_can_issue_for(#[case] by: &str, #[case] wanted: &str, #[case] expected: bool) {
    assert_eq!(can_issue(&authority(by), &name(wanted)), expected);
}

const THREE: &[&str] = &["a", "b", "c"];
const SPARE: &[&str] = &["a", "b", "spare standby"];

#[rstest]
#[case::in_order(THREE, None, false, None, 0, "a b c")]
#[case::a_second_time(THREE, None, false, None, 1, "a b c")]
#[case::then_the_next(THREE, None, false, None, 2, "b c a")]
#[case::and_the_next(THREE, None, false, None, 3, "c a b")]
#[case::and_around(THREE, None, false, None, 4, "a b c")]
#[case::for_ever(THREE, None, false, None, u32::MAX, "c a b")]
#[case::as_the_domain_says(THREE, Some(["c", "a", "nobody"].as_slice()), false, None, 0, "c a")]
#[case::own(SPARE, None, false, Some("b"), 0, "a b")]
#[case::standby(SPARE, None, true, Some("a"), 0, "b spare a")]
#[case::standby_of_a_stranger(SPARE, None, true, Some("z"), 0, "a b spare")]
#[case::standby_after_failures(SPARE, None, true, Some("a"), 2, "spare a b")]
#[case::standby_of_what_the_domain_says(SPARE, Some(["a"].as_slice()), true, Some("a"), 0, "spare a")]
#[case::standby_named_and_not_again(SPARE, Some(["spare", "b"].as_slice()), true, None, 0, "spare b")]
#[case::own_of_what_the_domain_says(SPARE, Some(["a"].as_slice()), false, None, 0, "a")]
#[case::nobody(&["spare standby"], None, false, None, 5, "")]
fn authorities_are_asked(
    #[case] all: &[&str],
    #[case] named: Option<&[&str]>,
    #[case] is_standby: bool,
    #[case] own_ca: Option<&str>,
    #[case] failures: u32,
    #[case] expected: &str,
) {
    let acme = acme(all);
    let authorities = named.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    let subject = Subject::new(name("a.org"), terms(Method { authorities, ..method() }));
    let asked = authorities_for(&acme, &subject, is_standby, own_ca, failures);
    assert_eq!(asked.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn a_profile_of_the_domain_serves_for_addresses_and_optional_names_do_not_count() {
    let ask = |names: &[&str], optional: &[&str], profile: Option<&str>| {
        let [names, optional] = [names, optional].map(|names| names.iter().map(|text| name(text)));
        let terms = terms(Method { profile: profile.map(str::to_owned), ..method() });
        let subject = Subject::of_all(names, terms).unwrap().taking_along(optional);
        authorities_for(&acme(&["le"]), &subject, false, None, 0).len()
    };
    assert_eq!((ask(&["8.8.8.8"], &[], None), ask(&["8.8.8.8"], &[], Some("shortlived"))), (0, 1));
    assert_eq!((ask(&["a.org", "b.test"], &[], None), ask(&["a.org"], &["b.test"], None)), (0, 1));
}

const BOTH: (bool, bool) = (true, true);

#[rstest]
#[case::http_first("a.org", None, false, BOTH, 0, "http-01")]
#[case::then_the_other("a.org", None, false, BOTH, 1, "tls-alpn-01")]
#[case::in_turn("a.org", None, false, BOTH, 3, "http-01")]
#[case::whoever_sets_records_comes_last("a.org", None, true, BOTH, 0, "http-01")]
#[case::and_has_a_turn("a.org", None, true, BOTH, 2, "dns-01")]
#[case::of_three_in_turn("a.org", None, true, BOTH, 1, "tls-alpn-01")]
#[case::only_dns("a.org", None, true, (false, false), 1, "dns-01")]
#[case::only_http("a.org", None, false, (true, false), 1, "http-01")]
#[case::only_https("a.org", None, false, (false, true), 0, "tls-alpn-01")]
#[case::only_https_again("a.org", None, false, (false, true), 1, "tls-alpn-01")]
#[case::as_said_by_dns("a.org", Some(Challenge::Dns01), true, BOTH, 0, "dns-01")]
#[case::dns_is_not_for_addresses("8.8.8.8", None, true, BOTH, 2, "tls-alpn-01")]
#[case::a_wildcard("*.a.org", None, true, BOTH, 0, "dns-01")]
#[case::a_wildcard_whatever_is_said("*.a.org", Some(Challenge::Http01), true, BOTH, 0, "dns-01")]
#[case::a_wildcard_without_dns("*.a.org", None, false, BOTH, 0, "*.a.org can be proved by dns-01 only")]
#[case::as_said("a.org", Some(Challenge::TlsAlpn01), true, BOTH, 1, "tls-alpn-01")]
#[case::as_said_without_dns("a.org", Some(Challenge::Dns01), false, BOTH, 0, "a.org can be proved by dns-01 only")]
#[case::as_said_of_an_address("8.8.8.8", Some(Challenge::Dns01), true, BOTH, 0, "an address such as 8.8.8.8 cannot")]
#[case::nobody_listens("a.org", None, false, (false, false), 0, "a.org cannot be proved by http-01: write `[listen] http")]
#[case::nobody_listens_there("a.org", Some(Challenge::TlsAlpn01), false, (true, false), 0, "a.org cannot be proved by tls")]
fn control_is_proved_by(
    #[case] wanted: &str,
    #[case] challenge: Option<Challenge>,
    #[case] has_dns: bool,
    #[case] (http, https): (bool, bool),
    #[case] turn: u32,
    #[case] expected: &str,
) {
    let names = vec![name(wanted)];
    let subject = Subject::new(name(wanted), proving(challenge, has_dns));
    let [(of, way)] = challenges_for(&subject, &names, http, https, turn).try_into().unwrap();
    let way = way.map_or_else(|error| error.to_string(), |challenge| challenge.to_string());
    assert!(of == names[0] && way.starts_with(expected), "{way}");
}

#[test]
fn the_apex_of_a_wildcard_is_proved_with_it_and_no_other_name_is() {
    let names = ["*.a.org", "a.org", "b.org"].map(name);
    let ways = |challenge, turn| {
        let subject = Subject::of_all(names.clone(), proving(challenge, true)).unwrap();
        let ways = challenges_for(&subject, &names, true, true, turn);
        ways.into_iter().map(|(_, way)| way.unwrap().label()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ways(None, 0), "dns-01 dns-01 http-01");
    assert_eq!(ways(None, 1), "dns-01 dns-01 tls-alpn-01");
    assert_eq!(ways(Some(Challenge::Http01), 0), "dns-01 http-01 http-01");
}

#[rstest]
#[case::two_listeners("a.org", None, BOTH, true)]
#[case::one_listener("a.org", None, (true, false), false)]
#[case::as_said("a.org", Some(Challenge::Http01), BOTH, false)]
#[case::a_wildcard("*.a.org", None, BOTH, false)]
fn there_is_another_way(
    #[case] wanted: &str,
    #[case] challenge: Option<Challenge>,
    #[case] (http, https): (bool, bool),
    #[case] expected: bool,
) {
    let subject = Subject::new(name(wanted), proving(challenge, wanted.starts_with('*')));
    assert_eq!(has_another_way(&subject, &[name(wanted)], http, https), expected);
}

fn proving(challenge: Option<Challenge>, has_dns: bool) -> Arc<Terms> {
    let dns = Dns {
        provider: DnsProvider::Exec { command: vec!["true".to_owned()], timeout: Duration::ZERO },
        resolvers: vec![],
        propagation_timeout: Duration::ZERO,
        ttl: Duration::ZERO,
    };
    terms(Method { challenge, dns: has_dns.then(|| Arc::new(dns)), ..method() })
}

#[test]
fn every_authority_is_asked_for_every_challenge_some_day() {
    let acme = acme(&["a", "b"]);
    let names = vec![name("a.org")];
    let subject = Subject::new(name("a.org"), terms(method()));
    let attempts: HashSet<_> = (0..8)
        .map(|failures| {
            let first = authorities_for(&acme, &subject, false, None, failures).swap_remove(0);
            let turn = turn_after(failures);
            let [(_, way)] = challenges_for(&subject, &names, true, true, turn).try_into().unwrap();
            (first.name.clone(), way.unwrap())
        })
        .collect();
    assert_eq!(attempts.len(), 4);
}

#[test]
fn a_subject_is_small_and_shares_its_terms() {
    assert!(size_of::<Subject>() <= 40, "there may be a hundred thousand");
    let domains = ["a.org of red", "b.org of red", "c.org of red files", "d.org"].map(domain);
    let made = subjects(&domains, &[], Some(&acme(&["le"])));
    let is_shared: Vec<_> = made.windows(2).map(|two| Arc::ptr_eq(&two[0].terms, &two[1].terms)).collect();
    assert_eq!(is_shared, [true, false, false]);
}
