//! What a leaf says about itself.

use std::net::IpAddr;

use aws_lc_rs::digest;
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, SubjectAlternativeName};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer;

use super::key::PublicHalf;
use super::{CertificateError, KeyKind};
use crate::clock::UnixTime;
use crate::name::{DomainName, Kind};
use crate::text::SharedText;

/// The longest issuer kept, in characters; a public one has about 50.
const MAX_ISSUER_CHARS: usize = 256;

/// The facts of a leaf, so that a handshake compares numbers and names and parses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// See [`super::Certificate::names`].
    pub names: Box<[DomainName]>,
    /// The first second at which it is valid.
    pub not_before: UnixTime,
    /// The last second at which it is valid.
    pub not_after: UnixTime,
    /// The issuer's distinguished name; one text for all certificates of the inventory that have the same, and a pointer
    /// without a length, because each has one.
    pub issuer: SharedText,
    /// What key it certifies.
    pub key_kind: KeyKind,
}

/// SHA-256 of a leaf's DER: what browsers and CT logs show as a certificate's fingerprint.
pub fn fingerprint(leaf: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.iter_mut().zip(digest::digest(&digest::SHA256, leaf).as_ref()).for_each(|(to, from)| *to = *from);
    fingerprint
}

/// Reads the facts of the certificate `der`, the first of its chain, and its public key.
pub(super) fn parse(der: &[u8]) -> Result<(Facts, PublicHalf), CertificateError> {
    let bad = |error: X509Error| CertificateError::BadCertificate { position: 1, reason: error.to_string() };
    let certificate = x509(der).map_err(bad)?;
    let key_kind = KeyKind::of(&certificate.subject_pki).map_err(|kind| CertificateError::UnsupportedKey { kind })?;
    let validity = &certificate.validity;
    let leaf = Facts {
        names: names(&certificate).map_err(bad)?,
        not_before: UnixTime::from_secs(validity.not_before.timestamp()),
        not_after: UnixTime::from_secs(validity.not_after.timestamp()),
        issuer: printable(&certificate.issuer.to_string()).into(),
        key_kind,
    };
    Ok((leaf, PublicHalf::of(&certificate.subject_pki)))
}

/// Parses one whole certificate, its extensions only as far as they are asked for: that is a third of the time.
pub(super) fn x509(der: &[u8]) -> Result<X509Certificate<'_>, X509Error> {
    match X509CertificateParser::new().with_deep_parse_extensions(false).parse(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(X509Error::InvalidCertificate),
        Err(x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error)) => Err(error),
        Err(x509_parser::nom::Err::Incomplete(_)) => Err(X509Error::InvalidCertificate),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Result<Box<[DomainName]>, X509Error> {
    let Some(extension) = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)? else {
        // Browsers ignore the common name (RFC 9525, section 6.3); old private authorities write nothing else.
        let common_names = certificate.subject.iter_common_name().filter_map(|name| name.as_str().ok());
        return Ok(common_names.filter_map(|name| DomainName::parse(name).ok()).collect());
    };
    let (_, names) = SubjectAlternativeName::from_der(extension.value).map_err(|_| X509Error::InvalidExtensions)?;
    Ok(names.general_names.iter().filter_map(name).collect())
}

/// A dNSName or iPAddress as a domain's name. An address written as dNSName stands for nothing: clients compare
/// addresses with iPAddress alone (RFC 9525, section 6.5).
fn name(name: &GeneralName<'_>) -> Option<DomainName> {
    match name {
        GeneralName::DNSName(text) => DomainName::parse(text).ok().filter(|name| !matches!(name.kind(), Kind::Ip(_))),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)).ok()?;
            DomainName::parse(&address.to_string()).ok()
        }
        _ => None,
    }
}

/// What a stranger's certificate says goes to logs and pages: without control characters, and not endless.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_ISSUER_CHARS).collect()
}
