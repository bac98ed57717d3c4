//! What is kept.

use rustls_pki_types::CertificateDer;

use crate::certificate::Facts;
use crate::clock::UnixTime;
use crate::issuance::renewal::Window;
use crate::name::{DomainName, TenantId};
use crate::text::SharedText;

/// A certificate's number: never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct CertificateId(pub i64);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// To be the domain's own.
    Own,
    /// To take over when the domain's own ends.
    Standby,
}

impl Role {
    /// As it is stored and shown.
    pub fn label(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Standby => "standby",
        }
    }

    pub(in crate::store) fn of_label(label: &str) -> Option<Self> {
        [Self::Own, Self::Standby].into_iter().find(|role| role.label() == label)
    }
}

/// How a certificate came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// Issued over ACME.
    Acme,
    /// The same, for a name that nobody wrote into the configuration: it was approved at a handshake.
    OnDemand,
    /// Given by a user.
    Uploaded,
}

impl Provenance {
    /// As it is stored and shown.
    pub fn label(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::OnDemand => "on-demand",
            Self::Uploaded => "uploaded",
        }
    }

    pub(in crate::store) fn of_label(label: &str) -> Option<Self> {
        [Self::Acme, Self::OnDemand, Self::Uploaded].into_iter().find(|provenance| provenance.label() == label)
    }
}

/// A certificate to keep.
#[derive(Debug, Clone)]
pub struct NewCertificate {
    /// What it was ordered for: the first name of its [`crate::issuance::subject::Subject`].
    pub subject: DomainName,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// What it is for.
    pub role: Role,
    /// How it came here.
    pub provenance: Provenance,
    /// The authority's directory URL; empty if it was uploaded.
    pub ca: SharedText,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the leaf says.
    pub facts: Facts,
    /// Its key (PKCS#8), sealed; see [`crate::vault`].
    pub sealed_key: Box<[u8]>,
    /// Now.
    pub at: UnixTime,
}

/// A certificate that is kept.
#[derive(Debug, Clone)]
pub struct StoredCertificate {
    /// Its number.
    pub id: CertificateId,
    /// What was kept.
    pub certificate: NewCertificate,
    /// When it was revoked through Lockgate.
    pub revoked_at: Option<UnixTime>,
    /// What the authority says of its renewal; `None`: it was never asked.
    pub ari: Option<Ari>,
}

/// Renewal information (RFC 9773), as it was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ari {
    /// When the authority would like it to be renewed; `None`: it does not say.
    pub window: Option<Window>,
    /// When to ask again.
    pub next_at: UnixTime,
}

/// All certificates that are kept.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// In the order of their numbers.
    pub certificates: Vec<StoredCertificate>,
    /// Those that were damaged, or written by somebody else.
    pub unusable: Vec<Unusable>,
}

/// A certificate that is kept but cannot be used. It is left where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Its number.
    pub id: CertificateId,
    /// What is wrong with it.
    pub reason: String,
}

/// An account with an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The authority's directory URL.
    pub ca: String,
    /// The external account's key identifier: another one is another account.
    pub eab_kid: Option<String>,
    /// The account's URL (RFC 8555, section 7.3). Empty: nobody knows whether the authority has made it.
    pub url: String,
    /// Its key (PKCS#8), sealed.
    pub sealed_key: Box<[u8]>,
    /// When it was made.
    pub made_at: UnixTime,
    /// The e-mail address that the authority was last told of. Empty: of none, or nobody knows.
    pub contact: String,
}

/// An order's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub i64);

/// An order under way with an authority: resumed after a restart, and never repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What it is for: the subject's first name.
    pub subject: DomainName,
    /// What the certificate will be for.
    pub role: Role,
    /// The authority's directory URL.
    pub ca: String,
    /// The order's URL.
    pub url: String,
    /// What was ordered.
    pub names: Vec<DomainName>,
    /// The key (PKCS#8) that its certificate will be for, sealed; `None` before it was finalized.
    pub sealed_key: Option<Box<[u8]>>,
    /// When it was placed.
    pub placed_at: UnixTime,
}

/// How often an order for a subject failed since the last that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// For whom.
    pub subject: DomainName,
    /// For what.
    pub role: Role,
    /// How often.
    pub failures: u32,
    /// When it failed first.
    pub first_at: UnixTime,
    /// When it failed last.
    pub last_at: UnixTime,
    /// Not tried again before.
    pub next_at: UnixTime,
    /// The authority that was asked last: its directory URL.
    pub ca: String,
    /// What it said, in its own words.
    pub problem: String,
    /// The one thing to do about it.
    pub advice: String,
    /// The authorities that asked to be left alone with it, each once.
    pub held_off: Vec<HeldOff>,
}

impl Attempts {
    /// Until when the authority with this directory is to be left alone, if that is after `now`. What it asked for in
    /// what is now the future, by a clock that was wrong, keeps nobody waiting.
    pub fn held_off_until(&self, ca: &str, now: UnixTime) -> Option<UnixTime> {
        let held_off = self.held_off.iter().find(|of| of.ca == ca).filter(|of| now < of.until);
        held_off.filter(|_| self.last_at <= now).map(|of| of.until)
    }
}

/// An authority that asked to be left alone with a subject (Retry-After; RFC 8555, section 6.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOff {
    /// Its directory URL.
    pub ca: String,
    /// Not asked for it again before.
    pub until: UnixTime,
}

/// Something else that is kept sealed, with what may be read of it: the internal authority and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// What it is.
    pub name: String,
    /// Sealed.
    pub sealed: Box<[u8]>,
    /// In plain, for instance a certificate (DER).
    pub public: Box<[u8]>,
}
