//! A proxy whose domains are served with certificates of authorities of ours.

use std::path::PathBuf;

use super::bind::Bind;
use super::challtestsrv::ChallTestSrv;
use super::fault_ca::FaultCa;
use super::lockgate::Lockgate;
use super::nginx::free_port;
use super::pebble::{Pebble, PebbleSetup};
use super::pki::Pki;
use super::setup::Setup;
use super::{PATIENCE, eventually, eventually_within};

/// An authority as the configuration names one.
pub trait Authority {
    fn url(&self) -> String;
    fn roots(&self) -> PathBuf;

    /// Its `[[acme.ca]]`.
    fn table(&self, name: &str) -> String {
        let (directory, ca_file) = (self.url(), self.roots());
        format!("[[acme.ca]]\nname = '{name}'\ndirectory = '{directory}'\nca_file = '{}'\n", ca_file.display())
    }
}

impl Authority for Pebble {
    fn url(&self) -> String {
        self.directory()
    }

    fn roots(&self) -> PathBuf {
        self.ca_file()
    }
}

impl Authority for FaultCa {
    fn url(&self) -> String {
        self.directory()
    }

    fn roots(&self) -> PathBuf {
        self.ca_file()
    }
}

impl Setup {
    /// `[acme]`, agreed to, with these authorities: `ca-0`, `ca-1` ...
    pub fn acme(self, authorities: &[&dyn Authority]) -> Self {
        let tables = authorities.iter().enumerate().map(|(number, authority)| authority.table(&format!("ca-{number}")));
        tables.fold(self.set("acme.agree_to_terms", "true"), |setup, table| setup.table(&table))
    }

    /// `[acme.dns]`: updates to that BIND, which is also asked whether they are there.
    pub fn acme_dns(self, bind: &Bind) -> Self {
        self.set("acme.dns.provider", "'rfc2136'")
            .set("acme.dns.server", &format!("'{}'", bind.server()))
            .set("acme.dns.key_name", &format!("'{}'", bind.key_name()))
            .set("acme.dns.key_file", &format!("'{}'", bind.key_file().display()))
            .set("acme.dns.resolvers", &format!("['{}']", bind.server()))
    }
}

/// Where a proxy listens for authorities that look at it, and the name server that they ask.
pub struct Managed {
    pub http: u16,
    pub https: u16,
    pub names: ChallTestSrv,
}

impl Managed {
    #[track_caller]
    pub fn new() -> Self {
        Self { http: free_port(), https: free_port(), names: ChallTestSrv::start() }
    }

    /// An authority that looks at this proxy.
    pub fn authority(&self) -> PebbleSetup {
        Pebble::setup().validates_at(self.http, self.https).dns(self.names.server())
    }

    /// The proxy's configuration: its listeners, `[acme]`, and nothing else.
    pub fn setup(&self, pki: &Pki, authorities: &[&dyn Authority]) -> Setup {
        Lockgate::under(pki)
            .set("listen.http", &format!("['127.0.0.1:{}']", self.http))
            .set("listen.https", &format!("['127.0.0.1:{}']", self.https))
            .acme(authorities)
    }
}

impl Lockgate {
    /// Which kind of certificate serves a domain: `own`, `standby`, `internal` ...
    #[track_caller]
    pub fn source(&self, name: &str) -> Option<String> {
        let metrics = self.metrics();
        let serves = |source: &&str| {
            metrics.get("lockgate_certificate_not_after_seconds", &[("domain", name), ("source", source)]).is_some()
        };
        ["own", "store", "standby", "configured", "internal"].into_iter().find(serves).map(str::to_owned)
    }

    /// Waits until a certificate of its own serves a domain.
    #[track_caller]
    pub fn await_own(&self, name: &str) {
        let log = || self.log().join("\n");
        let deadline = std::time::Instant::now() + PATIENCE;
        eventually_within(PATIENCE * 2, &format!("a certificate of its own for {name}"), || {
            assert!(std::time::Instant::now() < deadline, "no certificate of its own for {name}:\n{}", log());
            (self.source(name)? == "own").then_some(())
        });
    }

    /// Waits until so many orders for a domain have failed; the last one's line in the log.
    #[track_caller]
    pub fn await_failures(&self, name: &str, count: usize) -> String {
        let failed = format!("domain={name}");
        eventually(&format!("{count} failures for {name}"), || {
            let log = self.log();
            let mut lines = log.iter().filter(|line| line.contains("issuance_failed") && line.contains(&failed));
            lines.nth(count - 1).cloned()
        })
    }

    /// Orders at an authority by outcome: `issued`, `failed`.
    #[track_caller]
    pub fn orders(&self, authority: &str, result: &str) -> f64 {
        self.metric("lockgate_acme_orders_total", &[("ca", authority), ("result", result)]).unwrap_or(0.0)
    }
}
