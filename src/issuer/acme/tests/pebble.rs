//! A real authority: Let's Encrypt's own small one for tests.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

use super::{authority, server_certificate};
use crate::issuance::Authority;

/// It believes every proof unasked.
const BELIEVING: [(&str, &str); 3] =
    [("PEBBLE_VA_ALWAYS_VALID", "1"), ("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")];

pub(super) struct Pebble {
    child: Child,
    folder: TempDir,
    pub(super) root: CertificateDer<'static>,
    pub(super) api: SocketAddr,
    pub(super) management: SocketAddr,
    variables: Vec<(&'static str, String)>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pebble {
    /// Starts one with these variables and, added to its configuration, these lines.
    pub(super) fn start(variables: &[(&'static str, &str)], more: &str) -> Self {
        let (root, cert, key) = server_certificate();
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("cert.pem"), cert).unwrap();
        std::fs::write(at("key.pem"), key).unwrap();
        let [api, management, http, tls] = free_ports();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "{api}", "managementListenAddress": "{management}",
                "certificate": {:?}, "privateKey": {:?}, "httpPort": {}, "tlsPort": {}, "ocspResponderURL": ""{more}}}}}"#,
            at("cert.pem"),
            at("key.pem"),
            http.port(),
            tls.port(),
        );
        std::fs::write(at("pebble.json"), config).unwrap();
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>();
        let child = spawn(&folder, &variables);
        let mut pebble = Self { child, folder, root, api, management, variables };
        pebble.wait();
        pebble
    }

    /// Stops it and starts it anew at the same place, where it remembers nothing.
    pub(super) fn forget_everything(&mut self) {
        self.stop();
        self.child = spawn(&self.folder, &self.variables);
        self.wait();
    }

    pub(super) fn authority(&self) -> Authority {
        authority(&format!("https://{}/dir", self.api), Some(&self.root))
    }

    fn stop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    fn wait(&mut self) {
        let start = Instant::now();
        while TcpStream::connect(self.api).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "pebble does not listen");
            assert!(self.child.try_wait().unwrap().is_none(), "pebble has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(folder: &TempDir, variables: &[(&'static str, String)]) -> Child {
    Command::new("pebble")
        .arg("-config")
        .arg(folder.path().join("pebble.json"))
        .envs(BELIEVING)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("these tests need Debian's package `pebble`")
}

/// Held all at once, so that they differ.
fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
