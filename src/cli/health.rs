//! `lockgate health`: for container health checks, where there is no curl.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::Running;

/// How long the running process may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any answer of `/healthz`.
const MAX_ANSWER_BYTES: u64 = 4096;

/// Asks over the control socket: whether a process serves does not depend on what its configuration file says by now.
pub(super) fn run(running: &Running) -> ExitCode {
    let socket = running.control_socket();
    match ask(&socket) {
        Ok(status) if status.starts_with("HTTP/1.1 200") => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("not serving: {status}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("no Lockgate answers at {}: {error}", socket.display());
            ExitCode::from(1)
        }
    }
}

/// The status line of `/healthz`.
fn ask(socket: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}
