//! An order under way: proofs, waiting, the request, the certificate (RFC 8555, sections 7.4 and 7.5).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{AuthorizationStatus, OrderStatus};
use rustls_pki_types::CertificateDer;
use tokio::time::sleep;

use super::call::call;
use super::error::{AcmeError, Context, ErrorKind};
use super::issued;
use super::proof::{Authorization, Proof, is_answered, library_type};
use super::waiting::{FIRST_PAUSE, Waiting, is_transient};
use crate::issuance::Challenge;
use crate::name::DomainName;

/// Names in one order: the most that any well-known authority takes is 250.
const MAX_AUTHORIZATIONS: usize = 256;
/// Other chains that are looked at for the preferred one.
const MAX_ALTERNATES: usize = 8;
/// While the order is pending, every so many looks its authorizations are looked at, too: one may have failed already.
const LOOKS_PER_AUTHORIZATION: usize = 4;
/// How often a request is made that comes too early (`orderNotReady`) or whose answer was lost.
const FINALIZE_ROUNDS: usize = 5;

/// How far an order is (RFC 8555, section 7.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Something is still to be proved.
    Pending,
    /// The request may be made.
    Ready,
    /// The certificate is being made.
    Processing,
    /// The certificate is there.
    Valid,
    /// It will never be.
    Invalid,
}

/// An order under way. It is known by its URL, which outlives the process: see [`super::Account::resume`].
pub struct Order {
    inner: instant_acme::Order,
    account: instant_acme::Account,
    context: Arc<Context>,
    /// What was ordered: for nothing else anything is proved.
    names: Vec<DomainName>,
    status: Status,
    /// Whether nobody looked at what the authority said last.
    is_fresh: bool,
    /// URLs of the challenges that were announced.
    announced: HashSet<String>,
}

impl Order {
    pub(super) fn open(
        inner: instant_acme::Order,
        account: instant_acme::Account,
        context: Arc<Context>,
        names: &[DomainName],
    ) -> Result<Self, AcmeError> {
        let (names, announced) = (names.to_vec(), HashSet::new());
        let mut order = Self { inner, account, context, names, status: Status::Pending, is_fresh: true, announced };
        order.read_status();
        let names = order.inner.state().authorizations.len();
        if names > MAX_AUTHORIZATIONS {
            let words = format!("the authority wants {names} proofs for one order");
            return Err(AcmeError::nonsense(&words));
        }
        Ok(order)
    }

    /// Its URL: enough to go on with it after a restart.
    pub fn url(&self) -> &str {
        self.inner.url()
    }

    /// How far it was when the authority was asked last.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What is still to be proved. What the authority still believes from before is left out.
    ///
    /// # Errors
    /// The authority's own words if a proof has failed, or the order for another reason.
    pub async fn pending(&mut self) -> Result<Vec<Proof>, AcmeError> {
        if !std::mem::take(&mut self.is_fresh) {
            self.refresh().await?;
        }
        match self.status {
            Status::Pending => {}
            Status::Invalid => return Err(self.cause().await),
            Status::Ready | Status::Processing | Status::Valid => return Ok(Vec::new()),
        }
        let mut proofs = Vec::new();
        for at in 0..self.authorizations() {
            let authorization = self.authorization(at).await?;
            match authorization.status {
                AuthorizationStatus::Valid => {}
                AuthorizationStatus::Pending => {
                    let proof = authorization.proof(self.account.key_thumbprint())?;
                    self.check_ordered(&proof.name)?;
                    proofs.push(proof);
                }
                _ => return Err(authorization.failure(&self.context)),
            }
        }
        Ok(proofs)
    }

    /// Tells the authority that the answer to this challenge can be looked for; at most once for each challenge,
    /// however often it is called.
    ///
    /// # Errors
    /// The authority cannot be reached or refuses; then it may be called again.
    pub async fn ready(&mut self, proof: &Proof, challenge: Challenge) -> Result<(), AcmeError> {
        let Some(offer) = proof.offer(challenge) else {
            let words = format!("the authority offers no {challenge} for {}", proof.name);
            let refused = AcmeError::new(ErrorKind::Refused, &words).about(proof.name.as_str(), Some(challenge));
            return Err(refused.below(proof.is_wildcard));
        };
        if self.announced.contains(&offer.url) {
            return Ok(());
        }
        let inner = &mut self.inner;
        let called = call!(async {
            let mut authorizations = inner.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let mut authorization = authorization?;
                if authorization.url() != proof.authorization_url {
                    continue;
                }
                let mut found = authorization.challenge(library_type(challenge));
                return match &mut found {
                    Some(found) if found.url == offer.url && is_answered(found.status) => Ok(()),
                    Some(found) => found.set_ready().await,
                    None => Err(instant_acme::Error::Str("the challenge is no longer on offer")),
                };
            }
            Err(instant_acme::Error::Str("the authorization is no longer part of the order"))
        });
        let told = self.context.judge(called);
        let about = |error: AcmeError| error.about(proof.name.as_str(), Some(challenge)).below(proof.is_wildcard);
        told.map_err(about)?;
        self.announced.insert(offer.url.clone());
        Ok(())
    }

    /// Waits until all is proved, at most for `patience`; where the authority says that it takes longer, until then, at
    /// most for `longest`: it may look for what is on show at any moment before.
    ///
    /// # Errors
    /// The authority's own words for the name whose proof failed; [`ErrorKind::Timeout`].
    pub async fn settled(&mut self, patience: Duration, longest: Duration) -> Result<(), AcmeError> {
        let mut waiting = Waiting::new(patience, "the authority has not checked the proofs").stretching_to(longest);
        loop {
            self.look(&mut waiting).await?;
            match self.status {
                Status::Ready | Status::Processing | Status::Valid => return Ok(()),
                Status::Invalid => return Err(self.cause().await),
                Status::Pending if waiting.looks.is_multiple_of(LOOKS_PER_AUTHORIZATION) => {
                    match waiting.within(self.failure()).await? {
                        Ok(Some(failure)) => return Err(failure),
                        Ok(None) => {}
                        Err(error) => waiting.note(Err(error))?,
                    }
                }
                Status::Pending => {}
            }
            waiting.pause().await?;
        }
    }

    /// Makes the request (PKCS#10, DER). An order whose request was made before is left as it is: its certificate will
    /// be for the key of that request.
    ///
    /// # Errors
    /// The authority's own words.
    pub async fn finalize(&mut self, csr_der: &[u8]) -> Result<(), AcmeError> {
        let mut pause = FIRST_PAUSE;
        let mut failure = None;
        for _ in 0..FINALIZE_ROUNDS {
            match self.status {
                Status::Processing | Status::Valid => return Ok(()),
                Status::Invalid => return Err(self.cause().await),
                Status::Pending | Status::Ready => {}
            }
            let inner = &mut self.inner;
            let (result, answer) = call!(inner.finalize_csr(csr_der));
            let is_early = matches!(&result, Err(instant_acme::Error::Api(problem))
                if super::error::is_type(problem, "orderNotReady"));
            let error = match result {
                Ok(()) => {
                    self.read_status();
                    return if self.status == Status::Invalid { Err(self.cause().await) } else { Ok(()) };
                }
                Err(error) => self.context.error(error, &answer),
            };
            // Too early by a moment, or nobody knows whether it arrived: what the order says now tells.
            if !is_early && !is_transient(&error) {
                return Err(error);
            }
            sleep(pause).await;
            pause *= 2;
            if self.refresh().await.is_err() {
                return Err(error);
            }
            failure = Some(error);
        }
        match self.status {
            Status::Processing | Status::Valid => Ok(()),
            _ => Err(failure.unwrap_or_else(|| AcmeError::nonsense("the order cannot be finalized"))),
        }
    }

    /// Waits for the certificate, at most for `patience`, and fetches it: leaf first. Of several chains the first in
    /// which a certificate's issuer has the common name `preferred_chain`, else the authority's own choice.
    ///
    /// What it is for is not looked at: see [`super::check_issued`].
    ///
    /// # Errors
    /// The authority's own words; [`ErrorKind::Timeout`]; [`ErrorKind::Nonsense`] for what is no chain.
    pub async fn certificate(
        &mut self,
        patience: Duration,
        preferred_chain: Option<&str>,
    ) -> Result<Vec<CertificateDer<'static>>, AcmeError> {
        let mut waiting = Waiting::new(patience, "the authority has not issued the certificate");
        while self.status != Status::Valid {
            self.look(&mut waiting).await?;
            match self.status {
                Status::Valid => break,
                Status::Invalid => return Err(self.cause().await),
                // An order that looks unfinished right after it was finalized was read from a copy that lags behind.
                Status::Pending | Status::Ready | Status::Processing => waiting.pause().await?,
            }
        }
        let inner = &mut self.inner;
        let (text, answer) = self.context.judge(call!(inner.certificate()))?;
        let chain = issued::chain(text.unwrap_or_default().as_bytes())?;
        let Some(preferred) = preferred_chain.filter(|preferred| !issued::is_issued_by(&chain, preferred)) else {
            return Ok(chain);
        };
        for url in answer.alternates.iter().take(MAX_ALTERNATES) {
            if let Some(other) = self.alternate(url).await
                && other.first() == chain.first()
                && issued::is_issued_by(&other, preferred)
            {
                return Ok(other);
            }
        }
        let authority = &self.context.authority;
        tracing::warn!(authority, preferred, "the authority offers no such chain: its own choice is taken");
        Ok(chain)
    }

    /// Another chain for the same leaf. The library neither shows the links to them nor fetches one; but an order is
    /// fetched from any URL by the very request that a chain is fetched by (POST-as-GET, RFC 8555, section 6.3), nonces
    /// included. That what comes is no order is the library's error, and what came our HTTP client saw.
    async fn alternate(&self, url: &str) -> Option<Vec<CertificateDer<'static>>> {
        let (_, answer) = call!(self.account.order(url.to_owned()));
        issued::chain(&answer.body).ok().filter(|_| answer.is_success())
    }

    async fn refresh(&mut self) -> Result<Option<Duration>, AcmeError> {
        let inner = &mut self.inner;
        let result = call!(async { inner.refresh().await.map(|_| ()) });
        let ((), answer) = self.context.judge(result)?;
        self.read_status();
        Ok(answer.retry_after)
    }

    /// Asks how far the order is.
    async fn look(&mut self, waiting: &mut Waiting) -> Result<(), AcmeError> {
        let looked = waiting.within(self.refresh()).await?;
        waiting.note(looked)
    }

    fn read_status(&mut self) {
        self.status = match self.inner.state().status {
            OrderStatus::Pending => Status::Pending,
            OrderStatus::Ready => Status::Ready,
            OrderStatus::Processing => Status::Processing,
            OrderStatus::Valid => Status::Valid,
            OrderStatus::Invalid => Status::Invalid,
        };
    }

    /// A record that is set, or a file that is shown, speaks for a name: not at the whim of an authority.
    fn check_ordered(&self, name: &DomainName) -> Result<(), AcmeError> {
        let is = |ordered: &DomainName| ordered == name || ordered.wildcard_parent() == Some(name.as_str());
        if self.names.iter().any(is) {
            return Ok(());
        }
        let words = format!("the authority wants a proof for {name}, which was not ordered");
        Err(AcmeError::nonsense(&words).about(name.as_str(), None))
    }

    fn authorizations(&mut self) -> usize {
        self.inner.state().authorizations.len().min(MAX_AUTHORIZATIONS)
    }

    /// Reads one authorization, each with nonces of its own to try: the library keeps those that it has read.
    async fn authorization(&mut self, at: usize) -> Result<Authorization, AcmeError> {
        let inner = &mut self.inner;
        let called = call!(async {
            let mut authorizations = inner.authorizations();
            for _ in 0..at {
                authorizations.next().await.transpose()?;
            }
            let authorization = authorizations.next().await.transpose()?;
            authorization.map(|it| Authorization::read(&it)).ok_or(instant_acme::Error::Str("no such authorization"))
        });
        self.context.judge(called).map(|(authorization, _)| authorization)
    }

    /// What the first proof that failed failed for.
    async fn failure(&mut self) -> Result<Option<AcmeError>, AcmeError> {
        for at in 0..self.authorizations() {
            let authorization = self.authorization(at).await?;
            if !matches!(authorization.status, AuthorizationStatus::Pending | AuthorizationStatus::Valid) {
                return Ok(Some(authorization.failure(&self.context)));
            }
        }
        Ok(None)
    }

    /// Why the order is invalid: a proof that failed says more than the order does.
    async fn cause(&mut self) -> AcmeError {
        if let Ok(Some(failure)) = self.failure().await {
            return failure;
        }
        let cause = match &self.inner.state().error {
            Some(problem) => self.context.of_problem(problem),
            None => AcmeError::new(ErrorKind::Refused, "the order is invalid, and no reason is given"),
        };
        cause.ending_the_order()
    }
}

/// The URL and how far it is.
impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").field("url", &self.url()).field("status", &self.status).finish_non_exhaustive()
    }
}
