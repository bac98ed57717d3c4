//! What a certificate says that serving it does not need, for people who look at it.

use std::fmt;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::leaf::{printable, x509};

/// How its authority made sure of its subject: CA/Browser Forum Baseline Requirements, section 7.1.6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Validation {
    /// Domain validated.
    Domain,
    /// Organization validated.
    Organization,
    /// Individual validated.
    Individual,
    /// Extended validation.
    Extended,
    /// It names none of these policies: no public authority issued it.
    Internal,
}

/// The policies of the CA/Browser Forum, the strictest first.
const POLICIES: [(&str, Validation); 4] = [
    ("2.23.140.1.1", Validation::Extended),
    ("2.23.140.1.2.2", Validation::Organization),
    ("2.23.140.1.2.3", Validation::Individual),
    ("2.23.140.1.2.1", Validation::Domain),
];

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Domain => "DV",
            Self::Organization => "OV",
            Self::Individual => "IV",
            Self::Extended => "EV",
            Self::Internal => "internal",
        })
    }
}

/// The serial number of the certificate `leaf`, big-endian, as its issuer wrote it. `None`: that is no certificate.
pub fn serial(leaf: &CertificateDer<'_>) -> Option<Vec<u8>> {
    x509(leaf).ok().map(|certificate| certificate.raw_serial().to_vec())
}

/// How the subject of `leaf` was validated. `None`: it is no certificate.
pub fn validation(leaf: &CertificateDer<'_>) -> Option<Validation> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let named: Vec<String> = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CertificatePolicies(policies) => Some(policies),
            _ => None,
        })
        .flatten()
        .map(|policy| policy.policy_id.to_id_string())
        .collect();
    let of = |(oid, validation): &(&str, Validation)| named.iter().any(|it| it == oid).then_some(*validation);
    Some(POLICIES.iter().find_map(of).unwrap_or(Validation::Internal))
}

/// The distinguished names of a certificate's subject and issuer, as `C=US, O=Let's Encrypt, CN=E7`. `None`: it is no
/// certificate.
pub fn subject_and_issuer(der: &CertificateDer<'_>) -> Option<(String, String)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some((printable(&certificate.subject.to_string()), printable(&certificate.issuer.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CustomExtension, KeyPair};
    use rstest::rstest;

    /// A certificate with these policies: DER of OBJECT IDENTIFIERs.
    fn with_policies(oids: &[&[u8]]) -> CertificateDer<'static> {
        let tlv = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()][..], body].concat();
        let policies: Vec<u8> = oids.iter().flat_map(|oid| tlv(0x30, &tlv(6, oid))).collect();
        let mut params = CertificateParams::new(["www.example.com".to_owned()]).unwrap();
        if !oids.is_empty() {
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 32], tlv(0x30, &policies));
            params.custom_extensions.push(extension);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// 2.23.140.1 and what follows.
    const EV: &[u8] = &[0x67, 0x81, 0x0c, 1, 1];
    const DV: &[u8] = &[0x67, 0x81, 0x0c, 1, 2, 1];
    const OV: &[u8] = &[0x67, 0x81, 0x0c, 1, 2, 2];
    const IV: &[u8] = &[0x67, 0x81, 0x0c, 1, 2, 3];
    /// An authority's own.
    const OWN: &[u8] = &[0x2b, 6, 1, 4, 1, 1];

    #[rstest]
    #[case(&[DV], "DV")]
    #[case(&[OV], "OV")]
    #[case(&[IV], "IV")]
    #[case(&[EV], "EV")]
    #[case(&[OWN, OV], "OV")]
    #[case(&[DV, EV], "EV")]
    #[case(&[OWN], "internal")]
    #[case(&[], "internal")]
    fn the_policies_say_how_it_was_validated(#[case] oids: &[&[u8]], #[case] expected: &str) {
        assert_eq!(validation(&with_policies(oids)).unwrap().to_string(), expected);
    }

    #[test]
    fn names_are_for_people_and_garbage_has_none() {
        let (subject, issuer) = subject_and_issuer(&with_policies(&[])).unwrap();
        assert_eq!((subject.as_str(), issuer.as_str()), ("CN=rcgen self signed cert", "CN=rcgen self signed cert"));
        assert_eq!(subject_and_issuer(&CertificateDer::from(vec![0x30, 0])), None);
        assert_eq!(validation(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
