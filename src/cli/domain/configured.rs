//! What the configuration and the inventory say.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::certificate::{Certificate, OpenedKeys, OpensKeys, PairPaths, Source, Standing};
use crate::checkup::{Authority, Broken, Certificates, Failed, Serving};
use crate::clock::UnixTime;
use crate::config::{self, Config};
use crate::control::{Blueprint, Control, Kept};
use crate::issuance::OnDemand;
use crate::issuance::subject::subjects;
use crate::name::{DomainName, Kind};
use crate::on_demand::{is_allowed, is_stranger};
use crate::pairs::PairFiles;
use crate::site::SiteSpec;
use crate::snapshot::Live;
use crate::store::StoreError;
use crate::store::inventory::{Attempts, Inventory, Provenance, Role, StoredCertificate};

/// Keys that are open at once: none is, without the vault's own.
const MAX_OPENED_KEYS: usize = 1;

/// What there is to serve a name with.
pub(super) struct Held {
    /// `None`: it is not served.
    pub(super) certificates: Option<Certificates>,
    /// Of every certificate that may serve it.
    pub(super) fingerprints: Vec<[u8; 32]>,
}

/// Who serves `name`, and what is ordered for it.
pub(super) fn serving(config: &Config, name: &DomainName) -> Serving {
    let domain = site_of(&config.domains, name);
    let groups: Vec<_> = config.groups.iter().cloned().map(Arc::new).collect();
    let subject = domain.and_then(|domain| {
        let mut all = subjects(&config.domains, &groups, config.acme.as_ref()).into_iter();
        all.find(|subject| subject.required().any(|other| *other == domain.name))
    });
    Serving {
        nearest: if domain.is_none() { nearest(&config.domains, name) } else { None },
        domain: domain.cloned(),
        on_demand: None,
        acme: config.acme.clone().map(Arc::new),
        subject,
        authorities: Vec::new(),
        has_http_listener: !config.listen.http.is_empty(),
        has_https_listener: !config.listen.https.is_empty(),
    }
}

/// Who decides about a name that no domain serves, if anybody does; and the domain as which it would be served.
pub(super) fn stranger<'c>(config: &'c Config, name: &DomainName) -> Option<(&'c OnDemand, &'c Arc<SiteSpec>)> {
    let on_demand = config.acme.as_ref()?.on_demand.as_ref()?;
    let may_be = on_demand.ask.is_some() && is_stranger(name.as_str()) || is_allowed(on_demand, name);
    let host = config.domains.iter().find(|domain| domain.name == on_demand.site)?;
    (may_be && site_of(&config.domains, name).is_none()).then_some((on_demand, host))
}

/// As the snapshot finds it: the exact name, then a wildcard one level up.
fn site_of<'a>(domains: &'a [Arc<SiteSpec>], name: &DomainName) -> Option<&'a Arc<SiteSpec>> {
    let exact = domains.iter().find(|domain| domain.name == *name);
    exact.or_else(|| domains.iter().find(|domain| name.kind() == Kind::Exact && domain.name.covers(name.as_str())))
}

fn nearest(domains: &[Arc<SiteSpec>], name: &DomainName) -> Option<DomainName> {
    let is_above = |domain: &&Arc<SiteSpec>| {
        let host = name.wildcard_parent().unwrap_or(name.as_str());
        domain
            .name
            .wildcard_parent()
            .is_some_and(|parent| host == parent || host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')))
    };
    if let Some(domain) = domains.iter().find(is_above) {
        return Some(domain.name.clone());
    }
    let names = domains.iter().map(|domain| domain.name.as_str());
    DomainName::parse(config::nearest(name.as_str(), names)?).ok()
}

/// The certificates that there are for what serves the name, put in their order by the same pen that does it in a
/// running process. Adds the accounts with authorities to `serving`.
pub(super) async fn hold(config: &Config, serving: &mut Serving, name: &DomainName, now: UnixTime) -> Held {
    let inventory = match read(config).await {
        Ok(inventory) => inventory,
        Err(error) => Contents { unreadable: Some(error.to_string()), ..Contents::default() },
    };
    serving.authorities = inventory.accounts.clone();
    let host = stranger(config, name).map(|(_, host)| host);
    let Some(spec) = serving.domain.clone().or(host.cloned()) else {
        return Held { certificates: None, fingerprints: Vec::new() };
    };
    // A name on demand has certificates of its own, and no files.
    let name = if serving.domain.is_some() { &spec.name } else { name };

    let kept: Vec<_> = inventory.certificates.into_iter().filter_map(closed).collect();
    let blueprint = blueprint(config, &spec);
    let mut known: Vec<Arc<Certificate>> = kept.iter().map(|kept| Arc::clone(&kept.certificate)).collect();
    let pairs: Vec<PairPaths> =
        blueprint.domains.iter().flat_map(|domain| &domain.certificates).chain(&blueprint.fallback).cloned().collect();
    known.extend(PairFiles::new().load_all(&pairs).into_iter().flatten());
    known.retain(|certificate| certificate.covers(name));

    let live = Arc::new(Live::default());
    let mut control = Control::new(Arc::clone(&live));
    control.take_in(kept);
    let mut broken = Vec::new();
    match control.apply(blueprint) {
        Ok(pairs) => {
            let ours = pairs
                .iter()
                .filter(|_| serving.domain.is_some())
                .filter(|it| spec.certificates.contains(&it.pair) || config.fallback.as_ref() == Some(&it.pair));
            broken.extend(ours.map(|it| Broken { says: it.error.to_string(), remedy: it.error.remedy().to_owned() }));
        }
        Err(error) => {
            let remedy = "correct `origin_tls`: roots that can be read".to_owned();
            broken.push(Broken { says: error.to_string(), remedy });
        }
    }
    let snapshot = live.snapshot();
    if serving.domain.is_none() {
        serving.subject = control.alias_subject(name).map(|(subject, _)| Arc::new(subject));
    }
    let site = snapshot.site(name.as_str());
    let certificates = (site.is_some() || host.is_some()).then(|| {
        let nothing = Standing { source: Source::Internal, not_after: None, own_not_after: None };
        let standing = site.map_or(nothing, |site| site.certificates.standing(name, now));
        let is_it = |it: &&Arc<Certificate>| Some(it.not_after()) == standing.not_after && it.is_valid_at(now);
        let issuer = known.iter().find(is_it).map(|it| it.issuer().to_owned());
        let guaranteed_until = site.and_then(|site| site.certificates.guaranteed_until(name, now));
        let subject = serving.subject.as_ref().map(|subject| &subject.name);
        let mine = |attempts: &&Attempts| Some(&attempts.subject) == subject;
        Certificates {
            standing,
            issuer,
            guaranteed_until,
            broken,
            failed: inventory.attempts.iter().filter(mine).map(|attempts| failed(config, attempts)).collect(),
            is_ordered: inventory.ordered.iter().any(|ordered| Some(ordered) == subject),
            unreadable: inventory.unreadable,
        }
    });
    let fingerprints = known.iter().map(|certificate| certificate.fingerprint()).collect();
    Held { certificates, fingerprints }
}

/// The world as far as it bears on `spec`: all domains, because they say what is ordered together, but certificates of
/// the same tenant alone. What is behind them does not matter.
fn blueprint(config: &Config, spec: &SiteSpec) -> Blueprint {
    let domains = config.domains.iter().map(|other| {
        let mut other = SiteSpec { origin: spec.origin.clone(), ..SiteSpec::clone(other) };
        if other.tenant != spec.tenant {
            other.certificates = [].into();
        }
        Arc::new(other)
    });
    Blueprint {
        domains: domains.collect(),
        fallback: config.fallback.clone(),
        acme: config.acme.clone().map(Arc::new),
        groups: config.groups.iter().cloned().map(Arc::new).collect(),
        ..Blueprint::default()
    }
}

/// What of the inventory bears on a check.
#[derive(Default)]
struct Contents {
    certificates: Vec<StoredCertificate>,
    attempts: Vec<Attempts>,
    accounts: Vec<Authority>,
    /// Subjects of orders under way.
    ordered: Vec<DomainName>,
    unreadable: Option<String>,
}

async fn read(config: &Config) -> Result<Contents, StoreError> {
    let Some(inventory) = Inventory::open_to_read(&config.data_dir).await? else { return Ok(Contents::default()) };
    // One without an URL is not made yet.
    let accounts = inventory.accounts().await?.into_iter().filter(|it| !it.url.is_empty());
    let contents = Contents {
        certificates: inventory.certificates().await?.certificates,
        attempts: inventory.attempts().await?,
        accounts: accounts.map(|it| Authority { directory: it.ca, account: it.url }).collect(),
        ordered: inventory.orders().await?.into_iter().map(|(_, order)| order.subject).collect(),
        unreadable: None,
    };
    inventory.close().await;
    Ok(contents)
}

/// The running process's vault: whether it opens is `lockgate vault status`'s to say, and no key is needed here.
struct ElsewhereOpen;

impl OpensKeys for ElsewhereOpen {
    fn open_key(&self, _sealed: &[u8], _context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        None
    }
}

/// One of the inventory, whose key stays closed. `None`: it was revoked.
fn closed(stored: StoredCertificate) -> Option<Arc<Kept>> {
    let StoredCertificate { id, certificate: new, revoked_at: None, ari } = stored else { return None };
    let keys = OpenedKeys::new(Arc::new(ElsewhereOpen), MAX_OPENED_KEYS);
    let certificate = Arc::new(Certificate::sealed(new.facts, &new.chain, &new.sealed_key, keys));
    let (subject, tenant, role) = (new.subject, new.tenant, new.role);
    Some(Arc::new(Kept {
        id,
        subject,
        tenant,
        role,
        ca: new.ca,
        certificate,
        ari,
        is_on_demand: new.provenance == Provenance::OnDemand,
    }))
}

fn failed(config: &Config, attempts: &Attempts) -> Failed {
    let authorities = config.acme.iter().flat_map(|acme| &acme.authorities);
    let authority = authorities.into_iter().find(|it| it.directory == attempts.ca).map(|it| it.name.clone());
    Failed {
        is_standby: attempts.role == Role::Standby,
        failures: attempts.failures,
        last_at: attempts.last_at,
        next_at: attempts.next_at,
        authority: authority.unwrap_or_else(|| attempts.ca.clone()),
        problem: attempts.problem.clone(),
        advice: attempts.advice.clone(),
    }
}
