//! The configuration file: read, checked whole, and turned into what the rules speak of.
//!
//! ```text
//! load         the way through: file, includes, top level
//! keys         every key there is
//! reader       takes values out of tables and reports what is unknown, missing or of the wrong kind
//! values       durations, sizes, addresses, words
//! listen limits domain origin include     the parts of the file
//! acme authority dns on_demand group vault     the parts that say who issues certificates, and who opens their keys
//! secret command url     files and variables that hold secrets, programs, those who are asked
//! notes        what is right but may not be meant
//! problems     gathers what is wrong, so that all of it is reported together
//! diagnostic   one thing wrong, and how it is shown
//! source       files, lines, places
//! ```

mod acme;
mod authority;
mod command;
mod diagnostic;
mod dns;
mod domain;
mod group;
mod include;
mod keys;
mod limits;
mod listen;
mod load;
mod notes;
mod on_demand;
mod origin;
mod pieces;
mod problems;
mod reader;
mod secret;
mod source;
#[cfg(test)]
mod tests;
mod url;
mod values;
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;

use crate::access::Format;
use crate::certificate::PairPaths;
use crate::issuance::{Acme, CertificateSpec, KeySource};
use crate::name::DomainName;
use crate::plan::Plan;
use crate::site::SiteSpec;
pub use crate::snapshot::Limits;
use crate::upkeep::recorder::Retention;

pub use diagnostic::{Diagnostic, Diagnostics, MAX_RENDERED, Severity};
pub use keys::{list, nearest};
pub use limits::{MAX_QPS, is_plan_name};
pub use load::{
    Home, Loaded, PairPart, PairUse, VaultHome, data_dir_ahead, data_dir_of, home_of, load, load_in_part, vault_of,
};
pub use source::MAX_FILE_BYTES;

/// A configuration without errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Where the process keeps what it must remember; locked while it runs.
    pub data_dir: PathBuf,
    /// Whose midnight begins a day.
    pub timezone: TimeZone,
    /// What `run` does about a broken certificate pair.
    pub on_broken_certificate: OnBroken,
    /// How long requests under way may take to finish at shutdown.
    pub shutdown_grace: Duration,
    /// Worker threads; `None`: one per processor that the process may use.
    pub workers: Option<usize>,
    /// Addresses.
    pub listen: Listen,
    /// What a client may take.
    pub limits: Limits,
    /// The program's own log.
    pub log: Log,
    /// The access log, if there is to be one.
    pub access_log: Option<AccessLog>,
    /// How long what was metered is kept: `[store]`.
    pub retention: Retention,
    /// Every plan by name, the built-in ones included.
    pub plans: BTreeMap<String, Plan>,
    /// The operator's own last-but-one resort.
    pub fallback: Option<PairPaths>,
    /// Who issues certificates, and how: `[acme]`, if it is written.
    pub acme: Option<Acme>,
    /// Who can open the keys that are kept: `[vault]`.
    pub vault: KeySource,
    /// The domains, in the order written, names unique.
    pub domains: Arc<[Arc<SiteSpec>]>,
    /// Certificates for several names, in the order written; no name is in two of them.
    pub groups: Vec<CertificateSpec>,
}

/// What to do at start about a certificate pair that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBroken {
    /// Serve the domain's fallback and say so.
    Fallback,
    /// Do not start.
    Refuse,
}

/// The addresses of `[listen]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// TLS listeners.
    pub https: Vec<SocketAddr>,
    /// Plain listeners, for redirects.
    pub http: Vec<SocketAddr>,
    /// Metrics, health, later API and console.
    pub admin: SocketAddr,
    /// Metrics and health alone.
    pub metrics: Option<SocketAddr>,
    /// Names under which the admin listener may be addressed, besides addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The site for clients without or with unknown SNI; one of the domains.
    pub default: Option<DomainName>,
    /// The port that redirects name, where a port is mapped; `None`: that of the first `https` listener.
    pub public_https_port: Option<u16>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are kept.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// The program's own log: `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`.
    pub level: tracing::Level,
    /// Lines for people or JSON lines.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: tracing::Level::INFO, json: false }
    }
}

/// The access log: `[access_log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where lines go.
    pub target: Target,
    /// How they read.
    pub format: Format,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The process's standard output.
    Stdout,
    /// The end of a file.
    File(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("on standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
