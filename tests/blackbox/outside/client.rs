//! An ACME client by the library that the program uses too, so that a CA of the harness is tried without the program.

use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use instant_acme::{
    Account, AccountBuilder, BodyWrapper, BytesResponse, CertificateIdentifier, ChallengeType, Error,
    ExternalAccountKey, HttpClient, Identifier, KeyAuthorization, NewAccount, NewOrder, Order, OrderStatus,
    RenewalInfo, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::{Builder, Runtime};

use crate::harness::PATIENCE;

/// Polls fast, and gives up when a test would.
const POLLS: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(20)).backoff(1.5).timeout(PATIENCE);

/// HTTPS that trusts one root.
struct Https(reqwest::Client);

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let request = Request::from_parts(head, body).try_into().unwrap();
            let response = client.execute(request).await.map_err(|e| Error::Other(Box::new(e)))?;
            Ok(BytesResponse::from(http::Response::<reqwest::Body>::from(response)))
        })
    }
}

/// An account at a CA.
pub struct Client {
    runtime: Runtime,
    account: Account,
    pub polls: RetryPolicy,
}

/// What a CA handed out.
#[derive(Debug)]
pub struct Issued {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub pem: String,
    pub key: KeyPair,
}

impl Issued {
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    pub fn ari_id(&self) -> CertificateIdentifier<'static> {
        CertificateIdentifier::try_from(self.leaf()).unwrap().into_owned()
    }
}

/// What an order is for.
#[derive(Clone, Copy, Default)]
pub struct Wish<'a> {
    pub names: &'a [&'a str],
    pub profile: Option<&'a str>,
    pub replaces: Option<&'a Issued>,
}

impl Client {
    pub fn register(directory: String, ca_file: &Path, external: Option<(&str, &[u8])>) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let key = external.map(|(kid, key)| ExternalAccountKey::new(kid.to_owned(), key));
        let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
        let create = https(ca_file).create(&new, directory, key.as_ref());
        let (account, _) = runtime.block_on(create)?;
        Ok(Self { runtime, account, polls: POLLS })
    }

    /// Orders, proves each name by `prove`, and fetches the certificate.
    pub fn issue(
        &self,
        wish: Wish<'_>,
        by: ChallengeType,
        mut prove: impl AsyncFnMut(&str, &str, KeyAuthorization),
    ) -> Result<Issued, Error> {
        self.runtime.block_on(async {
            let mut order = self.order(wish).await?;
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let mut authorization = authorization?;
                if authorization.status == instant_acme::AuthorizationStatus::Valid {
                    continue;
                }
                let name = authorization.identifier().to_string();
                let mut challenge = authorization.challenge(by.clone()).expect("this kind of challenge");
                prove(&name, &challenge.token, challenge.key_authorization()).await;
                challenge.set_ready().await?;
            }
            if order.poll_ready(&self.polls).await? == OrderStatus::Invalid {
                return Err(failed(&mut order).await);
            }
            let mut params = CertificateParams::new(wish.names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            params.as_mut().unwrap().distinguished_name = DistinguishedName::new();
            let key = KeyPair::generate().unwrap();
            order.finalize_csr(params.unwrap().serialize_request(&key).unwrap().der()).await?;
            let pem = order.poll_certificate(&self.polls).await?;
            let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
            Ok(Issued { chain: chain.map_err(|e| Error::Other(Box::new(e)))?, pem, key })
        })
    }

    /// [`Client::issue`] from a CA that takes any proof.
    pub fn get(&self, wish: Wish<'_>) -> Result<Issued, Error> {
        self.issue(wish, ChallengeType::Http01, async |_, _, _| {})
    }

    pub fn renewal_info(&self, issued: &Issued) -> Result<(RenewalInfo, Duration), Error> {
        self.runtime.block_on(self.account.renewal_info(&issued.ari_id()))
    }

    pub fn profiles(&self) -> Vec<String> {
        self.account.profiles().map(|profile| profile.name.to_owned()).collect()
    }

    async fn order(&self, wish: Wish<'_>) -> Result<Order, Error> {
        let identifiers: Vec<_> = wish.names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect();
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = wish.profile {
            new = new.profile(profile);
        }
        if let Some(replaces) = wish.replaces {
            new = new.replaces(replaces.ari_id());
        }
        self.account.new_order(&new).await
    }
}

/// What a challenge says of why its order is invalid.
async fn failed(order: &mut Order) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.unwrap();
        let problem = authorization.refresh().await.unwrap().challenges.iter().find_map(|c| c.error.clone());
        if let Some(problem) = problem {
            return Error::Api(problem);
        }
    }
    Error::Str("invalid without a reason")
}

fn https(ca_file: &Path) -> AccountBuilder {
    let root = reqwest::Certificate::from_pem(&fs::read(ca_file).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().timeout(PATIENCE).build().unwrap();
    Account::builder_with_http(Box::new(Https(client)))
}

/// The last word of the problem's type, and its detail.
pub fn problem_of<T>(result: Result<T, Error>) -> (String, String) {
    match result.err().expect("a refusal") {
        Error::Api(problem) => {
            let kind = problem.r#type.unwrap_or_default();
            let kind = kind.strip_prefix("urn:ietf:params:acme:error:").expect("an ACME error type");
            (kind.to_owned(), problem.detail.unwrap_or_default())
        }
        other => panic!("no problem document: {other}"),
    }
}
