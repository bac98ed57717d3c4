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
    "provider = \"cloudflare\"\nsecret_env = { api_token = \"T\" }\nkey_env = \"K\"",
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
    "provider = \"dnsimple\"\nsecret_env = { api_token = \"T\" }\nsettings = { account_id = 7 }",
    "`settings` must be a string, not an integer",
    "write \"7\""
)]
#[case::settings(
    "provider = \"cloudflare\"\nsecret_env = { api_token = \"T\" }\nsettings = \"zone\"",
    "`settings` must be a table, not a string",
    "write `settings = { NAME = \"...\" }`"
)]
#[case::twice(
    "provider = \"dnsimple\"\nsettings = { account_id = \"a\" }\nsecret_env = { api_token = \"T\", account_id = \"A\" }",
    "the setting `account_id` is written twice",
    "write it once"
)]
#[case::resolver(
    "provider = \"cloudflare\"\nsecret_env = { api_token = \"T\" }\nresolvers = [\"192.0.2.53:0\"]",
    "`192.0.2.53:0` is not the address of a name server",
    "write an IP address, and a port if it is not 53, as in \"192.0.2.53:5353\""
)]
#[case::timeout(
    "provider = \"cloudflare\"\nsecret_env = { api_token = \"T\" }\npropagation_timeout = \"1day\"",
    "`propagation_timeout` is \"1day\", out of its range",
    "write a time from \"1s\" to \"1h\""
)]
#[case::command_timeout(
    "provider = \"exec\"\ncommand = [\"hook\"]\ncommand_timeout = \"1h\"",
    "`command_timeout` is \"1h\", out of its range",
    "write a time from \"1s\" to \"10m\""
)]
#[case::not_of_a_program(
    "provider = \"cloudflare\"\nsecret_env = { api_token = \"T\" }\ncommand_timeout = \"5s\"",
    "`command_timeout` is a key of `provider = \"exec\"`",
    "leave it out, or write that `provider`"
)]
#[case::ttl(
    "provider = \"cloudflare\"\nsecret_env = { api_token = \"T\" }\nttl = \"500ms\"",
    "`ttl` is \"500ms\", out of its range",
    "write a time from \"1s\" to \"1day\""
)]
fn values_of_dns(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&dns(lines)), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn a_secret_that_is_empty_is_none() {
    let dir = files(&[
        ("lockgate.toml", &dns("provider = \"desec\"\nsecret_files = { api_token = \"empty\" }")),
        ("empty", ""),
    ]);
    assert_snapshot!(check_in(&dir), @r#"
    error: the secret file `/etc/empty` is empty
     --> /etc/lockgate.toml:3:30
      |
    3 | secret_files = { api_token = "empty" }
      |                              ^^^^^^^
      |
      = help: write the secret into it
    "#);
}

#[rstest]
#[case::near("provider = \"clouflare\"", "no DNS provider is called `clouflare`", "did you mean `cloudflare`?")]
#[case::near_ours("provider = \"rfc2163\"", "no DNS provider is called `rfc2163`", "did you mean `rfc2136`?")]
#[case::missing_secret(
    "provider = \"cloudflare\"",
    "the DNS provider `cloudflare` needs the secret `api_token`",
    "write `secret_files = { api_token = \"FILE\" }`"
)]
#[case::missing_setting(
    "provider = \"dnsimple\"\nsecret_env = { api_token = \"T\" }",
    "the DNS provider `dnsimple` needs the setting `account_id`",
    "write `settings = { account_id = \"...\" }`"
)]
#[case::near_secret(
    "provider = \"cloudflare\"\nsecret_env = { api_tokn = \"T\" }",
    "the DNS provider `cloudflare` has no secret `api_tokn`",
    "did you mean `api_token`?"
)]
#[case::unknown_secret(
    "provider = \"cloudflare\"\nsecret_env = { password = \"T\" }",
    "the DNS provider `cloudflare` has no secret `password`",
    "its secrets are `api_token`"
)]
#[case::unknown_setting(
    "provider = \"cloudflare\"\nsettings = { zone = \"z\" }\nsecret_env = { api_token = \"T\" }",
    "the DNS provider `cloudflare` has no setting `zone`",
    "leave it out: it has no settings"
)]
#[case::secret_in_the_open(
    "provider = \"cloudflare\"\nsettings = { api_token = \"secret\" }",
    "the DNS provider `cloudflare` has no setting `api_token`",
    "it is a secret: write it as `secret_files` or `secret_env`"
)]
#[case::setting_hidden(
    "provider = \"dnsimple\"\nsettings = { account_id = \"a\" }\nsecret_env = { api_token = \"T\", zone_id = \"Z\" }",
    "the DNS provider `dnsimple` has no secret `zone_id`",
    "its secrets are `api_token`"
)]
fn what_a_provider_needs(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&dns(lines)), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn who_is_like_no_provider_is_told_of_all() {
    let (message, remedy) = wrong(&dns("provider = \"nobody-at-all\""));
    assert_eq!(message, "no DNS provider is called `nobody-at-all`");
    assert!(remedy.starts_with("write \"rfc2136\", \"exec\", or one of ") && remedy.contains("cloudflare"), "{remedy}");
}
