//! `lockgate plan recommend` on access logs (SPEC 4): real ones of nginx, and others as their servers write them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::*;

fn recommend(args: &[&str]) -> Output {
    lockgate(&[&["plan", "recommend"], args].concat())
}

/// `--json` of these arguments, which must succeed.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let output = recommend(&[args, &["--json"]].concat());
    assert_eq!(output.code, 0, "{}", output.text());
    serde_json::from_str(&output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A log in a folder of its own.
fn log(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join(name);
    fs::write(&file, content).unwrap();
    (dir, file)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn common(at: &str) -> String {
    format!("192.0.2.1 - - [{at}] \"GET / HTTP/1.1\" 200 5 \"-\" \"curl/8\"\n")
}

/// Requests of three kinds of visitors, over one connection.
fn visit(nginx: &Nginx, host: &str, count: usize) {
    let agents = ["curl/8", "\"quoted\" [agent]", "\\x22 \u{e9} - -"];
    let mut stream = TcpStream::connect(nginx.url().trim_start_matches("http://")).unwrap();
    for number in 0..count {
        let last = if number + 1 == count { "close" } else { "keep-alive" };
        let agent = agents[number % agents.len()];
        let path = if number % 2 == 0 { "/?a[0]=\"x\"" } else { "/nowhere" };
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: {last}\r\n\r\n")
            .unwrap();
    }
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// A log's highest 10 seconds for lines with `host` in front, counted the plain way.
fn peak(log: &str, host: &str) -> u64 {
    let mut buckets = BTreeMap::<i64, u64>::new();
    for line in log.lines().filter(|line| line.starts_with(host)) {
        let at = line.split(['[', ']']).nth(1).unwrap();
        let at = jiff::Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", at).unwrap();
        *buckets.entry(at.as_second().div_euclid(10)).or_default() += 1;
    }
    buckets.into_values().max().unwrap()
}

#[test]
fn an_nginx_log_is_read_however_it_is_packed() {
    let nginx = Nginx::start_logging();
    visit(&nginx, "www.example.test", 211);
    visit(&nginx, "Shop.Example.test", 20);
    // A line is written when the client has its answer already.
    let vhost = eventually("all lines", || {
        let log = fs::read_to_string(nginx.log("vhost_combined.log")).ok()?;
        (log.lines().count() == 231).then_some(log)
    });

    let whole = json(&["--log", text(&nginx.log("vhost_combined.log"))]);
    assert_eq!((&whole["lines"], &whole["skipped_lines"]), (&231.into(), &0.into()), "{whole}");
    for (at, host, requests) in [(0, "www.example.test", 211), (1, "shop.example.test", 20)] {
        let found = &whole["hosts"][at];
        assert_eq!((&found["host"], &found["requests"]), (&host.into(), &requests.into()), "{whole}");
        let peak_qps = (peak(&vhost, host) as f64 / 10.0).max(1.0);
        assert_eq!(found["peak_qps"].as_f64(), Some(peak_qps), "{found}");
        let plan = ["basic", "pro"].into_iter().zip([10.0, 30.0]).find(|(_, limit)| peak_qps <= *limit).unwrap().0;
        assert_eq!(found["plan"], plan);
    }

    // Cut anywhere, packed piece by piece, given in the wrong order, and through a pipe.
    let (first, second) = vhost.split_at(vhost.match_indices('\n').nth(99).unwrap().0 + 1);
    let (third, fourth) = second.split_at(second.find('\n').unwrap() + 1);
    let dir = TempDir::new().unwrap();
    let (one, two) = (dir.path().join("access.log.1"), dir.path().join("access.log"));
    fs::write(&one, [gzip(fourth.as_bytes()), gzip(third.as_bytes())].concat()).unwrap();
    fs::write(&two, zstd::encode_all(first.as_bytes(), 3).unwrap()).unwrap();
    assert_eq!(json(&["--log", text(&one), text(&two)]), whole);
    assert_eq!(json(&["--log", text(&two), "--log", text(&one)]), whole);
    fs::write(&one, gzip(vhost.as_bytes())).unwrap();
    let mut piped = Command::new(env!("CARGO_BIN_EXE_lockgate"));
    piped.args(["plan", "recommend", "--json", "--log", "-"]).stdin(File::open(&one).unwrap());
    let piped = piped.output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&piped.stdout).unwrap(), whole);

    // The same traffic in a log that does not say whose it is.
    let combined = json(&["--host", "all.example.test", "--log", text(&nginx.log("combined.log"))]);
    assert_eq!(
        (&combined["hosts"][0]["host"], &combined["hosts"][0]["requests"]),
        (&"all.example.test".into(), &231.into())
    );
    assert_eq!(combined["hosts"][0]["peak_qps"].as_f64(), Some(peak(&vhost, "") as f64 / 10.0));
}

#[test]
fn caddys_log_counts_when_requests_arrived() {
    let entry = |ts: &str, duration: &str| {
        format!(
            "{{\"level\":\"info\",\"ts\":{ts},\"logger\":\"http.log.access.log0\",\"msg\":\"handled request\",\"request\":\
             {{\"remote_ip\":\"192.0.2.1\",\"proto\":\"HTTP/2.0\",\"method\":\"GET\",\"host\":\"Example.test:8443\",\
             \"uri\":\"/\"}},\"duration\":{duration},\"size\":12,\"status\":200}}\n"
        )
    };
    let (_dir, file) = log("caddy.json", entry("1700000009.5", "0.1") + &entry("1700000010.5", "0.75").repeat(119));
    let report = json(&["--log", text(&file)]);
    let host = &report["hosts"][0];
    assert_eq!(
        (&host["host"], &host["requests"], &host["peak_qps"]),
        (&"example.test".into(), &120.into(), &12.0.into())
    );
    assert_eq!((&host["peak_at"], &host["plan"]), (&"2023-11-14T22:13:20+00:00".into(), &"pro".into()));
}

#[test]
fn lockgates_own_log_counts_by_meter() {
    let entry = |ts: &str, host: &str, domain: &str| {
        format!(
            "{{\"ts\":\"{ts}\",\"domain\":{domain},\"host\":\"{host}\",\"client\":\"192.0.2.1\",\"method\":\"GET\",\
             \"uri\":\"/x\",\"protocol\":\"HTTP/2.0\",\"status\":200,\"bytes\":1,\"duration_ms\":15000.5,\"throttled\":false}}\n"
        )
    };
    let lines = entry("2026-06-01T15:59:59.999Z", "a.shop.test", "\"*.shop.test\"").repeat(60)
        + &entry("2026-06-01T15:59:50.000Z", "b.shop.test", "\"*.shop.test\"").repeat(51)
        + &entry("2026-06-01T16:00:00.000Z", "b.shop.test", "\"*.shop.test\"")
        + &entry("2026-06-01T16:00:00.000Z", "nobody.test", "null");
    let (_dir, file) = log("access.log", lines);
    let report = json(&["--timezone", "Asia/Shanghai", "--log", text(&file)]);
    assert_eq!((&report["skipped_lines"], &report["passed_over_lines"]), (&0.into(), &1.into()));
    let host = &report["hosts"][0];
    assert_eq!((&host["host"], &host["requests"]), (&"*.shop.test".into(), &112.into()));
    let day = |date: &str, peak_qps: f64, peak_at: &str, requests: u64| serde_json::json!({ "date": date, "peak_qps": peak_qps, "peak_at": peak_at, "requests": requests });
    let days = [
        day("2026-06-01", 11.1, "2026-06-01T23:59:50+08:00", 111),
        day("2026-06-02", 1.0, "2026-06-02T00:00:00+08:00", 1),
    ];
    assert_eq!(host["days"], serde_json::json!(days));
    assert_eq!(
        (&host["plan"], &host["plan_with_grace"], &host["needed_qps"]),
        (&"pro".into(), &"pro".into(), &12.into())
    );
    let basic = serde_json::json!({
        "plan": "basic", "max_qps": 10, "alerts_over": 0, "alerts_throttled": 1, "throttled_secs": 10
    });
    assert_eq!(host["plans"][0], basic);
}

#[test]
fn a_wildcard_that_is_asked_for_sums_up_what_it_covers() {
    let line = |host: &str| format!("{host}:443 {}", common("01/Jun/2026:12:00:00 +0000"));
    let lines = line("a.shop.test").repeat(70) + &line("b.shop.test").repeat(70) + &line("shop.test");
    let (_dir, file) = log("access.log", lines);
    let report = json(&["*.shop.test", "--log", text(&file)]);
    assert_eq!(report["hosts"].as_array().unwrap().len(), 1);
    assert_eq!((&report["hosts"][0]["requests"], &report["hosts"][0]["plan"]), (&140.into(), &"pro".into()));
    let unknown = recommend(&["shpo.test", "--log", text(&file)]);
    assert_eq!(unknown.code, 1, "{}", unknown.text());
    assert!(unknown.stderr.contains("did you mean `shop.test`?"), "{}", unknown.stderr);
}

#[test]
fn plans_and_zone_are_the_configurations_unless_told_otherwise() {
    let (_dir, file) = log("example.test.log", common("01/Jun/2026:23:30:00 +0000").repeat(45));
    let (_config, config) = log("lockgate.toml", "timezone = 'Asia/Shanghai'\n[plans.starter]\nmax_qps = 4\n");
    let found = |args: &[&str]| {
        let report = json(&[args, &["--log", text(&file)]].concat());
        let host = &report["hosts"][0];
        assert_eq!(host["host"], "example.test");
        let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
        [&host["days"][0]["date"], &host["plan"], &host["plan_with_grace"]].map(word).join(" ")
    };
    assert_eq!(found(&[]), "2026-06-01 basic basic");
    assert_eq!(found(&["-c", text(&config)]), "2026-06-02 basic basic");
    assert_eq!(found(&["-c", text(&config), "--timezone", "UTC"]), "2026-06-01 basic basic");
    assert_eq!(found(&["-c", text(&config), "--plan", "starter=5"]), "2026-06-02 starter starter");
    assert_eq!(found(&["--plan", "small=4", "--plan", "tiny=1", "--plan", "fine=5"]), "2026-06-01 fine fine");
}

#[test]
fn garbage_is_counted_and_told_of() {
    let good = common("01/Jun/2026:12:00:00 +0000");
    let long = "y".repeat(200_000);
    let lines = format!(
        "{good}# comment\n{{\"half\n{good}{long}\n{}\n{good}\u{0}\u{1}\n{}",
        common("99/Jun/2026:12:00:00 +0000"),
        &good[..60]
    );
    let (_dir, file) = log("access.log", lines);
    let report = json(&["--log", text(&file)]);
    assert_eq!((&report["hosts"][0]["host"], &report["hosts"][0]["requests"]), (&"access.log".into(), &3.into()));
    assert_eq!((&report["lines"], &report["skipped_lines"]), (&10.into(), &6.into()), "{report}");
    let lines: Vec<_> = report["skipped"].as_array().unwrap().iter().map(|s| s["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 5, 6, 9, 10]);
    assert!(
        report["skipped"][0]["file"].as_str().unwrap().ends_with("access.log")
            && report["skipped"][0]["why"].is_string()
    );
    let shown = recommend(&["--log", text(&file)]);
    assert_eq!(shown.code, 0);
    assert!(shown.stdout.contains("access.log:2: ") && shown.stdout.trim_end().ends_with('.'), "{}", shown.stdout);
}

#[test]
fn what_cannot_be_read_is_named_and_is_1() {
    let (dir, good) = log("access.log", common("01/Jun/2026:12:00:00 +0000"));
    for wrong in [dir.path().join("nowhere.log"), dir.path().to_owned()] {
        let output = recommend(&["--json", "--log", text(&good), text(&wrong)]);
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{}", output.text());
        assert!(output.stderr.contains(text(&wrong)), "{}", output.stderr);
    }
    let lines: String =
        (0..20_000).map(|n| common(&format!("01/Jun/2026:12:{:02}:{:02} +0000", n / 60 % 60, n % 60))).collect();
    let packed = gzip(lines.as_bytes());
    fs::write(&good, &packed[..packed.len() / 2]).unwrap();
    let output = recommend(&["--json", "--log", text(&good)]);
    assert_eq!(output.code, 1, "{}", output.text());
    assert!(output.stderr.contains(text(&good)) && output.stderr.contains("breaks off"), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let counted = report["hosts"][0]["requests"].as_u64().unwrap();
    assert!((1000..20_000).contains(&counted), "{report}");
    assert_eq!(report["unread"][0]["file"], text(&good));
}

#[rstest]
#[case::empty("")]
#[case::nothing_known("hello\nworld\n")]
fn nothing_to_go_by_is_1(#[case] lines: &str) {
    let (_dir, file) = log("access.log", lines);
    let output = recommend(&["--json", "--log", text(&file)]);
    assert_eq!(output.code, 1, "{}", output.text());
    assert!(output.stderr.contains("no request was found"), "{}", output.stderr);
    assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap()["hosts"], serde_json::json!([]));
}

#[rstest]
#[case::plan_without_qps(&["--plan", "basic"], "NAME=QPS")]
#[case::plan_of_nothing(&["--plan", "basic=0"], "1")]
#[case::zone(&["--timezone", "Asia/Shangai"], "Asia/Shanghai")]
#[case::host(&["--host", "a b"], "a b")]
#[case::domain(&["*.*.test"], "*.*.test")]
#[case::data_dir(&["--data-dir", "/tmp"], "--data-dir")]
#[case::configuration(&["-c", "/nonexistent/lockgate.toml"], "/nonexistent/lockgate.toml")]
fn wrong_usage_is_2(#[case] args: &[&str], #[case] says: &str) {
    let (_dir, file) = log("access.log", common("01/Jun/2026:12:00:00 +0000"));
    let output = recommend(&[args, &["--log", text(&file)]].concat());
    assert_eq!(output.code, 2, "{}", output.text());
    assert!(output.stderr.contains(says), "{}", output.stderr);
}

#[test]
fn a_host_is_of_a_log() {
    assert_eq!(recommend(&["--host", "a.test"]).code, 2);
    assert_eq!(recommend(&["-c", "/nonexistent/lockgate.toml"]).code, 2);
}

#[test]
fn a_file_named_twice_is_counted_once() {
    let (dir, file) = log("access.log", common("01/Jun/2026:12:00:00 +0000"));
    let link = dir.path().join("link.log");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let output = recommend(&["--json", "--log", text(&file), text(&link)]);
    assert!(output.code == 0 && output.stderr.contains("link.log"), "{}", output.text());
    assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap()["hosts"][0]["requests"], 1);
}

/// What of a host must be the same however it was found out.
fn days_of(hosts: &Value, host: &str) -> Value {
    let found = hosts.as_array().unwrap().iter().find(|found| found["host"] == host).unwrap();
    serde_json::json!([found["requests"], found["days"], found["plan"], found["plan_with_grace"]])
}

#[test]
fn lockgates_own_log_and_its_history_give_the_very_peaks_that_were_metered() {
    let origin = Nginx::start();
    let setup = Lockgate::serving("www.example.test", &origin).plan("basic").domain("*.example.test", &origin);
    let setup = setup.set("timezone", "'Asia/Kathmandu'").set("access_log.path", "'access.log'");
    // Before midnight of Kathmandu, five hours and three quarters east; the clock goes on, over bucket edges.
    let gate = setup.clock("2026-06-01 18:14:54").start();
    let load = |url, count, args: &[&str]| assert_eq!(h2load(&gate, url, count, 4, args).done, count);
    load("https://www.example.test/hello.txt", 700, &["-m5"]);
    load("https://a.example.test/hello.txt", 90, &["--h1"]);
    gate.clock().flow_from("2026-06-01 18:14:59");
    load("https://www.example.test/hello.txt", 1500, &["--h1"]);
    load("https://b.example.test/hello.txt", 130, &["-m2"]);
    gate.clock().flow_from("2026-06-01 18:20:03");
    // By now the plan's verdict holds: what is refused has arrived all the same.
    load("https://www.example.test/hello.txt", 400, &["-m5"]);
    gate.clock().flow_from("2026-06-01 18:20:30");
    let config = gate.config_file();
    // By the clock of the proxy: a month ago is a month before June.
    let ask = |args: &[&str]| -> Value {
        let mut command = Command::new(program());
        gate.clock().govern(command.args(args).args(["--json", "-c", text(&config)]));
        let asked = run(&mut command);
        serde_json::from_str(&asked.stdout).unwrap_or_else(|_| panic!("{}", asked.text()))
    };
    let metered = |domain| {
        let shown = ask(&["usage", "show", domain]);
        let days = shown["domains"][0]["days"].as_array().unwrap().clone();
        let day = |day: &Value| serde_json::json!([day["date"], day["peak_qps"], day["peak_at"], day["requests"]]);
        days.iter().map(day).collect::<Vec<_>>()
    };
    for (domain, requests) in [("www.example.test", 2600), ("*.example.test", 220)] {
        let metered = eventually("all that was sent", || {
            let days = metered(domain);
            (days.iter().map(|day| day[3].as_u64().unwrap()).sum::<u64>() == requests).then_some(days)
        });
        let log = gate.config_file().with_file_name("access.log");
        let logged = eventually("all lines", || {
            let report = ask(&["plan", "recommend", "--log", text(&log)]);
            let host = days_of(&report["hosts"], domain);
            (host[0] == requests).then_some(host)
        });
        let day = |day: &Value| serde_json::json!([day["date"], day["peak_qps"], day["peak_at"], day["requests"]]);
        assert_eq!(logged[1].as_array().unwrap().iter().map(day).collect::<Vec<_>>(), metered, "{domain}");
        assert_eq!(days_of(&ask(&["plan", "recommend"])["hosts"], domain), logged, "from history");
    }
}
