//! Served is stored: now and then each domain is asked for over its own listener, and the leaf on the wire compared with
//! the one that is meant to serve. Only a look from outside notices what nobody thought of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use prometheus::{IntCounterVec, Opts, Registry};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use crate::certificate::Source;
use crate::clock::{Clock, UnixTime};
use crate::name::{DomainName, Kind};
use crate::site::Site;
use crate::snapshot::Live;

/// How often some domains are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Ticks in which every domain is looked at once, where there are many; few are looked at one each tick.
const TICKS_PER_ROUND: usize = 6 * 3600;
/// How long a handshake with ourselves may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The loop.
#[derive(Debug)]
pub struct Probe {
    live: Arc<Live>,
    clock: Arc<Clock>,
    listeners: watch::Receiver<Vec<SocketAddr>>,
    provider: Arc<CryptoProvider>,
    /// What is still to be looked at in this round. Names: a site that is gone must not be held for hours.
    round: Vec<DomainName>,
    results: IntCounterVec,
    mismatches: IntCounterVec,
}

/// What came of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The one that is meant.
    Meant,
    /// Another one.
    Other([u8; 32]),
    /// None.
    Nothing,
}

impl Probe {
    /// Asks `listeners`, which may change.
    ///
    /// # Errors
    /// If a metric's name is taken.
    pub fn new(
        live: Arc<Live>,
        clock: Arc<Clock>,
        listeners: watch::Receiver<Vec<SocketAddr>>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let results = counter("lockgate_certificate_probes_total", "Looks at what is served, by result.", "result")?;
        for result in ["meant", "other", "failed"] {
            results.with_label_values(&[result]);
        }
        let help = "Handshakes of ours that got another certificate than the one that is meant.";
        let mismatches = counter("lockgate_certificate_mismatches_total", help, "domain")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(Self { live, clock, listeners, provider, round: Vec::new(), results, mismatches })
    }

    /// Runs until the process ends.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.round.is_empty() {
                self.round = self.live.snapshot().sites().map(|site| site.spec.name.clone()).collect();
            }
            let share = self.live.glance().len().div_ceil(TICKS_PER_ROUND);
            for _ in 0..share {
                let Some(name) = self.round.pop() else { break };
                let site = self.live.glance().named(&name).cloned();
                if let Some(site) = site {
                    self.look_at(&site).await;
                }
            }
        }
    }

    async fn look_at(&self, site: &Arc<Site>) {
        let is_current =
            || self.live.glance().site(site.spec.name.as_str()).is_some_and(|current| Arc::ptr_eq(current, site));
        let Some((address, server_name)) = self.way_to(site) else { return };
        let name = &site.spec.name;
        let meant = |now: UnixTime| {
            let standing = site.certificates.standing(name, now);
            // Nobody is served yet by an internal certificate that was not asked for: looking is not asking.
            (standing.source != Source::Internal).then(|| site.certificates.choose(name, now, &self.schemes()))?
        };
        let Some(before) = meant(self.clock.read().now) else { return };
        let seen = match timeout(PATIENCE, self.leaf(address, server_name)).await {
            Ok(Some(leaf)) => {
                let is_meant = |fingerprint: &[u8; 32]| *fingerprint == leaf;
                let after = meant(self.clock.read().now);
                match is_meant(before.certificate.fingerprint())
                    || after.is_some_and(|it| is_meant(it.certificate.fingerprint()))
                {
                    true => Seen::Meant,
                    false => Seen::Other(leaf),
                }
            }
            _ => Seen::Nothing,
        };
        match seen {
            Seen::Meant => self.results.with_label_values(&["meant"]).inc(),
            Seen::Other(leaf) if is_current() => {
                self.results.with_label_values(&["other"]).inc();
                self.mismatches.with_label_values(&[name.as_str()]).inc();
                let (served, meant) = (hex::encode(leaf), hex::encode(before.certificate.fingerprint()));
                tracing::warn!(domain = %name, served, meant, "another certificate is served than the one that is meant");
            }
            Seen::Nothing if is_current() => self.results.with_label_values(&["failed"]).inc(),
            // A domain that is served otherwise by now was looked at too late.
            Seen::Other(_) | Seen::Nothing => {}
        }
    }

    /// Where a domain is asked for, and by what name. `None`: not from here.
    fn way_to(&self, site: &Site) -> Option<(SocketAddr, ServerName<'static>)> {
        let listeners = self.listeners.borrow();
        let first = *listeners.first()?;
        match site.spec.name.kind() {
            Kind::Ip(ip) => {
                let reaches = |listener: &&SocketAddr| {
                    listener.ip().to_canonical() == ip || (listener.ip().is_unspecified() && ip.is_loopback())
                };
                let listener = listeners.iter().find(reaches)?;
                Some((SocketAddr::new(ip, listener.port()), ServerName::from(ip)))
            }
            Kind::Exact => Some((to_loopback(first), ServerName::try_from(site.spec.name.as_str().to_owned()).ok()?)),
            // Any name under it; this one is nobody's.
            Kind::Wildcard => {
                let name = format!("lockgate-probe.{}", site.spec.name.wildcard_parent()?);
                let is_its_own = self.live.glance().site(&name).is_some_and(|found| found.spec.name == site.spec.name);
                is_its_own.then(|| ServerName::try_from(name).ok()).flatten().map(|name| (to_loopback(first), name))
            }
        }
    }

    /// The fingerprint of the leaf that is served.
    async fn leaf(&self, address: SocketAddr, server_name: ServerName<'static>) -> Option<[u8; 32]> {
        let seen = Arc::new(Notes { leaf: Mutex::new(None), provider: Arc::clone(&self.provider) });
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as _)
            .with_no_client_auth();
        let socket = TcpStream::connect(address).await.ok()?;
        TlsConnector::from(Arc::new(config)).connect(server_name, socket).await.ok()?;
        *seen.leaf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A listener on every address is reached on the nearest.
fn to_loopback(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // `[::]` is dual-stack, and some machines have no IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// Notes the leaf, and trusts whoever has its key: whether the world trusts it is not the question here.
#[derive(Debug)]
struct Notes {
    leaf: Mutex<Option<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
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
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
