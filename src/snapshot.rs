//! All that a request may know, immutable, and where the current one hangs.

mod sites;

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::issuance::OnDemand;
use crate::name::{DomainName, Kind, normalize_host};
use crate::site::Site;
pub use sites::Sites;

/// One view of the world as configured. A request takes one and looks at no other, so it never mixes a new route
/// with an old certificate.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    exact: Sites<Arc<str>>,
    /// By parent: `*.example.com` is found under `example.com`.
    wildcard: Sites<Arc<str>>,
    address: Sites<IpAddr>,
    default: Option<Arc<Site>>,
    /// Names that nobody wrote into the configuration, each with its certificates and everything else of the domain
    /// that serves them. They are counted as that domain: whoever goes through all sites does not meet them.
    pub aliases: Sites<Arc<str>>,
    /// Which further names there may be.
    pub on_demand: Option<Arc<OnDemand>>,
    /// What clients may take; new connections look here.
    pub limits: Limits,
    /// Peers whose forwarding headers are kept.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The port that redirects name; `None` is 443, which is not written.
    pub redirect_port: Option<u16>,
}

/// The limits and timeouts of `[limits]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// From the connection to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// From a request's first byte to the end of its head.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Octets of a request's head (HTTP/1.1) or header list (HTTP/2).
    pub max_header_bytes: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: u32,
    /// Client connections in all; `None`: what the file descriptors allow.
    pub max_connections: Option<usize>,
    /// Client connections per IPv4 address or IPv6 /64; `None`: no limit.
    pub max_connections_per_client: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_header_bytes: 16 * 1024,
            max_streams: 100,
            max_connections: None,
            max_connections_per_client: Some(16_384),
        }
    }
}

impl Snapshot {
    /// A snapshot of `sites`, whose names differ, and of which `default` (if any) is one.
    pub fn new(sites: impl IntoIterator<Item = Arc<Site>>, default: Option<&str>) -> Self {
        let mut snapshot = Self::default();
        for site in sites {
            if default == Some(site.spec.name.as_str()) {
                snapshot.default = Some(Arc::clone(&site));
            }
            snapshot.put(site);
        }
        snapshot
    }

    /// The same world with these `sites` in the place of those of their names. It costs what changes, however much stays.
    pub fn with(&self, sites: impl IntoIterator<Item = Arc<Site>>) -> Self {
        let mut snapshot = self.clone();
        for site in sites {
            if snapshot.default.as_ref().is_some_and(|default| default.spec.name == site.spec.name) {
                snapshot.default = Some(Arc::clone(&site));
            }
            snapshot.put(site);
        }
        snapshot
    }

    fn put(&mut self, site: Arc<Site>) {
        match (site.spec.name.kind(), site.spec.name.wildcard_parent()) {
            (Kind::Ip(ip), _) => self.address.insert(ip, site),
            (_, Some(parent)) => self.wildcard.insert(parent.into(), site),
            _ => self.exact.insert(site.spec.name.shared(), site),
        }
    }

    /// The site of this very name.
    pub fn named(&self, name: &DomainName) -> Option<&Arc<Site>> {
        match (name.kind(), name.wildcard_parent()) {
            (Kind::Ip(ip), _) => self.address.get(&ip),
            (_, Some(parent)) => self.wildcard.get(parent),
            _ => self.exact.get(name.as_str()),
        }
    }

    /// The site of requests for the host name `host`, of those in the configuration: exact name, then one-level wildcard.
    pub fn configured(&self, host: &str) -> Option<&Arc<Site>> {
        self.exact.get(host).or_else(|| self.by_wildcard(host))
    }

    /// The site of requests for `host`, in normal form: exact name, then one-level wildcard, then a name on demand,
    /// then address.
    pub fn site(&self, host: &str) -> Option<&Arc<Site>> {
        self.by_name(host).or_else(|| self.by_address(host))
    }

    /// The site that a handshake is for: by SNI; without SNI by the address connected to. `None`: whoever serves all
    /// others.
    pub fn site_for_handshake(&self, sni: Option<&str>, local: IpAddr) -> Option<&Arc<Site>> {
        match sni {
            Some(sni) => normalize_host(sni).and_then(|host| self.by_name(&host)),
            None => self.address.get(&local.to_canonical()),
        }
    }

    /// The site for clients whose handshake is for none.
    pub fn default_site(&self) -> Option<&Arc<Site>> {
        self.default.as_ref()
    }

    /// Every site, in no order.
    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.exact.values().chain(self.wildcard.values()).chain(self.address.values())
    }

    /// The sites among which all are that `other` does not have as they are here, in no order.
    pub fn sites_unlike<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s Arc<Site>> {
        let exact = self.exact.unlike(&other.exact);
        exact.chain(self.wildcard.unlike(&other.wildcard)).chain(self.address.unlike(&other.address))
    }

    /// How many sites there are.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len() + self.address.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn by_name(&self, host: &str) -> Option<&Arc<Site>> {
        self.configured(host).or_else(|| self.aliases.get(host))
    }

    fn by_wildcard(&self, host: &str) -> Option<&Arc<Site>> {
        let (label, parent) = host.split_once('.')?;
        if label.is_empty() { None } else { self.wildcard.get(parent) }
    }

    fn by_address(&self, host: &str) -> Option<&Arc<Site>> {
        if self.address.is_empty() {
            return None;
        }
        self.address.get(&host.parse::<IpAddr>().ok()?.to_canonical())
    }
}

/// Where the current snapshot hangs. `control` alone publishes; everyone else reads.
#[derive(Debug, Default)]
pub struct Live {
    current: ArcSwap<Snapshot>,
}

impl Live {
    /// The current snapshot, to keep for a while.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The current snapshot, to look something up in at once. Never hold it across an `.await`: readers share few of
    /// these.
    pub fn glance(&self) -> impl Deref<Target = Arc<Snapshot>> {
        self.current.load()
    }

    /// Puts `snapshot` in the place of the current one, for whoever reads from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Blueprint, Control};
    use crate::name::DomainName;
    use crate::site::{OriginSpec, SiteSpec};
    use rstest::rstest;

    fn snapshot(default: Option<&str>) -> Arc<Snapshot> {
        let names = ["example.com", "www.example.com", "*.example.com", "192.0.2.1", "2001:db8::1"];
        let spec = |name| SiteSpec::new(DomainName::parse(name).unwrap(), OriginSpec::http("127.0.0.1", 1));
        let domains = names.map(spec).map(Arc::new).into();
        let default = default.map(|name| DomainName::parse(name).unwrap());
        let live = Arc::new(Live::default());
        Control::new(Arc::clone(&live)).apply(Blueprint { domains, default, ..Blueprint::default() }).unwrap();
        live.snapshot()
    }

    #[rstest]
    #[case("www.example.com", Some("www.example.com"))]
    #[case("a.example.com", Some("*.example.com"))]
    #[case("example.com", Some("example.com"))]
    #[case("a.b.example.com", None)]
    #[case("*.example.com", Some("*.example.com"))]
    #[case(".example.com", None)]
    #[case("example.org", None)]
    #[case("192.0.2.1", Some("192.0.2.1"))]
    #[case("2001:db8::1", Some("2001:db8::1"))]
    #[case("192.0.2.2", None)]
    fn a_host_is_looked_for_exactly_then_one_level_up_then_as_an_address(
        #[case] host: &str,
        #[case] site: Option<&str>,
    ) {
        assert_eq!(snapshot(None).site(host).map(|site| site.spec.name.as_str()), site);
    }

    #[rstest]
    #[case(Some("WWW.example.com."), "198.51.100.1", Some("www.example.com"))]
    #[case(Some("x.example.com"), "192.0.2.1", Some("*.example.com"))]
    #[case(Some("unknown.test"), "192.0.2.1", None)]
    #[case(Some("192.0.2.1"), "198.51.100.1", None)]
    #[case(None, "192.0.2.1", Some("192.0.2.1"))]
    #[case(None, "::ffff:192.0.2.1", Some("192.0.2.1"))]
    #[case(None, "198.51.100.1", None)]
    fn a_handshake_is_for_its_sni_or_else_for_its_address(
        #[case] sni: Option<&str>,
        #[case] local: &str,
        #[case] site: Option<&str>,
    ) {
        let local: IpAddr = local.parse().unwrap();
        let named = |snapshot: &Snapshot| snapshot.site_for_handshake(sni, local).or(snapshot.default_site()).cloned();
        let name = |snapshot: &Snapshot| named(snapshot).map(|site| site.spec.name.to_string());
        assert_eq!(name(&snapshot(None)).as_deref(), site);
        assert_eq!(name(&snapshot(Some("example.com"))).as_deref(), site.or(Some("example.com")));
    }
}
