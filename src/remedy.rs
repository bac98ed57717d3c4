//! What to do about it, in the same words wherever it is said: by an authority's failure and by `lockgate domain check`.
//!
//! Each is one sentence for whoever runs the machine or the zone, without a capital at its start or a full stop at its
//! end.

use std::net::IpAddr;

use crate::issuance::Challenge;

/// Nothing is ordered before the operator agreed.
pub const AGREE_TO_TERMS: &str =
    "set `agree_to_terms = true` in `[acme]`, or write certificate files into the domain's `[[domain.certificate]]`";

/// Nothing answers on the control socket.
pub const START: &str = "start Lockgate with `lockgate run`, then check again";

/// Nothing is to be done here.
pub const WAIT: &str = "wait, it is tried again";

/// All addresses of `name` are to lead here.
pub fn point_here(name: &str) -> String {
    format!("point the A and AAAA records of {name} at this machine alone")
}

/// One address of `name` leads elsewhere.
pub fn move_record(name: &str, address: IpAddr) -> String {
    format!("remove the {} record {address} of {name}, or point it at this machine", record_of(address))
}

/// The record type that holds such an address.
pub fn record_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "A" } else { "AAAA" }
}

/// There is no way to `name` by the port or ports of `challenge`.
pub fn open_way(name: &str, challenge: Option<Challenge>) -> String {
    let port = match challenge {
        Some(Challenge::TlsAlpn01) => "port 443",
        Some(Challenge::Http01) => "port 80",
        _ => "ports 80 and 443",
    };
    format!(
        "point the A and AAAA records of {name} at this machine, and let {port} through every firewall in between; \
         remove the AAAA record if it has no IPv6"
    )
}

/// Somebody else ends TLS for `name`.
pub fn pass_tls(name: &str) -> String {
    format!(
        "let port 443 of {name} reach this machine as it is: something in front of it, such as a load balancer, ends TLS \
         itself"
    )
}

/// CAA records at `name` do not allow `authority`, as they call it, by `tag` (`issue` or `issuewild`).
pub fn allow(name: &str, tag: &str, authority: &str) -> String {
    format!("add `0 {tag} \"{authority}\"` to the CAA records of {name}, or remove them all")
}

/// The same for an authority of which nobody knows what they call it.
pub fn allow_unnamed(name: &str) -> String {
    format!("allow this authority in the CAA records of {name}, or remove them all")
}

/// Name servers do not answer for `name`.
pub fn answer_for(name: &str) -> String {
    format!(
        "make the name servers of {name} answer: the name must exist, its A, AAAA, CAA and TXT records must be answered \
         without errors, and DNSSEC must be valid where it is used"
    )
}

/// `name` is for use in private.
pub fn resolve_privately(name: &str) -> String {
    format!(
        "give clients the address of {name} yourself, by a name server of your own or their hosts files; none but a private \
         authority, a `[[acme.ca]]` with its `ca_file`, issues for it"
    )
}

/// The TXT record by which `name` is proved is missing or wrong.
pub fn show_txt(name: &str) -> String {
    format!(
        "check that the TXT record `_acme-challenge.{name}` is set in the zone that the world sees, and that no old one is \
         left; if it appears late, raise `propagation_timeout`"
    )
}

/// Another authority must be asked for `name`.
pub fn ask_another(name: &str) -> String {
    format!(
        "ask another authority for {name}, or with a `profile` that allows it: not every one issues for IP addresses or wildcards"
    )
}
