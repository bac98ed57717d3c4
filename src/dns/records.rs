//! TXT records that are set for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::error::{DnsError, Lack, Lacking};
use super::exec;
use super::propagation::{Witness, authorities, wait};
use super::provider::Api;
use super::resolver::{Resolver, parse};
use super::tsig::Key;
use super::update::{Primary, plain};
use crate::clock;
use crate::issuance::{Dns, DnsProvider};
use crate::secret::SecretSource;

/// Records on show at once: far more than orders are ever under way.
const ON_SHOW_MAX: usize = 10_000;
/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// Has TXT records set and cleared by one provider, and sees that they are there.
///
/// One for each [`Dns`], shared by all who use it: it is what keeps two orders at one name from erasing each other's
/// values.
pub struct TxtRecords {
    provider: Provider,
    resolver: Resolver,
    /// Whom to ask whether a record is there; empty: the zone's own name servers.
    witnesses: Vec<Witness>,
    propagation_timeout: Duration,
    ttl_secs: u32,
    /// Where the zones' own name servers listen; tests have none on the usual one.
    port: u16,
    shelves: Mutex<HashMap<String, Arc<AsyncMutex<Shelf>>>>,
}

enum Provider {
    Update(Box<Primary>),
    Api(Box<Api>),
    Exec { command: Vec<String>, patience: Duration },
}

/// How often each value at each name is on show: who clears one leaves it to whoever else wants the same.
type Shelf = HashMap<(String, String), usize>;

/// A value on show. All that has to be known to clear it, by another process too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What was asked for: `_acme-challenge.example.com`.
    pub name: String,
    /// Where the record really is: where CNAMEs lead from there.
    pub at: String,
    /// The zone that holds it.
    pub zone: String,
    /// The value.
    pub value: String,
}

impl TxtRecords {
    /// Gets ready to have records set as `dns` says. Asks nobody yet.
    ///
    /// `secrets` reads a secret, white space at its end removed; its error says what cannot be read and why.
    pub fn open(
        dns: &Dns,
        secrets: impl Fn(&SecretSource) -> Result<Zeroizing<Vec<u8>>, String>,
    ) -> Result<Self, DnsError> {
        let mut resolver = Resolver::new(&dns.resolvers);
        let provider = match &dns.provider {
            DnsProvider::Rfc2136 { server, key_name, key_algorithm, key } => {
                let secret = secrets(key).map_err(DnsError::Settings)?;
                let key = Key::new(key_name, key_algorithm, &secret).map_err(DnsError::Settings)?;
                resolver = Resolver::beside(&dns.resolvers, *server);
                Provider::Update(Box::new(Primary { server: *server, key, now: clock::now }))
            }
            DnsProvider::Api { name, settings, secrets: sources } => {
                let mut read = vec![];
                for (key, source) in sources {
                    let secret = secrets(source).map_err(DnsError::Settings)?;
                    read.push((key.clone(), secret));
                }
                Provider::Api(Box::new(Api::open(name, settings, read).map_err(DnsError::Settings)?))
            }
            DnsProvider::Exec { command, .. } if command.is_empty() => {
                return Err(DnsError::Settings("`command` is empty: it needs a program".into()));
            }
            DnsProvider::Exec { command, timeout } => Provider::Exec { command: command.clone(), patience: *timeout },
        };
        let witness = |&address| Witness { server: format!("{address}"), addresses: vec![address], recursion: true };
        Ok(Self {
            provider,
            resolver,
            witnesses: dns.resolvers.iter().map(witness).collect(),
            propagation_timeout: dns.propagation_timeout,
            ttl_secs: u32::try_from(dns.ttl.as_secs()).unwrap_or(u32::MAX).min(i32::MAX as u32),
            port: DNS_PORT,
            shelves: Mutex::default(),
        })
    }

    /// Adds `value` to the TXT records at `name`, or where CNAMEs delegate it to. Others there stay: a wildcard and its
    /// parent are validated at the same name at once.
    pub async fn present(&self, name: &str, value: &str) -> Result<Shown, DnsError> {
        let at = self.resolver.follow(&parse(name, RecordType::TXT)?).await?;
        let zone = self.resolver.zone_of(&at).await?;
        let shown = Shown { name: name.into(), at: plain(&at), zone: plain(&zone), value: value.into() };
        let shelf = self.shelf(&shown)?;
        let mut shelf = shelf.lock().await;
        if let Some(count) = shelf.get_mut(&shown.key()) {
            *count += 1;
            return Ok(shown);
        }
        match &self.provider {
            Provider::Update(primary) => primary.add(&zone, &at, value, self.ttl_secs).await?,
            Provider::Api(api) => api.add(&shown, self.ttl_secs).await?,
            Provider::Exec { command, patience } => {
                exec::run(command, "present", &shown.at, value, *patience).await?;
            }
        }
        shelf.insert(shown.key(), 1);
        Ok(shown)
    }

    /// Waits until every name server of the zone has what is `shown`, or every one of `resolvers` where there are any.
    /// The error says which do not have it when the time for it is up.
    pub async fn wait_until_seen(&self, shown: &Shown) -> Result<(), DnsError> {
        let deadline = Instant::now() + self.propagation_timeout;
        let (at, zone) = (parse(&shown.at, RecordType::TXT)?, parse(&shown.zone, RecordType::NS)?);
        let not_seen = |lacking| DnsError::NotSeen { at: shown.at.clone(), after: self.propagation_timeout, lacking };
        let witnesses = if self.witnesses.is_empty() {
            match timeout_at(deadline, authorities(&self.resolver, &zone, self.port)).await {
                Ok(found) => found?,
                Err(_) => {
                    let server = format!("the name servers of {}", shown.zone);
                    return Err(not_seen(vec![Lacking { server, address: None, lack: Lack::NotAsked }]));
                }
            }
        } else {
            self.witnesses.clone()
        };
        wait(witnesses, &at, &shown.value, deadline).await.map_err(not_seen)
    }

    /// Takes away the value that is `shown`, and no other. It is no error if it is gone already.
    pub async fn clear(&self, shown: &Shown) -> Result<(), DnsError> {
        let (at, zone) = (parse(&shown.at, RecordType::TXT)?, parse(&shown.zone, RecordType::SOA)?);
        let shelf = self.shelf(shown)?;
        let mut shelf = shelf.lock().await;
        if let Some(count) = shelf.get_mut(&shown.key()).filter(|count| **count > 1) {
            *count -= 1;
            return Ok(());
        }
        // What another process left is cleared, too.
        shelf.remove(&shown.key());
        match &self.provider {
            Provider::Update(primary) => primary.delete(&zone, &at, &shown.value).await,
            Provider::Api(api) => api.delete(shown).await,
            Provider::Exec { command, patience } => {
                exec::run(command, "clear", &shown.at, &shown.value, *patience).await
            }
        }
    }

    /// Where the values are that must not be changed at the same time. APIs may read a whole zone and write it back.
    fn shelf(&self, shown: &Shown) -> Result<Arc<AsyncMutex<Shelf>>, DnsError> {
        let key = if matches!(self.provider, Provider::Api(_)) { &shown.zone } else { &shown.at };
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves
            .retain(|_, shelf| Arc::strong_count(shelf) > 1 || shelf.try_lock().is_ok_and(|shelf| !shelf.is_empty()));
        if shelves.len() >= ON_SHOW_MAX && !shelves.contains_key(key) {
            return Err(DnsError::TooMany { max: ON_SHOW_MAX });
        }
        Ok(Arc::clone(shelves.entry(key.clone()).or_default()))
    }
}

impl Shown {
    fn key(&self) -> (String, String) {
        (self.at.clone(), self.value.clone())
    }
}

#[cfg(test)]
impl TxtRecords {
    /// Zones' own name servers listen on `port`, and who knows them are `servers`.
    pub(super) fn in_a_world_of(mut self, servers: &[std::net::SocketAddr], port: u16) -> Self {
        self.resolver = match &self.provider {
            Provider::Update(primary) => Resolver::beside(servers, primary.server),
            _ => Resolver::new(servers),
        };
        self.port = port;
        self
    }

    pub(super) fn with_clock(mut self, now: fn() -> clock::UnixTime) -> Self {
        if let Provider::Update(primary) = &mut self.provider {
            primary.now = now;
        }
        self
    }
}
