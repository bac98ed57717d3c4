//! Against a real name server: BIND's `named`, started by each test on a free port of the loopback.

mod caches;
mod lookups;
mod programs;
mod providers;
mod updates;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::issuance::{Dns, DnsProvider};
use crate::secret::SecretSource;

const SECRET: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgb2N0ZXRzLi4=";
const CHALLENGE: &str = "_acme-challenge.www.example.test";

/// Names with and without what is asked for. `ns` of both zones is the server itself.
const EXAMPLE: &str = "
$ORIGIN example.test.
$TTL 5
@ SOA ns hostmaster 1 60 60 60 5
@ NS ns
ns A 127.0.0.1
www A 192.0.2.1
www A 192.0.2.2
www AAAA 2001:db8::1
mail A 192.0.2.3
alias CNAME other
other CNAME www
round CNAME about
about CNAME round
child NS ns.elsewhere.test.
txt TXT \"one\" \" and one\"
txt TXT \"two\"
* .wild CNAME www
@ CAA 0 issue \"ca.test\"
strict CAA 128 issue \"other.test; account=7\"
strict CAA 0 iodef \"mailto:a@example.test\"
aliased.strict CNAME mail
_acme-challenge.delegated CNAME _acme-challenge.delegated.other.test.
_acme-challenge.twice CNAME _acme-challenge.delegated
";
const OTHER: &str = "
$ORIGIN other.test.
$TTL 5
@ SOA ns.example.test. hostmaster 1 60 60 60 5
@ NS ns.example.test.
";
/// Served by two, the second of which does not exist; the third has no address.
const SPLIT: &str = "
$ORIGIN split.test.
$TTL 5
@ SOA ns1 hostmaster 1 60 60 60 5
@ NS ns1
@ NS ns2
@ NS ns3.example.test.
ns1 A 127.0.0.1
ns2 A 127.0.0.2
";

/// A `named` with a directory of its own; ends with the value.
struct Named {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Named {
    fn start() -> Self {
        for _ in 0..5 {
            if let Some(named) = Self::try_start() {
                return named;
            }
        }
        panic!("named did not start on five free ports");
    }

    fn try_start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let address = closed_port();
        let keys = TSIG_ALGORITHMS
            .map(|algorithm| format!("key \"key-{algorithm}\" {{ algorithm {algorithm}; secret \"{SECRET}\"; }};\n"));
        let allowed = TSIG_ALGORITHMS.map(|algorithm| format!("key \"key-{algorithm}\"; "));
        let mut config = format!(
            "options {{ directory \"{path}\"; pid-file \"{path}/pid\"; session-keyfile \"{path}/session\";
               listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; dnssec-validation no;
               allow-query {{ any; }}; notify no; }};
             controls {{ }};
             key \"stranger\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};
             {}",
            keys.concat(),
            port = address.port(),
        );
        for (zone, text) in [("example.test", EXAMPLE), ("other.test", OTHER), ("split.test", SPLIT)] {
            std::fs::write(directory.path().join(zone), text.replace("* .wild", "*.wild")).unwrap();
            let allowed = allowed.concat();
            config += &format!(
                "zone \"{zone}\" {{ type primary; file \"{path}/{zone}\"; allow-update {{ {allowed} }}; }};\n"
            );
        }
        std::fs::write(directory.path().join("named.conf"), config).unwrap();
        let mut command = Command::new("named");
        command.args(["-g", "-n", "1", "-c"]).arg(directory.path().join("named.conf"));
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("`named` is missing: install bind9");
        let mut named = Self { child, address, _directory: directory };
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            if named.child.try_wait().unwrap().is_some() {
                return None;
            }
            if std::net::TcpStream::connect(address).is_ok() && named.ask(address) {
                return Some(named);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("named did not answer: {}", std::fs::read_to_string(named._directory.path().join("log")).unwrap());
    }

    /// Whether it answers for its last zone.
    fn ask(&self, address: SocketAddr) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Resolver::new(&[address]).name_servers("split.test")).is_ok()
    }

    async fn txt(&self, name: &str) -> Vec<String> {
        let mut found = Resolver::new(&[self.address]).txt(name).await.unwrap_or_default();
        found.sort();
        found
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// An address where nobody listens, for the moment.
fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Tests use a thread for `named` to be started from, and another runtime to ask it.
async fn named() -> Named {
    tokio::task::spawn_blocking(Named::start).await.unwrap()
}

fn update(server: SocketAddr, key_name: &str, key_algorithm: &str) -> Dns {
    Dns {
        provider: DnsProvider::Rfc2136 {
            server,
            key_name: key_name.into(),
            key_algorithm: key_algorithm.into(),
            key: SecretSource::Env("KEY".into()),
        },
        resolvers: vec![],
        propagation_timeout: Duration::from_secs(5),
        ttl: Duration::from_secs(60),
    }
}

fn exec(command: &[&str], resolver: SocketAddr) -> Dns {
    exec_within(command, resolver, Duration::from_secs(60))
}

fn exec_within(command: &[&str], resolver: SocketAddr, timeout: Duration) -> Dns {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    Dns {
        provider: DnsProvider::Exec { command, timeout },
        resolvers: vec![resolver],
        propagation_timeout: Duration::from_secs(5),
        ttl: Duration::from_secs(60),
    }
}

fn open_with(dns: &Dns, secret: &str) -> Result<TxtRecords, DnsError> {
    open_beside(dns, secret, &Arc::default())
}

/// One of several that share `shelves`.
fn open_beside(dns: &Dns, secret: &str, shelves: &Arc<Shelves>) -> Result<TxtRecords, DnsError> {
    TxtRecords::open(dns, Arc::clone(shelves), |_| Ok(Zeroizing::new(secret.as_bytes().to_vec())))
}

fn open(dns: &Dns) -> TxtRecords {
    open_with(dns, SECRET).unwrap()
}

/// Records at `named`, in a world that it is all of.
fn records(named: &Named) -> TxtRecords {
    let dns = update(named.address, "key-hmac-sha256", "hmac-sha256");
    open(&dns).in_a_world_of(&[named.address], named.address.port())
}

fn check<T: std::fmt::Debug>(result: Result<T, impl std::fmt::Display>, expected: &str) {
    let text = result.expect_err("no error").to_string();
    assert!(text.contains(expected), "{text}\nis not about\n{expected}");
}
