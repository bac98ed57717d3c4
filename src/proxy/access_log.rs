//! A worker's part of the access log: lines gather in its buffer, and go to the writer in pieces. Nothing here waits for
//! a disk: what the writer has no room for is dropped, and counted.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::Instant;

use http::request;

use super::counters::Counters;
use crate::access::{End, Format, Note};
use crate::clock::UnixTime;

/// Bytes of lines that a worker gathers before it hands them over. Every shipment of counts takes what there is along.
const FULL_BYTES: usize = 32 * 1024;
/// Bytes of all workers that may wait for the disk.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// Notes of requests that are over, kept for those that come: as many as there are requests at a time, mostly.
const MAX_SPARE_NOTES: usize = 256;

/// Whole lines on their way to the disk.
#[derive(Debug)]
pub struct Piece {
    /// The lines.
    pub bytes: Box<[u8]>,
    /// How many they are.
    pub lines: u64,
}

/// Where a worker's lines go, and how they read. There is one for all workers each time that the log is opened; when
/// the last of them is dropped, its writer knows that nothing more comes.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// How lines read.
    pub format: Format,
    /// The port that clients know the domains by.
    pub port: u16,
    pieces: Sender<Piece>,
    queue: Arc<Queue>,
}

/// What outlets and their writer share.
#[derive(Debug)]
pub struct Queue {
    waiting_bytes: AtomicUsize,
    /// Whether an outage has been reported that is not over.
    is_out: AtomicBool,
    counters: Arc<Counters>,
}

impl Queue {
    /// A queue that nothing waits in.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { waiting_bytes: AtomicUsize::new(0), is_out: AtomicBool::new(false), counters }
    }

    /// The writer has taken a piece's `bytes` off the queue, and written `lines` of it.
    pub fn took(&self, bytes: usize, lines: u64) {
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
        self.counters.access_log_lines.inc_by(lines);
    }

    /// `lines` are lost.
    pub fn lost(&self, lines: u64) {
        self.counters.access_log_dropped_lines.inc_by(lines);
    }

    /// An outage is noticed; returns whether it is the first notice, which is to be logged.
    pub fn begin_outage(&self) -> bool {
        !self.is_out.swap(true, Relaxed)
    }

    /// The log is written again; returns whether there was an outage, whose end is to be logged.
    pub fn end_outage(&self) -> bool {
        self.is_out.load(Relaxed) && self.is_out.swap(false, Relaxed)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting_bytes.load(Relaxed) == 0
    }
}

impl Outlet {
    /// An outlet into `queue`, whose writer receives from the other end of `pieces`.
    pub fn new(format: Format, port: u16, pieces: Sender<Piece>, queue: Arc<Queue>) -> Self {
        Self { format, port, pieces, queue }
    }

    /// Hands lines over, if there is room for them.
    fn offer(&self, bytes: &[u8], lines: u64) -> bool {
        let waiting = self.queue.waiting_bytes.fetch_add(bytes.len(), Relaxed);
        let has_room = waiting.saturating_add(bytes.len()) <= MAX_WAITING_BYTES;
        if has_room && self.pieces.send(Piece { bytes: bytes.into(), lines }).is_ok() {
            return true;
        }
        self.queue.waiting_bytes.fetch_sub(bytes.len(), Relaxed);
        false
    }

    fn lose(&self, lines: u64) {
        self.queue.lost(lines);
        if self.queue.begin_outage() {
            tracing::warn!("the access log is written too slowly or not at all: lines are being dropped");
        }
    }
}

/// The log as one worker's requests see it. Used by that worker's thread alone.
#[derive(Debug, Default)]
pub struct AccessLog {
    /// Beside the rest, because every request asks.
    is_wanted: Cell<bool>,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    outlet: Option<Outlet>,
    buffer: Vec<u8>,
    lines: u64,
    #[expect(clippy::vec_box, reason = "a request holds its note's box, and gives that back")]
    spare: Vec<Box<Note>>,
}

impl AccessLog {
    /// Lines go to `outlet` from now on, or nowhere. Those of before have gone to the old one.
    pub fn direct(&self, outlet: Option<Outlet>) {
        self.is_wanted.set(outlet.is_some());
        let mut inner = self.inner.borrow_mut();
        inner.ship();
        inner.lose();
        if outlet.is_none() {
            inner.spare = Vec::new();
            inner.buffer = Vec::new();
        }
        inner.outlet = outlet;
    }

    /// Notes a request that has just arrived, if there is a log.
    pub fn note(&self, arrival: UnixTime, host: &str, head: &request::Parts) -> Option<Box<Note>> {
        if !self.is_wanted.get() {
            return None;
        }
        let now = Instant::now();
        let spare = self.inner.borrow_mut().spare.pop();
        let mut note = spare.unwrap_or_else(|| Box::new(Note::blank(now)));
        note.take(arrival, now, host, head);
        Some(note)
    }

    /// Writes the line of a request that is over; `end` is given the port that its domain is known by.
    pub fn write<'a>(&self, note: Box<Note>, end: impl FnOnce(u16) -> End<'a>) {
        let mut inner = self.inner.borrow_mut();
        let Inner { outlet, buffer, lines, spare } = &mut *inner;
        let Some(outlet) = outlet else { return spare.clear() };
        note.write(outlet.format, &end(outlet.port), buffer);
        *lines += 1;
        if spare.len() < MAX_SPARE_NOTES {
            spare.push(note);
        }
        if inner.buffer.len() >= FULL_BYTES {
            inner.ship();
            inner.lose();
        }
    }

    /// Hands over what has gathered. What there is no room for stays until the buffer is full.
    pub fn ship(&self) {
        self.inner.borrow_mut().ship();
    }
}

impl Inner {
    fn ship(&mut self) {
        if let Some(outlet) = &self.outlet
            && self.lines > 0
            && outlet.offer(&self.buffer, self.lines)
        {
            self.buffer.clear();
            self.lines = 0;
        }
    }

    /// Drops what could not be handed over.
    fn lose(&mut self) {
        if let Some(outlet) = self.outlet.as_ref().filter(|_| self.lines > 0) {
            outlet.lose(self.lines);
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use std::sync::mpsc::{Receiver, channel};

    fn log() -> (AccessLog, Receiver<Piece>, Arc<Queue>) {
        let counters = Arc::new(Counters::register(&prometheus::Registry::new()).unwrap());
        let (pieces, arriving) = channel();
        let queue = Arc::new(Queue::new(counters));
        let log = AccessLog::default();
        log.direct(Some(Outlet::new(Format::Json, 443, pieces, Arc::clone(&queue))));
        (log, arriving, queue)
    }

    fn write(log: &AccessLog, requests: usize) {
        let head = Request::builder().uri("/").body(()).unwrap().into_parts().0;
        for _ in 0..requests {
            let Some(note) = log.note(UnixTime::from_secs(0), "a.test", &head) else { return };
            log.write(note, |port| End {
                domain: "a.test",
                port,
                tenant: None,
                client: b"192.0.2.1",
                status: 200,
                bytes: 0,
                now: Instant::now(),
                throttled: false,
            });
        }
    }

    fn lines(arriving: &Receiver<Piece>) -> (u64, usize) {
        let pieces: Vec<_> = arriving.try_iter().collect();
        let newlines = pieces.iter().flat_map(|piece| piece.bytes.iter()).filter(|b| **b == b'\n').count();
        (pieces.iter().map(|piece| piece.lines).sum(), newlines)
    }

    #[test]
    fn lines_gather_until_they_are_many_or_asked_for() {
        let (log, arriving, _) = log();
        write(&log, 10);
        assert_eq!(lines(&arriving), (0, 0));
        log.ship();
        assert_eq!(lines(&arriving), (10, 10));
        log.ship();
        assert!(arriving.try_recv().is_err(), "nothing is not handed over");
        write(&log, FULL_BYTES / 100);
        let piece = arriving.try_recv().unwrap();
        assert!((FULL_BYTES..FULL_BYTES + 1000).contains(&piece.bytes.len()));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_the_rest_is_whole() {
        let (log, arriving, queue) = log();
        let many = MAX_WAITING_BYTES / 100;
        write(&log, many);
        log.direct(None);
        let dropped = queue.counters.access_log_dropped_lines.get();
        let (there, newlines) = lines(&arriving);
        assert!(dropped > 0 && !queue.begin_outage());
        assert_eq!((there + dropped, newlines as u64), (many as u64, there));
        assert!(arriving.recv().is_err(), "the writer learns that nothing more comes");
    }

    #[test]
    fn without_an_outlet_nothing_is_noted() {
        let (log, arriving, _) = log();
        write(&log, 1);
        log.direct(None);
        assert_eq!(lines(&arriving), (1, 1));
        write(&log, 1);
        assert!(!log.is_wanted.get() && log.inner.borrow().buffer.is_empty());
    }
}
