//! What an authority issued: taken apart, and held against what was asked for.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::error::AcmeError;
use crate::certificate::MAX_CHAIN;
use crate::clock::UnixTime;
use crate::name::{DomainName, Kind};

/// By how much a certificate may begin later than now: the clock here, or there, may be wrong.
const START_SLACK_SECS: i64 = 24 * 3600;

/// The certificates of a PEM text, leaf first (RFC 8555, section 9.1): at least one, at most [`MAX_CHAIN`], each X.509.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AcmeError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        chain.push(certificate.map_err(|_| AcmeError::nonsense("the chain that the authority sent is no PEM"))?);
        if chain.len() > MAX_CHAIN {
            return Err(AcmeError::nonsense(&format!(
                "the authority sent a chain of more than {MAX_CHAIN} certificates"
            )));
        }
    }
    if chain.is_empty() {
        return Err(AcmeError::nonsense("the authority sent no certificate where one should be"));
    }
    chain.iter().try_for_each(|der| parse(der).map(|_| ()))?;
    Ok(chain)
}

/// Whether a certificate of the chain was issued by somebody of this common name.
pub(super) fn is_issued_by(chain: &[CertificateDer<'_>], common_name: &str) -> bool {
    chain.iter().filter_map(|der| parse(der).ok()).any(|certificate| {
        certificate.issuer().iter_common_name().any(|name| name.as_str().is_ok_and(|name| name == common_name))
    })
}

/// Holds a chain (leaf first) against what was asked for: the leaf is for the key with this public half
/// (SubjectPublicKeyInfo, DER), covers all `names`, and may be used at `now`, or begins within a day of it.
///
/// # Errors
/// [`super::ErrorKind::Nonsense`], saying what is wrong.
pub fn check_issued(
    chain: &[CertificateDer<'_>],
    spki_der: &[u8],
    names: &[DomainName],
    now: UnixTime,
) -> Result<(), AcmeError> {
    if chain.len() > MAX_CHAIN {
        return Err(AcmeError::nonsense(&format!("the authority sent a chain of more than {MAX_CHAIN} certificates")));
    }
    let Some((leaf, rest)) = chain.split_first() else {
        return Err(AcmeError::nonsense("the authority sent no certificate where one should be"));
    };
    rest.iter().try_for_each(|der| parse(der).map(|_| ()))?;
    let leaf = parse(leaf)?;
    if leaf.public_key().raw != spki_der {
        return Err(AcmeError::nonsense(
            "the certificate that the authority sent is for another key than the one asked for",
        ));
    }
    let covered = names_of(&leaf)?;
    if let Some(missing) = names.iter().find(|name| !covered.iter().any(|it| it.covers(name.as_str()))) {
        let words = format!("the certificate that the authority sent is not for {missing}, which was asked for");
        return Err(AcmeError::nonsense(&words).about(missing.as_str(), None));
    }
    let validity = leaf.validity();
    let not_before = UnixTime::from_secs(validity.not_before.timestamp());
    let not_after = UnixTime::from_secs(validity.not_after.timestamp());
    let is_good = not_before <= not_after && not_before <= now.plus_secs(START_SLACK_SECS) && now <= not_after;
    if !is_good {
        let words = format!(
            "the certificate that the authority sent is valid from {not_before} to {not_after}, and it is {now} now"
        );
        return Err(AcmeError::nonsense(&words));
    }
    Ok(())
}

fn parse<'c>(der: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, AcmeError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(AcmeError::nonsense("the authority sent something that is no X.509 certificate")),
    }
}

/// The names in the subject alternative names: browsers look at nothing else (RFC 9525, section 6.3).
fn names_of(leaf: &X509Certificate<'_>) -> Result<Vec<DomainName>, AcmeError> {
    let names = leaf.subject_alternative_name();
    let Ok(Some(names)) = names else {
        return Err(AcmeError::nonsense("the certificate that the authority sent has no subject alternative names"));
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) => DomainName::parse(text).ok().filter(|name| !matches!(name.kind(), Kind::Ip(_))),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)).ok()?;
            DomainName::parse(&address.to_string()).ok()
        }
        _ => None,
    };
    Ok(names.value.general_names.iter().filter_map(name).collect())
}
