//! `lockgate plan`

mod access_logs;
mod history;
mod human;
mod recommend;
mod report;
mod settings;

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// Say which plan fits, from the metered history or from access logs
    Recommend(recommend::Recommend),
}

impl PlanCommand {
    pub(super) fn run(self) -> ExitCode {
        super::log_remarks();
        match self {
            Self::Recommend(recommend) => recommend.run(),
        }
    }
}
