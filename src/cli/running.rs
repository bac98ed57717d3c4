//! Asking the running process: HTTP/JSON over its control socket.

use std::path::Path;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// More than any answer: a reload lists what is wrong with a configuration.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Posts `question` to `path` and waits for the answer, for as long as it takes. An answer of any status is one, if it
/// has the expected form; that the process is about to end is none.
///
/// # Errors
/// What is wrong, in words: nobody listens there, or the answer is no answer.
pub(super) async fn post<A: DeserializeOwned>(
    socket: &Path,
    path: &str,
    question: &impl Serialize,
) -> Result<A, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        format!(
            "no Lockgate answers at {}: {error}; start it with `lockgate run`, or name its --data-dir",
            socket.display()
        )
    })?;
    let broke_off = |error: hyper::Error| format!("the running Lockgate broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(broke_off)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("the running Lockgate broke off: {error}"))?.to_bytes();
    match serde_json::from_slice(&body) {
        Ok(answer) if status != StatusCode::SERVICE_UNAVAILABLE => Ok(answer),
        _ => Err(format!("the running Lockgate answered {status}")),
    }
}
