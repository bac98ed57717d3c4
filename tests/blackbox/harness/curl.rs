//! curl, brought to the proxy under test whatever the URL says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::run;

/// A call in the making.
pub struct Curl {
    command: Command,
    dir: TempDir,
    body: PathBuf,
}

/// What curl got.
#[derive(Debug)]
pub struct CurlAnswer {
    /// curl's exit code: 0 fine, 18 and 92 cut short, 35 TLS, 52 empty, 56 reset, 60 certificate.
    pub code: i32,
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// The head as received, of the last answer, and trailers.
    pub head: String,
    pub body: Vec<u8>,
    pub stderr: String,
}

impl Curl {
    /// `curl URL`, brought to `to` whatever the URL's host, trusting that CA alone.
    pub fn new(url: &str, to: SocketAddr, ca: &Path) -> Self {
        let dir = TempDir::new().expect("temporary folder");
        let body = dir.path().join("body");
        let mut command = Command::new("curl");
        command.args(["-q", "-sS", "--max-time", "30", "--noproxy", "*", "-w", "%{http_code} %{http_version}"]);
        command.arg("--connect-to").arg(format!("::{to}")).arg("--cacert").arg(ca).arg(url);
        command.arg("-D").arg(dir.path().join("head"));
        Self { command, dir, body }
    }

    /// Any other argument of curl's.
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn http1(self) -> Self {
        self.arg("--http1.1")
    }

    pub fn header(self, field: &str) -> Self {
        self.arg("-H").arg(field)
    }

    /// PUTs a file.
    pub fn upload(self, file: &Path) -> Self {
        self.arg("-T").arg(file.to_str().expect("UTF-8"))
    }

    /// Keeps the body in that file, unread.
    pub fn save(mut self, file: &Path) -> Self {
        self.body = file.to_owned();
        self
    }

    #[track_caller]
    pub fn run(mut self) -> CurlAnswer {
        self.command.arg("-o").arg(&self.body);
        let output = run(&mut self.command);
        let (status, version) = output.stdout.split_once(' ').unwrap_or_default();
        let heads = fs::read(self.dir.path().join("head")).unwrap_or_default();
        let heads = String::from_utf8_lossy(&heads);
        let saved = !self.body.starts_with(self.dir.path());
        CurlAnswer {
            code: output.code,
            status: status.parse().unwrap_or(0),
            version: version.to_owned(),
            head: heads.rfind("HTTP/").map(|at| heads.split_at(at).1.to_owned()).unwrap_or_default(),
            body: if saved { Vec::new() } else { fs::read(&self.body).unwrap_or_default() },
            stderr: output.stderr,
        }
    }
}

impl CurlAnswer {
    /// The first field of that name, trailers included.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
