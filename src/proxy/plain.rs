//! Port 80: to HTTPS, permanently; and what certificate authorities look for here.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, DATE, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer;
use super::body::Body;
use super::connection::{Connection, drive};
use super::forward::{self, Arriving};
use super::held::Gauge;
use super::socket::Socket;
use super::transport::Transport;
use super::worker::Worker;
use crate::on_demand::is_allowed_host;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// Serves one connection of an `http` listener.
pub async fn connection(worker: Rc<Worker>, tcp: TcpStream, connection: Arc<Connection>) {
    connection.begin_http1();
    connection.held().count_as(Gauge::Plain);
    let max_header_bytes = worker.shared.live.snapshot().limits.max_header_bytes;
    let io = TokioIo::new(Transport::new(Socket::new(tcp, Arc::clone(&connection)), Arc::clone(&connection), false));
    let attended = Arc::clone(&connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let (worker, attended) = (Rc::clone(&worker), Arc::clone(&attended));
        attended.begin_request();
        let ends = EndsRequest(Arc::clone(&attended));
        async move {
            let mut arriving = Arriving::new(request);
            let answered = match worker.shared.challenges.file(arriving.head.uri.path()) {
                Some(key_authorization) => Ok(answer::file(key_authorization.into_string())),
                None => redirect(&worker.shared.live.snapshot(), &arriving),
            };
            let reusable = answered.as_ref().err().is_none_or(|refusal| !refusal.ends_connection());
            let close = !(reusable && arriving.drain().await);
            let mut response = answered.unwrap_or_else(|refusal| answer::refusal(refusal, None, false));
            if close {
                attended.linger();
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if let Some(date) = worker.date.at(worker.shared.clock.read().now) {
                response.headers_mut().insert(DATE, date);
            }
            drop(ends);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = pin!(
        http1::Builder::new()
            .max_header_size(max_header_bytes)
            .header_read_timeout(None)
            .auto_date_header(false)
            .serve_connection(io, service)
    );
    _ = drive(&connection, serving, http1::Connection::graceful_shutdown).await;
}

/// A permanent redirect that keeps host, path, query and method (RFC 9110, section 15.4.9); 404 for unknown hosts. A name
/// that `allow` approves is sent to where its first handshake makes it served; about others nobody is asked here.
fn redirect(snapshot: &Snapshot, arriving: &Arriving) -> Result<Response<Body>, Refusal> {
    let host = forward::host(&arriving.head)?;
    let is_welcome = || snapshot.on_demand.as_ref().is_some_and(|on_demand| is_allowed_host(on_demand, &host));
    if snapshot.site(&host).is_none() && !is_welcome() {
        return Ok(answer::page(StatusCode::NOT_FOUND, "This host is not served here."));
    }
    let path = arriving.head.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.into_owned() };
    let location = match snapshot.redirect_port {
        None | Some(443) => format!("https://{host}{path}"),
        Some(port) => format!("https://{host}:{port}{path}"),
    };
    let location = HeaderValue::from_str(&location).map_err(|_| Refusal::Malformed("the target is not valid"))?;
    let mut response = answer::page(StatusCode::PERMANENT_REDIRECT, "This site is served over HTTPS.");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Ends the request when its answer is ready, or when nobody waits for it.
struct EndsRequest(Arc<Connection>);

impl Drop for EndsRequest {
    fn drop(&mut self) {
        self.0.end_request();
    }
}
