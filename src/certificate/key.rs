//! Keys: of what kind, whose, and what they can sign.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::{Oid, Sequence};
use x509_parser::objects::oid2sn;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519, OidRegistry,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{CertificateError, leaf};

/// Tells the keys of certificates from whatever else is sealed.
const CONTEXT: &[u8] = b"certificate key";

/// What a certificate's key is: all kinds that rustls signs with and clients accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on NIST P-256.
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// ECDSA on NIST P-521.
    EcdsaP521,
    /// Ed25519 (RFC 8410); no public authority certifies it.
    Ed25519,
    /// RSA with a modulus of this many bits: 2048 to 8192.
    Rsa(u16),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::EcdsaP521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
        }
    }
}

impl KeyKind {
    /// Whether a key of this kind can sign with any of `schemes` (RFC 8446, section 4.2.3).
    pub fn signs_any(self, schemes: &[SignatureScheme]) -> bool {
        schemes.iter().any(|scheme| match self {
            Self::EcdsaP256 => *scheme == SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::EcdsaP384 => *scheme == SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::EcdsaP521 => *scheme == SignatureScheme::ECDSA_NISTP521_SHA512,
            Self::Ed25519 => *scheme == SignatureScheme::ED25519,
            Self::Rsa(_) => matches!(
                *scheme,
                SignatureScheme::RSA_PSS_SHA256
                    | SignatureScheme::RSA_PSS_SHA384
                    | SignatureScheme::RSA_PSS_SHA512
                    | SignatureScheme::RSA_PKCS1_SHA256
                    | SignatureScheme::RSA_PKCS1_SHA384
                    | SignatureScheme::RSA_PKCS1_SHA512
            ),
        })
    }

    /// Elliptic curves cost a quarter of RSA's handshake.
    pub(super) fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa(_))
    }

    /// The kind of a public key; the error is the name of an unsupported one.
    pub(super) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, String> {
        let algorithm = &spki.algorithm.algorithm;
        if *algorithm == OID_PKCS1_RSAENCRYPTION {
            return match rsa_bits(spki) {
                // What aws-lc opens; browsers refuse less than 2048, too.
                bits @ 2048..=8192 => Ok(Self::Rsa(bits)),
                bits => Err(format!("RSA {bits}")),
            };
        }
        if *algorithm == OID_SIG_ED25519 {
            return Ok(Self::Ed25519);
        }
        if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            return match curve {
                Some(curve) if curve == OID_EC_P256 => Ok(Self::EcdsaP256),
                Some(curve) if curve == OID_NIST_EC_P384 => Ok(Self::EcdsaP384),
                Some(curve) if curve == OID_NIST_EC_P521 => Ok(Self::EcdsaP521),
                Some(curve) => Err(format!("ECDSA {}", oid_name(&curve))),
                None => Err("ECDSA with a curve of its own".to_owned()),
            };
        }
        Err(oid_name(algorithm))
    }
}

/// The modulus' size; 0 where there is none.
fn rsa_bits(spki: &SubjectPublicKeyInfo<'_>) -> u16 {
    let Ok(PublicKey::RSA(key)) = spki.parsed() else { return 0 };
    let mut octets = key.modulus.iter().skip_while(|octet| **octet == 0);
    let Some(first) = octets.next() else { return 0 };
    let bits = (octets.count() + 1) * 8 - first.leading_zeros() as usize;
    u16::try_from(bits).unwrap_or(u16::MAX)
}

fn oid_name(oid: &Oid<'_>) -> String {
    let registry = OidRegistry::default().with_all_crypto().with_x509();
    oid2sn(oid, &registry).map_or_else(|_| oid.to_id_string(), str::to_owned)
}

/// Checks that `key` is the key of the leaf, whose public half and kind these are; `rest` is the chain behind it.
///
/// A key file nearly always carries its public half: RSA modulus and exponent (RFC 8017, appendix A.1.2), the
/// curve's point (RFC 5915, section 3). If the leaf's is in it, the two belong together, and the key need not be
/// opened, which for RSA costs 300 us and matters where there are very many.
pub(super) fn check_fits(
    key: &PrivateKeyDer<'_>,
    leaf: &PublicHalf,
    certificate: KeyKind,
    rest: &[CertificateDer<'_>],
) -> Result<(), CertificateError> {
    let whole = matches!(Sequence::from_der(key.secret_der()), Ok(([], _)));
    if whole && leaf.is_in(key.secret_der()) {
        return Ok(());
    }
    let signing = any_supported_type(key).map_err(|_| CertificateError::BadKey)?;
    let public = signing.public_key().ok_or(CertificateError::BadKey)?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(public.as_ref()).map_err(|_| CertificateError::BadKey)?;
    let half = PublicHalf::of(&spki);
    if half == *leaf {
        return Ok(());
    }
    let fits = |der: &CertificateDer<'_>| leaf::x509(der).is_ok_and(|it| half == PublicHalf::of(&it.subject_pki));
    match rest.iter().zip(2..).find(|(der, _)| fits(der)) {
        Some((_, position)) => Err(CertificateError::LeafNotFirst { position }),
        None => {
            let key = KeyKind::of(&spki).map_err(|_| CertificateError::BadKey)?;
            Err(CertificateError::KeyMismatch { certificate, key })
        }
    }
}

/// Opens the key and compares both halves with the certificate `leaf`. `None`: damaged, or another's.
pub(super) fn open(key: &PrivateKeyDer<'_>, leaf: &[u8]) -> Option<Arc<dyn SigningKey>> {
    let signing = any_supported_type(key).ok()?;
    let public = signing.public_key()?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(public.as_ref()).ok()?;
    let fits = PublicHalf::of(&spki) == PublicHalf::of(&leaf::x509(leaf).ok()?.subject_pki);
    fits.then_some(signing)
}

/// What the sealed key of the certificate `leaf` is bound to; see [`context_of_spki`]. `None`: that is no certificate.
pub fn context_of_leaf(leaf: &[u8]) -> Option<Vec<u8>> {
    leaf::x509(leaf).ok().map(|certificate| context_of_spki(certificate.subject_pki.raw))
}

/// What a certificate's sealed key is bound to: what it is, and SHA-256 of its public half (DER of a
/// SubjectPublicKeyInfo, RFC 5280, section 4.1.2.7), so that it opens nowhere but beside its own certificate. The same
/// before there is a certificate: an order under way knows its public half.
pub fn context_of_spki(spki_der: &[u8]) -> Vec<u8> {
    [CONTEXT, digest::digest(&digest::SHA256, spki_der).as_ref()].concat()
}

/// A public key without the name of its algorithm, whose parameters some authorities leave out.
#[derive(PartialEq, Eq)]
pub(super) struct PublicHalf {
    /// The content of subjectPublicKey.
    bits: Vec<u8>,
    is_rsa: bool,
}

impl PublicHalf {
    pub(super) fn of(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        let is_rsa = spki.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION;
        Self { bits: spki.subject_public_key.data.to_vec(), is_rsa }
    }

    /// Whether a private key repeats it octet by octet.
    fn is_in(&self, private: &[u8]) -> bool {
        // RSAPublicKey and RSAPrivateKey both hold modulus and exponent side by side, but under headers of their own.
        let integers = || {
            let (_, sequence) = Sequence::from_der(&self.bits).ok()?;
            self.bits.get(self.bits.len().checked_sub(sequence.content.len())?..)
        };
        let part = if self.is_rsa { integers().unwrap_or(&self.bits) } else { &self.bits };
        !part.is_empty() && private.windows(part.len()).any(|window| window == part)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Certificate;
    use super::super::fixture::pair;
    use super::*;
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SignatureAlgorithm};
    use rstest::rstest;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{PrivatePkcs1KeyDer, PrivatePkcs8KeyDer};

    #[rstest]
    #[case(None, KeyKind::EcdsaP256, SignatureScheme::ECDSA_NISTP256_SHA256)]
    #[case(Some(&PKCS_ECDSA_P384_SHA384), KeyKind::EcdsaP384, SignatureScheme::ECDSA_NISTP384_SHA384)]
    #[case(Some(&PKCS_ECDSA_P521_SHA512), KeyKind::EcdsaP521, SignatureScheme::ECDSA_NISTP521_SHA512)]
    #[case(Some(&PKCS_ED25519), KeyKind::Ed25519, SignatureScheme::ED25519)]
    fn kinds_are_told_apart_and_sign_as_rustls_does(
        #[case] algorithm: Option<&'static SignatureAlgorithm>,
        #[case] kind: KeyKind,
        #[case] scheme: SignatureScheme,
    ) {
        let maker = pair(&["www.example.com"]);
        let certificate = algorithm.map_or_else(|| pair(&["www.example.com"]), |it| maker.algorithm(it)).make();
        assert_eq!(certificate.key_kind(), kind);
        assert!(certificate.signs_any(&[SignatureScheme::RSA_PSS_SHA256, scheme]));
        assert!(!certificate.signs_any(&[SignatureScheme::RSA_PSS_SHA256]) && !certificate.signs_any(&[]));
        assert_eq!(certificate.certified_key().unwrap().key.choose_scheme(&[scheme]).unwrap().scheme(), scheme);
    }

    #[test]
    fn rsa_signs_what_rustls_signs_with_it() {
        let certificate = pair(&["www.example.com"]).rsa().make();
        assert_eq!(certificate.key_kind(), KeyKind::Rsa(2048));
        let key = certificate.certified_key().unwrap();
        for scheme in (0..=u16::MAX).map(SignatureScheme::from) {
            assert_eq!(certificate.signs_any(&[scheme]), key.key.choose_scheme(&[scheme]).is_some(), "{scheme:?}");
        }
    }

    #[rstest]
    #[case::pkcs8_without_public_half(include_bytes!("fixture/p256-bare.pem"))]
    #[case::sec1(include_bytes!("fixture/p256-sec1.pem"))]
    fn the_forms_of_one_key_all_fit(#[case] key: &[u8]) {
        let full = include_str!("fixture/p256.pem");
        let pair = pair(&["www.example.com"]).key(full).pem();
        Certificate::from_pem(pair.cert.as_bytes(), key).unwrap().open().unwrap();
    }

    #[test]
    fn pkcs1_fits_without_being_opened() {
        use aws_lc_rs::signature::KeyPair;
        let pair = pair(&["www.example.com"]).rsa().pem();
        let certificate = pair.parse();
        assert!(certificate.is_closed());
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        // The PKCS#8 header before the PKCS#1 key is 26 octets for RSA 2048.
        let pkcs1 = PrivatePkcs1KeyDer::from(key.secret_der()[26..].to_vec());
        aws_lc_rs::rsa::KeyPair::from_der(pkcs1.secret_pkcs1_der()).unwrap().public_key();
        Certificate::from_der(certificate.chain(), pkcs1.into()).unwrap().open().unwrap();
    }

    #[test]
    fn a_damaged_private_half_is_found_when_it_is_opened() {
        let pair = pair(&["www.example.com"]).pem();
        let chain = pair.parse().chain();
        let mut der = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap().secret_der().to_vec();
        der[40] ^= 1;
        let certificate = Certificate::from_der(chain, PrivatePkcs8KeyDer::from(der).into()).unwrap();
        assert!(!certificate.is_known_broken());
        assert_eq!(certificate.open(), Err(CertificateError::BadKey));
        assert!(certificate.is_known_broken() && certificate.certified_key().is_none());
    }
}
