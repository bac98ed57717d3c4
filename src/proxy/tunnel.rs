//! WebSocket and other upgrades over HTTP/1.1 (RFC 9110, section 7.8): after the origin's 101, bytes both ways.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{Response, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::task::spawn_local;

use super::body::{Body, RequestBody};
use super::connection::{Attended, Connection};
use super::forward::Arriving;
use super::held::Gauge;
use super::serve::Visit;
use crate::origin::OriginBody;
use crate::refusal::{OriginFault, Refusal};

/// The client's side of the upgrade that a request asks for. None where it has a body, which no tunnel could tell from
/// what follows; none unless it names one protocol, so that both ends know what is spoken; and none to another HTTP
/// (`h2c`, which RFC 9113 withdrew; `HTTP/2.0`), whose requests would pass uncounted.
pub fn requested(arriving: &mut Arriving) -> Option<OnUpgrade> {
    let head = &arriving.head;
    let names_upgrade = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|list| list.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade")))
    };
    let mut protocols = head.headers.get_all(UPGRADE).iter();
    let protocol = protocols.next()?;
    let wanted = head.version == Version::HTTP_11
        && head.headers.get_all(CONNECTION).iter().any(names_upgrade)
        && protocols.next().is_none()
        && is_tunnelled(protocol.as_bytes())
        && !arriving.has_body();
    if wanted { arriving.head.extensions.remove::<OnUpgrade>() } else { None }
}

/// Whether this is one protocol, and not HTTP.
fn is_tunnelled(protocol: &[u8]) -> bool {
    let begins = |with: &[u8]| protocol.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    !protocol.contains(&b',') && !begins(b"h2c") && !begins(b"HTTP/")
}

/// Opens the tunnel if the origin agreed to it; any other answer is an ordinary one.
///
/// # Errors
/// If the origin switches to what nobody asked for.
pub fn open(
    mut response: Response<OriginBody<RequestBody>>,
    client: Option<OnUpgrade>,
    visit: &Rc<Visit>,
    idle: Duration,
) -> Result<Response<Body>, Refusal> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(Body::origin));
    }
    let client = client.ok_or(Refusal::Origin(OriginFault::Malformed))?;
    let origin = hyper::upgrade::on(&mut response);
    let upgrading = response.body_mut().upgrading();
    let connection = Arc::clone(&visit.connection);
    spawn_local(Attended::tunnel(
        async move {
            // The client's side is there once it has been told.
            let (Ok(origin), Ok(client)) = (origin.await, client.await) else { return };
            drop(upgrading);
            connection.held().count_as(Gauge::Tunnel);
            connection.begin_tunnel(idle);
            let mut client = Tunnel { stream: TokioIo::new(client), connection };
            _ = copy_bidirectional(&mut client, &mut TokioIo::new(origin)).await;
        },
        Arc::clone(&visit.connection),
    ));
    Ok(response.map(|_| Body::empty()))
}

/// The client's end of a tunnel. Whatever passes it shows that the tunnel is alive.
struct Tunnel {
    stream: TokioIo<Upgraded>,
    connection: Arc<Connection>,
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.connection.touch();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.connection.touch();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("websocket", true)]
    #[case("WebSocket", true)]
    #[case("h2c", false)]
    #[case("H2C", false)]
    #[case("h2c-17", false)]
    #[case("HTTP/2.0", false)]
    #[case("http/3", false)]
    #[case("websocket, h2c", false)]
    #[case("h2c, websocket", false)]
    fn a_tunnel_is_for_one_protocol_that_is_not_http(#[case] protocol: &str, #[case] expected: bool) {
        assert_eq!(is_tunnelled(protocol.as_bytes()), expected);
    }
}
