//! The ways by which a domain can be looked at: each listener, each family of its addresses, each kind of key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustls::SignatureScheme;

use crate::certificate::{CertificateSet, Choice};
use crate::clock::UnixTime;
use crate::name::{DomainName, Kind};

/// Where a name of this kind is asked for by `listeners`: all of them, those on every address by the nearest.
pub(super) fn addresses(listeners: &[SocketAddr], kind: Kind) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = listeners.iter().flat_map(|listener| by(*listener, kind)).flatten().collect();
    let mut seen = Vec::new();
    addresses.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    addresses
}

fn by(listener: SocketAddr, kind: Kind) -> [Option<SocketAddr>; 2] {
    let at = |ip: IpAddr| Some(SocketAddr::new(ip, listener.port()));
    let (v4, v6) = (at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into()));
    match (listener.ip(), kind) {
        // Who is served by address is asked for there; whether that is one of this machine's shows when it is tried.
        (any, Kind::Ip(ip)) if any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4()) => [at(ip), None],
        (one, Kind::Ip(ip)) if one.to_canonical() == ip => [at(ip), None],
        (_, Kind::Ip(_)) => [None, None],
        (IpAddr::V4(any), _) if any.is_unspecified() => [v4, None],
        // `[::]` is dual-stack.
        (IpAddr::V6(any), _) if any.is_unspecified() => [v4, v6],
        _ => [Some(listener), None],
    }
}

/// What a client verifies by which a domain is looked at, from all that we know, `known`: where it has a certificate for
/// elliptic curves and one for RSA, the one and the other in turn.
pub(super) fn offers(
    (domain, certificates): (&DomainName, &CertificateSet),
    now: UnixTime,
    known: &[SignatureScheme],
) -> Vec<Vec<SignatureScheme>> {
    let (rsa, curves): (Vec<_>, Vec<_>) = known.iter().partition(|scheme| is_rsa(**scheme));
    let suits = |choice: Choice, schemes: &[_]| choice.certificate.signs_any(schemes);
    let has = |schemes: &[_]| certificates.choose(domain, now, schemes).is_some_and(|choice| suits(choice, schemes));
    if has(&rsa) && has(&curves) { vec![curves, rsa] } else { vec![known.to_vec()] }
}

fn is_rsa(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::RSA_PSS_SHA256
            | SignatureScheme::RSA_PSS_SHA384
            | SignatureScheme::RSA_PSS_SHA512
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
            | SignatureScheme::RSA_PKCS1_SHA1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::one("www.example.com", &["192.0.2.1:443"], &["192.0.2.1:443"])]
    #[case::all_of_them("www.example.com", &["0.0.0.0:443", "[2001:db8::1]:8443"], &["127.0.0.1:443", "[2001:db8::1]:8443"])]
    #[case::both_families("*.example.com", &["[::]:443"], &["127.0.0.1:443", "[::1]:443"])]
    #[case::each_once("www.example.com", &["0.0.0.0:443", "127.0.0.1:443"], &["127.0.0.1:443"])]
    #[case::address("192.0.2.1", &["0.0.0.0:443", "192.0.2.1:444", "192.0.2.2:445"], &["192.0.2.1:443", "192.0.2.1:444"])]
    #[case::address_on_dual_stack("192.0.2.1", &["[::]:443"], &["192.0.2.1:443"])]
    #[case::other_family("2001:db8::1", &["0.0.0.0:443"], &[])]
    fn a_name_is_asked_for_by_each_way(#[case] name: &str, #[case] listeners: &[&str], #[case] expected: &[&str]) {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let kind = DomainName::parse(name).unwrap().kind();
        assert_eq!(addresses(&parse(listeners), kind), parse(expected));
    }
}
