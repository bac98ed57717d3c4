//! A key in HashiCorp Vault's transit engine, or OpenBao's (<https://developer.hashicorp.com/vault/api-docs/secret/transit>).

use std::borrow::Cow;
use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::places::read_trimmed;
use super::wrap::{CALL_TIMEOUT, Fault, MAX_ANSWER_BYTES, printable};
use crate::issuance::Transit;
use crate::origin::client_config;
use crate::site::OriginTls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// A key that was made with `derived=true` must be given one; any other ignores it. Always the same: data keys are told
/// apart inside what is wrapped.
const CONTEXT: &[u8] = b"lockgate vault";

/// How every ciphertext of the engine's begins.
const CIPHERTEXT: &str = "vault:";

/// The key, and how it is reached.
pub(super) struct TransitKey {
    client: Client,
    headers: HeaderMap,
    encrypt: Url,
    decrypt: Url,
    rotate: Url,
    name: String,
    /// For one answer, its body included.
    pub(super) limit: Duration,
}

#[derive(Serialize)]
struct Question<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    context: &'a str,
}

/// What is of use in an answer. Borrowed where it can be: the answer's buffer is wiped, a copy would not be.
#[derive(Default, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Option<Data<'a>>,
    errors: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    plaintext: Cow<'a, str>,
    #[serde(borrow, default)]
    ciphertext: Cow<'a, str>,
}

impl TransitKey {
    /// Reads the token and the roots to trust. Asks nobody yet.
    ///
    /// # Errors
    /// If the address is none that a token may be sent to, or the token cannot be had.
    pub(super) fn open(transit: &Transit, env: &impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let address = address(&transit.address)?;
        let name = format!("{}/{}", transit.mount.trim_matches('/'), transit.key);
        let url = |verb| url(&address, transit, verb);
        Ok(Self {
            client: client(transit)?,
            headers: headers(transit, env)?,
            encrypt: url("encrypt")?,
            decrypt: url("decrypt")?,
            rotate: rotate_url(url("keys")?)?,
            name,
            limit: CALL_TIMEOUT,
        })
    }

    /// `transit:MOUNT/KEY`.
    pub(super) fn identity(&self) -> String {
        format!("transit:{}", self.name)
    }

    /// The ciphertext as Vault writes it: `vault:v1:...`, which names the version of its key.
    ///
    /// # Errors
    /// If Vault cannot be reached or will not.
    pub(super) async fn encrypt(&self, octets: &[u8]) -> Result<Vec<u8>, Fault> {
        let plaintext = Zeroizing::new(STANDARD.encode(octets));
        let answer = self.ask(&self.encrypt, Some(&plaintext), None).await?;
        match data(&answer)? {
            Data { ciphertext, .. } if ciphertext.starts_with(CIPHERTEXT) => Ok(ciphertext.as_bytes().to_vec()),
            _ => Err(Fault::Away(not_vaults())),
        }
    }

    /// What [`TransitKey::encrypt`] was given.
    ///
    /// # Errors
    /// If Vault cannot be reached or will not, as when another key encrypted it.
    pub(super) async fn decrypt(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let ciphertext = std::str::from_utf8(wrapped).ok().filter(|text| text.starts_with(CIPHERTEXT));
        let ciphertext = ciphertext.ok_or_else(|| Fault::Refused("what is to be unwrapped is not its".to_owned()))?;
        let answer = self.ask(&self.decrypt, None, Some(ciphertext)).await?;
        let data = data(&answer)?;
        let mut octets = Zeroizing::new(Vec::with_capacity(data.plaintext.len()));
        match STANDARD.decode_vec(data.plaintext.as_bytes(), &mut octets) {
            Ok(()) if !octets.is_empty() => Ok(octets),
            _ => Err(Fault::Away(not_vaults())),
        }
    }

    /// Makes a new version of the key, by which everything is encrypted from then on. Older ones go on decrypting.
    ///
    /// # Errors
    /// If Vault cannot be reached or will not, as where the token may only encrypt and decrypt.
    pub(super) async fn rotate(&self) -> Result<(), Fault> {
        self.send(&self.rotate, Zeroizing::new(b"{}".to_vec())).await.map(drop)
    }

    /// The body of an answer that is a success.
    async fn ask(
        &self,
        url: &Url,
        plaintext: Option<&str>,
        ciphertext: Option<&str>,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let context = STANDARD.encode(CONTEXT);
        let mut body = Zeroizing::new(Vec::with_capacity(
            plaintext.map_or(0, str::len) + 2 * ciphertext.map_or(0, str::len) + context.len() + 128,
        ));
        let question = Question { plaintext, ciphertext, context: &context };
        serde_json::to_writer(&mut *body, &question).map_err(|error| Fault::Away(error.to_string()))?;
        self.send(url, body).await
    }

    async fn send(&self, url: &Url, body: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let request = self.client.post(url.clone()).headers(self.headers.clone()).timeout(self.limit);
        let response = request.body(Bytes::from_owner(body)).send().await.map_err(away)?;
        let status = response.status();
        let location = response.headers().get(LOCATION).map(|to| printable(&String::from_utf8_lossy(to.as_bytes())));
        let body = read_bounded(response).await?;
        // What makes something new has nothing to say, in some versions.
        if matches!(status, StatusCode::OK | StatusCode::NO_CONTENT) {
            return Ok(body);
        }
        let words = match location.filter(|_| status.is_redirection()) {
            // Followed, it would take the token to wherever it says.
            Some(to) => format!("go to {to}; if that is right, give its address"),
            None => words(&body),
        };
        let reason = format!("it answered {status}: {words}");
        Err(if status == StatusCode::BAD_REQUEST { Fault::Refused(reason) } else { Fault::Away(reason) })
    }
}

fn address(address: &str) -> Result<Url, String> {
    let right = "write one like https://vault.example:8200";
    let url = Url::parse(address).map_err(|error| format!("its address is none: {error}; {right}"))?;
    let host = url.host_str().unwrap_or_default();
    let is_loopback = || {
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback() => {}
        "http" => {
            return Err("its address is http, which shows the token and the keys to the network: use https".into());
        }
        _ => return Err(format!("its address is neither https nor http: {right}")),
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("its address has more than a host, a port and a path: {right}"));
    }
    Ok(url)
}

fn url(address: &Url, transit: &Transit, verb: &str) -> Result<Url, String> {
    let mount = transit.mount.trim_matches('/');
    let mut segments = mount.split('/').chain([transit.key.as_str()]);
    // A URL drops dots, and would name something else.
    if segments.any(|segment| matches!(segment, "" | "." | "..")) || transit.key.contains('/') {
        return Err("the engine's mount or the key has a name that none can have".to_owned());
    }
    let mut url = address.clone();
    url.path_segments_mut()
        .map_err(|()| "its address has no path".to_owned())?
        .pop_if_empty()
        .push("v1")
        .extend(mount.split('/'))
        .push(verb)
        .push(&transit.key);
    Ok(url)
}

/// Of the URL of a key, where it is rotated.
fn rotate_url(mut key: Url) -> Result<Url, String> {
    key.path_segments_mut().map_err(|()| "its address has no path".to_owned())?.push("rotate");
    Ok(key)
}

fn client(transit: &Transit) -> Result<Client, String> {
    let trust = OriginTls { ca: transit.roots.clone(), ..OriginTls::default() };
    let tls: Arc<ClientConfig> =
        client_config(&trust).map_err(|error| format!("the roots to trust cannot be used: {error}"))?;
    Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(&tls))
        .http1_only()
        .redirect(Policy::none())
        // A proxy of the environment's would see, of an address that is http, all there is.
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| format!("no client can be made: {error}"))
}

fn headers(transit: &Transit, env: &impl Fn(&str) -> Option<OsString>) -> Result<HeaderMap, String> {
    let token =
        read_trimmed(&transit.token, env).map_err(|error| format!("its token, {}, {}", error.place, error.fault))?;
    let mut token = HeaderValue::from_maybe_shared(Bytes::from_owner(token))
        .map_err(|_| format!("its token, {}, has characters that no token has", transit.token))?;
    token.set_sensitive(true);
    let mut headers = HeaderMap::from_iter([
        (TOKEN, token),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        // Vault's defence against requests that somebody else made it send.
        (HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true")),
    ]);
    if let Some(namespace) = &transit.namespace {
        let namespace = HeaderValue::from_str(namespace)
            .map_err(|_| "its namespace has characters that no namespace has".to_owned())?;
        headers.insert(NAMESPACE, namespace);
    }
    Ok(headers)
}

async fn read_bounded(mut response: Response) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // Room for all of it at once: a buffer that grows leaves copies of a data key behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Fault::Away(format!("it answered more than {MAX_ANSWER_BYTES} octets")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn data(body: &[u8]) -> Result<Data<'_>, Fault> {
    let answer = serde_json::from_slice::<Answer>(body).ok();
    answer.and_then(|answer| answer.data).ok_or_else(|| Fault::Away(not_vaults()))
}

fn not_vaults() -> String {
    "it answered what Vault's transit engine does not: see whether the address is Vault's".to_owned()
}

/// What Vault says is wrong.
fn words(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<Answer>(body).unwrap_or_default();
    match answer.errors {
        Some(errors) if !errors.is_empty() => printable(&errors.join("; ")),
        // So it answers a path where no engine is mounted, to whoever may not know.
        _ => "it does not say why; see whether the engine is mounted there and has the key".to_owned(),
    }
}

/// Why nobody answered, down to the first cause.
fn away(error: reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::Away("it did not answer in time".to_owned());
    }
    let error = error.without_url();
    let mut reason = format!("it does not answer: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    Fault::Away(printable(&reason))
}
