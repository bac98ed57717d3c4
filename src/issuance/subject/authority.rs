//! Which authorities are asked for a subject's certificate, and in which order.

use std::net::IpAddr;
use std::sync::Arc;

use super::Subject;
use crate::issuance::{Acme, Authority};
use crate::name::{DomainName, Kind};

/// Top-level names that are nobody's in the public DNS: reserved (RFC 6761; RFC 6762 for `local`, RFC 7686 for `onion`,
/// RFC 9476 for `alt`, ICANN for `internal`), or used in private for so long that they never will be (RFC 6762,
/// appendix G).
const PRIVATE_TOPS: &[&str] = &[
    "alt",
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];

/// Whether `authority` can issue for `name`, as far as can be told without asking. Names and addresses that exist only
/// in private are for a private authority: one whose `roots` are set. Public ones issue for addresses under a `profile`
/// made for that.
pub fn can_issue(authority: &Authority, name: &DomainName) -> bool {
    can_issue_under(authority, authority.profile.is_some(), name)
}

fn can_issue_under(authority: &Authority, has_profile: bool, name: &DomainName) -> bool {
    let needs_profile = matches!(name.kind(), Kind::Ip(_));
    authority.roots.is_some() || is_public(name) && (has_profile || !needs_profile)
}

/// Whether a name can be anybody's on the Internet.
pub fn is_public(name: &DomainName) -> bool {
    if let Kind::Ip(address) = name.kind() {
        return is_public_address(address);
    }
    let host = name.wildcard_parent().unwrap_or(name.as_str());
    let Some((rest, top)) = host.rsplit_once('.') else { return false };
    let is_home = top == "arpa" && (rest == "home" || rest.ends_with(".home"));
    !is_home && !PRIVATE_TOPS.contains(&top)
}

/// Whether an address is routed on the Internet, as far as the standard library can tell.
fn is_public_address(address: IpAddr) -> bool {
    let is_private = match address {
        IpAddr::V4(it) => {
            let is_shared = matches!(it.octets(), [100, 64..=127, ..]);
            it.is_private()
                || it.is_loopback()
                || it.is_link_local()
                || it.is_unspecified()
                || is_shared
                || it.is_broadcast()
                || it.is_multicast()
                || it.is_documentation()
        }
        IpAddr::V6(it) => {
            let is_documentation = matches!(it.segments(), [0x2001, 0xdb8, ..]);
            it.is_loopback()
                || it.is_unspecified()
                || it.is_unique_local()
                || it.is_unicast_link_local()
                || it.is_multicast()
                || is_documentation
        }
    };
    !is_private
}

/// Whom to ask for a certificate for `subject`, one after the other where one does not issue by its own fault. Those that
/// the subject's method names, or all, in order of preference, as far as they can issue for all of its names that are
/// not optional; for its own certificate none that issues standbys only. For a standby those, too, whomever the method
/// names, and the one with the name `own_ca`, whose fault it may be that one is needed, last.
///
/// After `failures` in a row it is another's turn to be first: the preferred one has two attempts, then all have one in
/// turn. So a name that one of them cannot validate is tried with the next, and not with all of them at once.
pub fn authorities_for(
    acme: &Acme,
    subject: &Subject,
    is_standby: bool,
    own_ca: Option<&str>,
    failures: u32,
) -> Vec<Arc<Authority>> {
    let by_name = |name: &String| acme.authorities.iter().find(|it| it.name == *name);
    let named: Vec<_> = match &subject.terms.method.authorities {
        Some(names) => {
            let is_spare = |it: &&Arc<Authority>| is_standby && it.is_standby_only && !names.contains(&it.name);
            names.iter().filter_map(by_name).chain(acme.authorities.iter().filter(is_spare)).collect()
        }
        None => acme.authorities.iter().collect(),
    };
    let serves = |it: &&Arc<Authority>| {
        let has_profile = it.profile.is_some() || subject.terms.method.profile.is_some();
        (is_standby || !it.is_standby_only) && subject.required().all(|name| can_issue_under(it, has_profile, name))
    };
    let mut authorities: Vec<_> = named.into_iter().filter(serves).cloned().collect();
    if is_standby {
        authorities.sort_by_key(|it| own_ca == Some(it.name.as_str()));
    }
    if let Some(turn) = (failures.saturating_sub(1) as usize).checked_rem(authorities.len()) {
        authorities.rotate_left(turn);
    }
    authorities
}
