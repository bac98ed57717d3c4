//! Each value on its own: what is refused and how, and what is understood.

use std::net::SocketAddr;
use std::time::Duration;

use rstest::rstest;

use super::super::*;
use super::{config, domain, origin, wrong};

#[rstest]
#[case::text("shutdown_grace = \"30\"", "`shutdown_grace` has no unit", "write \"30s\"")]
#[case::number("shutdown_grace = 30", "`shutdown_grace` has no unit", "write \"30s\" for seconds")]
#[case::nothing(
    "shutdown_grace = \"0s\"",
    "`shutdown_grace` must be longer than nothing",
    "write a number and a unit, as in \"500ms\", \"30s\", \"1m 30s\" or \"2h\""
)]
#[case::ever("shutdown_grace = \"9000years\"", "`shutdown_grace` is too long", "write at most \"365days\"")]
#[case::words(
    "shutdown_grace = \"soon\"",
    "`soon` is not a time",
    "write a number and a unit, as in \"500ms\", \"30s\", \"1m 30s\" or \"2h\""
)]
#[case::workers(
    "workers = 2000",
    "`workers` is 2000, out of its range",
    "write an integer from 1 to 1024, or \"auto\""
)]
#[case::quoted("workers = \"4\"", "`workers` must be an integer, not a string", "write 4 without quotes, or \"auto\"")]
#[case::huge(
    "workers = 0xffffffffffffffffffffffffffffffffff",
    "`workers` is 0xffffffffffffffffffffffffffffffffff, out of its range",
    "write an integer from 1 to 1024, or \"auto\""
)]
#[case::choice(
    "on_broken_certificate = \"refused\"",
    "`on_broken_certificate` cannot be \"refused\"",
    "did you mean \"refuse\"? write \"fallback\" or \"refuse\""
)]
#[case::zone(
    "timezone = \"+08:00\"",
    "no time zone is called `+08:00`",
    "write an IANA name such as \"Asia/Shanghai\", \"Europe/Berlin\" or \"UTC\""
)]
#[case::blank("data_dir = \" \"", "`data_dir` is empty", "write a value, or leave `data_dir` out")]
#[case::list(
    "include = \"domains.d/*.toml\"",
    "`include` must be an array of strings, not a string",
    "put it in brackets: `include = [\"domains.d/*.toml\"]`"
)]
#[case::later("[package]\nname = \"gold\"", "`package` is not supported by this version of lockgate", "leave it out")]
#[case::access_log_path(
    "[access_log]\nformat = \"json\"",
    "`path` is missing in `[access_log]`",
    "write `path = \"/var/log/lockgate/access.log\"`"
)]
#[case::access_log_nowhere(
    "[access_log]\npath = \"\"",
    "`path` is empty",
    "write \"/var/log/lockgate/access.log\" or \"stdout\", or leave `[access_log]` out"
)]
#[case::access_log_directory(
    "[access_log]\npath = \"/tmp\"",
    "`/tmp` is a directory",
    "name a file in it, as in \"/var/log/lockgate/access.log\", or write \"stdout\""
)]
#[case::access_log_directory_to_be(
    "[access_log]\npath = \"logs/\"",
    "`logs/` is a directory",
    "name a file in it, as in \"/var/log/lockgate/access.log\", or write \"stdout\""
)]
#[case::access_log_format(
    "[access_log]\npath = \"stdout\"\nformat = \"combine\"",
    "`format` cannot be \"combine\"",
    "did you mean \"combined\"? write \"json\" or \"combined\""
)]
#[case::access_log_key(
    "[access_log]\npath = \"stdout\"\nlevel = \"info\"",
    "unknown key `level` in `[access_log]`",
    "`level` belongs in `[log]`"
)]
#[case::astray(
    "[listen]\ntimezone = \"UTC\"",
    "unknown key `timezone` in `[listen]`",
    "`timezone` belongs at the top of the file, above the first `[table]`"
)]
#[case::astray("https = []", "unknown key `https` at the top level", "`https` belongs in `[listen]`")]
#[case::unknown("[log]\ncolour = true", "unknown key `colour` in `[log]`", "the keys here are `level` and `format`")]
#[case::level(
    "[log]\nlevel = \"trace\"",
    "`level` cannot be \"trace\"",
    "write \"error\" or \"warn\" or \"info\" or \"debug\""
)]
#[case::header(
    "[limits]\nmax_header = 100",
    "`max_header` is 100, out of its range",
    "write a size from \"4KiB\" to \"1MiB\""
)]
#[case::none(
    "[listen]\nhttps = []",
    "`https` is empty: no domain could be served",
    "write \"[::]:443\", or leave `https` out"
)]
#[case::network(
    "[listen]\ntrusted_proxies = [\"10.0.0.0/33\"]",
    "`10.0.0.0/33` is neither an IP address nor a network",
    "write an address or a network, as in \"10.0.0.5\", \"10.0.0.0/8\" or \"fd00::/8\""
)]
#[case::qps("[plans.gold]\nburst = 10", "`max_qps` is missing in `[plans.NAME]`", "write `max_qps = 10`")]
#[case::qps("[plans.gold]\nmax_qps = 0", "`max_qps` is 0, out of its range", "write an integer from 1 to 1000000")]
#[case::delay(
    "[plans.gold]\nmax_qps = 10\nthrottle = \"delay\"",
    "`throttle = \"delay\"` is not supported by this version of lockgate, which only rejects",
    "write \"reject\", or leave `throttle` out"
)]
#[case::plan_name(
    "[plans.\"\"]\nmax_qps = 10",
    "`` cannot be the name of a plan",
    "write 1 to 64 letters (a to z), digits, `-` or `_`, as in `[plans.starter]`"
)]
#[case::plan_name_with_a_quote(
    "[plans.'go\"ld']\nmax_qps = 10",
    "`go\"ld` cannot be the name of a plan",
    "write 1 to 64 letters (a to z), digits, `-` or `_`, as in `[plans.starter]`"
)]
#[case::plan_name_beyond_ascii(
    "[plans.'größer']\nmax_qps = 10",
    "`größer` cannot be the name of a plan",
    "write 1 to 64 letters (a to z), digits, `-` or `_`, as in `[plans.starter]`"
)]
#[case::pair("[fallback]\ncert = \"a.pem\"", "`key` is missing in `[fallback]`", "write `key = \"certs/www.key\"`")]
fn values_at_the_top(#[case] text: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(text), (message.to_owned(), remedy.to_owned()));
}

#[rstest]
#[case(":443", "write \"[::]:443\" for all addresses")]
#[case("*:8443", "write \"[::]:8443\" for all addresses")]
#[case("8443", "write \"[::]:8443\"")]
#[case("localhost:8443", "write \"127.0.0.1:8443\"")]
#[case("10.0.0.1", "write \"10.0.0.1:443\"")]
#[case("::1", "write \"[::1]:443\"")]
#[case("fd00:::8443", "write \"[fd00::]:8443\"")]
#[case("fd00::2:3:4:5:6:7:8443", "write \"[fd00::2:3:4:5:6:7]:8443\"")]
#[case("https://10.0.0.1:443", "write the address alone, without a scheme, as in \"[::]:443\"")]
#[case("10.0.0.1:70000", "write a port from 0 to 65535")]
#[case("www.example.com:443", "write an IP address of this machine and a port, or \"[::]:443\" for all addresses")]
fn addresses_are_an_ip_and_a_port(#[case] written: &str, #[case] remedy: &str) {
    let (message, said) = wrong(&format!("[listen]\nhttps = [\"{written}\"]"));
    assert_eq!((message, said.as_str()), (format!("`{written}` is not an address and a port"), remedy));
}

#[rstest]
#[case::plan("plan = \"pros\"", "no plan is called `pros`", "did you mean \"pro\"?")]
#[case::plan("plan = \"gold\"", "no plan is called `gold`", "there are `basic`, `enterprise` and `pro`")]
#[case::hsts(
    "hsts = \"on\"",
    "`hsts` needs max-age with a number of seconds",
    "write \"max-age=31536000\", the seconds of a year"
)]
#[case::hsts(
    "hsts = \"max-age=1\\nX: y\"",
    "`hsts` cannot be sent as a header field",
    "write \"max-age=31536000\", the seconds of a year"
)]
#[case::body("max_body = \"10M\"", "`10M` is not a size", "write \"10MiB\", or \"unlimited\"")]
#[case::body("max_body = \"10mib\"", "`10mib` is not a size", "write \"10MiB\", or \"unlimited\"")]
#[case::body(
    "max_body = 0",
    "`max_body` is 0 and would refuse every body",
    "write a size such as \"10MiB\", or \"unlimited\""
)]
#[case::body(
    "max_body = -1",
    "`-1` is not a size",
    "write bytes, or a whole number and a unit, as in \"16KiB\", \"10MiB\" or \"2GB\", or \"unlimited\""
)]
#[case::tls(
    "origin_tls = { insecure = true }",
    "`origin_tls` without TLS: the origin is `http`",
    "write an `https` origin, or leave it out"
)]
#[case::timeouts(
    "timeouts = \"5s\"",
    "`timeouts` must be a table, not a string",
    "write `timeouts = { connect = ... }`"
)]
#[case::timeouts("timeouts = { conect = \"5s\" }", "unknown key `conect` in `timeouts`", "did you mean `connect`?")]
#[case::pair(
    "[[domain.certificate]]\nkey = \"a.key\"",
    "`cert` is missing in `[[domain.certificate]]`",
    "write `cert = \"certs/www.pem\"`"
)]
#[case::pair(
    "[domain.certificate]\ncert = \"a.pem\"\nkey = \"a.key\"",
    "`certificate` can be written several times",
    "write `[[domain.certificate]]`, in two brackets, on a line of its own, and its keys below"
)]
#[case::later("unbound = \"allow\"", "`unbound` is not supported by this version of lockgate", "leave it out")]
fn values_of_a_domain(#[case] lines: &str, #[case] message: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&domain(lines)), (message.to_owned(), remedy.to_owned()));
}

#[rstest]
#[case("\"10.0.0.2:8080\"", "write \"http://10.0.0.2:8080\"")]
#[case("\"http://10.0.0.2:8080/app\"", "requests keep their own path and query: write \"http://10.0.0.2:8080\"")]
#[case("\"http://10.0.0.2/?a=b\"", "requests keep their own path and query: write \"http://10.0.0.2\"")]
#[case("\"http://user:secret@10.0.0.2\"", "leave out the user name and password: lockgate does not log in to origins")]
#[case("\"http://fd00::2:8080\"", "write host and port, as in \"http://10.0.0.2:8080\" or \"http://[fd00::2]:8080\"")]
#[case("\"http://10.0.0.2:0\"", "the port is a number from 1 to 65535")]
#[case("\"http://10.0.0.2:+80\"", "the port is a number from 1 to 65535")]
#[case("\"http://\"", "its host must be a host name or an IP address")]
#[case("\"http://*.example.com\"", "its host must be a host name or an IP address")]
#[case("\"ftp://10.0.0.2\"", "the scheme is `http` or `https`")]
#[case("\"h2c://10.0.0.2:8080\"", "write \"http://10.0.0.2:8080\" if it speaks HTTP/1.1 too")]
#[case("[\"http://10.0.0.2\", \"http://10.0.0.3\"]", "write one")]
#[case("[]", "write \"http://10.0.0.2:8080\" or \"https://origin.example.com\"")]
#[case("8080", "write \"http://10.0.0.2:8080\" or \"https://origin.example.com\"")]
fn origins_are_urls(#[case] value: &str, #[case] remedy: &str) {
    assert_eq!(wrong(&origin(value)).1, remedy);
}

#[rstest]
#[case("\"http://10.0.0.2\"", "10.0.0.2", 80)]
#[case("[\"http://10.0.0.2:8080/\"]", "10.0.0.2", 8080)]
#[case("\"https://Origin.Example.COM\"", "origin.example.com", 443)]
#[case("\"http://[FD00::2]:8080\"", "fd00::2", 8080)]
#[case("\"http://backend_1:3000\"", "backend_1", 3000)]
fn origins_have_a_host_and_a_port(#[case] value: &str, #[case] host: &str, #[case] port: u16) {
    let origin = &config(&origin(value)).domains[0].origin;
    assert_eq!((origin.host.as_str(), origin.port), (host, port));
}

#[test]
fn what_is_written_is_what_is_meant() {
    let config = config(
        r#"
data_dir = "state"
workers = 4
[listen]
https = ["127.0.0.1:0", "127.0.0.1:0"]
http = []
trusted_proxies = ["10.1.2.3/8", "::ffff:192.0.2.1"]
admin_hosts = ["Console.Example"]
[limits]
max_header = "8KiB"
max_connections = 5
max_connections_per_client = "unlimited"
[log]
level = "warn"
format = "json"
[plans.pro]
max_qps = 50
[plans.gold]
max_qps = 500
burst = 7
throttle = "reject"
[[domain]]
name = "*.Example.com"
tenant = "acme"
plan = "gold"
origin = "https://origin.example"
origin_tls = { sni = "other.example", insecure = true }
hsts = "max-age=1; includeSubDomains"
max_body = "10MB"
timeouts = { connect = "1s 500ms" }
"#,
    );
    assert_eq!((config.data_dir.to_str(), config.workers), (Some("state"), Some(4)));
    assert_eq!(config.listen.https, ["127.0.0.1:0".parse::<SocketAddr>().unwrap(); 2]);
    assert!(config.listen.http.is_empty());
    let networks: Vec<_> = config.listen.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32"]);
    assert_eq!(config.listen.admin_hosts, ["console.example"]);
    assert_eq!((config.limits.max_header_bytes, config.limits.max_connections), (8192, Some(5)));
    assert_eq!(config.limits.max_connections_per_client, None);
    assert_eq!(config.log, Log { level: tracing::Level::WARN, json: true });
    assert_eq!((config.plans["pro"].max_qps, config.plans["pro"].burst), (50, 50));
    let site = &config.domains[0];
    assert_eq!(site.terms.plan.as_ref().map(|plan| (plan.max_qps, plan.burst)), Some((500, 7)));
    assert_eq!((site.name.as_str(), site.terms.max_body_bytes), ("*.example.com", Some(10_000_000)));
    assert_eq!(site.terms.timeouts.connect, Duration::from_millis(1500));
    assert_eq!(site.terms.timeouts.response, Duration::from_secs(60));
    assert_eq!((site.origin.tls.sni.as_deref(), site.origin.tls.insecure), (Some("other.example"), true));
}

#[rstest]
#[case::alike("", "", [true, true, true])]
#[case::alike_in_other_words("max_body = \"1MB\"", "max_body = \"1000kB\"", [true, true, true])]
#[case::other_terms("plan = \"basic\"", "plan = \"pro\"", [false, true, true])]
#[case::another_origin("", "origin_tls = { insecure = true }", [true, false, true])]
#[case::another_tenant("tenant = \"a\"", "tenant = \"b\"", [true, true, false])]
fn of_what_domains_say_alike_there_is_one(#[case] one: &str, #[case] other: &str, #[case] expected: [bool; 3]) {
    let domain = |name: &str, lines: &str| {
        let tenant = if lines.contains("tenant") { "" } else { "tenant = \"t\"\n" };
        format!("[[domain]]\nname = \"{name}.example.com\"\norigin = \"https://o.example\"\n{tenant}{lines}\n")
    };
    let config = config(&[domain("a", one), domain("b", other)].concat());
    let (a, b) = (&config.domains[0], &config.domains[1]);
    let text = |spec: &SiteSpec| spec.tenant.as_ref().unwrap().as_str().as_ptr();
    let is_one = [Arc::ptr_eq(&a.terms, &b.terms), Arc::ptr_eq(&a.origin, &b.origin), text(a) == text(b)];
    assert_eq!(is_one, expected);
}
