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
            } else if certificate.opened().is_some() {
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
mod tests {
    use super::super::fixture::{DAY, NOW, pair};
    use super::*;
    use crate::name::DomainName;
    use rcgen::PKCS_ECDSA_P384_SHA384;
    use rstest::rstest;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];
    const BOTH: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];

    /// Gives one certificate, if any, and counts how often it was asked for it.
    #[derive(Default)]
    struct Internal(Option<Arc<Certificate>>, AtomicUsize);

    impl LastResort for Internal {
        fn certificate(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.clone()
        }

        fn held(&self, _: &DomainName, _: UnixTime) -> Option<Arc<Certificate>> {
            self.0.clone()
        }
    }

    /// A certificate as a word: `p256`, `p384`, `rsa`, then first and last day from [`NOW`] on.
    fn certificate(text: &str) -> Arc<Certificate> {
        let (kind, days) = text.split_once(' ').unwrap();
        let (from, to) = days.split_once("..").unwrap();
        let day = |text: &str| text.parse::<i64>().unwrap() * DAY;
        let maker = pair(&["www.example.com"]).valid(day(from), day(to));
        match kind {
            "p256" => maker,
            "p384" => maker.algorithm(&PKCS_ECDSA_P384_SHA384),
            "rsa" => maker.rsa(),
            "other" => pair(&["other.example.com"]).valid(day(from), day(to)),
            "broken" => return Arc::new(broken(maker.pem())),
            _ => panic!("{kind}"),
        }
        .make()
    }

    /// A key whose public half fits and whose private half does not.
    fn broken(pair: super::super::fixture::Pair) -> Certificate {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
        let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
        let mut key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap().secret_der().to_vec();
        // PKCS#8 of P-256: the private scalar begins at octet 36.
        key[40] ^= 1;
        Certificate::from_der(vec![cert], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))).unwrap()
    }

    /// `rank: certificate` lines; the answer names the line.
    fn set(lines: &[&str]) -> (CertificateSet, Vec<(String, Arc<Certificate>)>) {
        let mut ranks = Ranks::default();
        let mut internal = Internal::default();
        let mut named = Vec::new();
        for line in lines {
            let (rank, text) = line.split_once(": ").unwrap();
            let made = certificate(text);
            named.push(((*line).to_owned(), Arc::clone(&made)));
            match rank {
                "own" => ranks.own.push(made),
                "store" => ranks.store.push(made),
                "standby" => ranks.standby.push(made),
                "configured" => ranks.configured = Some(made),
                "internal" => internal.0 = Some(made),
                _ => panic!("{rank}"),
            }
        }
        let domain = DomainName::parse("www.example.com").unwrap();
        (CertificateSet::new(domain, ranks, Arc::new(internal)), named)
    }

    fn check(lines: &[&str], now: UnixTime, schemes: &[SignatureScheme], expected: Option<&str>) {
        let (set, named) = set(lines);
        let choice = set.choose(now, schemes);
        let line = choice.as_ref().map(|choice| {
            assert!(choice.certificate.is_valid_at(now));
            let (line, _) = named.iter().find(|(_, made)| Arc::ptr_eq(made, &choice.certificate)).unwrap();
            assert!(line.starts_with(choice.source.label()), "{line} as {}", choice.source);
            line.as_str()
        });
        assert_eq!(line, expected);
    }

    const ALL: &[&str] = &[
        "own: p256 -9..1",
        "store: p256 -9..2",
        "standby: p256 -9..3",
        "configured: p256 -9..4",
        "internal: p256 -9..5",
    ];

    #[rstest]
    #[case::own(0, Some("own: p256 -9..1"))]
    #[case::own_in_its_last_second(DAY, Some("own: p256 -9..1"))]
    #[case::store_a_second_later(DAY + 1, Some("store: p256 -9..2"))]
    #[case::standby(2 * DAY + 1, Some("standby: p256 -9..3"))]
    #[case::configured(3 * DAY + 1, Some("configured: p256 -9..4"))]
    #[case::internal(4 * DAY + 1, Some("internal: p256 -9..5"))]
    #[case::never_an_expired_one(5 * DAY + 1, None)]
    #[case::first_second(-9 * DAY, Some("own: p256 -9..1"))]
    #[case::never_one_before_its_time(-9 * DAY - 1, None)]
    fn the_best_rank_with_a_valid_one_serves(#[case] later_secs: i64, #[case] expected: Option<&str>) {
        check(ALL, NOW.plus_secs(later_secs), BOTH, expected);
    }

    #[test]
    fn the_last_millisecond_belongs_to_the_certificate() {
        let last = UnixTime::from_ms(NOW.plus_secs(DAY).ms() + 999);
        check(ALL, last, BOTH, Some("own: p256 -9..1"));
        check(ALL, UnixTime::from_ms(last.ms() + 1), BOTH, Some("store: p256 -9..2"));
    }

    #[rstest]
    #[case::curves_first(&["own: rsa -1..9", "own: p256 -9..9"], BOTH, "own: p256 -9..9")]
    #[case::rsa_for_whom_it_suits(&["own: rsa -1..9", "own: p256 -9..9"], RSA, "own: rsa -1..9")]
    #[case::ecdsa_for_whom_it_suits(&["own: rsa -1..9", "own: p256 -9..9"], ECDSA, "own: p256 -9..9")]
    #[case::rsa_when_the_other_expired(&["own: rsa -1..9", "own: p256 -9..-1"], BOTH, "own: rsa -1..9")]
    #[case::renewed(&["own: p256 -9..1", "own: p256 -1..5"], BOTH, "own: p256 -1..5")]
    #[case::renewed_in_any_order(&["own: p256 -1..5", "own: p256 -9..1"], BOTH, "own: p256 -1..5")]
    #[case::renewed_for_less_time(&["own: p256 -9..90", "own: p256 -1..5"], BOTH, "own: p256 -1..5")]
    #[case::renewed_too_early(&["own: p256 -9..1", "own: p256 1..5"], BOTH, "own: p256 -9..1")]
    #[case::begun_together(&["own: p256 -9..1", "own: p256 -9..2"], BOTH, "own: p256 -9..2")]
    #[case::next_rank_suits(&["own: p256 -9..9", "configured: rsa -9..9"], RSA, "configured: rsa -9..9")]
    #[case::none_suits(&["own: p384 -9..9", "store: p384 -9..9", "internal: p256 -9..9"], RSA, "own: p384 -9..9")]
    #[case::none_suits_but_the_internal(&["own: p384 -9..9", "internal: p256 -9..9"], ECDSA, "own: p384 -9..9")]
    #[case::expired_own(&["own: p256 -9..-1", "internal: p256 -9..9"], BOTH, "internal: p256 -9..9")]
    #[case::own_of_another_name(&["own: other -9..9", "internal: p256 -9..9"], BOTH, "internal: p256 -9..9")]
    #[case::fallback_as_given(&["configured: other -9..9", "internal: p256 -9..9"], BOTH, "configured: other -9..9")]
    #[case::key_does_not_open(&["own: broken -1..9", "own: p256 -9..9"], BOTH, "own: p256 -9..9")]
    #[case::only_key_does_not_open(&["own: broken -1..9", "internal: p256 -9..9"], BOTH, "internal: p256 -9..9")]
    fn within_a_rank_key_and_age_decide(
        #[case] lines: &[&str],
        #[case] schemes: &[SignatureScheme],
        #[case] expected: &str,
    ) {
        check(lines, NOW, schemes, Some(expected));
    }

    #[test]
    fn the_authority_is_not_asked_on_a_healthy_site() {
        let internal = Arc::new(Internal(Some(certificate("p256 -9..9")), AtomicUsize::new(0)));
        let ranks = Ranks { own: vec![certificate("p256 -9..1")], ..Ranks::default() };
        let domain = DomainName::parse("www.example.com").unwrap();
        let set = CertificateSet::new(domain, ranks, Arc::clone(&internal) as Arc<dyn LastResort>);
        set.choose(NOW, BOTH).unwrap();
        set.choose(NOW, &[]).unwrap();
        set.standing(NOW.plus_secs(2 * DAY));
        assert_eq!(internal.1.load(Ordering::Relaxed), 0);
        assert_eq!(set.choose(NOW.plus_secs(2 * DAY), BOTH).unwrap().source, Source::Internal);
    }

    #[rstest]
    #[case::healthy(&["own: p256 -9..1", "internal: p256 -9..9"], 0, "own until 1, own until 1")]
    #[case::swapped(&["own: p256 -9..-1", "store: p256 -9..2"], 0, "store until 2, own until -1")]
    #[case::both_expired(&["own: p256 -9..-2", "own: rsa -9..-1", "internal: p256 -9..9"], 0, "internal until 9, own until -1")]
    #[case::two_keys(&["own: p256 -9..2", "own: rsa -9..5"], 0, "own until 2, own until 5")]
    #[case::not_begun(&["own: p256 3..9"], 0, "internal until ?, own until ?")]
    #[case::nothing(&[], 0, "internal until ?, own until ?")]
    #[case::and_back(&["own: p256 -9..1", "own: p256 3..9", "store: p256 -9..9"], 2, "store until 9, own until 1")]
    #[case::and_back_again(&["own: p256 -9..1", "own: p256 3..9", "store: p256 -9..9"], 4, "own until 9, own until 9")]
    fn a_domain_stands(#[case] lines: &[&str], #[case] day: i64, #[case] expected: &str) {
        let (set, _) = set(lines);
        let standing = set.standing(NOW.plus_secs(day * DAY));
        let show = |at: Option<UnixTime>| {
            at.map_or("?".to_owned(), |at| ((at.secs() - NOW.secs()).div_euclid(DAY)).to_string())
        };
        let (not_after, own) = (show(standing.not_after), show(standing.own_not_after));
        assert_eq!(format!("{} until {not_after}, own until {own}", standing.source), expected);
    }
}
