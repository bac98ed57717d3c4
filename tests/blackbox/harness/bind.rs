//! A real BIND, whose zones are changed by updates signed with a key (RFC 2136, RFC 8945).

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::dns::{dns_query, dns_update};
use super::nginx::free_port;
use super::process::Process;

const KEY_NAME: &str = "lockgate-test-key";
/// 32 bytes that nobody has to guess.
const SECRET: &str = "bG9ja2dhdGUtdGVzdC1rZXktMzItYnl0ZXMtbG9uZyE=";
/// From the start of the process to its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// named on a free port, with its zones in a folder of its own: authoritative, no recursion, no control channel.
pub struct Bind {
    process: Process,
    dir: TempDir,
    server: SocketAddr,
}

/// Zones in the making.
#[derive(Clone, Default)]
pub struct BindSetup {
    zones: Vec<String>,
    /// Of those, the ones that everybody may change.
    open: Vec<String>,
    addresses: Vec<(String, IpAddr)>,
    /// Of each zone, besides itself: labels and where they are.
    name_servers: Vec<(String, IpAddr)>,
    /// `None`: a free one.
    port: Option<u16>,
}

impl BindSetup {
    /// Adds a zone that the key may change.
    pub fn zone(mut self, name: &str) -> Self {
        self.zones.push(name.to_owned());
        self
    }

    /// Adds a zone that everybody may change: the key, and the test by [`Bind::add_txt`].
    pub fn open_zone(mut self, name: &str) -> Self {
        self.open.push(name.to_owned());
        self.zone(name)
    }

    /// Puts an A or AAAA record into the zone that the name is in.
    pub fn address(mut self, name: &str, address: IpAddr) -> Self {
        self.addresses.push((name.to_owned(), address));
        self
    }

    /// Names another name server for each zone: `label` in it, at that address.
    pub fn name_server(mut self, label: &str, address: IpAddr) -> Self {
        self.name_servers.push((label.to_owned(), address));
        self
    }

    /// Listens there.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    #[track_caller]
    pub fn start(&self) -> Bind {
        let dir = TempDir::new().expect("temporary folder");
        let at = dir.path().display();
        let port = self.port.unwrap_or_else(free_port);
        let zones = self.zones.iter().map(|zone| {
            let file = dir.path().join(format!("{zone}.zone"));
            fs::write(&file, self.zone_file(zone)).expect("zone file");
            let file = file.display();
            let who = if self.open.contains(zone) { "any".to_owned() } else { format!("key {KEY_NAME}") };
            format!("zone \"{zone}\" {{ type primary; file \"{file}\"; allow-update {{ {who}; }}; }};\n")
        });
        let config = format!(
            "options {{
                 directory \"{at}\"; pid-file \"{at}/pid\"; session-keyfile \"{at}/session.key\";
                 lock-file none; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                 recursion no; dnssec-validation no; notify no; empty-zones-enable no; max-cache-size 4m;
                 allow-query {{ any; }}; querylog yes;
             }};
             controls {{ }};
             key {KEY_NAME} {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};
             {}",
            zones.collect::<String>()
        );
        fs::write(dir.path().join("named.conf"), config).expect("named.conf");
        fs::write(dir.path().join("tsig.key"), format!("{SECRET}\n")).expect("key file");
        let mut command = Command::new("named");
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(dir.path().join("named.conf"));
        let process = Process::spawn(&mut command);
        process.wait_for_line("running", START_LIMIT, |line| line.ends_with(" running"));
        Bind { process, dir, server: ([127, 0, 0, 1], port).into() }
    }

    fn zone_file(&self, zone: &str) -> String {
        let mut file = format!("$TTL 1\n@ IN SOA ns.{zone}. nobody.{zone}. 1 3600 600 86400 1\n@ IN NS ns.{zone}.\n");
        file += "ns IN A 127.0.0.1\n";
        for (label, address) in &self.name_servers {
            file += &format!("@ IN NS {label}\n{label} IN A {address}\n");
        }
        let inside = self.addresses.iter().filter(|(name, _)| name == zone || name.ends_with(&format!(".{zone}")));
        for (name, address) in inside {
            let record_type = if address.is_ipv4() { "A" } else { "AAAA" };
            file += &format!("{name}. IN {record_type} {address}\n");
        }
        file
    }
}

impl Bind {
    pub fn setup() -> BindSetup {
        BindSetup::default()
    }

    /// With these zones, empty.
    #[track_caller]
    pub fn start(zones: &[&str]) -> Self {
        zones.iter().fold(Self::setup(), |setup, zone| setup.zone(zone)).start()
    }

    /// Where it answers and takes updates, over UDP and TCP.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The name of the key that may change every zone; its algorithm is hmac-sha256.
    pub fn key_name(&self) -> &'static str {
        KEY_NAME
    }

    /// The key itself in base64, as the only line of a file.
    pub fn key_file(&self) -> PathBuf {
        self.dir.path().join("tsig.key")
    }

    /// The TXT records of a name at this moment.
    #[track_caller]
    pub fn txt(&self, name: &str) -> Vec<String> {
        dns_query(self.server, name, "TXT").values
    }

    /// Adds a value to the TXT records of a name in an open zone.
    #[track_caller]
    pub fn add_txt(&self, zone: &str, name: &str, value: &str) {
        dns_update(self.server, zone, name, value, true);
    }

    /// Takes that value away.
    #[track_caller]
    pub fn remove_txt(&self, zone: &str, name: &str, value: &str) {
        dns_update(self.server, zone, name, value, false);
    }

    /// How often it was asked for the TXT records of a name so far, by anybody.
    pub fn questions(&self, name: &str) -> usize {
        let asked = format!(": query: {name} IN TXT ");
        self.process.lines().iter().filter(|line| line.contains(&asked)).count()
    }

    /// Updates to its zones that it has carried out so far.
    pub fn updates(&self) -> usize {
        self.process.lines().iter().filter(|line| line.contains(": updating zone '")).count()
    }
}
