//! The outside parties that certificates need, tried without the program: where one of these fails, the harness is at
//! fault and not what it tests.

mod client;
mod fault_ca;

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, TsigAlgorithm};
use hickory_resolver::proto::op::ResponseCode;
use instant_acme::ChallengeType;
use tempfile::TempDir;

use self::client::{Client, Issued, Wish, problem_of};
use crate::harness::{Bind, ChallTestSrv, Pebble, Presented, Scripted, dns_query, free_port, response, run};

const SITE: &str = "www.example.test";

fn wish<'a>(names: &'a [&'a str]) -> Wish<'a> {
    Wish { names, ..Wish::default() }
}

/// OpenSSL's opinion of a chain under this root, at a Unix second.
#[track_caller]
fn verified(issued: &Issued, root_pem: &str, at: i64) -> bool {
    let dir = TempDir::new().unwrap();
    let [root, chain] = [("root", root_pem), ("chain", issued.pem.as_str())].map(|(name, pem)| {
        let file = dir.path().join(name);
        fs::write(&file, pem).unwrap();
        file
    });
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-attime", &at.to_string(), "-CAfile"]);
    openssl.arg(root).arg("-untrusted").arg(&chain).arg(&chain);
    run(&mut openssl).code == 0
}

fn presented(issued: &Issued) -> Presented {
    Presented::parse(issued.leaf())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

// Pebble, and the DNS servers that it asks.

/// Key authorizations by token.
type Proofs = Arc<Mutex<HashMap<String, String>>>;

/// An origin that answers HTTP-01 with what is put into the second.
fn http_prover() -> (Scripted, Proofs) {
    let proofs = Proofs::default();
    let theirs = Arc::clone(&proofs);
    let origin = Scripted::each(move |request| {
        let token = request.line().split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        response(theirs.lock().unwrap().get(&token).map_or("", String::as_str))
    });
    (origin, proofs)
}

#[test]
fn pebble_issues_by_http_for_as_long_as_it_is_told() {
    let (dns, (origin, proofs)) = (ChallTestSrv::start(), http_prover());
    let http_port = origin.url().rsplit(':').next().unwrap().parse().unwrap();
    let setup = Pebble::setup().validity_secs(600).validates_at(http_port, free_port()).dns(dns.server());
    // The library sends each request three times at most: with one refusal in five, one run in ten would fail.
    let mut pebble = setup.alternate_roots(1).chain_length(2).reject_nonces_percent(2).start();
    let client = Client::register(pebble.directory(), &pebble.ca_file(), None).unwrap();
    let get = |client: &Client| {
        client.issue(wish(&[SITE]), ChallengeType::Http01, async |_, token, proof| {
            proofs.lock().unwrap().insert(token.to_owned(), proof.as_str().to_owned());
        })
    };
    let issued = get(&client).unwrap();
    let leaf = presented(&issued);
    assert_eq!((leaf.names, leaf.not_after - leaf.not_before), (vec![SITE.to_owned()], 599));
    assert_eq!(issued.chain.len(), 3, "a leaf and two intermediates");
    assert!(verified(&issued, &pebble.root_pem(), now()));
    assert!(!verified(&issued, &pebble.root_pem_of(1), now()), "that is the alternate chain's");
    let counts = [pebble.accounts(), pebble.orders(), pebble.finalizations(), pebble.certificates()];
    assert_eq!(counts, [1; 4], "{:#?}", pebble.log());

    let (directory, root) = (pebble.directory(), pebble.root_pem());
    pebble.stop();
    assert!(get(&client).is_err(), "nobody is there");
    pebble.start_again_with(|setup| setup.validity_secs(60));
    assert_eq!((pebble.directory(), pebble.orders()), (directory, 0));
    assert_ne!(pebble.root_pem(), root);
    assert_eq!(problem_of(get(&client)).0, "accountDoesNotExist", "all is forgotten");
    let client = Client::register(pebble.directory(), &pebble.ca_file(), None).unwrap();
    let leaf = presented(&get(&client).unwrap());
    assert_eq!(leaf.not_after - leaf.not_before, 59);
}

#[test]
fn pebble_binds_accounts_to_external_ones() {
    let key = b"an external account's key of 32 bytes or more";
    let mut pebble = Pebble::setup().external_account("kid-1", &URL_SAFE_NO_PAD.encode(key)).start();
    let register = |pebble: &Pebble, external| Client::register(pebble.directory(), &pebble.ca_file(), external);
    assert_eq!(problem_of(register(&pebble, None)).0, "externalAccountRequired");
    assert!(register(&pebble, Some(("kid-1", b"another key, which nobody handed out........"))).is_err());
    register(&pebble, Some(("kid-1", key))).unwrap();
    register(&Pebble::start(), None).expect("no other pebble asks for it");
    pebble.stop();
    pebble.start_again();
    assert_eq!(pebble.accounts(), 0);
    assert_eq!(problem_of(register(&pebble, None)).0, "externalAccountRequired", "the setup is that of before");
}

#[test]
fn pebble_asks_challtestsrv_and_reuses_what_is_valid_when_told() {
    let dns = ChallTestSrv::start();
    let setup = Pebble::setup().dns(dns.server()).reuse_authorizations_percent(100).validates_after_secs(1);
    let pebble = setup.start();
    let client = Client::register(pebble.directory(), &pebble.ca_file(), None).unwrap();
    let mut proven = 0;
    for _ in 0..2 {
        let issued = client.issue(wish(&["*.example.test"]), ChallengeType::Dns01, async |_, _, proof| {
            dns.add_txt("_acme-challenge.example.test", &proof.dns_value());
            proven += 1;
        });
        assert_eq!(presented(&issued.unwrap()).names, ["*.example.test"]);
    }
    assert_eq!((proven, pebble.orders()), (1, 2));
}

#[test]
fn pebble_asks_a_bind_that_is_updated_with_its_key() {
    let bind = Bind::start(&["example.test"]);
    let pebble = Pebble::setup().dns(bind.server()).start();
    let client = Client::register(pebble.directory(), &pebble.ca_file(), None).unwrap();
    let key = STANDARD.decode(fs::read_to_string(bind.key_file()).unwrap().trim()).unwrap();
    let update = async |key: &[u8], name: String, value: String| {
        let (server, algorithm) = (format!("tcp://{}", bind.server()), TsigAlgorithm::HmacSha256);
        let updater = DnsUpdater::new_rfc2136_tsig(server, bind.key_name(), key, algorithm).unwrap();
        updater.set_rrset(name, DnsRecordType::TXT, 1, vec![DnsRecord::TXT(value)], "example.test").await
    };
    let mut values = Vec::new();
    let issued = client.issue(wish(&[SITE]), ChallengeType::Dns01, async |name, _, proof| {
        let name = format!("_acme-challenge.{name}");
        update(b"no key of its", name.clone(), "forged".to_owned()).await.unwrap_err();
        update(&key, name, proof.dns_value()).await.unwrap();
        values.push(proof.dns_value());
    });
    assert_eq!(presented(&issued.unwrap()).names, [SITE]);
    assert_eq!(bind.txt(&format!("_acme-challenge.{SITE}")), values);
    assert!(bind.updates() > 0);
    assert_eq!(bind.txt("_acme-challenge.other.example.test"), [""; 0]);
}

#[test]
fn bind_knows_the_addresses_of_its_zones() {
    let (v4, v6) = (IpAddr::from([127, 0, 0, 2]), IpAddr::from(Ipv6Addr::LOCALHOST));
    let setup = Bind::setup().zone("example.test").zone("other.test").address(SITE, v4).address("other.test", v6);
    let bind = setup.start();
    for (name, record_type, code, values) in [
        (SITE, "A", ResponseCode::NoError, vec!["127.0.0.2"]),
        (SITE, "AAAA", ResponseCode::NoError, vec![]),
        ("other.test", "AAAA", ResponseCode::NoError, vec!["::1"]),
        ("no.other.test", "A", ResponseCode::NXDomain, vec![]),
        ("elsewhere.test", "A", ResponseCode::Refused, vec![]),
    ] {
        let reply = dns_query(bind.server(), name, record_type);
        assert_eq!((reply.code, reply.values), (code, values.iter().map(ToString::to_string).collect()), "{name}");
    }
}

#[test]
fn challtestsrv_answers_what_it_is_told() {
    let dns = ChallTestSrv::start();
    let check = |record_type: &str, values: &[&str]| {
        assert_eq!(dns_query(dns.server(), SITE, record_type).values, values, "{record_type}");
    };
    let (v4, v6) = (Ipv4Addr::new(127, 0, 0, 2), Ipv6Addr::LOCALHOST);
    check("A", &["127.0.0.1"]);
    check("AAAA", &[]);
    dns.default_ipv4(None);
    dns.default_ipv6(Some(v6));
    check("A", &[]);
    check("AAAA", &["::1"]);
    dns.default_ipv4(Some(Ipv4Addr::LOCALHOST));
    dns.default_ipv6(None);
    dns.add_a(SITE, &[v4]);
    dns.add_aaaa(SITE, &[v6]);
    check("A", &["127.0.0.2"]);
    check("AAAA", &["::1"]);
    dns.clear_a(SITE);
    dns.clear_aaaa(SITE);
    check("A", &["127.0.0.1"]);
    check("AAAA", &[]);
    dns.add_caa(SITE, &[("issue", "ca.test")]);
    check("CAA", &["0 issue \"ca.test\""]);
    dns.clear_caa(SITE);
    check("CAA", &[]);
    dns.add_txt(SITE, "one");
    dns.add_txt(SITE, "two");
    check("TXT", &["one", "two"]);
    dns.clear_txt(SITE);
    check("TXT", &[]);
    dns.set_cname(SITE, "target.test");
    check("CNAME", &["target.test."]);
    dns.clear_cname(SITE);
    dns.set_servfail(SITE);
    assert_eq!(dns_query(dns.server(), SITE, "A").code, ResponseCode::ServFail);
    dns.clear_servfail(SITE);
    check("A", &["127.0.0.1"]);
}
