//! A fresh connection to an origin: resolve, connect, verify.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pool::{Connection, Running};
use super::resolve::Resolver;
use super::room::Place;
use crate::certificate::HoldsKey;
use crate::refusal::{OriginFault, Refusal};
use crate::site::{Origin, OriginTls};

/// Octets of an origin's answer's head.
const MAX_ANSWER_HEAD_BYTES: usize = 64 * 1024;
/// Addresses of one origin that are tried for one connection.
const MAX_ATTEMPTS: usize = 8;
/// The head start of one address before the next (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects within `limit`, resolving and shaking hands included, and leaves the connection running on this thread.
pub(super) async fn connect<B>(
    origin: &Origin,
    resolver: &Resolver,
    place: Place,
    limit: Duration,
) -> Result<Connection<B>, OriginFault>
where
    B: Body<Data = Bytes, Error = Refusal> + Unpin + 'static,
{
    let deadline = Instant::now() + limit;
    let addresses = timeout_at(deadline, addresses(origin, resolver))
        .await
        .map_err(|_| OriginFault::Resolve)?
        .ok_or(OriginFault::Resolve)?;
    let stream = timeout_at(deadline, open(origin, &addresses)).await.map_err(|_| OriginFault::Connect)??;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER_HEAD_BYTES)
        .handshake(TokioIo::new(OriginIo { stream, _place: place }))
        .await
        .map_err(|_| OriginFault::Connect)?;
    // Its errors reach whoever waits for an answer; between two requests nobody does.
    let task = tokio::task::spawn_local(async move { _ = connection.with_upgrades().await });
    Ok(Connection { sender, running: Running::new(task.abort_handle()) })
}

async fn addresses(origin: &Origin, resolver: &Resolver) -> Option<Rc<[IpAddr]>> {
    match origin.spec.host.parse::<IpAddr>() {
        Ok(address) => Some(Rc::new([address])),
        Err(_) => resolver.resolve(&origin.spec.host).await,
    }
}

async fn open(origin: &Origin, addresses: &[IpAddr]) -> Result<OriginStream, OriginFault> {
    let addresses = addresses.iter().map(|address| SocketAddr::new(*address, origin.spec.port));
    let tcp = open_tcp(addresses).await.ok_or(OriginFault::Connect)?;
    _ = tcp.set_nodelay(true);
    let Some(config) = &origin.tls else { return Ok(OriginStream::Plain(tcp)) };
    let name = origin.spec.tls.sni.as_deref().unwrap_or(&origin.spec.host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| OriginFault::Tls)?;
    let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.map_err(|_| OriginFault::Tls)?;
    Ok(OriginStream::Tls(Box::new(tls)))
}

/// Tries the addresses in their order, each as soon as the one before has failed or taken [`ATTEMPT_DELAY`], and takes
/// whichever is connected first (RFC 8305, section 5): an address that swallows packets costs a moment, not all the
/// time there is.
async fn open_tcp(addresses: impl Iterator<Item = SocketAddr>) -> Option<TcpStream> {
    let mut addresses = addresses.take(MAX_ATTEMPTS).peekable();
    // What is still under way when this ends is given up with it.
    let mut attempts = JoinSet::new();
    while let Some(address) = addresses.next() {
        if attempts.is_empty() && addresses.peek().is_none() {
            return TcpStream::connect(address).await.ok();
        }
        attempts.spawn_local(TcpStream::connect(address));
        if addresses.peek().is_some()
            && let Ok(Some(Ok(Ok(tcp)))) = timeout(ATTEMPT_DELAY, attempts.join_next()).await
        {
            return Some(tcp);
        }
    }
    while let Some(attempt) = attempts.join_next().await {
        if let Ok(Ok(tcp)) = attempt {
            return Some(tcp);
        }
    }
    None
}

/// How to verify an origin: against the given roots, else the system's, unless the operator said not to.
///
/// Reads the system's roots from disk, so it belongs on no worker.
///
/// # Errors
/// If a root is no certificate, or the system has none that can be read.
pub fn client_config(tls: &OriginTls) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = if tls.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(HoldsKey::new(provider))).with_no_client_auth()
    } else if let Some(ca) = &tls.ca {
        let mut roots = RootCertStore::empty();
        ca.iter().try_for_each(|root| roots.add(root.clone()))?;
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder.with_platform_verifier()?.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A connection to an origin, and its place among all that there may be.
struct OriginIo {
    stream: OriginStream,
    _place: Place,
}

enum OriginStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for OriginIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().stream {
            OriginStream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            OriginStream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for OriginIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.get_mut().stream {
            OriginStream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            OriginStream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.get_mut().stream {
            OriginStream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            OriginStream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            OriginStream::Plain(tcp) => tcp.is_write_vectored(),
            OriginStream::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().stream {
            OriginStream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            OriginStream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.get_mut().stream {
            OriginStream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            OriginStream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream as Client};

    use super::*;

    #[test]
    fn an_address_that_swallows_packets_costs_a_moment() {
        let backlog_of_none = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        backlog_of_none.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        backlog_of_none.listen(0).unwrap();
        let black_hole = backlog_of_none.local_addr().unwrap().as_socket().unwrap();
        // Until nobody more fits into the queue.
        let mut queue = Vec::new();
        while let Ok(client) = Client::connect_timeout(&black_hole, Duration::from_millis(200)) {
            queue.push(client);
        }
        let refuses = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listens = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listens.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            for before in [vec![black_hole], vec![refuses], vec![black_hole, refuses, black_hole], vec![]] {
                let addresses = before.into_iter().chain([good]);
                let tcp = timeout(Duration::from_secs(5), open_tcp(addresses)).await.unwrap().unwrap();
                assert_eq!(tcp.peer_addr().unwrap(), good);
            }
            assert!(open_tcp([refuses, refuses].into_iter()).await.is_none());
        });
    }
}
