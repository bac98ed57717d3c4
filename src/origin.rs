//! Connections to origin servers: one set of keep-alive pools per worker thread, used by that thread alone.

mod body;
mod connect;
mod pool;
mod resolve;
mod room;

pub use body::{IdleTimer, OriginBody};
pub use connect::client_config;
pub use pool::Running;
pub use room::limit_connections;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as _;
use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use self::body::Lease;
use self::pool::{Connection, Pool};
use self::resolve::Resolver;
use self::room::Place;
use crate::refusal::{OriginFault, Refusal};
use crate::site::{Origin, Timeouts};

/// How long a request waits for room for another connection, or for one that comes back.
const MAX_WAIT_FOR_ROOM: Duration = Duration::from_secs(1);

/// One worker's pools. `B` is the body of the requests sent.
pub struct Origins<B> {
    pools: RefCell<HashMap<u64, Rc<Pool<B>>>>,
    resolver: Resolver,
}

/// How far the request's body has come. Shared between the body and whoever waits for the answer.
#[derive(Debug)]
pub struct Upload {
    /// When the origin's connection last took a piece of it, or its end.
    moved_at: Cell<Instant>,
    /// Whether the next piece has not come from the client yet.
    awaits_client: Cell<bool>,
}

impl Default for Upload {
    fn default() -> Self {
        Self { moved_at: Cell::new(Instant::now()), awaits_client: Cell::new(false) }
    }
}

impl Upload {
    /// Another piece of the body, or its end, went to the origin's connection.
    pub fn moved(&self) {
        self.moved_at.set(Instant::now());
        self.awaits_client.set(false);
    }

    /// The next piece has not come yet. The body's own limit holds for how long that may take.
    pub fn awaits_client(&self) {
        self.awaits_client.set(true);
    }

    /// When the origin is late: its time does not run while the client's does.
    fn late_at(&self, response: Duration) -> Instant {
        let since = if self.awaits_client.get() { Instant::now() } else { self.moved_at.get() };
        since + response
    }
}

/// Why one attempt ended, and what it leaves for another.
struct Failure<B> {
    refusal: Refusal,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<B>>,
}

impl<B> Default for Origins<B> {
    fn default() -> Self {
        Self { pools: RefCell::default(), resolver: Resolver::default() }
    }
}

impl<B> Origins<B>
where
    B: Body<Data = Bytes, Error = Refusal> + Default + Unpin + 'static,
{
    /// Sends `request` to `origin` and returns its answer once the head is there.
    ///
    /// A kept connection that turns out closed is no failure: if nothing of the request was sent, it goes to the next;
    /// if it has no body and its method is idempotent (RFC 9110, section 9.2.2), to a fresh one. A fresh connection
    /// gets one try.
    ///
    /// # Errors
    /// [`Refusal::Origin`] says how the origin failed; the body's own refusal is passed through.
    pub async fn send(
        &self,
        origin: &Origin,
        timeouts: &Timeouts,
        mut request: Request<B>,
        upload: Option<&Upload>,
    ) -> Result<Response<OriginBody<B>>, Refusal> {
        let pool = self.pool(origin.id);
        let mut was_sent = false;
        let mut room_until = None;
        let place = loop {
            // One that was sent in vain is not tried on all kept connections in turn: the origin may have read it, and
            // what closed one of them most likely closed them all.
            if let Some(kept) = (!was_sent).then(|| pool.checkout()).flatten() {
                let spare = is_replayable(&request).then(|| replay_of(&request));
                match exchange(&pool, kept, timeouts, request, upload).await {
                    Ok(response) => return Ok(response),
                    Err(Failure { unsent: Some(unsent), .. }) => request = unsent,
                    Err(Failure { refusal: Refusal::Origin(OriginFault::Broken), .. }) if spare.is_some() => {
                        request = spare.unwrap_or_default();
                        was_sent = true;
                    }
                    Err(Failure { refusal, .. }) => return Err(refusal),
                }
            } else if let Some(place) = Place::take(&pool.room) {
                break place;
            } else {
                let until = *room_until.get_or_insert_with(|| Instant::now() + MAX_WAIT_FOR_ROOM);
                if let Some(place) = self.room(&pool, was_sent, until).await? {
                    break place;
                }
            }
        };
        let connected = connect::connect(origin, &self.resolver, place, timeouts.connect).await;
        let fresh = connected.map_err(Refusal::Origin)?;
        exchange(&pool, fresh, timeouts, request, upload).await.map_err(|failure| failure.refusal)
    }

    /// Closes connections that were idle for too long. Called several times a second.
    pub fn sweep(&self, now: Instant) {
        self.pools.borrow_mut().retain(|_, pool| pool.sweep(now));
        self.resolver.sweep(now);
    }

    /// Waits until `until` for room for a connection, or for a kept one unless `only_fresh`; then there is none.
    async fn room(&self, pool: &Pool<B>, only_fresh: bool, until: Instant) -> Result<Option<Place>, Refusal> {
        // What this worker keeps idle, for whichever origin, is of less use than what is asked for now.
        if room::is_process_full() {
            _ = self.pools.borrow().values().any(|pool| pool.close_idle());
        }
        tokio::select! {
            place = Place::wait(&pool.room) => Ok(place),
            () = pool.returned.notified(), if !only_fresh => Ok(None),
            () = sleep_until(until) => Err(Refusal::Origin(OriginFault::Busy)),
        }
    }

    fn pool(&self, origin: u64) -> Rc<Pool<B>> {
        Rc::clone(self.pools.borrow_mut().entry(origin).or_default())
    }
}

/// One request on one connection.
async fn exchange<B>(
    pool: &Rc<Pool<B>>,
    mut connection: Connection<B>,
    timeouts: &Timeouts,
    request: Request<B>,
    upload: Option<&Upload>,
) -> Result<Response<OriginBody<B>>, Failure<B>>
where
    B: Body<Data = Bytes, Error = Refusal> + 'static,
{
    let mut answer = std::pin::pin!(connection.sender.try_send_request(request));
    let mut late_at = Instant::now() + timeouts.response;
    let answer = loop {
        match timeout_at(late_at, answer.as_mut()).await {
            Ok(answer) => break answer,
            // The time runs from the request sent. While its body moves, the origin is not late.
            Err(_) => match upload.map(|upload| upload.late_at(timeouts.response)) {
                Some(later) if later > late_at => late_at = later,
                _ => return Err(Failure { refusal: Refusal::Origin(OriginFault::Timeout), unsent: None }),
            },
        }
    };
    match answer {
        Ok(response) => {
            let lease = match (response.status(), response.version()) {
                (StatusCode::SWITCHING_PROTOCOLS, _) => Lease::Upgrade(connection.running),
                (_, Version::HTTP_11) => {
                    Lease::Return(connection, Rc::clone(pool), pool::idle_allowed(response.headers()))
                }
                // HTTP/1.0 keeps connections only by an extension that is not worth its risks (RFC 9112, appendix
                // C.2.2).
                _ => Lease::Last { _connection: connection },
            };
            Ok(response.map(|incoming: Incoming| OriginBody::new(incoming, lease, timeouts.idle)))
        }
        Err(mut failed) => {
            let unsent = failed.take_message();
            Err(Failure { refusal: refusal_of(failed.error()), unsent })
        }
    }
}

/// Whose fault an error of the origin's connection is: the client's if its body said so, else the origin's.
fn refusal_of(error: &hyper::Error) -> Refusal {
    let body = error.source().and_then(|source| source.downcast_ref::<Refusal>());
    let fault = if error.is_parse() { OriginFault::Malformed } else { OriginFault::Broken };
    body.copied().unwrap_or(Refusal::Origin(fault))
}

fn is_replayable<B: Body>(request: &Request<B>) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE];
    request.body().is_end_stream() && idempotent.contains(request.method())
}

/// A second copy of a request without a body, upgrades among them: what a tunnel needs is the client's side of it,
/// which stays with us.
///
/// It is made for every such request on a kept connection, however recently that one was used. An origin that restarts
/// closes all its connections in the middle of traffic, so the busiest are the most likely to break, and hyper does
/// not give back what it has written. The copy shares names and values and costs two allocations.
fn replay_of<B: Default>(request: &Request<B>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}
