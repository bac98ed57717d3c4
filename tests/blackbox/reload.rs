//! A new configuration, whole or not at all, and nobody notices (SPEC 6; RELIABILITY 18).

use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rstest::rstest;
use rustix::process::Signal;
use rustls::AlertDescription;

use crate::harness::*;

const SITE: &str = "www.example.test";

fn reloads(gate: &Lockgate, result: &str) -> f64 {
    gate.metric("lockgate_config_reloads_total", &[("result", result)]).unwrap_or(0.0)
}

#[test]
fn fifty_reloads_under_full_load_cost_nothing() {
    let origin = Nginx::start();
    let mut gate = Lockgate::serving("localhost", &origin).start();
    let url = format!("https://localhost:{}/hello.txt", gate.https().port());
    let (to, over) = (gate.https(), AtomicBool::new(false));
    let load = |args: &[&str]| {
        let mut sent = 0;
        while !over.load(Ordering::Relaxed) {
            assert_eq!(h2load_at(to, &url, 1000, 5, args), Load::all_good(1000));
            sent += 1000;
        }
        sent
    };
    let sent: u64 = thread::scope(|scope| {
        let loads = [scope.spawn(|| load(&["-m10"])), scope.spawn(|| load(&["--h1"]))];
        for i in 0..50_u32 {
            let name = format!("extra-{i}.example.test");
            gate.rewrite(|setup| if i % 2 == 0 { setup.domain(&name, &origin) } else { setup.plan("pro") });
            gate.signal(Signal::HUP);
            eventually("the reload", || (reloads(&gate, "ok") >= f64::from(i + 1)).then_some(()));
        }
        over.store(true, Ordering::Relaxed);
        loads.into_iter().map(|load| load.join().unwrap()).sum()
    });
    assert_eq!(gate.metrics().sum("lockgate_requests_total", &[("domain", "localhost")]) as u64, sent);
    assert_eq!(reloads(&gate, "refused"), 0.0);
}

#[test]
fn what_is_under_way_goes_on() {
    let origin = Scripted::new(|peer| {
        while let Some(request) = peer.request()? {
            if request.line().contains("/slow") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")?;
                for _ in 0..4 {
                    thread::sleep(Duration::from_millis(100));
                    peer.send("ab")?;
                }
            } else {
                peer.send(response("quick"))?;
            }
        }
        Ok(())
    });
    let gate = Lockgate::serving(SITE, &origin).start();
    let (mut slow, mut idle, mut h2) = (gate.connect(SITE), gate.connect(SITE), H2::connect(&gate, SITE));
    assert_eq!(idle.get("/").text(), "quick");
    slow.send("GET /slow HTTP/1.1\r\nHost: www.example.test\r\n\r\n");
    for _ in 0..3 {
        assert_eq!(gate.reload().code, 0);
    }
    assert_eq!(slow.answer().text(), "abababab");
    assert_eq!(idle.get("/").text(), "quick");
    assert_eq!(slow.get("/").text(), "quick");
    assert_eq!(h2.get("https://www.example.test/", &[]).unwrap().body, b"quick");
}

#[test]
fn domains_come_and_go_and_move() {
    let (one, two) = (Scripted::ok("one"), Scripted::ok("two"));
    let mut gate = Lockgate::serving(SITE, &one).start();
    let mut client = gate.connect(SITE);
    assert_eq!(client.get("/").text(), "one");
    gate.reconfigure(|setup| setup.domain("new.example.test", &two).move_domain(SITE, &two));
    assert_eq!(gate.get("new.example.test").text(), "two");
    assert_eq!(client.get("/").text(), "two", "the open connection follows too");
    gate.reconfigure(|setup| setup.without_domain(SITE));
    assert_eq!(client.get("/").status, 421);
    let refused = gate.tls(SITE).connect().err();
    assert_eq!(refused, Some(Failure::Alert(AlertDescription::UnrecognisedName)));
    assert_eq!(gate.curl("http://www.example.test/").run().status, 404);
    assert_eq!(reloads(&gate, "ok"), 2.0);
}

/// What may be in the file, and what the answer must contain beside the file's name.
#[rstest]
#[case::empty("", "")]
#[case::half_written("[[domain]]\nname = \"www.exa", ":2")]
#[case::unknown_key("GOOD\nturbo = true", "turbo")]
#[case::unknown_plan("GOOD\nplan = 'platinum'", "platinum")]
#[case::twice("GOOD\n[[domain]]\nname = 'WWW.example.test'\norigin = ['http://127.0.0.1:1']", SITE)]
#[case::not_an_origin("GOOD\n[[domain]]\nname = 'x.test'\norigin = ['gopher://127.0.0.1']", "gopher")]
#[case::not_text("GOOD\n# \u{0}", "")]
fn a_bad_configuration_keeps_the_old_one_whole(#[case] text: &str, #[case] names: &str) {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).plan("basic").start();
    let good = fs::read_to_string(gate.config_file()).unwrap();
    let before = gate.metric("lockgate_certificate_not_after_seconds", &[("domain", SITE), ("source", "own")]);
    // Lines appended to the good file belong to its last table.
    let text = match text.strip_prefix("GOOD") {
        Some(added) => good.clone() + added + "\n",
        None => text.to_owned(),
    };
    let text = if names == "platinum" { good.replace("plan = 'basic'", "plan = 'platinum'") } else { text };
    gate.rewrite_raw(&text);
    let refused = gate.reload_by_data_dir();
    assert_ne!(refused.code, 0);
    assert!(refused.text().contains("lockgate.toml") && refused.text().contains(names), "{}", refused.text());
    assert_eq!((reloads(&gate, "refused"), reloads(&gate, "ok")), (1.0, 0.0));
    gate.await_log(&["reload_refused"]);
    gate.signal(Signal::HUP);
    eventually("SIGHUP refuses it too", || (reloads(&gate, "refused") == 2.0).then_some(()));
    assert_eq!(gate.get(SITE).text(), "hello");
    assert_eq!(gate.metric("lockgate_domain_limit_qps", &[("domain", SITE)]), Some(10.0));
    assert_eq!(gate.metric("lockgate_certificate_not_after_seconds", &[("domain", SITE), ("source", "own")]), before);
    gate.restore();
    assert_eq!(gate.reload().code, 0, "and the good one is taken again");
}

#[test]
fn a_configuration_that_is_gone_or_enormous_keeps_the_old_one() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    fs::remove_file(gate.config_file()).unwrap();
    let refused = gate.reload_by_data_dir();
    assert!(refused.code != 0 && refused.text().contains("lockgate.toml"), "{}", refused.text());
    let before = gate.resident_bytes();
    let file = fs::File::create(gate.config_file()).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_ne!(gate.reload_by_data_dir().code, 0);
    let grown = gate.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "a gibibyte of nothing cost {grown} bytes");
    assert_eq!(gate.get(SITE).text(), "hello");
    gate.restore();
    assert_eq!(gate.reload().code, 0);
}

#[test]
fn several_faults_are_reported_together() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let mut text = fs::read_to_string(gate.config_file()).unwrap();
    text += "[[domain]]\nname = '*.*.example.test'\norigin = ['http://127.0.0.1:1']\n";
    text += "[[domain]]\nname = 'x.test'\nplan = 'platinum'\norigin = ['nonsense']\n";
    gate.rewrite_raw(&text);
    let refused = gate.reload().text();
    for fault in ["*.*.example.test", "platinum", "nonsense"] {
        assert!(refused.contains(fault), "{fault} in {refused}");
    }
}

#[test]
fn a_listener_that_cannot_be_had_refuses_the_whole_reload() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let mut text = fs::read_to_string(gate.config_file()).unwrap();
    text = text.replace("listen.https = ['127.0.0.1:0']", &format!("listen.https = ['127.0.0.1:0', '{taken}']"));
    text += "[[domain]]\nname = 'new.example.test'\norigin = ['http://127.0.0.1:1']\n";
    gate.rewrite_raw(&text);
    // Whether or not listeners can be changed while running: a reload that says 0 serves all of it.
    let reload = gate.reload();
    assert_ne!(reload.code, 0, "{}", reload.text());
    assert!(gate.tls("new.example.test").connect().is_err());
    assert_eq!(gate.get(SITE).text(), "hello");
}

#[test]
fn a_listener_that_overlaps_its_own_is_not_blamed_on_another_program() {
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let text = fs::read_to_string(gate.config_file()).unwrap();
    let wider = format!("listen.https = ['0.0.0.0:{}']", gate.https().port());
    gate.rewrite_raw(&text.replace("listen.https = ['127.0.0.1:0']", &wider));
    let reload = gate.reload();
    assert_ne!(reload.code, 0, "{}", reload.text());
    assert!(reload.text().contains("Lockgate itself"), "{}", reload.text());
    assert_eq!(gate.get(SITE).text(), "hello");
}

#[test]
fn listeners_come_and_go_and_open_connections_stay() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let mut client = gate.connect(SITE);
    assert_eq!(client.get("/").text(), "hello");
    let (old, new) = (gate.https(), std::net::SocketAddr::from(([127, 0, 0, 1], free_port())));
    gate.reconfigure(|setup| setup.set("listen.https", &format!("['{new}']")));
    assert_eq!(TlsClient::new(new, SITE).connect().unwrap().get("/").text(), "hello");
    eventually("nobody listens there any more", || std::net::TcpStream::connect(old).is_err().then_some(()));
    assert_eq!(client.get("/").text(), "hello", "a connection outlives its listener");
}

#[test]
fn a_reload_without_a_running_process_says_so() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("lockgate.toml");
    let mut config = fs::File::create(&file).unwrap();
    writeln!(config, "data_dir = '{}'\nlisten.https = ['127.0.0.1:0']", dir.path().display()).unwrap();
    let output = lockgate(&["reload", "-c", file.to_str().unwrap()]);
    assert_eq!(output.code, 1, "{}", output.text());
    assert!(!output.stderr.is_empty());
}

/// SIGHUP in a storm: gathered or not, the last word counts.
#[test]
fn a_storm_of_signals_ends_with_the_last_configuration() {
    let origin = Scripted::ok("hello");
    let mut gate = Lockgate::serving(SITE, &origin).start();
    for i in 0..20 {
        gate.rewrite(|setup| setup.domain(&format!("d{i}.example.test"), &origin));
        gate.signal(Signal::HUP);
    }
    eventually("the last domain", || gate.tls("d19.example.test").connect().ok());
    assert_eq!(gate.get("d0.example.test").text(), "hello");
}

/// A file on a disk that never answers, as a pipe that nobody writes into.
#[test]
fn the_end_does_not_wait_for_a_reload_that_hangs() {
    let mut gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    fs::remove_file(gate.config_file()).unwrap();
    assert_eq!(run(Command::new("mkfifo").arg(gate.config_file())).code, 0);
    gate.signal(Signal::HUP);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(gate.get(SITE).text(), "hello");
    gate.signal(Signal::TERM);
    assert_eq!(gate.wait_for_end(Duration::from_secs(5)), Some(0));
}
