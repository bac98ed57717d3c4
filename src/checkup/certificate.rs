//! What serves, and what failed.

use super::facts::{Broken, Certificates, Facts, Failed, Process};
use super::finding::{Finding, What};
use super::serving::{issued, issued_name};
use crate::certificate::Source;
use crate::remedy;

/// What is known of the certificates. Nothing where the name is not served.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Some(certificates) = &facts.certificates else { return Vec::new() };
    let mut findings = vec![serving(facts, certificates)];
    for Broken { says, remedy } in &certificates.broken {
        findings.push(Finding::wrong(What::Certificate, says.clone(), remedy.clone()));
    }
    let is_covered = certificates.standing.source == Source::Own;
    for failed in &certificates.failed {
        // A renewal that failed is tried again long before anybody notices.
        findings.push(failure(failed).only_if(!is_covered && !failed.is_standby));
    }
    if let Some(words) = &certificates.unreadable {
        let says = format!("certificates that were issued could not be looked at: {words}");
        findings.push(Finding::note(What::Certificate, says));
    }
    findings
}

fn serving(facts: &Facts, certificates: &Certificates) -> Finding {
    let Certificates { standing, issuer, guaranteed_until, .. } = certificates;
    let name = issued_name(facts);
    let from = issuer.as_deref().map(|issuer| format!(" from {issuer}")).unwrap_or_default();
    let until = standing.not_after.map(|end| format!(", valid until {end}")).unwrap_or_default();
    let assured = match guaranteed_until {
        Some(end) if Some(*end) > standing.not_after => format!("; a valid one is assured until {end}"),
        _ => String::new(),
    };
    let lack = match standing.own_not_after {
        Some(end) if end.secs() < facts.now.secs() => format!("the certificate of {name} expired at {end}"),
        Some(_) => format!("the certificate of {name} does not serve"),
        None => format!("{name} has no certificate of its own that works"),
    };
    if facts.serving.domain.is_none() && standing.source == Source::Internal {
        return none_on_demand(facts, certificates, &lack);
    }
    match standing.source {
        Source::Own => Finding::ok(What::Certificate, format!("{name} has a certificate{from}{until}{assured}")),
        Source::Store | Source::Standby => {
            let which = if standing.source == Source::Standby { "the standby" } else { "another certificate" };
            Finding::note(What::Certificate, format!("{lack}: {which}{from} serves{until}{assured}"))
                .with_remedy(next_step(facts, certificates))
        }
        Source::Configured => Finding::wrong(
            What::Certificate,
            format!("{lack}: the operator's `[fallback]`{from} serves{until}"),
            next_step(facts, certificates),
        ),
        Source::Internal => Finding::wrong(
            What::Certificate,
            format!("{lack}: one that Lockgate made itself serves, which no browser trusts"),
            next_step(facts, certificates),
        ),
    }
}

/// Of a name on demand, which nobody serves with a certificate that no browser trusts.
fn none_on_demand(facts: &Facts, certificates: &Certificates, lack: &str) -> Finding {
    let name = &facts.name;
    match certificates.failed.iter().find(|failed| !failed.is_standby) {
        Some(failed) => Finding::wrong(What::Certificate, lack, failed.advice.clone()),
        None if facts.process != Process::Runs => Finding::note(What::Certificate, lack).with_remedy(remedy::START),
        None if certificates.is_ordered => {
            Finding::note(What::Certificate, format!("{lack}, yet: it is being ordered")).with_remedy(remedy::WAIT)
        }
        None => Finding::note(What::Certificate, format!("{lack}, yet: one is ordered at a handshake for it"))
            .with_remedy(format!("open https://{name}/ once")),
    }
}

/// How the domain gets a certificate of its own.
fn next_step(facts: &Facts, certificates: &Certificates) -> String {
    let name = issued_name(facts);
    let is_manual = facts.serving.domain.as_ref().is_some_and(|domain| !domain.certificates.is_empty());
    let own_failed = certificates.failed.iter().find(|failed| !failed.is_standby);
    if let Some(broken) = certificates.broken.first() {
        return broken.remedy.clone();
    }
    match (&facts.serving.subject, own_failed) {
        _ if is_manual => {
            format!("put a fresh certificate for {name} where its files are: it is taken without a reload")
        }
        (Some(_), Some(failed)) => failed.advice.clone(),
        (Some(_), None) if facts.process != Process::Runs => remedy::START.to_owned(),
        (Some(_), None) if certificates.is_ordered => "wait, it is being ordered".to_owned(),
        (Some(_), None) => format!("wait a moment, or order it now with `lockgate cert order {name}`"),
        // Why nothing is ordered has been said.
        (None, _) => {
            let said = issued(facts).into_iter().find_map(|finding| finding.remedy);
            said.unwrap_or_else(|| remedy::AGREE_TO_TERMS.to_owned())
        }
    }
}

fn failure(failed: &Failed) -> Finding {
    let Failed { is_standby, failures, last_at, next_at, authority, problem, advice } = failed;
    let what = if *is_standby { "ordering a standby" } else { "ordering it" };
    let times = if *failures == 1 { "once".to_owned() } else { format!("{failures} times in a row") };
    let says = format!(
        "{what} failed {times}, at {last_at} the last; {authority}: {}; next attempt at {next_at}",
        problem.trim_end_matches('.')
    );
    let advice = if advice.is_empty() { remedy::WAIT } else { advice };
    Finding::wrong(What::Certificate, says, advice)
}
