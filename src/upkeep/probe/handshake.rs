//! One handshake with ourselves, of which the leaf is kept.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

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
    let notes = Arc::new(Notes { leaf: Mutex::new(None), provider: Arc::clone(provider), schemes });
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&notes) as _)
        .with_no_client_auth();
    let shake_hands = async {
        let stream = socket.connect(to).await.ok()?;
        TlsConnector::from(Arc::new(config)).connect(server_name, stream).await.ok()
    };
    timeout(PATIENCE, shake_hands).await.ok().flatten()?;
    *notes.leaf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes the leaf, and trusts whoever has its key: whether the world trusts it is not the question here.
#[derive(Debug)]
struct Notes {
    leaf: Mutex<Option<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Notes {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint = <[u8; 32]>::try_from(digest::digest(&digest::SHA256, leaf).as_ref()).ok();
        *self.leaf.lock().unwrap_or_else(PoisonError::into_inner) = fingerprint;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
