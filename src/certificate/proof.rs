//! Proof that a certificate serves: a real handshake inside the process, by a client that looks closely.
//!
//! A certificate that nobody has used yet is believed only after this: one that is kept for a bad day must not turn out
//! to be useless on that day.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig, ServerConnection, SideData,
};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};

use super::{Certificate, HoldsKey, leaf};
use crate::clock::UnixTime;
use crate::name::{DomainName, Kind};

/// Flights in one direction at most. TLS 1.3 needs two, and one more where the client is asked to say hello again.
const MAX_FLIGHTS: usize = 8;

/// Why a certificate would not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not yet, or no longer.
    #[error("the certificate is valid from {not_before} to {not_after}, not at {now}")]
    NotValid {
        /// The first second.
        not_before: UnixTime,
        /// The last second.
        not_after: UnixTime,
        /// The second asked about.
        now: UnixTime,
    },
    /// The key does not open, or is another's.
    #[error("the key of the certificate does not open")]
    NoKey,
    /// A certificate behind the leaf cannot be read, or is not valid.
    #[error("certificate {position} of the chain is no good: {reason}")]
    BadLink {
        /// Which, from 1, the leaf.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates do not lead from one to the next.
    #[error("the certificates of the chain do not sign each other: {reason}")]
    BrokenChain {
        /// What webpki says.
        reason: String,
    },
    /// A client of this name would refuse it.
    #[error("the certificate is not for {name}: {reason}")]
    WrongName {
        /// Which of those asked for.
        name: DomainName,
        /// What webpki says.
        reason: String,
    },
    /// Another leaf came over the wire than the one meant.
    #[error("the handshake for {name} showed another certificate")]
    OtherLeaf {
        /// Which of those asked for.
        name: DomainName,
    },
    /// The handshake failed otherwise.
    #[error("the handshake for {name} failed: {reason}")]
    Handshake {
        /// Which of those asked for.
        name: DomainName,
        /// What rustls says.
        reason: String,
    },
}

/// Shakes hands with `certificate` once for each of `names`, as a client at `now` would that does not know the authority
/// but checks everything else: that the leaf on the wire is this one, valid and for the name, that each certificate of
/// the chain is signed by the next, and that the key is the leaf's. For a wildcard it asks for a name below it.
///
/// A chain of one has nobody to have signed it; all else is checked. Opens the key.
///
/// # Errors
/// [`ProofError`] says what is wrong, and for which name.
pub fn prove(certificate: &Certificate, names: &[DomainName], now: UnixTime) -> Result<(), ProofError> {
    if !certificate.is_valid_at(now) {
        let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
        return Err(ProofError::NotValid { not_before, not_after, now });
    }
    let chain = certificate.chain();
    check_chain(&chain, now)?;
    let key = certificate.certified_key().ok_or(ProofError::NoKey)?;
    let leaf = chain.first().ok_or(ProofError::NoKey)?;
    for name in names {
        let failed = |error: rustls::Error| ProofError::Handshake { name: name.clone(), reason: error.to_string() };
        let wanted = server_name(name).map_err(|error| failed(rustls::Error::General(error.to_string())))?;
        check_name(leaf, name, &wanted)?;
        if shown_leaf(Arc::clone(&key), wanted).map_err(failed)?.as_ref() != Some(leaf) {
            return Err(ProofError::OtherLeaf { name: name.clone() });
        }
    }
    Ok(())
}

/// Shakes hands as a client of `wanted` with a server that has `key`. Gives back what the server showed.
fn shown_leaf(
    key: Arc<CertifiedKey>,
    wanted: ServerName<'static>,
) -> Result<Option<CertificateDer<'static>>, rustls::Error> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut server = builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    // The rest is looked at outside of the handshake, where it can be said better what is wrong.
    let verifier = Arc::new(HoldsKey::new(provider));
    let mut client = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    client.resumption = Resumption::disabled();
    let mut client = ClientConnection::new(Arc::new(client), wanted)?;
    shake_hands(&mut client, &mut ServerConnection::new(Arc::new(server))?)?;
    Ok(client.peer_certificates().and_then(<[_]>::first).cloned())
}

/// Checks what lies behind the leaf: each certificate's dates and who signed whom. The last one is taken for trusted,
/// as nothing here says which authorities clients know.
fn check_chain(chain: &[CertificateDer<'static>], now: UnixTime) -> Result<(), ProofError> {
    let (Some((last, others)), true) = (chain.split_last(), chain.len() > 1) else { return Ok(()) };
    for (der, position) in chain.iter().zip(1..).skip(1) {
        let bad = |reason: String| ProofError::BadLink { position, reason };
        let link = leaf::x509(der).map_err(|error| bad(error.to_string()))?;
        let (begin, end) = (link.validity.not_before.timestamp(), link.validity.not_after.timestamp());
        // A root that was sent along is what clients have anyway, and they do not look at its dates.
        let is_root = link.subject.as_raw() == link.issuer.as_raw();
        if !is_root && !(begin..=end).contains(&now.secs()) {
            let [begin, end] = [begin, end].map(UnixTime::from_secs);
            return Err(bad(format!("it is valid from {begin} to {end}")));
        }
    }
    let broken = |error: rustls::Error| ProofError::BrokenChain { reason: error.to_string() };
    let mut roots = RootCertStore::empty();
    roots.add(last.clone()).map_err(broken)?;
    let (leaf, intermediates) = others.split_first().unwrap_or((last, &[]));
    let secs = u64::try_from(now.secs()).unwrap_or_default();
    let now = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(secs));
    let algorithms = default_provider().signature_verification_algorithms.all;
    let leaf = ParsedCertificate::try_from(leaf).map_err(broken)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms).map_err(broken)
}

fn check_name(leaf: &CertificateDer<'_>, name: &DomainName, wanted: &ServerName<'_>) -> Result<(), ProofError> {
    let wrong = |error: rustls::Error| ProofError::WrongName { name: name.clone(), reason: error.to_string() };
    verify_server_name(&ParsedCertificate::try_from(leaf).map_err(wrong)?, wanted).map_err(wrong)
}

/// What a client of `name` asks for: under a wildcard, the shortest name that it covers.
fn server_name(name: &DomainName) -> Result<ServerName<'static>, InvalidDnsNameError> {
    match (name.kind(), name.wildcard_parent()) {
        (Kind::Ip(address), _) => Ok(ServerName::IpAddress(address.into())),
        (_, Some(parent)) => ServerName::try_from(format!("x.{parent}")),
        _ => ServerName::try_from(name.as_str().to_owned()),
    }
}

/// Carries what each has to say to the other until both are content.
fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    for _ in 0..MAX_FLIGHTS {
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
        carry(client, server)?;
        carry(server, client)?;
    }
    Err(rustls::Error::HandshakeNotComplete)
}

/// Carries one flight.
fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let general = |error: std::io::Error| rustls::Error::General(error.to_string());
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).map_err(general)?;
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).map_err(general)?;
        to.process_new_packets()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::OpenedKeys;
    use super::super::fixture::{DAY, NOW, Pair, TestVault, pair};
    use super::*;
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use rstest::rstest;
    use std::sync::atomic::Ordering;

    const WWW: &[&str] = &["www.example.com"];

    fn check(pair: &Pair, names: &[&str], expected: Result<(), &str>) {
        let names: Vec<_> = names.iter().map(|name| DomainName::parse(name).unwrap()).collect();
        let proven = prove(&pair.parse(), &names, NOW).map_err(|error| error.to_string());
        match (&proven, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(expected)) if error.starts_with(expected) => {}
            _ => panic!("{proven:?} instead of {expected:?}"),
        }
    }

    #[rstest]
    #[case::a_name(pair(WWW).pem(), WWW)]
    #[case::a_chain(pair(WWW).chain().0, WWW)]
    #[case::a_long_chain(pair(WWW).long_chain(-DAY, DAY), WWW)]
    #[case::several(pair(&["a.example.com", "b.example.com"]).pem(), &["b.example.com", "a.example.com"])]
    #[case::a_wildcard(pair(&["*.example.com"]).pem(), &["*.example.com", "www.example.com"])]
    #[case::addresses(pair(&["192.0.2.1", "2001:db8::1"]).pem(), &["192.0.2.1", "2001:db8::1"])]
    #[case::an_underscore(pair(&["a_b.example.com"]).pem(), &["a_b.example.com"])]
    #[case::rsa(pair(WWW).rsa().chain().0, WWW)]
    #[case::p384(pair(WWW).algorithm(&PKCS_ECDSA_P384_SHA384).pem(), WWW)]
    #[case::ed25519(pair(WWW).algorithm(&PKCS_ED25519).pem(), WWW)]
    fn what_serves_is_proven(#[case] pair: Pair, #[case] names: &[&str]) {
        check(&pair, names, Ok(()));
    }

    #[rstest]
    #[case::expired(pair(WWW).valid(-9 * DAY, -1).pem(), "the certificate is valid from")]
    #[case::not_begun(pair(WWW).valid(1, DAY).pem(), "the certificate is valid from")]
    #[case::another_name(pair(&["example.com"]).pem(), "the certificate is not for www.example.com")]
    #[case::common_name_only(pair(&[]).common_name("www.example.com").pem(), "the certificate is not for www")]
    #[case::intermediate_expired(pair(WWW).long_chain(-9 * DAY, -1), "certificate 2 of the chain is no good: it is valid")]
    #[case::intermediate_not_begun(pair(WWW).long_chain(1, DAY), "certificate 2 of the chain is no good")]
    #[case::signed_by_another(stranger(), "the certificates of the chain do not sign each other")]
    #[case::root_too_soon(gap(), "the certificates of the chain do not sign each other")]
    fn what_clients_would_refuse_is_not(#[case] pair: Pair, #[case] expected: &str) {
        check(&pair, WWW, Err(expected));
    }

    /// Of two chains the first leaf and the second authority, which has the same name.
    fn stranger() -> Pair {
        let (pair, other) = (pair(WWW).chain().0, pair(WWW).chain().0);
        let (leaf, _) = pair.cert.split_at(pair.cert.rfind("-----BEGIN").unwrap());
        Pair { cert: leaf.to_owned() + &other.cert[other.cert.rfind("-----BEGIN").unwrap()..], key: pair.key }
    }

    /// The intermediate is missing.
    fn gap() -> Pair {
        let pair = pair(WWW).long_chain(-DAY, DAY);
        let second = 1 + pair.cert[1..].find("-----BEGIN").unwrap();
        let third = pair.cert.rfind("-----BEGIN").unwrap();
        Pair { cert: pair.cert[..second].to_owned() + &pair.cert[third..], key: pair.key }
    }

    #[test]
    fn a_key_that_stays_sealed_proves_nothing() {
        let vault = Arc::new(TestVault::default());
        let keys = OpenedKeys::new(Arc::clone(&vault) as _, 1);
        vault.is_locked.store(true, Ordering::Relaxed);
        let certificate = pair(WWW).pem().stored().sealed(&keys);
        assert_eq!(prove(&certificate, &[], NOW), Err(ProofError::NoKey));
        vault.is_locked.store(false, Ordering::Relaxed);
        keys.close_all();
        prove(&certificate, &[DomainName::parse("www.example.com").unwrap()], NOW).unwrap();
    }

    #[test]
    fn a_server_without_the_leafs_key_is_found_out() {
        let [one, two] = [(), ()].map(|()| pair(WWW).make().certified_key().unwrap());
        let name = || ServerName::try_from("www.example.com").unwrap();
        assert_eq!(shown_leaf(Arc::clone(&one), name()).unwrap().as_ref(), one.cert.first());
        let mixed = CertifiedKey::new(one.cert.clone(), Arc::clone(&two.key));
        shown_leaf(Arc::new(mixed), name()).unwrap_err();
    }
}
