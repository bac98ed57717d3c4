//! What the running process says.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::check::PATIENCE;
use super::exchange::exchange;
use crate::admin::socket::{ShowFile, ShownFile};

/// How long the file is on show: longer than all looks together.
const SHOWN_SECS: u64 = 30;

/// Has the process that listens on `socket` show a file. The error says why there is none, without a full stop.
pub(super) async fn show(socket: &Path) -> Result<ShownFile, String> {
    timeout(PATIENCE, ask(socket)).await.unwrap_or_else(|_| Err("the running Lockgate does not answer".to_owned()))
}

async fn ask(socket: &Path) -> Result<ShownFile, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => format!("{} is not for this user", socket.display()),
        _ => "no Lockgate runs with this configuration".to_owned(),
    })?;
    let body = serde_json::json!(ShowFile { seconds: SHOWN_SECS }).to_string();
    let request = Request::builder()
        .method(Method::POST)
        .uri("/challenges/show")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = exchange(stream, request).await.ok_or("the running Lockgate broke off")?;
    match serde_json::from_slice(&answer.body) {
        Ok(shown) if answer.status == StatusCode::OK => Ok(shown),
        _ => Err(format!("the running Lockgate answered {}", answer.status)),
    }
}
