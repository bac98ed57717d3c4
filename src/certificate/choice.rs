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

/// The certificates of one domain by where they come from, in any order.
#[derive(Debug, Clone, Default)]
pub struct Ranks {
    /// The domain's own.
    pub own: Vec<Arc<Certificate>>,
    /// Others of the same tenant.
    pub store: Vec<Arc<Certificate>>,
    /// Issued ahead of time.
    pub standby: Vec<Arc<Certificate>>,
    /// The operator's `[fallback]`.
    pub configured: Option<Arc<Certificate>>,
}

/// All certificates that may serve one domain, and the rule by which one does.
pub struct CertificateSet {
    domain: DomainName,
    /// Ranks 1 to 3: each covers the domain; sorted so that the first one usable is the best.
    own: Box<[Arc<Certificate>]>,
    store: Box<[Arc<Certificate>]>,
    standby: Box<[Arc<Certificate>]>,
    configured: Option<Arc<Certificate>>,
    last_resort: Arc<dyn LastResort>,
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
    pub fn new(domain: DomainName, ranks: Ranks, last_resort: Arc<dyn LastResort>) -> Self {
        Self {
            own: sort(ranks.own, &domain),
            store: sort(ranks.store, &domain),
            standby: sort(ranks.standby, &domain),
            configured: ranks.configured,
            last_resort,
            domain,
        }
    }

    /// The domain they are for.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// The domain's own that cover it, best first, expired ones included.
    pub fn own(&self) -> &[Arc<Certificate>] {
        &self.own
    }

    /// Of the domain's own: the first second of the last one, and the last second, of the unbroken time from `now` in
    /// which one of them is valid. `None`: none is.
    pub fn own_until(&self, now: UnixTime) -> Option<(UnixTime, UnixTime)> {
        let mut until: Option<(UnixTime, UnixTime)> = None;
        loop {
            let from = until.map_or(now, |(_, end)| end.plus_secs(1));
            let reaches = |it: &&Arc<Certificate>| it.is_valid_at(from) && !it.is_known_broken();
            let Some(next) = self.own.iter().filter(reaches).max_by_key(|it| it.not_after()) else { return until };
            until = Some((next.not_before(), next.not_after()));
        }
    }

    /// Whether it is made of the very same certificates.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Certificate>], b: &[Arc<Certificate>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        same(&self.own, &other.own)
            && same(&self.store, &other.store)
            && same(&self.standby, &other.standby)
            && same(self.configured.as_slice(), other.configured.as_slice())
    }

    /// The certificate for a handshake at `now` with a client that verifies `schemes`: of the first rank that has a
    /// valid one whose key suits the client, elliptic curves before RSA, then the latest notBefore. Never one that
    /// is not valid at `now`.
    ///
    /// The internal authority is asked only where no rank has a valid one. Otherwise a client whom none of them suits
    /// gets the best valid one all the same, and the handshake fails with the honest reason: an untrusted certificate
    /// on a healthy site would help nobody, and no ClientHello should be able to cause signing.
    pub fn choose(&self, now: UnixTime, schemes: &[SignatureScheme]) -> Option<Choice> {
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
        let certificate = self.last_resort.certificate(&self.domain, now).filter(|it| it.is_valid_at(now))?;
        Some(Choice { source: Source::Internal, certificate })
    }

    /// How the domain stands at `now`. Opens no key and makes no certificate.
    pub fn standing(&self, now: UnixTime) -> Standing {
        let serving = self.valid(now).find(|(_, certificate)| certificate.signs_any(MODERN));
        let (source, not_after) = match serving {
            Some((source, certificate)) => (source, Some(certificate.not_after())),
            None => (Source::Internal, self.last_resort.held(&self.domain, now).map(|it| it.not_after())),
        };
        let begun = |it: &&Arc<Certificate>| it.not_before().secs() <= now.secs() && !it.is_known_broken();
        let own_not_after = self.own.iter().filter(begun).map(|it| it.not_after()).max();
        Standing { source, not_after, own_not_after }
    }

    /// Until when a valid certificate is assured without anybody's help: the last second of the unbroken time from
    /// `now` on in which ranks 1 to 3, or the operator's `[fallback]` if it covers the domain, have one that is valid
    /// and not known to be broken. `None`: there is none now. The internal authority does not count, as no client
    /// trusts it.
    pub fn guaranteed_until(&self, now: UnixTime) -> Option<UnixTime> {
        let covering = self.configured.as_ref().filter(|it| it.covers(&self.domain));
        let ranks = self.own.iter().chain(&self.store).chain(&self.standby).chain(covering);
        let good: Vec<_> = ranks.filter(|it| !it.is_known_broken()).collect();
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
        let ranks = self.own.iter().chain(&self.store).chain(&self.standby).chain(&self.configured);
        let changes = ranks.flat_map(|it| [it.not_before().secs(), it.not_after().secs().saturating_add(1)]);
        changes.filter(|secs| *secs > now.secs()).min().map(UnixTime::from_secs)
    }

    /// What ranks 1 to 4 have at `now`, best first.
    fn valid(&self, now: UnixTime) -> impl Iterator<Item = (Source, &Arc<Certificate>)> {
        let configured = self.configured.as_slice();
        [
            (Source::Own, &*self.own),
            (Source::Store, &*self.store),
            (Source::Standby, &*self.standby),
            (Source::Configured, configured),
        ]
        .into_iter()
        .flat_map(|(source, rank)| rank.iter().map(move |certificate| (source, certificate)))
        .filter(move |(_, certificate)| certificate.is_valid_at(now) && !certificate.is_known_broken())
    }
}

impl fmt::Debug for CertificateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSet")
            .field("domain", &self.domain)
            .field("own", &self.own)
            .field("store", &self.store)
            .field("standby", &self.standby)
            .field("configured", &self.configured)
            .finish_non_exhaustive()
    }
}

fn sort(mut rank: Vec<Arc<Certificate>>, domain: &DomainName) -> Box<[Arc<Certificate>]> {
    rank.retain(|certificate| certificate.covers(domain));
    rank.sort_by_key(|it| (it.key_kind().is_rsa(), Reverse(it.not_before()), Reverse(it.not_after())));
    rank.into()
}

#[cfg(test)]
mod tests;
