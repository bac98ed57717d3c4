//! Two looks at the clock: as it stood a moment ago, and whether it can be trusted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::{Reading, UnixTime};

/// By how much closing lags behind the clock, so that every worker has shipped its part of a bucket when it is judged.
/// Monotonic time: a wall clock that stands still or jumps does not change who has shipped.
const CLOSING_LAG: Duration = Duration::from_millis(300);
/// How long the wall clock must have run evenly before what left the window is forgotten.
const TRUST_AFTER: Duration = Duration::from_secs(60);
/// How far wall and monotonic time may part between two steps before it is a jump.
const JUMP_MS: i64 = 1_000;

/// The clock as it stood [`CLOSING_LAG`] ago.
#[derive(Debug, Default)]
pub(super) struct LaggingClock(VecDeque<(Instant, Reading)>);

impl LaggingClock {
    pub(super) fn note(&mut self, now: Reading, mono: Instant) {
        self.0.push_back((mono, now));
        let has_lagged = |(at, _): &(Instant, Reading)| mono.duration_since(*at) >= CLOSING_LAG;
        while self.0.get(1).is_some_and(has_lagged) {
            self.0.pop_front();
        }
    }

    /// `None` at the very beginning.
    pub(super) fn read(&self, mono: Instant) -> Option<Reading> {
        self.0.front().filter(|(at, _)| mono.duration_since(*at) >= CLOSING_LAG).map(|(_, reading)| *reading)
    }
}

/// Whether wall and monotonic time have run together.
#[derive(Debug, Default)]
pub(super) struct Evenness {
    offset_ms: Option<i64>,
    since: Option<Instant>,
}

impl Evenness {
    /// Notes both times; says whether the wall clock jumped since the last note.
    pub(super) fn note(&mut self, wall: UnixTime, mono: Instant) -> bool {
        let began = *self.since.get_or_insert(mono);
        let offset_ms = wall.ms().saturating_sub(i64::try_from(mono.duration_since(began).as_millis()).unwrap_or(0));
        let jumped = self.offset_ms.is_some_and(|last| offset_ms.saturating_sub(last).saturating_abs() > JUMP_MS);
        if jumped {
            self.since = Some(mono);
            self.offset_ms = Some(wall.ms());
        } else {
            self.offset_ms = Some(offset_ms);
        }
        jumped
    }

    pub(super) fn is_trusted(&self, mono: Instant) -> bool {
        self.since.is_some_and(|since| mono.duration_since(since) >= TRUST_AFTER)
    }
}
