//! A real nginx as the origin.

use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::eventually;
use super::pki::Leaf;
use super::process::Process;

/// nginx on a free port with a folder of its own: `/hello.txt`, whatever [`Nginx::file`] adds, and PUT anywhere. A
/// handle: it serves until the last one is gone, and the proxy in front of it has one too.
#[derive(Clone)]
pub struct Nginx {
    server: Arc<Server>,
}

struct Server {
    _process: Process,
    root: TempDir,
    port: u16,
    scheme: &'static str,
}

impl Nginx {
    #[track_caller]
    pub fn start() -> Self {
        Self::run("http", "", "")
    }

    /// Writing access logs, `combined.log` and `vhost_combined.log`; see [`Nginx::log`].
    #[track_caller]
    pub fn start_logging() -> Self {
        let format = r#"'$host:$server_port $remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'"#;
        let formats = format!("log_format vhost_combined {format};");
        Self::run(
            "http",
            "access_log DIR/combined.log combined; access_log DIR/vhost_combined.log vhost_combined;",
            &formats,
        )
    }

    /// Behind TLS, with this certificate.
    #[track_caller]
    pub fn start_tls(leaf: &Leaf) -> Self {
        let (cert, key) = (leaf.cert.display(), leaf.key.display());
        Self::run("https", &format!("ssl_certificate {cert}; ssl_certificate_key {key};"), "")
    }

    #[track_caller]
    fn run(scheme: &'static str, in_server: &str, in_http: &str) -> Self {
        let root = TempDir::new().expect("temporary folder");
        let dir = root.path().display();
        let port = free_port();
        let ssl = if scheme == "https" { " ssl" } else { "" };
        let in_server = in_server.replace("DIR", &dir.to_string());
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|what| format!("{what}_temp_path {dir}/{what}; ")).collect();
        let config = format!(
            "daemon off; master_process off; user root; pid {dir}/pid; error_log stderr error;
             events {{ worker_connections 4096; }}
             http {{
                 access_log off; {temporary} {in_http}
                 keepalive_requests 1000000; client_max_body_size 0; client_body_buffer_size 1m;
                 server {{
                     listen 127.0.0.1:{port}{ssl} backlog=4096; {in_server}
                     root {dir}/files; dav_methods PUT; create_full_put_path on;
                     location = / {{ return 200 'hello'; }}
                 }}
             }}"
        );
        fs::create_dir(root.path().join("files")).expect("folder");
        fs::write(root.path().join("nginx.conf"), config).expect("nginx.conf");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(root.path()).arg("-e").arg("stderr").arg("-c").arg(root.path().join("nginx.conf"));
        let process = Process::spawn(&mut command);
        let nginx = Self { server: Arc::new(Server { _process: process, root, port, scheme }) };
        nginx.file("hello.txt", b"hello\n");
        eventually("nginx answers", || TcpStream::connect(("127.0.0.1", port)).ok());
        nginx
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.server.scheme, self.server.port)
    }

    /// A log that it writes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.server.root.path().join(name)
    }

    /// Where a path of its is, also one that was PUT.
    pub fn path(&self, name: &str) -> PathBuf {
        self.server.root.path().join("files").join(name)
    }

    /// Adds a file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("file");
        path
    }
}

/// A port that was free a moment ago, for TCP and UDP, below those that the system hands out by itself: no outgoing
/// connection of another test takes it in between. Each process begins at another place and asks for each port once.
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    /// Ports between the beginnings of two processes of which one was started after the other.
    const STRIDE: u32 = 37;
    let begin = std::process::id().wrapping_mul(STRIDE);
    let free = (0..COUNT).find_map(|_| {
        let asked = ASKED.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + begin.wrapping_add(asked) % COUNT).expect("below 32,000");
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        is_free.then_some(port)
    });
    free.expect("a free port")
}
