//! `lockgate vault`: the key-encryption key, which opens every kept private key.

mod rotate;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::Running;
use super::failure::Failure;
use crate::config::{self, Diagnostics};
use crate::issuance::KeySource;
use crate::server::forbid_core_dumps;

#[derive(Debug, Subcommand)]
pub(super) enum VaultCommand {
    /// Say where the key is, and whether it opens what is kept
    Status(status::Status),
    /// Change the key, or where it comes from
    Rotate(rotate::Rotate),
}

impl VaultCommand {
    pub(super) fn run(self) -> ExitCode {
        super::log_remarks();
        forbid_core_dumps();
        super::block_on(async {
            match self {
                Self::Status(status) => status.run().await,
                Self::Rotate(rotate) => rotate.run().await,
            }
        })
    }
}

/// Where kept keys lie, and where the key to them is to be had.
fn home_of(running: &Running) -> (PathBuf, Result<KeySource, Diagnostics>) {
    match config::vault_of(&running.file.config) {
        Ok(home) => (running.data_dir.clone().unwrap_or(home.data_dir), Ok(home.vault)),
        Err(wrong) => (running.data_dir(), Err(wrong)),
    }
}

/// What a store or a vault says is wrong.
fn work(error: impl std::fmt::Display) -> Failure {
    Failure::Work(error.to_string())
}
