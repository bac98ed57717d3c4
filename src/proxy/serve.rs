//! The request's way.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::DATE;
use http::{Request, Response, StatusCode, request};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::body::Body;
use super::connection::{Connection, drive};
use super::forward::{self, Arriving};
use super::held::Gauge;
use super::socket::Socket;
use super::transport::Transport;
use super::worker::Worker;
use super::{answer, tls, tunnel};
use crate::access::{End, Note};
use crate::certificate::Source;
use crate::clock::Reading;
use crate::meter::Slot;
use crate::name::TenantId;
use crate::refusal::{OriginFault, Refusal};
use crate::site::Site;
use crate::snapshot::Snapshot;

/// Send buffer of one HTTP/2 stream; hyper's default of 400 KiB times 200 streams would be 80 MB a client.
const MAX_STREAM_BUFFER_BYTES: usize = 64 * 1024;
/// Flow-control window of one HTTP/2 stream: what a client may send that its origin has not taken.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Streams that a client may reset before the connection is closed (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that a client may make us reset (CVE-2025-8671).
const MAX_PROVOKED_RESETS: usize = 64;

/// What a client's connection brings to each of its requests.
#[derive(Debug)]
pub struct Visit {
    /// The connection itself.
    pub connection: Arc<Connection>,
    /// The site that the handshake was for.
    pub slot: Slot,
    /// Which kind of certificate serves it.
    pub source: Source,
    /// What the origin is told about the client.
    pub client: forward::Client,
}

/// Serves one connection of an `https` listener, from the handshake to its end.
pub async fn connection(worker: Rc<Worker>, tcp: TcpStream, client: IpAddr, connection: Arc<Connection>) {
    let counters = connection.held().counters();
    let socket = Socket::new(tcp, Arc::clone(&connection));
    let Some(accepted) = tls::accept(&worker.shared, counters, socket).await else { return };
    let snapshot = worker.shared.live.snapshot();
    let limits = snapshot.limits.clone();
    let client = forward::Client::new(client, &snapshot.trusted_proxies);
    drop(snapshot);
    let tls::Accepted { stream, slot, source, is_http2 } = accepted;
    let visit = Rc::new(Visit { connection: Arc::clone(&connection), slot, source, client });
    let io = TokioIo::new(Transport::new(stream, Arc::clone(&connection), is_http2));
    let service = service_fn(move |request| {
        let (worker, visit) = (Rc::clone(&worker), Rc::clone(&visit));
        async move { Ok::<_, Infallible>(attend(worker, visit, request).await) }
    });
    // Errors of the connection are its client's affair; what an origin did was counted where it happened.
    if is_http2 {
        connection.begin_http2();
        connection.held().count_as(Gauge::Http2);
        let serving = pin!(
            http2::Builder::new(LocalExecutor)
                .auto_date_header(false)
                .max_concurrent_streams(limits.max_streams)
                .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
                .max_send_buf_size(MAX_STREAM_BUFFER_BYTES)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
                .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
                .serve_connection(io, service)
        );
        _ = drive(&connection, serving, http2::Connection::graceful_shutdown).await;
    } else {
        connection.begin_http1();
        connection.held().count_as(Gauge::Http1);
        let serving = pin!(
            http1::Builder::new()
                .auto_date_header(false)
                .max_header_size(limits.max_header_bytes)
                .header_read_timeout(None)
                .serve_connection(io, service)
                .with_upgrades()
        );
        _ = drive(&connection, serving, http1::UpgradeableConnection::graceful_shutdown).await;
    }
}

/// Walks one request, renders what came of it, and counts the answer.
async fn attend(worker: Rc<Worker>, visit: Rc<Visit>, request: Request<Incoming>) -> Response<Body> {
    let attendance = Rc::new(Attendance::begin(worker, visit));
    let mut arriving = Arriving::new(request);
    let mut response = match walk(&attendance, &mut arriving).await {
        Ok(response) => response,
        Err(refusal) => {
            attendance.refused(refusal);
            // What nobody read must never become the next request.
            let reusable = !refusal.ends_connection() && arriving.drain().await;
            let close = arriving.is_http1() && !reusable;
            if close {
                attendance.visit.connection.linger();
            }
            let page = answer::refusal(refusal, attendance.site().map(|site| &**site), close);
            answer::to_method(&arriving.head.method, page)
        }
    };
    attendance.complete(&mut response);
    response.map(|body| body.attended_by(attendance))
}

/// The request's way. Each line may end it with a `Refusal`; the order is the policy.
async fn walk(attendance: &Rc<Attendance>, arriving: &mut Arriving) -> Result<Response<Body>, Refusal> {
    let Attendance { worker, visit, .. } = &**attendance;
    let arrival = worker.shared.clock.read();
    let host = forward::host(&arriving.head)?;
    let site = site_of(&worker.shared.live.glance(), visit, &host)?;
    let site = attendance.count_arrival(site, arrival);
    attendance.note(arrival, &host, &arriving.head);
    if let Some(throttle) = &site.throttle {
        throttle.admit()?;
    }
    let upgrade = tunnel::requested(arriving);
    let (mut request, upload) = forward::request(arriving, site, &visit.client, upgrade.is_some())?;
    request.body_mut().attended_by(attendance);
    let response = worker.origins.send(&site.origin, &site.spec.terms.timeouts, request, upload.as_deref()).await?;
    let response = tunnel::open(response, upgrade, visit, site.spec.terms.timeouts.idle)?;
    forward::response(response, &arriving.head.method, site, visit.source)
}

/// The site that a request is for: that of its host, which must be the one that the handshake was for, as of now.
fn site_of(snapshot: &Snapshot, visit: &Visit, host: &str) -> Result<Arc<Site>, Refusal> {
    let site = snapshot.site(host).filter(|site| site.slot == visit.slot);
    site.map(Arc::clone).ok_or(Refusal::Misdirected)
}

/// One request under way, until its body has come and its answer has gone, or nobody wants them any more.
#[derive(Debug)]
pub struct Attendance {
    worker: Rc<Worker>,
    visit: Rc<Visit>,
    /// As soon as there is one the request counts, whatever becomes of it.
    site: OnceCell<Arc<Site>>,
    was_throttled: Cell<bool>,
    /// What it was answered with, once it is.
    status: Cell<Option<StatusCode>>,
    /// Bytes of the answer's body that the protocol has taken.
    sent_bytes: Cell<u64>,
    /// What its line of the access log begins with, if there is a log.
    note: OnceCell<Box<Note>>,
}

/// What a request is counted as whose client went away before it was answered; nginx's number for it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Attendance {
    fn begin(worker: Rc<Worker>, visit: Rc<Visit>) -> Self {
        visit.connection.begin_request();
        Self {
            worker,
            visit,
            site: OnceCell::new(),
            was_throttled: Cell::new(false),
            status: Cell::new(None),
            sent_bytes: Cell::new(0),
            note: OnceCell::new(),
        }
    }

    fn count_arrival(&self, site: Arc<Site>, arrival: Reading) -> &Arc<Site> {
        self.worker.meter.count_arrival(site.slot, arrival);
        self.site.get_or_init(|| site)
    }

    fn note(&self, arrival: Reading, host: &str, head: &request::Parts) {
        if let Some(note) = self.worker.access_log.note(arrival.now, host, head) {
            _ = self.note.set(note);
        }
    }

    fn site(&self) -> Option<&Arc<Site>> {
        self.site.get()
    }

    fn refused(&self, refusal: Refusal) {
        match refusal {
            Refusal::Throttled { .. } => self.was_throttled.set(true),
            Refusal::Origin(fault) => self.origin_failed(fault),
            _ => {}
        }
    }

    /// The origin broke its word, before or within its answer.
    pub fn origin_failed(&self, fault: OriginFault) {
        if let Some(site) = self.site() {
            self.worker.meter.count_origin_fault(site.slot, fault);
        }
    }

    /// The answer's head is about to go: it is dated, and counted.
    fn complete(&self, response: &mut Response<Body>) {
        if !response.headers().contains_key(DATE)
            && let Some(date) = self.worker.date.at(self.worker.shared.clock.read().now)
        {
            response.headers_mut().insert(DATE, date);
        }
        self.count_answer(response.status());
    }

    fn count_answer(&self, status: StatusCode) {
        self.status.set(Some(status));
        if let Some(site) = self.site() {
            self.worker.meter.count_answer(site.slot, status, self.was_throttled.get());
        }
    }

    /// A piece of the answer's body is on its way to the client.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get().saturating_add(bytes as u64));
    }

    /// The request is over: its line is written.
    fn log(&mut self) {
        let (Some(note), Some(site), Some(status)) = (self.note.take(), self.site.get(), self.status.get()) else {
            return;
        };
        self.worker.access_log.write(note, |port| End {
            domain: site.spec.name.as_str(),
            port,
            tenant: site.spec.tenant.as_ref().map(TenantId::as_str),
            client: self.visit.client.address(),
            status: status.as_u16(),
            bytes: self.sent_bytes.get(),
            now: Instant::now(),
            throttled: self.was_throttled.get(),
        });
    }

    /// The connection that it came on.
    pub fn connection(&self) -> &Connection {
        &self.visit.connection
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if self.status.get().is_none() {
            self.count_answer(StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST));
        }
        self.log();
        self.visit.connection.end_request();
    }
}

/// Runs HTTP/2's streams on the thread of their connection.
#[derive(Debug, Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        spawn_local(async move { _ = stream.await });
    }
}
