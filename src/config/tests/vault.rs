//! `[vault]`: what is refused and how, and what is understood.

use std::path::Path;

use insta::assert_snapshot;
use rstest::rstest;

use super::super::load;
use super::{check, check_in, config, files, wrong};
use crate::issuance::{KeySource, Transit};
use crate::secret::SecretSource;

#[rstest]
#[case::nothing(
    "",
    "`key_file`, `key_env`, `credential`, `exec` or `transit` is missing in `[vault]`",
    "write `key_file = \"/etc/lockgate/vault.key\"`"
)]
#[case::slip("keyfile = \"x\"", "unknown key `keyfile` in `[vault]`", "did you mean `key_file`?")]
#[case::variable(
    "key_env = \"c2VjcmV0IQ==\"",
    "`c2VjcmV0IQ==` is not the name of an environment variable",
    "write its name alone, as in \"LOCKGATE_SECRET\""
)]
#[case::credential(
    "credential = \"../key\"",
    "`../key` is not the name of a credential",
    "write its name in `LoadCredential=`, as in \"vault-key\""
)]
#[case::exec("exec = [\" \"]", "`exec` names no program", "write `exec = [\"/usr/local/bin/program\"]`")]
#[case::missing(
    "key_file = \"/nonexistent/vault key\"",
    "the secret file `/nonexistent/vault key` cannot be read: No such file or directory (os error 2)",
    "put it back; where nothing is sealed yet, make one: `(umask 077; head -c 32 /dev/urandom | base64 > '/nonexistent/vault key')`"
)]
#[case::beside(
    "key_file = \"/var/lib/lockgate/vault.key\"",
    "the key would lie in `data_dir`, beside what it seals: whoever takes one has both",
    "name a file elsewhere, as in \"/etc/lockgate/vault.key\""
)]
#[case::by_the_way(
    "key_file = \"/etc/../var/lib/lockgate/sub/vault.key\"",
    "the key would lie in `data_dir`, beside what it seals: whoever takes one has both",
    "name a file elsewhere, as in \"/etc/lockgate/vault.key\""
)]
#[case::transit(
    "transit = \"lockgate\"",
    "`transit` must be a table, not a string",
    "write `transit = { address = ... }`"
)]
#[case::address(
    "transit = { key = \"k\", token_env = \"T\" }",
    "`address` is missing in `transit`",
    "write `address = \"https://vault.example.com:8200\"`"
)]
#[case::url(
    "transit = { address = \"vault:8200\", key = \"k\", token_env = \"T\" }",
    "`vault:8200` is not a URL with `https` or `http`",
    "write \"https://vault.example.com:8200\""
)]
#[case::query(
    "transit = { address = \"https://vault/?a=b\", key = \"k\", token_env = \"T\" }",
    "`https://vault/?a=b` has a query",
    "leave out the `?` and what follows"
)]
#[case::key(
    "transit = { address = \"https://vault\", token_env = \"T\" }",
    "`key` is missing in `transit`",
    "write `key = \"lockgate\"`"
)]
#[case::key_path(
    "transit = { address = \"https://vault\", key = \"a/b\", token_env = \"T\" }",
    "`key` has a slash in it",
    "write the key's name alone, and `mount` beside it"
)]
#[case::mount(
    "transit = { address = \"https://vault\", key = \"k\", mount = \"../sys\", token_env = \"T\" }",
    "`../sys` cannot be in a path of Vault",
    "write letters (a to z), digits, `-`, `_` and `.`"
)]
#[case::token(
    "transit = { address = \"https://vault\", key = \"k\" }",
    "`token_file` or `token_env` is missing in `transit`",
    "write `token_file = \"/etc/lockgate/secret\"`"
)]
fn values_of_the_vault(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&format!("[vault]\n{lines}\n")), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn there_is_one_source() {
    assert_snapshot!(check("[vault]\nexec = [\"kms\"]\nkey_env = \"KEY\"\n"), @r#"
    error: `key_env` beside `exec`
     --> lockgate.toml:3:11
      |
    2 | exec = ["kms"]
      |        ------- here
    3 | key_env = "KEY"
      |           ^^^^^ and here
      |
      = help: write one of them: `key_file`, `key_env`, `credential`, `exec` or `transit`
    "#);
}

#[rstest]
#[case::env("key_env = \"KEY\"", KeySource::Secret(SecretSource::Env("KEY".to_owned())))]
#[case::credential("credential = \"vault-key\"", KeySource::Secret(SecretSource::Credential("vault-key".to_owned())))]
#[case::exec("exec = [\"kms\", \"--key\", \"a/b\"]", KeySource::Exec(["kms", "--key", "a/b"].map(str::to_owned).to_vec()))]
#[case::transit("transit = { address = \"http://127.0.0.1:8200/\", key = \"k\", token_env = \"T\" }", KeySource::Transit(Transit {
    address: "http://127.0.0.1:8200".to_owned(),
    mount: "transit".to_owned(),
    key: "k".to_owned(),
    token: SecretSource::Env("T".to_owned()),
    namespace: None,
    roots: None,
}))]
fn a_key_has_a_source(#[case] lines: &str, #[case] source: KeySource) {
    assert_eq!(config(&format!("[vault]\n{lines}\n")).vault, source);
}

#[test]
fn files_are_relative_to_the_file_that_names_them() {
    let ca = rcgen::generate_simple_self_signed(["vault.example".to_owned()]).unwrap().cert.pem();
    let transit = "address = \"https://vault\", key = \"k\", token_file = \"token\", mount = \"/a/b/\", namespace = \"ops\", ca_file = \"ca.pem\"";
    let dir = files(&[
        ("lockgate.toml", "[vault]\nkey_file = \"vault.key\"\n"),
        ("transit.toml", &format!("[vault]\ntransit = {{ {transit} }}\n")),
        ("vault.key", "secret"),
        ("token", "secret"),
        ("ca.pem", &ca),
    ]);
    let vault = |name: &str| load(&dir.path().join(name)).unwrap_or_else(|e| panic!("{e}")).config.vault;
    let file = |name: &str| SecretSource::File(dir.path().join(name));
    assert_eq!(vault("lockgate.toml"), KeySource::Secret(file("vault.key")));
    let KeySource::Transit(transit) = vault("transit.toml") else { panic!() };
    assert_eq!((transit.mount.as_str(), transit.namespace.as_deref()), ("a/b", Some("ops")));
    assert_eq!((transit.token, transit.roots.unwrap().len()), (file("token"), 1));
}

#[test]
fn without_a_word_the_key_is_made_in_the_data_directory() {
    assert_eq!(config("data_dir = \"state\"").vault, KeySource::Made(Path::new("state/vault.key").to_owned()));
}

#[test]
fn a_link_does_not_lead_out_of_the_data_directory() {
    let dir = files(&[
        ("lockgate.toml", "data_dir = \"state\"\n[vault]\nkey_file = \"link/vault.key\"\n"),
        ("state/vault.key", "k"),
    ]);
    std::os::unix::fs::symlink(dir.path().join("state"), dir.path().join("link")).unwrap();
    assert!(check_in(&dir).contains("beside what it seals"), "{}", check_in(&dir));
    let dir = files(&[
        ("lockgate.toml", "data_dir = \"state\"\n[vault]\nkey_file = \"vault.key\"\n"),
        ("state/vault.key", "k"),
    ]);
    std::os::unix::fs::symlink(dir.path().join("state/vault.key"), dir.path().join("vault.key")).unwrap();
    assert!(check_in(&dir).contains("beside what it seals"), "{}", check_in(&dir));
}

/// It may be there in a moment, and sites are served meanwhile: only `lockgate check` makes an error of it.
#[rstest]
#[case::key("key_file = \"vault.key\"", "vault.key", None)]
#[case::empty_key("key_file = \"vault.key\"", "vault.key", Some(""))]
#[case::token("transit = { address = \"https://vault\", key = \"k\", token_file = \"token\" }", "token", None)]
fn what_unlocks_the_vault_may_be_missing(#[case] line: &str, #[case] name: &str, #[case] text: Option<&str>) {
    let dir = files(&[("lockgate.toml", &format!("[vault]\n{line}\n"))]);
    text.inspect(|text| std::fs::write(dir.path().join(name), text).unwrap());
    let loaded = load(&dir.path().join("lockgate.toml")).unwrap_or_else(|e| panic!("{e}"));
    let lacking: Vec<_> = loaded.lacking.iter().map(|it| (it.line, it.message.contains(name))).collect();
    assert_eq!(lacking, [(Some(2), true)]);
    let file = SecretSource::File(dir.path().join(name));
    match loaded.config.vault {
        KeySource::Transit(transit) => assert_eq!(transit.token, file),
        source => assert_eq!(source, KeySource::Secret(file)),
    }
}

#[test]
fn what_is_missing_stands_among_what_is_wrong() {
    let dir = files(&[("lockgate.toml", "workers = 0\n[vault]\nkey_file = \"vault.key\"\n[listen]\nadmin = 1\n")]);
    let wrong = load(&dir.path().join("lockgate.toml")).expect_err("two errors");
    assert_eq!(wrong.iter().map(|it| it.line).collect::<Vec<_>>(), [Some(1), Some(3), Some(5)]);
}
