//! The body of an origin's answer, which gives its connection back when it ends.

use std::error::Error as _;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use super::pool::{Connection, Pool, Running};
use crate::refusal::OriginFault;

/// An answer's body as it comes. Dropped before its end, its connection is closed.
pub struct OriginBody<B: Body + 'static> {
    incoming: Incoming,
    lease: Lease<B>,
    idle: IdleTimer,
}

/// What becomes of the connection of an answer.
pub(super) enum Lease<B> {
    /// It goes back to the pool, to be kept for so long.
    Return(Connection<B>, Rc<Pool<B>>, Duration),
    /// It takes no other request.
    Last { _connection: Connection<B> },
    /// It becomes a tunnel.
    Upgrade(Running),
    /// It is gone already.
    Over,
}

impl<B: Body + 'static> OriginBody<B> {
    pub(super) fn new(incoming: Incoming, lease: Lease<B>, idle: Duration) -> Self {
        let mut body = Self { incoming, lease, idle: IdleTimer::new(idle) };
        if body.incoming.is_end_stream() && !matches!(body.lease, Lease::Upgrade(_)) {
            body.end();
        }
        body
    }

    /// What keeps the connection of a 101 going until it has become a tunnel.
    pub fn upgrading(&mut self) -> Option<Running> {
        match std::mem::replace(&mut self.lease, Lease::Over) {
            Lease::Upgrade(running) => Some(running),
            _ => None,
        }
    }

    fn end(&mut self) {
        if let Lease::Return(connection, pool, idle) = std::mem::replace(&mut self.lease, Lease::Over) {
            pool.give_back(connection, idle, self.idle.limit);
        }
    }
}

impl<B: Body + 'static> Body for OriginBody<B> {
    type Data = Bytes;
    type Error = OriginFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, OriginFault>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(None) => {
                this.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.progress();
                // With a length the end is known here, and nobody may ask again.
                if this.incoming.is_end_stream() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = Lease::Over;
                Poll::Ready(Some(Err(fault_of(&error))))
            }
            Poll::Pending => {
                ready!(this.idle.poll_expired(cx));
                this.lease = Lease::Over;
                Poll::Ready(Some(Err(OriginFault::Timeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// hyper reports a chunk that is none as an I/O error, like a connection that breaks; the kinds differ.
fn fault_of(error: &hyper::Error) -> OriginFault {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let is_invalid = io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput));
    if is_invalid || error.is_parse() { OriginFault::Malformed } else { OriginFault::Broken }
}

/// Fires when a wait takes too long. Free until the first wait; afterwards a timer is armed anew only when it has fired
/// early, not at every piece.
#[derive(Debug)]
pub struct IdleTimer {
    limit: Duration,
    /// When the present wait began; `None` between two waits, however long nobody asks.
    waiting_since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    /// A timer that allows each wait to take `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, waiting_since: None, sleep: None }
    }

    /// The wait, if there was one, is over.
    pub fn progress(&mut self) {
        self.waiting_since = None;
    }

    /// Ready once the present wait, which begins with this call if there is none, has taken too long.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ends = *self.waiting_since.get_or_insert_with(Instant::now) + self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(ends)));
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= ends {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(ends);
        }
        Poll::Pending
    }
}
