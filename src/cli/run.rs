//! `lockgate run`

use std::path::Path;
use std::process::ExitCode;

use super::report;
use crate::server;

pub(super) fn run(config: &Path) -> ExitCode {
    match server::run(config, |_| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}
