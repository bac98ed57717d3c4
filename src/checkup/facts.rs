//! What was seen of a name.

use std::net::IpAddr;
use std::sync::Arc;

use crate::certificate::Standing;
use crate::clock::UnixTime;
use crate::issuance::Acme;
use crate::issuance::subject::Subject;
use crate::name::DomainName;
use crate::site::SiteSpec;

/// Everything that was seen.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The name.
    pub name: DomainName,
    /// When.
    pub now: UnixTime,
    /// The configuration's word.
    pub serving: Serving,
    /// Whether a process serves it.
    pub process: Process,
    /// What name servers say of it; of a wildcard: of a name under it and of its parent. Empty for an address.
    pub names: Vec<LookedUp>,
    /// Whether an authority finds the TXT record of dns-01 by way of aliases; empty: there are none.
    pub txt_aliases: Vec<String>,
    /// The CAA records that count for what is issued; `None`: not looked at.
    pub caa: Option<Result<Option<CaaRecords>, NoAnswer>>,
    /// Each of its addresses, tried by itself.
    pub ways: Vec<Way>,
    /// The origin; `None`: not looked at.
    pub origin: Option<(String, OriginSeen)>,
    /// The certificates that there are for it; `None`: not served here.
    pub certificates: Option<Certificates>,
}

/// What the configuration says of the name.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// The domain that serves it.
    pub domain: Option<Arc<SiteSpec>>,
    /// The domain whose name is most like it, where none serves it.
    pub nearest: Option<DomainName>,
    /// The domain that serves it once it is approved on demand, and whether it is.
    pub on_demand: Option<(DomainName, Approval)>,
    /// Who issues.
    pub acme: Option<Arc<Acme>>,
    /// What is ordered for it, if anything is.
    pub subject: Option<Arc<Subject>>,
    /// Accounts with authorities.
    pub authorities: Vec<Authority>,
    /// Whether `[listen] http` has anything.
    pub has_http_listener: bool,
    /// Whether `[listen] https` has anything.
    pub has_https_listener: bool,
}

/// Whether a name may be served that nobody configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// By `allow`.
    Allowed,
    /// By whoever answers at this URL.
    Approved(String),
    /// Whoever answers there says no.
    Refused(String),
    /// Nothing that says either came from there.
    Unanswered(String),
}

/// An account with an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The authority's directory URL.
    pub directory: String,
    /// The account's URL (RFC 8657, section 3).
    pub account: String,
}

/// Whether a process answers on the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// It does.
    Runs,
    /// Why it does not.
    Silent(String),
}

/// Why name servers gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// Of which kind it is.
    pub why: Why,
    /// In the words of `dns`.
    pub words: String,
}

/// Kinds of no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL.
    ServerFailed,
    /// Nothing came.
    Silent,
    /// Something else.
    Other,
}

/// What name servers say of one name.
#[derive(Debug, Clone)]
pub struct LookedUp {
    /// The name.
    pub name: String,
    /// What it is to the one that was asked for.
    pub role: Role,
    /// Its addresses.
    pub addresses: Result<Vec<IpAddr>, NoAnswer>,
    /// The names that CNAMEs lead to, one after the other.
    pub aliases: Vec<String>,
}

/// What a name that was looked up is to the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The same.
    Itself,
    /// A name under the wildcard.
    Below,
    /// The wildcard's parent.
    Parent,
}

/// The CAA records that count (RFC 8659, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecords {
    /// The name that has them.
    pub found_at: String,
    /// All of them.
    pub properties: Vec<CaaProperty>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaProperty {
    /// Who does not understand the tag must not issue.
    pub is_critical: bool,
    /// In small letters.
    pub tag: String,
    /// As it stands there.
    pub value: String,
}

/// What answers at one address.
#[derive(Debug, Clone)]
pub struct Way {
    /// The address.
    pub address: IpAddr,
    /// On the port of plain HTTP.
    pub http: Http,
    /// On the port of TLS.
    pub tls: Tls,
}

/// Why a connection did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// Nobody listens.
    Refused,
    /// Nothing came in the time there is.
    Silent,
    /// No way there from this machine, or another error, in the system's words.
    Other(String),
}

/// What answered on the port of plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Http {
    /// The running process.
    Here,
    /// Somebody else.
    Elsewhere {
        /// The status.
        status: u16,
        /// Who it says it is.
        server: Option<String>,
    },
    /// Somebody who does not speak HTTP.
    Garbled,
    /// Nobody.
    Unreached(Unreached),
    /// It was not looked at: nobody is there to compare with.
    NotLooked,
}

/// What answered on the port of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// A certificate.
    Presented(Box<Presented>),
    /// Somebody who did not finish the handshake, in rustls's words.
    Failed(String),
    /// Nobody.
    Unreached(Unreached),
}

/// A certificate on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// What it is for.
    pub names: Vec<DomainName>,
    /// Who issued it.
    pub issuer: String,
    /// The first second at which it is valid.
    pub not_before: UnixTime,
    /// The last second at which it is valid.
    pub not_after: UnixTime,
    /// Whether it is one of those that Lockgate has for the name.
    pub is_ours: bool,
    /// Whether Lockgate made it itself.
    pub is_internal: bool,
    /// How many certificates came with it, itself included.
    pub chain_length: usize,
    /// Whether a root of this machine's vouches for it.
    pub is_trusted: bool,
}

/// What came of asking the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginSeen {
    /// It answered.
    Answered(Answered),
    /// Its name has no address.
    Unresolved(String),
    /// There was no connection.
    Unreached(Unreached),
    /// The handshake failed, in rustls's words.
    Tls(String),
    /// It took the connection and did not answer rightly.
    Garbled,
    /// It took the connection and did not answer in time.
    Mute,
}

/// An origin's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
}

/// The certificates that there are.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Which serves.
    pub standing: Standing,
    /// Who issued that one.
    pub issuer: Option<String>,
    /// Until when a valid one is assured.
    pub guaranteed_until: Option<UnixTime>,
    /// Files that cannot be used.
    pub broken: Vec<Broken>,
    /// What failed since the last success.
    pub failed: Vec<Failed>,
    /// Whether an order is under way.
    pub is_ordered: bool,
    /// Why the inventory could not be looked at.
    pub unreadable: Option<String>,
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What is wrong.
    pub says: String,
    /// What would be right.
    pub remedy: String,
}

/// Attempts to have a certificate issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Whether it is for a standby.
    pub is_standby: bool,
    /// How often.
    pub failures: u32,
    /// When last.
    pub last_at: UnixTime,
    /// Not tried again before.
    pub next_at: UnixTime,
    /// Who was asked: its name in the configuration, or its directory URL.
    pub authority: String,
    /// Its own words.
    pub problem: String,
    /// The one thing to do about it.
    pub advice: String,
}
