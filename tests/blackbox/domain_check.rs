//! `lockgate domain check`: what is wrong with a name, and the one thing to do, as seen by name servers and ports that
//! are really there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Deref;
use std::path::Path;
use std::thread;

use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Bind, ChallTestSrv, Fault, FaultCa, Lockgate, Output, PATIENCE, Pki, RetryAfter, Scripted, free_port, lockgate,
};

const SITE: &str = "shop.lockgate.test";

/// Name servers whose answers are set by the test, asked by way of one that says that it asks others: an answer of one
/// that says neither that nor that the zone is its own is none.
struct Names {
    zones: ChallTestSrv,
    resolver: SocketAddr,
}

impl Names {
    fn start() -> Self {
        /// QR and opcode come before it (RFC 1035, section 4.1.1).
        const RECURSION_AVAILABLE: (usize, u8) = (3, 0x80);
        let zones = ChallTestSrv::start();
        let (behind, front) = (zones.server(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let resolver = front.local_addr().unwrap();
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok((length, asker)) = front.recv_from(&mut message) {
                let back = UdpSocket::bind("127.0.0.1:0").unwrap();
                back.set_read_timeout(Some(PATIENCE)).unwrap();
                back.send_to(&message[..length], behind).unwrap();
                if let Ok(length) = back.recv(&mut message) {
                    message[RECURSION_AVAILABLE.0] |= RECURSION_AVAILABLE.1;
                    _ = front.send_to(&message[..length], asker);
                }
            }
        });
        Self { zones, resolver }
    }
}

impl Deref for Names {
    type Target = ChallTestSrv;

    fn deref(&self) -> &ChallTestSrv {
        &self.zones
    }
}

/// What the command says as JSON.
struct Said {
    output: Output,
    json: Value,
}

impl Said {
    #[track_caller]
    fn of(name: &str, config: &Path, resolver: SocketAddr, (http, https): (u16, u16)) -> Self {
        let (config, resolver) = (config.to_str().unwrap(), resolver.to_string());
        let ports = [http.to_string(), https.to_string()];
        let output = lockgate(&[
            "domain",
            "check",
            name,
            "-c",
            config,
            "--json",
            "--resolver",
            &resolver,
            "--http-port",
            &ports[0],
            "--https-port",
            &ports[1],
        ]);
        let json = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.text()));
        Self { output, json }
    }

    /// Of a proxy that runs.
    #[track_caller]
    fn of_running(gate: &Lockgate, name: &str, names: &Names) -> Self {
        Self::of(name, &gate.config_file(), names.resolver, (gate.http().port(), gate.https().port()))
    }

    /// What is said of one thing that is in this state.
    #[track_caller]
    fn says(&self, what: &str, state: &str) -> &str {
        let findings = self.json["findings"].as_array().unwrap();
        let found = findings.iter().find(|it| it["what"] == what && it["state"] == state);
        found.unwrap_or_else(|| panic!("no {state} {what} in {:#}", self.json))["says"].as_str().unwrap()
    }

    fn states(&self) -> Vec<(&str, &str)> {
        let findings = self.json["findings"].as_array().unwrap();
        findings.iter().map(|it| (it["what"].as_str().unwrap(), it["state"].as_str().unwrap())).collect()
    }

    fn first_remedy(&self) -> &str {
        self.json["first_remedy"].as_str().unwrap_or_default()
    }
}

#[test]
fn nothing_is_wrong_with_a_name_that_leads_here() {
    let names = Names::start();
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let said = Said::of_running(&gate, SITE, &names);
    assert_eq!(said.output.code, 0, "{:#}", said.json);
    let expected = [
        ("serving", "ok"),
        ("issuance", "ok"),
        ("dns", "ok"),
        ("port_80", "ok"),
        // Its authority is one of the test's own.
        ("port_443", "note"),
        ("caa", "ok"),
        ("origin", "ok"),
        ("certificate", "ok"),
    ];
    assert_eq!((said.states(), said.first_remedy()), (expected.to_vec(), ""), "{:#}", said.json);
    assert_eq!(said.json["name"], SITE);
}

#[test]
fn each_address_is_tried_by_itself() {
    let names = Names::start();
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    let listener = TcpListener::bind((elsewhere, gate.http().port())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            _ = stream.read(&mut [0; 1024]);
            _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nServer: other\r\nContent-Length: 0\r\n\r\n");
        }
    });
    names.add_a(SITE, &[Ipv4Addr::LOCALHOST, elsewhere]);
    let said = Said::of_running(&gate, SITE, &names);
    assert_eq!(said.output.code, 1, "{:#}", said.json);
    assert_eq!(said.says("port_80", "ok"), "127.0.0.1 leads here");
    let other =
        "127.0.0.2 does not lead here: another server has port 80 (other, status 404), and nothing listens on port 443";
    assert_eq!(said.says("a", "wrong"), other);
    let remedy = format!("remove the A record 127.0.0.2 of {SITE}, or point it at this machine");
    assert_eq!(said.first_remedy(), remedy);

    let (port, resolver) = (gate.http().port().to_string(), names.resolver.to_string());
    let (file, https) = (gate.config_file(), gate.https().port().to_string());
    let human = lockgate(&[
        "domain",
        "check",
        SITE,
        "-c",
        file.to_str().unwrap(),
        "--resolver",
        &resolver,
        "--http-port",
        &port,
        "--https-port",
        &https,
    ]);
    assert!(human.stdout.contains(&format!("✗ A: {other}\n    {remedy}\n")), "{}", human.text());
    assert!(human.stdout.ends_with(&format!("\nThe one thing to do: {remedy}.\n")), "{}", human.text());
}

#[test]
fn an_origin_that_is_down() {
    let names = Names::start();
    let down = Scripted::down();
    let gate = Lockgate::serving(SITE, down.as_str()).start();
    let said = Said::of_running(&gate, SITE, &names);
    assert_eq!(
        (said.output.code, said.says("origin", "wrong")),
        (1, &*format!("nothing listens at the origin {down}"))
    );
    assert_eq!(said.first_remedy(), format!("start the server at {down}, or correct `origin`"));
}

#[test]
fn a_certificate_that_has_expired() {
    let (names, pki) = (Names::start(), Pki::new());
    let expired = pki.issue(&[SITE]).until("2021-01-01 00:00:00").leaf();
    let gate = Lockgate::under(&pki).domain(SITE, Scripted::ok("hello")).certificate(&expired).start();
    let said = Said::of_running(&gate, SITE, &names);
    assert_eq!(said.output.code, 1, "{:#}", said.json);
    let says = said.says("certificate", "wrong");
    assert!(says.contains("expired at 2021-01-01T00:00:00Z: one that Lockgate made itself serves"), "{says}");
    assert!(said.says("port_443", "note").contains("a certificate that Lockgate made itself"), "{:#}", said.json);
    assert!(said.first_remedy().starts_with("put a fresh certificate for shop.lockgate.test"), "{:#}", said.json);
}

#[test]
fn a_wildcard_is_tried_by_a_name_under_it() {
    let names = Names::start();
    let gate = Lockgate::serving("*.lockgate.test", Scripted::ok("hello")).start();
    names.default_ipv4(None);
    names.add_a("lockgate-check.lockgate.test", &[Ipv4Addr::LOCALHOST]);
    let said = Said::of_running(&gate, "*.lockgate.test", &names);
    assert_eq!(said.output.code, 0, "{:#}", said.json);
    assert_eq!(said.says("port_80", "ok"), "127.0.0.1 leads here");
    assert!(said.says("dns", "note").starts_with("lockgate.test exists, but has neither"), "{:#}", said.json);
    // A name under it is served by it.
    names.add_a("a.lockgate.test", &[Ipv4Addr::LOCALHOST]);
    let said = Said::of_running(&gate, "a.lockgate.test", &names);
    assert_eq!(
        (said.output.code, said.says("serving", "ok")),
        (0, "a.lockgate.test is served here by *.lockgate.test")
    );
}

#[test]
fn a_name_that_nobody_serves() {
    let names = Names::start();
    let gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let said = Said::of_running(&gate, "shp.lockgate.test", &names);
    assert_eq!((said.output.code, said.says("serving", "wrong")), (1, "no `[[domain]]` serves shp.lockgate.test"));
    assert!(said.first_remedy().ends_with("or did you mean shop.lockgate.test?"), "{}", said.first_remedy());
    assert_eq!(said.says("port_80", "ok"), "127.0.0.1 leads here");
}

/// A configuration that no process runs with: a public name, and Let's Encrypt, whom nobody asks here.
fn not_running(lines: &str) -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("lockgate.toml");
    let origin = Scripted::down();
    let text = format!(
        "data_dir = 'data'\n[acme]\nagree_to_terms = true\n{lines}\n[[domain]]\nname = '{PUBLIC}'\norigin = '{origin}'\n"
    );
    fs::write(&file, text).unwrap();
    (dir, file)
}

const PUBLIC: &str = "shop.lockgate-check.com";

#[test]
fn caa_records_that_forbid_it() {
    let names = Names::start();
    let (_dir, file) = not_running("");
    let said = || Said::of(PUBLIC, &file, names.resolver, (free_port(), free_port()));
    names.add_caa("lockgate-check.com", &[("issue", "pki.goog")]);
    let forbidden = said();
    assert_eq!(forbidden.output.code, 1);
    assert!(forbidden.says("caa", "wrong").starts_with("the CAA records of lockgate-check.com allow pki.goog alone"));
    let remedy = "add `0 issue \"letsencrypt.org\"` to the CAA records of lockgate-check.com, or remove them all";
    assert_eq!(forbidden.first_remedy(), remedy);
    // What cannot be looked at is said.
    let not_looked =
        "whether port 80 leads to this Lockgate was not looked at: no Lockgate runs with this configuration";
    assert_eq!(forbidden.says("port_80", "note"), not_looked);

    names.add_caa("lockgate-check.com", &[("issue", "letsencrypt.org")]);
    assert_eq!(
        said().says("caa", "ok"),
        "the CAA records of lockgate-check.com allow acme-v02.api.letsencrypt.org to issue"
    );
}

#[test]
fn name_servers_that_fail() {
    let names = Names::start();
    let (_dir, file) = not_running("");
    names.set_servfail(PUBLIC);
    let said = Said::of(PUBLIC, &file, names.resolver, (free_port(), free_port()));
    assert!(said.says("dns", "wrong").contains("SERVFAIL"), "{:#}", said.json);
    assert!(said.first_remedy().contains("the DS record at the registrar"), "{}", said.first_remedy());
}

#[test]
fn a_name_server_that_is_not_there() {
    let (_dir, file) = not_running("");
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let said = Said::of(PUBLIC, &file, nobody, (free_port(), free_port()));
    assert_eq!(said.output.code, 1);
    assert!(said.first_remedy().starts_with("see that this machine reaches its name server"), "{:#}", said.json);
}

#[test]
fn a_name_that_does_not_exist() {
    let names = Bind::start(&["com"]);
    let (_dir, file) = not_running("");
    let said = Said::of(PUBLIC, &file, names.server(), (free_port(), free_port()));
    assert_eq!(said.output.code, 1);
    assert_eq!(said.says("dns", "wrong"), format!("{PUBLIC} does not exist (NXDOMAIN)"));
    assert_eq!(said.says("caa", "ok"), format!("{PUBLIC} has no CAA records: any authority may issue"));
    let remedy = format!("add an A record with this machine's IPv4 address for {PUBLIC}");
    assert_eq!(said.first_remedy(), remedy);
}

#[rstest]
#[case::no_name("a b", "is not a host name")]
#[case::no_resolver("example.com", "write an IP address")]
#[case::no_file("example.com", "cannot be read")]
fn wrong_usage(#[case] name: &str, #[case] says: &str) {
    let (dir, file) = not_running("");
    let missing = dir.path().join("missing.toml");
    let file = if says == "cannot be read" { &missing } else { &file };
    let resolver = if says == "write an IP address" { "localhost" } else { "127.0.0.1" };
    let output = lockgate(&["domain", "check", name, "-c", file.to_str().unwrap(), "--resolver", resolver]);
    assert_eq!(output.code, 2, "{}", output.text());
    assert!(says == "cannot be read" || output.stderr.contains(says), "{}", output.text());
}

#[test]
fn a_name_on_demand_its_certificate_and_what_failed() {
    let (names, pki) = (Names::start(), Pki::new());
    let ca = FaultCa::start(&pki);
    let asked = Scripted::each(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let gate = Lockgate::under(&pki)
        .acme(&[&ca])
        .set("acme.standby", "false")
        .set("acme.on_demand.site", &format!("'{SITE}'"))
        .set("acme.on_demand.allow", "['*.customers.test']")
        .set("acme.on_demand.ask", &format!("'{}/allowed?key=secret'", asked.url()))
        .domain(SITE, Scripted::ok("hello"))
        .start();
    let issued = gate.leaf("a.customers.test");
    assert_eq!(issued.names, ["a.customers.test"]);
    let said = Said::of_running(&gate, "a.customers.test", &names);
    assert_eq!(said.output.code, 0, "{:#}", said.json);
    let served = format!("`allow` approves a.customers.test: it is served here by {SITE} on demand");
    assert_eq!(said.says("serving", "ok"), served);
    assert!(said.says("issuance", "ok").starts_with("its certificate is ordered from ca-0"), "{:#}", said.json);
    assert!(said.says("certificate", "ok").starts_with("a.customers.test has a certificate from "), "{:#}", said.json);
    said.says("origin", "ok");

    ca.set(Fault::unavailable(RetryAfter::Nothing));
    assert!(gate.tls("b.customers.test").connect().is_err());
    gate.await_log(&["issuance_failed", "b.customers.test"]);
    let said = Said::of_running(&gate, "b.customers.test", &names);
    assert_eq!(said.output.code, 1, "{:#}", said.json);
    let words: Vec<_> =
        said.json["findings"].as_array().unwrap().iter().filter(|it| it["what"] == "certificate").collect();
    assert!(words.iter().any(|it| it["says"].as_str().unwrap().contains("503")), "{words:?}");

    let said = Said::of_running(&gate, "c.others.test", &names);
    assert_eq!((said.output.code, asked.requests().is_empty()), (1, false));
    assert!(said.says("serving", "wrong").ends_with("does not approve c.others.test"), "{:#}", said.json);
    assert!(!said.output.stdout.contains("secret"), "{}", said.output.stdout);
}

#[test]
fn what_is_right_of_a_configuration_is_looked_at() {
    let names = Names::start();
    let mut gate = Lockgate::serving(SITE, Scripted::ok("hello")).start();
    let text = fs::read_to_string(gate.config_file()).unwrap();
    gate.rewrite_raw(&format!("nonsense = 1\n{text}"));
    let said = Said::of_running(&gate, SITE, &names);
    assert!(said.output.code == 0 && said.output.stderr.contains("nonsense"), "{}", said.output.text());
    assert_eq!(said.says("serving", "ok"), format!("{SITE} is served here"));
    said.says("certificate", "ok");
    gate.restore();
    gate.stop();
}
