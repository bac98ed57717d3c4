//! The pen: the only writer of the world. What is wanted -> certificates and living parts -> snapshot -> publish.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;

use crate::certificate::{Certificate, CertificateSet, PairPaths, Ranks};
use crate::issuer::InternalCa;
use crate::meter::Slot;
use crate::name::{DomainName, TenantId};
use crate::origin::client_config;
use crate::pairs::{PairError, PairFiles};
use crate::site::{Origin, OriginSpec, Scheme, Site, SiteSpec};
use crate::snapshot::{Limits, Live, Snapshot};
use crate::throttle::Throttle;

/// Certificate pairs looked at per call of [`Control::poll_pairs`]: a hundred thousand take ten calls.
const PAIRS_PER_POLL: usize = 10_000;

/// The world as the operator wants it: the configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Blueprint {
    /// Names differ.
    pub domains: Vec<Arc<SiteSpec>>,
    /// One of them.
    pub default: Option<DomainName>,
    /// The operator's own last-but-one resort.
    pub fallback: Option<PairPaths>,
    /// What clients may take.
    pub limits: Limits,
    /// Peers whose forwarding headers are kept.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The port that redirects name.
    pub redirect_port: Option<u16>,
}

/// Why a world cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// An `https` origin that could not be verified.
    #[error("origin of {domain}: {source}")]
    OriginTls {
        /// Whose.
        domain: DomainName,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// What became of a request to read the configuration again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReloadOutcome {
    /// Whether the new configuration is in force. If not, the old one is, whole.
    pub ok: bool,
    /// What was done, or everything that is wrong, rendered for people.
    pub message: String,
    /// How many domains are served now.
    pub domains: usize,
}

/// A request to read the configuration again.
pub type AskReload = tokio::sync::oneshot::Sender<ReloadOutcome>;

/// A pair that could not be read when it was last tried.
#[derive(Debug)]
pub struct BrokenPair {
    /// Which.
    pub pair: PairPaths,
    /// Why.
    pub error: PairError,
    /// Whether an earlier, good version of it goes on serving.
    pub keeps_serving: bool,
}

/// Everything the pen needs to know of the world it wrote last.
pub struct Control {
    live: Arc<Live>,
    pairs: PairFiles,
    internal: Arc<InternalCa>,
    blueprint: Blueprint,
    /// The last good reading of each pair: a broken one never replaces it.
    good: HashMap<PairPaths, Arc<Certificate>>,
    watched: Vec<PairPaths>,
    next_watched: usize,
    /// Living parts, kept for every name ever served: usage belongs to the name.
    living: HashMap<Arc<str>, Living>,
    origins: HashMap<OriginSpec, Arc<Origin>>,
    next_origin: u64,
}

#[derive(Debug)]
struct Living {
    slot: Slot,
    throttle: Arc<Throttle>,
    /// The site as last built, and from what.
    built: Option<(Arc<SiteSpec>, Ranks, Arc<Site>)>,
}

impl Control {
    /// A pen that publishes to `live`.
    pub fn new(live: Arc<Live>) -> Self {
        Self {
            live,
            pairs: PairFiles::new(),
            internal: Arc::new(InternalCa::new()),
            blueprint: Blueprint::default(),
            good: HashMap::new(),
            watched: Vec::new(),
            next_watched: 0,
            living: HashMap::new(),
            origins: HashMap::new(),
            next_origin: 0,
        }
    }

    /// The internal authority.
    pub fn internal(&self) -> &Arc<InternalCa> {
        &self.internal
    }

    /// Reads certificate files, makes the world of `blueprint` and publishes it. Blocks on the disk.
    ///
    /// # Errors
    /// If it cannot be; the world is then as it was. Broken pairs are no error: they are returned.
    pub fn apply(&mut self, blueprint: Blueprint) -> Result<Vec<BrokenPair>, ControlError> {
        let mut watched: Vec<PairPaths> = blueprint.domains.iter().flat_map(|spec| spec.certificates.clone()).collect();
        watched.extend(blueprint.fallback.clone());
        watched.sort();
        watched.dedup();
        let origins = self.open_origins(&blueprint)?;
        // From here on nothing can fail: a file that has been read counts as seen, and must not be dropped then.
        let (good, broken) = self.read(&watched);
        let keep: HashSet<PairPaths> = watched.iter().cloned().collect();
        self.pairs.forget_others(&keep);
        self.good.retain(|pair, _| keep.contains(pair));
        self.good.extend(good);
        self.watched = watched;
        self.origins = origins;
        self.internal.forget_others(&blueprint.domains.iter().map(|spec| spec.name.clone()).collect());
        self.blueprint = blueprint;
        self.publish();
        Ok(broken)
    }

    /// Looks whether certificate files have changed, reads those that have, and publishes if any is good. Call it once
    /// a second; it looks at a bounded number each time.
    pub fn poll_pairs(&mut self) -> Vec<BrokenPair> {
        let end = self.next_watched.saturating_add(PAIRS_PER_POLL).min(self.watched.len());
        let due = self.watched.get(self.next_watched..end).unwrap_or_default();
        let changed: Vec<PairPaths> = self.pairs.changed(due).into_iter().filter_map(|i| due.get(i)).cloned().collect();
        self.next_watched = if end == self.watched.len() { 0 } else { end };
        if changed.is_empty() {
            return Vec::new();
        }
        let (good, broken) = self.read(&changed);
        if !good.is_empty() {
            self.good.extend(good);
            self.publish();
        }
        broken
    }

    fn read(&self, pairs: &[PairPaths]) -> (Vec<(PairPaths, Arc<Certificate>)>, Vec<BrokenPair>) {
        let mut good = Vec::with_capacity(pairs.len());
        let mut broken = Vec::new();
        for (pair, read) in pairs.iter().zip(self.pairs.load_all(pairs)) {
            match read {
                Ok(certificate) => good.push((pair.clone(), certificate)),
                Err(error) => {
                    let keeps_serving = self.good.contains_key(pair);
                    broken.push(BrokenPair { pair: pair.clone(), error, keeps_serving });
                }
            }
        }
        (good, broken)
    }

    /// Each origin once, those that were there before with their connections and TLS sessions.
    fn open_origins(&mut self, blueprint: &Blueprint) -> Result<HashMap<OriginSpec, Arc<Origin>>, ControlError> {
        let mut origins = HashMap::new();
        let mut configs = HashMap::new();
        for spec in &blueprint.domains {
            if origins.contains_key(&spec.origin) {
                continue;
            }
            let origin = match self.origins.get(&spec.origin) {
                Some(open) => Arc::clone(open),
                None => {
                    let tls = match (spec.origin.scheme, configs.get(&spec.origin.tls)) {
                        (Scheme::Http, _) => None,
                        (Scheme::Https, Some(config)) => Some(Arc::clone(config)),
                        (Scheme::Https, None) => {
                            let config = client_config(&spec.origin.tls)
                                .map_err(|source| ControlError::OriginTls { domain: spec.name.clone(), source })?;
                            configs.insert(spec.origin.tls.clone(), Arc::clone(&config));
                            Some(config)
                        }
                    };
                    self.next_origin += 1;
                    Arc::new(Origin { id: self.next_origin, spec: spec.origin.clone(), tls })
                }
            };
            origins.insert(spec.origin.clone(), origin);
        }
        Ok(origins)
    }

    /// Makes the snapshot of the present blueprint and certificates. Sites that are as they were keep their `Arc`s.
    fn publish(&mut self) {
        let shelf = Shelf::of(&self.blueprint, &self.good);
        let configured = self.blueprint.fallback.as_ref().and_then(|pair| self.good.get(pair)).cloned();
        let mut sites = Vec::with_capacity(self.blueprint.domains.len());
        for spec in &self.blueprint.domains {
            let own: Vec<_> = spec.certificates.iter().filter_map(|pair| self.good.get(pair)).cloned().collect();
            let store = shelf.others_for(spec, &own);
            let ranks = Ranks { own, store, standby: Vec::new(), configured: configured.clone() };
            let Some(origin) = self.origins.get(&spec.origin) else { continue };
            let next_slot = Slot(u32::try_from(self.living.len()).unwrap_or(u32::MAX));
            let living = self.living.entry(spec.name.shared()).or_insert_with(|| Living {
                slot: next_slot,
                throttle: Arc::default(),
                built: None,
            });
            let site = match &living.built {
                Some((built_spec, built_ranks, site))
                    if **built_spec == **spec && same(built_ranks, &ranks) && Arc::ptr_eq(&site.origin, origin) =>
                {
                    Arc::clone(site)
                }
                _ => {
                    let last_resort = Arc::clone(&self.internal) as _;
                    Arc::new(Site {
                        name: spec.name.clone(),
                        tenant: spec.tenant.clone(),
                        rate_limit_policy: spec.plan.as_ref().and_then(|plan| {
                            HeaderValue::from_str(&format!("\"{}\";q={};w=1", plan.name, plan.max_qps)).ok()
                        }),
                        plan: spec.plan.clone(),
                        certificates: CertificateSet::new(spec.name.clone(), ranks.clone(), last_resort),
                        origin: Arc::clone(origin),
                        hsts: spec.hsts.clone(),
                        max_body_bytes: spec.max_body_bytes,
                        timeouts: spec.timeouts,
                        slot: living.slot,
                        throttle: Arc::clone(&living.throttle),
                    })
                }
            };
            living.built = Some((Arc::clone(spec), ranks, Arc::clone(&site)));
            sites.push(site);
        }
        let served: HashSet<&str> = self.blueprint.domains.iter().map(|spec| spec.name.as_str()).collect();
        for (name, living) in &mut self.living {
            if !served.contains(&**name) {
                living.built = None;
            }
        }
        let mut snapshot = Snapshot::new(sites, self.blueprint.default.as_ref().map(DomainName::as_str));
        snapshot.limits = self.blueprint.limits.clone();
        snapshot.trusted_proxies = Arc::clone(&self.blueprint.trusted_proxies);
        snapshot.redirect_port = self.blueprint.redirect_port;
        self.live.publish(snapshot);
    }
}

/// Whether two sets of certificates are the very same ones.
fn same(a: &Ranks, b: &Ranks) -> bool {
    let same = |a: &[Arc<Certificate>], b: &[Arc<Certificate>]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    same(&a.own, &b.own)
        && same(&a.store, &b.store)
        && same(&a.standby, &b.standby)
        && same(a.configured.as_slice(), b.configured.as_slice())
}

/// Every certificate by tenant and name, to find those that cover another domain of the same tenant.
struct Shelf<'a> {
    certificates: HashMap<(Option<&'a TenantId>, &'a str), Vec<&'a Arc<Certificate>>>,
}

impl<'a> Shelf<'a> {
    fn of(blueprint: &'a Blueprint, good: &'a HashMap<PairPaths, Arc<Certificate>>) -> Self {
        let mut certificates: HashMap<_, Vec<_>> = HashMap::new();
        for spec in &blueprint.domains {
            for certificate in spec.certificates.iter().filter_map(|pair| good.get(pair)) {
                for name in certificate.names() {
                    certificates.entry((spec.tenant.as_ref(), name.as_str())).or_default().push(certificate);
                }
            }
        }
        Self { certificates }
    }

    /// Those of the same tenant that cover the domain and are not its own.
    fn others_for(&self, spec: &'a SiteSpec, own: &[Arc<Certificate>]) -> Vec<Arc<Certificate>> {
        let tenant = spec.tenant.as_ref();
        let name = spec.name.as_str();
        let exact = self.certificates.get(&(tenant, name));
        let over = name.split_once('.').filter(|_| spec.name.wildcard_parent().is_none());
        let over = over.map(|(_, parent)| format!("*.{parent}"));
        let wildcard = over.as_deref().and_then(|over| self.certificates.get(&(tenant, over)));
        let mut others: Vec<Arc<Certificate>> = Vec::new();
        for certificate in exact.into_iter().chain(wildcard).flatten() {
            let is_known = |known: &Arc<Certificate>| Arc::ptr_eq(known, certificate);
            if !own.iter().any(is_known) && !others.iter().any(is_known) {
                others.push(Arc::clone(certificate));
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::fixture::pair;
    use crate::site::OriginTls;
    use std::fs;

    #[test]
    fn a_world_that_cannot_be_has_read_no_file_for_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        let files = PairPaths { cert: dir.path().join("www.pem"), key: dir.path().join("www.key") };
        let write = || {
            let made = pair(&["www.example.com"]).pem();
            fs::write(&files.cert, made.cert).unwrap();
            fs::write(&files.key, made.key).unwrap();
        };
        let world = |origin| {
            let spec = SiteSpec::new(DomainName::parse("www.example.com").unwrap(), origin);
            let spec = SiteSpec { certificates: vec![files.clone()], ..spec };
            Blueprint { domains: vec![Arc::new(spec)], ..Blueprint::default() }
        };
        let mut control = Control::new(Arc::new(Live::default()));
        write();
        assert!(control.apply(world(OriginSpec::http("127.0.0.1", 1))).unwrap().is_empty());
        let before = Arc::clone(&control.good[&files]);

        write();
        let tls = OriginTls { ca: Some([vec![0].into()].into()), ..OriginTls::default() };
        let unverifiable = OriginSpec { scheme: Scheme::Https, tls, ..OriginSpec::http("127.0.0.1", 1) };
        assert!(control.apply(world(unverifiable)).is_err());
        assert!(Arc::ptr_eq(&before, &control.good[&files]));
        assert!(control.poll_pairs().is_empty());
        assert!(!Arc::ptr_eq(&before, &control.good[&files]), "the changed file has been taken after all");
    }
}
