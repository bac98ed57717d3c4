//! `lockgate usage`: what was metered, shown, exported and checked. It only reads, beside a running process or without
//! one.
//!
//! ```text
//! range            which days are asked for
//! show             tables and plots, from days, plot, overview and around
//! export verify    records as they were sealed, and whether they still are; exported is the file between the two
//! ```

mod around;
mod compare;
mod days;
mod export;
mod exported;
mod overview;
mod plot;
mod range;
mod show;
mod verify;

use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::process::ExitCode;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;

/// From so many domains on, a terminal is shown how far the work is.
const MANY_DOMAINS: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum Usage {
    /// Show what domains used, by day
    Show(show::Show),
    /// Write down every sealed day with its hash, as CSV or JSON
    Export(export::Export),
    /// Check that sealed days are what was sealed
    Verify(verify::Verify),
}

impl Usage {
    pub(super) fn run(self) -> ExitCode {
        super::log_remarks();
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::Work(error.to_string()).report(),
        };
        let done = runtime.block_on(async {
            match self {
                Self::Show(show) => show.run().await,
                Self::Export(export) => export.run().await,
                Self::Verify(verify) => verify.run().await,
            }
        });
        done.unwrap_or_else(|failure| failure.report())
    }
}

/// Standard output, for many small writes.
fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Prints one JSON value.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// How far the work is, of so many domains: on a terminal, and if it may take a while.
fn progress(domains: usize, doing: &'static str) -> ProgressBar {
    if domains < MANY_DOMAINS {
        return ProgressBar::hidden();
    }
    // Draws nothing unless standard error is a terminal.
    let bar = ProgressBar::new(domains as u64);
    let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos} of {human_len} domains");
    style.map(|style| bar.clone().with_style(style)).unwrap_or(bar).with_message(doing)
}
