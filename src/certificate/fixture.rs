//! Certificates for tests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
    SignatureAlgorithm, date_time_ymd,
};

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{Certificate, Facts, OpenedKeys, OpensKeys};
use crate::clock::UnixTime;

/// The second around which the tests' certificates are valid.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const DAY: i64 = 86_400;

/// Making an RSA key takes longer than all other tests together: one is enough.
static RSA: LazyLock<String> =
    LazyLock::new(|| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap().serialize_pem());

/// A pair to be made.
pub(crate) struct Maker {
    params: CertificateParams,
    key: KeyPair,
}

/// The two files of a pair.
pub(crate) struct Pair {
    pub cert: String,
    pub key: String,
}

/// A P-256 pair for `names`, valid ten days around [`NOW`].
pub(crate) fn pair(names: &[&str]) -> Maker {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a test");
    Maker { params, key: KeyPair::generate().unwrap() }.valid(-10 * DAY, 10 * DAY)
}

impl Maker {
    /// Valid from so many seconds after [`NOW`] until so many.
    pub(crate) fn valid(mut self, from: i64, to: i64) -> Self {
        let at =
            |secs| date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(NOW.plus_secs(secs).secs()).unwrap());
        self.params.not_before = at(from);
        self.params.not_after = at(to);
        self
    }

    pub(crate) fn algorithm(mut self, algorithm: &'static SignatureAlgorithm) -> Self {
        self.key = KeyPair::generate_for(algorithm).unwrap();
        self
    }

    pub(crate) fn rsa(mut self) -> Self {
        self.key = KeyPair::from_pem(&RSA).unwrap();
        self
    }

    pub(crate) fn key(mut self, pem: &str) -> Self {
        self.key = KeyPair::from_pem(pem).unwrap();
        self
    }

    pub(crate) fn common_name(mut self, name: &str) -> Self {
        self.params.distinguished_name.push(DnType::CommonName, name);
        self
    }

    pub(crate) fn pem(self) -> Pair {
        let cert = self.params.self_signed(&self.key).unwrap().pem();
        Pair { cert, key: self.key.serialize_pem() }
    }

    /// With the certificate of the authority that signed it behind it; and the authority's key.
    pub(crate) fn chain(self) -> (Pair, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let key_pem = key.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let leaf = self.params.signed_by(&self.key, &issuer).unwrap();
        (Pair { cert: leaf.pem() + &issuer.pem(), key: self.key.serialize_pem() }, key_pem)
    }

    /// With an intermediate, valid so many seconds around [`NOW`], and the root that signed it behind it.
    pub(crate) fn long_chain(self, from: i64, to: i64) -> Pair {
        let ca = |name: &str| {
            let mut maker = pair(&[]).valid(-1000 * DAY, 1000 * DAY).common_name(name);
            maker.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            maker
        };
        let (root, intermediate) = (ca("a root"), ca("an intermediate").valid(from, to));
        let root = CertifiedIssuer::self_signed(root.params, root.key).unwrap();
        let intermediate = CertifiedIssuer::signed_by(intermediate.params, intermediate.key, &root).unwrap();
        let leaf = self.params.signed_by(&self.key, &intermediate).unwrap();
        Pair { cert: leaf.pem() + &intermediate.pem() + &root.pem(), key: self.key.serialize_pem() }
    }

    pub(crate) fn make(self) -> Arc<Certificate> {
        Arc::new(self.pem().parse())
    }
}

impl Pair {
    pub(crate) fn parse(&self) -> Certificate {
        Certificate::from_pem(self.cert.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

/// `text` with some octets replaced and up to an eighth of it cut off.
pub(crate) fn mutated(text: &[u8], edits: &[(usize, u8)], cut: usize) -> Vec<u8> {
    let mut text = text.to_vec();
    for (at, byte) in edits {
        let len = text.len();
        text[at % len] = *byte;
    }
    text.truncate(text.len() - (cut % text.len()) / 8);
    text
}

/// A vault that seals by writing the context in front. It can be locked, and counts how often it was asked.
#[derive(Default)]
pub(crate) struct TestVault {
    pub is_locked: AtomicBool,
    pub asked: AtomicUsize,
}

impl OpensKeys for TestVault {
    fn open_key(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let key = sealed.strip_prefix(context)?;
        (!self.is_locked.load(Ordering::Relaxed)).then(|| Zeroizing::new(key.to_vec()))
    }
}

/// What a store would keep of a certificate.
#[derive(Clone)]
pub(crate) struct Stored {
    pub facts: Facts,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
}

impl Pair {
    /// Sealed with [`TestVault`].
    pub(crate) fn stored(&self) -> Stored {
        let chain = super::pem::chain(self.cert.as_bytes()).unwrap();
        let key = super::pem::key(self.key.as_bytes()).unwrap();
        let context = super::key_context_of_leaf(&chain[0]).unwrap();
        Stored { facts: super::facts_of(&chain[0]).unwrap(), key: [&context, key.secret_der()].concat(), chain }
    }
}

impl Stored {
    pub(crate) fn sealed(self, keys: &Arc<OpenedKeys>) -> Arc<Certificate> {
        Arc::new(Certificate::sealed(self.facts, &self.chain, &self.key, Arc::clone(keys)))
    }
}
