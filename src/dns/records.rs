//! TXT records that are set for a while.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::error::{DnsError, Lack, Lacking, list};
use super::exec;
use super::propagation::{SILENCE_MIN, Witness, authorities, wait};
use super::provider::{Api, CALL_TIMEOUT};
use super::resolver::{Resolver, parse};
use super::shelves::{Claimed, Shelf, Shelves};
use super::tsig::Key;
use super::update::{Primary, UPDATE_TIMEOUT, plain};
use crate::clock;
use crate::issuance::{Dns, DnsProvider};
use crate::secret::SecretSource;

/// Where name servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// Has TXT records set and cleared by one provider, and sees that they are there.
pub struct TxtRecords {
    provider: Provider,
    /// Says which provider that is, however else it is spoken to.
    identity: String,
    resolver: Resolver,
    /// Whom to ask whether a record is there; empty: the zone's own name servers.
    witnesses: Vec<Witness>,
    propagation_timeout: Duration,
    /// How long those that do not answer are asked.
    silence_min: Duration,
    ttl_secs: u32,
    /// Where the zones' own name servers listen; tests have none on the usual one.
    port: u16,
    shelves: Arc<Shelves>,
}

enum Provider {
    Update(Box<Primary>),
    Api(Box<Api>),
    Exec { command: Vec<String>, patience: Duration },
}

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
    /// `secrets` reads a secret, white space at its end removed; its error says what cannot be read and why. All that are
    /// open at the same time must have the same `shelves`.
    pub fn open(
        dns: &Dns,
        shelves: Arc<Shelves>,
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
        let identity = match &dns.provider {
            DnsProvider::Rfc2136 { server, .. } => format!("rfc2136 {server}"),
            DnsProvider::Api { name, settings, .. } => format!("{name} {settings:?}"),
            DnsProvider::Exec { command, .. } => format!("exec {command:?}"),
        };
        Ok(Self {
            provider,
            identity,
            resolver,
            witnesses: dns.resolvers.iter().map(witness).collect(),
            propagation_timeout: dns.propagation_timeout,
            silence_min: SILENCE_MIN,
            ttl_secs: u32::try_from(dns.ttl.as_secs()).unwrap_or(u32::MAX).min(i32::MAX as u32),
            port: DNS_PORT,
            shelves,
        })
    }

    /// The longest that it takes to have one record set, or cleared.
    pub fn call_timeout(dns: &Dns) -> Duration {
        match &dns.provider {
            DnsProvider::Rfc2136 { .. } => UPDATE_TIMEOUT,
            DnsProvider::Api { .. } => CALL_TIMEOUT,
            DnsProvider::Exec { timeout, .. } => *timeout,
        }
    }

    /// Finds out where `value` has to be among the TXT records to be found at `name`. Nothing is changed yet.
    pub async fn place(&self, name: &str, value: &str) -> Result<Shown, DnsError> {
        let (at, zone) = self.resolver.place(&parse(name, RecordType::TXT)?, self.port).await?;
        Ok(Shown { name: name.into(), at: plain(&at), zone: plain(&zone), value: value.into() })
    }

    /// Adds the value to the TXT records there. Others there stay: a wildcard and its parent are validated at the same
    /// name at once.
    ///
    /// Whatever becomes of it, [`Self::clear`] has to follow: what failed, or was not waited for, may be done all the
    /// same.
    pub async fn set(&self, shown: &Shown) -> Result<(), DnsError> {
        let (shelf, claimed) = (self.shelf(shown)?, self.claimed(shown));
        let mut shelf = shelf.lock().await;
        if shelf.claim(&claimed) {
            return Ok(());
        }
        let done = self.add(shown).await;
        match &done {
            Ok(()) => shelf.note_set(&claimed),
            Err(error) if !error.leaves_doubt() => _ = shelf.give_up(&claimed),
            Err(_) => {}
        }
        done
    }

    /// When the time is up for records that are all set now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.propagation_timeout
    }

    /// Waits until the name servers of the zone have what is `shown`, or `resolvers` where there are any: all that
    /// answer, and one at least. The error says which do not have it at the deadline.
    pub async fn wait_until_seen(&self, shown: &Shown, deadline: Instant) -> Result<(), DnsError> {
        let (zone, at) = shown.names()?;
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
            self.wait_at_home(&at, &zone, &shown.value, deadline).await;
            self.witnesses.clone()
        };
        let seen = wait(witnesses, &at, &shown.value, deadline, self.silence_min).await;
        let silent = seen.map_err(not_seen)?;
        if !silent.is_empty() {
            tracing::warn!(
                "the TXT record at {} is there, but these name servers do not answer, and are passed over: {}",
                shown.at,
                list(&silent)
            );
        }
        Ok(())
    }

    /// Waits until the zone's own name servers have it, where one can be reached: a resolver with a cache that is asked
    /// too early remembers that there is nothing. Where they show others another zone, half of the time is left.
    async fn wait_at_home(&self, at: &Name, zone: &Name, value: &str, deadline: Instant) {
        let half = deadline - deadline.saturating_duration_since(Instant::now()) / 2;
        let looking = async {
            if self.resolver.home(at, self.port).await.is_some()
                && let Ok(witnesses) = authorities(&self.resolver, zone, self.port).await
            {
                _ = wait(witnesses, at, value, half, self.silence_min).await;
            }
        };
        _ = timeout_at(half, looking).await;
    }

    /// Takes away the value that is `shown`, and no other, unless it was never set or somebody else wants it there.
    pub async fn clear(&self, shown: &Shown) -> Result<(), DnsError> {
        let (shelf, claimed) = (self.shelf(shown)?, self.claimed(shown));
        let mut shelf = shelf.lock().await;
        if shelf.give_up(&claimed) { self.delete(shown).await } else { Ok(()) }
    }

    /// The same for a value that nobody wants any more, and that was left: by a [`Self::clear`] that failed, or by another
    /// process. It is no error if it is gone already.
    pub async fn sweep(&self, shown: &Shown) -> Result<(), DnsError> {
        let (shelf, claimed) = (self.shelf(shown)?, self.claimed(shown));
        let shelf = shelf.lock().await;
        if shelf.is_claimed(&claimed) { Ok(()) } else { self.delete(shown).await }
    }

    async fn add(&self, shown: &Shown) -> Result<(), DnsError> {
        match &self.provider {
            Provider::Update(primary) => {
                let (zone, at) = shown.names()?;
                primary.add(&zone, &at, &shown.value, self.ttl_secs).await
            }
            Provider::Api(api) => api.add(shown, self.ttl_secs).await,
            Provider::Exec { command, patience } => {
                exec::run(command, "present", &shown.at, &shown.value, *patience).await
            }
        }
    }

    async fn delete(&self, shown: &Shown) -> Result<(), DnsError> {
        match &self.provider {
            Provider::Update(primary) => {
                let (zone, at) = shown.names()?;
                primary.delete(&zone, &at, &shown.value).await
            }
            Provider::Api(api) => api.delete(shown).await,
            Provider::Exec { command, patience } => {
                exec::run(command, "clear", &shown.at, &shown.value, *patience).await
            }
        }
    }

    /// Where the values are that must not be changed at the same time. APIs may read a whole zone and write it back,
    /// whoever's credentials they are given.
    fn shelf(&self, shown: &Shown) -> Result<Arc<Mutex<Shelf>>, DnsError> {
        self.shelves.at(&match &self.provider {
            Provider::Api(api) => format!("{} {}", api.name(), shown.zone),
            Provider::Update(_) | Provider::Exec { .. } => shown.at.clone(),
        })
    }

    fn claimed(&self, shown: &Shown) -> Claimed {
        (self.identity.clone(), shown.at.clone(), shown.value.clone())
    }
}

impl Shown {
    /// Its zone, and where it is, as name servers know them.
    fn names(&self) -> Result<(Name, Name), DnsError> {
        Ok((parse(&self.zone, RecordType::SOA)?, parse(&self.at, RecordType::TXT)?))
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

    /// The same with zones' own name servers on `port`, found by the resolvers that it has.
    pub(super) fn with_zones_at(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Name servers that do not answer are passed over after so long.
    pub(super) fn with_silence_of(self, silence_min: Duration) -> Self {
        Self { silence_min, ..self }
    }

    /// Finds the place, and sets the value there.
    pub(super) async fn present(&self, name: &str, value: &str) -> Result<Shown, DnsError> {
        let shown = self.place(name, value).await?;
        self.set(&shown).await?;
        Ok(shown)
    }

    /// Waits as long as the configuration says.
    pub(super) async fn seen(&self, shown: &Shown) -> Result<(), DnsError> {
        self.wait_until_seen(shown, self.deadline()).await
    }

    pub(super) fn with_clock(mut self, now: fn() -> clock::UnixTime) -> Self {
        if let Provider::Update(primary) = &mut self.provider {
            primary.now = now;
        }
        self
    }
}
