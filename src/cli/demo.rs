//! `lockgate demo`: a tiny origin, certificates, and HTTPS in front, with nothing prepared.

mod authority;

use std::convert::Infallible;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::report;
use crate::server::{self, Listening};
use authority::LocalAuthority;

/// The domain of `--acme`: authorities do not issue for `localhost` itself.
const ACME_NAME: &str = "demo.localhost";
/// Names tried for the demo's directory. One of 2^64 is hardly ever taken.
const MAX_SCRATCH_ATTEMPTS: u8 = 8;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// The port to serve HTTPS on; 0 for any free one
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
    /// The port to redirect plain HTTP on; 0 for any free one
    #[arg(long, default_value_t = 0)]
    http_port: u16,
    /// The port of the admin listener; 0 for any free one
    #[arg(long, default_value_t = 9180)]
    admin_port: u16,
    /// Get the certificate from a certificate authority on this machine, over ACME: Pebble, which must be installed
    #[arg(long)]
    acme: bool,
    /// Put this origin behind localhost instead of the built-in page
    #[arg(long, value_name = "URL")]
    origin: Option<String>,
}

impl Demo {
    pub(super) fn run(self) -> ExitCode {
        let dir = match Scratch::new() {
            Ok(dir) => dir,
            Err(error) => return failed(&format!("no temporary directory: {error}")),
        };
        let origin = match self.origin.clone().map_or_else(start_origin, Ok) {
            Ok(origin) => origin,
            Err(error) => return failed(&format!("the built-in origin cannot start: {error}")),
        };
        match self.serve(&dir.0, &origin) {
            Ok(code) => code,
            Err(why) => failed(&why),
        }
    }

    fn serve(mut self, dir: &Path, origin: &str) -> Result<ExitCode, String> {
        let authority = if self.acme {
            // Where the authority looks must be known before anybody listens there.
            self.http_port = free_port(self.http_port).map_err(|error| format!("no free port: {error}"))?;
            self.https_port = free_port(self.https_port).map_err(|error| format!("no free port: {error}"))?;
            println!("Starting a certificate authority on this machine ...");
            Some(LocalAuthority::start(dir, self.http_port, self.https_port)?)
        } else {
            None
        };
        let (config, vault_key) = (dir.join("lockgate.toml"), dir.join("vault.key"));
        // Its own, so that nobody is told to keep a copy of a key that is gone with the demo.
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system has no randomness".to_owned())?;
        let files = [(&vault_key, hex::encode(key)), (&config, self.configuration(dir, origin, authority.as_ref()))];
        for (file, text) in files {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
            let written = made.and_then(|mut made| made.write_all(text.as_bytes()));
            written.map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let introduce = |listening: &Listening| match &authority {
            None => introduce(listening, dir, origin),
            Some(authority) => introduce_acme(listening, dir, origin, authority),
        };
        Ok(match server::run(&config, introduce) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&error),
        })
    }

    fn configuration(&self, dir: &Path, origin: &str, authority: Option<&LocalAuthority>) -> String {
        let Self { https_port, http_port, admin_port, .. } = self;
        let (level, name) = if authority.is_some() { ("info", ACME_NAME) } else { ("warn", "localhost") };
        let acme = authority.map(|authority| {
            let LocalAuthority { directory, api_root, .. } = authority;
            format!(
                "[acme]\nagree_to_terms = true\n\
                 [[acme.ca]]\nname = \"pebble\"\ndirectory = {directory:?}\nca_file = {:?}\n",
                api_root.display().to_string()
            )
        });
        format!(
            "data_dir = {data_dir:?}\n\
             log = {{ level = {level:?} }}\n\
             [vault]\n\
             key_file = {vault_key:?}\n\
             {acme}\
             [listen]\n\
             https = [\"127.0.0.1:{https_port}\"]\n\
             http = [\"127.0.0.1:{http_port}\"]\n\
             admin = \"127.0.0.1:{admin_port}\"\n\
             [[domain]]\n\
             name = {name:?}\n\
             plan = \"basic\"\n\
             origin = {origin:?}\n",
            data_dir = dir.join("data").display().to_string(),
            vault_key = dir.join("vault.key").display().to_string(),
            acme = acme.unwrap_or_default(),
        )
    }
}

/// Tells what there is to try. The last thing on the screen, because the log only speaks up when something is wrong.
fn introduce(listening: &Listening, dir: &Path, origin: &str) {
    let root = dir.join("root.pem");
    _ = fs::write(&root, &listening.internal_root_pem);
    let root = root.display();
    let port = |addresses: &[SocketAddr]| addresses.first().map_or(0, SocketAddr::port);
    let (https, http, admin) = (port(&listening.https), port(&listening.http), listening.admin);
    let lockgate = std::env::current_exe().map_or_else(|_| "lockgate".to_owned(), |path| path.display().to_string());
    let data_dir = dir.join("data");
    let data_dir = data_dir.display();
    // In one piece, so that no line of the log comes between.
    print!(
        "Lockgate serves https://localhost:{https} in front of {origin}\n\n\
         \x20 Try it          curl --cacert {root} https://localhost:{https}/\n\
         \x20 Plain HTTP      curl -i http://localhost:{http}/\n\
         \x20 Go over 10 QPS  for i in $(seq 300); do curl -so /dev/null -w '%{{http_code}}\\n' --cacert {root} https://localhost:{https}/; done | sort | uniq -c\n\
         \x20                 and again, ten seconds later: now the plan holds, most are 429\n\
         \x20 Watch it        curl -s http://{admin}/metrics | grep lockgate_domain\n\
         \x20 What it used    {lockgate} usage show localhost --data-dir {data_dir}\n\n\
         In a browser, accept the certificate once: Lockgate made it itself, so nobody knows it. Ctrl-C ends the demo.\n"
    );
}

/// The same, where an authority issues: it does so while this is read, and the log shows how.
fn introduce_acme(listening: &Listening, dir: &Path, origin: &str, authority: &LocalAuthority) {
    let port = |addresses: &[SocketAddr]| addresses.first().map_or(0, SocketAddr::port);
    let (https, admin) = (port(&listening.https), listening.admin);
    let lockgate = std::env::current_exe().map_or_else(|_| "lockgate".to_owned(), |path| path.display().to_string());
    let (config, root) = (dir.join("lockgate.toml"), authority.root.display());
    let config = config.display();
    print!(
        "Lockgate serves https://{ACME_NAME}:{https} in front of {origin}\n\n\
         \x20 Its configuration names no certificate: one is ordered now from {directory}, and is there in a second.\n\n\
         \x20 Try it          curl --cacert {root} --resolve {ACME_NAME}:{https}:127.0.0.1 https://{ACME_NAME}:{https}/\n\
         \x20 Certificates    {lockgate} cert list -c {config}\n\
         \x20 Renew it        {lockgate} cert renew {ACME_NAME} -c {config}\n\
         \x20 Watch it        curl -s http://{admin}/metrics | grep lockgate_certificate\n\n\
         Ctrl-C ends the demo.\n\n",
        directory = authority.directory,
    );
}

/// The port, or any free one where it is 0.
fn free_port(port: u16) -> std::io::Result<u16> {
    match port {
        0 => Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port()),
        port => Ok(port),
    }
}

/// An origin of our own on a free port: one page, which shows what an origin gets to see.
fn start_origin() -> std::io::Result<String> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("demo-origin".to_owned()).spawn(move || runtime.block_on(serve_origin(socket)))?;
    Ok(format!("http://{address}"))
}

async fn serve_origin(socket: std::net::TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(socket) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(show)));
    }
}

async fn show(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut page = format!("Hello from the origin, by way of Lockgate.\n\n{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        page.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let mut response = Response::new(Full::new(Bytes::from(page)));
    let text = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

/// A directory that goes when the demo does.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        Self::within(&std::env::temp_dir())
    }

    /// Makes one that was not there: in a directory that everybody writes to, one that is there may be a trap.
    fn within(parent: &Path) -> std::io::Result<Self> {
        let mut attempts = 0..MAX_SCRATCH_ATTEMPTS;
        loop {
            let dir = parent.join(format!("lockgate-demo-{:016x}", RandomState::new().hash_one(attempts.start)));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(Self(dir)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempts.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_scratch_directory_is_its_owners_alone_and_goes() {
        let parent = tempfile::TempDir::new().unwrap();
        let (one, two) = (Scratch::within(parent.path()).unwrap(), Scratch::within(parent.path()).unwrap());
        assert_ne!(one.0, two.0);
        assert_eq!(one.0.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let path = one.0.clone();
        drop(one);
        assert!(!path.exists());
        assert!(Scratch::within(&path).is_err());
    }
}
