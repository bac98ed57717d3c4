//! Keys, and requests for certificates for them (PKCS#10, RFC 2986).

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256,
    PublicKeyData as _, RsaKeySize, SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::{Zeroize as _, Zeroizing};

use super::error::{AcmeError, ErrorKind};
use crate::issuance::KeyAlgorithm;
use crate::name::{DomainName, Kind};

/// A key, and the request for a certificate for it.
pub struct CertificateRequest {
    /// The key: PKCS#8, DER.
    pub key_pkcs8: Zeroizing<Vec<u8>>,
    /// The request: PKCS#10, DER. Names are in the subject alternative names alone, and the subject is empty: what
    /// authorities put there they choose themselves.
    pub csr_der: Vec<u8>,
    /// The public half: SubjectPublicKeyInfo, DER.
    pub spki_der: Vec<u8>,
}

/// Makes a key, on a thread where that may take a second, and the request of a certificate for `names`.
///
/// # Errors
/// A key of this size cannot be made, or a name cannot stand in a request.
pub async fn request(names: &[DomainName], algorithm: KeyAlgorithm) -> Result<CertificateRequest, AcmeError> {
    let names = names.to_vec();
    let make = move || {
        let key = generate(algorithm)?;
        requested(key, &names)
    };
    tokio::task::spawn_blocking(make).await.map_err(|error| local("the key", &error))?
}

/// The request of a certificate for `names` and a key that was made before (PKCS#8, DER). With an RSA key it takes
/// milliseconds.
///
/// # Errors
/// The key cannot be read, or a name cannot stand in a request.
pub fn csr_for(key_pkcs8: &[u8], names: &[DomainName]) -> Result<CertificateRequest, AcmeError> {
    requested(open(key_pkcs8)?, names)
}

/// The public half of a key (PKCS#8, DER): SubjectPublicKeyInfo, DER.
///
/// # Errors
/// The key cannot be read.
pub fn spki_of(key_pkcs8: &[u8]) -> Result<Vec<u8>, AcmeError> {
    let mut key = open(key_pkcs8)?;
    let spki = key.subject_public_key_info();
    key.zeroize();
    Ok(spki)
}

fn open(key_pkcs8: &[u8]) -> Result<KeyPair, AcmeError> {
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(key_pkcs8)).map_err(|error| local("the key", &error))
}

fn generate(algorithm: KeyAlgorithm) -> Result<KeyPair, AcmeError> {
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
    let made = match algorithm {
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyAlgorithm::Rsa(2048) => rsa(RsaKeySize::_2048),
        KeyAlgorithm::Rsa(3072) => rsa(RsaKeySize::_3072),
        KeyAlgorithm::Rsa(4096) => rsa(RsaKeySize::_4096),
        KeyAlgorithm::Rsa(bits) => {
            let words = format!("an RSA key of {bits} bits is not made: 2048, 3072 and 4096 are");
            return Err(AcmeError::new(ErrorKind::Local, &words));
        }
    };
    made.map_err(|error| local("the key", &error))
}

fn requested(mut key: KeyPair, names: &[DomainName]) -> Result<CertificateRequest, AcmeError> {
    let key_pkcs8 = Zeroizing::new(key.serialized_der().to_vec());
    let spki_der = key.subject_public_key_info();
    let csr = names.iter().map(alternative_name).collect::<Result<Vec<_>, _>>().and_then(|names| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.serialize_request(&key)
    });
    key.zeroize();
    let csr = csr.map_err(|error| local("the request", &error))?;
    Ok(CertificateRequest { key_pkcs8, csr_der: csr.der().to_vec(), spki_der })
}

fn alternative_name(name: &DomainName) -> Result<SanType, rcgen::Error> {
    Ok(match name.kind() {
        Kind::Ip(address) => SanType::IpAddress(address),
        Kind::Exact | Kind::Wildcard => SanType::DnsName(name.as_str().try_into()?),
    })
}

fn local(what: &str, error: &dyn std::error::Error) -> AcmeError {
    AcmeError::new(ErrorKind::Local, &format!("{what} cannot be made or read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::ParsedExtension;
    use x509_parser::prelude::FromDer as _;

    #[rstest]
    #[case(KeyAlgorithm::EcdsaP256)]
    #[case(KeyAlgorithm::EcdsaP384)]
    #[case(KeyAlgorithm::Rsa(2048))]
    #[tokio::test]
    async fn a_request_names_all_and_is_the_same_for_the_key_kept(#[case] algorithm: KeyAlgorithm) {
        let names =
            ["*.example.com", "example.com", "192.0.2.1", "2001:db8::1"].map(|it| DomainName::parse(it).unwrap());
        let made = request(&names, algorithm).await.unwrap();
        let again = csr_for(&made.key_pkcs8, &names).unwrap();
        assert_eq!(spki_of(&made.key_pkcs8).unwrap(), made.spki_der);
        assert_eq!(again.key_pkcs8, made.key_pkcs8);
        for request in [&made, &again] {
            let (_, csr) = X509CertificationRequest::from_der(&request.csr_der).unwrap();
            let info = &csr.certification_request_info;
            assert_eq!(info.subject_pki.raw, made.spki_der);
            assert_eq!(info.subject.iter().count(), 0);
            let shown: Vec<String> = csr
                .requested_extensions()
                .unwrap()
                .filter_map(|extension| match extension {
                    ParsedExtension::SubjectAlternativeName(san) => Some(san.general_names.len().to_string()),
                    _ => None,
                })
                .collect();
            assert_eq!(shown, ["4"]);
        }
    }

    #[rstest]
    #[case(KeyAlgorithm::Rsa(1024))]
    #[case(KeyAlgorithm::Rsa(0))]
    #[tokio::test]
    async fn weak_keys_are_not_made(#[case] algorithm: KeyAlgorithm) {
        let name = DomainName::parse("example.com").unwrap();
        let error = request(&[name], algorithm).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Local);
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        assert_eq!(spki_of(b"no key").unwrap_err().kind(), ErrorKind::Local);
    }
}
