//! What the reader says of a file, through one door: the text of a file in, what a person reads out.

mod anything;
mod dns;
mod example;
mod files;
mod issuance;
mod managed;
mod meant;
mod notes;
mod syntax;
mod values;
mod vault;

use std::path::Path;

use insta::assert_snapshot;

use super::load::load_text;
use super::*;

/// What `lockgate check` says is wrong with what was read.
fn findings(read: Result<Loaded, Diagnostics>) -> Diagnostics {
    read.map_or_else(|wrong| wrong, |loaded| loaded.lacking.into_iter().collect())
}

/// What is reported of `text`.
fn check(text: &str) -> String {
    let findings = findings(load_text(Path::new("lockgate.toml"), text.to_owned()));
    if findings.is_empty() { "fine".to_owned() } else { findings.to_string() }
}

fn config(text: &str) -> Config {
    load_text(Path::new("lockgate.toml"), text.to_owned()).unwrap_or_else(|e| panic!("{e}")).config
}

/// The only thing that is wrong with `text`: what, and what would be right.
fn wrong(text: &str) -> (String, String) {
    let diagnostics = findings(load_text(Path::new("lockgate.toml"), text.to_owned()));
    assert_eq!(diagnostics.len(), 1, "{diagnostics}");
    let diagnostic = diagnostics.into_iter().next().unwrap();
    (diagnostic.message, diagnostic.remedy)
}

/// A domain with nothing wrong but what `lines` say.
fn domain(lines: &str) -> String {
    format!("[[domain]]\nname = \"www.example.com\"\norigin = \"http://10.0.0.2:8080\"\n{lines}\n")
}

/// A domain with nothing wrong but its `origin`.
fn origin(value: &str) -> String {
    format!("[[domain]]\nname = \"www.example.com\"\norigin = {value}\n")
}

/// Files in a directory of their own.
fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// What is reported of the file `lockgate.toml` in `dir`, which is shown as `/etc`.
fn check_in(dir: &tempfile::TempDir) -> String {
    let findings = findings(load(&dir.path().join("lockgate.toml")));
    if findings.is_empty() {
        "fine".to_owned()
    } else {
        findings.to_string().replace(dir.path().to_str().unwrap(), "/etc")
    }
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = config("");
    assert_eq!(config.listen, Listen::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.plans.keys().collect::<Vec<_>>(), ["basic", "enterprise", "pro"]);
    assert!(config.domains.is_empty());
}

#[test]
fn everything_wrong_is_reported_together_and_in_order() {
    assert_snapshot!(check(r#"
timezone = "Asia/Shanghia"
shutdown_grace = 30
workers = 0

[listen]
https = [":443", "*:8443"]
admin = "localhost:9180"
proxy_protocol_from = ["10.0.0.0/8"]

[limits]
max_header = "16 kilobytes"
max_conections = 10

[[domain]]
name = "https://www.example.com/"
plan = "gold"
orgin = "http://10.0.0.2:8080"
max_body = true
"#), @r#"
    error: no time zone is called `Asia/Shanghia`
     --> lockgate.toml:2:12
      |
    2 | timezone = "Asia/Shanghia"
      |            ^^^^^^^^^^^^^^^
      |
      = help: did you mean "Asia/Shanghai"?

    error: `shutdown_grace` has no unit
     --> lockgate.toml:3:18
      |
    3 | shutdown_grace = 30
      |                  ^^
      |
      = help: write "30s" for seconds

    error: `workers` is 0, out of its range
     --> lockgate.toml:4:11
      |
    4 | workers = 0
      |           ^
      |
      = help: write an integer from 1 to 1024, or "auto"

    error: `:443` is not an address and a port
     --> lockgate.toml:7:10
      |
    7 | https = [":443", "*:8443"]
      |          ^^^^^^
      |
      = help: write "[::]:443" for all addresses

    error: `*:8443` is not an address and a port
     --> lockgate.toml:7:18
      |
    7 | https = [":443", "*:8443"]
      |                  ^^^^^^^^
      |
      = help: write "[::]:8443" for all addresses

    error: `localhost:9180` is not an address and a port
     --> lockgate.toml:8:9
      |
    8 | admin = "localhost:9180"
      |         ^^^^^^^^^^^^^^^^
      |
      = help: write "127.0.0.1:9180"

    error: `proxy_protocol_from` is not supported by this version of lockgate
     --> lockgate.toml:9:1
      |
    9 | proxy_protocol_from = ["10.0.0.0/8"]
      | ^^^^^^^^^^^^^^^^^^^
      |
      = help: leave it out

    error: `16 kilobytes` is not a size
      --> lockgate.toml:12:14
       |
    12 | max_header = "16 kilobytes"
       |              ^^^^^^^^^^^^^^
       |
       = help: write bytes, or a whole number and a unit, as in "16KiB", "10MiB" or "2GB"

    error: unknown key `max_conections` in `[limits]`
      --> lockgate.toml:13:1
       |
    13 | max_conections = 10
       | ^^^^^^^^^^^^^^
       |
       = help: did you mean `max_connections`?

    error: `https://www.example.com/` is not a domain name
      --> lockgate.toml:16:8
       |
    16 | name = "https://www.example.com/"
       |        ^^^^^^^^^^^^^^^^^^^^^^^^^^
       |
       = help: write "www.example.com"

    error: no plan is called `gold`
      --> lockgate.toml:17:8
       |
    17 | plan = "gold"
       |        ^^^^^^
       |
       = help: there are `basic`, `enterprise` and `pro`

    error: unknown key `orgin` in `[[domain]]`
      --> lockgate.toml:18:1
       |
    18 | orgin = "http://10.0.0.2:8080"
       | ^^^^^
       |
       = help: did you mean `origin`?

    error: `max_body` must be a size, not true or false
      --> lockgate.toml:19:12
       |
    19 | max_body = true
       |            ^^^^
       |
       = help: write bytes, or a whole number and a unit, as in "16KiB", "10MiB" or "2GB", or "unlimited"
    "#);
}

#[test]
fn two_domains_of_one_name_are_shown_together() {
    let first = domain("");
    let again = domain("").replace("www.example.com", "WWW.Example.COM.");
    assert_snapshot!(check(&format!("{first}{again}")), @r#"
    error: two domains are called `www.example.com`
     --> lockgate.toml:6:8
      |
    2 | name = "www.example.com"
      |        ----------------- first here
    ...
    6 | name = "WWW.Example.COM."
      |        ^^^^^^^^^^^^^^^^^^ again here
      |
      = help: make them one `[[domain]]`
    "#);
    let far = "\n".repeat(50);
    assert_snapshot!(check(&format!("{first}{far}{again}")), @r#"
    error: two domains are called `www.example.com`
      --> lockgate.toml:56:8
       |
    56 | name = "WWW.Example.COM."
       |        ^^^^^^^^^^^^^^^^^^ again here
       |
      ::: lockgate.toml:2:8
       |
     2 | name = "www.example.com"
       |        ----------------- first here
       |
       = help: make them one `[[domain]]`
    "#);
}

#[test]
fn tables_are_told_by_their_brackets() {
    assert_snapshot!(check(r#"
fallback = "certs/fallback.pem"
[[listen]]
https = ["[::]:443"]
[domain]
name = "www.example.com"
"#), @r#"
    error: `fallback` must be a table, not a string
     --> lockgate.toml:2:12
      |
    2 | fallback = "certs/fallback.pem"
      |            ^^^^^^^^^^^^^^^^^^^^
      |
      = help: write `[fallback]` on a line of its own, once, and its keys below

    error: `listen` must be a table, not an array
     --> lockgate.toml:3:1
      |
    3 | [[listen]]
      | ^^^^^^^^^^
      |
      = help: write `[listen]` on a line of its own, once, and its keys below

    error: `domain` can be written several times
     --> lockgate.toml:5:1
      |
    5 | [domain]
      | ^^^^^^^^
      |
      = help: write `[[domain]]`, in two brackets, on a line of its own, and its keys below
    "#);
}

#[test]
fn addresses_are_taken_once() {
    assert_snapshot!(check(r#"
[listen]
https = ["[::]:443", "[::]:443"]
http = ["0.0.0.0:443", "127.0.0.1:9180"]
metrics = "[::ffff:127.0.0.1]:9180"
"#), @r#"
    error: `[::]:443` is written twice
     --> lockgate.toml:3:22
      |
    3 | https = ["[::]:443", "[::]:443"]
      |          ----------  ^^^^^^^^^^ again here
      |          |
      |          first here
      |
      = help: write it once

    error: `0.0.0.0:443` is taken by `https` and `http`
     --> lockgate.toml:4:9
      |
    3 | https = ["[::]:443", "[::]:443"]
      |                      ---------- first here
    4 | http = ["0.0.0.0:443", "127.0.0.1:9180"]
      |         ^^^^^^^^^^^^^ again here
      |
      = help: write another port for one of them

    error: `127.0.0.1:9180` is taken by `http` and `admin`'s default
     --> lockgate.toml:4:24
      |
    4 | http = ["0.0.0.0:443", "127.0.0.1:9180"]
      |                        ^^^^^^^^^^^^^^^^
      |
      = help: write another port for one of them

    error: `[::ffff:127.0.0.1]:9180` is taken by `admin`'s default and `metrics`
     --> lockgate.toml:5:11
      |
    5 | metrics = "[::ffff:127.0.0.1]:9180"
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: write another port for one of them
    "#);
}

#[test]
fn the_default_site_is_a_domain() {
    let listen = |name: &str| format!("[listen]\ndefault = \"{name}\"\n");
    let default = |name: &str| config(&(listen(name) + &domain(""))).listen.default.unwrap();
    assert_eq!(default("WWW.example.com").as_str(), "www.example.com");
    assert_snapshot!(check(&(listen("example.com") + &domain(""))), @r#"
    error: the default site `example.com` is none of the domains
     --> lockgate.toml:2:11
      |
    2 | default = "example.com"
      |           ^^^^^^^^^^^^^
      |
      = help: write the `name` of a `[[domain]]`, or leave `default` out
    "#);
    let wildcard = domain("").replace("www.", "*.");
    assert_eq!(wrong(&(listen("www.example.com") + &wildcard)).1, "write \"*.example.com\", the domain that serves it");
    // Nothing is said of it where a domain could not be read.
    assert_eq!(
        wrong(&(listen("www.example.com") + &domain("").replace("www.", ".."))).0,
        "`..example.com` is not a domain name"
    );
}

#[test]
fn a_broken_pair_is_shown_where_it_is_written() {
    let text = "[fallback]\ncert = \"f.pem\"\nkey = \"f.key\"\n".to_owned()
        + &domain("[[domain.certificate]]\ncert = \"certs/www.pem\"\n# its key\nkey = \"certs/www.key\"");
    let loaded = load_text(Path::new("lockgate.toml"), text).unwrap();
    let [fallback, own] = loaded.pairs.as_slice() else { panic!("{:?}", loaded.pairs) };
    assert_eq!((&fallback.domain, own.domain.as_ref().unwrap().as_str()), (&None, "www.example.com"));
    let mut diagnostics = Diagnostics::new();
    diagnostics.push(loaded.broken_pair(own, "the key does not fit the certificate", "name the key it was made with"));
    diagnostics.push(loaded.broken_part(fallback, PairPart::Key, "`f.key` does not exist", "create it"));
    assert_snapshot!(diagnostics, @r#"
    error: the key does not fit the certificate
      --> lockgate.toml:7:1
       |
     7 | [[domain.certificate]]
       | ^^^^^^^^^^^^^^^^^^^^^^
     8 | cert = "certs/www.pem"
       |        ---------------
     9 | # its key
    10 | key = "certs/www.key"
       |       ---------------
       |
       = help: name the key it was made with

    error: `f.key` does not exist
     --> lockgate.toml:3:7
      |
    3 | key = "f.key"
      |       ^^^^^^^
      |
      = help: create it
    "#);
}

#[test]
fn a_flood_of_faults_is_counted() {
    let text: String = (0..10_010).map(|n| format!("key_{n} = 1\n")).collect();
    let diagnostics = load_text(Path::new("lockgate.toml"), text).unwrap_err();
    assert_eq!((diagnostics.len(), diagnostics.iter().count()), (10_010, 10_000));
}
