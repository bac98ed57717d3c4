//! `data_dir/control.sock`: HTTP/JSON for whoever may read the directory. The command line's changing verbs come here.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::{mpsc, oneshot};

use super::Desk;
use crate::control::{AskIssuing, AskReload, Ordered, ReloadOutcome, WantedCertificate};

/// The verbs, and health for `lockgate health`.
pub fn routes(reload: mpsc::Sender<AskReload>, issuing: mpsc::Sender<AskIssuing>, desk: Arc<Desk>) -> Router {
    let reload = Router::new().route("/reload", post(ask_reload)).with_state(Arc::new(reload));
    let issuing = Router::new().route("/certificates/order", post(ask_to_issue)).with_state(Arc::new(issuing));
    reload.merge(issuing).merge(super::health(desk))
}

async fn ask_to_issue(
    State(issuing): State<Arc<mpsc::Sender<AskIssuing>>>,
    Json(wanted): Json<WantedCertificate>,
) -> Response {
    let (ask, answer) = oneshot::channel();
    let ended = || Ordered::refused("Lockgate is shutting down".to_owned());
    let ordered = match issuing.send((wanted, ask)).await {
        Ok(()) => answer.await.unwrap_or_else(|_| ended()),
        Err(_) => ended(),
    };
    let status = if ordered.ok { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, Json(ordered)).into_response()
}

async fn ask_reload(State(reload): State<Arc<mpsc::Sender<AskReload>>>) -> Response {
    let (ask, answer) = oneshot::channel();
    if reload.send(ask).await.is_err() {
        return shutting_down();
    }
    match answer.await {
        Ok(outcome @ ReloadOutcome { ok: true, .. }) => (StatusCode::OK, Json(outcome)).into_response(),
        Ok(outcome) => (StatusCode::UNPROCESSABLE_ENTITY, Json(outcome)).into_response(),
        Err(_) => shutting_down(),
    }
}

fn shutting_down() -> Response {
    let outcome = ReloadOutcome { ok: false, message: "Lockgate is shutting down".to_owned(), domains: 0 };
    (StatusCode::SERVICE_UNAVAILABLE, Json(outcome)).into_response()
}
