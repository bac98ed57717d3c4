//! One handshake with ourselves, of which the leaf is kept.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certificate::{HoldsKey, fingerprint};
use crate::probes::Probes;

/// How long a handshake with ourselves may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket to reach `to` from, at the same address: whoever asks for one of ours is on this machine. The error says that
/// it is not one of ours.
pub(super) fn socket_for(to: SocketAddr, probes: &Probes) -> io::Result<TcpSocket> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let mut from = to;
    from.set_port(0);
    socket.bind(from)?;
    probes.announce(socket.local_addr()?);
    Ok(socket)
}

/// The fingerprint of the leaf that `to` shows a client which verifies `schemes`. `None`: there was no handshake.
pub(super) async fn leaf(
    (socket, to): (TcpSocket, SocketAddr),
    server_name: ServerName<'static>,
    provider: &Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
) -> Option<[u8; 32]> {
    // Whether the world trusts it is not the question here.
    let verifier = Arc::new(HoldsKey::by(Arc::clone(provider), schemes));
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let shake_hands = async {
        let stream = socket.connect(to).await.ok()?;
        TlsConnector::from(Arc::new(config)).connect(server_name, stream).await.ok()
    };
    let stream = timeout(PATIENCE, shake_hands).await.ok().flatten()?;
    let (_, connection) = stream.get_ref();
    connection.peer_certificates()?.first().map(|leaf| fingerprint(leaf))
}
