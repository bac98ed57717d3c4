//! The pen: the only writer of the world. What is wanted -> certificates and living parts -> snapshot -> publish.

mod aliases;
mod kept;
mod shelf;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;

use crate::certificate::{Certificate, CertificateSet, PairPaths, Ranks};
use crate::issuance::subject::{Subject, subjects};
use crate::issuance::{Acme, CertificateSpec, OnDemand};
use crate::issuer::InternalCa;
use crate::meter::Slot;
use crate::name::DomainName;
use crate::origin::client_config;
use crate::pairs::{PairError, PairFiles};
use crate::site::{Origin, OriginSpec, Scheme, Site, SiteSpec};
use crate::snapshot::{Limits, Live, Snapshot};
use crate::store::inventory::{CertificateId, Role};
use crate::throttle::Throttle;
use aliases::{Aliases, Host};
pub use kept::{Kept, KeptCertificates};
use shelf::Shelf;

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
    /// Who issues certificates, if anybody does.
    pub acme: Option<Arc<Acme>>,
    /// Certificates for several names.
    pub groups: Vec<Arc<CertificateSpec>>,
    /// What clients may take.
    pub limits: Limits,
    /// Peers whose forwarding headers are kept.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The port that redirects name.
    pub redirect_port: Option<u16>,
    /// Whether anybody listens where an authority would look for a file.
    pub has_http_listener: bool,
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

/// A certificate that somebody wants now: for a subject of the configuration if there is only one name and it is one's,
/// else for exactly these names, once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WantedCertificate {
    /// Never empty.
    pub names: Vec<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ordered {
    /// Whether it was issued.
    pub ok: bool,
    /// The certificate's number.
    pub id: Option<i64>,
    /// What was done; or what is wrong, in the authority's own words where they are its.
    pub message: String,
    /// The one thing to do about it.
    pub advice: Option<String>,
}

impl Ordered {
    /// Nothing was ordered.
    pub fn refused(message: String) -> Self {
        Self { ok: false, id: None, message, advice: None }
    }
}

/// A request to issue.
pub type AskIssuing = (WantedCertificate, tokio::sync::oneshot::Sender<Ordered>);

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
    /// The inventory.
    kept: KeptCertificates,
    /// What is to be issued.
    subjects: Arc<[Arc<Subject>]>,
    /// The subject of each domain that has one.
    subject_of: HashMap<DomainName, Arc<Subject>>,
    /// Names that nobody configured.
    aliases: Aliases,
    shelf: Shelf,
    files_read: u64,
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
            kept: KeptCertificates::default(),
            subjects: [].into(),
            subject_of: HashMap::new(),
            aliases: Aliases::default(),
            shelf: Shelf::default(),
            files_read: 0,
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
        self.subjects = subjects(&blueprint.domains, &blueprint.groups, blueprint.acme.as_deref())
            .into_iter()
            .map(Arc::new)
            .collect();
        self.subject_of =
            self.subjects.iter().flat_map(|it| it.required().map(|name| (name.clone(), Arc::clone(it)))).collect();
        self.aliases.rehost(Host::find(&blueprint.domains, blueprint.acme.as_deref()));
        self.blueprint = blueprint;
        self.files_read += 1;
        self.publish();
        Ok(broken)
    }

    /// What is to be issued in the world as it is.
    pub fn subjects(&self) -> &Arc<[Arc<Subject>]> {
        &self.subjects
    }

    /// The names that nobody configured, and that are served.
    pub fn aliases(&self) -> impl Iterator<Item = &DomainName> {
        self.aliases.names()
    }

    /// Whether it is one of them.
    pub fn is_alias(&self, name: &DomainName) -> bool {
        self.aliases.has(name)
    }

    /// What is ordered for a name that nobody configured, and who approves of it. `None`: there are no such names.
    pub fn alias_subject(&self, name: &DomainName) -> Option<(Subject, Arc<OnDemand>)> {
        let host = self.aliases.host()?;
        Some((host.subject(name), Arc::clone(&host.on_demand)))
    }

    /// The world as it is wanted.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Another number whenever certificate files, or what the operator wants, may have changed.
    pub fn edition(&self) -> u64 {
        self.files_read
    }

    /// The inventory, as far as it was taken in.
    pub fn kept(&self) -> &KeptCertificates {
        &self.kept
    }

    /// Takes certificates of the inventory in, and publishes what changes by them.
    pub fn take_in(&mut self, kept: Vec<Arc<Kept>>) {
        for kept in &kept {
            self.kept.put(Arc::clone(kept));
            self.shelf.put(kept.tenant.as_ref(), &kept.certificate);
        }
        self.publish_where(|spec| kept.iter().any(|kept| kept.certificate.covers(&spec.name)));
    }

    /// Takes certificates away that the inventory gave up.
    pub fn give_up(&mut self, ids: &[CertificateId]) {
        let gone: Vec<Arc<Kept>> = ids.iter().filter_map(|id| self.kept.remove(*id)).collect();
        self.shelf = Shelf::of(&self.blueprint, &self.good, &self.kept);
        self.publish_where(|spec| gone.iter().any(|kept| kept.certificate.covers(&spec.name)));
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
            self.files_read += 1;
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
        self.shelf = Shelf::of(&self.blueprint, &self.good, &self.kept);
        self.publish_where(|_| true);
    }

    /// The same, where only the `affected` domains can have changed: the others are not looked at again.
    fn publish_where(&mut self, affected: impl Fn(&SiteSpec) -> bool) {
        let mut sites = Vec::with_capacity(self.blueprint.domains.len());
        for spec in &self.blueprint.domains.clone() {
            let built = self.living.get(&*spec.name.shared()).and_then(|living| living.built.as_ref());
            match built {
                Some((_, _, site)) if !affected(spec) => sites.push(Arc::clone(site)),
                _ => sites.extend(self.build(spec)),
            }
        }
        let served: HashSet<&str> = self.blueprint.domains.iter().map(|spec| spec.name.as_str()).collect();
        for (name, living) in &mut self.living {
            if !served.contains(&**name) {
                living.built = None;
            }
        }
        self.build_aliases(&sites, affected);
        let mut snapshot = Snapshot::new(sites, self.blueprint.default.as_ref().map(DomainName::as_str));
        snapshot.aliases = self.aliases.sites();
        snapshot.on_demand = self.aliases.host().map(|host| Arc::clone(&host.on_demand));
        snapshot.limits = self.blueprint.limits.clone();
        snapshot.trusted_proxies = Arc::clone(&self.blueprint.trusted_proxies);
        snapshot.redirect_port = self.blueprint.redirect_port;
        self.live.publish(snapshot);
    }

    fn build_aliases(&mut self, sites: &[Arc<Site>], affected: impl Fn(&SiteSpec) -> bool) {
        let mut aliases = std::mem::take(&mut self.aliases);
        let template = aliases.host().and_then(|host| sites.iter().find(|site| site.name == host.spec.name));
        let template = template.map(Arc::clone);
        let served: HashSet<&str> = sites.iter().map(|site| site.name.as_str()).collect();
        let is_configured = |name: &DomainName| {
            let above = name.as_str().split_once('.').map(|(_, parent)| format!("*.{parent}"));
            let is_served = |name: &str| served.contains(name);
            is_served(name.as_str())
                || above.is_some_and(|above| is_served(&above))
                || self.subject_of.contains_key(name)
        };
        aliases.build(template.as_ref(), &self.kept, affected, is_configured, |spec| self.ranks(spec));
        self.aliases = aliases;
    }

    /// The site of a domain: the one that was there, if nothing about it is new. `None`: its origin is not open.
    fn build(&mut self, spec: &Arc<SiteSpec>) -> Option<Arc<Site>> {
        let ranks = self.ranks(spec);
        let origin = self.origins.get(&spec.origin)?;
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
        Some(site)
    }

    /// The certificates of a domain by where they come from. Files are the domain's own; what was issued is, where
    /// there are none, so that a user's own certificate wins at once, however old it is.
    fn ranks(&self, spec: &SiteSpec) -> Ranks {
        let mut own: Vec<_> = spec.certificates.iter().filter_map(|pair| self.good.get(pair)).cloned().collect();
        let subject = self.subject_of.get(&spec.name).and_then(|subject| subject.names.first()).unwrap_or(&spec.name);
        let ordered = |role| {
            let of_role = move |kept: &&Arc<Kept>| kept.role == role && kept.belongs_to(spec.tenant.as_ref());
            self.kept.of(subject).iter().filter(of_role).map(|kept| Arc::clone(&kept.certificate))
        };
        // Of several only the last: what it replaced stands behind it, on the shelf.
        if spec.certificates.is_empty() {
            own.extend(ordered(Role::Own).last());
        }
        let standby: Vec<_> = ordered(Role::Standby).collect();
        let store = self.shelf.others_for(spec, &[&own, &standby]);
        let configured = self.blueprint.fallback.as_ref().and_then(|pair| self.good.get(pair)).cloned();
        Ranks { own, store, standby, configured }
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
