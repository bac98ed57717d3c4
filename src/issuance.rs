//! What is to be issued: for which names, by whom, how control over a name is proved, and when.
//!
//! Nothing here asks an authority, a name server or a clock: `upkeep` does, and follows these rules.

pub mod backoff;
pub mod renewal;
pub mod subject;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::name::{DomainName, TenantId};
use crate::secret::SecretSource;

/// Let's Encrypt: who issues where the configuration names nobody.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Orders under way at once unless `[acme] max_orders` says otherwise.
pub const MAX_ORDERS: usize = 16;

/// `[acme]`: who issues, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    /// The operator agrees to the terms of every authority named here. Without it nothing is ordered.
    pub agreed_to_terms: bool,
    /// In order of preference; never empty.
    pub authorities: Vec<Arc<Authority>>,
    /// What a domain has that says nothing else.
    pub method: Method,
    /// Orders under way at once.
    pub max_orders: usize,
    /// Names that nobody wrote into the configuration.
    pub on_demand: Option<OnDemand>,
}

/// `[[acme.ca]]`: one certificate authority that speaks ACME (RFC 8555).
#[derive(Debug, Clone, PartialEq)]
pub struct Authority {
    /// What logs, metrics and `ca = [...]` call it; the directory's host unless written. Unique.
    pub name: String,
    /// The URL of its directory (RFC 8555, section 7.1.1).
    pub directory: String,
    /// Roots to trust for its own API instead of the system's.
    pub roots: Option<Arc<[CertificateDer<'static>]>>,
    /// Whom it writes to about certificates that expire.
    pub email: Option<String>,
    /// The account with it that the operator already has (RFC 8555, section 7.3.4).
    pub eab: Option<Eab>,
    /// Which kind of certificate to ask for, by its own word (draft-ietf-acme-profiles).
    pub profile: Option<String>,
    /// Of several chains that it offers, one with a certificate whose issuer has this common name.
    pub preferred_chain: Option<String>,
    /// It issues nothing but standbys.
    pub is_standby_only: bool,
}

/// An external account: how a commercial authority knows its customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eab {
    /// The key's identifier.
    pub kid: String,
    /// The key: base64url, as authorities hand it out.
    pub hmac_key: SecretSource,
}

/// How certificates are obtained: `[acme]`, and what a `[[domain]]` or `[[certificate]]` says instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// The names of the authorities to ask, in this order; `None`: all.
    pub authorities: Option<Vec<String>>,
    /// How control is proved; `None`: whatever can be done here.
    pub challenge: Option<Challenge>,
    /// Who sets TXT records.
    pub dns: Option<Arc<Dns>>,
    /// The key that a certificate is for.
    pub key: KeyAlgorithm,
    /// Instead of the authority's.
    pub profile: Option<String>,
    /// Whether a certificate is held ready for when the domain's own is not renewed.
    pub standby: bool,
}

/// How control over a name is proved to an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Challenge {
    /// A file on port 80 (RFC 8555, section 8.3).
    Http01,
    /// A certificate on port 443 (RFC 8737).
    TlsAlpn01,
    /// A TXT record (RFC 8555, section 8.4): the only one for wildcards.
    Dns01,
}

impl Challenge {
    /// The name in RFC 8555 and in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The kind of key that is made for a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// `p256`: the fastest, and every client of the last ten years has it.
    #[default]
    EcdsaP256,
    /// `p384`.
    EcdsaP384,
    /// `rsa2048`, `rsa3072`, `rsa4096`: for very old clients; a handshake costs several times as much.
    Rsa(u16),
}

/// `[acme.dns]`: who sets TXT records, and how it is seen that they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Who.
    pub provider: DnsProvider,
    /// Name servers to ask whether a record is there; empty: the zone's own, found by the system's resolver.
    pub resolvers: Vec<std::net::SocketAddr>,
    /// How long a record may take until all of them have it.
    pub propagation_timeout: Duration,
    /// How long others may keep it.
    pub ttl: Duration,
}

/// Who sets TXT records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsProvider {
    /// Dynamic updates (RFC 2136), signed by TSIG (RFC 8945).
    Rfc2136 {
        /// The zone's primary.
        server: std::net::SocketAddr,
        /// The key's name.
        key_name: String,
        /// `hmac-sha256` and the like.
        key_algorithm: String,
        /// Base64.
        key: SecretSource,
    },
    /// A well-known API, by its name in `dns-update`, and what it needs.
    Api {
        /// `cloudflare`, `digitalocean`, `desec` ...
        name: String,
        /// Settings that are no secret, such as an account's or a zone's id.
        settings: Vec<(String, String)>,
        /// Settings that are.
        secrets: Vec<(String, SecretSource)>,
    },
    /// A program of the operator's: called with `present NAME VALUE` and `clear NAME VALUE` behind these words.
    Exec {
        /// The program and its first arguments.
        command: Vec<String>,
        /// How long one call may take.
        timeout: Duration,
    },
}

/// `[acme.on_demand]`: names of others' that are served, and get a certificate, at their first handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDemand {
    /// The domain that serves them: its origin, its plan, its meter.
    pub site: DomainName,
    /// Names, and wildcards that cover any depth, that are approved unasked.
    pub allow: Vec<String>,
    /// A URL that is asked with `?domain=NAME`: 2xx approves, 404 and 410 refuse, and nothing else is an answer.
    pub ask: Option<String>,
    /// Names at most.
    pub max_names: usize,
    /// New ones in any hour at most, each of which is an order.
    pub max_new_per_hour: usize,
}

/// What one `[[domain]]` says of its certificates.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum DomainAcme {
    /// Nothing: managed if it names no certificate files.
    #[default]
    Inherit,
    /// `acme = false`: never.
    Never,
    /// A table: this way.
    Method(Box<Method>),
}

/// `[[certificate]]`: one certificate for several names.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateSpec {
    /// What it is for, the first one naming it; never empty.
    pub names: Vec<DomainName>,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// How it is obtained.
    pub method: Method,
}

/// `[vault]`: who can open the keys that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Nothing is written: a file `vault.key` in `data_dir`, made at the first start.
    Made(PathBuf),
    /// A file, a variable or a credential with 32 octets: raw, hexadecimal or base64.
    Secret(SecretSource),
    /// HashiCorp Vault's transit engine, over HTTP.
    Transit(Transit),
    /// A program of the operator's: called with `wrap` or `unwrap` behind these words, in and out by base64 lines.
    Exec(Vec<String>),
}

/// A key in HashiCorp Vault's transit engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    /// `https://vault.example:8200`.
    pub address: String,
    /// Where the engine is mounted; `transit`.
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// The token.
    pub token: SecretSource,
    /// A namespace (Vault Enterprise).
    pub namespace: Option<String>,
    /// Roots to trust instead of the system's.
    pub roots: Option<Arc<[CertificateDer<'static>]>>,
}
