//! A program of the operator's that wraps and unwraps: `COMMAND... wrap` or `COMMAND... unwrap`, base64 in and out.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::wrap::{CALL_TIMEOUT, Fault, MAX_ANSWER_BYTES, printable};
use crate::secret::withhold_all;

/// Of what it says on its standard error, this much is looked at for a first line.
const MAX_COMPLAINT_BYTES: usize = 4 * 1024;

/// The program, and how long one call of it may take.
pub(super) struct Program {
    command: Vec<String>,
    pub(super) limit: Duration,
}

impl Program {
    /// # Errors
    /// If no program is named.
    pub(super) fn new(command: &[String]) -> Result<Self, String> {
        match command.first() {
            Some(program) if !program.is_empty() => Ok(Self { command: command.to_vec(), limit: CALL_TIMEOUT }),
            _ => Err("no program is named: write its path and its first arguments".to_owned()),
        }
    }

    /// `exec:PROGRAM`.
    pub(super) fn identity(&self) -> String {
        format!("exec:{}", self.command.first().map_or("", String::as_str))
    }

    /// Gives `octets` to the program as a line of base64 and returns the octets that it answers so. Whatever it started
    /// is killed with it when its time is over, or when nobody waits any more.
    ///
    /// # Errors
    /// If it cannot be started, does not end in time, ends with another code than 0, or answers something else.
    pub(super) async fn run(&self, verb: &str, octets: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let called = timeout(self.limit, self.call(verb, octets)).await;
        let answered =
            called.unwrap_or_else(|_| Err(format!("`{verb}` took longer than {:?} and was ended", self.limit)));
        answered.map_err(Fault::Away)
    }

    async fn call(&self, verb: &str, octets: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let (program, arguments) = self.command.split_first().ok_or("no program is named")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(verb);
        withhold_all(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what a shell script started ends with it.
        command.process_group(0).kill_on_drop(true);
        let mut running = Running(command.spawn().map_err(|error| format!("it cannot be started: {error}"))?);
        let pipes = (running.0.stdin.take(), running.0.stdout.take(), running.0.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else { return Err("it has no pipes".to_owned()) };

        let line = line(octets);
        let give = async move {
            // One that does not read its input says why by its code and its answer.
            _ = stdin.write_all(&line).await;
        };
        let ((), answer, complaint) = tokio::join!(give, read_bounded(stdout), first_line(stderr));
        let answer = answer.map_err(|fault| format!("`{verb}` {fault}"))?;
        let status = running.0.wait().await.map_err(|error| format!("`{verb}` did not end: {error}"))?;
        if !status.success() {
            let said = if complaint.is_empty() { "it said nothing".to_owned() } else { complaint };
            return Err(format!("`{verb}` ended with {status}: {said}"));
        }
        decode(&answer).ok_or_else(|| format!("`{verb}` must answer one line of base64, and answered something else"))
    }
}

/// A line of base64, at its full length from the beginning: a buffer that grows leaves copies behind.
fn line(octets: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(vec![b'\n'; octets.len().div_ceil(3).saturating_mul(4).saturating_add(1)]);
    if let Some((_, digits)) = line.split_last_mut() {
        // It has room for exactly that.
        _ = STANDARD.encode_slice(octets, digits);
    }
    line
}

/// A program under way: killed, with all that it started, when this is dropped before it ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // No id: it was waited for, and its number may be another's by now.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            _ = kill_process_group(id, Signal::KILL);
        }
    }
}

async fn read_bounded(stdout: impl AsyncRead + Unpin) -> Result<Zeroizing<Vec<u8>>, String> {
    // Room for all of it at once, and for the look whether there is more: a buffer that grows leaves copies behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES + 64));
    let read = stdout.take(MAX_ANSWER_BYTES as u64 + 1).read_to_end(&mut answer).await;
    read.map_err(|error| format!("was not heard: {error}"))?;
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(format!("answered more than {MAX_ANSWER_BYTES} octets"));
    }
    Ok(answer)
}

/// What it complains about. The rest is read, too, or it would wait for ever to say it.
async fn first_line(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut complaint = Vec::new();
    _ = (&mut stderr).take(MAX_COMPLAINT_BYTES as u64).read_to_end(&mut complaint).await;
    _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    let complaint = String::from_utf8_lossy(&complaint);
    printable(complaint.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default())
}

/// Base64 that may be broken into lines.
fn decode(answer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut digits = Zeroizing::new(Vec::with_capacity(answer.len()));
    digits.extend(answer.iter().filter(|octet| !octet.is_ascii_whitespace()));
    let mut octets = Zeroizing::new(Vec::with_capacity(digits.len()));
    STANDARD.decode_vec(digits.as_slice(), &mut octets).ok()?;
    (!octets.is_empty()).then_some(octets)
}
