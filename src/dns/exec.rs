//! A program of the operator's that sets TXT records: `COMMAND... present NAME VALUE`, `COMMAND... clear NAME VALUE`.

use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::error::DnsError;

/// What is read of its standard error.
const STDERR_MAX: usize = 4096;
/// How long standard error may stay open after its end: something that it left behind may hold it.
const STDERR_GRACE: Duration = Duration::from_millis(500);

/// Runs the program. Its standard output is thrown away.
pub(super) async fn run(
    command: &[String],
    verb: &'static str,
    at: &str,
    value: &str,
    patience: Duration,
) -> Result<(), DnsError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(DnsError::Settings("`command` is empty: it needs a program".into()));
    };
    let fail = |why| DnsError::Exec { program: program.clone(), verb, at: at.to_owned(), why };
    let mut command = Command::new(program);
    command.args(arguments).args([verb, at, value]);
    crate::secret::withhold_all(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A group of its own, so that its children end with it.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| fail(format!("it cannot be started: {error}")))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let stderr = child.stderr.take();
    let mut first = Vec::new();
    let running = async {
        let mut reading = pin!(read(stderr, &mut first));
        tokio::select! {
            status = child.wait() => {
                _ = timeout(STDERR_GRACE, reading).await;
                status
            }
            // It has closed standard error and goes on.
            () = &mut reading => child.wait().await,
        }
    };
    let Ok(status) = timeout(patience, running).await else {
        // The group ends with this function. What it said until then may tell what it waited for.
        let ending = format!("it was killed after {}", humantime::format_duration(patience));
        return Err(fail(with_words(ending, &first)));
    };
    let status = status.map_err(|error| fail(error.to_string()))?;
    group.0 = None;
    if status.success() { Ok(()) } else { Err(fail(with_words(status.to_string(), &first))) }
}

/// The child and its children. Killed when dropped, as when the caller stops to wait.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Keeps the beginning and reads the rest all the same, so that the program does not get stuck.
async fn read(stderr: Option<impl AsyncRead + Unpin>, first: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let room = STDERR_MAX.saturating_sub(first.len());
        first.extend_from_slice(buffer.get(..length.min(room)).unwrap_or_default());
    }
}

/// How it ended, and the first line of what it said.
fn with_words(ending: String, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    match line {
        Some(line) => format!("{ending}: {}", line.replace(char::is_control, " ")),
        None => format!("{ending}, and nothing on standard error"),
    }
}
