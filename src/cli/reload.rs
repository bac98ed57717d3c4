//! `lockgate reload`

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::Running;
use super::running::post;
use crate::control::ReloadOutcome;

/// How long the running process may take: a hundred thousand domains and their files.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    running: Running,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(self) -> ExitCode {
        let outcome = match ask(&self.running.control_socket()) {
            Ok(outcome) => outcome,
            Err(why) => {
                eprintln!("error: {why}");
                return ExitCode::from(1);
            }
        };
        if self.json {
            println!("{}", serde_json::json!(outcome));
        } else if outcome.ok {
            println!("reloaded: {}", outcome.message);
        } else {
            eprintln!("reload refused, the old configuration stays in force:\n{}", outcome.message);
        }
        if outcome.ok { ExitCode::SUCCESS } else { ExitCode::from(2) }
    }
}

fn ask(socket: &Path) -> Result<ReloadOutcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let asked = runtime.block_on(async { timeout(PATIENCE, post(socket, "/reload", &())).await });
    asked.map_err(|_| format!("Lockgate did not answer within {PATIENCE:?}"))?
}
