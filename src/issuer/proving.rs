//! The certificate that proves control over a name on port 443 (RFC 8737).

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::name::{DomainName, Kind};

/// A self-signed certificate for `name` that carries the digest of a key authorization, and the server name by which an
/// authority asks for it. `None`: the system has no randomness.
pub fn proof_certificate(name: &DomainName, digest: &[u8; 32]) -> Option<(String, Arc<CertifiedKey>)> {
    let (san, server_name) = match name.kind() {
        Kind::Ip(address) => (SanType::IpAddress(address), reverse(address)),
        Kind::Exact | Kind::Wildcard => (SanType::DnsName(name.as_str().try_into().ok()?), name.as_str().to_owned()),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![san];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let signing = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der()))).ok()?;
    Some((server_name, Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing))))
}

/// An address as a server name can say it (RFC 8738, section 6).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("www.example.com", "www.example.com")]
    #[case("192.0.2.1", "1.2.0.192.in-addr.arpa")]
    #[case("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa")]
    fn it_is_asked_for_by_the_name_or_the_reversed_address(#[case] name: &str, #[case] server_name: &str) {
        let (asked, key) = proof_certificate(&DomainName::parse(name).unwrap(), &[7; 32]).unwrap();
        assert_eq!(asked, server_name);
        let (_, certificate) = x509_parser::parse_x509_certificate(&key.cert[0]).unwrap();
        // rustls's own comparison refuses to read a certificate with a critical extension that it does not know.
        assert_eq!(key.key.public_key().unwrap().as_ref(), certificate.public_key().raw);
        let proof = certificate.extensions().iter().find(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(proof.critical);
        assert_eq!(proof.value, [&[4, 32][..], &[7; 32]].concat());
    }
}
