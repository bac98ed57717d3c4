//! Where a TXT record has to be set: CNAMEs may have delegated it to another zone.
//!
//! Resolvers with a cache remember for minutes or hours that a name does not exist (RFC 2308, section 5), and that holds
//! for all types of records. Whoever is to say later whether the record is there is not asked about its name before.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::{Failure, LookupError};
use super::exchange::{Way, ask};
use super::propagation::authorities;
use super::resolver::{ALIASES_MAX, Resolver, error};

/// A label that nobody has: who gets an answer for it has met a wildcard.
const WILDCARD_PROBE: &str = "lockgate-wildcard-probe";
/// How long it may take to find one of a zone's own name servers that answers.
const HOME_PATIENCE: Duration = Duration::from_secs(3);

impl Resolver {
    /// Where a TXT record for `name` has to be set, and the zone that is to hold it. Zones' own name servers listen on
    /// `port`.
    ///
    /// A wildcard's CNAME is not followed: it is for web servers, and ends to count for a name that has records.
    pub(super) async fn place(&self, name: &Name, port: u16) -> Result<(Name, Name), LookupError> {
        let mut at = name.clone();
        for _ in 0..=ALIASES_MAX {
            let here = self.at_home(&at, port).await;
            match here.target(&at).await? {
                Some(target) => at = target,
                None => {
                    let zone = here.zone_of(&at).await?;
                    return Ok((at, zone));
                }
            }
        }
        Err(error(name, RecordType::CNAME, None, Failure::TooManyAliases))
    }

    /// Where a CNAME of the name's own leads.
    async fn target(&self, at: &Name) -> Result<Option<Name>, LookupError> {
        let Some(target) = self.alias(at).await? else { return Ok(None) };
        let probe = at.base_name().prepend_label(WILDCARD_PROBE);
        let probe = probe.map_err(|_| error(at, RecordType::CNAME, None, Failure::NotAName))?;
        let is_wildcard = self.alias(&probe).await?.as_ref() == Some(&target);
        Ok((!is_wildcard).then_some(target))
    }

    async fn alias(&self, name: &Name) -> Result<Option<Name>, LookupError> {
        let found = self.lookup(name, RecordType::CNAME).await?;
        Ok(found.records.iter().find_map(|r| if let RData::CNAME(to) = &r.data { Some(to.0.clone()) } else { None }))
    }

    /// One that asks the zone's own name servers first, where they can be reached. Nothing but `resolvers` is asked for
    /// the record later, and a primary knows its names better than anybody.
    async fn at_home(&self, at: &Name, port: u16) -> Self {
        if self.servers.is_empty() || self.primary.is_some() {
            return self.clone();
        }
        Self { home: self.home(at, port).await.into_iter().collect(), ..self.clone() }
    }

    /// The first that answers of the name servers of the zone around `at`, whose own name is not asked about.
    pub(super) async fn home(&self, at: &Name, port: u16) -> Option<SocketAddr> {
        timeout(HOME_PATIENCE, self.home_of(at, port)).await.ok().flatten()
    }

    async fn home_of(&self, at: &Name, port: u16) -> Option<SocketAddr> {
        let zone = self.zone_of(&at.base_name()).await.ok()?;
        let mut asking = JoinSet::new();
        for address in authorities(self, &zone, port).await.ok()?.into_iter().flat_map(|witness| witness.addresses) {
            let zone = zone.clone();
            asking.spawn(async move {
                let asked = ask(address, &zone, RecordType::SOA, false, Way::Tcp, HOME_PATIENCE).await;
                asked.is_ok_and(|message| message.authoritative).then_some(address)
            });
        }
        while let Some(answered) = asking.join_next().await {
            if let Ok(Some(address)) = answered {
                return Some(address);
            }
        }
        None
    }
}
