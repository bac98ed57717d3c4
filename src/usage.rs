//! Buckets -> window, daily peak, verdict. The seed's rule, in integers; nothing here reads a clock.

mod calendar;
mod figures;
mod window;

pub use calendar::{Calendar, Day};
pub use figures::{AskFigures, Figures};
pub use window::Window;

use crate::clock::{Reading, UnixTime};
use crate::meter::{BUCKET_SECS, Bucket};
use crate::plan::{Plan, Standing};

/// Visits to buckets whose exact count is kept, for what arrives late.
const RECENT_VISITS: usize = 4;
/// Days whose peaks are kept in memory; more than two only after clock jumps.
const KEPT_DAYS: usize = 8;

/// What one name used: recent counts, the window's maxima, the days' peaks. An idle name costs some 100 bytes.
#[derive(Debug, Default)]
pub struct Usage {
    /// In the order of their first count; the oldest is forgotten first.
    recent: Vec<Visit>,
    window: Window,
    /// In the order of their latest change; the longest unchanged is forgotten first.
    days: Vec<Peak>,
}

/// One pass's count of one bucket. After a jump back of the clock a bucket can have several.
#[derive(Debug, Clone, Copy)]
struct Visit {
    bucket: Bucket,
    pass: u32,
    count: u64,
    /// The part of `count` that was judged already.
    judged: u64,
}

/// The highest bucket of a day, the earliest of equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    /// Which day.
    pub day: Day,
    /// The bucket's requests.
    pub count: u64,
    /// The bucket.
    pub at: Bucket,
}

/// A bucket that closed over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which.
    pub bucket: Bucket,
    /// Its requests.
    pub count: u64,
    /// [`Standing::Over`] or [`Standing::Excessive`].
    pub standing: Standing,
}

/// Requests in a bucket as QPS, exact to one decimal because a bucket is ten seconds.
pub fn qps(count: u64) -> f64 {
    count as f64 / BUCKET_SECS as f64
}

impl Peak {
    /// The day's peak as shown: at least 1 if there was any request.
    pub fn qps(&self) -> f64 {
        qps(self.count).max(1.0)
    }
}

impl Usage {
    /// Adds `count` arrivals of `bucket`, met in the clock's `pass`. They are judged by the next [`Self::close`].
    pub fn add(&mut self, bucket: Bucket, pass: u32, count: u64) {
        if let Some(visit) = self.recent.iter_mut().find(|v| (v.bucket, v.pass) == (bucket, pass)) {
            visit.count = visit.count.saturating_add(count);
            return;
        }
        if self.recent.len() >= RECENT_VISITS {
            // The oldest that was judged; one that was not yet is never dropped.
            if let Some(judged) = self.recent.iter().position(|v| v.judged == v.count) {
                self.recent.remove(judged);
            }
        }
        self.recent.push(Visit { bucket, pass, count, judged: 0 });
    }

    /// Judges what closed by `now`, or was added to since it was judged, against `plan`. Returns the buckets whose
    /// standing became graver.
    pub fn close(&mut self, now: Reading, plan: Option<&Plan>, calendar: &mut Calendar) -> Vec<Exceeded> {
        let mut exceeded = Vec::new();
        for i in 0..self.recent.len() {
            let Some(&visit) = self.recent.get(i) else { break };
            if visit.judged == visit.count || !(is_closed(visit.bucket, now.now) || visit.pass != now.pass) {
                continue;
            }
            let known = self.judged_count(visit.bucket);
            if let Some(v) = self.recent.get_mut(i) {
                v.judged = v.count;
            }
            if visit.count <= known {
                continue;
            }
            self.window.insert(visit.bucket, visit.count);
            self.raise_peak(Peak { day: calendar.day_of(visit.bucket), count: visit.count, at: visit.bucket });
            if let Some(plan) = plan {
                let standing = plan.judge(visit.count);
                if standing > plan.judge(known) {
                    exceeded.push(Exceeded { bucket: visit.bucket, count: visit.count, standing });
                }
            }
        }
        exceeded
    }

    /// Whether some counts wait to be judged.
    pub fn is_open(&self) -> bool {
        self.recent.iter().any(|v| v.judged != v.count)
    }

    /// Until when the verdict "throttled" holds under `plan`, seen from `now`; `None` if it does not.
    pub fn throttled_until(&self, now: UnixTime, plan: &Plan) -> Option<UnixTime> {
        self.window.last_over(plan.excessive_above(), now).map(Window::leaves_at)
    }

    /// Requests in the last closed bucket.
    pub fn last_closed_count(&self, now: UnixTime) -> u64 {
        let Bucket(current) = Bucket::of(now);
        self.judged_count(Bucket(current.saturating_sub(1)))
    }

    /// The peak of `day`, if it had any request in a closed bucket.
    pub fn peak(&self, day: Day) -> Option<Peak> {
        self.days.iter().find(|p| p.day == day).copied()
    }

    /// Counts `today` anew after the zone changed: from the window's buckets since its first. Days that were over
    /// before it began keep their peaks.
    pub fn rezone(&mut self, today: Day) {
        self.days.retain(|p| p.day.end <= today.start);
        if let Some((at, count)) = self.window.max_since(today.start) {
            self.raise_peak(Peak { day: today, count, at });
        }
    }

    /// Forgets what left the window for good. Only for a clock that is trusted.
    pub fn trim(&mut self, now: UnixTime) {
        self.window.trim(now);
    }

    /// What the bucket's standing was last judged by: the larger of its visits.
    fn judged_count(&self, bucket: Bucket) -> u64 {
        let recent = self.recent.iter().filter(|v| v.bucket == bucket).map(|v| v.judged).max();
        recent.unwrap_or(0).max(self.window.count_of(bucket))
    }

    fn raise_peak(&mut self, candidate: Peak) {
        let known = self.days.iter().position(|p| p.day == candidate.day);
        let known = known.map(|i| self.days.remove(i));
        let peak = match known {
            Some(old)
                if (old.count, std::cmp::Reverse(old.at)) >= (candidate.count, std::cmp::Reverse(candidate.at)) =>
            {
                old
            }
            _ => candidate,
        };
        self.days.push(peak);
        if self.days.len() > KEPT_DAYS {
            self.days.remove(0);
        }
    }
}

/// Whether `bucket` has ended.
fn is_closed(bucket: Bucket, now: UnixTime) -> bool {
    now >= bucket.end()
}

#[cfg(test)]
mod tests;
