//! Issuing with a real authority.

use rstest::rstest;
use zeroize::Zeroizing;

use super::pebble::Pebble;
use super::*;
use crate::clock;
use crate::issuance::{Challenge, Eab, KeyAlgorithm};
use crate::secret::SecretSource;

const NO_BAD_NONCES: (&str, &str) = ("PEBBLE_WFE_NONCEREJECT", "0");

async fn register(pebble: &Pebble, key: &[u8]) -> Account {
    Account::register(&pebble.authority(), key, None).await.unwrap()
}

#[rstest]
#[case::one_name(&["www.example.com"], KeyAlgorithm::EcdsaP256, "0")]
#[case::wildcard_and_apex(&["*.example.com", "example.com"], KeyAlgorithm::EcdsaP384, "0")]
#[case::address(&["127.0.0.1", "::1"], KeyAlgorithm::EcdsaP256, "0")]
#[case::rsa(&["www.example.com"], KeyAlgorithm::Rsa(2048), "0")]
#[case::bad_nonces(&["a.example.com", "b.example.com", "c.example.com"], KeyAlgorithm::EcdsaP256, "50")]
#[tokio::test]
async fn a_certificate_is_issued(#[case] asked: &[&str], #[case] key: KeyAlgorithm, #[case] bad_nonces: &str) {
    let pebble = Pebble::start(&[("PEBBLE_WFE_NONCEREJECT", bad_nonces)], "");
    let account = register(&pebble, &account_key().unwrap()).await;
    let names = names(asked);
    let mut order = account.order(&names, Some("unheard-of"), None).await.unwrap();
    assert_eq!(order.status(), Status::Pending);
    let mut proofs = order.pending().await.unwrap();
    proofs.sort_by(|a, b| (&a.name, !a.is_wildcard).cmp(&(&b.name, !b.is_wildcard)));
    let shown: Vec<String> =
        proofs.iter().map(|it| format!("{}{}", if it.is_wildcard { "*." } else { "" }, it.name)).collect();
    let mut expected: Vec<&str> = asked.to_vec();
    expected.sort();
    assert_eq!(shown, expected);
    for proof in &proofs {
        let is_for = |challenge| proof.offer(challenge).is_some();
        assert!(is_for(Challenge::Dns01) || !proof.is_wildcard);
        assert_eq!(is_for(Challenge::Http01), !proof.is_wildcard);
        let end = format!(".{}", account.thumbprint());
        assert!(proof.offers.iter().all(|it| it.key_authorization == format!("{}{end}", it.token)));
    }
    let request = request(&names, key).await.unwrap();
    let chain = issue(&mut order, &request).await.unwrap();
    assert_eq!((order.status(), chain.len()), (Status::Valid, 2));
    check_issued(&chain, &request.spki_der, &names, clock::now()).unwrap();
    // Not offered by this authority.
    assert_eq!(account.renewal_window(&chain[0]).await.unwrap(), None);
    // What is done is done: none of this does anything.
    order.settled(PATIENCE, PATIENCE).await.unwrap();
    order.finalize(&request.csr_der).await.unwrap();
    assert_eq!(order.certificate(PATIENCE, None).await.unwrap(), chain);
    // And what cannot be counted as replaced is ordered all the same.
    account.order(&names, None, Some(&chain[0])).await.unwrap();
}

#[tokio::test]
async fn an_order_survives_restarts_at_every_step() {
    let pebble = Pebble::start(&[NO_BAD_NONCES], "");
    let key_pkcs8 = account_key().unwrap();
    let first = register(&pebble, &key_pkcs8).await;
    let known = KnownAccount { url: first.url().to_owned(), key_pkcs8 };
    let names = names(&["www.example.com"]);
    let request = request(&names, KeyAlgorithm::EcdsaP256).await.unwrap();
    let url = first.order(&names, None, None).await.unwrap().url().to_owned();
    // Everything but the account, the order's URL and the key is forgotten in between.
    let resumed = async || {
        let account = Account::enter(&pebble.authority(), &known).await.unwrap();
        assert!(account.url() == first.url() && account.thumbprint() == first.thumbprint());
        account.resume(&url, &names).await.unwrap()
    };
    let mut order = resumed().await;
    let proofs = order.pending().await.unwrap();
    assert_eq!(proofs.len(), 1);
    order.ready(&proofs[0], Challenge::Http01).await.unwrap();
    let mut order = resumed().await;
    order.settled(PATIENCE, PATIENCE).await.unwrap();
    let mut order = resumed().await;
    assert_eq!((order.status(), order.pending().await.unwrap()), (Status::Ready, vec![]));
    order.finalize(&csr_for(&request.key_pkcs8, &names).unwrap().csr_der).await.unwrap();
    let chain = resumed().await.certificate(PATIENCE, None).await.unwrap();
    check_issued(&chain, &request.spki_der, &names, clock::now()).unwrap();

    // The same key is the same account.
    assert_eq!(register(&pebble, &known.key_pkcs8).await.url(), first.url());
    let other = register(&pebble, &account_key().unwrap()).await;
    assert_eq!(other.resume(&url, &names).await.unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(first.resume(&format!("{url}x"), &names).await.unwrap_err().kind(), ErrorKind::Gone);
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_told_apart() {
    let mut pebble = Pebble::start(&[NO_BAD_NONCES], "");
    let key_pkcs8 = account_key().unwrap();
    let known = KnownAccount { url: register(&pebble, &key_pkcs8).await.url().to_owned(), key_pkcs8 };
    pebble.forget_everything();
    let account = Account::enter(&pebble.authority(), &known).await.unwrap();
    let error = account.order(&names(&["www.example.com"]), None, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccountGone, "{error}");
    let error = account.resume(&format!("https://{}/my-order/1", pebble.api), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccountGone, "{error}");
}

#[rstest]
#[case::right("kid-1", Some("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"), "")]
#[case::white_space("kid-1", Some(" zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n"), "")]
#[case::another_key("kid-1", Some("AAAAZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"), "urn:ietf")]
#[case::unknown("kid-3", Some("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"), "urn:ietf")]
#[case::no_base64("kid-1", Some("not base64url!"), "not base64url")]
#[case::empty("kid-1", Some(""), "not base64url")]
#[case::missing("kid-1", None, "missing")]
#[case::no_account_at_all("", None, "urn:ietf")]
#[tokio::test]
async fn an_external_account_opens_the_door(#[case] kid: &str, #[case] key: Option<&str>, #[case] words: &str) {
    let more = r#", "externalAccountBindingRequired": true, "externalAccountMACKeys":
        {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}"#;
    let pebble = Pebble::start(&[NO_BAD_NONCES], more);
    let mut authority = pebble.authority();
    if !kid.is_empty() {
        authority.eab = Some(Eab { kid: kid.to_owned(), hmac_key: SecretSource::Env("UNUSED".to_owned()) });
    }
    let key = key.map(|key| Zeroizing::new(key.as_bytes().to_vec()));
    match Account::register(&authority, &account_key().unwrap(), key).await {
        Ok(_) => assert!(words.is_empty()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ExternalAccountRequired, "{error}");
            assert!(!words.is_empty() && error.problem().contains(words), "{error}");
            assert!(error.advice().contains("hmac_key"));
        }
    }
}

#[tokio::test]
async fn of_several_chains_the_preferred_one_is_taken() {
    let pebble = Pebble::start(&[("PEBBLE_ALTERNATE_ROOTS", "2"), NO_BAD_NONCES], "");
    let root = reqwest::Certificate::from_der(&pebble.root).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let mut roots = Vec::new();
    for number in 0..3 {
        let url = format!("https://{}/roots/{number}", pebble.management);
        let pem = client.get(url).send().await.unwrap().text().await.unwrap();
        let der = issued::chain(pem.as_bytes()).unwrap().remove(0);
        let (_, root) = x509_parser::parse_x509_certificate(&der).unwrap();
        roots.push(root.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned());
    }
    let account = register(&pebble, &account_key().unwrap()).await;
    let names = names(&["www.example.com"]);
    let request = request(&names, KeyAlgorithm::EcdsaP256).await.unwrap();
    let mut order = account.order(&names, None, None).await.unwrap();
    let usual = issue(&mut order, &request).await.unwrap();
    assert!(issued::is_issued_by(&usual, &roots[0]));
    for root in &roots {
        let chain = order.certificate(PATIENCE, Some(root)).await.unwrap();
        assert!(issued::is_issued_by(&chain, root), "{root}");
        assert_eq!(chain[0], usual[0]);
    }
    assert_eq!(order.certificate(PATIENCE, Some("nobody")).await.unwrap(), usual);
}
