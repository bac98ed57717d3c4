//! The connections to one origin that one worker keeps.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use http_body::Body;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant, timeout};

/// Idle connections that one worker keeps to one origin.
const MAX_IDLE_PER_ORIGIN: usize = 512;
/// Connections that one worker may have to one origin, tunnels included.
pub(super) const MAX_PER_ORIGIN: usize = 4096;
/// How long a connection is kept idle: less than the 5 s after which Node.js and Apache close it from their side.
const IDLE: Duration = Duration::from_secs(4);
/// The longest that a connection is kept idle, whatever its origin allows.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// By how much we close earlier than the origin said it would.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A connection: where requests go in, and the task that moves its bytes.
pub(super) struct Connection<B> {
    pub(super) sender: SendRequest<B>,
    pub(super) running: Running,
}

/// The task of a connection, which ends when nobody holds this any more.
///
/// hyper's own way to end is to close when the last [`SendRequest`] is gone, but it flushes first: towards an origin
/// that does not read, that never ends.
#[derive(Debug)]
pub struct Running(AbortHandle);

impl Running {
    pub(super) fn new(task: AbortHandle) -> Self {
        Self(task)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What one worker has of one origin.
pub(super) struct Pool<B> {
    /// The latest used last.
    idle: RefCell<Vec<Idle<B>>>,
    /// Room for further connections.
    pub(super) room: Arc<Semaphore>,
    /// Tells one who waits for a connection that one came back.
    pub(super) returned: Notify,
}

struct Idle<B> {
    connection: Connection<B>,
    until: Instant,
}

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self { idle: RefCell::default(), room: Arc::new(Semaphore::new(MAX_PER_ORIGIN)), returned: Notify::new() }
    }
}

impl<B> Pool<B> {
    /// Closes what was idle for too long. Returns whether anything is left, idle or not.
    pub(super) fn sweep(self: &Rc<Self>, now: Instant) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| !idle.connection.sender.is_closed() && now < idle.until);
        // While there are connections, tunnels too, their number must not be forgotten.
        !idle.is_empty() || Rc::strong_count(self) > 1 || self.room.available_permits() < MAX_PER_ORIGIN
    }

    /// Closes the connection that was idle for the longest time, if there is one.
    pub(super) fn close_idle(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let any = !idle.is_empty();
        drop(idle.drain(..usize::from(any)));
        any
    }
}

impl<B: Body + 'static> Pool<B> {
    /// The connection used last, so that those not needed grow old.
    pub(super) fn checkout(&self) -> Option<Connection<B>> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).map(|idle| idle.connection).find(|connection| connection.sender.is_ready())
    }

    /// Takes a connection back whose answer is complete, to keep it for `idle`. If the answer came early, the rest of
    /// the request may take `rest`.
    pub(super) fn give_back(self: &Rc<Self>, mut connection: Connection<B>, idle: Duration, rest: Duration) {
        if connection.sender.is_ready() {
            self.keep(connection, idle);
        } else if !connection.sender.is_closed() {
            // If the rest is taken, the connection is as good as any.
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = timeout(rest, connection.sender.ready()).await {
                    pool.keep(connection, idle);
                }
            });
        }
    }

    fn keep(&self, connection: Connection<B>, idle: Duration) {
        let mut kept = self.idle.borrow_mut();
        if kept.len() < MAX_IDLE_PER_ORIGIN {
            kept.push(Idle { connection, until: Instant::now() + idle });
            self.returned.notify_one();
        }
    }
}

/// How long the connection of an answer with these fields may be kept idle: as long as the origin says in
/// `Keep-Alive: timeout=SECONDS` (RFC 2068, section 19.7.1.1), less a margin, or [`IDLE`].
pub(super) fn idle_allowed(answer: &HeaderMap) -> Duration {
    let said = answer.get(KEEP_ALIVE).and_then(|value| value.to_str().ok()).and_then(|parameters| {
        let mut parameters = parameters.split(',').filter_map(|parameter| parameter.split_once('='));
        let (_, seconds) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
        seconds.trim().parse().ok()
    });
    said.map_or(IDLE, |seconds| Duration::from_secs(seconds).saturating_sub(IDLE_MARGIN).min(MAX_IDLE))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::as_said("timeout=15", 14)]
    #[case::among_others("max=100, Timeout = 3", 2)]
    #[case::at_most("timeout=3600", 60)]
    #[case::not_at_all("timeout=0", 0)]
    #[case::no_number("timeout=soon", 4)]
    #[case::nothing_said("max=100", 4)]
    fn a_connection_is_kept_for_less_than_the_origin_allows(#[case] field: &'static str, #[case] seconds: u64) {
        let answer = HeaderMap::from_iter([(KEEP_ALIVE, HeaderValue::from_static(field))]);
        assert_eq!(idle_allowed(&answer), Duration::from_secs(seconds));
    }
}
