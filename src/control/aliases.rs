//! Names that nobody wrote into the configuration, served as the domain is that takes them in.
//!
//! Which they are follows from the inventory and `[acme.on_demand]` alone: a name that was approved has a certificate,
//! and is served for as long as it is kept.

use std::collections::HashMap;
use std::sync::Arc;

use super::kept::{Kept, KeptCertificates};
use crate::certificate::{Certificate, CertificateSet, LastResort, Ranks};
use crate::clock::UnixTime;
use crate::issuance::subject::Subject;
use crate::issuance::{Acme, Challenge, DomainAcme, Method, OnDemand};
use crate::name::{DomainName, Kind};
use crate::on_demand::is_allowed;
use crate::site::{Site, SiteSpec};
use crate::snapshot::Sites;
use crate::store::inventory::Role;

/// The names, and the sites that they are served as.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// Who approves, and on whose behalf; `None`: there are no aliases.
    host: Option<Host>,
    built: HashMap<DomainName, (Ranks, Arc<Site>)>,
    /// What is published.
    sites: Arc<Sites<Arc<str>>>,
}

/// The domain that takes strangers in.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) on_demand: Arc<OnDemand>,
    pub(super) spec: Arc<SiteSpec>,
    method: Arc<Method>,
}

/// A name that serves with an expired certificate serves nobody, and the internal authority is for domains.
struct Nobody;

impl LastResort for Nobody {
    fn certificate(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
        None
    }
}

impl Host {
    /// The domain that `acme` names, if it is one of `domains` and anything can be ordered.
    pub(super) fn find(domains: &[Arc<SiteSpec>], acme: Option<&Acme>) -> Option<Self> {
        let acme = acme.filter(|acme| acme.agreed_to_terms)?;
        let on_demand = acme.on_demand.as_ref()?;
        let spec = domains.iter().find(|spec| spec.name == on_demand.site)?;
        let method = match &spec.acme {
            DomainAcme::Method(method) => &**method,
            DomainAcme::Never | DomainAcme::Inherit => &acme.method,
        };
        // The zones of others are not ours to write to; that a handshake came shows that ports can be reached.
        let challenge = method.challenge.filter(|challenge| *challenge != Challenge::Dns01);
        let method = Method { challenge, dns: None, ..method.clone() };
        Some(Self { on_demand: Arc::new(on_demand.clone()), spec: Arc::clone(spec), method: Arc::new(method) })
    }

    /// What is ordered for a name.
    pub(super) fn subject(&self, name: &DomainName) -> Subject {
        Subject {
            names: vec![name.clone()],
            optional: Vec::new(),
            tenant: self.spec.tenant.clone(),
            method: Arc::clone(&self.method),
            is_manual: false,
        }
    }

    /// Whether a certificate of the inventory makes its name one of ours.
    fn takes_in(&self, kept: &Kept) -> bool {
        let name = &kept.subject;
        let is_name = name.kind() == Kind::Exact && name.as_str().contains('.');
        let is_approved = kept.is_on_demand && self.on_demand.ask.is_some() || is_allowed(&self.on_demand, name);
        let is_ours = kept.role == Role::Own && kept.tenant == self.spec.tenant && !kept.ca.is_empty();
        is_name && is_ours && is_approved && kept.certificate.covers(name)
    }

    /// The domain's own settings, for a name that has certificates of its own.
    fn spec_for(&self, name: &DomainName) -> SiteSpec {
        SiteSpec { name: name.clone(), certificates: Vec::new(), ..(*self.spec).clone() }
    }
}

impl Aliases {
    /// Who approves names, and how they are served.
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The sites, by name.
    pub(super) fn sites(&self) -> Arc<Sites<Arc<str>>> {
        Arc::clone(&self.sites)
    }

    /// Every name.
    pub(super) fn names(&self) -> impl Iterator<Item = &DomainName> {
        self.built.keys()
    }

    /// Whether it is one of them.
    pub(super) fn has(&self, name: &DomainName) -> bool {
        self.built.contains_key(name)
    }

    /// Begins anew, with another host.
    pub(super) fn rehost(&mut self, host: Option<Host>) {
        self.host = host;
    }

    /// Makes the sites anew of those names for which there may be something new, or which are `affected` otherwise.
    /// `template`: how the host is served; `is_configured`: names that are served by themselves.
    pub(super) fn build(
        &mut self,
        template: Option<&Arc<Site>>,
        kept: &KeptCertificates,
        affected: impl Fn(&SiteSpec) -> bool,
        is_configured: impl Fn(&DomainName) -> bool,
        ranks_of: impl Fn(&SiteSpec) -> Ranks,
    ) {
        let (Some(host), Some(template)) = (&self.host, template) else {
            self.built.clear();
            self.sites = Arc::default();
            return;
        };
        let mut before = std::mem::take(&mut self.built);
        let mut sites = Sites::default();
        for kept in kept.all().filter(|kept| host.takes_in(kept) && !is_configured(&kept.subject)) {
            let name = &kept.subject;
            if self.built.contains_key(name) {
                continue;
            }
            if self.built.len() >= host.on_demand.max_names {
                break;
            }
            let spec = host.spec_for(name);
            let built = before.remove(name).filter(|(_, site)| is_like(site, template));
            let built = match built {
                Some(built) if !affected(&spec) => built,
                built => {
                    // `[fallback]` is not for others' names.
                    let ranks = Ranks { configured: None, ..ranks_of(&spec) };
                    match built {
                        Some((known, site)) if super::same(&known, &ranks) => (known, site),
                        _ => (ranks.clone(), Arc::new(alias_of(template, name, ranks))),
                    }
                }
            };
            sites.insert(name.shared(), Arc::clone(&built.1));
            self.built.insert(name.clone(), built);
        }
        self.sites = Arc::new(sites);
    }
}

/// A name's site: its own certificates, and all else of the host's.
fn alias_of(template: &Site, name: &DomainName, ranks: Ranks) -> Site {
    Site {
        name: template.name.clone(),
        tenant: template.tenant.clone(),
        plan: template.plan.clone(),
        rate_limit_policy: template.rate_limit_policy.clone(),
        certificates: CertificateSet::new(name.clone(), ranks, Arc::new(Nobody)),
        origin: Arc::clone(&template.origin),
        hsts: template.hsts.clone(),
        max_body_bytes: template.max_body_bytes,
        timeouts: template.timeouts,
        slot: template.slot,
        throttle: Arc::clone(&template.throttle),
    }
}

/// Whether an alias was made of a site like this one.
fn is_like(alias: &Site, template: &Site) -> bool {
    alias.slot == template.slot
        && alias.tenant == template.tenant
        && alias.plan == template.plan
        && Arc::ptr_eq(&alias.origin, &template.origin)
        && alias.hsts == template.hsts
        && alias.max_body_bytes == template.max_body_bytes
        && alias.timeouts == template.timeouts
}
