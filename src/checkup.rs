//! What is wrong with a name, and the one thing to do about it.
//!
//! Facts in, findings out: whoever looks at name servers, ports, origins and certificates (`cli::domain`) writes down
//! what was seen in [`Facts`]; [`examine`] says what that means. In the order of cause and effect, so that the first
//! thing that is wrong is the one to begin with.
//!
//! ```text
//! facts          what was seen
//! serving        who serves the name, and how its certificate is to be had
//! names          DNS
//! caa            who may issue (RFC 8659)
//! ways           ports 80 and 443 of each address
//! behind         the origin
//! certificate    what serves, and what failed
//! finding        one thing looked at; the report of all
//! ```

mod behind;
mod caa;
mod certificate;
mod facts;
mod finding;
mod names;
mod serving;
#[cfg(test)]
mod tests;
mod ways;

pub use facts::{
    Answered, Approval, Authority, Broken, CaaProperty, CaaRecords, Certificates, Facts, Failed, Http, LookedUp,
    NoAnswer, OriginSeen, Presented, Process, Role, Serving, Tls, Unreached, Way, Why,
};
pub use finding::{Finding, Report, State, What};

/// What the facts mean.
pub fn examine(facts: &Facts) -> Report {
    let mut findings = Vec::new();
    findings.push(serving::served(facts));
    findings.extend(serving::issued(facts));
    findings.extend(names::findings(facts));
    findings.extend(ways::findings(facts));
    findings.extend(caa::findings(facts));
    findings.extend(behind::findings(facts));
    findings.extend(certificate::findings(facts));
    Report { name: facts.name.to_string(), findings }
}
