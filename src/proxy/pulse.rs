//! A worker's sense of time: monotonic, coarse, and free to read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// Milliseconds since the worker began, as of its last sweep: good enough for deadlines of seconds.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    now_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { began: Instant::now(), now_ms: AtomicU64::new(1) }
    }
}

impl Pulse {
    /// The present; never 0, which stands for "never".
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    /// Catches up with the monotonic clock.
    pub fn beat(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.set(ms.saturating_add(1));
    }

    pub(super) fn set(&self, ms: u64) {
        self.now_ms.store(ms, Relaxed);
    }
}
