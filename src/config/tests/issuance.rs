//! `[acme]` and its authorities: what is refused and how.

use insta::assert_snapshot;
use rstest::rstest;

use super::{check, domain, wrong};

/// `[acme]` with these lines.
pub(super) fn acme(lines: &str) -> String {
    format!("[acme]\n{lines}\n")
}

/// One CA with these lines.
pub(super) fn ca(lines: &str) -> String {
    format!("[[acme.ca]]\ndirectory = \"https://ca.example/dir\"\n{lines}\n")
}

#[rstest]
#[case::key(
    "agree = true",
    "unknown key `agree` in `[acme]`",
    "the keys here are `email`, `agree_to_terms`, `key`, `challenge`, `preferred_chain`, `standby`, `max_orders`, `dns`, `on_demand` and `ca`"
)]
#[case::terms(
    "agree_to_terms = \"yes\"",
    "`agree_to_terms` must be true or false, not a string",
    "write `agree_to_terms = true` or `agree_to_terms = false`"
)]
#[case::email(
    "email = \"ops\"",
    "`ops` is not an e-mail address",
    "write one address alone, as in \"ops@example.com\""
)]
#[case::mailto(
    "email = \"mailto:ops@example.com\"",
    "`mailto:ops@example.com` is not an e-mail address",
    "write \"ops@example.com\""
)]
#[case::two_emails(
    "email = \"a@example.com, b@example.com\"",
    "`a@example.com, b@example.com` is not an e-mail address",
    "write one address alone, as in \"ops@example.com\""
)]
#[case::algorithm(
    "key = \"rsa1024\"",
    "`key` cannot be \"rsa1024\"",
    "write \"p256\" or \"p384\" or \"rsa2048\" or \"rsa3072\" or \"rsa4096\""
)]
#[case::challenge(
    "challenge = \"dns\"",
    "`challenge` cannot be \"dns\"",
    "write \"http-01\" or \"tls-alpn-01\" or \"dns-01\""
)]
#[case::nobody_for_dns(
    "challenge = \"dns-01\"",
    "`dns-01`, and nobody who sets TXT records",
    "write `[acme.dns]` with a `provider`"
)]
#[case::orders("max_orders = 0", "`max_orders` is 0, out of its range", "write an integer from 1 to 1000")]
#[case::orders("max_orders = 1001", "`max_orders` is 1001, out of its range", "write an integer from 1 to 1000")]
#[case::one_ca(
    "ca = { directory = \"zerossl\" }",
    "`ca` can be written several times",
    "write `[[acme.ca]]`, in two brackets, on a line of its own, and its keys below"
)]
fn values_of_acme(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&acme(lines)), (message.to_owned(), remedy.to_owned()));
}

#[rstest]
#[case::none(
    "name = \"x\"",
    "`directory` is missing in `[[acme.ca]]`",
    "write `directory = \"https://acme.example.com/directory\"`"
)]
#[case::slip("directory = \"zeroSSl\"", "no CA is known as `zeroSSl`", "did you mean \"zerossl\"?")]
#[case::unknown(
    "directory = \"buypass\"",
    "no CA is known as `buypass`",
    "write a URL as in \"https://acme.example.com/directory\"; there are `letsencrypt`, `letsencrypt-staging`, `zerossl`, `google`, `sslcom` and `sslcom-rsa`"
)]
#[case::http(
    "directory = \"http://127.0.0.1:14000/dir\"",
    "`http://127.0.0.1:14000/dir` is not a URL with `https`",
    "write \"https://acme.example.com/directory\""
)]
#[case::host(
    "directory = \"ca.example:14000/dir\"",
    "`ca.example:14000/dir` is not a URL with `https`",
    "write \"https://acme.example.com/directory\""
)]
#[case::no_host(
    "directory = \"https:///dir\"",
    "`https:///dir` is not a URL with `https`",
    "write \"https://acme.example.com/directory\""
)]
#[case::name(
    "directory = \"google\"\nname = \"a b\"",
    "`a b` cannot be the name of a CA",
    "write 1 to 64 letters (a to z), digits, `-`, `_` or `.`"
)]
#[case::user(
    "directory = \"https://me:secret@ca.example/dir\"",
    "`https://me:secret@ca.example/dir` is not a URL with `https`",
    "leave out the user name and password"
)]
#[case::fragment(
    "directory = \"https://ca.example/dir#x\"",
    "`https://ca.example/dir#x` is not a URL with `https`",
    "leave out the `#` and what follows"
)]
fn directories_are_https_urls(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&format!("[[acme.ca]]\n{lines}\n")), (message.to_owned(), remedy.to_owned()));
}

#[rstest]
#[case::slip("standbyonly = true", "unknown key `standbyonly` in `[[acme.ca]]`", "did you mean `standby_only`?")]
#[case::email("email = \"@\"", "`@` is not an e-mail address", "write one address alone, as in \"ops@example.com\"")]
#[case::standby(
    "standby_only = true",
    "every CA is `standby_only`: nobody would issue",
    "leave it out for one of them, or write another `[[acme.ca]]`"
)]
#[case::kid("eab = { hmac_key_env = \"KEY\" }", "`kid` is missing in `eab`", "write `kid = \"the key's identifier\"`")]
#[case::hmac(
    "eab = { kid = \"k\" }",
    "`hmac_key_file` or `hmac_key_env` is missing in `eab`",
    "write `hmac_key_file = \"/etc/lockgate/secret\"`"
)]
#[case::hmac_slip(
    "eab = { kid = \"k\", hmac_key_fil = \"k\" }",
    "unknown key `hmac_key_fil` in `eab`",
    "did you mean `hmac_key_file`?"
)]
#[case::variable(
    "eab = { kid = \"k\", hmac_key_env = \"A=b\" }",
    "`A=b` is not the name of an environment variable",
    "write its name alone, as in \"LOCKGATE_SECRET\""
)]
#[case::roots(
    "ca_file = \"/nonexistent/root.pem\"",
    "the CA file `/nonexistent/root.pem` cannot be read: No such file or directory (os error 2)",
    "create it, or correct the path"
)]
#[case::secret(
    "eab = { kid = \"k\", hmac_key_file = \"/nonexistent/key\" }",
    "the secret file `/nonexistent/key` cannot be read: No such file or directory (os error 2)",
    "create it, or correct the path"
)]
#[case::secret_directory(
    "eab = { kid = \"k\", hmac_key_file = \"/tmp\" }",
    "the secret file `/tmp` is a directory",
    "name a file in it"
)]
fn values_of_a_ca(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&ca(lines)), (message.to_owned(), remedy.to_owned()));
}

#[test]
fn two_of_a_kind_are_shown_together() {
    let text = ca("") + &ca("name = \"other\"") + "[[acme.ca]]\ndirectory = \"https://ca.example:8443/dir\"\n";
    assert_snapshot!(check(&text), @r#"
    error: two CAs have the directory `https://ca.example/dir`
     --> lockgate.toml:5:13
      |
    2 | directory = "https://ca.example/dir"
      |             ------------------------ first here
    ...
    5 | directory = "https://ca.example/dir"
      |             ^^^^^^^^^^^^^^^^^^^^^^^^ again here
      |
      = help: make them one `[[acme.ca]]`

    error: two CAs are called `ca.example`
     --> lockgate.toml:8:13
      |
    2 | directory = "https://ca.example/dir"
      |             ------------------------ first here
    ...
    8 | directory = "https://ca.example:8443/dir"
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ again here
      |
      = help: write another `name` for one of them
    "#);
    let text = ca("eab = { kid = \"k\", hmac_key_env = \"A\", hmac_key_file = \"b\" }");
    assert_snapshot!(check(&text), @r#"
    error: `hmac_key_file` beside `hmac_key_env`
     --> lockgate.toml:3:56
      |
    3 | eab = { kid = "k", hmac_key_env = "A", hmac_key_file = "b" }
      |                                   --- here             ^^^ and here
      |
      = help: write one of them: `hmac_key_file` or `hmac_key_env`
    "#);
}

#[rstest]
#[case::site(
    "ask = \"http://127.0.0.1/\"",
    "`site` is missing in `[acme.on_demand]`",
    "write `site = \"shops.example.com\"`"
)]
#[case::no_domain(
    "site = \"shops.example.com\"\nask = \"http://127.0.0.1/\"",
    "the site `shops.example.com` is none of the domains",
    "write the `name` of a `[[domain]]`"
)]
#[case::nothing(
    "site = \"www.example.com\"",
    "neither `allow` nor `ask`: no name would be approved",
    "write `allow = [\"*.customers.example\"]` or an `ask` URL"
)]
#[case::empty(
    "site = \"www.example.com\"\nallow = []",
    "neither `allow` nor `ask`: no name would be approved",
    "write `allow = [\"*.customers.example\"]` or an `ask` URL"
)]
#[case::pattern(
    "site = \"www.example.com\"\nallow = [\"shop-*.example\"]",
    "`shop-*.example` is not a domain name",
    "a wildcard is one `*.` in front of a host name, as in \"*.example.com\""
)]
#[case::everything(
    "site = \"www.example.com\"\nallow = [\"*\"]",
    "`*` is not a domain name",
    "a wildcard is one `*.` in front of a host name, as in \"*.example.com\""
)]
#[case::address(
    "site = \"www.example.com\"\nallow = [\"192.0.2.1\"]",
    "`192.0.2.1` is an address, which no handshake asks for by name",
    "write a host name or a wildcard, as in \"*.customers.example\""
)]
#[case::ask(
    "site = \"www.example.com\"\nask = \"unix:/run/ask.sock\"",
    "`unix:/run/ask.sock` is not a URL with `http` or `https`",
    "write \"http://127.0.0.1:9000/allowed\""
)]
#[case::names(
    "site = \"www.example.com\"\nask = \"http://127.0.0.1/\"\nmax_names = 0",
    "`max_names` is 0, out of its range",
    "write an integer from 1 to 1000000"
)]
#[case::new_names(
    "site = \"www.example.com\"\nask = \"http://127.0.0.1/\"\nmax_new_per_hour = 100001",
    "`max_new_per_hour` is 100001, out of its range",
    "write an integer from 1 to 100000"
)]
fn values_of_on_demand(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    let text = format!("[acme.on_demand]\n{lines}\n{}", domain(""));
    assert_eq!(wrong(&text), (message.to_owned(), remedy.to_owned()));
}
