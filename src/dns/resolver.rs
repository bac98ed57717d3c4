//! What the world's name servers say.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::timeout;

use super::error::{Failure, LookupError};
use super::exchange::{Way, ask};
use super::update::plain;

/// How long a question may take, with all that has to be asked for it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one of several name servers may take at least.
const SERVER_PATIENCE_MIN: Duration = Duration::from_secs(1);
/// Name servers asked one after the other; resolv.conf(5) has three at most.
const SERVERS_MAX: usize = 5;
/// CNAMEs followed one after the other, as most resolvers do.
pub(super) const ALIASES_MAX: usize = 8;
/// Name servers of a zone that are looked at; the root has thirteen.
pub(super) const ZONE_SERVERS_MAX: usize = 16;

/// Asks name servers, and remembers nothing.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    /// Whom to ask in this order; empty: the system's, read anew each time because networks change.
    pub(super) servers: Vec<SocketAddr>,
    /// A server that is asked first, and believed where it is authoritative: the world may not know its zones yet.
    pub(super) primary: Option<SocketAddr>,
    /// A zone's own servers, asked first in the same way; if they fail, others are asked.
    pub(super) home: Vec<SocketAddr>,
}

/// One property of a CAA record (RFC 8659, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caa {
    /// Who does not understand the tag must not issue.
    pub is_critical: bool,
    /// `issue`, `issuewild`, `iodef` ..., in small letters: case does not count (section 4.1).
    pub tag: String,
    /// As it stands there; what is not UTF-8 replaced.
    pub value: String,
}

/// The CAA records that count for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaSet {
    /// The name that has them: the one asked for or one above it.
    pub found_at: String,
    /// Never empty.
    pub records: Vec<Caa>,
}

/// A zone, by its apex and the names of its name servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The apex.
    pub name: String,
    /// As its NS records say.
    pub servers: Vec<String>,
}

/// What was found at a name, CNAMEs followed.
pub(super) struct Found {
    /// The names that CNAMEs led to, one after the other.
    chain: Vec<Name>,
    /// Where the chain ends.
    end: Name,
    /// The records there; empty if there are none of that type.
    pub(super) records: Vec<Record>,
    /// False: NXDOMAIN.
    exists: bool,
    /// The zone that says so (RFC 2308, section 3).
    soa: Option<Name>,
}

impl Resolver {
    /// One that asks `servers` in this order, and the system's name servers if there are none.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec(), ..Self::default() }
    }

    /// One that asks `primary` first.
    pub(super) fn beside(servers: &[SocketAddr], primary: SocketAddr) -> Self {
        Self { primary: Some(primary), ..Self::new(servers) }
    }

    /// The addresses of `name`. It is no error if it has none of a kind, or of both: then it exists without them.
    pub async fn addresses(&self, name: &str) -> Result<(Vec<Ipv4Addr>, Vec<Ipv6Addr>), LookupError> {
        let of = |record_type| async move {
            within(name, record_type, async { self.existing(&parse(name, record_type)?, record_type).await }).await
        };
        let (v4, v6) = tokio::join!(of(RecordType::A), of(RecordType::AAAA));
        let (v4, v6) = (v4?.records, v6?.records);
        let v4 = v4.iter().filter_map(|r| if let RData::A(a) = &r.data { Some(a.0) } else { None });
        let v6 = v6.iter().filter_map(|r| if let RData::AAAA(a) = &r.data { Some(a.0) } else { None });
        Ok((v4.collect(), v6.collect()))
    }

    /// The CAA records that count for `name` (RFC 8659, section 3): its own, or else of the nearest name above that
    /// has any. A wildcard's are those of its parent. `None`: anybody may issue.
    pub async fn caa(&self, name: &str) -> Result<Option<CaaSet>, LookupError> {
        let climbing = async {
            let mut at = parse(name.strip_prefix("*.").unwrap_or(name), RecordType::CAA)?;
            while !at.is_root() {
                // A name that does not exist has none, and those above it count all the same.
                let found = self.lookup(&at, RecordType::CAA).await?;
                let records: Vec<_> = found.records.iter().filter_map(caa).collect();
                if !records.is_empty() {
                    return Ok(Some(CaaSet { found_at: plain(&at), records }));
                }
                at = at.base_name();
            }
            Ok(None)
        };
        within(name, RecordType::CAA, climbing).await
    }

    /// The TXT records of `name`, the strings of each joined; what is not UTF-8 is replaced.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, LookupError> {
        within(name, RecordType::TXT, async {
            let found = self.existing(&parse(name, RecordType::TXT)?, RecordType::TXT).await?;
            Ok(texts(&found.records))
        })
        .await
    }

    /// The names that CNAMEs lead to from `name`, one after the other; empty if it is no alias.
    pub async fn cname_chain(&self, name: &str) -> Result<Vec<String>, LookupError> {
        within(name, RecordType::CNAME, async {
            let found = self.lookup(&parse(name, RecordType::CNAME)?, RecordType::A).await?;
            if !found.exists && found.chain.is_empty() {
                return Err(error(&found.end, RecordType::CNAME, None, Failure::NoSuchName));
            }
            Ok(found.chain.iter().map(plain).collect())
        })
        .await
    }

    /// The zone that holds `name`, and who serves it.
    pub async fn name_servers(&self, name: &str) -> Result<Zone, LookupError> {
        within(name, RecordType::NS, async {
            let zone = self.zone_of(&parse(name, RecordType::NS)?).await?;
            let servers = self.servers_of(&zone).await?;
            Ok(Zone { name: plain(&zone), servers: servers.iter().map(plain).collect() })
        })
        .await
    }

    /// The apex of the zone that holds `name`, which is no alias: whose SOA is asked for, upwards.
    pub(super) async fn zone_of(&self, name: &Name) -> Result<Name, LookupError> {
        let mut at = name.clone();
        while !at.is_root() {
            let found = self.lookup(&at, RecordType::SOA).await?;
            if found.chain.is_empty() {
                if !found.records.is_empty() {
                    return Ok(at);
                }
                // Who says that there is nothing names the zone that he says it for.
                if let Some(zone) = found.soa.filter(|zone| zone.zone_of(&at) && !zone.is_root()) {
                    return Ok(zone);
                }
            }
            at = at.base_name();
        }
        Err(error(name, RecordType::SOA, None, Failure::NoZone))
    }

    /// The name servers of `zone`, [`ZONE_SERVERS_MAX`] at most; none is an error.
    pub(super) async fn servers_of(&self, zone: &Name) -> Result<Vec<Name>, LookupError> {
        let found = self.existing(zone, RecordType::NS).await?;
        let servers = found.records.iter();
        let servers = servers.filter_map(|r| if let RData::NS(ns) = &r.data { Some(ns.0.clone()) } else { None });
        let servers: Vec<_> = servers.take(ZONE_SERVERS_MAX).collect();
        if servers.is_empty() {
            return Err(error(zone, RecordType::NS, None, Failure::NoZone));
        }
        Ok(servers)
    }

    async fn existing(&self, name: &Name, record_type: RecordType) -> Result<Found, LookupError> {
        let found = self.lookup(name, record_type).await?;
        if found.exists { Ok(found) } else { Err(error(&found.end, record_type, None, Failure::NoSuchName)) }
    }

    pub(super) async fn lookup(&self, name: &Name, record_type: RecordType) -> Result<Found, LookupError> {
        let mut found = Found { chain: vec![], end: name.clone(), records: vec![], exists: true, soa: None };
        loop {
            let length = found.chain.len();
            let message = self.ask_any(&found.end, record_type).await?;
            found.take(&message, record_type);
            if found.chain.len() > ALIASES_MAX {
                return Err(error(name, record_type, None, Failure::TooManyAliases));
            }
            // A server that resolves has followed the aliases; one that does not knows perhaps only the first.
            if !found.records.is_empty() || !found.exists || found.chain.len() == length {
                return Ok(found);
            }
        }
    }

    async fn ask_any(&self, name: &Name, record_type: RecordType) -> Result<Message, LookupError> {
        if let Some(primary) = self.primary {
            let asked = ask(primary, name, record_type, false, Way::Tcp, LOOKUP_TIMEOUT).await;
            // Whoever does not answer this will not do an update either: better to say so than to wait for others.
            let message = asked.map_err(|failure| error(name, record_type, Some(primary), failure))?;
            if message.authoritative && is_answer(&message) {
                return Ok(message);
            }
        }
        for server in &self.home {
            match ask(*server, name, record_type, false, Way::Tcp, SERVER_PATIENCE_MIN).await {
                Ok(message) if message.authoritative && is_answer(&message) => return Ok(message),
                _ => {}
            }
        }
        let servers = self.servers().map_err(|failure| error(name, record_type, None, failure))?;
        let share = LOOKUP_TIMEOUT / u32::try_from(servers.len()).unwrap_or(1).max(1);
        let mut failed = None;
        for server in servers {
            let asked = ask(server, name, record_type, true, Way::Usual, share.max(SERVER_PATIENCE_MIN)).await;
            let failure = match asked {
                Ok(message) if !message.authoritative && !message.recursion_available && is_answer(&message) => {
                    Failure::NoResolver
                }
                Ok(message) if is_answer(&message) => return Ok(message),
                Ok(message) => Failure::of_code(message.response_code).unwrap_or(Failure::ServerFailed),
                Err(failure) => failure,
            };
            // What one of them said tells more than that another said nothing.
            let is_silent = matches!(failure, Failure::Silent(_) | Failure::Unreachable(_));
            if failed.is_none() || !is_silent {
                failed = Some((server, failure));
            }
        }
        let (server, failure) = match failed {
            Some((server, failure)) => (Some(server), failure),
            None => (None, Failure::NoServers("the list is empty".into())),
        };
        Err(error(name, record_type, server, failure))
    }

    fn servers(&self) -> Result<Vec<SocketAddr>, Failure> {
        if !self.servers.is_empty() {
            return Ok(self.servers.iter().copied().take(SERVERS_MAX).collect());
        }
        let (config, _) = read_system_conf().map_err(|error| Failure::NoServers(error.to_string()))?;
        let servers = config.name_servers().iter();
        let servers = servers.filter_map(|server| Some(SocketAddr::new(server.ip, server.connections.first()?.port)));
        Ok(servers.take(SERVERS_MAX).collect())
    }
}

impl Found {
    fn take(&mut self, message: &Message, record_type: RecordType) {
        if record_type != RecordType::CNAME {
            while let Some(target) = message.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == self.end => Some(target.0.clone()),
                _ => None,
            }) {
                self.chain.push(target.clone());
                self.end = target;
                if self.chain.len() > ALIASES_MAX {
                    return;
                }
            }
        }
        let here = |record: &&Record| record.name == self.end && record.record_type() == record_type;
        self.records = message.answers.iter().filter(here).cloned().collect();
        self.exists = message.response_code != ResponseCode::NXDomain;
        self.soa = message.authorities.iter().find(|r| r.record_type() == RecordType::SOA).map(|r| r.name.clone());
    }
}

fn is_answer(message: &Message) -> bool {
    matches!(message.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn caa(record: &Record) -> Option<Caa> {
    let RData::CAA(caa) = &record.data else { return None };
    let value = String::from_utf8_lossy(&caa.value).into_owned();
    Some(Caa { is_critical: caa.issuer_critical, tag: caa.tag.to_ascii_lowercase(), value })
}

/// The TXT records among `records`, the strings of each joined.
pub(super) fn texts(records: &[Record]) -> Vec<String> {
    let texts = records.iter().filter_map(|r| if let RData::TXT(txt) = &r.data { Some(txt) } else { None });
    texts.map(|txt| String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()).collect()
}

/// `name` as name servers know it.
pub(super) fn parse(name: &str, record_type: RecordType) -> Result<Name, LookupError> {
    let parsed = Name::from_ascii(name).ok().filter(|parsed| !parsed.is_root() && !name.is_empty());
    let Some(mut parsed) = parsed else {
        return Err(LookupError { name: name.into(), record_type, server: None, failure: Failure::NotAName });
    };
    parsed.set_fqdn(true);
    Ok(parsed)
}

pub(super) fn error(name: &Name, record_type: RecordType, server: Option<SocketAddr>, failure: Failure) -> LookupError {
    LookupError { name: plain(name), record_type, server, failure }
}

async fn within<T>(
    name: &str,
    record_type: RecordType,
    asking: impl Future<Output = Result<T, LookupError>>,
) -> Result<T, LookupError> {
    let failure = Failure::Silent(LOOKUP_TIMEOUT);
    let late = |_| LookupError { name: name.into(), record_type, server: None, failure };
    timeout(LOOKUP_TIMEOUT, asking).await.map_err(late)?
}
