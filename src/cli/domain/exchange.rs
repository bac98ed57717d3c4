//! One connection, one request, one answer.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::checkup::Unreached;

/// Octets of an answer's body that are read; none that is looked for is as long.
const MAX_BODY_BYTES: usize = 4096;

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Who it says it is.
    pub(super) server: Option<String>,
    /// Empty if it was too long, or broke off.
    pub(super) body: Bytes,
}

/// Sends `request`. `None`: what came back is not HTTP.
pub(super) async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Option<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.ok()?;
    let server = response.headers().get(header::SERVER).and_then(|server: &HeaderValue| server.to_str().ok());
    let (status, server) = (response.status(), server.map(str::to_owned));
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    connection.abort();
    Some(Answer { status, server, body: body.map(|body| body.to_bytes()).unwrap_or_default() })
}

/// Why there was no connection.
pub(super) fn unreached(error: &io::Error) -> Unreached {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreached::Refused,
        io::ErrorKind::TimedOut => Unreached::Silent,
        _ => Unreached::Other(error.to_string()),
    }
}
