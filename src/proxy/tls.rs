//! The handshake: which site, which certificate. The only file that implements a rustls trait for clients' connections.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::server::{
    Acceptor as HelloReader, ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert,
};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, SignatureScheme, SupportedCipherSuite};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::counters::Counters;
use super::socket::Socket;
use super::worker::Shared;
use crate::certificate::Source;
use crate::challenge;
use crate::clock::UnixTime;
use crate::meter::Slot;
use crate::name::normalize_host;
use crate::on_demand::patience;
use crate::site::Site;

/// The alert `unrecognized_name` (RFC 6066, section 3), fatal, as a record: rustls itself would say `access_denied`.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What all handshakes have in common.
#[derive(Debug)]
pub struct Acceptor {
    /// Copied for each handshake, with the choices made for it. A copy costs a hundredth of a handshake.
    template: ServerConfig,
    /// One for the life of the process, so that a reload ends no session.
    tickets: Arc<dyn ProducesTickets>,
}

/// A handshake that succeeded.
pub struct Accepted {
    /// What to speak over.
    pub stream: TlsStream<Socket>,
    /// The site that the client asked for, as its meter's slot: the same for as long as the name is served.
    pub slot: Slot,
    /// Which of the site's certificates serves.
    pub source: Source,
    /// Whether ALPN chose HTTP/2.
    pub is_http2: bool,
}

impl Acceptor {
    /// TLS 1.2 and 1.3, AEAD with ECDHE only, X25519MLKEM768 offered (rustls's defaults), HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut template = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Decided(None)));
        template.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        template.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { template, tickets: rustls::crypto::aws_lc_rs::Ticketer::new()? })
    }

    /// The configuration of a handshake that proves control over a name (RFC 8737, section 3), and serves nothing.
    fn proving(&self, key: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(Decided(Some(key)));
        config.alpn_protocols = vec![challenge::ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    fn config(&self, key: Arc<CertifiedKey>, slot: Slot) -> Arc<ServerConfig> {
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(Decided(Some(key)));
        config.ticketer = Arc::new(SiteTickets { tickets: Arc::clone(&self.tickets), slot });
        Arc::new(config)
    }
}

/// Shakes hands. What comes of it is counted in `counters`; what fails is answered as TLS wants it, and there is nothing
/// else to do about it.
pub async fn accept(shared: &Shared, counters: &Counters, socket: Socket) -> Option<Accepted> {
    let failed = |_| counters.handshakes_failed.inc();
    let mut start = LazyConfigAcceptor::new(HelloReader::default(), socket).await.map_err(failed).ok()?;
    let hello = start.client_hello();
    if hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == challenge::ALPN)) {
        prove(shared, counters, start).await;
        return None;
    }
    let snapshot = shared.live.snapshot();
    // Only a client without SNI is told apart by the address it came to, so only then is the kernel asked.
    let local = match hello.server_name() {
        Some(_) => IpAddr::from([0, 0, 0, 0]),
        None => start.io.local_addr().map_err(failed).ok()?.ip(),
    };
    let site = snapshot.site_for_handshake(hello.server_name(), local);
    let chosen = site.and_then(|site| choose(shared, &hello, site));
    let is_known = site.is_some();
    drop(snapshot);
    let chosen = match chosen {
        Some(chosen) => Some(chosen),
        None => choose_for_stranger(shared, &start).await,
    };
    let Some(Chosen { config, slot, source }) = chosen else {
        match is_known {
            true => counters.handshakes_no_certificate.inc(),
            false => counters.handshakes_unrecognized_name.inc(),
        }
        refuse_name(&mut start.io).await;
        return None;
    };
    let stream = start.into_stream(config).await.map_err(failed).ok()?;
    let (_, session) = stream.get_ref();
    match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => counters.handshakes_ok_tls12.inc(),
        _ => counters.handshakes_ok_tls13.inc(),
    }
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    Some(Accepted { stream, slot, source, is_http2 })
}

/// What was chosen for a handshake.
struct Chosen {
    config: Arc<ServerConfig>,
    slot: Slot,
    source: Source,
}

/// The site's certificate for a client. `None`: it has none that is valid now.
fn choose(shared: &Shared, hello: &ClientHello<'_>, site: &Site) -> Option<Chosen> {
    let now: UnixTime = shared.clock.read().now;
    let ours = &shared.acceptor.template.crypto_provider().cipher_suites;
    let schemes = usable_schemes(hello.signature_schemes(), hello.cipher_suites(), ours);
    let choice = site.certificates.choose(&site.spec.name, now, &schemes)?;
    let config = shared.acceptor.config(choice.certificate.certified_key()?, site.slot);
    Some(Chosen { config, slot: site.slot, source: choice.source })
}

/// Of the schemes that a client verifies, those in which this handshake can be signed. Up to TLS 1.2 the cipher suite
/// says by what kind of key (RFC 5246, section 7.4.2), and clients that take RSA alone list ECDSA's schemes all the same;
/// in TLS 1.3 no suite says so, and only clients that speak it offer one of its suites.
fn usable_schemes<'a>(
    schemes: &'a [SignatureScheme],
    offered: &[CipherSuite],
    ours: &[SupportedCipherSuite],
) -> Cow<'a, [SignatureScheme]> {
    let common = ours.iter().filter(|suite| offered.contains(&suite.suite()));
    if common.clone().any(|suite| suite.tls13().is_some()) {
        return Cow::Borrowed(schemes);
    }
    let is_usable = |scheme: &SignatureScheme| {
        common.clone().any(|suite| matches!(suite, SupportedCipherSuite::Tls12(suite) if suite.sign.contains(scheme)))
    };
    Cow::Owned(schemes.iter().copied().filter(is_usable).collect())
}

/// The same where the name is no site's, or one of those on demand whose certificate has expired: whoever decides about
/// them is asked, and waited for. Whom that does not help gets the default site.
async fn choose_for_stranger(shared: &Shared, start: &StartHandshake<Socket>) -> Option<Chosen> {
    let hello = start.client_hello();
    let snapshot = shared.live.snapshot();
    let host = hello.server_name().filter(|_| snapshot.on_demand.is_some()).and_then(normalize_host);
    let waiting = host.as_ref().and_then(|host| shared.doorbell.ring(host, Instant::now()));
    let patience = patience(snapshot.limits.handshake_timeout);
    drop(snapshot);
    if let (Some(mut waiting), Some(host)) = (waiting, host) {
        let answer = timeout(patience, waiting.wait_for(Option::is_some)).await;
        let is_welcome = answer.is_ok_and(|answer| answer.is_ok_and(|answer| *answer == Some(true)));
        let snapshot = shared.live.snapshot();
        let site = snapshot.site(&host).filter(|_| is_welcome);
        if let Some(chosen) = site.and_then(|site| choose(shared, &hello, site)) {
            return Some(chosen);
        }
    }
    let snapshot = shared.live.snapshot();
    snapshot.default_site().and_then(|site| choose(shared, &hello, site))
}

/// Shows an authority the certificate that it looks for, and is done: no request follows.
async fn prove(shared: &Shared, counters: &Counters, mut start: StartHandshake<Socket>) {
    let name = start.client_hello().server_name().and_then(|name| normalize_host(name).map(Cow::into_owned));
    let Some(key) = name.and_then(|name| shared.challenges.certificate(&name)) else {
        counters.handshakes_unrecognized_name.inc();
        return refuse_name(&mut start.io).await;
    };
    let config = shared.acceptor.proving(key);
    if let Ok(mut stream) = start.into_stream(config).await {
        _ = stream.shutdown().await;
    }
}

async fn refuse_name(socket: &mut Socket) {
    _ = socket.write_all(&UNRECOGNIZED_NAME).await;
    _ = socket.shutdown().await;
}

/// The certificate that was chosen before rustls asked.
#[derive(Debug)]
struct Decided(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Decided {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// Tickets that resume only at the site that issued them: each carries its site, under the ticket's own authentication.
struct SiteTickets {
    tickets: Arc<dyn ProducesTickets>,
    slot: Slot,
}

impl fmt::Debug for SiteTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteTickets({})", self.slot.0)
    }
}

impl ProducesTickets for SiteTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&[&self.slot.0.to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut plain = self.tickets.decrypt(cipher)?;
        plain.starts_with(&self.slot.0.to_be_bytes()).then(|| plain.split_off(size_of::<u32>()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

    use super::*;

    const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;
    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    /// Nobody signs so any more.
    const SHA1: SignatureScheme = SignatureScheme::RSA_PKCS1_SHA1;

    #[rstest]
    #[case::rsa_alone(&[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], &[RSA])]
    #[case::ecdsa_alone(&[CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256], &[ECDSA])]
    #[case::both(
        &[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384],
        &[ECDSA, RSA]
    )]
    #[case::tls13_too(&[CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256], &[ECDSA, RSA, SHA1])]
    #[case::none_of_ours(&[CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA], &[])]
    fn what_signs_is_what_a_common_suite_signs_with(
        #[case] offered: &[CipherSuite],
        #[case] usable: &[SignatureScheme],
    ) {
        assert_eq!(*usable_schemes(&[ECDSA, RSA, SHA1], offered, ALL_CIPHER_SUITES), *usable);
    }

    #[test]
    fn a_ticket_is_good_at_its_own_site_only() {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let at = |slot| SiteTickets { tickets: Arc::clone(&tickets), slot: Slot(slot) };
        let ticket = at(1).encrypt(b"session").unwrap();
        assert_eq!(at(1).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(at(2).decrypt(&ticket), None);
    }
}
