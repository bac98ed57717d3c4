//! Served is stored: now and then each domain is asked for over its own listeners, and the leaf on the wire compared with
//! the one that is meant to serve. Only a look from outside notices what nobody thought of.
//!
//! A look takes one way of several: from one look to the next a domain's listeners, their address families and, where it
//! has both, its kinds of keys take turns.

mod handshake;
mod ways;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, Opts, Registry};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::certificate::{Choice, Source};
use crate::clock::{Clock, UnixTime};
use crate::name::{DomainName, Kind};
use crate::probes::Probes;
use crate::site::Site;
use crate::snapshot::{Live, Snapshot};

/// How often some domains are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Ticks in which every domain is looked at once, where there are many; few are looked at one each tick.
const TICKS_PER_ROUND: usize = 6 * 3600;

/// The loop.
#[derive(Debug)]
pub struct Probe {
    live: Arc<Live>,
    clock: Arc<Clock>,
    listeners: watch::Receiver<Vec<SocketAddr>>,
    probes: Arc<Probes>,
    provider: Arc<CryptoProvider>,
    /// How many rounds there were: in each a domain is looked at by the next way.
    rounds: usize,
    /// What is still to be looked at in this round. Names: a site that is gone must not be held for hours.
    round: Vec<Arc<str>>,
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
    /// Asks `listeners`, which may change, from sockets that `probes` knows.
    ///
    /// # Errors
    /// If a metric's name is taken.
    pub fn new(
        live: Arc<Live>,
        clock: Arc<Clock>,
        listeners: watch::Receiver<Vec<SocketAddr>>,
        probes: Arc<Probes>,
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
        let (rounds, round) = (0, Vec::new());
        Ok(Self { live, clock, listeners, probes, provider, rounds, round, results, mismatches })
    }

    /// Runs until the process ends.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.step().await;
        }
    }

    /// Looks at the next share of the domains.
    async fn step(&mut self) {
        if self.round.is_empty() {
            let snapshot = self.live.snapshot();
            self.round = Vec::with_capacity(snapshot.len() + snapshot.aliases.len());
            self.round.extend(snapshot.sites().map(|site| site.spec.name.shared()));
            self.round.extend(snapshot.aliases.keys().cloned());
            self.rounds = self.rounds.wrapping_add(1);
        }
        let share = {
            let snapshot = self.live.glance();
            (snapshot.len() + snapshot.aliases.len()).div_ceil(TICKS_PER_ROUND)
        };
        for _ in 0..share {
            let Some(name) = self.round.pop() else { break };
            let Ok(name) = DomainName::parse(&name) else { continue };
            // Neighbours in a round take different ways, so that a broken listener shows at once.
            let turn = self.rounds.wrapping_add(self.round.len());
            let site = site_of(&self.live.glance(), &name).cloned();
            if let Some(site) = site {
                self.look_at(&name, &site, turn).await;
            }
        }
    }

    /// Looks at a name, which `site` serves, by the way whose turn it is.
    async fn look_at(&self, name: &DomainName, site: &Arc<Site>, turn: usize) {
        let is_current = || self.live.glance().site(name.as_str()).is_some_and(|current| Arc::ptr_eq(current, site));
        let Some(server_name) = self.server_name(name) else { return };
        let addresses = ways::addresses(&self.listeners.borrow(), name.kind());
        let Some(to) = self.reachable(&addresses, turn) else { return };
        let schemes = self.offer(name, site, turn.checked_div(addresses.len()).unwrap_or_default());
        let Some(before) = self.meant(name, site, &schemes) else { return };
        let address = to.1;
        let seen = match handshake::leaf(to, server_name, &self.provider, schemes.clone()).await {
            Some(leaf) => {
                let is_it = |choice: Choice| choice.certificate.fingerprint() == leaf;
                let is_meant = is_it(before.clone()) || self.meant(name, site, &schemes).is_some_and(is_it);
                if is_meant { Seen::Meant } else { Seen::Other(leaf) }
            }
            None => Seen::Nothing,
        };
        match seen {
            Seen::Meant => self.results.with_label_values(&["meant"]).inc(),
            Seen::Other(leaf) if is_current() => {
                self.results.with_label_values(&["other"]).inc();
                // A name on demand has no figures of its own.
                self.mismatches.with_label_values(&[site.spec.name.as_str()]).inc();
                let (served, meant) = (hex::encode(leaf), hex::encode(before.certificate.fingerprint()));
                tracing::warn!(
                    domain = %name, listener = %address, served, meant,
                    "another certificate is served than the one that is meant"
                );
            }
            Seen::Nothing if is_current() => self.results.with_label_values(&["failed"]).inc(),
            // A domain that is served otherwise by now was looked at too late.
            Seen::Other(_) | Seen::Nothing => {}
        }
    }

    /// The certificate that is meant for a client which verifies `schemes`. Nobody is served yet by an internal one that
    /// was not asked for: looking is not asking.
    fn meant(&self, name: &DomainName, site: &Site, schemes: &[SignatureScheme]) -> Option<Choice> {
        let now = self.now();
        let is_asked_for = site.certificates.standing(name, now).source != Source::Internal;
        is_asked_for.then(|| site.certificates.choose(name, now, schemes)).flatten()
    }

    /// What the client of the `turn`th look verifies.
    fn offer(&self, name: &DomainName, site: &Site, turn: usize) -> Vec<SignatureScheme> {
        let now = self.now();
        if site.certificates.standing(name, now).source == Source::Internal {
            return self.schemes();
        }
        let offers = ways::offers((name, &site.certificates), now, &self.schemes());
        let at = turn.checked_rem(offers.len()).unwrap_or_default();
        offers.into_iter().nth(at).unwrap_or_else(|| self.schemes())
    }

    /// The address whose turn it is, with a socket to reach it from; or the next one that is this machine's: some have no
    /// IPv6, and a domain's address may be that of a router.
    fn reachable(&self, addresses: &[SocketAddr], turn: usize) -> Option<(TcpSocket, SocketAddr)> {
        let first = turn.checked_rem(addresses.len())?;
        let in_turn = addresses.iter().cycle().skip(first).take(addresses.len());
        in_turn.copied().find_map(|to| Some((handshake::socket_for(to, &self.probes).ok()?, to)))
    }

    /// By what name a domain is asked for. `None`: not from here.
    fn server_name(&self, name: &DomainName) -> Option<ServerName<'static>> {
        match name.kind() {
            Kind::Ip(ip) => Some(ServerName::from(ip)),
            Kind::Exact => ServerName::try_from(name.as_str().to_owned()).ok(),
            // Any name under it; this one is nobody's.
            Kind::Wildcard => {
                let below = format!("lockgate-probe.{}", name.wildcard_parent()?);
                let is_its_own = self.live.glance().site(&below).is_some_and(|found| found.spec.name == *name);
                is_its_own.then(|| ServerName::try_from(below).ok()).flatten()
            }
        }
    }

    fn now(&self) -> UnixTime {
        self.clock.read().now
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The site of this very name, configured or on demand.
fn site_of<'s>(snapshot: &'s Snapshot, name: &DomainName) -> Option<&'s Arc<Site>> {
    snapshot.named(name).or_else(|| snapshot.aliases.get(name.as_str()))
}

#[cfg(test)]
mod tests;
