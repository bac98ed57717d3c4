//! Requests as the CA got them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;

/// What a request is for (RFC 8555, section 7.1; RFC 9773, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Directory,
    NewNonce,
    NewAccount,
    NewOrder,
    /// An account itself: its contacts, its end.
    Account,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    RenewalInfo,
    RevokeCert,
    KeyChange,
    /// Nothing that an ACME server has.
    Unknown,
}

impl Resource {
    /// By the first segment of the path.
    pub(super) fn at(path: &str) -> Self {
        match path.split('/').nth(1).unwrap_or_default() {
            "directory" => Self::Directory,
            "new-nonce" => Self::NewNonce,
            "new-account" => Self::NewAccount,
            "new-order" => Self::NewOrder,
            "account" => Self::Account,
            "order" => Self::Order,
            "authorization" => Self::Authorization,
            "challenge" => Self::Challenge,
            "finalize" => Self::Finalize,
            "certificate" => Self::Certificate,
            "renewal-info" => Self::RenewalInfo,
            "revoke-cert" => Self::RevokeCert,
            "key-change" => Self::KeyChange,
            _ => Self::Unknown,
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub resource: Resource,
    /// The JWS's protected header; null where there is no JWS.
    pub protected: Value,
    /// What the JWS carries; null for a POST-as-GET and where there is no JWS.
    pub payload: Value,
}

impl Seen {
    pub(super) fn new(method: Method, path: &str, body: &[u8]) -> Self {
        let jws: Value = serde_json::from_slice(body).unwrap_or_default();
        Self {
            method,
            path: path.to_owned(),
            resource: Resource::at(path),
            protected: part(&jws, "protected"),
            payload: part(&jws, "payload"),
        }
    }

    /// Whether it is a POST with a JWS that asks only to be shown the resource (RFC 8555, section 6.3).
    pub fn is_post_as_get(&self) -> bool {
        self.is_signed() && self.payload.is_null()
    }

    pub fn is_signed(&self) -> bool {
        self.method == Method::POST && self.protected.is_object()
    }

    /// The account's URL, where the request names one.
    pub fn account(&self) -> Option<&str> {
        self.protected["kid"].as_str()
    }

    /// The key identifier of the external account that a new one is to be bound to (RFC 8555, section 7.3.4).
    pub fn external_account(&self) -> Option<String> {
        let protected = part(&self.payload["externalAccountBinding"], "protected");
        protected["kid"].as_str().map(ToOwned::to_owned)
    }
}

/// A member of a JWS, decoded.
fn part(jws: &Value, name: &str) -> Value {
    let bytes = jws[name].as_str().and_then(decode);
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

pub(super) fn decode(base64url: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(base64url).ok()
}
