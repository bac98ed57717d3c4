//! Child processes: what they print is gathered, and only their own children are ever ended.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running child and everything it has printed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    printed: Arc<Lines>,
    stdout: Arc<Lines>,
}

type Lines = (Mutex<Vec<String>>, Condvar);

impl Process {
    /// Starts `command` with both outputs gathered line by line.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (printed, stdout) = (Arc::default(), Arc::default());
        gather(child.stdout.take().expect("piped"), vec![Arc::clone(&printed), Arc::clone(&stdout)]);
        gather(child.stderr.take().expect("piped"), vec![Arc::clone(&printed)]);
        Self { child, printed, stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.printed.0.lock().expect("gatherer").clone()
    }

    /// What was printed on standard output alone.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.0.lock().expect("gatherer").clone()
    }

    /// Waits for a line, also one that is already there.
    #[track_caller]
    pub fn wait_for_line(&self, what: &str, limit: Duration, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + limit;
        let (lines, more) = &*self.printed;
        let mut lines = lines.lock().expect("gatherer");
        loop {
            if let Some(line) = lines.iter().find(|line| fits(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line {what:?} within {limit:?}; printed:\n{}", lines.join("\n"));
            lines = more.wait_timeout(lines, left.min(Duration::from_millis(100))).expect("gatherer").0;
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("signal");
    }

    /// Whether it has ended already.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait")
    }

    /// Waits for the end; `None` if it is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A child never outlives its test.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(from: impl Read + Send + 'static, into: Vec<Arc<Lines>>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            for lines in &into {
                lines.0.lock().expect("reader").push(text.clone());
                lines.1.notify_all();
            }
            line.clear();
        }
    });
}

/// Loads `library` into what `command` runs, beside others that are loaded so.
pub fn preload(command: &mut Command, library: &Path) {
    let others = command.get_envs().find(|(key, _)| *key == "LD_PRELOAD").and_then(|(_, value)| value);
    let mut all = others.map(ToOwned::to_owned).unwrap_or_default();
    if !all.is_empty() {
        all.push(":");
    }
    all.push(library);
    command.env("LD_PRELOAD", all);
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Both outputs, for tests that do not care which.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lockgate"))
}

/// Runs `lockgate` with these arguments to its end.
#[track_caller]
pub fn lockgate(args: &[&str]) -> Output {
    run(Command::new(program()).args(args))
}
