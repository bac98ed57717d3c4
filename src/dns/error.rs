//! What goes wrong with name servers, in words that say whose turn it is.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;

/// Why a TXT record is not there, or not gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// What is configured cannot work.
    #[error("{0}")]
    Settings(String),
    /// Name servers did not say what has to be known first.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A zone's primary did not do an update.
    #[error("{}", .why.text(*.server, .zone, .key_name))]
    Update {
        /// The primary.
        server: SocketAddr,
        /// What was to be changed.
        zone: String,
        /// The key that signed.
        key_name: String,
        /// Why not.
        why: UpdateRefusal,
    },
    /// A provider's API did not do it.
    #[error("the DNS API of {provider} did not {verb} the TXT record at {at}: {why}")]
    Api {
        /// Its name in the configuration.
        provider: &'static str,
        /// `set` or `delete`.
        verb: &'static str,
        /// Where.
        at: String,
        /// In its own words where there are any.
        why: String,
    },
    /// The operator's program did not do it.
    #[error("`{program}` did not {verb} the TXT record at {at}: {why}")]
    Exec {
        /// The program.
        program: String,
        /// `present` or `clear`.
        verb: &'static str,
        /// Where.
        at: String,
        /// How it ended, and its first line on standard error.
        why: String,
    },
    /// The record was set, but not all who must have it do.
    #[error(
        "the TXT record at {at} was set, but after {} these name servers do not have it: {}",
        humantime::format_duration(*.after), list(.lacking)
    )]
    NotSeen {
        /// Where.
        at: String,
        /// How long was waited.
        after: Duration,
        /// Who lacks it.
        lacking: Vec<Lacking>,
    },
    /// More records on show than there ever should be.
    #[error("{max} TXT records are on show at once, and no more are set until some are cleared")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

impl DnsError {
    /// Whether it is this one name that cannot be proved so, until somebody changes its zone or what may be changed there:
    /// then another name may be all the same. What a server, an API or a program has failed at says nothing of the name.
    pub fn is_of_name(&self) -> bool {
        match self {
            Self::Lookup(error) => {
                matches!(error.failure, Failure::TooManyAliases | Failure::NoZone | Failure::NotAName)
            }
            Self::Update { why, .. } => {
                matches!(why, UpdateRefusal::Refused | UpdateRefusal::NotAuthoritative | UpdateRefusal::NotInZone(_))
            }
            Self::Settings(_) | Self::Api { .. } | Self::Exec { .. } | Self::NotSeen { .. } | Self::TooMany { .. } => {
                false
            }
        }
    }

    /// Whether a record that was to be set may be there all the same: nobody has said that it is not.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            Self::Update { why, .. } => {
                matches!(why, UpdateRefusal::Failed(_) | UpdateRefusal::Unproven(_) | UpdateRefusal::Code(_))
            }
            Self::Api { .. } | Self::Exec { .. } | Self::NotSeen { .. } => true,
            Self::Settings(_) | Self::Lookup(_) | Self::TooMany { .. } => false,
        }
    }

    /// The one thing to do about it, where the error itself does not say it.
    pub fn advice(&self) -> String {
        match self {
            Self::Lookup(_) if !self.is_of_name() => {
                "let the name server that was asked answer that, or write others as `resolvers`".into()
            }
            Self::Api { provider, .. } => {
                format!("see that the API of {provider} can be reached, and that the credentials may change that zone")
            }
            Self::Exec { program, .. } => {
                format!("run `{program}` by hand with the same words: it must end with 0 when that is done")
            }
            Self::NotSeen { lacking, .. } if lacking.iter().all(|lacking| !lacking.lack.is_answer()) => {
                "see that these name servers can be asked from here, or write others as `resolvers`".into()
            }
            Self::NotSeen { .. } => {
                "see why these name servers do not get the record, or raise `propagation_timeout`".into()
            }
            Self::Lookup(_) | Self::Settings(_) | Self::Update { .. } | Self::TooMany { .. } => String::new(),
        }
    }
}

/// Them all in one line.
pub(super) fn list(lacking: &[Lacking]) -> String {
    lacking.iter().map(Lacking::to_string).collect::<Vec<_>>().join("; ")
}

/// One name server that must have a record and has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Its name, or its address where it is known by that.
    pub server: String,
    /// Which of its addresses was asked last; `None`: it has none.
    pub address: Option<SocketAddr>,
    /// What it said.
    pub lack: Lack,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)?;
        if let Some(address) = self.address.map(|address| address.to_string()).filter(|a| *a != self.server) {
            write!(f, " ({address})")?;
        }
        write!(f, ": {}", self.lack)
    }
}

/// What a name server said instead of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    /// No TXT record at that name.
    Nothing,
    /// So many TXT records there, none of them the one.
    Others(usize),
    /// No answer that counts.
    Failed(Failure),
    /// Its own name has no address.
    NoAddress,
    /// Time was up before it had answered.
    NotAsked,
}

impl Lack {
    /// Whether the server has said what it has: the others' word does not stand for it then.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Nothing | Self::Others(_))
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no TXT record there"),
            Self::Others(1) => f.write_str("one other value there"),
            Self::Others(n) => write!(f, "{n} other values there"),
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::NoAddress => f.write_str("it has no address: is the delegation right?"),
            Self::NotAsked => f.write_str("it had not answered when time was up"),
        }
    }
}

/// Name servers did not say what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {name}: {failure}{}", what(*.record_type), asked(*.server))]
pub struct LookupError {
    /// What was asked for.
    pub name: String,
    /// And which records of it.
    pub record_type: RecordType,
    /// Who was asked; `None`: nobody, or several.
    pub server: Option<SocketAddr>,
    /// Why there is no answer.
    pub failure: Failure,
}

/// Addresses are what people call A and AAAA records; the others go by their type.
fn what(record_type: RecordType) -> String {
    match record_type {
        RecordType::A => "the IPv4 addresses".into(),
        RecordType::AAAA => "the IPv6 addresses".into(),
        RecordType::SOA => "the zone".into(),
        RecordType::NS => "the name servers".into(),
        RecordType::CNAME => "the alias (CNAME)".into(),
        other => format!("the {other} records"),
    }
}

fn asked(server: Option<SocketAddr>) -> String {
    server.map(|server| format!(" (asked {server})")).unwrap_or_default()
}

/// Why a name server's answer is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// NXDOMAIN (RFC 8020): neither the name nor anything below it.
    NoSuchName,
    /// SERVFAIL.
    ServerFailed,
    /// REFUSED.
    Refused,
    /// Nothing came in this time.
    Silent(Duration),
    /// The operating system's word: nobody listens, no route.
    Unreachable(String),
    /// It knows only its own zones, and this name is in none of them.
    NoResolver,
    /// Not a DNS message, or not the answer to the question.
    Garbled(String),
    /// More CNAMEs one after the other than anyone follows.
    TooManyAliases,
    /// Another response code (RFC 6895, section 2.3), by its name.
    Code(String),
    /// What was asked for is not a domain name.
    NotAName,
    /// The system's list of name servers cannot be read, or is empty.
    NoServers(String),
    /// No zone above it, up to the root.
    NoZone,
}

impl Failure {
    /// What a response code says of a question; `None`: nothing is wrong.
    pub(super) fn of_code(code: ResponseCode) -> Option<Self> {
        match code {
            ResponseCode::NoError => None,
            ResponseCode::NXDomain => Some(Self::NoSuchName),
            ResponseCode::ServFail => Some(Self::ServerFailed),
            ResponseCode::Refused => Some(Self::Refused),
            other => Some(Self::Code(code_name(other))),
        }
    }
}

/// A response code as RFCs and `dig` write it.
pub(super) fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Unknown(number) => format!("response code {number}"),
        other => format!("{other:?}").to_uppercase(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("the name does not exist (NXDOMAIN)"),
            Self::ServerFailed => f.write_str(
                "the name server failed (SERVFAIL): the zone's own servers do not answer, or its DNSSEC is broken",
            ),
            Self::Refused => f.write_str("the name server refused to answer (REFUSED)"),
            Self::Silent(after) => write!(f, "no answer within {}", humantime::format_duration(*after)),
            Self::Unreachable(why) => write!(f, "the name server cannot be reached: {why}"),
            Self::NoResolver => f.write_str("the name server knows only its own zones and asks no others"),
            Self::Garbled(why) => write!(f, "what came is no answer to the question: {why}"),
            Self::TooManyAliases => f.write_str("too many CNAMEs one after the other: do they go round in a circle?"),
            Self::Code(code) => write!(f, "the name server answered {code}"),
            Self::NotAName => f.write_str("this is not a domain name"),
            Self::NoServers(why) => write!(f, "the system's name servers are not known: {why}"),
            Self::NoZone => f.write_str("no zone holds this name"),
        }
    }
}

/// Why a zone's primary did not do an update (RFC 2136, section 3.8; RFC 8945, section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateRefusal {
    /// It was not reached, or did not answer.
    Failed(Failure),
    /// REFUSED: its policy.
    Refused,
    /// NOTAUTH: not its zone.
    NotAuthoritative,
    /// NOTZONE: the name is not in the zone.
    NotInZone(String),
    /// BADKEY: no such key.
    UnknownKey {
        /// With which algorithm it was used.
        algorithm: &'static str,
    },
    /// BADSIG: the key is known, the secret another.
    WrongSecret,
    /// BADTIME: the server's clock is so many seconds ahead of ours (behind, if negative); `None`: it does not say.
    WrongTime {
        /// Server minus us.
        ahead_secs: Option<i64>,
    },
    /// The answer does not prove that it comes from who has the key.
    Unproven(String),
    /// Another response code, by its name.
    Code(String),
}

impl UpdateRefusal {
    fn text(&self, server: SocketAddr, zone: &str, key: &str) -> String {
        match self {
            Self::Failed(failure) => {
                format!("the update of {zone} at the server {server} failed: {failure}")
            }
            Self::Refused => format!(
                "the server {server} refused the update (REFUSED): is the key `{key}` allowed to update TXT records of {zone}?"
            ),
            Self::NotAuthoritative => format!(
                "the server {server} does not hold the zone {zone} (NOTAUTH): `server` must be the zone's primary"
            ),
            Self::NotInZone(name) => {
                format!("the server {server} says that {name} is not in the zone {zone} (NOTZONE)")
            }
            Self::UnknownKey { algorithm } => format!(
                "the server {server} does not know a key `{key}` for {algorithm} (BADKEY): name and algorithm must be the \
                 ones in its configuration"
            ),
            Self::WrongSecret => format!(
                "the server {server} knows the key `{key}`, but with another secret (BADSIG): compare the two, and whether \
                 ours is whole and base64"
            ),
            Self::WrongTime { ahead_secs: Some(secs) } => {
                let side = if *secs < 0 { "behind" } else { "ahead of" };
                format!(
                    "the server {server} does not accept our time (BADTIME): its clock is {} s {side} ours; set the wrong \
                     one right",
                    secs.unsigned_abs()
                )
            }
            Self::WrongTime { ahead_secs: None } => {
                format!("the server {server} does not accept our time (BADTIME): compare the two clocks")
            }
            Self::Unproven(why) => format!(
                "the answer that came from {server} is not signed with the key `{key}` ({why}): whether {zone} was updated \
                 is not known"
            ),
            Self::Code(code) => format!("the server {server} did not update {zone}: {code}"),
        }
    }
}
