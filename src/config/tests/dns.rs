//! `[acme.dns]`: what is refused and how.

use insta::assert_snapshot;
use rstest::rstest;

use super::{check_in, files, wrong};

/// `[acme.dns]` of a well-known API, with these lines.
fn dns(lines: &str) -> String {
    format!("[acme.dns]\n{lines}\n")
}

#[rstest]
#[case::provider("server = \"192.0.2.53\"", "`provider` is missing in `[acme.dns]`", "write `provider = \"rfc2136\"`")]
#[case::server(
    "provider = \"rfc2136\"\nkey_name = \"k\"\nkey_env = \"K\"",
    "`server` is missing in `[acme.dns]`",
    "write `server = \"192.0.2.53:53\"`"
)]
#[case::server_name(
    "provider = \"rfc2136\"\nkey_name = \"k\"\nkey_env = \"K\"\nserver = \"ns.example.com\"",
    "`ns.example.com` is not the address of a name server",
    "write an IP address, and a port if it is not 53, as in \"192.0.2.53:5353\""
)]
#[case::key_name(
    "provider = \"rfc2136\"\nkey_env = \"K\"\nserver = \"192.0.2.53\"",
    "`key_name` is missing in `[acme.dns]`",
    "write `key_name = \"acme-key\"`"
)]
#[case::key(
    "provider = \"rfc2136\"\nkey_name = \"k\"\nserver = \"192.0.2.53\"",
    "`key_file` or `key_env` is missing in `[acme.dns]`",
    "write `key_file = \"/etc/lockgate/secret\"`"
)]
#[case::algorithm(
    "provider = \"rfc2136\"\nkey_name = \"k\"\nkey_env = \"K\"\nserver = \"192.0.2.53\"\nkey_algorithm = \"hmac-md5\"",
    "`key_algorithm` cannot be \"hmac-md5\"",
    "write \"hmac-sha224\" or \"hmac-sha256\" or \"hmac-sha384\" or \"hmac-sha512\""
)]
#[case::not_of_rfc2136(
    "provider = \"rfc2136\"\nkey_name = \"k\"\nkey_env = \"K\"\nserver = \"192.0.2.53\"\ncommand = [\"x\"]",
    "`command` is a key of another provider than \"rfc2136\"",
    "leave it out, or write that `provider`"
)]
#[case::not_of_an_api(
    "provider = \"cloudflare\"\nkey_env = \"K\"",
    "`key_env` is a key of `provider = \"rfc2136\"`",
    "leave it out, or write that `provider`"
)]
#[case::no_command(
    "provider = \"exec\"",
    "`command` is missing in `[acme.dns]`",
    "write `command = [\"/usr/local/bin/dns-hook\"]`"
)]
#[case::empty_command(
    "provider = \"exec\"\ncommand = []",
    "`command` names no program",
    "write `command = [\"/usr/local/bin/program\"]`"
)]
#[case::one_command(
    "provider = \"exec\"\ncommand = \"hook\"",
    "`command` must be an array of strings, not a string",
    "put it in brackets: `command = [\"hook\"]`"
)]
#[case::setting(
    "provider = \"cloudflare\"\nsettings = { zone = 7 }",
    "`settings` must be a string, not an integer",
    "write \"7\""
)]
#[case::settings(
    "provider = \"cloudflare\"\nsettings = \"zone\"",
    "`settings` must be a table, not a string",
    "write `settings = { NAME = \"...\" }`"
)]
#[case::twice(
    "provider = \"cloudflare\"\nsettings = { token = \"a\" }\nsecret_env = { token = \"A\" }",
    "the setting `token` is written twice",
    "write it once"
)]
#[case::resolver(
    "provider = \"cloudflare\"\nresolvers = [\"192.0.2.53:0\"]",
    "`192.0.2.53:0` is not the address of a name server",
    "write an IP address, and a port if it is not 53, as in \"192.0.2.53:5353\""
)]
#[case::timeout(
    "provider = \"cloudflare\"\npropagation_timeout = \"1day\"",
    "`propagation_timeout` is \"1day\", out of its range",
    "write a time from \"1s\" to \"1h\""
)]
#[case::ttl(
    "provider = \"cloudflare\"\nttl = \"500ms\"",
    "`ttl` is \"500ms\", out of its range",
    "write a time from \"1s\" to \"1day\""
)]
fn values_of_dns(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&dns(lines)), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn a_secret_that_is_empty_is_none() {
    let dir =
        files(&[("lockgate.toml", &dns("provider = \"desec\"\nsecret_files = { token = \"empty\" }")), ("empty", "")]);
    assert_snapshot!(check_in(&dir), @r#"
    error: the secret file `/etc/empty` is empty
     --> /etc/lockgate.toml:3:26
      |
    3 | secret_files = { token = "empty" }
      |                          ^^^^^^^
      |
      = help: write the secret into it
    "#);
}
