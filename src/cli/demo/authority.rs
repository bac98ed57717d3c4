//! A certificate authority on this machine, for `lockgate demo --acme`: Pebble, with a name server that sends every name
//! here. Both are programs of Debian's package `pebble`, and end with the demo.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;

use crate::origin::client_config;
use crate::site::OriginTls;

/// From the start of the programs to their first answer: Pebble makes RSA keys.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether they answer.
const PAUSE: Duration = Duration::from_millis(50);

/// Pebble and its name server, running.
pub(super) struct LocalAuthority {
    _programs: [Program; 2],
    /// The URL of its directory.
    pub(super) directory: String,
    /// Trust for its API (PEM).
    pub(super) api_root: PathBuf,
    /// The root of what it issues (PEM), for a client that is to trust it.
    pub(super) root: PathBuf,
}

/// A child that ends with us.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl LocalAuthority {
    /// Starts both. They look for what proves control over a name at the two ports given.
    ///
    /// # Errors
    /// If they are not installed or do not answer: in words.
    pub(super) fn start(dir: &Path, http_port: u16, https_port: u16) -> Result<Self, String> {
        let [acme, management, dns, dns_management] =
            free_addresses().map_err(|error| format!("no free port: {error}"))?;
        let (api_root, api_key) = (dir.join("pebble-api.pem"), dir.join("pebble-api.key"));
        let der = api_certificate(&api_root, &api_key).map_err(|error| format!("Pebble's certificate: {error}"))?;
        let config = serde_json::json!({ "pebble": {
            "listenAddress": acme.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": api_root,
            "privateKey": api_key,
            "httpPort": http_port,
            "tlsPort": https_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let file = dir.join("pebble.json");
        fs::write(&file, config.to_string()).map_err(|error| format!("{}: {error}", file.display()))?;
        let names =
            start(Command::new("pebble-challtestsrv").args(["-http01", "", "-https01", "", "-tlsalpn01", ""]).args([
                "-defaultIPv4",
                "127.0.0.1",
                "-defaultIPv6",
                "",
                "-dns01",
                &dns.to_string(),
                "-management",
                &dns_management.to_string(),
            ]))?;
        let pebble = start(
            Command::new("pebble")
                .env("PEBBLE_VA_NOSLEEP", "1")
                .args(["-dnsserver", &dns.to_string(), "-config"])
                .arg(&file),
        )?;
        let mut programs = [names, pebble];
        await_answers(&mut programs, &[dns, acme, management])?;
        let root = dir.join("pebble-root.pem");
        let pem = root_of(management, der)?;
        fs::write(&root, pem).map_err(|error| format!("{}: {error}", root.display()))?;
        Ok(Self { _programs: programs, directory: format!("https://{acme}/dir"), api_root, root })
    }
}

fn start(command: &mut Command) -> Result<Program, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map(Program).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("`{name}` is not installed: `apt install pebble`, or leave `--acme` out"),
        _ => format!("`{name}` cannot be started: {error}"),
    })
}

fn await_answers(programs: &mut [Program], addresses: &[SocketAddr]) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !addresses.iter().all(|address| TcpStream::connect(address).is_ok()) {
        if programs.iter_mut().any(|program| matches!(program.0.try_wait(), Ok(Some(_)))) {
            return Err("Pebble ended by itself: was its port taken by somebody else? Try again".to_owned());
        }
        if Instant::now() > deadline {
            return Err(format!("Pebble does not answer within {PATIENCE:?}"));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Four addresses that nobody listens at, all different because all are held at once.
fn free_addresses() -> std::io::Result<[SocketAddr; 4]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [bind()?, bind()?, bind()?, bind()?];
    let [a, b, c, d] = &held;
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?, d.local_addr()?])
}

/// What Pebble's own API presents: written to two files, and given back.
fn api_certificate(cert: &Path, key: &Path) -> Result<CertificateDer<'static>, Box<dyn std::error::Error>> {
    let pair = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&pair)?;
    fs::write(cert, certificate.pem())?;
    fs::write(key, pair.serialize_pem())?;
    Ok(certificate.der().clone())
}

/// The root of what it issues, from its management interface.
fn root_of(management: SocketAddr, api: CertificateDer<'static>) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("Pebble does not give its root: {error}");
    let tls = OriginTls { ca: Some(Arc::from([api])), ..OriginTls::default() };
    let tls = client_config(&tls).map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let tls = rustls::ClientConfig::clone(&tls);
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).timeout(PATIENCE).no_proxy().build();
        let client = client.map_err(|error| failed(&error))?;
        let answer =
            client.get(format!("https://{management}/roots/0")).send().await.map_err(|error| failed(&error))?;
        answer.text().await.map_err(|error| failed(&error))
    })
}
