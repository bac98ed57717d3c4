//! Names that nobody wrote into the configuration, served as the domain is that takes them in.
//!
//! Which they are follows from the inventory and `[acme.on_demand]` alone: a name that was approved has a certificate,
//! and is served for as long as it is kept.

use std::collections::HashMap;
use std::sync::Arc;

use super::kept::{Kept, KeptCertificates};
use crate::certificate::{Certificate, CertificateSet, CommonRanks, LastResort, Ranks};
use crate::clock::UnixTime;
use crate::issuance::subject::{Subject, Terms};
use crate::issuance::{Acme, Challenge, DomainAcme, Method, OnDemand};
use crate::name::{DomainName, Kind};
use crate::on_demand::is_allowed;
use crate::site::{Site, SiteSpec};
use crate::snapshot::Sites;
use crate::store::inventory::Role;

/// The names, and the sites that they are served as.
#[derive(Default)]
pub(super) struct Aliases {
    /// Who approves, and on whose behalf; `None`: there are no aliases.
    host: Option<Host>,
    built: HashMap<DomainName, Arc<Site>>,
    /// What is published.
    sites: Sites<Arc<str>>,
}

/// The domain that takes strangers in.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) on_demand: Arc<OnDemand>,
    pub(super) spec: Arc<SiteSpec>,
    terms: Arc<Terms>,
    /// What stands behind the certificates of a name: nothing, as `[fallback]` is not for others' names.
    nothing: Arc<CommonRanks>,
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
        let method = Arc::new(Method { challenge, dns: None, ..method.clone() });
        let terms = Arc::new(Terms { tenant: spec.tenant.clone(), method, is_manual: false });
        let nothing = Arc::new(CommonRanks { configured: None, last_resort: Arc::new(Nobody) });
        Some(Self { on_demand: Arc::new(on_demand.clone()), spec: Arc::clone(spec), terms, nothing })
    }

    /// What is ordered for a name.
    pub(super) fn subject(&self, name: &DomainName) -> Subject {
        Subject::new(name.clone(), Arc::clone(&self.terms))
    }

    /// Whether a certificate of the inventory makes its name one of ours.
    fn takes_in(&self, kept: &Kept) -> bool {
        let name = &kept.subject;
        let is_name = name.kind() == Kind::Exact && name.as_str().contains('.');
        // Who was asked about it then spoke for the tenant of then; the list speaks for whoever it stands with now.
        let was_approved = kept.is_on_demand && self.on_demand.ask.is_some() && kept.tenant == self.spec.tenant;
        let is_approved = was_approved || is_allowed(&self.on_demand, name);
        let is_ours = kept.role == Role::Own && !kept.ca.is_empty();
        is_name && is_ours && is_approved && kept.certificate.covers(name)
    }

    /// The domain's own settings, for a name that has certificates of its own.
    fn spec_for(&self, name: &DomainName) -> SiteSpec {
        SiteSpec { name: name.clone(), certificates: [].into(), ..(*self.spec).clone() }
    }
}

impl Aliases {
    /// Who approves names, and how they are served.
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The sites, by name.
    pub(super) fn sites(&self) -> Sites<Arc<str>> {
        self.sites.clone()
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

    /// Makes the sites of all names that the inventory approves of; whether any is another than it was. `template`: how
    /// the host is served; `is_configured`: names that are served by themselves.
    pub(super) fn build(
        &mut self,
        template: Option<&Arc<Site>>,
        kept: &KeptCertificates,
        is_configured: impl Fn(&DomainName) -> bool,
        ranks_of: impl Fn(&SiteSpec) -> Ranks,
    ) -> bool {
        let before = std::mem::take(&mut self.built);
        self.sites = Sites::default();
        let (Some(host), Some(template)) = (self.host.clone(), template) else { return !before.is_empty() };
        let mut is_new = false;
        for kept in kept.all().filter(|kept| host.takes_in(kept) && !is_configured(&kept.subject)) {
            if !self.built.contains_key(&kept.subject) {
                is_new |= self.put(&host, template, &kept.subject, before.get(&kept.subject), &ranks_of);
            }
        }
        is_new || before.len() != self.built.len()
    }

    /// The same for `names` alone, where only they can be others than they were.
    pub(super) fn build_some(
        &mut self,
        names: &[DomainName],
        template: Option<&Arc<Site>>,
        kept: &KeptCertificates,
        is_configured: impl Fn(&DomainName) -> bool,
        ranks_of: impl Fn(&SiteSpec) -> Ranks,
    ) -> bool {
        let (Some(host), Some(template)) = (self.host.clone(), template) else { return false };
        let is_ours = |name: &DomainName| kept.of(name).iter().any(|kept| host.takes_in(kept)) && !is_configured(name);
        if names.iter().any(|name| self.built.contains_key(name) && !is_ours(name)) {
            return self.build(Some(template), kept, is_configured, ranks_of);
        }
        let mut is_new = false;
        for name in names.iter().filter(|name| is_ours(name)) {
            let before = self.built.get(name).cloned();
            is_new |= self.put(&host, template, name, before.as_ref(), &ranks_of);
        }
        is_new
    }

    /// Makes the site of one name, if there is room; whether it is another than `before`.
    fn put(
        &mut self,
        host: &Host,
        template: &Arc<Site>,
        name: &DomainName,
        before: Option<&Arc<Site>>,
        ranks_of: impl Fn(&SiteSpec) -> Ranks,
    ) -> bool {
        if !self.built.contains_key(name) && self.built.len() >= host.on_demand.max_names {
            return false;
        }
        let certificates = CertificateSet::new(name, ranks_of(&host.spec_for(name)), Arc::clone(&host.nothing));
        let is_same = |site: &&Arc<Site>| is_like(site, template) && site.certificates.is_same(&certificates);
        let known = before.filter(is_same).cloned();
        let is_new = known.is_none();
        let site = known.unwrap_or_else(|| Arc::new(alias_of(template, certificates)));
        self.sites.insert(name.shared(), Arc::clone(&site));
        self.built.insert(name.clone(), site);
        is_new
    }
}

/// A name's site: its own certificates, and all else of the host's.
fn alias_of(template: &Site, certificates: CertificateSet) -> Site {
    Site {
        spec: Arc::clone(&template.spec),
        certificates,
        origin: Arc::clone(&template.origin),
        slot: template.slot,
        throttle: template.throttle.clone(),
    }
}

/// Whether an alias was made of a site like this one.
fn is_like(alias: &Site, template: &Site) -> bool {
    Arc::ptr_eq(&alias.spec, &template.spec) && Arc::ptr_eq(&alias.origin, &template.origin)
}
