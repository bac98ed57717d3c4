//! A certification authority for tests, and certificates as clients see them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd,
};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::clock::utc;

/// A certification authority; its files live as long as anything that it issued.
#[derive(Clone)]
pub struct Pki {
    inner: Arc<Inner>,
}

struct Inner {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicUsize,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Lockgate Test CA");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("CA");
        let dir = TempDir::new().expect("temporary folder");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("CA file");
        Self { inner: Arc::new(Inner { dir, issuer, issued: AtomicUsize::new(0) }) }
    }

    /// The file that clients trust.
    pub fn ca_file(&self) -> PathBuf {
        self.inner.dir.path().join("ca.pem")
    }

    /// An ECDSA certificate for one name, valid at any date of these tests.
    pub fn leaf(&self, name: &str) -> Leaf {
        self.issue(&[name]).leaf()
    }

    /// Begins a certificate for these names (host names, wildcards, addresses).
    pub fn issue(&self, names: &[&str]) -> Issue {
        let mut params =
            CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, *names.first().expect("a name"));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2045, 1, 1);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Issue { pki: self.clone(), params, rsa: false }
    }
}

/// A certificate in the making.
pub struct Issue {
    pki: Pki,
    params: CertificateParams,
    rsa: bool,
}

impl Issue {
    /// With an RSA key of 2048 bits instead of an ECDSA one.
    pub fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    /// Valid from that second on.
    pub fn from(mut self, date: &str) -> Self {
        self.params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(date);
        self
    }

    /// Valid up to and including that second.
    pub fn until(mut self, date: &str) -> Self {
        self.params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(date);
        self
    }

    /// Signs it and writes its files.
    pub fn leaf(self) -> Leaf {
        let key = if self.rsa {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        } else {
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        };
        let key = key.expect("key");
        let certificate = self.params.signed_by(&key, &self.pki.inner.issuer).expect("certificate");
        let serial = self.pki.inner.issued.fetch_add(1, Ordering::Relaxed);
        let at = |ending| self.pki.inner.dir.path().join(format!("leaf-{serial}.{ending}"));
        let leaf = Leaf { cert: at("pem"), key: at("key"), der: certificate.der().to_vec(), pki: self.pki.clone() };
        fs::write(&leaf.cert, certificate.pem() + &self.pki.inner.issuer.pem()).expect("certificate file");
        fs::write(&leaf.key, key.serialize_pem()).expect("key file");
        leaf
    }
}

fn since_epoch(date: &str) -> Duration {
    Duration::from_secs(utc(date).unsigned_abs())
}

/// An issued certificate with its key, on disk.
#[derive(Clone)]
pub struct Leaf {
    /// The chain, leaf first.
    pub cert: PathBuf,
    pub key: PathBuf,
    pub der: Vec<u8>,
    /// Keeps the files alive, and says whom to trust.
    pub pki: Pki,
}

impl Leaf {
    /// Puts `fresh` where this one was, as a renewal does: each file renamed into place.
    pub fn replace_with(&self, fresh: &Leaf) {
        put(&self.key, &fs::read(&fresh.key).expect("key file"));
        put(&self.cert, &fs::read(&fresh.cert).expect("certificate file"));
    }

    /// Puts something that is no certificate where this one was.
    pub fn break_file(&self) {
        put(&self.cert, b"-----BEGIN CERTIFICATE-----\nno such thing\n");
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.cert.display(), Presented::parse(&self.der))
    }
}

fn put(at: &Path, bytes: &[u8]) {
    let fresh = at.with_extension("new");
    fs::write(&fresh, bytes).expect("write");
    fs::rename(&fresh, at).expect("rename");
}

/// A leaf certificate as a server presented it.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    pub der: Vec<u8>,
    pub names: Vec<String>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds; valid up to and including this one.
    pub not_after: i64,
    pub rsa: bool,
}

impl Presented {
    #[track_caller]
    pub fn parse(der: &[u8]) -> Self {
        let (_, leaf) = X509Certificate::from_der(der).expect("a certificate");
        let names = leaf.subject_alternative_name().ok().flatten().map(|ext| ext.value.general_names.iter());
        let names = names.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            &GeneralName::IPAddress(&[a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
            _ => None,
        });
        Self {
            names: names.collect(),
            not_before: leaf.validity().not_before.timestamp(),
            not_after: leaf.validity().not_after.timestamp(),
            rsa: matches!(leaf.public_key().parsed(), Ok(x509_parser::public_key::PublicKey::RSA(_))),
            der: der.to_vec(),
        }
    }
}

/// Without the bytes: names and dates tell certificates apart.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, not_before, not_after, rsa, der } = self;
        let id = der.iter().rev().take(4).fold(0, |id, byte| id << 8 | u32::from(*byte));
        write!(f, "{{{names:?} {not_before}..={not_after} rsa: {rsa} #{id:08x}}}")
    }
}

/// Presented is what was issued.
impl PartialEq<Leaf> for Presented {
    fn eq(&self, leaf: &Leaf) -> bool {
        self.der == leaf.der
    }
}
