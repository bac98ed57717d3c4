//! Who serves the name, and how its certificate is to be had.

use super::facts::{Approval, Facts};
use super::finding::{Finding, What};
use crate::issuance::Challenge;
use crate::issuance::DomainAcme;
use crate::issuance::subject::{ChallengeError, Subject, authorities_for, challenges_for};
use crate::name::{DomainName, Kind};
use crate::remedy;

/// Which `[[domain]]` serves the name.
pub(super) fn served(facts: &Facts) -> Finding {
    let (name, serving) = (&facts.name, &facts.serving);
    match (&serving.domain, &serving.on_demand) {
        (Some(domain), _) if domain.name == *name => Finding::ok(What::Serving, format!("{name} is served here")),
        (Some(domain), _) => Finding::ok(What::Serving, format!("{name} is served here by {}", domain.name)),
        (None, Some((site, approval))) => approved(name, site, approval),
        (None, None) => Finding::wrong(What::Serving, format!("no `[[domain]]` serves {name}"), write_domain(facts)),
    }
}

/// Whether a name that nobody configured is served.
fn approved(name: &DomainName, site: &DomainName, approval: &Approval) -> Finding {
    let served = format!("it is served here by {site} on demand");
    match approval {
        Approval::Allowed => Finding::ok(What::Serving, format!("`allow` approves {name}: {served}")),
        Approval::Approved(url) => Finding::ok(What::Serving, format!("{url} approves {name}: {served}")),
        Approval::Refused(url) => Finding::wrong(
            What::Serving,
            format!("{url}, which is asked about names on demand, does not approve {name}"),
            format!("have {url} approve {name} (status 200), or write it into `allow` of `[acme.on_demand]`"),
        ),
        Approval::Unanswered(url) => Finding::wrong(
            What::Serving,
            format!("{url}, which is asked about names on demand, says neither yes nor no of {name}"),
            format!("see that {url} answers within 5 seconds: 200 for names to be served, 404 for others"),
        ),
    }
}

fn write_domain(facts: &Facts) -> String {
    let name = &facts.name;
    let write = format!("write a `[[domain]]` with `name = \"{name}\"` and its `origin`, then run `lockgate reload`");
    match &facts.serving.nearest {
        // A wildcard that is one label off is no slip of the pen.
        Some(nearest) if nearest.wildcard_parent().is_some_and(|parent| name.as_str().ends_with(parent)) => {
            format!("{write}: {nearest} covers exactly one label in place of the `*`")
        }
        Some(nearest) => format!("{write}; or did you mean {nearest}?"),
        None => write,
    }
}

/// The name that the certificate is for: that of the domain, which may be a wildcard.
pub(super) fn issued_name(facts: &Facts) -> &DomainName {
    facts.serving.domain.as_ref().map_or(&facts.name, |domain| &domain.name)
}

/// How control over the name is proved, if it is to be and can be.
pub(super) fn challenge(facts: &Facts) -> Option<Result<Challenge, ChallengeError>> {
    let subject = facts.serving.subject.as_ref()?;
    let names = [issued_name(facts).clone()];
    let (http, https) = (facts.serving.has_http_listener, facts.serving.has_https_listener);
    challenges_for(subject, &names, http, https, 0).pop().map(|(_, challenge)| challenge)
}

/// How its certificate is to be had. Nothing where the name is not served.
pub(super) fn issued(facts: &Facts) -> Vec<Finding> {
    let Some(domain) = &facts.serving.domain else { return issued_on_demand(facts) };
    let name = &domain.name;
    let has_files = !domain.certificates.is_empty();
    let wrong = |says: String, remedy: String| vec![Finding::wrong(What::Issuance, says, remedy)];
    let Some(subject) = &facts.serving.subject else {
        let agreed = facts.serving.acme.as_ref().is_some_and(|acme| acme.agreed_to_terms);
        return match &domain.acme {
            _ if has_files => vec![Finding::ok(What::Issuance, format!("{name} has certificate files of its own"))],
            DomainAcme::Never => wrong(
                format!("{name} has no certificate files, and `acme = false` says that none is ordered"),
                format!("write `[[domain.certificate]]` with `cert` and `key` for {name}, or leave `acme = false` out"),
            ),
            _ if !agreed => wrong(
                format!("nothing is ordered for {name}: the operator has not agreed to the authorities' terms"),
                remedy::AGREE_TO_TERMS.to_owned(),
            ),
            _ => wrong(nobody_issues(name), who_could(name)),
        };
    };
    ordered(facts, subject, has_files)
}

/// The same for a name on demand.
fn issued_on_demand(facts: &Facts) -> Vec<Finding> {
    let agreed = facts.serving.acme.as_ref().is_some_and(|acme| acme.agreed_to_terms);
    match (&facts.serving.on_demand, &facts.serving.subject) {
        (None, _) => Vec::new(),
        (Some(_), Some(subject)) => ordered(facts, subject, false),
        (Some(_), None) if !agreed => vec![Finding::wrong(
            What::Issuance,
            format!("nothing is ordered for {}: the operator has not agreed to the authorities' terms", facts.name),
            remedy::AGREE_TO_TERMS,
        )],
        (Some(_), None) => Vec::new(),
    }
}

/// How the certificate of a subject is to be had.
fn ordered(facts: &Facts, subject: &Subject, has_files: bool) -> Vec<Finding> {
    let name = issued_name(facts);
    let mut findings = vec![match challenge(facts) {
        Some(Err(error)) => Finding::wrong(What::Issuance, error.to_string(), way_out(&error)).only_if(!has_files),
        Some(Ok(challenge)) => {
            let names = facts.serving.acme.as_ref().map(|acme| {
                let authorities = authorities_for(acme, subject, subject.terms.is_manual, None, 0);
                authorities.iter().map(|authority| authority.name.clone()).collect::<Vec<_>>().join(", then ")
            });
            let what = if subject.terms.is_manual { "a standby" } else { "its certificate" };
            let from = names.unwrap_or_default();
            Finding::ok(What::Issuance, format!("{what} is ordered from {from}, and {name} proved by {challenge}"))
        }
        // A group that names the domain beside others.
        None => Finding::ok(What::Issuance, format!("{name} is ordered for")),
    }];
    if let (Some(Ok(Challenge::Dns01)), Some(end)) = (challenge(facts), facts.txt_aliases.last()) {
        let host = name.wildcard_parent().unwrap_or(name.as_str());
        let says = format!("_acme-challenge.{host} is an alias (CNAME) of {end}: TXT records are set there");
        findings.push(Finding::note(What::Issuance, says));
    }
    findings
}

fn nobody_issues(name: &DomainName) -> String {
    match name.kind() {
        Kind::Ip(_) => format!("none of the configured authorities issues for the address {name}"),
        _ => format!("none of the configured authorities issues for {name}: it is no name of the public DNS"),
    }
}

fn who_could(name: &DomainName) -> String {
    match name.kind() {
        Kind::Ip(_) => remedy::ask_another(name.as_str()),
        _ => format!(
            "name a private authority with its `ca_file` in `[[acme.ca]]`, or write `[[domain.certificate]]` with `cert` \
             and `key` for {name}"
        ),
    }
}

fn way_out(error: &ChallengeError) -> String {
    match error {
        ChallengeError::NoDns { .. } => "write `[acme.dns]` with a `provider` that sets TXT records".to_owned(),
        ChallengeError::AddressByDns { .. } => "write `challenge = \"http-01\"`, or leave `challenge` out".to_owned(),
        ChallengeError::NoListener { challenge: Challenge::Http01, .. } => {
            "write `[listen] http = [\"[::]:80\"]`".to_owned()
        }
        ChallengeError::NoListener { .. } => "write `[listen] https = [\"[::]:443\"]`".to_owned(),
    }
}
