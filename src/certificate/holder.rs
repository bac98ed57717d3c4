//! A client's side of a handshake in which it is not the question whether the world trusts a certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName};

/// Takes any certificate, but checks that the server holds its key.
#[derive(Debug)]
pub struct HoldsKey {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl HoldsKey {
    /// Verifies whatever `provider` can.
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self { provider, schemes }
    }

    /// Says that it verifies `schemes` alone, so that the server shows a certificate for those.
    pub fn by(provider: Arc<CryptoProvider>, schemes: Vec<SignatureScheme>) -> Self {
        Self { provider, schemes }
    }
}

impl ServerCertVerifier for HoldsKey {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
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
