//! The `lockgate` program: parses the command line and calls one function per command.

use std::process::ExitCode;

use clap::Parser as _;
use lockgate::cli::Cli;

/// Returns memory to the system and spreads over threads better than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
