//! `data_dir/control.sock`: HTTP/JSON for whoever may read the directory. The command line's changing verbs come here.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;

use super::Desk;
use crate::challenge::Board;
use crate::control::{AskIssuing, AskReload, Ordered, ReloadOutcome, WantedCertificate};

/// Files that are on show at once because somebody asked for one here.
const MAX_SHOWN: usize = 64;
/// The longest that one is.
const MAX_SHOWN_SECS: u64 = 60;

/// A request to show a file where authorities look for one, so that whoever finds it there knows that it is this process
/// that answers.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct ShowFile {
    /// For how long; at most a minute.
    pub seconds: u64,
}

/// The file on show.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ShownFile {
    /// Its name behind [`crate::challenge::PATH`]: nobody can guess it.
    pub token: String,
    /// What is in it.
    pub answer: String,
}

/// The verbs, and health for `lockgate health`.
pub fn routes(
    reload: mpsc::Sender<AskReload>,
    issuing: mpsc::Sender<AskIssuing>,
    board: Arc<Board>,
    desk: Arc<Desk>,
) -> Router {
    let places = Arc::new(Semaphore::new(MAX_SHOWN));
    let showing = Router::new().route("/challenges/show", post(show_file)).with_state((board, places));
    let reload = Router::new().route("/reload", post(ask_reload)).with_state(Arc::new(reload));
    let issuing = Router::new().route("/certificates/order", post(ask_to_issue)).with_state(Arc::new(issuing));
    reload.merge(issuing).merge(showing).merge(super::health(desk))
}

async fn show_file(
    State((board, places)): State<(Arc<Board>, Arc<Semaphore>)>,
    Json(ShowFile { seconds }): Json<ShowFile>,
) -> Response {
    let (Ok(place), Some(token), Some(secret)) = (places.try_acquire_owned(), random(), random()) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let token = format!("lockgate-check-{token}");
    let answer = format!("{token}.{secret}");
    let Some(shown) = board.show_file(&token, &answer) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    tokio::spawn(async move {
        sleep(Duration::from_secs(seconds.min(MAX_SHOWN_SECS))).await;
        drop((shown, place));
    });
    Json(ShownFile { token, answer }).into_response()
}

/// 128 bits that nobody can guess.
fn random() -> Option<String> {
    let mut octets = [0; 16];
    rand::fill(&mut octets).ok()?;
    Some(hex::encode(octets))
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
