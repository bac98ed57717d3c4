//! Issuance as it is written, and what is understood.

use std::path::Path;
use std::time::Duration;

use rstest::rstest;

use super::super::load;
use super::issuance::acme;
use super::{config, files};
use crate::issuance::*;
use crate::secret::SecretSource;

#[test]
fn two_lines_are_enough() {
    let acme = config(&acme("agree_to_terms = true\nemail = \"ops@example.com\"")).acme.unwrap();
    assert!(acme.agreed_to_terms && acme.max_orders == MAX_ORDERS && acme.on_demand.is_none());
    let [only] = acme.authorities.as_slice() else { panic!("{:?}", acme.authorities) };
    assert_eq!((only.name.as_str(), only.directory.as_str()), ("acme-v02.api.letsencrypt.org", LETS_ENCRYPT));
    assert_eq!(only.email.as_deref(), Some("ops@example.com"));
    assert_eq!((acme.method.key, acme.method.standby), (KeyAlgorithm::EcdsaP256, true));
    assert_eq!((acme.method.authorities, acme.method.challenge, acme.method.dns), (None, None, None));
    let none = config("");
    assert_eq!((none.acme, none.groups), (None, Vec::new()));
}

#[rstest]
#[case("letsencrypt", LETS_ENCRYPT)]
#[case("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory")]
#[case("zerossl", "https://acme.zerossl.com/v2/DV90")]
#[case("google", "https://dv.acme-v02.api.pki.goog/directory")]
#[case("sslcom", "https://acme.ssl.com/sslcom-dv-ecc")]
#[case("sslcom-rsa", "https://acme.ssl.com/sslcom-dv-rsa")]
#[case("https://[::1]:14000/dir", "https://[::1]:14000/dir")]
fn directories_have_short_names(#[case] written: &str, #[case] url: &str) {
    let acme = config(&format!("[[acme.ca]]\ndirectory = \"{written}\"\n")).acme.unwrap();
    assert_eq!(acme.authorities[0].directory, url);
}

#[test]
fn what_is_written_is_what_is_meant() {
    let ca = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem();
    let main = r#"
include = ["d/*.toml"]
[acme]
email = "ops@example.com"
agree_to_terms = true
key = "p384"
challenge = "http-01"
preferred_chain = "Root"
standby = false
max_orders = 3
[acme.dns]
provider = "rfc2136"
server = "192.0.2.53"
key_name = "k"
key_file = "tsig.key"
resolvers = ["::1", "[::1]:5353"]
[acme.on_demand]
site = "www.example.com"
allow = ["*.Customers.example"]
ask = "http://127.0.0.1:9000/allowed"
max_names = 7
max_new_per_hour = 8
[[acme.ca]]
directory = "https://One.example:14000/dir"
ca_file = "root.pem"
eab = { kid = "kid", hmac_key_env = "HMAC" }
profile = "shortlived"
[[acme.ca]]
name = "two"
directory = "https://one.example/dir"
email = "two@example.com"
preferred_chain = "Other"
standby_only = true
[[domain]]
name = "www.example.com"
origin = "http://127.0.0.1:1"
[[domain]]
name = "never.example.com"
origin = "http://127.0.0.1:1"
acme = false
[[domain]]
name = "*.example.com"
origin = "http://127.0.0.1:1"
[domain.acme]
ca = ["two", "one.example"]
challenge = "dns-01"
key = "rsa3072"
profile = "classic"
standby = true
"#;
    let included = r#"
[[certificate]]
names = ["a.example", "*.a.example"]
tenant = "t"
challenge = "dns-01"
dns = { provider = "route53", settings = { region = "z" }, secret_files = { access_key_id = "token" }, secret_env = { secret_access_key = "KEY" }, ttl = "5m", propagation_timeout = "10s" }
[[domain]]
name = "own.example.com"
origin = "http://127.0.0.1:1"
acme = { dns = { provider = "exec", command = ["./hook", "-v", ""], command_timeout = "5s" } }
"#;
    let dir = files(&[
        ("lockgate.toml", main),
        ("d/a.toml", included),
        ("root.pem", &ca),
        ("tsig.key", "secret"),
        ("d/token", "secret"),
    ]);
    let config = load(&dir.path().join("lockgate.toml")).unwrap_or_else(|e| panic!("{e}")).config;
    let acme = config.acme.unwrap();
    assert!(acme.agreed_to_terms && acme.max_orders == 3);
    let tsig = Dns {
        provider: DnsProvider::Rfc2136 {
            server: "192.0.2.53:53".parse().unwrap(),
            key_name: "k".to_owned(),
            key_algorithm: "hmac-sha256".to_owned(),
            key: SecretSource::File(dir.path().join("tsig.key")),
        },
        resolvers: vec!["[::1]:53".parse().unwrap(), "[::1]:5353".parse().unwrap()],
        propagation_timeout: Duration::from_secs(120),
        ttl: Duration::from_secs(60),
    };
    let common = Method {
        authorities: None,
        challenge: Some(Challenge::Http01),
        dns: Some(tsig.into()),
        key: KeyAlgorithm::EcdsaP384,
        profile: None,
        standby: false,
    };
    assert_eq!(acme.method, common);
    let [one, two] = acme.authorities.as_slice() else { panic!("{:?}", acme.authorities) };
    let eab = Eab { kid: "kid".to_owned(), hmac_key: SecretSource::Env("HMAC".to_owned()) };
    assert_eq!((one.name.as_str(), one.directory.as_str()), ("one.example", "https://one.example:14000/dir"));
    assert_eq!((one.roots.as_ref().unwrap().len(), one.eab.as_ref()), (1, Some(&eab)));
    assert_eq!((one.profile.as_deref(), one.preferred_chain.as_deref()), (Some("shortlived"), Some("Root")));
    assert_eq!((one.email.as_deref(), one.is_standby_only), (Some("ops@example.com"), false));
    assert_eq!((two.name.as_str(), two.email.as_deref()), ("two", Some("two@example.com")));
    assert_eq!((two.preferred_chain.as_deref(), two.is_standby_only), (Some("Other"), true));
    let on_demand = acme.on_demand.unwrap();
    assert_eq!(
        (on_demand.site.as_str(), on_demand.allow, on_demand.max_names, on_demand.max_new_per_hour),
        ("www.example.com", vec!["*.customers.example".to_owned()], 7, 8)
    );
    assert_eq!(on_demand.ask.as_deref(), Some("http://127.0.0.1:9000/allowed"));

    let [www, never, wildcard, own] = &*config.domains else { panic!("{:?}", config.domains) };
    assert_eq!((&www.acme, &never.acme), (&DomainAcme::Inherit, &DomainAcme::Never));
    let method = Method {
        authorities: Some(vec!["two".to_owned(), "one.example".to_owned()]),
        challenge: Some(Challenge::Dns01),
        key: KeyAlgorithm::Rsa(3072),
        profile: Some("classic".to_owned()),
        standby: true,
        ..common.clone()
    };
    assert_eq!(wildcard.acme, DomainAcme::Method(Box::new(method)));
    let DomainAcme::Method(own) = &own.acme else { panic!("{:?}", own.acme) };
    let DnsProvider::Exec { command, timeout } = &own.dns.as_ref().unwrap().provider else { panic!("{:?}", own.dns) };
    assert_eq!(*timeout, Duration::from_secs(5));
    let [program, arguments @ ..] = command.as_slice() else { panic!("{command:?}") };
    assert_eq!((Path::new(program), arguments), (&*dir.path().join("d/./hook"), &["-v".to_owned(), String::new()][..]));
    assert_eq!(**own, Method { dns: own.dns.clone(), ..common.clone() });

    let [group] = config.groups.as_slice() else { panic!("{:?}", config.groups) };
    assert_eq!(group.names.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["a.example", "*.a.example"]);
    assert_eq!(group.tenant.as_ref().unwrap().as_str(), "t");
    let dns = group.method.dns.as_ref().unwrap();
    assert_eq!((dns.ttl, dns.propagation_timeout), (Duration::from_secs(300), Duration::from_secs(10)));
    let pair = |name: &str, value| (name.to_owned(), value);
    let api = DnsProvider::Api {
        name: "route53".to_owned(),
        settings: vec![("region".to_owned(), "z".to_owned())],
        secrets: vec![
            pair("access_key_id", SecretSource::File(dir.path().join("d/token"))),
            pair("secret_access_key", SecretSource::Env("KEY".to_owned())),
        ],
    };
    assert_eq!(dns.provider, api);
}
