//! `lockgate reload`

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Running;
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
    let asked = runtime.block_on(async { timeout(PATIENCE, post_reload(socket)).await });
    asked.map_err(|_| format!("Lockgate did not answer within {PATIENCE:?}"))?
}

async fn post_reload(socket: &Path) -> Result<ReloadOutcome, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        format!(
            "no Lockgate answers at {}: {error}; start it with `lockgate run`, or name its --data-dir",
            socket.display()
        )
    })?;
    let broke_off = |error: hyper::Error| format!("the running Lockgate broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
    tokio::spawn(connection);
    let request = Request::post("/reload").header(header::HOST, "localhost").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(broke_off)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broke_off)?.to_bytes();
    match serde_json::from_slice(&body) {
        Ok(outcome) if status != StatusCode::SERVICE_UNAVAILABLE => Ok(outcome),
        _ => Err(format!("the running Lockgate answered {status}")),
    }
}
