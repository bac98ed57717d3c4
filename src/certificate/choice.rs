//! Which of a domain's certificates serves at a given second.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use rustls::SignatureScheme;

use super::Certificate;
use crate::clock::UnixTime;
use crate::name::DomainName;

/// What browsers and current libraries offer; how a domain stands is judged by them.
const MODERN: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Where a certificate comes from, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The domain's own: files, uploaded, or ACME.
    Own,
    /// Another one in the store that covers the name.
    Store,
    /// Issued by ACME ahead of time.
    Standby,
    /// The operator's `[fallback]`, used as given.
    Configured,
    /// Made by the internal authority.
    Internal,
}

impl Source {
    /// The value of the metrics' `source` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Store => "store",
            Self::Standby => "standby",
            Self::Configured => "configured",
            Self::Internal => "internal",
        }
    }

    /// Whether somebody else's certificate stands in for the domain's own.
    pub fn is_fallback(self) -> bool {
        self != Self::Own
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Who has a certificate when nobody else has: the internal authority.
pub trait LastResort: Send + Sync {
    /// The domain's internal certificate, valid at `now`; made now if there is none. `None`: it cannot be made.
    fn certificate(&self, domain: &DomainName, now: UnixTime) -> Option<Arc<Certificate>>;

    /// The same, but only if it is already there: looking at a hundred thousand domains makes no certificates.
    fn held(&self, _domain: &DomainName, _now: UnixTime) -> Option<Arc<Certificate>> {
        None
    }
}

/// The certificates of one domain by where they come from, in any order: ranks 1 to 3.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    /// The domain's own.
    pub own: Vec<Arc<Certificate>>,
    /// Others of the same tenant.
    pub store: Vec<Arc<Certificate>>,
    /// Issued ahead of time.
    pub standby: Vec<Arc<Certificate>>,
}

/// What stands behind the certificates of all domains alike: ranks 4 and 5.
pub struct CommonRanks {
    /// The operator's `[fallback]`.
    pub configured: Option<Arc<Certificate>>,
    /// Asked when no rank has a valid one.
    pub last_resort: Arc<dyn LastResort>,
}

/// All certificates that may serve one domain, and the rule by which one does. The domain's name is its site's: whoever
/// asks says it.
pub struct CertificateSet {
    /// Ranks 1 to 3: each covers the domain; sorted so that the first one usable is the best.
    ranked: Box<[(Source, Arc<Certificate>)]>,
    common: Arc<CommonRanks>,
}

/// What a handshake gets.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Why this one.
    pub source: Source,
    /// Valid at the time asked for.
    pub certificate: Arc<Certificate>,
}

/// How a domain stands at one moment, for metrics and alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What a modern client is served.
    pub source: Source,
    /// The last second of what is served; `None`: an internal certificate that nobody has asked for yet.
    pub not_after: Option<UnixTime>,
    /// Of the own certificates that have begun and open, the latest last second: in the past if all have expired.
    /// `None`: there is none.
    pub own_not_after: Option<UnixTime>,
}

impl CertificateSet {
    /// Puts a domain's certificates in their order. Those of ranks 1 to 3 that do not cover `domain` are left out:
    /// no client would accept them for it.
    pub fn new(domain: &DomainName, ranks: Ranks, common: Arc<CommonRanks>) -> Self {
        let of_rank = |source, rank: Vec<_>| rank.into_iter().map(move |certificate| (source, certificate));
        let mut ranked: Vec<(Source, Arc<Certificate>)> = of_rank(Source::Own, ranks.own)
            .chain(of_rank(Source::Store, ranks.store))
            .chain(of_rank(Source::Standby, ranks.standby))
            .filter(|(_, certificate)| certificate.covers(domain))
            .collect();
        ranked.sort_by_key(|(source, it)| {
            (*source, it.key_kind().is_rsa(), Reverse(it.not_before()), Reverse(it.not_after()))
        });
        Self { ranked: ranked.into(), common }
    }

    /// The domain's own that cover it, best first, expired ones included.
    pub fn own(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.ranked.iter().take_while(|(source, _)| *source == Source::Own).map(|(_, certificate)| certificate)
    }

    /// Of the domain's own: the first second of the last one, and the last second, of the unbroken time from `now` in
    /// which one of them is valid. `None`: none is.
    pub fn own_until(&self, now: UnixTime) -> Option<(UnixTime, UnixTime)> {
        let mut until: Option<(UnixTime, UnixTime)> = None;
        loop {
            let from = until.map_or(now, |(_, end)| end.plus_secs(1));
            let reaches = |it: &&Arc<Certificate>| it.is_valid_at(from) && !it.is_known_broken();
            let Some(next) = self.own().filter(reaches).max_by_key(|it| it.not_after()) else { return until };
            until = Some((next.not_before(), next.not_after()));
        }
    }

    /// Whether it is made of the very same certificates.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same = |(a, b): (&(Source, Arc<_>), &(Source, Arc<_>))| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1);
        let configured = |it: &Self| it.common.configured.as_ref().map(Arc::as_ptr);
        self.ranked.len() == other.ranked.len()
            && self.ranked.iter().zip(&other.ranked).all(is_same)
            && configured(self) == configured(other)
    }

    /// The certificate for a handshake for `domain`, whose set this is, at `now` with a client that verifies `schemes`:
    /// of the first rank that has a valid one whose key suits the client, elliptic curves before RSA, then the latest
    /// notBefore. Never one that is not valid at `now`.
    ///
    /// The internal authority is asked only where no rank has a valid one. Otherwise a client whom none of them suits
    /// gets the best valid one all the same, and the handshake fails with the honest reason: an untrusted certificate
    /// on a healthy site would help nobody, and no ClientHello should be able to cause signing.
    pub fn choose(&self, domain: &DomainName, now: UnixTime, schemes: &[SignatureScheme]) -> Option<Choice> {
        let mut unsuited = None;
        for (source, certificate) in self.valid(now) {
            if !certificate.signs_any(schemes) {
                unsuited.get_or_insert((source, certificate));
            } else if certificate.certified_key().is_some() {
                return Some(Choice { source, certificate: Arc::clone(certificate) });
            }
        }
        if let Some((source, certificate)) = unsuited {
            return Some(Choice { source, certificate: Arc::clone(certificate) });
        }
        let certificate = self.common.last_resort.certificate(domain, now).filter(|it| it.is_valid_at(now))?;
        Some(Choice { source: Source::Internal, certificate })
    }

    /// How `domain`, whose set this is, stands at `now`. Opens no key and makes no certificate.
    pub fn standing(&self, domain: &DomainName, now: UnixTime) -> Standing {
        let serving = self.valid(now).find(|(_, certificate)| certificate.signs_any(MODERN));
        let (source, not_after) = match serving {
            Some((source, certificate)) => (source, Some(certificate.not_after())),
            None => (Source::Internal, self.common.last_resort.held(domain, now).map(|it| it.not_after())),
        };
        let begun = |it: &&Arc<Certificate>| it.not_before().secs() <= now.secs() && !it.is_known_broken();
        let own_not_after = self.own().filter(begun).map(|it| it.not_after()).max();
        Standing { source, not_after, own_not_after }
    }

    /// Until when a valid certificate for `domain`, whose set this is, is assured without anybody's help: the last second of the unbroken time from
    /// `now` on in which ranks 1 to 3, or the operator's `[fallback]` if it covers the domain, have one that is valid
    /// and not known to be broken. `None`: there is none now. The internal authority does not count, as no client
    /// trusts it.
    pub fn guaranteed_until(&self, domain: &DomainName, now: UnixTime) -> Option<UnixTime> {
        let is_for_it = |source, it: &Certificate| source != Source::Configured || it.covers(domain);
        let good = self.all().filter(|(source, it)| is_for_it(*source, it) && !it.is_known_broken());
        let good: Vec<_> = good.map(|(_, it)| it).collect();
        let end_at = |now: UnixTime| good.iter().filter(|it| it.is_valid_at(now)).map(|it| it.not_after()).max();
        let mut until = end_at(now)?;
        // Each round gets further, even where time as we count it ends.
        while let Some(end) = end_at(until.plus_secs(1)).filter(|end| *end > until) {
            until = end;
        }
        Some(until)
    }

    /// The first second after `now` at which the clock alone changes what may serve: some certificate of any rank
    /// begins, or has ended. `None`: none will.
    pub fn next_change(&self, now: UnixTime) -> Option<UnixTime> {
        let changes = self.all().flat_map(|(_, it)| [it.not_before().secs(), it.not_after().secs().saturating_add(1)]);
        changes.filter(|secs| *secs > now.secs()).min().map(UnixTime::from_secs)
    }

    /// What ranks 1 to 4 have, best first.
    fn all(&self) -> impl Iterator<Item = (Source, &Arc<Certificate>)> {
        let configured = self.common.configured.iter().map(|certificate| (Source::Configured, certificate));
        self.ranked.iter().map(|(source, certificate)| (*source, certificate)).chain(configured)
    }

    /// What of it is valid at `now`.
    fn valid(&self, now: UnixTime) -> impl Iterator<Item = (Source, &Arc<Certificate>)> {
        self.all().filter(move |(_, certificate)| certificate.is_valid_at(now) && !certificate.is_known_broken())
    }
}

impl fmt::Debug for CertificateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSet")
            .field("ranked", &self.ranked)
            .field("configured", &self.common.configured)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
