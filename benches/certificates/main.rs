//! What 100,000 stored certificates cost: the start, the memory, a first handshake, standing idle, and a thousand
//! renewals beside the requests.
//!
//! The first four are the real program's, started anew for each run; the last is measured in this process. `start` or
//! `renewals` behind `--` measures that alone. The inventory is made first, which takes about a minute: with
//! `LOCKGATE_BENCH_DIR` set it is made there, and found there next time.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark may")]

mod client;
mod load;
mod program;
mod renewals;
mod stock;

use std::path::Path;

use program::Program;
use stock::Stock;

/// Of everything, unless `LOCKGATE_BENCH_RUNS` says otherwise.
const RUNS: usize = 5;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // `cargo test --benches` only wants to see that it builds.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let made = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let kept = std::env::var_os("LOCKGATE_BENCH_DIR");
    let stock = Stock::at(kept.as_ref().map_or(made.path(), Path::new));
    println!("{} certificates, {} bytes each with key and chain's number", stock::DOMAINS, stock.bytes_per_certificate);

    let runs = std::env::var("LOCKGATE_BENCH_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| named.is_empty() || named.iter().any(|it| it == part);
    if is_wanted("start") {
        starts(&stock, runs);
    }
    if is_wanted("renewals") {
        for (what, quiet, busy) in renewals::measure(&stock, runs) {
            println!("{what}, p99: {quiet:.3} ms, with renewals {busy:.3} ms");
            row("moved by, %", (busy / quiet - 1.) * 100., 10.);
        }
    }
}

fn starts(stock: &Stock, runs: usize) {
    let starts: Vec<Program> = (0..runs).map(|run| Program::measure(stock, run)).collect();
    let median = |figure: fn(&Program) -> f64| median(starts.iter().map(figure));
    row("start to the first handshake, ms", median(|it| it.first_handshake_ms), 1000.);
    row("resident after it, MiB", median(|it| it.resident_mib), 250.);
    row("resident a minute later, MiB", median(|it| it.resident_later_mib), 250.);
    row("first handshake of a name over its second, median, ms", median(|it| it.cold_over_warm_ms), 5.);
    row("the same, the worst of 99 %, ms", median(|it| it.cold_over_warm_p99_ms), 5.);
    row("processor while idle, % of one", median(|it| it.idle_percent), 1.);
}

fn row(what: &str, figure: f64, at_most: f64) {
    let verdict = if figure <= at_most { "" } else { "  <-- too much" };
    println!("{what:<56} {figure:>9.2}  (at most {at_most}){verdict}");
}

/// The middle one.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    part(figures, 0.5)
}

/// The figure that a `part` of all does not exceed.
pub fn part(figures: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[((figures.len() - 1) as f64 * part).round() as usize]
}
