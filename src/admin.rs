//! What people and machines ask: metrics, health, and the verbs of the control socket. Runs off the workers.

pub mod listen;
pub mod metrics;
pub mod socket;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::name::normalize_host;
use crate::snapshot::Live;
use crate::usage::AskFigures;

/// How long a scrape waits for figures.
const FIGURES_PATIENCE: Duration = Duration::from_secs(5);

/// What the listeners need to answer.
#[derive(Debug)]
pub struct Desk {
    /// Process-wide metrics.
    pub registry: Registry,
    /// Where the current snapshot hangs.
    pub live: Arc<Live>,
    /// Wall time.
    pub clock: Arc<Clock>,
    /// Where to ask for the domains' figures.
    pub figures: mpsc::Sender<AskFigures>,
    /// Whether the process takes new connections: false while it drains.
    pub is_serving: AtomicBool,
    /// Names under which the admin listener may be addressed, besides addresses and `localhost`.
    pub admin_hosts: Vec<String>,
}

/// The admin listener. Only addressed by an address, `localhost` or a name that the operator allows, so that a web page
/// cannot reach it through a name of its own (DNS rebinding).
pub fn admin(desk: Arc<Desk>) -> Router {
    scrapes(Arc::clone(&desk)).layer(middleware::from_fn_with_state(desk, check_host))
}

/// The `metrics` listener: nothing but metrics and health, under any name.
pub fn scrapes(desk: Arc<Desk>) -> Router {
    Router::new().route("/metrics", get(show_metrics)).with_state(Arc::clone(&desk)).merge(health(desk))
}

/// `/healthz`, the same on every socket.
fn health(desk: Arc<Desk>) -> Router {
    Router::new().route("/healthz", get(show_health)).with_state(desk)
}

async fn check_host(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| normalize_host(host.to_str().ok()?));
    let is_known = host.is_some_and(|host| {
        host == "localhost" || host.parse::<IpAddr>().is_ok() || desk.admin_hosts.iter().any(|known| *known == host)
    });
    if is_known {
        return next.run(request).await;
    }
    let remedy =
        "Address the admin listener by its IP address or as localhost, or add the name to [listen] admin_hosts.\n";
    (StatusCode::FORBIDDEN, remedy).into_response()
}

async fn show_health(State(desk): State<Arc<Desk>>) -> Response {
    if desk.is_serving.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    }
}

async fn show_metrics(State(desk): State<Arc<Desk>>) -> Response {
    let (ask, answer) = oneshot::channel();
    let figures = match desk.figures.send(ask).await {
        Ok(()) => timeout(FIGURES_PATIENCE, answer).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    let Some(figures) = figures else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the figures are not available\n").into_response();
    };
    let text = metrics::render(&desk.registry, &figures, &desk.live.snapshot(), desk.clock.read().now);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
