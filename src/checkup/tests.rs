//! Facts in, sentences out, case by case.

mod unlisted;

use std::net::IpAddr;
use std::sync::Arc;

use insta::assert_snapshot;
use rstest::rstest;

use super::*;
use crate::certificate::{PairPaths, Source, Standing};
use crate::clock::UnixTime;
use crate::issuance::subject::subjects;
use crate::issuance::{Acme, Authority as Ca, Challenge, DomainAcme, KeyAlgorithm, LETS_ENCRYPT, Method};
use crate::name::DomainName;
use crate::site::{OriginSpec, SiteSpec};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const DAY: i64 = 86_400;

fn ca(name: &str, directory: &str) -> Arc<Ca> {
    Arc::new(Ca {
        name: name.to_owned(),
        directory: directory.to_owned(),
        roots: None,
        email: None,
        eab: None,
        profile: None,
        preferred_chain: None,
        is_standby_only: false,
    })
}

fn acme(authorities: Vec<Arc<Ca>>, challenge: Option<Challenge>) -> Acme {
    let key = KeyAlgorithm::EcdsaP256;
    let method = Method { authorities: None, challenge, dns: None, key, profile: None, standby: false };
    Acme { agreed_to_terms: true, authorities, method, max_orders: 1, on_demand: None }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn spec(text: &str) -> SiteSpec {
    SiteSpec::new(name(text), OriginSpec::http("127.0.0.1", 8080))
}

/// What [`Serving`] says of one domain.
fn serving(spec: SiteSpec, acme: Option<Acme>) -> Serving {
    let spec = Arc::new(spec);
    let subject = subjects(&[Arc::clone(&spec)], &[], acme.as_ref()).pop();
    Serving {
        domain: Some(spec),
        acme: acme.map(Arc::new),
        subject,
        has_http_listener: true,
        has_https_listener: true,
        ..Serving::default()
    }
}

fn presented() -> Presented {
    Presented {
        names: vec![name("shop.example.com")],
        issuer: "CN=E7".to_owned(),
        not_before: NOW.plus_secs(-DAY),
        not_after: NOW.plus_secs(60 * DAY),
        is_ours: true,
        is_internal: false,
        chain_length: 2,
        is_trusted: true,
    }
}

fn way(address: &str) -> Way {
    Way { address: address.parse().unwrap(), http: Http::Here, tls: Tls::Presented(Box::new(presented())) }
}

fn standing(source: Source) -> Standing {
    let not_after = Some(NOW.plus_secs(60 * DAY));
    let own_not_after = (source == Source::Own).then_some(NOW.plus_secs(60 * DAY));
    Standing { source, not_after, own_not_after }
}

fn certificates(source: Source) -> Certificates {
    Certificates {
        standing: standing(source),
        issuer: Some("CN=E7".to_owned()),
        guaranteed_until: Some(NOW.plus_secs(60 * DAY)),
        broken: Vec::new(),
        failed: Vec::new(),
        is_ordered: false,
        unreadable: None,
    }
}

/// A name with which nothing is wrong.
fn fine() -> Facts {
    let acme = acme(vec![ca("letsencrypt", LETS_ENCRYPT)], None);
    let addresses: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
    Facts {
        name: name("shop.example.com"),
        now: NOW,
        serving: serving(spec("shop.example.com"), Some(acme)),
        process: Process::Runs,
        names: vec![LookedUp {
            name: "shop.example.com".to_owned(),
            role: Role::Itself,
            addresses: Ok(addresses),
            aliases: Vec::new(),
        }],
        txt_aliases: Vec::new(),
        caa: Some(Ok(None)),
        ways: vec![way("192.0.2.1")],
        origin: Some(("http://127.0.0.1:8080".to_owned(), OriginSeen::Answered(Answered { status: 200 }))),
        certificates: Some(certificates(Source::Own)),
    }
}

/// What is said besides what is fine.
fn said(facts: &Facts) -> String {
    let report = examine(facts);
    let findings = report.findings.into_iter().filter(|finding| finding.state != State::Ok);
    let lines = findings.map(|Finding { what, state, says, remedy }| {
        let mark = if state == State::Wrong { "wrong" } else { "note" };
        let remedy = remedy.map(|remedy| format!("\n  {remedy}")).unwrap_or_default();
        format!("{mark} {}: {says}{remedy}", what.label())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// [`said`] of a name with which one thing is not fine.
fn check(change: impl FnOnce(&mut Facts), expected: &str) {
    let mut facts = fine();
    change(&mut facts);
    assert_eq!(said(&facts), expected);
}

#[test]
fn nothing_is_wrong() {
    assert_snapshot!(examine(&fine()), @"
    ✓ serving: shop.example.com is served here
    ✓ issuance: its certificate is ordered from letsencrypt, and shop.example.com proved by http-01
    ✓ DNS: shop.example.com leads to 192.0.2.1
    ✓ port 80: 192.0.2.1 leads here
    ✓ port 443: 192.0.2.1 leads here, and shows the certificate from CN=E7
    ✓ CAA: shop.example.com has no CAA records: any authority may issue
    ✓ origin: http://127.0.0.1:8080 answers `HEAD /` with status 200
    ✓ certificate: shop.example.com has a certificate from CN=E7, valid until 2027-03-16T08:00:00Z

    Nothing is wrong with shop.example.com.
    ");
    assert_eq!(examine(&fine()).first_remedy(), None);
}

#[test]
fn the_first_cause_is_where_to_begin() {
    let mut facts = fine();
    let ipv6: IpAddr = "2001:db8::1".parse().unwrap();
    facts.names[0].addresses.as_mut().unwrap().push(ipv6);
    let http = Http::Elsewhere { status: 404, server: Some("nginx\u{1b}[31m".to_owned()) };
    facts.ways.push(Way { address: ipv6, http, tls: Tls::Unreached(Unreached::Refused) });
    facts.origin = Some(("http://127.0.0.1:8080".to_owned(), OriginSeen::Unreached(Unreached::Refused)));
    facts.certificates = Some(Certificates {
        failed: vec![failed(false)],
        standing: Standing { own_not_after: Some(NOW.plus_secs(-DAY)), not_after: None, source: Source::Internal },
        guaranteed_until: None,
        ..certificates(Source::Internal)
    });
    assert_snapshot!(examine(&facts), @"
    ✓ serving: shop.example.com is served here
    ✓ issuance: its certificate is ordered from letsencrypt, and shop.example.com proved by http-01
    ✓ DNS: shop.example.com leads to 192.0.2.1 and 2001:db8::1
    ✓ port 80: 192.0.2.1 leads here
    ✓ port 443: 192.0.2.1 leads here, and shows the certificate from CN=E7
    ✗ AAAA: 2001:db8::1 does not lead here: another server has port 80 (nginx�[31m, status 404), and nothing listens on port 443
        remove the AAAA record 2001:db8::1 of shop.example.com, or point it at this machine
    ✓ CAA: shop.example.com has no CAA records: any authority may issue
    ✗ origin: nothing listens at the origin http://127.0.0.1:8080
        start the server at http://127.0.0.1:8080, or correct `origin`
    ✗ certificate: the certificate of shop.example.com expired at 2027-01-14T08:00:00Z: one that Lockgate made itself serves, which no browser trusts
        do what it says
    ✗ certificate: ordering it failed 3 times in a row, at 2027-01-15T07:50:00Z the last; letsencrypt: no valid A records found; next attempt at 2027-01-15T08:10:00Z
        do what it says

    The one thing to do: remove the AAAA record 2001:db8::1 of shop.example.com, or point it at this machine.
    ");
    let json = serde_json::to_value(examine(&facts)).unwrap();
    let remedy = "remove the AAAA record 2001:db8::1 of shop.example.com, or point it at this machine";
    assert_eq!((&json["name"], &json["first_remedy"]), (&"shop.example.com".into(), &remedy.into()));
    let (what, says) = (&json["findings"][5]["what"], json["findings"][5]["says"].as_str().unwrap());
    assert_eq!((what, &json["findings"][5]["state"]), (&"aaaa".into(), &"wrong".into()));
    assert!(says.starts_with("2001:db8::1 does not lead here: another server has port 80"), "{says}");
    assert_eq!(
        (&json["findings"][0]["remedy"], &json["findings"][3]["what"]),
        (&serde_json::Value::Null, &"port_80".into())
    );
}

fn failed(is_standby: bool) -> Failed {
    Failed {
        is_standby,
        failures: 3,
        last_at: NOW.plus_secs(-600),
        next_at: NOW.plus_secs(600),
        authority: "letsencrypt".to_owned(),
        problem: "no valid A records found.".to_owned(),
        advice: "do what it says".to_owned(),
    }
}

fn no_answer(why: Why) -> NoAnswer {
    NoAnswer { why, words: "its words".to_owned() }
}

#[rstest]
#[case::no_domain(
    "shop.example.com",
    None,
    "write a `[[domain]]` with `name = \"shop.example.com\"` and its `origin`, then run `lockgate reload`"
)]
#[case::slip(
    "shop.example.com",
    Some("shopp.example.com"),
    "write a `[[domain]]` with `name = \"shop.example.com\"` and its `origin`, then run `lockgate reload`; or did you mean shopp.example.com?"
)]
#[case::a_label_too_many(
    "a.b.example.com",
    Some("*.example.com"),
    "write a `[[domain]]` with `name = \"a.b.example.com\"` and its `origin`, then run `lockgate reload`: *.example.com covers exactly one label in place of the `*`"
)]
fn nobody_serves_it(#[case] asked: &str, #[case] nearest: Option<&str>, #[case] remedy: &str) {
    let mut facts = fine();
    facts.name = name(asked);
    facts.serving = Serving { nearest: nearest.map(name), ..Serving::default() };
    let report = examine(&facts);
    assert_eq!(report.findings[0].says, format!("no `[[domain]]` serves {asked}"));
    assert_eq!(report.first_remedy(), Some(remedy));
}

fn with_acme(domain: SiteSpec, acme: Option<Acme>) -> impl FnOnce(&mut Facts) {
    move |facts| {
        facts.name = domain.name.clone();
        facts.serving = serving(domain, acme);
        facts.ways = Vec::new();
        facts.names = Vec::new();
    }
}

#[test]
fn nothing_can_be_issued() {
    let public = || vec![ca("letsencrypt", LETS_ENCRYPT)];
    let agreed = || Some(acme(public(), None));
    check(
        with_acme(spec("shop.example.com"), Some(Acme { agreed_to_terms: false, ..acme(public(), None) })),
        "wrong issuance: nothing is ordered for shop.example.com: the operator has not agreed to the authorities' terms\n  \
         set `agree_to_terms = true` in `[acme]`, or write certificate files into the domain's `[[domain.certificate]]`",
    );
    check(
        with_acme(SiteSpec { acme: DomainAcme::Never, ..spec("shop.example.com") }, agreed()),
        "wrong issuance: shop.example.com has no certificate files, and `acme = false` says that none is ordered\n  \
         write `[[domain.certificate]]` with `cert` and `key` for shop.example.com, or leave `acme = false` out",
    );
    check(
        with_acme(spec("shop.test"), agreed()),
        "wrong issuance: none of the configured authorities issues for shop.test: it is no name of the public DNS\n  \
         name a private authority with its `ca_file` in `[[acme.ca]]`, or write `[[domain.certificate]]` with `cert` and \
         `key` for shop.test",
    );
    check(
        with_acme(spec("9.9.9.9"), agreed()),
        "wrong issuance: none of the configured authorities issues for the address 9.9.9.9\n  ask another authority for \
         9.9.9.9, or with a `profile` that allows it: not every one issues for IP addresses or wildcards",
    );
    check(
        with_acme(spec("*.example.com"), agreed()),
        "wrong issuance: *.example.com can be proved by dns-01 only, and nobody is there to set TXT records: write \
         `[acme.dns]`\n  write `[acme.dns]` with a `provider` that sets TXT records",
    );
    let pair = PairPaths { cert: "cert.pem".into(), key: "key.pem".into() };
    check(with_acme(SiteSpec { certificates: [pair].into(), ..spec("shop.test") }, None), "");
}

#[rstest]
#[case::nxdomain(Err(no_answer(Why::NoSuchName)), &[], "wrong DNS: shop.example.com does not exist (NXDOMAIN)\n  add an A record with this machine's IPv4 address for shop.example.com")]
#[case::empty(Ok(vec![]), &[], "wrong DNS: shop.example.com exists, but has neither A nor AAAA records\n  add an A record with this machine's IPv4 address for shop.example.com")]
#[case::dangling(Err(no_answer(Why::NoSuchName)), &["old.example.net"], "wrong DNS: shop.example.com is an alias (CNAME) of old.example.net, which does not exist\n  point the CNAME of shop.example.com at a name that exists, or put an A record in its place")]
#[case::servfail(Err(no_answer(Why::ServerFailed)), &[], "wrong DNS: its words\n  see that the name servers of shop.example.com answer, and that its DNSSEC is valid: most often the DS record at the registrar belongs to a key that the zone no longer has")]
#[case::silent(Err(no_answer(Why::Silent)), &[], "wrong DNS: its words\n  see that this machine reaches its name server (port 53, UDP and TCP), and that those of shop.example.com answer")]
fn name_servers(#[case] addresses: Result<Vec<IpAddr>, NoAnswer>, #[case] aliases: &[&str], #[case] expected: &str) {
    check(
        |facts| {
            facts.names[0].addresses = addresses;
            facts.names[0].aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            facts.ways = Vec::new();
        },
        expected,
    );
}

#[test]
fn nobody_has_to_serve_the_parent_of_a_wildcard() {
    check(
        |facts| {
            facts.names[0] =
                LookedUp { role: Role::Parent, addresses: Err(no_answer(Why::NoSuchName)), ..facts.names[0].clone() }
        },
        "note DNS: shop.example.com does not exist (NXDOMAIN)\n  add an A record with this machine's IPv4 address for shop.example.com",
    );
}

const OPEN_443: &str = "point the A and AAAA records of shop.example.com at this machine, and let port 443 through every firewall in between; remove the AAAA record if it has no IPv6";
const OPEN_80: &str = "point the A and AAAA records of shop.example.com at this machine, and let port 80 through every firewall in between; remove the AAAA record if it has no IPv6";

#[rstest]
#[case::elsewhere(Http::Elsewhere { status: 200, server: None }, Some(Tls::Failed("no".to_owned())), "wrong A: 192.0.2.1 does not lead here: another server has port 80 (status 200), and no handshake succeeds on port 443 (no)\n  remove the A record 192.0.2.1 of shop.example.com, or point it at this machine".to_owned())]
#[case::http_closed(Http::Unreached(Unreached::Refused), None, format!("wrong port 80: 192.0.2.1 does not lead here: nothing listens on port 80\n  {OPEN_80}"))]
#[case::http_silent(Http::Unreached(Unreached::Silent), None, format!("wrong port 80: 192.0.2.1 does not lead here: port 80 does not answer\n  {OPEN_80}"))]
#[case::http_taken(Http::Garbled, None, "wrong port 80: 192.0.2.1 does not lead here: what has port 80 is no HTTP server\n  let Lockgate have port 80 of 192.0.2.1, or prove shop.example.com by another `challenge`".to_owned())]
#[case::https_closed(Http::Here, Some(Tls::Unreached(Unreached::Refused)), format!("wrong port 443: 192.0.2.1 does not lead here: nothing listens on port 443\n  {OPEN_443}"))]
#[case::https_taken(Http::Here, Some(Tls::Presented(Box::new(Presented { is_ours: false, ..presented() }))), "wrong port 443: 192.0.2.1 does not lead here: port 443 shows a certificate of another server (for shop.example.com from CN=E7)\n  let port 443 of shop.example.com reach this machine as it is: something in front of it, such as a load balancer, ends TLS itself".to_owned())]
#[case::internal(Http::Here, Some(Tls::Presented(Box::new(Presented { is_internal: true, is_ours: false, ..presented() }))), "note port 443: 192.0.2.1 leads here, and shows a certificate that Lockgate made itself".to_owned())]
#[case::expired(Http::Here, Some(Tls::Presented(Box::new(Presented { not_after: NOW.plus_secs(-1), ..presented() }))), "wrong port 443: 192.0.2.1 shows a certificate that is valid from 2027-01-14T08:00:00Z to 2027-01-15T07:59:59Z, not now\n  compare the clocks of this machine and of the one that answers".to_owned())]
#[case::other_name(Http::Here, Some(Tls::Presented(Box::new(Presented { names: vec![name("example.com")], ..presented() }))), "wrong port 443: 192.0.2.1 shows a certificate for example.com from CN=E7, not for shop.example.com\n  put a certificate that is valid for shop.example.com into its files".to_owned())]
#[case::alone(Http::Here, Some(Tls::Presented(Box::new(Presented { is_trusted: false, chain_length: 1, ..presented() }))), "note port 443: 192.0.2.1 leads here, and shows the certificate from CN=E7, which no root of this machine's knows\n  put the intermediate certificates of its authority behind it in the `cert` file: it is sent alone".to_owned())]
#[case::not_looked(Http::NotLooked, Some(Tls::Unreached(Unreached::Refused)), String::new())]
fn an_address(#[case] http: Http, #[case] tls: Option<Tls>, #[case] expected: String) {
    check(
        |facts| {
            facts.ways[0].http = http;
            facts.ways[0].tls = tls.unwrap_or_else(|| facts.ways[0].tls.clone());
        },
        &expected,
    );
}

#[test]
fn port_80_matters_where_an_authority_looks_there() {
    check(
        |facts| {
            let acme = acme(vec![ca("letsencrypt", LETS_ENCRYPT)], Some(Challenge::TlsAlpn01));
            facts.serving = serving(spec("shop.example.com"), Some(acme));
            facts.serving.has_http_listener = false;
            facts.ways[0].http = Http::Unreached(Unreached::Refused);
        },
        "note port 80: 192.0.2.1 does not lead here: nothing listens on port 80\n  write `[listen] http = [\"[::]:80\"]`",
    );
}

#[test]
fn without_a_process_some_is_not_looked_at() {
    check(
        |facts| {
            facts.process = Process::Silent("no Lockgate runs".to_owned());
            facts.ways[0].http = Http::NotLooked;
            facts.ways[0].tls = Tls::Unreached(Unreached::Refused);
        },
        "note port 80: whether port 80 leads to this Lockgate was not looked at: no Lockgate runs\n  start Lockgate with \
         `lockgate run`, then check again",
    );
}

const ZEROSSL: &str = "https://acme.zerossl.com/v2/DV90";
const PRIVATE: &str = "https://ca.internal/directory";

/// CAA records as zone files write them, one a line; the domain, and the directories of its authorities.
#[rstest]
#[case::allowed("0 issue \"letsencrypt.org\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::case_does_not_count("0 issue \"LetsEncrypt.ORG\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::no_issue("0 iodef \"mailto:a@example.com\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::another("0 issue \"pki.goog\"", "shop.example.com", &[LETS_ENCRYPT], "wrong CAA: the CAA records of example.com allow pki.goog alone to issue, and not ca-0\n  add `0 issue \"letsencrypt.org\"` to the CAA records of example.com, or remove them all")]
#[case::nobody("0 issue \";\"", "shop.example.com", &[LETS_ENCRYPT], "wrong CAA: the CAA records of example.com allow nobody to issue, and not ca-0\n  add `0 issue \"letsencrypt.org\"` to the CAA records of example.com, or remove them all")]
#[case::failover("0 issue \"sectigo.com\"", "shop.example.com", &[LETS_ENCRYPT, ZEROSSL], "note CAA: the CAA records of example.com allow sectigo.com alone to issue, and not ca-0\n  add `0 issue \"letsencrypt.org\"` to the CAA records of example.com, or remove them all")]
#[case::private("0 issue \"pki.goog\"", "shop.example.com", &[PRIVATE], "note CAA: the CAA records of example.com allow pki.goog alone to issue; what they call ca-0 is not known\n  compare them with `caaIdentities` in https://ca.internal/directory")]
#[case::not_even_private("0 issue \";\"", "shop.example.com", &[PRIVATE], "wrong CAA: the CAA records of example.com allow nobody to issue, and not ca-0\n  allow this authority in the CAA records of example.com, or remove them all")]
#[case::critical("128 tbs \"unknown\"", "shop.example.com", &[LETS_ENCRYPT], "wrong CAA: example.com has a critical CAA record `tbs`, which authorities do not understand\n  remove the CAA record `tbs` of example.com: until then nobody issues")]
#[case::method("0 issue \"letsencrypt.org; validationmethods=dns-01\"", "shop.example.com", &[LETS_ENCRYPT], "wrong CAA: the CAA records of example.com allow ca-0 to issue after dns-01 alone (`validationmethods`)\n  write a `challenge` that they allow, or add yours to `validationmethods` of example.com")]
#[case::methods("0 issue \"letsencrypt.org; validationmethods=dns-01,http-01\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::account("0 issue \"letsencrypt.org; accounturi=https://le.test/2\"", "shop.example.com", &[LETS_ENCRYPT], "wrong CAA: the CAA records of example.com allow ca-0 to issue for another account alone (`accounturi`)\n  set `accounturi` in the CAA records of example.com to https://le.test/1, or leave it out")]
#[case::own_account("0 issue \"letsencrypt.org; accounturi=https://le.test/1\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::one_of_two("0 issue \"letsencrypt.org; accounturi=https://le.test/2\"\n0 issue \"letsencrypt.org\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::wild_does_not_count("0 issue \"letsencrypt.org\"\n0 issuewild \";\"", "shop.example.com", &[LETS_ENCRYPT], "")]
#[case::wild_counts("0 issue \"letsencrypt.org\"\n0 issuewild \"pki.goog\"", "*.example.com", &[LETS_ENCRYPT], "wrong CAA: the CAA records of example.com allow pki.goog alone to issue, and not ca-0\n  add `0 issuewild \"letsencrypt.org\"` to the CAA records of example.com, or remove them all")]
#[case::wild_by_issue("0 issue \"letsencrypt.org\"", "*.example.com", &[LETS_ENCRYPT], "")]
fn caa_records(#[case] records: &str, #[case] domain: &str, #[case] directories: &[&str], #[case] expected: &str) {
    let properties = records.lines().map(|line| {
        let (flags, rest) = line.split_once(' ').unwrap();
        let (tag, value) = rest.split_once(' ').unwrap();
        CaaProperty { is_critical: flags == "128", tag: tag.to_owned(), value: value.trim_matches('"').to_owned() }
    });
    let records = CaaRecords { found_at: "example.com".to_owned(), properties: properties.collect() };
    let authorities = directories.iter().enumerate().map(|(n, directory)| ca(&format!("ca-{n}"), directory)).collect();
    let mut facts = fine();
    facts.serving = serving(spec(domain), Some(acme(authorities, None)));
    facts.serving.authorities =
        vec![Authority { directory: LETS_ENCRYPT.to_owned(), account: "https://le.test/1".to_owned() }];
    facts.caa = Some(Ok(Some(records)));
    let lines = said(&facts);
    let caa: Vec<&str> = lines.split_inclusive('\n').skip_while(|line| !line.contains(" CAA: ")).collect();
    assert_eq!(caa.concat(), expected);
}

#[test]
fn caa_records_that_nobody_can_read_forbid() {
    check(
        |facts| facts.caa = Some(Err(no_answer(Why::Other))),
        "wrong CAA: its words\n  make the name servers of shop.example.com answer: the name must exist, its A, AAAA, CAA and \
         TXT records must be answered without errors, and DNSSEC must be valid where it is used",
    );
}

#[rstest]
#[case::down(
    OriginSeen::Unreached(Unreached::Refused),
    "wrong origin: nothing listens at the origin http://o:1\n  start the server at http://o:1, or correct `origin`"
)]
#[case::silent(
    OriginSeen::Unreached(Unreached::Silent),
    "wrong origin: the origin http://o:1 does not answer\n  start the server at http://o:1, and let this machine through its firewall"
)]
#[case::fails(OriginSeen::Answered(Answered { status: 503 }), "note origin: http://o:1 answers `HEAD /` with status 503\n  look into the origin's own log")]
#[case::refuses(OriginSeen::Answered(Answered { status: 403 }), "")]
#[case::garbled(
    OriginSeen::Garbled,
    "wrong origin: what answers at the origin http://o:1 is no HTTP server\n  correct the port in `origin`, or whether it is `http` or `https`"
)]
#[case::mute(
    OriginSeen::Mute,
    "wrong origin: the origin http://o:1 takes connections and answers nothing\n  look into the origin's own log: it hangs, or `origin` should be `https`"
)]
#[case::tls(OriginSeen::Tls("UnknownIssuer".to_owned()), "wrong origin: TLS with the origin http://o:1 fails: UnknownIssuer\n  give the origin a certificate that is valid for its name, or say in `origin_tls` whom to trust (`ca`) and which name it has (`sni`)")]
#[case::nowhere(OriginSeen::Unresolved("not known".to_owned()), "wrong origin: the origin http://o:1 has no address: not known\n  correct the host in `origin`")]
fn origins(#[case] seen: OriginSeen, #[case] expected: &str) {
    check(|facts| facts.origin = Some(("http://o:1".to_owned(), seen)), expected);
}

const EXPIRED: &str = "the certificate of shop.example.com expired at 2027-01-14T08:00:00Z";

#[test]
fn what_serves() {
    let serves = |source, change: fn(&mut Facts)| {
        let mut facts = fine();
        let own_not_after = Some(NOW.plus_secs(-DAY));
        facts.certificates =
            Some(Certificates { standing: Standing { own_not_after, ..standing(source) }, ..certificates(source) });
        change(&mut facts);
        said(&facts)
    };
    let order = "wait a moment, or order it now with `lockgate cert order shop.example.com`";
    let until = "valid until 2027-03-16T08:00:00Z";
    assert_eq!(
        serves(Source::Standby, |_| ()),
        format!("note certificate: {EXPIRED}: the standby from CN=E7 serves, {until}\n  {order}")
    );
    assert_eq!(
        serves(Source::Configured, |_| ()),
        format!("wrong certificate: {EXPIRED}: the operator's `[fallback]` from CN=E7 serves, {until}\n  {order}")
    );
    let internal =
        format!("wrong certificate: {EXPIRED}: one that Lockgate made itself serves, which no browser trusts");
    assert_eq!(serves(Source::Internal, |_| ()), format!("{internal}\n  {order}"));
    assert_eq!(
        serves(Source::Internal, |facts| facts.process = Process::Silent("it is down".to_owned())),
        format!(
            "note port 80: whether port 80 leads to this Lockgate was not looked at: it is down\n  {start}\n{internal}\n  {start}",
            start = crate::remedy::START
        )
    );
    let by_files = |facts: &mut Facts| {
        let pair = PairPaths { cert: "cert.pem".into(), key: "key.pem".into() };
        facts.serving = serving(SiteSpec { certificates: [pair].into(), ..spec("shop.example.com") }, None);
    };
    let replace = "put a fresh certificate for shop.example.com where its files are: it is taken without a reload";
    assert_eq!(serves(Source::Internal, by_files), format!("{internal}\n  {replace}"));
}

#[test]
fn what_failed_is_said_in_the_authoritys_words() {
    let words = "ordering it failed 3 times in a row, at 2027-01-15T07:50:00Z the last; letsencrypt: no valid A records \
                 found; next attempt at 2027-01-15T08:10:00Z\n  do what it says";
    let with = |source| {
        let certificates = Certificates { failed: vec![failed(false)], ..certificates(source) };
        said(&Facts { certificates: Some(certificates), ..fine() })
    };
    assert_eq!(with(Source::Own), format!("note certificate: {words}"));
    assert!(with(Source::Internal).ends_with(&format!("wrong certificate: {words}")), "{}", with(Source::Internal));
}
