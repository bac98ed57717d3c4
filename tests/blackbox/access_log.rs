//! The access log (SPEC 6): one line for every request that is metered, whatever becomes of it, of the file and of the disk.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rstest::rstest;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::*;

const SITE: &str = "www.example.test";
const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
const NOON: &str = "2026-06-01 12:00:00";

/// A log in `access.log`, beside the configuration.
fn logging(setup: Setup) -> Setup {
    setup.set("access_log.path", "'access.log'")
}

/// A log whose lines are in the order in which requests end: each worker hands over its own.
fn in_order(setup: Setup) -> Setup {
    logging(setup).set("workers", "1")
}

fn file(gate: &Lockgate, name: &str) -> PathBuf {
    gate.config_file().with_file_name(name)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Waits for so many lines in `access.log`.
#[track_caller]
fn lines(gate: &Lockgate, count: usize) -> Vec<String> {
    let path = file(gate, "access.log");
    eventually(&format!("{count} lines"), || (text(&path).lines().count() >= count).then_some(()));
    let lines: Vec<_> = text(&path).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[track_caller]
fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// A line without its duration, which is checked, as `key=value` in the order written.
#[track_caller]
fn brief(line: &str) -> String {
    let entry = parsed(line);
    assert!(entry["duration_ms"].as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{line}");
    let (begin, rest) = line.split_once(",\"duration_ms\":").unwrap();
    format!("{begin}{}", rest.split_once(',').map(|(_, rest)| format!(",{rest}")).unwrap())
}

#[test]
fn a_line_says_all_that_is_known_of_a_request() {
    let gate =
        in_order(Lockgate::serving("*.example.test", Scripted::echo()).tenant("acme-gmbh").clock_stopped(NOON)).start();
    gate.clock().advance(5);
    let request = "POST /path?query=%20 HTTP/1.1\r\nHost: A.Example.Test:443\r\nContent-Length: 5\r\n\
                   Referer: https://\"quoted\"/\r\nUser-Agent: G\u{fc}nther\r\n\r\nhello";
    assert_eq!(gate.connect("a.example.test").ask(request).text(), "hello");
    H2::connect(&gate, "a.example.test").get("https://a.example.test/two", &[("user-agent", "h2")]).unwrap();
    let lines = lines(&gate, 2);
    let begin = r#"{"ts":"2026-06-01T12:00:05.000Z","domain":"*.example.test","host":"a.example.test","tenant":"acme-gmbh","client":"127.0.0.1","#;
    assert_eq!(
        brief(&lines[0]),
        format!(
            r#"{begin}"method":"POST","uri":"/path?query=%20","protocol":"HTTP/1.1","status":200,"bytes":5,"throttled":false,"referer":"https://\"quoted\"/","user_agent":"Günther"}}"#
        )
    );
    assert_eq!(
        brief(&lines[1]),
        format!(
            r#"{begin}"method":"GET","uri":"/two","protocol":"HTTP/2.0","status":200,"bytes":0,"throttled":false,"user_agent":"h2"}}"#
        )
    );
    let mode = fs::metadata(file(&gate, "access.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[test]
fn bytes_are_those_of_the_body_that_was_sent() {
    let origin = Nginx::start();
    origin.file("large", &noise(3_000_000, 1));
    let gate = in_order(Lockgate::serving(SITE, &origin)).start();
    let url = |path: &str| format!("https://{SITE}/{path}");
    let large = |more: &[&str]| more.iter().fold(gate.curl(&url("large")), |curl, arg| curl.arg(arg)).run();
    assert_eq!(large(&["--http1.1"]).body.len(), 3_000_000);
    assert_eq!(large(&["--http2"]).body.len(), 3_000_000);
    assert_eq!(large(&["--http2", "-r", "0-99"]).status, 206);
    assert_eq!(large(&["--http1.1", "-I"]).status, 200);
    assert_eq!(large(&["--http2", "-I"]).status, 200);
    assert_eq!(large(&["-H", "If-None-Match: *"]).status, 304);
    assert_eq!(gate.curl(&url("none")).run().status, 404);
    let lines = lines(&gate, 7);
    let found: Vec<_> =
        lines.iter().map(|line| parsed(line)).map(|l| (l["status"].as_u64(), l["bytes"].as_u64())).collect();
    let sizes = [(200, 3_000_000), (200, 3_000_000), (206, 100), (200, 0), (200, 0), (304, 0)];
    assert_eq!(found[..6], sizes.map(|(status, bytes)| (Some(status), Some(bytes))));
    assert!(found[6].0 == Some(404) && found[6].1 > Some(100), "{found:?}");
}

#[test]
fn what_ends_early_has_its_line_too() {
    let origin = Scripted::each(|request| match request.line() {
        line if line.contains("/broken") => b"nonsense\r\n\r\n".to_vec(),
        _ => response("fine"),
    });
    let setup = Lockgate::serving(SITE, Scripted::down()).domain("ok.example.test", &origin).plan("basic");
    let gate = logging(setup.clock_stopped(NOON)).start();
    let page = gate.get(SITE);
    assert_eq!(page.status, 502);
    let begin = parsed(&lines(&gate, 1)[0]);
    assert_eq!((&begin["status"], &begin["bytes"]), (&502.into(), &page.body.len().into()));
    assert_eq!(gate.get("ok.example.test/broken").status, 502);
    gate.get_many("ok.example.test", 110);
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_throttled", &[("domain", "ok.example.test")], 1.0);
    let statuses = gate.get_many("ok.example.test", 30);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused > 0);
    let lines = lines(&gate, 142);
    let throttled: Vec<_> = lines.iter().map(|line| parsed(line)).filter(|line| line["throttled"] == true).collect();
    assert_eq!(throttled.len(), refused);
    assert!(
        throttled
            .iter()
            .all(|l| l["status"] == 429 && l["ts"] == "2026-06-01T12:00:10.000Z" && l["bytes"].as_u64() > Some(0))
    );
}

#[test]
fn a_client_that_goes_away_is_499_or_has_less() {
    let gate = logging(
        Lockgate::serving(SITE, Scripted::silent()).domain("large.example.test", Scripted::ok(&"x".repeat(8 << 20))),
    )
    .start();
    let mut client = gate.connect(SITE);
    client.send(format!("GET /left HTTP/1.1\r\nHost: {SITE}\r\n\r\n"));
    gate.await_metric("lockgate_open_connections", &[("protocol", "http/1.1")], 1.0);
    drop(client);
    let left = parsed(&lines(&gate, 1)[0]);
    assert_eq!((&left["status"], &left["bytes"], &left["uri"]), (&499.into(), &0.into(), &"/left".into()));
    gate.await_metric("lockgate_requests_total", &[("domain", SITE), ("status", "4xx")], 1.0);
    let mut client = gate.connect("large.example.test");
    client.send("GET / HTTP/1.1\r\nHost: large.example.test\r\n\r\n");
    client.read_exact(&mut [0; 1000]).unwrap();
    drop(client);
    let cut = parsed(&lines(&gate, 2)[1]);
    assert_eq!(cut["status"], 200);
    assert!((1000..8 << 20).contains(&cut["bytes"].as_u64().unwrap()), "{cut}");
}

#[test]
fn what_is_not_metered_is_not_logged() {
    let gate =
        logging(Lockgate::serving(SITE, Scripted::ok("")).domain("other.example.test", Scripted::ok(""))).start();
    assert_eq!(gate.connect(SITE).ask("GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n").status, 421);
    assert_eq!(gate.connect(SITE).ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").status, 400);
    assert_eq!(plain_get(gate.http(), SITE, "/").status, 308);
    gate.get(SITE);
    assert_eq!(parsed(&lines(&gate, 1)[0])["status"], 200);
}

#[test]
fn a_tunnel_is_logged_when_it_opens() {
    let origin = Scripted::new(|peer| {
        peer.head()?;
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")?;
        peer.stall()
    });
    let gate = logging(Lockgate::serving(SITE, origin)).start();
    let mut client = gate.connect(SITE);
    let request = format!("GET /tunnel HTTP/1.1\r\nHost: {SITE}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.ask(request).status, 101);
    let line = parsed(&lines(&gate, 1)[0]);
    assert_eq!((&line["status"], &line["bytes"]), (&101.into(), &0.into()));
    drop(client);
    gate.await_metric("lockgate_open_connections", &[("protocol", "tunnel")], 0.0);
    lines(&gate, 1);
}

#[rstest]
#[case::http1(&["--h1"])]
#[case::http2(&["-m10"])]
fn there_are_as_many_lines_as_requests(#[case] protocol: &[&str]) {
    let gate = logging(Lockgate::serving(SITE, Nginx::start()).tenant("t")).start();
    assert_eq!(h2load(&gate, &format!("https://{SITE}/hello.txt"), 5000, 10, protocol), Load::all_good(5000));
    let lines = lines(&gate, 5000);
    assert!(lines.iter().all(|line| parsed(line)["bytes"] == 6 && line.ends_with('}')));
    assert_eq!(gate.metrics().sum("lockgate_requests_total", &DOMAIN), 5000.0);
    gate.await_metric("lockgate_access_log_lines_total", &[], 5000.0);
    assert_eq!(gate.metric("lockgate_access_log_dropped_lines_total", &[]), Some(0.0));
}

#[test]
fn rotating_under_load_loses_no_line() {
    let gate = logging(Lockgate::serving(SITE, Nginx::start())).start();
    let rotate = |n: usize| fs::rename(file(&gate, "access.log"), file(&gate, &format!("access.log.{n}"))).unwrap();
    let url = format!("https://{SITE}/hello.txt");
    let rotations = thread::scope(|scope| {
        let load = [vec!["--h1"], vec!["-m10"]].map(|args| {
            scope.spawn({
                let (gate, url) = (&gate, &url);
                move || h2load(gate, url, 10_000, 5, &args)
            })
        });
        let mut rotations = 0;
        while load.iter().any(|load| !load.is_finished()) {
            eventually("some lines", || (fs::metadata(file(&gate, "access.log")).ok()?.len() > 0).then_some(()));
            rotate(rotations);
            match rotations % 2 {
                0 => assert_eq!(gate.reload().code, 0),
                _ => {
                    let reloaded = gate.count_log(&["reloaded:"]);
                    gate.signal(Signal::HUP);
                    eventually("a reload", || (gate.count_log(&["reloaded:"]) > reloaded).then_some(()));
                }
            }
            // What the reload has left behind stays as it is.
            let old = file(&gate, &format!("access.log.{rotations}"));
            let then = fs::metadata(&old).unwrap().len();
            thread::sleep(Duration::from_millis(300));
            assert_eq!(fs::metadata(&old).unwrap().len(), then);
            rotations += 1;
        }
        load.into_iter().for_each(|load| assert_eq!(load.join().unwrap(), Load::all_good(10_000)));
        rotations
    });
    assert!(rotations > 1);
    gate.await_metric("lockgate_access_log_lines_total", &[], 20_000.0);
    let files = (0..rotations).map(|n| file(&gate, &format!("access.log.{n}"))).chain([file(&gate, "access.log")]);
    let all: String = files.map(|file| text(&file)).collect();
    assert!(all.lines().all(|line| parsed(line)["status"] == 200));
    assert_eq!(all.lines().count(), 20_000);
}

#[test]
fn a_reload_adds_changes_and_removes_the_log() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    gate.get(SITE);
    gate.reconfigure(logging);
    gate.get(&format!("{SITE}/json"));
    gate.reconfigure(|setup| setup.set("access_log.path", "'other.log'").set("access_log.format", "'combined'"));
    assert_eq!(parsed(&lines(&gate, 1)[0])["uri"], "/json");
    gate.get(&format!("{SITE}/combined"));
    gate.reconfigure(|setup| setup.unset("access_log"));
    assert!(text(&file(&gate, "other.log")).contains("\"GET /combined HTTP/1.1\" 200 5 \"-\" \"-\"\n"));
    gate.get(&format!("{SITE}/none"));
    gate.reconfigure(logging);
    gate.get(&format!("{SITE}/again"));
    assert_eq!(parsed(&lines(&gate, 2)[1])["uri"], "/again");
    assert_eq!(text(&file(&gate, "other.log")).lines().count(), 1);
}

#[test]
fn a_reload_whose_log_cannot_be_opened_changes_nothing() {
    let mut gate = logging(Lockgate::serving(SITE, Scripted::ok(""))).start();
    gate.rewrite(|setup| setup.set("access_log.path", "'missing/access.log'"));
    let output = gate.reload();
    assert_eq!(output.code, 2, "{}", output.text());
    assert!(output.text().contains("missing/access.log cannot be opened"), "{}", output.text());
    gate.get(SITE);
    lines(&gate, 1);
}

#[test]
fn standard_output_has_the_log_and_nothing_else() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("")).set("access_log.path", "'stdout'").start();
    gate.get_many(SITE, 3);
    gate.reconfigure(|setup| setup.set("access_log.format", "'combined'"));
    gate.get(SITE);
    let lines = eventually("four lines", || Some(gate.stdout()).filter(|lines| lines.len() >= 4));
    assert!(lines[..3].iter().all(|line| parsed(line)["status"] == 200), "{lines:#?}");
    assert!(
        lines.len() == 4 && lines[3].starts_with(&format!("{SITE}:{} 127.0.0.1 - - [", gate.https().port())),
        "{lines:#?}"
    );
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    const REQUESTS: u64 = 8000;
    let mut gate = Lockgate::serving(SITE, Nginx::start()).set("access_log.path", "'/dev/full'").start();
    let url = format!("https://{SITE}/hello.txt?{}", "x".repeat(1800));
    let agent = format!("-Huser-agent: {}", "y".repeat(600));
    assert_eq!(h2load(&gate, &url, REQUESTS, 10, &["-m10", &agent]), Load::all_good(REQUESTS));
    gate.await_log(&["WARN", "access log /dev/full cannot be written: No space left"]);
    let metrics = gate.metrics();
    let dropped = metrics.get("lockgate_access_log_dropped_lines_total", &[]).unwrap();
    assert!(dropped > 0.0 && dropped < REQUESTS as f64, "{dropped}");
    assert_eq!(metrics.get("lockgate_access_log_lines_total", &[]), Some(0.0));
    // One that is given up has lost all that waited, and holds nothing up.
    gate.reconfigure(logging);
    gate.await_metric("lockgate_access_log_dropped_lines_total", &[], REQUESTS as f64);
    gate.get(SITE);
    lines(&gate, 1);
    assert_eq!(gate.count_log(&["WARN", "access log"]), 1);
}

fn fifo(dir: &Path) -> PathBuf {
    let fifo = dir.join("fifo");
    assert_eq!(run(Command::new("mkfifo").arg(&fifo)).code, 0);
    fifo
}

#[test]
fn a_reader_that_pauses_is_written_to_again() {
    let dir = tempfile::TempDir::new().unwrap();
    let fifo = fifo(dir.path());
    let setup = Lockgate::serving(SITE, Nginx::start()).set("access_log.path", &format!("'{}'", fifo.display()));
    let refused = setup.clone().fail_to_start();
    assert!(refused.code == 1 && refused.text().contains("cannot be opened"), "{}", refused.text());
    let mut reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let gate = setup.start();
    let url = format!("https://{SITE}/hello.txt?{}", "x".repeat(1900));
    assert_eq!(h2load(&gate, &url, 6000, 10, &["-m10"]), Load::all_good(6000));
    gate.await_log(&["WARN", "lines are being dropped"]);
    gate.metrics();
    let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let written = || gate.metric("lockgate_access_log_lines_total", &[]).unwrap();
    let dropped = gate.metric("lockgate_access_log_dropped_lines_total", &[]).unwrap();
    while written() + dropped < 6000.0 {
        let n = reader.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..n]);
    }
    gate.await_log(&["WARN", "is written again"]);
    gate.get(SITE);
    eventually("the line after the outage", || (written() + dropped > 6000.0).then_some(()));
    while (read.iter().filter(|b| **b == b'\n').count() as f64) < written() {
        let n = reader.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..n]);
    }
    let text = String::from_utf8(read).unwrap();
    assert!(text.lines().all(|line| parsed(line)["status"] == 200));
    assert_eq!(gate.count_log(&["WARN", "access log"]), 2, "{:#?}", gate.log());
}

#[test]
fn combined_lines_are_read_by_what_reads_such_lines() {
    let gate = logging(Lockgate::serving(SITE, Scripted::ok("hello")).clock_stopped(NOON))
        .set("access_log.format", "'combined'")
        .set("listen.public_https_port", "443")
        .start();
    let mut client = gate.connect(SITE);
    client.ask(format!("GET /x HTTP/1.1\r\nHost: {SITE}\r\nUser-Agent: a \"b\" c\\\r\nReferer: https://r/\r\n\r\n"));
    client.ask(format!("GET /y HTTP/1.1\r\nHost: {SITE}\r\n\r\n"));
    let begin = format!("{SITE}:443 127.0.0.1 - - [01/Jun/2026:12:00:00 +0000]");
    assert_eq!(
        lines(&gate, 2),
        [
            format!(r#"{begin} "GET /x HTTP/1.1" 200 5 "https://r/" "a \x22b\x22 c\x5C""#),
            format!(r#"{begin} "GET /y HTTP/1.1" 200 5 "-" "-""#)
        ]
    );
}

#[test]
fn a_line_that_a_crash_left_unfinished_stays_alone() {
    let mut gate = logging(Lockgate::serving(SITE, Scripted::ok(""))).start();
    fs::write(file(&gate, "old.log"), "{\"ts\":\"2026-06-").unwrap();
    gate.reconfigure(|setup| setup.set("access_log.path", "'old.log'"));
    gate.get(SITE);
    let lines = eventually("two lines", || {
        Some(text(&file(&gate, "old.log"))).filter(|text| text.lines().count() > 1 && text.ends_with('\n'))
    });
    assert_eq!(parsed(lines.lines().nth(1).unwrap())["status"], 200);
}

#[test]
fn the_end_writes_what_is_left_also_of_requests_that_are_cut_off() {
    let mut gate = logging(
        Lockgate::serving(SITE, Scripted::silent())
            .domain("ok.example.test", Scripted::ok(""))
            .set("shutdown_grace", "'500ms'"),
    )
    .start();
    let mut client = gate.connect(SITE);
    client.send(format!("GET /cut HTTP/1.1\r\nHost: {SITE}\r\n\r\n"));
    eventually("the request", || {
        (gate.metric("lockgate_open_connections", &[("protocol", "http/1.1")])? > 0.0).then_some(())
    });
    gate.get_many("ok.example.test", 20);
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_for_end(Duration::from_secs(10)), Some(0));
    let lines = lines(&gate, 21);
    assert_eq!(lines.iter().filter(|line| parsed(line)["status"] == 499).count(), 1, "{lines:#?}");
}

#[test]
fn the_end_waits_a_little_for_a_slow_reader() {
    let dir = tempfile::TempDir::new().unwrap();
    let fifo = fifo(dir.path());
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = fs::OpenOptions::new().read(true).custom_flags(without_waiting).open(&fifo).unwrap();
    let setup = Lockgate::serving(SITE, Nginx::start()).set("access_log.path", &format!("'{}'", fifo.display()));
    let mut gate = setup.start();
    fcntl_setfl(&reader, OFlags::empty()).unwrap();
    let url = format!("https://{SITE}/hello.txt?{}", "x".repeat(1900));
    assert_eq!(h2load(&gate, &url, 1000, 10, &["-m10"]), Load::all_good(1000));
    gate.signal(Signal::TERM);
    gate.await_log(&["all requests finished"]);
    thread::sleep(Duration::from_millis(300));
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert_eq!(read.lines().filter(|line| line.ends_with('}')).count(), 1000);
    assert_eq!(gate.wait_for_end(Duration::from_secs(10)), Some(0));
}

#[test]
fn a_log_without_its_directory_is_an_error_at_the_start() {
    let setup = Lockgate::serving(SITE, Scripted::ok("")).set("access_log.path", "'missing/access.log'");
    assert_eq!(setup.check().code, 0, "the machine that checks need not be the one that runs");
    let output = setup.fail_to_start();
    assert_eq!(output.code, 1, "{}", output.text());
    assert!(output.text().contains("make its directory, or name another path"), "{}", output.text());
    let output = setup.set("access_log.format", "'jsonl'").check();
    assert!(output.code == 2 && output.text().contains("write \"json\" or \"combined\""), "{}", output.text());
}
