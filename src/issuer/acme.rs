//! Certificate authorities that speak ACME (RFC 8555): the door to them.
//!
//! The protocol is `instant-acme`'s; here is what stands between it and a world that may be slow, broken or hostile:
//! our own HTTP client with limits (`http`), calls that survive a library's panic and a server that likes no nonce
//! (`call`), errors that keep the authority's own words and know what to do ([`AcmeError`]), and checks on what was
//! issued ([`check_issued`]). No store, no clock, no rule about when to ask: that is `upkeep`'s.

mod advice;
mod call;
mod error;
mod header;
mod http;
mod issued;
mod order;
mod proof;
mod request;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use instant_acme::{CertificateIdentifier, ExternalAccountKey, Identifier, NewOrder};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub use error::{AcmeError, ErrorKind};
pub use issued::check_issued;
pub use order::{Order, Status};
pub use proof::{Offer, Proof};
pub use request::{CertificateRequest, csr_for, request, spki_of};

use crate::clock::UnixTime;
use crate::issuance::renewal::Window;
use crate::issuance::{Authority, Eab};
use crate::name::{DomainName, Kind};
use call::{Answer, call};
use error::Context;
use http::{Door, Http, Limits};

/// When to ask for renewal information again if the authority does not say (RFC 9773, section 4.3.2).
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);
/// The least and the most that an authority may say of it (RFC 9773, section 4.3.2).
const ASK_AGAIN_BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));

/// An authority's API, entered with an account. Orders may be placed through it side by side.
pub struct Account {
    inner: instant_acme::Account,
    context: Arc<Context>,
}

/// What an account is entered with again: to be kept.
#[derive(Clone)]
pub struct KnownAccount {
    /// Its URL (RFC 8555, section 7.3).
    pub url: String,
    /// Its key: PKCS#8, ECDSA P-256.
    pub key_pkcs8: Zeroizing<Vec<u8>>,
}

/// The URL; never the key.
impl std::fmt::Debug for KnownAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownAccount").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Account {
    /// Reads the directory and goes on with the account `known`, or makes a new one, which is given back to be kept:
    /// terms agreed to, with the authority's e-mail address and external account. `eab_key` is that account's key as
    /// authorities hand it out: base64url.
    ///
    /// A known account is not asked for: that it is gone ([`ErrorKind::AccountGone`]) shows at the first order.
    ///
    /// # Errors
    /// The authority cannot be reached, or makes no account.
    pub async fn enter(
        authority: &Authority,
        known: Option<KnownAccount>,
        eab_key: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(Self, Option<KnownAccount>), AcmeError> {
        Self::enter_within(authority, known, eab_key, Limits::default()).await
    }

    async fn enter_within(
        authority: &Authority,
        known: Option<KnownAccount>,
        eab_key: Option<Zeroizing<Vec<u8>>>,
        limits: Limits,
    ) -> Result<(Self, Option<KnownAccount>), AcmeError> {
        let http = Http::open(authority, limits).await.map_err(|error| error::unopened(&error))?;
        let context = Arc::new(Context { authority: authority.name.clone(), http: Arc::new(http) });
        let door = || Box::new(Door(Arc::clone(&context.http)));
        let builder = || instant_acme::Account::builder_with_http(door());
        if let Some(known) = known {
            let called = call!(async {
                let key = PrivatePkcs8KeyDer::from(known.key_pkcs8.as_slice());
                builder().from_parts(known.url.clone(), key, authority.directory.clone()).await
            });
            let (inner, _) = context.judge(called)?;
            return Ok((Self { inner, context }, None));
        }
        let eab = authority.eab.as_ref().map(|eab| external_account(eab, eab_key)).transpose()?;
        let contact = authority.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let wanted =
            instant_acme::NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = context.judge(call!(builder().create(&wanted, authority.directory.clone(), eab.as_ref())));
        let ((inner, credentials), _) = made.map_err(|error| about_external_account(error, eab.is_some(), &context))?;
        let key_pkcs8 = Zeroizing::new(credentials.private_key().secret_pkcs8_der().to_vec());
        let new = KnownAccount { url: inner.id().to_owned(), key_pkcs8 };
        Ok((Self { inner, context }, Some(new)))
    }

    /// The account's URL.
    pub fn url(&self) -> &str {
        self.inner.id()
    }

    /// The thumbprint of the account's key (RFC 7638): every key authorization ends in it.
    pub fn thumbprint(&self) -> &str {
        self.inner.key_thumbprint()
    }

    /// The profiles that the authority offers (draft-ietf-acme-profiles): name and description, by name.
    pub fn profiles(&self) -> Vec<(String, String)> {
        let mut profiles: Vec<_> =
            self.inner.profiles().map(|it| (error::clean(it.name), error::clean(it.description))).collect();
        profiles.sort();
        profiles
    }

    /// Orders a certificate for `names`, of the kind that the authority calls `profile`, instead of the certificate
    /// `replaces` (RFC 9773, section 5).
    ///
    /// What replaces what only helps the authority to count: it is left out where the authority does not know it or
    /// has that certificate replaced already. An authority without any profiles issues the one kind that it has.
    ///
    /// # Errors
    /// The authority's refusal. [`ErrorKind::AccountGone`]: it does not know the account.
    pub async fn order(
        &self,
        names: &[DomainName],
        profile: Option<&str>,
        replaces: Option<&CertificateDer<'_>>,
    ) -> Result<Order, AcmeError> {
        let identifiers: Vec<Identifier> = names.iter().map(identifier).collect();
        let profile = self.offered(profile)?;
        let plain = || {
            let order = NewOrder::new(&identifiers);
            profile.map_or(NewOrder::new(&identifiers), |profile| order.profile(profile))
        };
        if let Some(replaced) = replaces.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok()) {
            let order = plain().replaces(replaced);
            match call!(self.inner.new_order(&order)) {
                (Ok(inner), _) => return self.opened(inner, names),
                (Err(error), answer) if !is_about_replacing(&error, &answer) => {
                    return Err(self.context.error(error, &answer));
                }
                // On without it.
                _ => {}
            }
        }
        let order = plain();
        let (inner, _) = self.context.judge(call!(self.inner.new_order(&order)))?;
        self.opened(inner, names)
    }

    /// Goes on with an order for `names` that was placed before.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]: the authority has no such order, or it is another account's.
    pub async fn resume(&self, url: &str, names: &[DomainName]) -> Result<Order, AcmeError> {
        let resumed = self.context.judge(call!(self.inner.order(url.to_owned())));
        let (inner, _) = resumed.map_err(AcmeError::of_resumed_order)?;
        self.opened(inner, names)
    }

    /// When the authority would like the certificate `leaf` to be renewed (RFC 9773), and in how long to ask again:
    /// 1 minute to 24 hours. `None`: it does not say such things, at least not of this one.
    ///
    /// # Errors
    /// The authority cannot be reached, or says something that makes no sense.
    pub async fn renewal_window(&self, leaf: &CertificateDer<'_>) -> Result<Option<(Window, Duration)>, AcmeError> {
        let Ok(id) = CertificateIdentifier::try_from(leaf) else { return Ok(None) };
        let (result, answer) = call!(self.inner.renewal_info(&id));
        let window = match result {
            Ok((info, _)) => info.suggested_window,
            Err(instant_acme::Error::Unsupported(_)) => return Ok(None),
            // It did once, and does no more.
            Err(_) if answer.status == Some(::http::StatusCode::NOT_FOUND) => return Ok(None),
            Err(error) => return Err(self.context.error(error, &answer)),
        };
        let at = |time: i64| UnixTime::from_secs(time);
        let window = Window { start: at(window.start.unix_timestamp()), end: at(window.end.unix_timestamp()) };
        if window.end <= window.start {
            let (start, end) = (window.start, window.end);
            let words = format!("the authority suggests renewal from {start} to {end}, which is no span of time");
            return Err(AcmeError::nonsense(&words));
        }
        let (least, most) = ASK_AGAIN_BOUNDS;
        Ok(Some((window, answer.retry_after.unwrap_or(ASK_AGAIN).clamp(least, most))))
    }

    fn opened(&self, inner: instant_acme::Order, names: &[DomainName]) -> Result<Order, AcmeError> {
        Order::open(inner, self.inner.clone(), Arc::clone(&self.context), names)
    }

    /// The profile to ask for. One that is not advertised must not be asked for (draft-ietf-acme-profiles, section 4).
    fn offered<'p>(&self, profile: Option<&'p str>) -> Result<Option<&'p str>, AcmeError> {
        let Some(wanted) = profile else { return Ok(None) };
        let offers = self.profiles();
        if offers.is_empty() {
            let authority = &self.context.authority;
            tracing::debug!(authority, profile = wanted, "the authority has no profiles: ordering without");
            return Ok(None);
        }
        if self.inner.profiles().any(|offer| offer.name == wanted) {
            return Ok(Some(wanted));
        }
        let offers: Vec<&str> = offers.iter().map(|(name, _)| name.as_str()).collect();
        let words = format!("the authority has no profile `{wanted}`; it has {}", offers.join(", "));
        Err(AcmeError::new(ErrorKind::InvalidProfile, &words))
    }
}

/// The URL; never the key.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("url", &self.url()).finish_non_exhaustive()
    }
}

fn identifier(name: &DomainName) -> Identifier {
    match name.kind() {
        Kind::Ip(address) => Identifier::Ip(address),
        Kind::Exact | Kind::Wildcard => Identifier::Dns(name.as_str().to_owned()),
    }
}

/// Whether an order failed only for what it was to replace: renewal information is not offered, the certificate was
/// replaced before (RFC 9773, section 7.4), is not known there, or was not repeated in the answer as it must be.
fn is_about_replacing(error: &instant_acme::Error, answer: &Answer) -> bool {
    match error {
        instant_acme::Error::Unsupported(_) => true,
        instant_acme::Error::Api(problem) => {
            let is = |kind| error::is_type(problem, kind);
            let says = problem.detail.as_deref().unwrap_or_default().to_ascii_lowercase();
            is("alreadyReplaced") || is("malformed") && says.contains("replace")
        }
        // The library's own word on an order that was placed.
        instant_acme::Error::Other(words) => answer.is_success() && words.to_string().starts_with("replaces field"),
        _ => false,
    }
}

fn external_account(eab: &Eab, key: Option<Zeroizing<Vec<u8>>>) -> Result<ExternalAccountKey, AcmeError> {
    let wrong = |words: &str| AcmeError::new(ErrorKind::ExternalAccountRequired, words);
    let text = key.ok_or_else(|| wrong("the key of the external account is missing"))?;
    // Some hand it out in plain base64, or padded: the octets are the same.
    let of = |octet: &u8| match octet {
        b'+' => b'-',
        b'/' => b'_',
        other => *other,
    };
    let text: Zeroizing<Vec<u8>> = Zeroizing::new(text.trim_ascii().iter().map(of).collect());
    let bare = text.iter().rposition(|octet| *octet != b'=').and_then(|last| text.get(..=last)).unwrap_or_default();
    let key = BASE64_URL_SAFE_NO_PAD.decode(bare).map(Zeroizing::new);
    match key {
        Ok(key) if !key.is_empty() => Ok(ExternalAccountKey::new(eab.kid.clone(), &key)),
        _ => Err(wrong("the key of the external account is not base64url, which is how authorities hand it out")),
    }
}

/// An account that is not made for want of a good external account: authorities have many words for it.
fn about_external_account(error: AcmeError, has_one: bool, context: &Context) -> AcmeError {
    let refused = matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Refused | ErrorKind::AccountGone);
    let is_it = if has_one { refused } else { refused && context.http.meta().external_account_required };
    if is_it { error.with_kind(ErrorKind::ExternalAccountRequired) } else { error }
}
