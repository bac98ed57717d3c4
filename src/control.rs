//! The pen: the only writer of the world. What is wanted -> certificates and living parts -> snapshot -> publish.

mod aliases;
mod building;
mod kept;
mod living;
mod poll;
mod shelf;

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::HashMap;
use ipnet::IpNet;

use crate::certificate::{Certificate, CommonRanks, PairPaths};
use crate::issuance::subject::{Subject, subjects};
use crate::issuance::{Acme, CertificateSpec, OnDemand};
use crate::issuer::InternalCa;
use crate::name::DomainName;
use crate::origin::client_config;
use crate::pairs::{PairError, PairFiles};
use crate::site::{Origin, OriginSpec, Scheme, SiteSpec};
use crate::snapshot::{Limits, Live};
use crate::store::inventory::CertificateId;
use aliases::{Aliases, Host};
pub use kept::{Kept, KeptCertificates};
use living::LivingParts;
pub use poll::poll_pairs;
use shelf::Shelf;

/// The world as the operator wants it: the configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Blueprint {
    /// Names differ.
    pub domains: Arc<[Arc<SiteSpec>]>,
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
    pairs: Arc<PairFiles>,
    internal: Arc<InternalCa>,
    blueprint: Blueprint,
    /// The last good reading of each pair: a broken one never replaces it.
    good: HashMap<PairPaths, Arc<Certificate>>,
    /// The inventory.
    kept: KeptCertificates,
    /// What is to be issued.
    subjects: Arc<[Arc<Subject>]>,
    /// The subject of each name, but for domains that are the first of their subject's names and in no group.
    subject_of: HashMap<DomainName, Arc<Subject>>,
    /// Names that nobody configured.
    aliases: Aliases,
    shelf: Shelf,
    files_read: u64,
    watched: Arc<[PairPaths]>,
    next_watched: usize,
    /// What stands behind the certificates of all domains.
    common: Arc<CommonRanks>,
    living: LivingParts,
    origins: HashMap<Arc<OriginSpec>, Arc<Origin>>,
    next_origin: u64,
}

impl Control {
    /// A pen that publishes to `live`, and nobody else does.
    pub fn new(live: Arc<Live>) -> Self {
        let internal = Arc::new(InternalCa::new());
        Self {
            live,
            pairs: Arc::new(PairFiles::new()),
            common: Arc::new(CommonRanks { configured: None, last_resort: Arc::clone(&internal) as _ }),
            internal,
            blueprint: Blueprint::default(),
            good: HashMap::default(),
            kept: KeptCertificates::default(),
            subjects: [].into(),
            subject_of: HashMap::default(),
            aliases: Aliases::default(),
            shelf: Shelf::default(),
            files_read: 0,
            watched: [].into(),
            next_watched: 0,
            living: LivingParts::default(),
            origins: HashMap::default(),
            next_origin: 0,
        }
    }

    /// Where it publishes.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The internal authority.
    pub fn internal(&self) -> &Arc<InternalCa> {
        &self.internal
    }

    /// Reads certificate files, makes the world of `blueprint` and publishes it. Blocks on the disk.
    ///
    /// # Errors
    /// If it cannot be; the world is then as it was. Broken pairs are no error: they are returned.
    pub fn apply(&mut self, mut blueprint: Blueprint) -> Result<Vec<BrokenPair>, ControlError> {
        let mut watched: Vec<PairPaths> = blueprint.domains.iter().flat_map(|spec| spec.certificates.clone()).collect();
        watched.extend(blueprint.fallback.clone());
        watched.sort();
        watched.dedup();
        // What says the same as before is the same from here on.
        let before = self.live.snapshot();
        if !before.is_empty() {
            let as_before = |spec: &Arc<SiteSpec>| {
                let site = before.named(&spec.name).filter(|site| *site.spec == **spec);
                Arc::clone(site.map_or(spec, |site| &site.spec))
            };
            blueprint.domains = blueprint.domains.iter().map(as_before).collect();
        }
        let origins = self.open_origins(&blueprint)?;
        // From here on nothing can fail: a file that has been read counts as seen, and must not be dropped then.
        let (good, broken) = self.read(&watched);
        let keep: HashSet<PairPaths> = watched.iter().cloned().collect();
        self.pairs.forget_others(&keep);
        self.good.retain(|pair, _| keep.contains(pair));
        self.good.extend(good);
        self.watched = watched.into();
        self.origins = origins;
        self.subjects = subjects(&blueprint.domains, &blueprint.groups, blueprint.acme.as_deref()).into();
        // A domain that is the first name of its subject is found by that; the first of a group may be no domain.
        let grouped: HashSet<&DomainName> = blueprint.groups.iter().flat_map(|group| &group.names).collect();
        let is_by_name = |it: &Subject, name: &DomainName| it.name == *name && !grouped.contains(name);
        let of = |it: &Arc<Subject>| it.required().filter(|name| !is_by_name(it, name)).cloned().collect::<Vec<_>>();
        self.subject_of =
            self.subjects.iter().flat_map(|it| of(it).into_iter().map(|name| (name, Arc::clone(it)))).collect();
        self.aliases.rehost(Host::find(&blueprint.domains, blueprint.acme.as_deref()));
        self.blueprint = blueprint;
        self.files_read += 1;
        self.publish();
        let after = self.live.snapshot();
        self.internal.forget_others(|domain| after.named(domain).is_some());
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
        let configured = self.live.snapshot();
        for kept in &kept {
            self.kept.put(Arc::clone(kept));
            let tenant_of = |subject: &DomainName| configured.named(subject).map(|site| site.spec.tenant.as_ref());
            self.shelf.put_kept(kept, tenant_of);
        }
        self.publish_covered(&kept);
    }

    /// Takes certificates away that the inventory gave up.
    pub fn give_up(&mut self, ids: &[CertificateId]) {
        let gone: Vec<Arc<Kept>> = ids.iter().filter_map(|id| self.kept.remove(*id)).collect();
        gone.iter().for_each(|kept| self.shelf.remove(&kept.certificate));
        self.publish_covered(&gone);
    }

    fn read(&self, pairs: &[PairPaths]) -> (Vec<(PairPaths, Arc<Certificate>)>, Vec<BrokenPair>) {
        self.sort_out(pairs.iter().cloned().zip(self.pairs.load_all(pairs)))
    }

    /// What is good of what was read, and what is not.
    fn sort_out(
        &self,
        read: impl IntoIterator<Item = (PairPaths, Result<Arc<Certificate>, PairError>)>,
    ) -> (Vec<(PairPaths, Arc<Certificate>)>, Vec<BrokenPair>) {
        let (mut good, mut broken) = (Vec::new(), Vec::new());
        for (pair, read) in read {
            match read {
                Ok(certificate) => good.push((pair, certificate)),
                Err(error) => {
                    let keeps_serving = self.good.contains_key(&pair);
                    broken.push(BrokenPair { pair, error, keeps_serving });
                }
            }
        }
        (good, broken)
    }

    /// Each origin once, those that were there before with their connections and TLS sessions.
    fn open_origins(&mut self, blueprint: &Blueprint) -> Result<HashMap<Arc<OriginSpec>, Arc<Origin>>, ControlError> {
        let mut origins = HashMap::default();
        let mut configs = HashMap::default();
        let mut latest: Option<&Arc<OriginSpec>> = None;
        for spec in blueprint.domains.iter() {
            // Those that say the same have the same, mostly: then nothing is compared.
            if latest.is_some_and(|it| Arc::ptr_eq(it, &spec.origin)) || origins.contains_key(&spec.origin) {
                continue;
            }
            latest = Some(&spec.origin);
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
                    Arc::new(Origin { id: self.next_origin, spec: Arc::clone(&spec.origin), tls })
                }
            };
            origins.insert(Arc::clone(&spec.origin), origin);
        }
        Ok(origins)
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
            let spec = SiteSpec { certificates: [files.clone()].into(), ..spec };
            Blueprint { domains: [Arc::new(spec)].into(), ..Blueprint::default() }
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
        let control = std::sync::Mutex::new(control);
        assert!(poll_pairs(&control).is_empty());
        let control = control.into_inner().unwrap();
        assert!(!Arc::ptr_eq(&before, &control.good[&files]), "the changed file has been taken after all");
    }
}
