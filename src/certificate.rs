//! Certificates: what one says, and which of several serves at a given second.
//!
//! Nothing here reads a file or a clock. A [`Certificate`] is parsed once, when it is loaded; its private key is
//! opened at its first handshake, so that a hundred thousand loaded certificates cost little until they are asked for.

mod choice;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod holder;
mod inspect;
mod intermediate;
mod key;
mod leaf;
mod opened;
mod pem;
pub mod proof;
mod sealed;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::error::X509Error;
use zeroize::Zeroize;

use sealed::Sealed;

pub use choice::{CertificateSet, Choice, CommonRanks, LastResort, Ranks, Source, Standing};
pub use error::{CertificateError, PairFile};
pub use holder::HoldsKey;
pub use inspect::{Validation, serial, subject_and_issuer, validation};
pub(crate) use intermediate::share as share_intermediate;
pub use key::{KeyKind, context_of_leaf as key_context_of_leaf, context_of_spki as key_context_of_spki};
pub use leaf::{Facts, fingerprint};
pub use opened::{OpenedKeys, OpensKeys, key_changes};
pub use proof::{ProofError, prove};

use crate::clock::UnixTime;
use crate::name::DomainName;

/// The most that a certificate or key file may hold; the largest in use are a few dozen KiB.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The most certificates in one chain: a public one has two to four, and every client receives all of them.
pub const MAX_CHAIN: usize = 32;

/// A certificate file (chain, leaf first) and its key's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairPaths {
    /// PEM, leaf first.
    pub cert: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// A chain and its key: the leaf's facts, parsed once, and what a handshake needs.
pub struct Certificate {
    leaf: Facts,
    pair: Pair,
}

/// The chain and its key, by where they come from.
enum Pair {
    /// Files, or made here: kept whole. In a box, so that a sealed one, of which there are many, is no larger for it.
    Plain(Box<Plain>),
    /// The store: sealed.
    Sealed(Sealed),
}

/// Chain and key that are there for as long as the certificate is.
struct Plain {
    /// Chain and key until the first handshake, which takes them: kept twice, they would be half of the memory.
    closed: Mutex<Option<Closed>>,
    /// `None` inside: the key turned out not to open. Then it never will, and is not tried again.
    opened: OnceLock<Option<Arc<CertifiedKey>>>,
}

/// Chain and key as loaded.
struct Closed {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Certificate {
    /// Reads a chain (leaf first) and a key (PKCS#8, PKCS#1 or SEC1; of several the first), both PEM (RFC 7468).
    /// Both may be the same text.
    ///
    /// # Errors
    /// See [`Certificate::from_der`]; and what is wrong with the PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        Self::from_der(pem::chain(chain)?, pem::key(key)?)
    }

    /// Takes a chain (leaf first) and the leaf's key. That the public half found in the key is the leaf's is checked
    /// here, which costs microseconds; [`Certificate::open`] checks the private half too.
    ///
    /// # Errors
    /// [`CertificateError`]: no or too many certificates, one that is no X.509, a key that is of an unsupported kind
    /// or belongs to another certificate.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let mut closed = Closed { chain, key };
        if closed.chain.len() > MAX_CHAIN {
            return Err(CertificateError::ChainTooLong { certificates: closed.chain.len() });
        }
        let (first, rest) = closed.chain.split_first_mut().ok_or(CertificateError::NoCertificate)?;
        let (leaf, public) = leaf::parse(first)?;
        for (der, position) in rest.iter_mut().zip(2..) {
            let bad = |error: X509Error| CertificateError::BadCertificate { position, reason: error.to_string() };
            *der = intermediate::share(std::mem::replace(der, CertificateDer::from_slice(&[]))).map_err(bad)?;
        }
        key::check_fits(&closed.key, &public, leaf.key_kind, rest)?;
        Ok(Self {
            leaf,
            pair: Pair::Plain(Box::new(Plain { closed: Mutex::new(Some(closed)), opened: OnceLock::new() })),
        })
    }

    /// One out of the store, whose facts are known and whose key is sealed: nothing of it is parsed, and nothing
    /// opened, before its first handshake. Then the leaf must say what `facts` do and the key must be the leaf's; if
    /// not, it is as good as not there.
    pub fn sealed(facts: Facts, chain: &[CertificateDer<'static>], sealed_key: &[u8], keys: Arc<OpenedKeys>) -> Self {
        Self { leaf: facts, pair: Pair::Sealed(Sealed::new(chain, sealed_key, keys)) }
    }

    /// All that the leaf says.
    pub fn facts(&self) -> &Facts {
        &self.leaf
    }

    /// The names it is for, in normal form: dNSName and iPAddress of the subject alternative names; the common name
    /// only where there are none (RFC 9525, section 6.3). Entries that can be no domain's name are left out.
    pub fn names(&self) -> &[DomainName] {
        &self.leaf.names
    }

    /// The first second at which it is valid.
    pub fn not_before(&self) -> UnixTime {
        self.leaf.not_before
    }

    /// The last second at which it is valid (RFC 5280, section 4.1.2.5: inclusive).
    pub fn not_after(&self) -> UnixTime {
        self.leaf.not_after
    }

    /// The issuer's distinguished name, as `C=US, O=Let's Encrypt, CN=E7`.
    pub fn issuer(&self) -> &str {
        &self.leaf.issuer
    }

    /// What key it certifies.
    pub fn key_kind(&self) -> KeyKind {
        self.leaf.key_kind
    }

    /// See [`fingerprint()`]. Reckoned at each call: a hundred thousand of them would be held for hardly anybody.
    pub fn fingerprint(&self) -> [u8; 32] {
        match &self.pair {
            Pair::Plain(plain) => fingerprint(plain.chain().first().map(AsRef::as_ref).unwrap_or_default()),
            Pair::Sealed(sealed) => fingerprint(sealed.leaf()),
        }
    }

    /// Whether `other` is the same certificate, both out of the store.
    pub fn is_stored_as(&self, other: &Self) -> bool {
        matches!((&self.pair, &other.pair), (Pair::Sealed(a), Pair::Sealed(b)) if a.leaf() == b.leaf())
    }

    /// The chain as sent, leaf first: a copy.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        match &self.pair {
            Pair::Plain(plain) => plain.chain(),
            Pair::Sealed(sealed) => sealed.chain(),
        }
    }

    /// The key as it is stored, still sealed. `None`: it did not come out of the store.
    pub fn sealed_key(&self) -> Option<&[u8]> {
        match &self.pair {
            Pair::Plain(_) => None,
            Pair::Sealed(sealed) => Some(sealed.key()),
        }
    }

    /// Whether it may be used at `now`: from the second of notBefore up to and including the second of notAfter.
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        (self.leaf.not_before.secs()..=self.leaf.not_after.secs()).contains(&now.secs())
    }

    /// Whether it is good for every name that `domain` serves: the exact name or a wildcard one level above it; for a
    /// wildcard the same wildcard; for an address the same address.
    pub fn covers(&self, domain: &DomainName) -> bool {
        self.leaf.names.iter().any(|name| name.covers(domain.as_str()))
    }

    /// Whether its key can sign with any of `schemes`: by the kind alone, the key stays closed.
    pub fn signs_any(&self, schemes: &[SignatureScheme]) -> bool {
        self.leaf.key_kind.signs_any(schemes)
    }

    /// What rustls serves. Takes no lock if the key is open. The call that opens it takes tens of microseconds for
    /// ECDSA, hundreds for RSA. `None`: the key does not open.
    pub fn certified_key(&self) -> Option<Arc<CertifiedKey>> {
        match &self.pair {
            Pair::Plain(plain) => plain.opened().cloned(),
            Pair::Sealed(sealed) => sealed.certified_key(&self.leaf),
        }
    }

    /// Opens the key now, so that a damaged private half is found before a handshake needs it.
    ///
    /// # Errors
    /// [`CertificateError::BadKey`]; [`CertificateError::SealedKey`] if it comes from the store.
    pub fn open(&self) -> Result<(), CertificateError> {
        let error = match self.pair {
            Pair::Plain(_) => CertificateError::BadKey,
            Pair::Sealed(_) => CertificateError::SealedKey,
        };
        self.certified_key().map(|_| ()).ok_or(error)
    }

    /// Whether the key opens: tried now if nobody has, so that one that does not is known before a handshake needs it.
    /// That of a sealed one stays closed.
    pub fn opens(&self) -> bool {
        match &self.pair {
            Pair::Plain(plain) => plain.opened().is_some(),
            Pair::Sealed(sealed) => sealed.opens(&self.leaf),
        }
    }

    /// Whether the key has never been asked for.
    #[cfg(test)]
    fn is_closed(&self) -> bool {
        matches!(&self.pair, Pair::Plain(plain) if plain.opened.get().is_none())
    }

    /// Whether the key is known not to open; `false` as long as nobody tried.
    pub fn is_known_broken(&self) -> bool {
        match &self.pair {
            Pair::Plain(plain) => matches!(plain.opened.get(), Some(None)),
            Pair::Sealed(sealed) => sealed.is_known_broken(),
        }
    }
}

/// What the certificate `leaf` says about itself.
///
/// # Errors
/// [`CertificateError::BadCertificate`], [`CertificateError::UnsupportedKey`].
pub fn facts_of(leaf: &CertificateDer<'_>) -> Result<Facts, CertificateError> {
    leaf::parse(leaf).map(|(facts, _)| facts)
}

impl Plain {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|c| c.chain.clone());
        closed.or_else(|| self.opened().map(|key| key.cert.clone())).unwrap_or_default()
    }

    fn opened(&self) -> Option<&Arc<CertifiedKey>> {
        let open = || {
            let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            let key = key::open(&closed.key, closed.chain.first()?);
            if key.is_none() {
                opened::note_change();
            }
            Some(Arc::new(CertifiedKey::new(std::mem::take(&mut closed.chain), key?)))
        };
        self.opened.get_or_init(open).as_ref()
    }
}

/// The facts; never the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.leaf.names)
            .field("key", &self.leaf.key_kind)
            .field("not_before", &self.leaf.not_before.to_string())
            .field("not_after", &self.leaf.not_after.to_string())
            .field("issuer", &self.leaf.issuer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{DAY, NOW, mutated, pair};
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject;

    #[rstest]
    #[case::before(-DAY - 1, false)]
    #[case::first_second(-DAY, true)]
    #[case::last_second(DAY, true)]
    #[case::after(DAY + 1, false)]
    fn it_is_valid_from_the_first_to_the_last_second(#[case] later_secs: i64, #[case] valid: bool) {
        let certificate = pair(&["www.example.com"]).valid(-DAY, DAY).make();
        assert_eq!(certificate.is_valid_at(NOW.plus_secs(later_secs)), valid);
        let within = UnixTime::from_ms(NOW.plus_secs(later_secs).ms() + 999);
        assert_eq!(certificate.is_valid_at(within), valid);
    }

    #[rstest]
    #[case(&["www.example.com"], "www.example.com", true)]
    #[case(&["WWW.Example.COM"], "www.example.com", true)]
    #[case(&["www.example.com"], "example.com", false)]
    #[case(&["a.example.org", "www.example.com"], "www.example.com", true)]
    #[case(&["*.example.com"], "www.example.com", true)]
    #[case(&["*.example.com"], "example.com", false)]
    #[case(&["*.example.com"], "a.b.example.com", false)]
    #[case(&["*.example.com"], "*.example.com", true)]
    #[case(&["*.example.com"], "*.a.example.com", false)]
    #[case(&["www.example.com"], "*.example.com", false)]
    #[case(&["192.0.2.1"], "192.0.2.1", true)]
    #[case(&["192.0.2.1"], "192.0.2.2", false)]
    #[case(&["2001:db8::1"], "2001:db8:0::1", true)]
    #[case(&["*.*.example.com", "f*.example.com", "www.example.com"], "www.example.com", true)]
    #[case(&["f*.example.com"], "foo.example.com", false)]
    #[case(&["xn--mnchen-3ya.example"], "münchen.example", true)]
    fn it_covers(#[case] names: &[&str], #[case] domain: &str, #[case] covers: bool) {
        let certificate = pair(names).make();
        assert_eq!(certificate.covers(&DomainName::parse(domain).unwrap()), covers, "{certificate:?}");
    }

    #[test]
    fn the_common_name_counts_only_where_there_is_no_other() {
        let name = DomainName::parse("www.example.com").unwrap();
        assert!(pair(&[]).common_name("www.example.com").make().covers(&name));
        assert!(!pair(&["a.example.com"]).common_name("www.example.com").make().covers(&name));
    }

    #[test]
    fn the_key_is_opened_once_and_the_chain_stays() {
        let (pair, _) = pair(&["www.example.com"]).chain();
        let certificate = pair.parse();
        let before = certificate.chain();
        assert_eq!(before.len(), 2);
        assert!(Arc::ptr_eq(&certificate.certified_key().unwrap(), &certificate.certified_key().unwrap()));
        assert_eq!(certificate.chain(), before);
        assert_eq!(certificate.certified_key().unwrap().cert, before);
        certificate.certified_key().unwrap().keys_match().unwrap();
    }

    #[test]
    fn an_intermediate_is_kept_once_for_all_chains() {
        let (pair, _) = pair(&["www.example.com"]).chain();
        let (one, two) = (pair.parse().chain(), pair.parse().chain());
        assert_eq!(one, two);
        assert!(std::ptr::eq(one[1].as_ref(), two[1].as_ref()));
    }

    #[test]
    fn debug_output_holds_no_key() {
        let pair = pair(&["www.example.com"]).pem();
        let shown = format!("{:?}", pair.parse());
        assert!(shown.contains("www.example.com") && !shown.contains("PRIVATE") && shown.len() < 300, "{shown}");
    }

    proptest! {
        #[test]
        fn no_der_makes_it_panic(
            edits in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            key_edits in prop::collection::vec((any::<usize>(), any::<u8>()), 0..3),
            cut in prop_oneof![4 => Just(0), 1 => any::<usize>()],
        ) {
            static PAIR: std::sync::LazyLock<(Vec<u8>, Vec<u8>)> = std::sync::LazyLock::new(|| {
                let pair = pair(&["www.example.com", "192.0.2.1"]).pem();
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap().secret_der().to_vec();
                (CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec(), key)
            });
            let cert = CertificateDer::from(mutated(&PAIR.0, &edits, cut));
            let key = PrivatePkcs8KeyDer::from(mutated(&PAIR.1, &key_edits, 0));
            if let Ok(certificate) = Certificate::from_der(vec![cert.clone(), cert], key.into()) {
                let _ = (certificate.is_valid_at(NOW), certificate.open(), format!("{certificate:?}"));
            }
        }
    }
}
