//! The program under test, running.

use std::fs;
use std::io::{BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::answer::{Answer, read_answer};
use super::clock::Clock;
use super::curl::Curl;
use super::disk::Disk;
use super::metrics::Metrics;
use super::pki::{Pki, Presented};
use super::process::{Output, Process, lockgate, program, run};
use super::setup::{DATA_DIR, Setup, Start, ToOrigin};
use super::tls::{Connection, TlsClient};
use super::{PATIENCE, eventually};

/// From the start of the process to `ready`.
const START_LIMIT: Duration = Duration::from_secs(15);
/// From SIGTERM to the end, when nothing is under way.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Descriptors that come with the first use of a thing and stay (a log, an event queue): not a leak.
const FD_SLACK: usize = 3;

/// Descriptors below the data directory: the lock, a journal's file, a few connections to the database of three each.
const STORE_FDS: usize = 20;

/// A running proxy. Dropped without a panic, it is stopped and held to what every test demands.
pub struct Lockgate {
    process: Process,
    setup: Setup,
    dir: TempDir,
    clock: Option<Clock>,
    disk: Option<Disk>,
    https: SocketAddr,
    /// `None`: `listen.http = []`.
    http: Option<SocketAddr>,
    admin: SocketAddr,
    fds_at_start: usize,
    stopped: bool,
}

impl Lockgate {
    /// Begins a configuration with certificates of its own authority.
    pub fn setup() -> Setup {
        Setup::new(&Pki::new())
    }

    /// Begins a configuration with certificates of this authority.
    pub fn under(pki: &Pki) -> Setup {
        Setup::new(pki)
    }

    /// One domain with a certificate: what most tests need.
    pub fn serving(name: &str, origin: impl ToOrigin) -> Setup {
        Self::setup().domain(name, origin)
    }

    #[track_caller]
    pub(super) fn start(setup: Setup) -> Self {
        let dir = TempDir::new().expect("temporary folder");
        let clock = setup.clock.as_ref().map(|start| match start {
            Start::Flowing(date) => Clock::flowing(dir.path(), date),
            Start::Stopped(date) => Clock::stopped(dir.path(), date),
        });
        let disk = setup.has_disk.then(|| Disk::new(dir.path(), DATA_DIR));
        setup.write(dir.path());
        let process = launch(&setup, dir.path(), clock.as_ref(), disk.as_ref());
        let lines = process.lines();
        let mut gate = Self {
            https: listening(&lines, "https://"),
            http: listening_if_any(&lines, "http://"),
            admin: listening(&lines, "admin http://"),
            process,
            setup,
            dir,
            clock,
            disk,
            fds_at_start: 0,
            stopped: false,
        };
        gate.metrics();
        gate.fds_at_start = gate.open_fds();
        gate
    }

    pub fn https(&self) -> SocketAddr {
        self.https
    }

    pub fn http(&self) -> SocketAddr {
        self.http.expect("a listener for plain HTTP")
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The listener of `[listen] metrics`.
    #[track_caller]
    pub fn metrics_address(&self) -> SocketAddr {
        listening(&self.process.lines(), "metrics http://")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.setup.ca_file()
    }

    /// `lockgate WORDS ... -c FILE` on its configuration and in its environment.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> Output {
        let env = self.setup.env.iter().map(|(name, value)| (name, value));
        run(Command::new(program()).args(words).arg("-c").arg(self.config_file()).envs(env))
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("lockgate.toml")
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    // Clients.

    /// A TLS client that names this site.
    pub fn tls(&self, name: &str) -> TlsClient {
        TlsClient::new(self.https, name)
    }

    /// An HTTP/1.1 connection to this site.
    #[track_caller]
    pub fn connect(&self, name: &str) -> Connection {
        self.tls(name).connect().unwrap_or_else(|e| panic!("handshake for {name}: {e:?}"))
    }

    /// `curl URL`, brought to this proxy whatever the URL's host.
    pub fn curl(&self, url: &str) -> Curl {
        let to = if url.starts_with("http://") { self.http() } else { self.https };
        Curl::new(url, to, &self.ca_file())
    }

    /// One GET over a fresh HTTP/1.1 connection.
    #[track_caller]
    pub fn get(&self, url: &str) -> Answer {
        let (name, path) = url.split_once('/').unwrap_or((url, ""));
        self.connect(name).get(&format!("/{path}"))
    }

    /// The leaf that a client for this name is shown.
    #[track_caller]
    pub fn leaf(&self, name: &str) -> Presented {
        self.connect(name).presented()
    }

    /// `count` GETs over one HTTP/1.1 connection; the statuses in order.
    #[track_caller]
    pub fn get_many(&self, name: &str, count: usize) -> Vec<u16> {
        let mut connection = self.connect(name);
        (0..count).map(|_| connection.get("/").status).collect()
    }

    // The admin listener.

    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Answer {
        plain_get(self.admin, &self.admin.to_string(), path)
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.admin_get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }

    /// The value of one series now.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.metrics().get(name, labels)
    }

    /// Waits until a series has this value; one that is not there counts as 0.
    #[track_caller]
    pub fn await_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.metric(name, labels).unwrap_or(0.0);
            if (found - value).abs() < 1e-9 {
                return;
            }
            assert!(Instant::now() < deadline, "{name}{labels:?} is {found}, not {value}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    // Configuration and clock.

    /// Writes a changed configuration; nothing reads it yet.
    pub fn rewrite(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
        self.setup.write(self.dir.path());
    }

    /// Writes this text where the configuration was.
    pub fn rewrite_raw(&self, toml: &str) {
        fs::write(self.config_file(), toml).expect("configuration");
    }

    /// Writes the configuration of before again.
    pub fn restore(&self) {
        self.setup.write(self.dir.path());
    }

    /// `lockgate reload -c FILE`.
    #[track_caller]
    pub fn reload(&self) -> Output {
        lockgate(&["reload", "-c", self.config_file().to_str().expect("UTF-8")])
    }

    /// `lockgate reload -c FILE --data-dir DIR`, as one has to whose file no longer says where the process is.
    #[track_caller]
    pub fn reload_by_data_dir(&self) -> Output {
        let (file, data_dir) = (self.config_file(), self.dir.path().join(DATA_DIR));
        run(Command::new(program()).args(["reload", "-c"]).arg(file).arg("--data-dir").arg(data_dir))
    }

    /// Writes a changed configuration and reloads it, which must succeed.
    #[track_caller]
    pub fn reconfigure(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.rewrite(change);
        let output = self.reload();
        assert_eq!(output.code, 0, "reload: {}", output.text());
    }

    #[track_caller]
    pub fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("a setup with a clock")
    }

    #[track_caller]
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a setup with a disk")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir().unwrap_or_else(|| self.dir.path().join(DATA_DIR))
    }

    // The process.

    /// kill -9: nothing is said or written any more.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait(STOP_LIMIT).expect("nothing survives a SIGKILL");
        self.stopped = true;
        self.inspect_log();
    }

    /// SIGTERM, and a good end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait_for_end(STOP_LIMIT), Some(0), "exit code; log:\n{}", self.log().join("\n"));
        self.inspect_log();
    }

    /// Another process in the same folder, by the same clock and on the same disk, with free ports of its own.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.stopped, "one process at a time");
        self.process = launch(&self.setup, self.dir.path(), self.clock.as_ref(), self.disk.as_ref());
        let lines = self.process.lines();
        self.https = listening(&lines, "https://");
        self.http = listening_if_any(&lines, "http://");
        self.admin = listening(&lines, "admin http://");
        self.stopped = false;
        self.metrics();
        self.fds_at_start = self.open_fds();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// What it printed on standard output: nothing but an access log.
    pub fn stdout(&self) -> Vec<String> {
        self.process.stdout()
    }

    /// Waits for a log line that contains all of these.
    #[track_caller]
    pub fn await_log(&self, parts: &[&str]) -> String {
        self.process.wait_for_line(&parts.join(" .. "), PATIENCE, |line| parts.iter().all(|part| line.contains(part)))
    }

    /// Log lines that contain all of these, so far.
    pub fn count_log(&self, parts: &[&str]) -> usize {
        self.log().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
    }

    /// Processor time taken so far, user and system.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("running");
        let after_name = stat.rsplit(") ").next().expect("a name in brackets");
        let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Its threads by their names, each with its niceness (setpriority(2)).
    pub fn niceness(&self) -> Vec<(String, i32)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("running");
        // One that has ended meanwhile is none.
        let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
        let parts = |stat: String| {
            let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
            Some((name.to_owned(), fields.split(' ').nth(16)?.parse().ok()?))
        };
        stats.filter_map(parts).collect()
    }

    /// Open descriptors, without connections to origins: keeping those is the purpose of a pool.
    ///
    /// Whoever is not root may not look: the process is not dumpable. Then there are always none.
    fn open_fds(&self) -> usize {
        let links = match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return 0,
            links => links.expect("running"),
        };
        let links: Vec<_> = links.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
        let pooled = self.pooled_inodes();
        // What the store has open is bounded, and comes and goes with what it does.
        let data_dir = self.data_dir();
        let is_stored = |link: &&PathBuf| link.starts_with(&data_dir);
        assert!(links.iter().filter(is_stored).count() < STORE_FDS, "{links:?}");
        let is_pooled = |link: &PathBuf| pooled.iter().any(|inode| link.to_string_lossy() == *inode);
        links.iter().filter(|link| !is_pooled(link) && !is_stored(link)).count()
    }

    /// All descriptors that are open. `None`: only root may look.
    pub fn count_fds(&self) -> Option<usize> {
        match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            links => Some(links.expect("running").count()),
        }
    }

    /// Established sockets whose remote port is an origin's, as `/proc/PID/fd` names them.
    fn pooled_inodes(&self) -> Vec<String> {
        const ESTABLISHED: &str = "01";
        let ports = self.setup.origin_ports();
        let tables = ["tcp", "tcp6"].map(|t| fs::read_to_string(format!("/proc/{}/net/{t}", self.pid())));
        let tables = tables.map(Result::unwrap_or_default);
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        let pooled = lines.filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let port = u16::from_str_radix(fields.get(2)?.rsplit(':').next()?, 16).ok()?;
            let counts = *fields.get(3)? == ESTABLISHED && ports.contains(&port);
            counts.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
        });
        pooled.collect()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Waits for the end of a process that was told to stop; its exit code.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> Option<i32> {
        let status = self.process.wait(limit).unwrap_or_else(|| panic!("still running after {limit:?}"));
        self.stopped = true;
        status.code()
    }

    /// SIGTERM, and what every test demands of the end.
    #[track_caller]
    fn finish(&mut self) {
        if !self.stopped {
            assert!(!self.ended(), "it ended by itself:\n{}", self.log().join("\n"));
            let before = self.fds_at_start;
            eventually(&format!("descriptors back at {before}"), || {
                (self.open_fds() <= before + FD_SLACK).then_some(())
            });
            self.signal(Signal::TERM);
            let code = self.wait_for_end(STOP_LIMIT);
            assert_eq!(code, Some(0), "exit code; log:\n{}", self.log().join("\n"));
        }
        self.inspect_log();
    }

    /// No panic, and no error that the test does not expect.
    #[track_caller]
    fn inspect_log(&self) {
        let expected = |line: &String| self.setup.expected_errors.iter().any(|part| line.contains(part));
        let wrong = |line: &&String| line.contains("panicked at") || (line.contains(" ERROR ") && !expected(line));
        let log = self.log();
        let wrong: Vec<_> = log.iter().filter(wrong).collect();
        assert!(wrong.is_empty(), "in the log: {wrong:#?}");
    }
}

/// A failed test has said enough.
impl Drop for Lockgate {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
        }
    }
}

/// A process that is ready, with the configuration in `dir`.
#[track_caller]
fn launch(setup: &Setup, dir: &Path, clock: Option<&Clock>, disk: Option<&Disk>) -> Process {
    let mut command = Command::new(program());
    if let Some(limit) = setup.max_fds {
        command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(program());
    }
    command.arg("run").arg("-c").arg(dir.join("lockgate.toml"));
    command.envs(setup.env.iter().map(|(name, value)| (name, value)));
    if let Some(clock) = clock {
        clock.govern(&mut command);
    }
    if let Some(disk) = disk {
        disk.govern(&mut command);
    }
    let process = Process::spawn(&mut command);
    process.wait_for_line("ready", START_LIMIT, |line| line.split_whitespace().any(|word| word == "ready"));
    process
}

/// One GET in plain HTTP, with that Host.
#[track_caller]
pub fn plain_get(to: SocketAddr, host: &str, path: &str) -> Answer {
    let ask = || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        read_answer(&mut BufReader::new(stream), false)
    };
    ask().unwrap_or_else(|e| panic!("GET {path} from {to}: {e}"))
}

#[track_caller]
fn listening(lines: &[String], what: &str) -> SocketAddr {
    let address = listening_if_any(lines, what);
    address.unwrap_or_else(|| panic!("no line \"listening on {what}\"; printed:\n{}", lines.join("\n")))
}

fn listening_if_any(lines: &[String], what: &str) -> Option<SocketAddr> {
    let begins = format!("listening on {what}");
    lines.iter().find_map(|line| line.split_once(&begins)?.1.split([' ', '/', '"']).next()?.parse().ok())
}
