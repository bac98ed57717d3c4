//! A new account (RFC 8555, section 7.3) for a key that is kept before the authority hears of it.
//!
//! The library makes the key of an account with a contact or an external account itself, and shows it when the authority
//! has answered: a process that ends in between leaves an account that nobody enters again, and has used up the key of
//! an external one. So this one request is made here. It may be repeated: for the same key it gives the same account.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient as _, Problem};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::{AcmeError, ErrorKind, is_type};
use super::http::{Door, NewAccountAt};
use crate::issuance::Eab;

/// Nonces that are tried in one call, as many as the library tries.
const NONCES: usize = 3;
const NONCE: &str = "replay-nonce";

/// Makes a key for an account: PKCS#8, ECDSA P-256.
///
/// # Errors
/// The system has no randomness.
pub fn account_key() -> Result<Zeroizing<Vec<u8>>, AcmeError> {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let made = made.map_err(|_| AcmeError::new(ErrorKind::Local, "a key for an account cannot be made"))?;
    Ok(Zeroizing::new(made.as_ref().to_vec()))
}

/// What an account is asked for with.
pub(super) struct Registration {
    key: EcdsaKeyPair,
    contact: Vec<String>,
    external: Option<ExternalAccount>,
}

/// An account that the authority's customer has already (RFC 8555, section 7.3.4).
pub(super) struct ExternalAccount {
    kid: String,
    key: hmac::Key,
}

impl ExternalAccount {
    /// `text` is its key as authorities hand it out: base64url.
    pub(super) fn parse(eab: &Eab, text: Option<Zeroizing<Vec<u8>>>) -> Result<Self, AcmeError> {
        let wrong = |words: &str| AcmeError::new(ErrorKind::ExternalAccountRequired, words);
        let text = text.ok_or_else(|| wrong("the key of the external account is missing"))?;
        // Some hand it out in plain base64, or padded: the octets are the same.
        let of = |octet: &u8| match octet {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        };
        let text: Zeroizing<Vec<u8>> = Zeroizing::new(text.trim_ascii().iter().map(of).collect());
        let bare = text.iter().rposition(|octet| *octet != b'=').and_then(|last| text.get(..=last)).unwrap_or_default();
        match BASE64_URL_SAFE_NO_PAD.decode(bare).map(Zeroizing::new) {
            Ok(key) if !key.is_empty() => {
                Ok(Self { kid: eab.kid.clone(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
            }
            _ => Err(wrong("the key of the external account is not base64url, which is how authorities hand it out")),
        }
    }

    /// That its holder wants the account of that key to be its own.
    fn binding(&self, jwk: &Value, url: &str) -> Value {
        let protected = json!({ "alg": "HS256", "kid": self.kid, "url": url });
        let text = signing_input(&protected, jwk);
        jws(&text, hmac::sign(&self.key, text.as_bytes()).as_ref())
    }
}

impl Registration {
    /// For the account of this key.
    ///
    /// # Errors
    /// [`Error::KeyRejected`].
    pub(super) fn new(
        key_pkcs8: &[u8],
        contact: Vec<String>,
        external: Option<ExternalAccount>,
    ) -> Result<Self, Error> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key_pkcs8);
        Ok(Self { key: key.map_err(|_| Error::KeyRejected)?, contact, external })
    }

    /// Asks for the account, and gives its URL.
    pub(super) async fn send(&self, door: &Door, at: &NewAccountAt) -> Result<String, Error> {
        let mut nonce = None;
        let mut left = NONCES;
        loop {
            let fresh = match nonce.take() {
                Some(nonce) => nonce,
                None => new_nonce(door, &at.new_nonce).await?,
            };
            let body = serde_json::to_vec(&self.body(&fresh, &at.new_account)?)?;
            let request = Request::builder().method(Method::POST).uri(&at.new_account);
            let request = request.header(CONTENT_TYPE, "application/jose+json").body(BodyWrapper::from(body))?;
            let mut answer = door.request(request).await?;
            if answer.parts.status.is_success() {
                return header(&answer, LOCATION.as_str()).ok_or(Error::Str("failed to get account URL"));
            }
            let body = answer.body.into_bytes().await.map_err(Error::Other)?;
            let problem: Problem = serde_json::from_slice(&body)?;
            left -= 1;
            if left == 0 || !is_type(&problem, "badNonce") {
                return Err(problem.into());
            }
            nonce = header(&answer, NONCE);
        }
    }

    fn body(&self, nonce: &str, url: &str) -> Result<Value, Error> {
        let jwk = self.jwk()?;
        let mut payload = json!({ "contact": self.contact, "termsOfServiceAgreed": true });
        if let (Some(external), Some(payload)) = (&self.external, payload.as_object_mut()) {
            payload.insert("externalAccountBinding".to_owned(), external.binding(&jwk, url));
        }
        let protected = json!({ "alg": "ES256", "jwk": jwk, "nonce": nonce, "url": url });
        let text = signing_input(&protected, &payload);
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).map_err(|_| Error::Crypto)?;
        Ok(jws(&text, signature.as_ref()))
    }

    /// The public key (RFC 7517), as the library writes it in everything that this account signs.
    fn jwk(&self) -> Result<Value, Error> {
        // An octet that says that both coordinates follow, and those.
        let point = self.key.public_key().as_ref().get(1..).and_then(|point| point.split_at_checked(32));
        let (x, y) = point.ok_or(Error::Crypto)?;
        let [x, y] = [x, y].map(|coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate));
        Ok(json!({ "alg": "ES256", "crv": "P-256", "kty": "EC", "use": "sig", "x": x, "y": y }))
    }
}

/// What is signed of a JWS (RFC 7515, section 5.1).
fn signing_input(protected: &Value, payload: &Value) -> String {
    let [protected, payload] = [protected, payload].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    format!("{protected}.{payload}")
}

/// A JWS in its flattened form (RFC 8555, section 6.2).
fn jws(signing_input: &str, signature: &[u8]) -> Value {
    let (protected, payload) = signing_input.split_once('.').unwrap_or_default();
    json!({ "protected": protected, "payload": payload, "signature": BASE64_URL_SAFE_NO_PAD.encode(signature) })
}

async fn new_nonce(door: &Door, url: &str) -> Result<String, Error> {
    let answer = door.request(Request::builder().method(Method::HEAD).uri(url).body(BodyWrapper::default())?).await?;
    if !answer.parts.status.is_success() {
        return Err(Error::Str("error response from newNonce resource"));
    }
    header(&answer, NONCE).ok_or(Error::Str("no nonce found in newNonce response"))
}

fn header(answer: &BytesResponse, name: &str) -> Option<String> {
    let value = answer.parts.headers.get(name)?;
    String::from_utf8(value.as_bytes().to_vec()).ok()
}
