//! An authority that does as it is told, which is mostly wrong.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::{authority, server_certificate};
use crate::certificate::fixture::pair;
use crate::issuance::Authority;

/// What is answered at a path.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Status, header fields, body; `BASE` in them stands for the authority's own address.
    Says(u16, Vec<(&'static str, String)>, String),
    /// What a good authority says, with this body merged into its own, and header fields instead of its own; a field
    /// with an empty value is left out.
    But(Value, Vec<(&'static str, &'static str)>),
    /// What a good authority says.
    Well,
    /// A body without end.
    Endless,
    /// Nothing, ever.
    Never,
}

/// A problem document.
pub(crate) fn problem(status: u16, kind: &str, detail: &str) -> Reply {
    let body = json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status});
    Reply::Says(status, vec![], body.to_string())
}

pub(crate) fn says(status: u16, body: &str) -> Reply {
    Reply::Says(status, vec![], body.to_owned())
}

pub(crate) fn but(body: Value) -> Reply {
    Reply::But(body, vec![])
}

#[derive(Default)]
struct State {
    script: HashMap<String, VecDeque<Reply>>,
    is_proved: bool,
    is_finalized: bool,
    seen: Vec<Seen>,
}

/// A request.
struct Seen {
    path: String,
    /// What the signature's header says, and what was signed.
    protected: Value,
    payload: Value,
}

pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    at: SocketAddr,
    root: CertificateDer<'static>,
}

impl Fake {
    /// Starts one that answers at each path as scripted, one reply after the other, and well after that.
    pub(crate) async fn start(script: &[(&str, &[Reply])]) -> Self {
        let (root, cert, key) = server_certificate();
        let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let script = script.iter().map(|(path, replies)| ((*path).to_owned(), replies.iter().cloned().collect()));
        let state = Arc::new(Mutex::new(State { script: script.collect(), ..State::default() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(|request| answer(request, at, Arc::clone(&state)));
                    _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self { state, at, root }
    }

    pub(crate) fn authority(&self) -> Authority {
        authority(&format!("https://{}/dir", self.at), Some(&self.root))
    }

    /// What was signed for `path`, in its order.
    pub(crate) fn signed(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|seen| seen.path == path).map(|seen| seen.payload.clone()).collect()
    }

    /// The keys that came with what was signed for `path`, in its order.
    pub(crate) fn keys(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|seen| seen.path == path).map(|seen| seen.protected["jwk"].clone()).collect()
    }

    /// From now on it answers so at `path`, one reply after the other, and well after that.
    pub(crate) fn script(&self, path: &str, replies: &[Reply]) {
        self.state.lock().unwrap().script.insert(path.to_owned(), replies.iter().cloned().collect());
    }
}

async fn answer(
    request: Request<Incoming>,
    at: SocketAddr,
    state: Arc<Mutex<State>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers()["user-agent"], concat!("lockgate/", env!("CARGO_PKG_VERSION")));
    let body = request.into_body().collect().await?.to_bytes();
    let reply = {
        let mut state = state.lock().unwrap();
        let [protected, payload] = ["protected", "payload"].map(|part| part_of(&body, part));
        state.seen.push(Seen { path: path.clone(), protected, payload });
        state.script.get_mut(&path).and_then(VecDeque::pop_front).unwrap_or(Reply::Well)
    };
    let base = format!("https://{at}");
    let (status, fields, body) = match reply {
        Reply::Never => std::future::pending().await,
        Reply::Endless => return Ok(Response::new(Endless.boxed())),
        Reply::Says(status, fields, body) => (status, fields, body),
        Reply::Well => well(&path, &mut state.lock().unwrap()),
        Reply::But(other, other_fields) => {
            let (status, mut fields, body) = well(&path, &mut state.lock().unwrap());
            let mut body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
            if let (Some(body), Some(other)) = (body.as_object_mut(), other.as_object()) {
                body.extend(other.clone());
            }
            fields.retain(|(name, _)| other_fields.iter().all(|(other, _)| other != name));
            fields.extend(other_fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
            (status, fields, body.to_string())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body.replace("BASE", &base))).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if fields.iter().all(|(name, _)| *name != "replay-nonce") {
        response.headers_mut().insert("replay-nonce", "bm9uY2U".parse().unwrap());
    }
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        response.headers_mut().append(*name, value.replace("BASE", &base).parse().unwrap());
    }
    Ok(response)
}

/// What a good authority says: one account, one order for one name, and at once.
fn well(path: &str, state: &mut State) -> (u16, Vec<(&'static str, String)>, String) {
    let order = |state: &State| {
        let status = match (state.is_proved, state.is_finalized) {
            (_, true) => "valid",
            (true, false) => "ready",
            (false, false) => "pending",
        };
        let mut order = json!({"status": status, "authorizations": ["BASE/authorization"],
            "finalize": "BASE/finalize", "identifiers": []});
        if state.is_finalized {
            order["certificate"] = json!("BASE/certificate");
        }
        order.to_string()
    };
    let challenge = |state: &State| {
        json!({"type": "http-01", "url": "BASE/challenge", "token": "dG9rZW4",
            "status": if state.is_proved { "valid" } else { "pending" }})
    };
    match path {
        "/dir" => {
            let meta = json!({"caaIdentities": ["ca.example"], "profiles": {"classic": "as ever", "short": "a week"}});
            let directory = json!({"newNonce": "BASE/nonce", "newAccount": "BASE/account", "newOrder": "BASE/order",
                "renewalInfo": "BASE/renewal", "meta": meta});
            (200, vec![], directory.to_string())
        }
        "/account" => (201, vec![("location", "BASE/account/1".to_owned())], "{}".to_owned()),
        "/order" => (201, vec![("location", "BASE/order/1".to_owned())], order(state)),
        "/order/1" => (200, vec![], order(state)),
        "/authorization" => {
            let status = if state.is_proved { "valid" } else { "pending" };
            let identifier = json!({"type": "dns", "value": "www.example.com"});
            let challenges = [challenge(state)];
            (200, vec![], json!({"status": status, "identifier": identifier, "challenges": challenges}).to_string())
        }
        "/challenge" => {
            state.is_proved = true;
            (200, vec![], challenge(state).to_string())
        }
        "/finalize" => {
            state.is_finalized = true;
            (200, vec![], order(state))
        }
        "/certificate" => (200, vec![], pair(&["www.example.com"]).pem().cert),
        path if path.starts_with("/renewal/") => {
            let window = json!({"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00.5+01:00"});
            (200, vec![("retry-after", "3600".to_owned())], json!({"suggestedWindow": window}).to_string())
        }
        _ => (200, vec![], String::new()),
    }
}

/// A part of a JWS; nothing where there is none.
fn part_of(body: &[u8], name: &str) -> Value {
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let part = BASE64_URL_SAFE_NO_PAD.decode(jws[name].as_str().unwrap_or_default()).unwrap();
    serde_json::from_slice(&part).unwrap_or_default()
}

/// A body without end.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 16 * 1024])))))
    }
}
