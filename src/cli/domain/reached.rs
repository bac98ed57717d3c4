//! What answers on the ports of one address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime as TlsTime};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::check::PATIENCE;
use super::exchange::{exchange, unreached};
use crate::admin::socket::ShownFile;
use crate::certificate::{facts_of, fingerprint};
use crate::challenge;
use crate::checkup::{Http, Presented, Tls, Unreached, Way};
use crate::clock::UnixTime;
use crate::origin::client_config;
use crate::site::OriginTls;

/// How the issuers of certificates are called that Lockgate makes itself.
const INTERNAL_ISSUER: &str = "CN=Lockgate internal CA";

/// What is looked for, and with what.
pub(super) struct Glass {
    host: String,
    http_port: u16,
    https_port: u16,
    shown: Option<ShownFile>,
    ours: Vec<[u8; 32]>,
    now: UnixTime,
    /// Takes any certificate: judging it comes afterwards.
    tls: Arc<ClientConfig>,
    /// Knows the roots of this machine. `None`: it has none.
    verifier: Option<Verifier>,
}

impl Glass {
    /// For a look at `host`: whether the running process answers with the file that it has `shown`, and with one of
    /// `ours`, by their fingerprints.
    pub(super) fn new(
        host: String,
        (http_port, https_port): (u16, u16),
        shown: Option<ShownFile>,
        ours: Vec<[u8; 32]>,
        now: UnixTime,
    ) -> Result<Self, rustls::Error> {
        let tls = client_config(&OriginTls { insecure: true, ..OriginTls::default() })?;
        let verifier = Verifier::new(Arc::clone(tls.crypto_provider())).ok();
        Ok(Self { host, http_port, https_port, shown, ours, now, tls, verifier })
    }
}

/// Looks at both ports of `address` at once.
pub(super) async fn look(glass: &Glass, address: IpAddr) -> Way {
    let (http, tls) = tokio::join!(timeout(PATIENCE, http(glass, address)), timeout(PATIENCE, tls(glass, address)));
    Way {
        address,
        http: http.unwrap_or(Http::Unreached(Unreached::Silent)),
        tls: tls.unwrap_or(Tls::Unreached(Unreached::Silent)),
    }
}

async fn http(glass: &Glass, address: IpAddr) -> Http {
    let Some(shown) = &glass.shown else { return Http::NotLooked };
    let stream = match TcpStream::connect(SocketAddr::new(address, glass.http_port)).await {
        Ok(stream) => stream,
        Err(error) => return Http::Unreached(unreached(&error)),
    };
    let request = Request::get(format!("{}{}", challenge::PATH, shown.token)).header(header::HOST, in_url(&glass.host));
    let Ok(request) = request.body(Full::new(Bytes::new())) else { return Http::Garbled };
    match exchange(stream, request).await {
        None => Http::Garbled,
        Some(answer) if answer.body == shown.answer => Http::Here,
        Some(answer) => Http::Elsewhere { status: answer.status.as_u16(), server: answer.server },
    }
}

/// An address of version 6 stands in brackets (RFC 3986, section 3.2.2).
pub(super) fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn tls(glass: &Glass, address: IpAddr) -> Tls {
    let stream = match TcpStream::connect(SocketAddr::new(address, glass.https_port)).await {
        Ok(stream) => stream,
        Err(error) => return Tls::Unreached(unreached(&error)),
    };
    let Ok(name) = ServerName::try_from(glass.host.clone()) else {
        return Tls::Failed("the name cannot be asked for".to_owned());
    };
    match TlsConnector::from(Arc::clone(&glass.tls)).connect(name.clone(), stream).await {
        Err(error) => Tls::Failed(error.to_string()),
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            presented(glass, chain, &name)
        }
    }
}

fn presented(glass: &Glass, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Tls {
    let Some((leaf, rest)) = chain.split_first() else {
        return Tls::Failed("no certificate came".to_owned());
    };
    let facts = match facts_of(leaf) {
        Ok(facts) => facts,
        Err(error) => return Tls::Failed(error.to_string()),
    };
    let at = TlsTime::since_unix_epoch(Duration::from_secs(u64::try_from(glass.now.secs()).unwrap_or_default()));
    let is_trusted =
        glass.verifier.as_ref().is_some_and(|verifier| verifier.verify_server_cert(leaf, rest, name, &[], at).is_ok());
    Tls::Presented(Box::new(Presented {
        is_ours: glass.ours.contains(&fingerprint(leaf)),
        is_internal: facts.issuer.contains(INTERNAL_ISSUER),
        names: facts.names.into_vec(),
        issuer: facts.issuer.to_string(),
        not_before: facts.not_before,
        not_after: facts.not_after,
        chain_length: chain.len(),
        is_trusted,
    }))
}
