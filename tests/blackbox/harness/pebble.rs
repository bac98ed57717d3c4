//! A real ACME server, Pebble, with a configuration of its own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::curl::Curl;
use super::eventually_within;
use super::nginx::free_port;
use super::pki::{Leaf, Pki};
use super::process::Process;

/// From the start of the process to its first answer: it makes two RSA keys or more.
const START_LIMIT: Duration = Duration::from_secs(30);
/// From SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Pebble's configuration in the making.
#[derive(Clone)]
pub struct PebbleSetup {
    validity_secs: Option<u64>,
    eab: Option<(String, String)>,
    http_port: u16,
    tls_port: u16,
    dns: Option<SocketAddr>,
    /// Environment variables by which the rest is told.
    env: Vec<(&'static str, String)>,
}

impl PebbleSetup {
    fn new() -> Self {
        let setup = Self { validity_secs: None, eab: None, http_port: 80, tls_port: 443, dns: None, env: Vec::new() };
        setup.env("PEBBLE_VA_NOSLEEP", 1).env("PEBBLE_AUTHZREUSE", 0).env("PEBBLE_WFE_NONCEREJECT", 0)
    }

    /// How long a certificate lives; five years unless told otherwise.
    pub fn validity_secs(mut self, secs: u64) -> Self {
        self.validity_secs = Some(secs);
        self
    }

    /// This share of good nonces is rejected; none unless told otherwise.
    pub fn reject_nonces_percent(self, percent: u8) -> Self {
        self.env("PEBBLE_WFE_NONCEREJECT", percent)
    }

    /// New accounts must be bound to an external one: its key identifier and HMAC key (base64url).
    pub fn external_account(mut self, kid: &str, hmac_key: &str) -> Self {
        self.eab = Some((kid.to_owned(), hmac_key.to_owned()));
        self
    }

    /// Where it validates HTTP-01 and TLS-ALPN-01, in place of ports 80 and 443.
    pub fn validates_at(mut self, http_port: u16, tls_port: u16) -> Self {
        (self.http_port, self.tls_port) = (http_port, tls_port);
        self
    }

    /// The DNS server that it asks, in place of the machine's.
    pub fn dns(mut self, server: SocketAddr) -> Self {
        self.dns = Some(server);
        self
    }

    /// Sleeps up to so many seconds before it validates, at random; not at all unless told so.
    pub fn validates_after_secs(mut self, secs: u8) -> Self {
        self.env.retain(|(key, _)| *key != "PEBBLE_VA_NOSLEEP");
        self.env("PEBBLE_VA_SLEEPTIME", secs)
    }

    /// This share of valid authorizations serves the next order too; none unless told otherwise.
    pub fn reuse_authorizations_percent(self, percent: u8) -> Self {
        self.env("PEBBLE_AUTHZREUSE", percent)
    }

    /// Offers this many chains besides the first, each to a root of its own.
    pub fn alternate_roots(self, count: u8) -> Self {
        self.env("PEBBLE_ALTERNATE_ROOTS", count)
    }

    /// Intermediates between a leaf and its root; one unless told otherwise.
    pub fn chain_length(self, count: u8) -> Self {
        self.env("PEBBLE_CHAIN_LENGTH", count)
    }

    #[track_caller]
    pub fn start(self) -> Pebble {
        let dir = TempDir::new().expect("temporary folder");
        let api = Pki::new().issue(&["127.0.0.1", "localhost"]).leaf();
        let [acme, management] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let process = Some(self.launch(&dir, &api, acme, management));
        Pebble { process, setup: self, dir, api, acme, management }
    }

    fn env(mut self, key: &'static str, value: u8) -> Self {
        self.env.retain(|(other, _)| *other != key);
        self.env.push((key, value.to_string()));
        self
    }

    #[track_caller]
    fn launch(&self, dir: &TempDir, api: &Leaf, acme: SocketAddr, management: SocketAddr) -> Process {
        let mut config = json!({
            "listenAddress": acme.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": api.cert,
            "privateKey": api.key,
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.eab.is_some(),
        });
        if let Some(secs) = self.validity_secs {
            config["certificateValidityPeriod"] = json!(secs);
        }
        if let Some((kid, key)) = &self.eab {
            config["externalAccountMACKeys"] = json!({ kid: key });
        }
        let file = dir.path().join("pebble.json");
        fs::write(&file, json!({ "pebble": config }).to_string()).expect("pebble.json");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&file).envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(dns) = self.dns {
            command.arg("-dnsserver").arg(dns.to_string());
        }
        let mut process = Process::spawn(&mut command);
        eventually_within(START_LIMIT, "pebble answers", || {
            assert!(process.ended().is_none(), "pebble ended:\n{}", process.lines().join("\n"));
            let listens = TcpStream::connect(acme).is_ok() && TcpStream::connect(management).is_ok();
            listens.then_some(())
        });
        process
    }
}

/// Pebble on free ports, with a folder of its own. What it knows lives in memory and ends with the process.
pub struct Pebble {
    process: Option<Process>,
    setup: PebbleSetup,
    dir: TempDir,
    /// What its own HTTPS listeners present.
    api: Leaf,
    acme: SocketAddr,
    management: SocketAddr,
}

impl Pebble {
    pub fn setup() -> PebbleSetup {
        PebbleSetup::new()
    }

    #[track_caller]
    pub fn start() -> Self {
        Self::setup().start()
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.acme)
    }

    /// The root that its API's certificate comes from.
    pub fn ca_file(&self) -> PathBuf {
        self.api.pki.ca_file()
    }

    /// The root of the first chain that it issues under, in PEM; another one after each start.
    #[track_caller]
    pub fn root_pem(&self) -> String {
        self.root_pem_of(0)
    }

    /// The root of the chain of that number: 0 for the first, alternates from 1.
    #[track_caller]
    pub fn root_pem_of(&self, chain: usize) -> String {
        let url = format!("https://{}/roots/{chain}", self.management);
        let answer = Curl::new(&url, self.management, &self.ca_file()).run();
        assert_eq!(answer.status, 200, "{url}: {}", answer.stderr);
        answer.text()
    }

    /// Accounts made since it was started.
    pub fn accounts(&self) -> usize {
        self.count_log(&["There are now ", " accounts in memory"])
    }

    /// Orders made since it was started.
    pub fn orders(&self) -> usize {
        self.count_log(&["Added order "])
    }

    /// Orders finalized since it was started.
    pub fn finalizations(&self) -> usize {
        self.count_log(&["is fully authorized. Processing finalization"])
    }

    /// Certificates issued since it was started.
    pub fn certificates(&self) -> usize {
        self.count_log(&["Issued certificate serial "])
    }

    /// Lines of its log that contain all of these, since it was started.
    pub fn count_log(&self, parts: &[&str]) -> usize {
        self.log().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(Process::lines).unwrap_or_default()
    }

    /// From now on nobody listens at its ports.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("running");
        process.signal(Signal::TERM);
        process.wait(STOP_LIMIT).expect("it ends when it is told to");
    }

    /// Another process at the same ports, which knows nothing of what was before.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_with(|setup| setup);
    }

    /// [`Pebble::start_again`] with a changed configuration.
    #[track_caller]
    pub fn start_again_with(&mut self, change: impl FnOnce(PebbleSetup) -> PebbleSetup) {
        assert!(self.process.is_none(), "one process at a time");
        self.setup = change(self.setup.clone());
        self.process = Some(self.setup.launch(&self.dir, &self.api, self.acme, self.management));
    }
}
