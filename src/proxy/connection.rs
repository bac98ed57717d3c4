//! What a worker knows of one client connection: what it is doing, since when, and what it holds.
//!
//! No connection has a timer of its own. It writes down what happens to it and when, and the worker's sweep, a few times
//! a second, asks whether its time is up ([`Connection::due`]). All of it happens on one thread; the atomics (plain loads
//! and stores) are here because hyper wants an upgraded connection's transport to be `Send`.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::held::Held;
use super::pulse::Pulse;
use crate::snapshot::Limits;

/// An HTTP/2 preface and the header of the frame that must follow (RFC 9113, section 3.4).
const PREFACE_BYTES: u32 = 24 + 9;
/// How long a connection that was asked to finish, and has no request, may be silent before it is ended.
const CLOSING_MS: u64 = 1_000;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Before the end of the TLS handshake.
    Handshake = 0,
    /// HTTP/2, until the client has said that it speaks it.
    Preface = 1,
    /// Requests and answers.
    Serving = 2,
    /// Upgraded: bytes both ways.
    Tunnel = 3,
}

/// What the sweep wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Wish {
    /// To go on.
    Nothing = 0,
    /// To finish what runs and take nothing new.
    Finish = 1,
    /// To end now.
    End = 2,
}

/// One client connection. Dropped with the last part of it, it gives back what it held.
#[derive(Debug)]
pub struct Connection {
    pulse: Arc<Pulse>,
    stage: AtomicU8,
    wish: AtomicU8,
    /// When the stage began, or the last request ended, or a tunnel last moved. Like all that follow: the worker's pulse.
    since_ms: AtomicU64,
    /// When the first byte of a head came whose end has not come yet; 0: none has. HTTP/1.1 only.
    head_since_ms: AtomicU64,
    /// Since when the client's side has taken nothing of what waits for it; 0: nothing waits.
    stalled_since_ms: AtomicU64,
    /// When the client's side last took something.
    written_ms: AtomicU64,
    /// Requests whose body is still coming or whose answer is still going.
    requests: AtomicU32,
    /// Of their answers, those with a piece in hand that the protocol has no room for: HTTP/2's window is closed.
    in_hand: AtomicU32,
    /// When a piece was last taken out of such a hand.
    taken_ms: AtomicU64,
    /// Decrypted bytes up to the first request.
    first_bytes: AtomicU32,
    is_http1: AtomicBool,
    /// Whether unread bytes must be read before the socket is closed, lest the answer before them is lost.
    lingers: AtomicBool,
    handshake_timeout_ms: u64,
    header_timeout_ms: u64,
    idle_timeout_ms: u64,
    tunnel_idle_ms: AtomicU64,
    /// The connection's own task, and the tunnel's if it becomes one.
    tasks: [OnceLock<Waker>; 2],
    held: Held,
}

impl Connection {
    /// A connection that has just been accepted, and what it holds while it lives.
    pub fn new(pulse: Arc<Pulse>, limits: &Limits, held: Held) -> Self {
        let now = pulse.now_ms();
        Self {
            pulse,
            stage: AtomicU8::new(Stage::Handshake as u8),
            wish: AtomicU8::new(Wish::Nothing as u8),
            since_ms: AtomicU64::new(now),
            head_since_ms: AtomicU64::new(0),
            stalled_since_ms: AtomicU64::new(0),
            written_ms: AtomicU64::new(now),
            requests: AtomicU32::new(0),
            in_hand: AtomicU32::new(0),
            taken_ms: AtomicU64::new(now),
            first_bytes: AtomicU32::new(0),
            is_http1: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            handshake_timeout_ms: as_ms(limits.handshake_timeout),
            header_timeout_ms: as_ms(limits.header_timeout),
            idle_timeout_ms: as_ms(limits.idle_timeout),
            tunnel_idle_ms: AtomicU64::new(0),
            tasks: [OnceLock::new(), OnceLock::new()],
            held,
        }
    }

    // What happens to it.

    /// HTTP/1.1 begins: its first head is due at once.
    pub fn begin_http1(&self) {
        self.is_http1.store(true, Relaxed);
        self.enter(Stage::Serving);
        self.head_since_ms.store(self.pulse.now_ms(), Relaxed);
    }

    /// HTTP/2 begins: its preface is due at once.
    pub fn begin_http2(&self) {
        self.enter(Stage::Preface);
    }

    /// A request's head has been read.
    pub fn begin_request(&self) {
        self.requests.store(self.requests.load(Relaxed).saturating_add(1), Relaxed);
        self.head_since_ms.store(0, Relaxed);
        self.taken_ms.store(self.pulse.now_ms(), Relaxed);
    }

    /// Its body has come and its answer has gone, or nobody wants them any more.
    pub fn end_request(&self) {
        self.requests.store(self.requests.load(Relaxed).saturating_sub(1), Relaxed);
        self.since_ms.store(self.pulse.now_ms(), Relaxed);
    }

    /// A piece of an answer is in the protocol's hand.
    pub fn hand_over(&self) {
        self.in_hand.store(self.in_hand.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// The protocol has found room for it, or nobody wants it any more.
    pub fn hand_empty(&self) {
        self.in_hand.store(self.in_hand.load(Relaxed).saturating_sub(1), Relaxed);
        self.taken_ms.store(self.pulse.now_ms(), Relaxed);
    }

    /// It becomes a tunnel, which may be silent for `idle`.
    pub fn begin_tunnel(&self, idle: Duration) {
        self.tunnel_idle_ms.store(as_ms(idle), Relaxed);
        self.enter(Stage::Tunnel);
    }

    /// Something passed through the tunnel.
    pub fn touch(&self) {
        self.since_ms.store(self.pulse.now_ms(), Relaxed);
    }

    /// Decrypted bytes came from the client.
    pub(super) fn has_read(&self, bytes: usize) {
        if self.is(Stage::Preface) {
            let read = self.first_bytes.load(Relaxed).saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
            self.first_bytes.store(read, Relaxed);
            if read >= PREFACE_BYTES {
                self.enter(Stage::Serving);
            }
        } else if self.is_http1.load(Relaxed) && self.requests.load(Relaxed) == 0 {
            self.first_bytes.store(1, Relaxed);
            if self.head_since_ms.load(Relaxed) == 0 {
                self.head_since_ms.store(self.pulse.now_ms(), Relaxed);
            }
        }
    }

    /// Encrypted bytes were offered to the client's side, which took some or none.
    pub(super) fn has_written(&self, took_some: bool) {
        if took_some {
            self.stalled_since_ms.store(0, Relaxed);
            self.written_ms.store(self.pulse.now_ms(), Relaxed);
        } else if self.stalled_since_ms.load(Relaxed) == 0 {
            self.stalled_since_ms.store(self.pulse.now_ms(), Relaxed);
        }
    }

    /// A request was answered before its body was read, and the connection will close: what still comes must be read,
    /// or the kernel answers it with a reset that may overtake the answer (RFC 9112, section 9.6).
    pub fn linger(&self) {
        self.lingers.store(true, Relaxed);
    }

    /// Whether to read on before the socket is closed.
    pub(super) fn should_linger(&self) -> bool {
        self.lingers.load(Relaxed)
    }

    // What becomes of it.

    /// What its state wants of it at the present pulse. The whole policy of deadlines stands here.
    pub fn due(&self) -> Wish {
        let now = self.pulse.now_ms();
        let passed = |since: &AtomicU64, limit_ms: u64| now.saturating_sub(since.load(Relaxed)) >= limit_ms;
        let is_set = |since: &AtomicU64| since.load(Relaxed) != 0;
        let end_if = |is_due| if is_due { Wish::End } else { Wish::Nothing };
        let requests = self.requests.load(Relaxed);
        let finishing = self.should_finish();
        if self.is(Stage::Handshake) {
            return end_if(finishing || passed(&self.since_ms, self.handshake_timeout_ms));
        }
        if self.is(Stage::Preface) {
            return end_if(finishing || passed(&self.since_ms, self.header_timeout_ms));
        }
        if self.is(Stage::Tunnel) {
            // A tunnel has no end of its own: a drain lets it go on until its grace is over.
            return end_if(passed(&self.since_ms, self.tunnel_idle_ms.load(Relaxed)));
        }
        if is_set(&self.stalled_since_ms) {
            return end_if(passed(&self.stalled_since_ms, self.idle_timeout_ms));
        }
        if requests > 0 {
            let all_wait = self.in_hand.load(Relaxed) >= requests;
            return end_if(all_wait && passed(&self.taken_ms, self.idle_timeout_ms));
        }
        if is_set(&self.head_since_ms) {
            // Before its first byte there is nothing to finish.
            let is_fresh = self.first_bytes.load(Relaxed) == 0;
            return end_if((finishing && is_fresh) || passed(&self.head_since_ms, self.header_timeout_ms));
        }
        match finishing {
            true => end_if(passed(&self.since_ms, CLOSING_MS) && passed(&self.written_ms, CLOSING_MS)),
            false if passed(&self.since_ms, self.idle_timeout_ms) => Wish::Finish,
            false => Wish::Nothing,
        }
    }

    /// Called by the sweep: has the time come to end, or to finish?
    pub fn check(&self) {
        match self.due() {
            Wish::Nothing => {}
            Wish::Finish => self.finish(),
            Wish::End => self.end(),
        }
    }

    /// Asks the connection to finish what runs.
    pub fn finish(&self) {
        if !self.should_finish() && !self.is(Stage::Tunnel) {
            self.since_ms.store(self.pulse.now_ms(), Relaxed);
            self.tell(Wish::Finish);
        }
        // What has nothing to finish need not wait for the next sweep.
        if self.due() == Wish::End {
            self.end();
        }
    }

    /// Ends the connection now.
    pub fn end(&self) {
        self.tell(Wish::End);
    }

    /// Whether to finish what runs and take nothing new.
    pub fn should_finish(&self) -> bool {
        self.wish.load(Relaxed) >= Wish::Finish as u8
    }

    /// Whether the handshake is not over yet.
    pub fn is_shaking_hands(&self) -> bool {
        self.is(Stage::Handshake)
    }

    /// What the connection holds.
    pub fn held(&self) -> &Held {
        &self.held
    }

    fn tell(&self, wish: Wish) {
        if self.wish.load(Relaxed) < wish as u8 {
            self.wish.store(wish as u8, Relaxed);
            self.tasks.iter().filter_map(OnceLock::get).for_each(Waker::wake_by_ref);
        }
    }

    fn is(&self, stage: Stage) -> bool {
        self.stage.load(Relaxed) == stage as u8
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
        self.since_ms.store(self.pulse.now_ms(), Relaxed);
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Polls one of hyper's connections to its end; `finish` is its graceful shutdown, called once when it is time.
pub async fn drive<F: Future>(connection: &Connection, mut serving: Pin<&mut F>, finish: fn(Pin<&mut F>)) -> F::Output {
    let mut was_asked = false;
    poll_fn(|cx| {
        if connection.should_finish() && !std::mem::replace(&mut was_asked, true) {
            finish(serving.as_mut());
        }
        serving.as_mut().poll(cx)
    })
    .await
}

pin_project! {
    /// A future that ends with the connection it serves: `None` when the sweep ended it.
    pub struct Attended<F> {
        #[pin]
        inner: F,
        connection: Arc<Connection>,
        task: usize,
    }
}

impl<F> Attended<F> {
    /// The connection's own task.
    pub fn new(inner: F, connection: Arc<Connection>) -> Self {
        Self { inner, connection, task: 0 }
    }

    /// The task of the tunnel that the connection became.
    pub fn tunnel(inner: F, connection: Arc<Connection>) -> Self {
        Self { inner, connection, task: 1 }
    }
}

impl<F: Future> Future for Attended<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(task) = this.connection.tasks.get(*this.task) {
            task.get_or_init(|| cx.waker().clone());
        }
        if this.connection.wish.load(Relaxed) == Wish::End as u8 {
            return Poll::Ready(None);
        }
        this.inner.poll(cx).map(Some)
    }
}

#[cfg(test)]
mod tests;
