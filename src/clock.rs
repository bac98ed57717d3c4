//! The only file that asks the operating system for wall time.
//!
//! Everything else takes `now` as an argument, so that every rule can be tried at any second. Monotonic time
//! (timeouts, limiters) is tokio's and governor's business and never passes through here.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment of wall time: milliseconds since the Unix epoch, before or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime {
    ms: i64,
}

impl UnixTime {
    /// The moment `s` seconds after the epoch.
    pub const fn from_secs(s: i64) -> Self {
        Self { ms: s.saturating_mul(1000) }
    }

    /// The moment `ms` milliseconds after the epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self { ms }
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.ms.div_euclid(1000)
    }

    /// Milliseconds since the epoch.
    pub const fn ms(self) -> i64 {
        self.ms
    }

    /// This moment, `s` seconds later (earlier if negative).
    pub const fn plus_secs(self, s: i64) -> Self {
        Self { ms: self.ms.saturating_add(s.saturating_mul(1000)) }
    }
}

/// RFC 3339 in UTC, to the second; far outside jiff's years, the bare number of seconds.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.secs()) {
            Ok(t) => write!(f, "{t}"),
            Err(_) => write!(f, "@{}", self.secs()),
        }
    }
}

/// Wall time now, as the operating system (or `faketime`) tells it.
pub fn now() -> UnixTime {
    let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    UnixTime { ms }
}

/// Wall time read so that a step back is noticed by the very next reader, on whichever thread.
///
/// Metering needs it: a bucket met a second time after the clock went back is not the same visit to that bucket, and
/// the two counts must not be added. Each step back begins a new *pass*, but for those of less than 2 s: NTP sets clocks
/// right by milliseconds, and the few requests of such a moment belong to the bucket that they say, once.
#[derive(Debug)]
pub struct Clock {
    read: fn() -> UnixTime,
    /// The latest second read in this pass, and the pass, in one word so that they change together.
    mark: AtomicU64,
}

/// One reading of a [`Clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Wall time.
    pub now: UnixTime,
    /// How often wall time had stepped back before, modulo 2^24.
    pub pass: u32,
}

/// Bits of the mark that hold seconds: 34,000 years. The pass has the rest.
const SECS_BITS: u32 = 40;
const SECS_MASK: u64 = (1 << SECS_BITS) - 1;
/// By how many of its whole seconds a clock may be behind the latest without having been set back.
const TOLERATED_STEP_SECS: u64 = 2;

impl Default for Clock {
    fn default() -> Self {
        Self::new(now)
    }
}

impl Clock {
    /// A clock over `read`, which is [`now`] everywhere but in tests.
    pub fn new(read: fn() -> UnixTime) -> Self {
        Self { read, mark: AtomicU64::new(0) }
    }

    /// A clock that goes on where another process's ended: if wall time stepped back since, that begins a new pass.
    pub fn resuming(last: Option<Reading>) -> Self {
        let clock = Self::default();
        if let Some(last) = last {
            let pass = u64::from(last.pass) << SECS_BITS;
            clock.mark.store(pass | mark_secs(last.now), Ordering::Relaxed);
        }
        clock
    }

    /// Reads wall time. Costs one relaxed load beyond the system's own reading; writes once a second.
    pub fn read(&self) -> Reading {
        let now = (self.read)();
        let mut secs = mark_secs(now);
        let mut mark = self.mark.load(Ordering::Relaxed);
        loop {
            let next = if secs > mark & SECS_MASK {
                (mark & !SECS_MASK) | secs
            } else if steps_back(secs, mark) {
                // Another thread may have read a later second while this one slept: look again before believing it.
                secs = mark_secs((self.read)());
                if !steps_back(secs, mark) {
                    break;
                }
                (mark & !SECS_MASK).wrapping_add(1 << SECS_BITS) | secs
            } else {
                break;
            };
            match self.mark.compare_exchange_weak(mark, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => mark = next,
                Err(current) => mark = current,
            }
        }
        Reading { now, pass: (mark >> SECS_BITS) as u32 }
    }
}

/// Whether `secs` are so far behind the mark's that the clock was set back: steps of less than 2 s never are, of 3 s and
/// more always.
fn steps_back(secs: u64, mark: u64) -> bool {
    (mark & SECS_MASK).saturating_sub(secs) > TOLERATED_STEP_SECS
}

/// Seconds as the mark holds them; before 1970 all are the same, which only loses steps back to there.
fn mark_secs(now: UnixTime) -> u64 {
    u64::try_from(now.secs()).map_or(0, |s| s.min(SECS_MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static FAKE: std::cell::Cell<i64> = const { std::cell::Cell::new(0) });

    #[test]
    fn a_step_back_begins_a_new_pass_and_a_step_forward_does_not() {
        let clock = Clock::new(|| UnixTime::from_secs(FAKE.get()));
        let pass_at = |s| {
            FAKE.set(s);
            clock.read().pass
        };
        assert_eq!([100, 100, 101, 5000, 4997, 4997, 5001, 10].map(pass_at), [0, 0, 0, 0, 1, 1, 1, 2]);
    }

    #[test]
    fn a_clock_that_is_set_right_by_less_than_two_seconds_goes_on() {
        let clock = Clock::new(|| UnixTime::from_ms(FAKE.get()));
        let pass_at = |ms| {
            FAKE.set(ms);
            clock.read().pass
        };
        assert_eq!([9_000, 8_999, 7_001, 9_500, 7_600, 6_500].map(pass_at), [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn seconds_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(UnixTime::from_ms(1999).secs(), 1);
        assert_eq!(UnixTime::from_ms(-1).secs(), -1);
    }

    #[test]
    fn shows_as_rfc_3339_and_survives_the_far_future() {
        assert_eq!(UnixTime::from_secs(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(UnixTime::from_secs(i64::MAX / 1000).to_string(), format!("@{}", i64::MAX / 1000));
    }
}
