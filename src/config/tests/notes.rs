//! What is right but may not be meant.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use insta::assert_snapshot;
use rstest::rstest;

use super::super::load::load_text;
use super::super::{Diagnostics, Severity, load};
use super::{domain, files};

const AGREED: &str = "[acme]\nagree_to_terms = true\n";
const DNS: &str = "dns = { provider = \"exec\", command = [\"hook\"] }\n";

/// What is noted of `text`.
fn notes(text: &str) -> String {
    let loaded = load_text(Path::new("lockgate.toml"), text.to_owned()).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.notes.iter().all(|note| note.severity == Severity::Note));
    loaded.notes.into_iter().collect::<Diagnostics>().to_string()
}

/// A domain of that name.
fn named(name: &str, lines: &str) -> String {
    domain(lines).replace("www.example.com", name)
}

#[rstest]
#[case::nobody_there("")]
#[case::never(&domain("acme = false"))]
#[case::files(&domain("certificate = [{ cert = \"a.pem\", key = \"a.key\" }]"))]
#[case::agreed(&(AGREED.to_owned() + &domain("") + "[[certificate]]\nnames = [\"a.example\"]\n"))]
#[case::wildcard(&(AGREED.to_owned() + DNS + &named("*.example.com", "")))]
#[case::wildcard_of_its_own(&(AGREED.to_owned() + &named("*.example.com", &format!("acme = {{ {} }}", DNS.trim()))))]
#[case::wildcard_never(&(AGREED.to_owned() + &named("*.example.com", "acme = false")))]
#[case::wildcard_group(&(AGREED.to_owned() + "[[certificate]]\nnames = [\"*.a.example\"]\n" + DNS))]
fn nothing_to_note(#[case] text: &str) {
    assert_eq!(notes(text), "");
}

#[test]
fn domains_for_which_nothing_is_ordered() {
    assert_snapshot!(notes(&domain("")), @r#"
    note: 1 domain has no certificate of its own and none is ordered for it: www.example.com
    --> lockgate.toml
     = help: set `agree_to_terms = true` in `[acme]`, or `acme = false` for a domain that needs none
    "#);
    let seven: String = (1..=7).map(|n| named(&format!("{n}.example.com"), "")).collect();
    let group = "[[certificate]]\nnames = [\"a.example\", \"b.example\"]\n";
    assert_snapshot!(notes(&format!("[acme]\nemail = \"ops@example.com\"\n{seven}{group}")), @r#"
    note: 7 domains have no certificate of their own and none is ordered for them: 1.example.com, 2.example.com, 3.example.com, 4.example.com, 5.example.com, and 2 more
     --> lockgate.toml:1:1
      |
    1 | [acme]
      | ^^^^^^
      |
      = help: set `agree_to_terms = true` in `[acme]`, or `acme = false` for a domain that needs none

    note: no `[[certificate]]` is ordered: a.example
     --> lockgate.toml:1:1
      |
    1 | [acme]
      | ^^^^^^
      |
      = help: set `agree_to_terms = true` in `[acme]`
    "#);
    assert_snapshot!(notes(&format!("[acme]\nagree_to_terms = false\n{}", domain(""))), @r#"
    note: 1 domain has no certificate of its own and none is ordered for it: www.example.com
     --> lockgate.toml:2:18
      |
    2 | agree_to_terms = false
      |                  ^^^^^
      |
      = help: set `agree_to_terms = true` in `[acme]`, or `acme = false` for a domain that needs none
    "#);
}

#[test]
fn wildcards_without_dns() {
    let text = named("*.a.example.com", "") + &named("*.b.example.com", "acme = { key = \"p384\" }");
    let group = "[[certificate]]\nnames = [\"c.example\", \"*.c.example\"]\n";
    assert_snapshot!(notes(&format!("{AGREED}{text}{group}")), @r#"
    note: no certificate can be ordered for 2 wildcards without `[acme.dns]`: *.a.example.com, *.b.example.com
     --> lockgate.toml:4:8
      |
    4 | name = "*.a.example.com"
      |        ^^^^^^^^^^^^^^^^^
      |
      = help: write `[acme.dns]` with a `provider` that sets TXT records

    note: no certificate can be ordered for a wildcard without `[acme.dns]`: *.c.example
      --> lockgate.toml:11:1
       |
    11 | [[certificate]]
       | ^^^^^^^^^^^^^^^
       |
       = help: write `[acme.dns]` with a `provider` that sets TXT records
    "#);
}

#[test]
fn challenges_that_are_inherited_and_do_not_fit() {
    assert_snapshot!(notes(&format!("{AGREED}challenge = \"http-01\"\n{DNS}{}", named("*.example.com", ""))), @r#"
    note: `http-01` cannot prove control over `*.example.com`: for a wildcard only dns-01 does
     --> lockgate.toml:6:8
      |
    6 | name = "*.example.com"
      |        ^^^^^^^^^^^^^^^
      |
      = help: write another `challenge` in its `[domain.acme]`, or `acme = false`
    "#);
    assert_snapshot!(notes(&format!("{AGREED}challenge = \"dns-01\"\n{DNS}{}", named("1.1.1.1", "acme = { profile = \"shortlived\" }"))), @r#"
    note: `dns-01` cannot prove control over `1.1.1.1`: an address has no TXT record
     --> lockgate.toml:6:8
      |
    6 | name = "1.1.1.1"
      |        ^^^^^^^^^
      |
      = help: write another `challenge` in its `[domain.acme]`, or `acme = false`
    "#);
}

#[test]
fn names_that_nobody_issues_for() {
    let text = named("shop.internal", "") + &named("127.0.0.1", "") + &domain("");
    assert_snapshot!(notes(&format!("{AGREED}{text}")), @r#"
    note: no CA that is named here issues for shop.internal, 127.0.0.1
     --> lockgate.toml:4:8
      |
    4 | name = "shop.internal"
      |        ^^^^^^^^^^^^^^^
      |
      = help: write a `[[acme.ca]]` that does: for names and addresses that exist only in private one of your own, with its `ca_file`; for public addresses one with a `profile`; or write `acme = false`
    "#);
}

#[test]
fn secrets_that_others_can_read() {
    let text = "[vault]\nkey_file = \"vault.key\"\n[acme.dns]\nprovider = \"desec\"\nsecret_files = { api_token = \"token\" }\n\
        [[certificate]]\nnames = [\"a.example\"]\ndns = { provider = \"desec\", secret_files = { api_token = \"token\" } }\n"
        .to_owned()
        + AGREED;
    let dir = files(&[("lockgate.toml", &text), ("vault.key", "secret"), ("token", "secret")]);
    let noted = |mode: u32| {
        for name in ["vault.key", "token"] {
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let loaded = load(&dir.path().join("lockgate.toml")).unwrap_or_else(|e| panic!("{e}"));
        let notes = loaded.notes.into_iter().collect::<Diagnostics>().to_string();
        notes.replace(dir.path().to_str().unwrap(), "/etc")
    };
    assert_eq!((noted(0o600).as_str(), noted(0o400).as_str()), ("", ""));
    assert_snapshot!(noted(0o640), @r#"
    note: the secret file `/etc/vault.key` is open to others than its owner (mode 0640)
     --> /etc/lockgate.toml:2:12
      |
    2 | key_file = "vault.key"
      |            ^^^^^^^^^^^
      |
      = help: run `chmod go= /etc/vault.key`; lockgate's user must own it

    note: the secret file `/etc/token` is open to others than its owner (mode 0640)
     --> /etc/lockgate.toml:5:30
      |
    5 | secret_files = { api_token = "token" }
      |                              ^^^^^^^
      |
      = help: run `chmod go= /etc/token`; lockgate's user must own it
    "#);
}

#[test]
fn a_note_fits_on_a_line() {
    let loaded = load_text(Path::new("lockgate.toml"), format!("[acme]\n{}", domain(""))).unwrap();
    let said = "lockgate.toml:1: 1 domain has no certificate of its own and none is ordered for it: www.example.com; set `agree_to_terms = true` in `[acme]`, or `acme = false` for a domain that needs none";
    assert_eq!(loaded.notes[0].to_string(), said);
}
