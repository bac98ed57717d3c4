//! `[domain.acme]` and `[[certificate]]`: what is refused and how.

use insta::assert_snapshot;
use rstest::rstest;

use super::issuance::{acme, ca};
use super::{check, domain, wrong};

/// Who sets TXT records, rightly.
const DNS: &str = "dns = { provider = \"exec\", command = [\"hook\"] }";

/// A group with these lines.
fn group(lines: &str) -> String {
    format!("[[certificate]]\n{lines}\n")
}

/// The CAs are `one`, and `two` for standbys.
#[rstest]
#[case::neither(
    "\"no\"",
    "`acme` must be false or a table, not a string",
    "write `acme = false`, or a table as in `acme = { challenge = \"dns-01\" }`"
)]
#[case::key("{ email = \"a@b\" }", "unknown key `email` in `[domain.acme]`", "`email` belongs in `[acme]`")]
#[case::ca("{ ca = [\"three\"] }", "no CA is called `three`", "there are `one` and `two`")]
#[case::ca_slip("{ ca = [\"One\"] }", "no CA is called `One`", "did you mean \"one\"?")]
#[case::ca_twice("{ ca = [\"one\", \"one\"] }", "the CA `one` is named twice", "name it once")]
#[case::no_ca("{ ca = [] }", "`ca` is empty: nobody would issue", "name a CA, or leave `ca` out for all of them")]
#[case::standby(
    "{ ca = [\"two\"] }",
    "every CA named here is `standby_only`: nobody would issue",
    "name another one too"
)]
#[case::dns(
    "{ challenge = \"dns-01\" }",
    "`dns-01`, and nobody who sets TXT records",
    "write `[acme.dns]` with a `provider`"
)]
#[case::dns_key(
    "{ dns = { provider = \"cloudflare\", secret_env = { api_token = \"T\" }, ttls = \"1m\" } }",
    "unknown key `ttls` in `dns`",
    "did you mean `ttl`?"
)]
fn values_of_a_domain(#[case] value: &str, #[case] message: &str, #[case] remedy: &str) {
    let cas = ca("name = \"one\"") + &ca("name = \"two\"\nstandby_only = true").replace("ca.example", "b.example");
    assert_eq!(wrong(&(cas + &domain(&format!("acme = {value}")))), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn of_cas_that_are_wrong_themselves_no_name_is_missed() {
    let text = "[[acme.ca]]\nname = \"one\"\ndirectory = \"x\"\n".to_owned() + &domain("acme = { ca = [\"one\"] }");
    assert_eq!(wrong(&text).0, "no CA is known as `x`");
    let nobody = ("no CA is called `one`".to_owned(), "write `[acme]`, and a `[[acme.ca]]` of that name".to_owned());
    assert_eq!(wrong(&domain("acme = { ca = [\"one\"] }")), nobody);
}

#[rstest]
#[case::wildcard(
    "*.example.com",
    "http-01",
    "`http-01` cannot prove control over `*.example.com`: for a wildcard only dns-01 does",
    "write \"dns-01\", or leave `challenge` out"
)]
#[case::wildcard(
    "*.example.com",
    "tls-alpn-01",
    "`tls-alpn-01` cannot prove control over `*.example.com`: for a wildcard only dns-01 does",
    "write \"dns-01\", or leave `challenge` out"
)]
#[case::address(
    "192.0.2.1",
    "dns-01",
    "`dns-01` cannot prove control over `192.0.2.1`: an address has no TXT record",
    "write \"http-01\" or \"tls-alpn-01\", or leave `challenge` out"
)]
fn a_challenge_fits_its_domain(
    #[case] name: &str,
    #[case] challenge: &str,
    #[case] message: &str,
    #[case] remedy: &str,
) {
    let text = |name| domain(&format!("acme = {{ challenge = \"{challenge}\" }}")).replace("www.example.com", name);
    assert_eq!(wrong(&(acme(DNS) + &text(name))), (message.to_owned(), remedy.to_owned()));
    assert_eq!(check(&(acme(DNS) + &text("www.example.com"))), "fine");
}

#[rstest]
#[case::none("", "`names` is missing in `[[certificate]]`", "write `names = [\"example.com\", \"www.example.com\"]`")]
#[case::empty(
    "names = []",
    "`names` is empty",
    "write the names it is for: `names = [\"example.com\", \"www.example.com\"]`"
)]
#[case::one(
    "names = \"example.com\"",
    "`names` must be an array of strings, not a string",
    "put it in brackets: `names = [\"example.com\"]`"
)]
#[case::name(
    "names = [\"exa mple\"]",
    "`exa mple` is not a domain name",
    "write letters, digits and hyphens between dots, and nothing else"
)]
#[case::tenant("names = [\"a.example\"]\ntenant = \" \"", "`tenant` is empty", "write a value, or leave `tenant` out")]
#[case::tenant_with_a_control_character(
    "names = [\"a.example\"]\ntenant = \"a\\u001fb\"",
    "`tenant` is `a\\u{1f}b`, with a control character in it",
    "write a name without tabs, line ends and the like"
)]
#[case::wildcard(
    "names = [\"a.example\", \"*.a.example\"]\nchallenge = \"http-01\"",
    "`http-01` cannot prove control over `*.a.example`: for a wildcard only dns-01 does",
    "write `challenge = \"dns-01\"` in this `[[certificate]]`, or leave the wildcard out"
)]
#[case::address(
    "names = [\"a.example\", \"192.0.2.1\"]\nchallenge = \"dns-01\"",
    "`dns-01` cannot prove control over `192.0.2.1`: an address has no TXT record",
    "leave the address out, or write another `challenge`"
)]
#[case::twice(
    "names = [\"a.example\", \"A.example\"]",
    "`a.example` is in two certificates, or twice in one",
    "leave it out of one `[[certificate]]`"
)]
fn values_of_a_group(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&(acme(DNS) + &group(lines))), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn what_acme_inherits_counts_for_a_group() {
    let text = acme("challenge = \"tls-alpn-01\"") + &group("names = [\"*.a.example\"]");
    assert!(wrong(&text).0.starts_with("`tls-alpn-01` cannot prove control over `*.a.example`"));
}

#[test]
fn one_name_is_in_one_group() {
    let text = group("names = [\"a.example\", \"b.example\"]") + &group("names = [\"B.example.\"]");
    assert_snapshot!(check(&text), @r#"
    error: `b.example` is in two certificates, or twice in one
     --> lockgate.toml:4:10
      |
    2 | names = ["a.example", "b.example"]
      |                       ----------- first here
    3 | [[certificate]]
    4 | names = ["B.example."]
      |          ^^^^^^^^^^^^ again here
      |
      = help: leave it out of one `[[certificate]]`
    "#);
}
