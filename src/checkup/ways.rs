//! Ports 80 and 443 of each address: whether they lead here, and what is shown there.

use super::facts::{Facts, Http, Presented, Process, Tls, Unreached, Way};
use super::finding::{Finding, What};
use super::serving::challenge;
use crate::issuance::Challenge;
use crate::remedy;

/// What was seen of one port.
enum Verdict {
    /// It leads here.
    Here,
    /// It does not: what there is instead.
    Away(String),
    /// It was not looked at.
    Unknown,
}

/// What is so of each address.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let (Process::Silent(why), false) = (&facts.process, facts.ways.is_empty()) {
        let says = format!("whether port 80 leads to this Lockgate was not looked at: {why}");
        findings.push(Finding::note(What::Port80, says).with_remedy(remedy::START));
    }
    findings.extend(facts.ways.iter().flat_map(|way| of_way(facts, way)));
    findings
}

fn of_way(facts: &Facts, way: &Way) -> Vec<Finding> {
    let address = way.address;
    let name = facts.name.as_str();
    let is_name = !facts.names.is_empty();
    match (http(&way.http), tls(&way.tls)) {
        // Nothing here could have taken the connection.
        (Verdict::Unknown, Verdict::Away(_)) => Vec::new(),
        (Verdict::Away(plain), Verdict::Away(secure)) if is_name => {
            let what = if address.is_ipv4() { What::A } else { What::Aaaa };
            let says = format!("{address} does not lead here: {plain}, and {secure}");
            vec![Finding::wrong(what, says, remedy::move_record(name, address))]
        }
        (plain, secure) => [on_80(facts, way, plain), on_443(facts, way, secure)].into_iter().flatten().collect(),
    }
}

fn http(seen: &Http) -> Verdict {
    Verdict::Away(match seen {
        Http::Here => return Verdict::Here,
        Http::NotLooked => return Verdict::Unknown,
        Http::Elsewhere { status, server: Some(server) } => {
            format!("another server has port 80 ({server}, status {status})")
        }
        Http::Elsewhere { status, server: None } => format!("another server has port 80 (status {status})"),
        Http::Garbled => "what has port 80 is no HTTP server".to_owned(),
        Http::Unreached(unreached) => no_way("port 80", unreached),
    })
}

fn tls(seen: &Tls) -> Verdict {
    Verdict::Away(match seen {
        Tls::Presented(it) if it.is_ours || it.is_internal => return Verdict::Here,
        Tls::Presented(it) => format!("port 443 shows a certificate of another server ({})", described(it)),
        Tls::Failed(words) => format!("no handshake succeeds on port 443 ({words})"),
        Tls::Unreached(unreached) => no_way("port 443", unreached),
    })
}

fn no_way(port: &str, unreached: &Unreached) -> String {
    match unreached {
        Unreached::Refused => format!("nothing listens on {port}"),
        Unreached::Silent => format!("{port} does not answer"),
        Unreached::Other(words) => format!("{port} cannot be reached ({words})"),
    }
}

fn described(presented: &Presented) -> String {
    let names: Vec<_> = presented.names.iter().map(|name| name.as_str()).take(3).collect();
    format!("for {} from {}", names.join(", "), presented.issuer)
}

fn on_80(facts: &Facts, way: &Way, seen: Verdict) -> Option<Finding> {
    let (name, address) = (facts.name.as_str(), way.address);
    let what = match seen {
        Verdict::Here => return Some(Finding::ok(What::Port80, format!("{address} leads here"))),
        Verdict::Unknown => return None,
        Verdict::Away(what) => what,
    };
    let remedy = match way.http {
        Http::Unreached(_) if !facts.serving.has_http_listener => "write `[listen] http = [\"[::]:80\"]`".to_owned(),
        Http::Unreached(_) => remedy::open_way(name, Some(Challenge::Http01)),
        _ => format!("let Lockgate have port 80 of {address}, or prove {name} by another `challenge`"),
    };
    // Where no authority looks there, what is missing is no more than the redirect.
    let is_needed = matches!(challenge(facts), Some(Ok(Challenge::Http01)));
    Some(Finding::wrong(What::Port80, format!("{address} does not lead here: {what}"), remedy).only_if(is_needed))
}

fn on_443(facts: &Facts, way: &Way, seen: Verdict) -> Option<Finding> {
    let (name, address) = (facts.name.as_str(), way.address);
    let wrong = |says: String, remedy: String| Some(Finding::wrong(What::Port443, says, remedy));
    match (seen, &way.tls) {
        (Verdict::Unknown, _) => None,
        (Verdict::Away(what), Tls::Unreached(_)) => {
            wrong(format!("{address} does not lead here: {what}"), remedy::open_way(name, Some(Challenge::TlsAlpn01)))
        }
        // Whoever is not served gets no handshake; that nobody serves it has been said.
        (Verdict::Away(what), Tls::Failed(_)) if facts.serving.domain.is_none() => {
            Some(Finding::note(What::Port443, format!("{address}: {what}")))
        }
        (Verdict::Away(what), _) => wrong(format!("{address} does not lead here: {what}"), remedy::pass_tls(name)),
        (Verdict::Here, Tls::Presented(presented)) => Some(shown(facts, way, presented)),
        (Verdict::Here, _) => None,
    }
}

/// What to say of a certificate of ours.
fn shown(facts: &Facts, way: &Way, presented: &Presented) -> Finding {
    let (name, address) = (&facts.name, way.address);
    let Presented { not_before, not_after, issuer, .. } = presented;
    if presented.is_internal {
        // Why it serves is for the certificate to say.
        let says = format!("{address} leads here, and shows a certificate that Lockgate made itself");
        return Finding::note(What::Port443, says);
    }
    let put = format!("put a certificate that is valid for {name} into its files");
    if !(not_before.secs()..=not_after.secs()).contains(&facts.now.secs()) {
        let says = format!("{address} shows a certificate that is valid from {not_before} to {not_after}, not now");
        return Finding::wrong(What::Port443, says, "compare the clocks of this machine and of the one that answers");
    }
    // Of a wildcard, a name under it was asked for.
    let covers = |pattern: &crate::name::DomainName| match name.wildcard_parent() {
        Some(_) => pattern == name,
        None => pattern.covers(name.as_str()),
    };
    if !presented.names.iter().any(covers) {
        let says = format!("{address} shows a certificate {}, not for {name}", described(presented));
        return Finding::wrong(What::Port443, says, put);
    }
    if presented.is_trusted {
        return Finding::ok(What::Port443, format!("{address} leads here, and shows the certificate from {issuer}"));
    }
    let says =
        format!("{address} leads here, and shows the certificate from {issuer}, which no root of this machine's knows");
    let remedy = match presented.chain_length {
        1 => "put the intermediate certificates of its authority behind it in the `cert` file: it is sent alone",
        _ => "nothing, if its authority is your own; else order one that browsers trust",
    };
    Finding::note(What::Port443, says).with_remedy(remedy)
}
