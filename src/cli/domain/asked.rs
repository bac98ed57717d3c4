//! What name servers say.

use std::net::IpAddr;

use crate::checkup::{CaaProperty, CaaRecords, LookedUp, NoAnswer, Role, Why};
use crate::dns::{Failure, LookupError, Resolver};
use crate::name::{DomainName, Kind};

/// What they say of a name; of a wildcard: of `host`, which is under it, and of its parent.
pub(super) async fn names(resolver: &Resolver, name: &DomainName, host: &str) -> Vec<LookedUp> {
    match (name.kind(), name.wildcard_parent()) {
        (Kind::Ip(_), _) => Vec::new(),
        (_, Some(parent)) => {
            let (below, parent) =
                tokio::join!(look_up(resolver, host, Role::Below), look_up(resolver, parent, Role::Parent));
            vec![below, parent]
        }
        _ => vec![look_up(resolver, host, Role::Itself).await],
    }
}

async fn look_up(resolver: &Resolver, name: &str, role: Role) -> LookedUp {
    let (addresses, aliases) = tokio::join!(resolver.addresses(name), resolver.cname_chain(name));
    let addresses = addresses.map(|(v4, v6)| v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)));
    LookedUp {
        name: name.to_owned(),
        role,
        addresses: addresses.map(Iterator::collect).map_err(|error| no_answer(&error)),
        // Why there is none is said of the addresses.
        aliases: aliases.unwrap_or_default(),
    }
}

/// The CAA records that count for a name.
pub(super) async fn caa(resolver: &Resolver, name: &DomainName) -> Result<Option<CaaRecords>, NoAnswer> {
    let found = resolver.caa(name.as_str()).await.map_err(|error| no_answer(&error))?;
    Ok(found.map(|set| {
        let property =
            |caa: crate::dns::Caa| CaaProperty { is_critical: caa.is_critical, tag: caa.tag, value: caa.value };
        CaaRecords { found_at: set.found_at, properties: set.records.into_iter().map(property).collect() }
    }))
}

/// Where the TXT record of dns-01 is set in place of its own name; empty: at its own, or that is not known.
pub(super) async fn txt_aliases(resolver: &Resolver, name: &DomainName) -> Vec<String> {
    if matches!(name.kind(), Kind::Ip(_)) {
        return Vec::new();
    }
    let host = name.wildcard_parent().unwrap_or(name.as_str());
    resolver.cname_chain(&format!("_acme-challenge.{host}")).await.unwrap_or_default()
}

fn no_answer(error: &LookupError) -> NoAnswer {
    let why = match error.failure {
        Failure::NoSuchName => Why::NoSuchName,
        Failure::ServerFailed => Why::ServerFailed,
        Failure::Silent(_) | Failure::Unreachable(_) => Why::Silent,
        _ => Why::Other,
    };
    NoAnswer { why, words: error.to_string() }
}
