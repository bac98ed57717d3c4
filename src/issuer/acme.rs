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
mod register;
mod request;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{CertificateIdentifier, Identifier, NewOrder};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub use error::{AcmeError, ErrorKind};
pub use issued::check_issued;
pub use order::{Order, Status};
pub use proof::{Offer, Proof};
pub use register::account_key;
pub use request::{CertificateRequest, csr_for, request, spki_of};

use crate::clock::UnixTime;
use crate::issuance::Authority;
use crate::issuance::renewal::Window;
use crate::name::{DomainName, Kind};
use call::{Answer, call};
use error::Context;
use http::{Door, Http, Limits};
use register::{ExternalAccount, Registration};

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
    /// Reads the directory and goes on with an account. The authority is not asked for it: that it is gone
    /// ([`ErrorKind::AccountGone`]) shows at the first order.
    ///
    /// # Errors
    /// The authority cannot be reached. [`ErrorKind::AccountGone`]: the key is none.
    pub async fn enter(authority: &Authority, known: &KnownAccount) -> Result<Self, AcmeError> {
        let context = open(authority, Limits::default()).await?;
        Self::with(authority, &context, &known.url, &known.key_pkcs8).await
    }

    /// Reads the directory and asks for the account of a key ([`account_key`]), which is to be kept before: terms agreed
    /// to, with the authority's e-mail address and external account. `eab_key` is that account's key as authorities hand
    /// it out: base64url. Where the key has an account already, it is that one.
    ///
    /// # Errors
    /// The authority cannot be reached, or makes no account. [`ErrorKind::AccountGone`]: not for this key.
    pub async fn register(
        authority: &Authority,
        key_pkcs8: &[u8],
        eab_key: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, AcmeError> {
        Self::register_within(authority, key_pkcs8, eab_key, Limits::default()).await
    }

    async fn register_within(
        authority: &Authority,
        key_pkcs8: &[u8],
        eab_key: Option<Zeroizing<Vec<u8>>>,
        limits: Limits,
    ) -> Result<Self, AcmeError> {
        let external = authority.eab.as_ref().map(|eab| ExternalAccount::parse(eab, eab_key)).transpose()?;
        let has_external = external.is_some();
        let context = open(authority, limits).await?;
        // For the directory.
        drop(Self::with(authority, &context, "", key_pkcs8).await?);
        let contact = authority.email.iter().map(|email| format!("mailto:{email}")).collect();
        let registration = Registration::new(key_pkcs8, contact, external);
        let registration = registration.map_err(|error| context.error(error, &Answer::default()))?;
        let (door, at) = (Door(Arc::clone(&context.http)), context.http.new_account_at());
        let made = context.judge(call!(registration.send(&door, &at)));
        let (url, _) = made.map_err(|error| about_external_account(error, has_external, &context))?;
        Self::with(authority, &context, &url, key_pkcs8).await
    }

    async fn with(
        authority: &Authority,
        context: &Arc<Context>,
        url: &str,
        key_pkcs8: &[u8],
    ) -> Result<Self, AcmeError> {
        let called = call!(async {
            let builder = instant_acme::Account::builder_with_http(Box::new(Door(Arc::clone(&context.http))));
            let key = PrivatePkcs8KeyDer::from(key_pkcs8);
            builder.from_parts(url.to_owned(), key, authority.directory.clone()).await
        });
        let (inner, _) = context.judge(called)?;
        Ok(Self { inner, context: Arc::clone(context) })
    }

    /// Tells the authority of another e-mail address, or that there is none any more (RFC 8555, section 7.3.2).
    ///
    /// # Errors
    /// The authority's refusal.
    pub async fn tell_contact(&self, email: Option<&str>) -> Result<(), AcmeError> {
        let contact: Vec<String> = email.iter().map(|email| format!("mailto:{email}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        self.context.judge(call!(self.inner.update_contacts(&contact))).map(drop)
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
    /// What replaces what only helps the authority to count: it is left out where the authority may have refused the
    /// order for it. An authority without any profiles issues the one kind that it has.
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
                (Err(error), answer) => {
                    let is_about_replacing = is_about_replacing(&error, &answer);
                    let error = self.context.error(error, &answer);
                    if !is_about_replacing && !error.may_be_about_replacing() {
                        return Err(error);
                    }
                    let authority = &self.context.authority;
                    tracing::debug!(authority, "ordering without saying what is replaced: {error}");
                }
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
    /// 1 minute to 24 hours. `None`: by its directory, it does not say such things.
    ///
    /// # Errors
    /// The authority cannot be reached, or says something that makes no sense. [`AcmeError::is_not_found`]: it says
    /// nothing of this one, or did so elsewhere.
    pub async fn renewal_window(&self, leaf: &CertificateDer<'_>) -> Result<Option<(Window, Duration)>, AcmeError> {
        let Ok(id) = CertificateIdentifier::try_from(leaf) else { return Ok(None) };
        let (result, answer) = call!(self.inner.renewal_info(&id));
        let window = match result {
            Ok((info, _)) => info.suggested_window,
            Err(instant_acme::Error::Unsupported(_)) => return Ok(None),
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

/// Whether an order failed in the library, and only for what it was to replace: renewal information is not offered, or
/// the certificate was not repeated in the answer as it must be.
fn is_about_replacing(error: &instant_acme::Error, answer: &Answer) -> bool {
    match error {
        instant_acme::Error::Unsupported(_) => true,
        // The library's own word on an order that was placed.
        instant_acme::Error::Other(words) => answer.is_success() && words.to_string().starts_with("replaces field"),
        _ => false,
    }
}

async fn open(authority: &Authority, limits: Limits) -> Result<Arc<Context>, AcmeError> {
    let http = Http::open(authority, limits).await.map_err(|error| error::unopened(&error))?;
    Ok(Arc::new(Context { authority: authority.name.clone(), http: Arc::new(http) }))
}

/// An account that is not made for want of a good external account: authorities have many words for it.
fn about_external_account(error: AcmeError, has_one: bool, context: &Context) -> AcmeError {
    let refused = matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Refused | ErrorKind::AccountGone);
    let is_it = if has_one { refused } else { refused && context.http.meta().external_account_required };
    if is_it { error.with_kind(ErrorKind::ExternalAccountRequired) } else { error }
}
