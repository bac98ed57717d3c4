//! What name servers say of a name, and what that means for its visitors.

use std::net::IpAddr;

use super::facts::{Facts, LookedUp, NoAnswer, Role, Why};
use super::finding::{Finding, What};
use crate::issuance::subject::is_public;
use crate::name::DomainName;
use crate::remedy;

/// A finding for each name that was looked up.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    facts.names.iter().map(|looked_up| finding(looked_up, facts)).collect()
}

fn finding(looked_up: &LookedUp, facts: &Facts) -> Finding {
    let LookedUp { name, role, addresses, aliases } = looked_up;
    let add = format!("add an A record with this machine's IPv4 address for {}", written(looked_up, facts));
    let found = match addresses {
        Ok(addresses) if addresses.is_empty() => {
            Finding::wrong(What::Dns, format!("{name} exists, but has neither A nor AAAA records"), add)
        }
        Ok(addresses) => {
            let via = aliases.last().map(|end| format!(" by way of {end}")).unwrap_or_default();
            Finding::ok(What::Dns, format!("{name} leads to {}{via}", list(addresses)))
        }
        Err(NoAnswer { why: Why::NoSuchName, .. }) => match aliases.last() {
            Some(end) => Finding::wrong(
                What::Dns,
                format!("{name} is an alias (CNAME) of {end}, which does not exist"),
                format!("point the CNAME of {name} at a name that exists, or put an A record in its place"),
            ),
            None if is_private(name) => Finding::note(
                What::Dns,
                format!("{name} is a private name: the public DNS has none under its top level (NXDOMAIN)"),
            )
            .with_remedy(remedy::resolve_privately(name)),
            None => Finding::wrong(What::Dns, format!("{name} does not exist (NXDOMAIN)"), add),
        },
        Err(NoAnswer { why, words }) => Finding::wrong(What::Dns, words.clone(), no_answer(*why, name)),
    };
    // Nobody has to serve the parent of a wildcard.
    found.only_if(*role != Role::Parent)
}

/// Whether a name is for use in private, such as those under `localhost`, `test` and `internal`.
fn is_private(name: &str) -> bool {
    DomainName::parse(name).is_ok_and(|name| !is_public(&name))
}

/// The name to write into the zone.
fn written<'a>(looked_up: &'a LookedUp, facts: &'a Facts) -> &'a str {
    if looked_up.role == Role::Below { facts.name.as_str() } else { &looked_up.name }
}

/// What to do about name servers that gave no answer for `name`.
pub(super) fn no_answer(why: Why, name: &str) -> String {
    match why {
        Why::ServerFailed => format!(
            "see that the name servers of {name} answer, and that its DNSSEC is valid: most often the DS record at the \
             registrar belongs to a key that the zone no longer has"
        ),
        Why::Silent => format!(
            "see that this machine reaches its name server (port 53, UDP and TCP), and that those of {name} answer"
        ),
        Why::NoSuchName | Why::Other => remedy::answer_for(name),
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
