//! Against a real authority, and against one that does everything wrong.

pub(crate) mod fake;
mod hostile;
mod pebble;
mod real;

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rstest::rstest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::http::Limits;
use super::*;
use crate::certificate::fixture::{DAY, NOW, Pair, pair};

/// What tests wait for at most; everything is on this machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn authority(directory: &str, root: Option<&CertificateDer<'static>>) -> Authority {
    Authority {
        name: "test".to_owned(),
        directory: directory.to_owned(),
        roots: root.map(|root| Arc::from([root.clone()])),
        email: Some("ops@example.com".to_owned()),
        eab: None,
        profile: None,
        preferred_chain: None,
        is_standby_only: false,
    }
}

fn names(of: &[&str]) -> Vec<DomainName> {
    of.iter().map(|name| DomainName::parse(name).unwrap()).collect()
}

/// A root, and a certificate of it for servers on this machine: root DER, chain PEM, key PEM.
fn server_certificate() -> (CertificateDer<'static>, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    (issuer.der().clone(), leaf.pem(), key.serialize_pem())
}

/// A certificate that names its issuer's key, as all public ones do; and the path at which its renewal is asked for.
pub(crate) fn renewable() -> (Pair, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["www.example.com".to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let path = format!("/renewal/{}", CertificateIdentifier::try_from(leaf.der()).unwrap());
    (Pair { cert: leaf.pem(), key: key.serialize_pem() }, path)
}

/// From the order's proofs to the certificate.
async fn issue(order: &mut Order, csr: &CertificateRequest) -> Result<Vec<CertificateDer<'static>>, AcmeError> {
    for proof in order.pending().await? {
        let challenge = proof.offers[0].challenge;
        order.ready(&proof, challenge).await?;
        order.ready(&proof, challenge).await?;
    }
    order.settled(PATIENCE, PATIENCE).await?;
    order.finalize(&csr.csr_der).await?;
    order.certificate(PATIENCE, None).await
}

#[rstest]
#[case::as_asked(&["a.example.com"], &["a.example.com"], -DAY, 90 * DAY, true)]
#[case::by_wildcard(&["*.example.com", "example.com"], &["*.example.com", "example.com"], -DAY, DAY, true)]
#[case::address(&["192.0.2.1"], &["192.0.2.1"], -DAY, DAY, true)]
#[case::begins_soon(&["a.example.com"], &["a.example.com"], DAY, 2 * DAY, true)]
#[case::ends_now(&["a.example.com"], &["a.example.com"], -DAY, 0, true)]
#[case::a_name_too_few(&["a.example.com"], &["a.example.com", "b.example.com"], -DAY, DAY, false)]
#[case::another_wildcard(&["*.b.example.com"], &["*.example.com"], -DAY, DAY, false)]
#[case::expired(&["a.example.com"], &["a.example.com"], -DAY, -1, false)]
#[case::begins_late(&["a.example.com"], &["a.example.com"], DAY + 1, 2 * DAY, false)]
#[case::ends_before_it_begins(&["a.example.com"], &["a.example.com"], 10, 5, false)]
fn what_was_issued_is_held_against_what_was_asked_for(
    #[case] certified: &[&str],
    #[case] asked: &[&str],
    #[case] from: i64,
    #[case] to: i64,
    #[case] good: bool,
) {
    let pair = pair(certified).valid(from, to).pem();
    let chain = issued::chain(pair.cert.as_bytes()).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let spki = spki_of(key.secret_pkcs8_der()).unwrap();
    let checked = check_issued(&chain, &spki, &names(asked), NOW);
    assert_eq!(checked.is_ok(), good, "{checked:?}");
    let other = spki_of(KeyPair::generate().unwrap().serialized_der()).unwrap();
    assert_eq!(check_issued(&chain, &other, &names(asked), NOW).unwrap_err().kind(), ErrorKind::Nonsense);
    let long = vec![chain[0].clone(); crate::certificate::MAX_CHAIN + 1];
    assert_eq!(check_issued(&long, &spki, &names(asked), NOW).unwrap_err().kind(), ErrorKind::Nonsense);
    let odd = [chain[0].clone(), CertificateDer::from(b"no certificate".to_vec())];
    assert_eq!(check_issued(&odd, &spki, &names(asked), NOW).unwrap_err().kind(), ErrorKind::Nonsense);
    assert_eq!(check_issued(&[], &spki, &names(asked), NOW).unwrap_err().kind(), ErrorKind::Nonsense);
}

/// Orders are worked on by spawned tasks.
#[test]
fn everything_may_go_from_thread_to_thread() {
    fn may<T: Send>(_: T) {
        let _ = std::mem::size_of::<T>();
    }
    fn all(account: &Account, order: &'static mut Order, proof: &Proof, leaf: &CertificateDer<'_>) {
        may(Account::register(&authority("", None), &[], None));
        may(account.order(&[], None, Some(leaf)));
        may(account.resume("", &[]));
        may(account.renewal_window(leaf));
        may(async move {
            order.pending().await?;
            order.ready(proof, crate::issuance::Challenge::Http01).await?;
            order.settled(PATIENCE, PATIENCE).await?;
            order.finalize(&[]).await?;
            order.certificate(PATIENCE, None).await
        });
    }
    let _ = all;
}
