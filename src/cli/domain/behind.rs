//! What the origin answers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::check::PATIENCE;
use super::exchange::{Answer, exchange, unreached};
use super::reached::in_url;
use crate::checkup::{Answered, OriginSeen, Unreached};
use crate::origin::client_config;
use crate::site::{OriginSpec, Scheme, SiteSpec};

/// Asks the origin of a domain for `/` of `host`. With its URL.
pub(super) async fn look(spec: &SiteSpec, host: &str) -> (String, OriginSeen) {
    let origin = &spec.origin;
    let scheme = if origin.scheme == Scheme::Https { "https" } else { "http" };
    let url = format!("{scheme}://{}:{}", in_url(&origin.host), origin.port);
    (url, ask(origin, host).await)
}

async fn ask(origin: &OriginSpec, host: &str) -> OriginSeen {
    let deadline = Instant::now() + PATIENCE;
    let addresses = match timeout_at(deadline, lookup_host((origin.host.as_str(), origin.port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => return OriginSeen::Unresolved(error.to_string()),
        Err(_) => return OriginSeen::Unresolved("no answer in time".to_owned()),
    };
    let stream = match timeout_at(deadline, connect(&addresses)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => return OriginSeen::Unreached(why),
        Err(_) => return OriginSeen::Unreached(Unreached::Silent),
    };
    let request = Request::builder().method(Method::HEAD).uri("/").header(header::HOST, in_url(host));
    let Ok(request) = request.body(Full::new(Bytes::new())) else { return OriginSeen::Garbled };
    timeout_at(deadline, speak(origin, stream, request)).await.unwrap_or(OriginSeen::Mute)
}

async fn speak(origin: &OriginSpec, stream: TcpStream, request: Request<Full<Bytes>>) -> OriginSeen {
    if origin.scheme == Scheme::Http {
        return seen(exchange(stream, request).await);
    }
    let name = origin.tls.sni.as_deref().unwrap_or(&origin.host);
    let Ok(name) = ServerName::try_from(name.to_owned()) else {
        return OriginSeen::Tls(format!("`{name}` is no name for a certificate"));
    };
    let config = match client_config(&origin.tls) {
        Ok(config) => config,
        Err(error) => return OriginSeen::Tls(error.to_string()),
    };
    match TlsConnector::from(Arc::clone(&config)).connect(name, stream).await {
        Ok(stream) => seen(exchange(stream, request).await),
        Err(error) => OriginSeen::Tls(error.to_string()),
    }
}

fn seen(answer: Option<Answer>) -> OriginSeen {
    match answer {
        Some(answer) => OriginSeen::Answered(Answered { status: answer.status.as_u16() }),
        None => OriginSeen::Garbled,
    }
}

/// To the first of them that takes it.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Unreached> {
    let mut last = Unreached::Other("it has no address".to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = unreached(&error),
        }
    }
    Err(last)
}
