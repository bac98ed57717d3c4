//! What is right but may not be meant: `check` says it, and nothing is refused for it.

use std::path::Path;
use std::sync::Arc;

use super::acme::{Issuing, misfit};
use super::diagnostic::Wrong;
use super::domain::Domains;
use super::problems::Problems;
use crate::issuance::subject::{Subject, Terms, authorities_for};
use crate::issuance::{Acme, CertificateSpec, DomainAcme, Method};
use crate::name::{DomainName, Kind};
use crate::site::SiteSpec;

/// Names that are written out; the rest is counted.
const MAX_NAMED: usize = 5;

/// Notes what will not be issued; `main` is the main file.
pub fn note_issuance(domains: &Domains, main: &Path, problems: &mut Problems) {
    match &domains.issuing.acme {
        Some(acme) if acme.agreed_to_terms => {
            note_unprovable(domains, problems);
            note_unissuable(domains, acme, problems);
        }
        _ => note_unordered(domains, main, problems),
    }
}

/// Those without certificate files that may have one issued.
fn managed(domains: &Domains) -> impl Iterator<Item = (&SiteSpec, &Method)> {
    domains.sites.iter().filter(|site| site.certificates.is_empty()).filter_map(|site| match &site.acme {
        DomainAcme::Inherit => Some((&**site, &domains.issuing.method)),
        DomainAcme::Never => None,
        DomainAcme::Method(method) => Some((&**site, &**method)),
    })
}

fn note_unordered(domains: &Domains, main: &Path, problems: &mut Problems) {
    let names: Vec<&DomainName> = managed(domains).map(|(site, _)| &site.name).collect();
    if !names.is_empty() {
        let message = match names.len() {
            1 => format!("1 domain has no certificate of its own and none is ordered for it: {}", listed(&names)),
            n => {
                format!("{n} domains have no certificate of their own and none is ordered for them: {}", listed(&names))
            }
        };
        let remedy = "set `agree_to_terms = true` in `[acme]`, or `acme = false` for a domain that needs none";
        note_agreement(&domains.issuing, main, Wrong::new(message, remedy), problems);
    }
    if !domains.groups.list.is_empty() {
        let firsts: Vec<&DomainName> =
            domains.groups.list.iter().filter_map(|(_, group)| group.names.first()).collect();
        let message = format!("no `[[certificate]]` is ordered: {}", listed(&firsts));
        note_agreement(
            &domains.issuing,
            main,
            Wrong::new(message, "set `agree_to_terms = true` in `[acme]`"),
            problems,
        );
    }
}

fn note_agreement(issuing: &Issuing, main: &Path, wrong: Wrong, problems: &mut Problems) {
    match issuing.place {
        Some(place) => problems.note(place, wrong),
        None => problems.note_file(main, wrong),
    }
}

fn note_unprovable(domains: &Domains, problems: &mut Problems) {
    let without_dns = |name: &DomainName, method: &Method| name.kind() == Kind::Wildcard && method.dns.is_none();
    let wildcards: Vec<&DomainName> =
        managed(domains).filter(|(site, method)| without_dns(&site.name, method)).map(|(site, _)| &site.name).collect();
    if let Some(place) = wildcards.first().and_then(|name| domains.place_of(name)) {
        problems.note(place, no_dns(&wildcards));
    }
    for (place, group) in &domains.groups.list {
        let CertificateSpec { names, method, .. } = group;
        let wildcards: Vec<&DomainName> = names.iter().filter(|name| without_dns(name, method)).collect();
        if !wildcards.is_empty() {
            problems.note(*place, no_dns(&wildcards));
        }
    }
    // What a domain says itself and cannot be is an error; what it inherits may be right for the others.
    let misfits =
        managed(domains).filter(|(site, method)| !without_dns(&site.name, method)).filter_map(|(site, method)| {
            let wrong = misfit(&site.name, method.challenge?)?;
            Some((domains.place_of(&site.name)?, wrong))
        });
    for (place, wrong) in misfits.collect::<Vec<_>>() {
        let remedy = "write another `challenge` in its `[domain.acme]`, or `acme = false`".to_owned();
        problems.note(place, Wrong { remedy, ..wrong });
    }
}

/// Names that nobody on the Internet issues for: without this, nobody would ever say why there is no certificate.
fn note_unissuable(domains: &Domains, acme: &Acme, problems: &mut Problems) {
    let is_unissuable = |site: &SiteSpec, method: &Method| {
        let terms = Terms { tenant: None, method: Arc::new(method.clone()), is_manual: false };
        let subject = Subject::new(site.name.clone(), Arc::new(terms));
        authorities_for(acme, &subject, false, None, 0).is_empty()
    };
    let names: Vec<&DomainName> =
        managed(domains).filter(|(site, method)| is_unissuable(site, method)).map(|(site, _)| &site.name).collect();
    if let Some(place) = names.first().and_then(|name| domains.place_of(name)) {
        let message = format!("no CA that is named here issues for {}", listed(&names));
        let remedy = "write a `[[acme.ca]]` that does: for names and addresses that exist only in private one of your \
                      own, with its `ca_file`; for public addresses one with a `profile`; or write `acme = false`";
        problems.note(place, Wrong::new(message, remedy));
    }
}

fn no_dns(names: &[&DomainName]) -> Wrong {
    let message = match names.len() {
        1 => format!("no certificate can be ordered for a wildcard without `[acme.dns]`: {}", listed(names)),
        n => format!("no certificate can be ordered for {n} wildcards without `[acme.dns]`: {}", listed(names)),
    };
    Wrong::new(message, "write `[acme.dns]` with a `provider` that sets TXT records")
}

fn listed(names: &[&DomainName]) -> String {
    let mut parts: Vec<String> = names.iter().take(MAX_NAMED).map(|name| name.to_string()).collect();
    if names.len() > MAX_NAMED {
        parts.push(format!("and {} more", names.len() - MAX_NAMED));
    }
    parts.join(", ")
}
