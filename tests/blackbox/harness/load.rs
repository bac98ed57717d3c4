//! h2load and wrk: thousands of requests, and whether every one of them was answered.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::lockgate::Lockgate;
use super::process::{Output, run};

/// What became of the requests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Answered, with whatever status.
    pub done: u64,
    /// Answered with 2xx.
    pub good: u64,
    /// Answered with 3xx, 4xx or 5xx.
    pub refused: u64,
    /// Not answered at all.
    pub errors: u64,
}

impl Load {
    /// `count` requests, all answered with 2xx.
    pub fn all_good(count: u64) -> Self {
        Self { done: count, good: count, refused: 0, errors: 0 }
    }
}

/// [`h2load_at`] a proxy.
#[track_caller]
pub fn h2load(gate: &Lockgate, url: &str, count: u64, clients: u64, more: &[&str]) -> Load {
    h2load_at(gate.https(), url, count, clients, more)
}

/// `count` requests by h2load over `clients` connections; arguments such as `--h1`, `-m10`, `-H...` after them.
#[track_caller]
pub fn h2load_at(to: SocketAddr, url: &str, count: u64, clients: u64, more: &[&str]) -> Load {
    let mut command = Command::new("h2load");
    command.arg(format!("-n{count}")).arg(format!("-c{clients}")).arg(format!("--connect-to={to}"));
    let output = run(command.args(more).arg(url));
    let line = |begins| {
        let line = output.stdout.lines().find_map(|line| line.strip_prefix(begins));
        line.unwrap_or_else(|| panic!("h2load said {output:?}"))
    };
    let (requests, codes) = (line("requests: "), line("status codes: "));
    let good = before(codes, " 2xx");
    let refused = before(codes, " 3xx") + before(codes, " 4xx") + before(codes, " 5xx");
    Load { done: good + refused, good, refused, errors: before(requests, " total") - good - refused }
}

/// wrk over HTTP/1.1 for some time. It takes the name from the URL alone, so the site must be `localhost`.
#[track_caller]
pub fn wrk(gate: &Lockgate, path: &str, connections: u64, time: Duration) -> Load {
    let mut command = Command::new("wrk");
    command.arg("-t1").arg(format!("-c{connections}")).arg(format!("-d{}s", time.as_secs().max(1)));
    let Output { code, stdout, stderr } = run(command.arg(format!("https://localhost:{}{path}", gate.https().port())));
    assert_eq!(code, 0, "wrk: {stdout}{stderr}");
    let line = |contains: &str| stdout.lines().find(|line| line.contains(contains));
    let done = before(line(" requests in ").unwrap_or_else(|| panic!("wrk said {stdout}")), " requests in ");
    let refused = line("Non-2xx").and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
    let socket = line("Socket errors").map_or(0, |line| {
        let numbers = line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
        numbers.sum()
    });
    Load { done, good: done - refused, refused, errors: socket }
}

/// The number that stands before a word.
#[track_caller]
fn before(line: &str, word: &str) -> u64 {
    let number = line.split(word).next().and_then(|left| left.rsplit([' ', ',']).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {word:?} in {line:?}"))
}

/// Sends `count` requests within the bucket in which the clock stands, closes it, and waits until it is judged.
#[track_caller]
pub fn fill_bucket(gate: &Lockgate, name: &str, count: usize) {
    gate.get_many(name, count);
    // Every worker ships what it has; a busy machine would be late otherwise, and a day amended.
    gate.metrics();
    gate.clock().advance(10);
    gate.await_metric("lockgate_domain_qps", &[("domain", name)], count as f64 / 10.0);
}
