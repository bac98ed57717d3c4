//! HTTPS towards an authority: encrypted or not at all, with an end to everything.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use reqwest::redirect::{Action, Attempt, Policy};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::Deserialize;

use super::call::Answer;
use super::{ASK_AGAIN, header};
use crate::issuance::Authority;

/// Redirections that are followed, all on the same host: RFC 8555 needs none.
const MAX_REDIRECTS: usize = 3;
/// Connections to an authority that are kept for the next request.
const MAX_IDLE: usize = 2;
/// What authorities read of who is asking (RFC 8555, section 6.1).
const AGENT: &str = concat!("lockgate/", env!("CARGO_PKG_VERSION"));

/// How long and how much. Tests have less patience.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Resolving, connecting and shaking hands.
    pub(super) connect_timeout: Duration,
    /// A whole request, its answer's body included.
    pub(super) request_timeout: Duration,
    /// Octets of an answer's body: the longest chains are a few dozen KiB.
    pub(super) max_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_body_bytes: 1024 * 1024,
        }
    }
}

/// What went wrong before there was an answer to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// `http://`, or something else that is no `https://` URL.
    #[error("`{0}` is not an https:// URL, and an authority is not talked to in plain")]
    NotHttps(String),
    /// Neither roots of the system nor given ones.
    #[error("no root certificates to know the authority by: {0}")]
    NoRoots(rustls::Error),
    /// The client could not be made.
    #[error("the HTTP client cannot be made: {0}")]
    NoClient(String),
    /// No name, no route, no handshake, or the connection ended.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing, or not all, within the time.
    #[error("no whole answer within {0:?}")]
    Timeout(Duration),
    /// To another host, to plain HTTP, or without end.
    #[error("the authority redirects to another host, to plain HTTP, or without end")]
    Redirect,
    /// More than an answer may have.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// A directory that leads nowhere.
    #[error("the directory's `{field}` is `{url}`, which is not an https:// URL")]
    BadDirectory {
        /// Which of its fields.
        field: &'static str,
        /// What stands there.
        url: String,
    },
}

/// What a directory says that `instant-acme` does not pass on (RFC 8555, section 9.7.6).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    /// What CAA records call the authority.
    pub(super) caa_identities: Vec<String>,
    /// It makes no account without an external one.
    pub(super) external_account_required: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
    #[serde(default)]
    meta: Option<Meta>,
}

/// Where an account is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct NewAccountAt {
    pub(super) new_nonce: String,
    pub(super) new_account: String,
}

/// The client for one authority.
pub(super) struct Http {
    client: reqwest::Client,
    limits: Limits,
    directory: String,
    /// As the directory says.
    read: Mutex<(Meta, NewAccountAt)>,
}

/// The client as the library takes it.
pub(super) struct Door(pub(super) Arc<Http>);

impl Http {
    /// Makes the client; reads the system's roots, where the authority has none of its own.
    pub(super) async fn open(authority: &Authority, limits: Limits) -> Result<Self, HttpError> {
        if !is_https(&authority.directory) {
            return Err(HttpError::NotHttps(authority.directory.clone()));
        }
        let roots = authority.roots.clone();
        // The system's roots are files, hundreds of them.
        let tls = tokio::task::spawn_blocking(move || client_config(roots.as_deref())).await;
        let tls = tls.map_err(|error| HttpError::NoClient(error.to_string()))?.map_err(HttpError::NoRoots)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(Policy::custom(redirected))
            .referer(false)
            .pool_max_idle_per_host(MAX_IDLE)
            .connect_timeout(limits.connect_timeout)
            .timeout(limits.request_timeout)
            .build()
            .map_err(|error| HttpError::NoClient(whole(&error)))?;
        Ok(Self { client, limits, directory: authority.directory.clone(), read: Mutex::default() })
    }

    /// What the directory says, once it was read.
    pub(super) fn meta(&self) -> Meta {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Where an account is asked for, once the directory was read.
    pub(super) fn new_account_at(&self) -> NewAccountAt {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, HttpError> {
        let (mut parts, body) = request.into_parts();
        let url = parts.uri.to_string();
        if !is_https(&url) {
            return Err(HttpError::NotHttps(url));
        }
        let Ok(body) = body.collect().await;
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let request = self.client.request(parts.method.clone(), &url).headers(parts.headers).body(body.to_bytes());
        let mut answer = request.send().await.map_err(|error| self.fault(error))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.fault(error))? {
            if body.len() + chunk.len() > self.limits.max_body_bytes {
                return Err(HttpError::TooLarge(self.limits.max_body_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        let body = Bytes::from(body);
        if parts.method == Method::GET && url == self.directory && answer.status().is_success() {
            self.read_directory(&body)?;
        }
        Ok(noted(&parts.method, &answer, body))
    }

    /// Notes what the directory says, and stops at URLs that the library would fall over. What is no directory at all
    /// is the library's to refuse.
    fn read_directory(&self, body: &[u8]) -> Result<(), HttpError> {
        let Ok(directory) = serde_json::from_slice::<Directory>(body) else { return Ok(()) };
        let Directory { new_nonce, new_account, new_order, meta } = directory;
        for (field, url) in [("newNonce", &new_nonce), ("newAccount", &new_account), ("newOrder", &new_order)] {
            if !is_https(url) {
                return Err(HttpError::BadDirectory { field, url: url.clone() });
            }
        }
        let at = NewAccountAt { new_nonce, new_account };
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = (meta.unwrap_or_default(), at);
        Ok(())
    }

    fn fault(&self, error: reqwest::Error) -> HttpError {
        if error.is_timeout() {
            HttpError::Timeout(self.limits.request_timeout)
        } else if error.is_redirect() {
            HttpError::Redirect
        } else {
            HttpError::Unreachable(whole(&error.without_url()))
        }
    }
}

impl HttpClient for Door {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let http = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = http.ask(request).await.map_err(|error| {
                // An answer of before says nothing about this request.
                Answer::default().note();
                instant_acme::Error::Other(Box::new(error))
            })?;
            Ok(BytesResponse::from(answer))
        })
    }
}

/// Notes the answer for the call that is under way, and passes it to the library in a form that is good for it: it adds
/// `Retry-After` to the time now, where a very long one makes it panic, and refuses renewal information without one.
fn noted(method: &Method, answer: &reqwest::Response, body: Bytes) -> Response<Full<Bytes>> {
    let retry_after = header::retry_after(answer.headers());
    let alternates = header::alternates(answer.headers());
    let join = |link: &String| answer.url().join(link).ok().map(String::from);
    let alternates = alternates.iter().filter_map(join).collect();
    Answer { status: Some(answer.status()), retry_after, alternates, body: body.clone() }.note();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    for framing in [RETRY_AFTER, CONTENT_LENGTH, TRANSFER_ENCODING] {
        response.headers_mut().remove(framing);
    }
    if let Some(wait) = retry_after.or((method == Method::GET).then_some(ASK_AGAIN)) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

/// Whether it is a URL that the library, too, can read.
fn is_https(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
}

fn redirected(attempt: Attempt<'_>) -> Action {
    let from = attempt.previous();
    let (to, is_too_many) = (attempt.url(), from.len() > MAX_REDIRECTS);
    if is_too_many || from.last().is_none_or(|from| from.origin() != to.origin()) {
        return attempt.error("not followed");
    }
    attempt.follow()
}

fn client_config(roots: Option<&[rustls_pki_types::CertificateDer<'static>]>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = match roots {
        Some(given) => {
            let mut roots = RootCertStore::empty();
            given.iter().try_for_each(|root| roots.add(root.clone()))?;
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder.with_platform_verifier()?.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// An error with all its causes: the outermost alone says "error sending request".
fn whole(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_roots_is_an_error_and_no_panic() {
        const INSIDE: &str = "LOCKGATE_TEST_WITHOUT_ROOTS";
        if std::env::var_os(INSIDE).is_some() {
            assert!(client_config(None).is_err());
            return;
        }
        // Where roots are looked for is said by the environment, which a process cannot change for itself alone.
        let this = "issuer::acme::http::tests::a_machine_without_roots_is_an_error_and_no_panic";
        let mut inside = std::process::Command::new(std::env::current_exe().unwrap());
        inside.args(["--exact", this]).env(INSIDE, "1").env("SSL_CERT_FILE", "/dev/null").env_remove("SSL_CERT_DIR");
        let output = inside.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
