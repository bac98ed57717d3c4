//! Buckets -> window, daily peak, verdict. The seed's rule, in integers; nothing here reads a clock.

mod calendar;
mod figures;
mod held;
mod record;
mod saved;
mod series;
mod window;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub use calendar::{Calendar, Day};
pub use figures::{AskFigures, Figures};
pub use record::{Chain, DayFacts, DayRecord, Flaw, Hash, Link, NoHash};
pub use saved::UnreadableState;
pub use series::{DamagedHour, Hour, Series, Totals, pack, raise, unpack};
pub use window::Window;

use held::Held;

use crate::clock::{Reading, UnixTime};
use crate::meter::{BUCKET_SECS, Bucket};
use crate::plan::{Plan, Standing};

/// Visits to buckets whose exact count is kept, for what arrives late.
const RECENT_VISITS: usize = 4;
/// Days whose peaks are kept in memory; more than two only after clock jumps.
const KEPT_DAYS: usize = 8;

/// What one name used: recent counts, the window's maxima, the days' peaks, and what of it is still to be written down.
/// A name that is idle again costs a few hundred bytes; one that has had no request has none of this.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The oldest, by pass and bucket, is forgotten first.
    recent: Vec<Visit>,
    window: Window,
    /// In the order of their latest change; the longest unchanged is forgotten first.
    days: Vec<Peak>,
    /// When the verdict held.
    held: Held,
    /// Days with requests that no record has yet.
    unsealed: Vec<Unsealed>,
    /// Counts of buckets that closed since they were last taken to be stored.
    #[serde(skip)]
    closed: VecDeque<(Bucket, u64)>,
}

/// One pass's count of one bucket. After a jump back of the clock a bucket can have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Visit {
    bucket: Bucket,
    pass: u32,
    count: u64,
    /// The part of `count` that was judged already.
    judged: u64,
    /// The part of `count` that a journal has.
    #[serde(skip)]
    journaled: u64,
    /// The part of `count` that a process before this one had counted.
    #[serde(skip)]
    recalled: u64,
}

/// The highest bucket of a day, the earliest of equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peak {
    /// Which day.
    pub day: Day,
    /// The bucket's requests.
    pub count: u64,
    /// The bucket.
    pub at: Bucket,
}

/// A day that waits for its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsealed {
    /// Which day.
    pub day: Day,
    /// The plan's limit when the day's last bucket with requests closed; `None` without a plan.
    pub limit_qps: Option<u32>,
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

impl Visit {
    /// Takes in what is known from before: what this process counted itself comes on top of it.
    fn recall(&mut self, count: u64) {
        let own = self.count.saturating_sub(self.recalled);
        self.recalled = self.recalled.max(count);
        self.count = self.recalled.saturating_add(own);
    }
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
        self.visit(bucket, pass, |visit| visit.count = visit.count.saturating_add(count));
    }

    /// Brings back that a visit had counted `count` before the process ended, of which a journal knows.
    pub fn recall(&mut self, bucket: Bucket, pass: u32, count: u64) {
        self.visit(bucket, pass, |visit| {
            visit.recall(count);
            visit.journaled = visit.journaled.max(count);
        });
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
            let day = calendar.day_of(visit.bucket);
            self.window.insert(visit.bucket, visit.count);
            self.raise_peak(Peak { day, count: visit.count, at: visit.bucket });
            self.unseal(Unsealed { day, limit_qps: plan.map(|plan| plan.max_qps) });
            self.closed.push_back((visit.bucket, visit.count));
            if let Some(plan) = plan {
                let standing = plan.judge(visit.count);
                if standing > plan.judge(known) {
                    exceeded.push(Exceeded { bucket: visit.bucket, count: visit.count, standing });
                }
            }
        }
        self.forget_old_visits();
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

    /// Notes that the verdict stands from `now` until `until`, unless [`Self::release`]d before. Says whether that is
    /// news.
    pub fn hold(&mut self, now: UnixTime, until: UnixTime) -> bool {
        self.held.hold(Bucket::of(now), Bucket::of(until))
    }

    /// Notes that the verdict stands no longer.
    pub fn release(&mut self, now: UnixTime) {
        self.held.release(Bucket::of(now));
    }

    /// Whether the verdict stands at `now`, as last noted.
    pub fn is_held(&self, now: UnixTime) -> bool {
        self.held.contains(Bucket::of(now))
    }

    /// Seconds of `day` under the verdict: 10 for each bucket in any part of which it stood.
    pub fn held_secs(&self, day: Day) -> u64 {
        self.held.buckets_in(day).saturating_mul(BUCKET_SECS)
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

    /// Counts today anew after the zone changed, in the days of `calendar`: from the window's buckets since its first.
    /// Days that were over before it began keep their peaks, and those that were sealed their records.
    pub fn rezone(&mut self, calendar: &mut Calendar, now: UnixTime) {
        let today = calendar.today(now);
        // What lies ahead was met under a clock that came back: it keeps its days.
        let lies_ahead = |day: Day| day.start >= today.end;
        self.days.retain(|p| p.day.end <= today.start || lies_ahead(p.day));
        if let Some((at, count)) = self.window.max_since(today.start) {
            self.raise_peak(Peak { day: today, count, at });
        }
        for Unsealed { day: old, limit_qps } in std::mem::take(&mut self.unsealed) {
            if lies_ahead(old) {
                self.unseal(Unsealed { day: old, limit_qps });
                continue;
            }
            let mut day = calendar.day_of(old.start);
            // A day lies in at most three of another zone's.
            for _ in 0..3 {
                if day.start >= old.end || day.start > today.start {
                    break;
                }
                self.unseal(Unsealed { day, limit_qps });
                day = calendar.day_of(day.end);
            }
        }
    }

    /// Forgets what left the window for good. Only for a clock that is trusted.
    pub fn trim(&mut self, now: UnixTime) {
        self.window.trim(now);
        let oldest = self.unsealed.iter().map(|unsealed| unsealed.day.start).min();
        let day_before = Bucket::of(now.plus_secs(-2 * 86_400));
        self.held.forget_before(oldest.map_or(day_before, |oldest| oldest.min(day_before)));
        self.days.retain(|peak| peak.day.end > day_before);
    }

    /// Takes out the days that are over once every bucket before `by` has closed: they are to be sealed now.
    pub fn take_ended(&mut self, by: Bucket) -> Vec<Unsealed> {
        self.unsealed.extract_if(.., |unsealed| unsealed.day.end <= by).collect()
    }

    /// Whether a day waits for its record that is over once every bucket before `by` has closed.
    pub fn has_ended(&self, by: Bucket) -> bool {
        self.unsealed.iter().any(|unsealed| unsealed.day.end <= by)
    }

    /// The counts so far of the buckets met last: of one that is open when this is stored, nothing else may tell.
    pub fn recent(&self) -> impl Iterator<Item = (Bucket, u64)> {
        self.recent.iter().map(|visit| (visit.bucket, visit.count))
    }

    /// `day`, if it waits for its record.
    pub fn unsealed(&self, day: Day) -> Option<Unsealed> {
        self.unsealed.iter().find(|unsealed| unsealed.day == day).copied()
    }

    /// Counts that no journal has: bucket, pass, requests so far. From now on one has.
    pub fn take_unjournaled(&mut self) -> impl Iterator<Item = (Bucket, u32, u64)> {
        self.recent.iter_mut().filter(|v| v.journaled != v.count).map(|v| {
            v.journaled = v.count;
            (v.bucket, v.pass, v.count)
        })
    }

    /// Counts of closed buckets that no store has. From now on one has.
    pub fn take_closed(&mut self) -> Vec<(Bucket, u64)> {
        std::mem::take(&mut self.closed).into()
    }

    /// How many counts [`Self::take_closed`] would give.
    pub fn closed_count(&self) -> usize {
        self.closed.len()
    }

    /// Gives up the oldest count that no store has. Windows, peaks and verdicts are as before.
    pub fn drop_closed(&mut self) {
        self.closed.pop_front();
    }

    /// What was judged by the larger of its visits.
    fn judged_count(&self, bucket: Bucket) -> u64 {
        let recent = self.recent.iter().filter(|v| v.bucket == bucket).map(|v| v.judged).max();
        recent.unwrap_or(0).max(self.window.count_of(bucket))
    }

    fn visit(&mut self, bucket: Bucket, pass: u32, change: impl FnOnce(&mut Visit)) {
        match self.recent.iter_mut().find(|v| (v.bucket, v.pass) == (bucket, pass)) {
            Some(visit) => change(visit),
            None => {
                let mut visit = Visit { bucket, pass, count: 0, judged: 0, journaled: 0, recalled: 0 };
                change(&mut visit);
                self.recent.push(visit);
            }
        }
    }

    /// Keeps the latest visits; one that was not judged yet is never forgotten.
    fn forget_old_visits(&mut self) {
        while self.recent.len() > RECENT_VISITS {
            let judged = self.recent.iter().enumerate().filter(|(_, v)| v.judged == v.count);
            let Some((oldest, _)) = judged.min_by_key(|(_, v)| (v.pass, v.bucket)) else { return };
            self.recent.remove(oldest);
        }
    }

    fn unseal(&mut self, unsealed: Unsealed) {
        match self.unsealed.iter_mut().find(|known| known.day == unsealed.day) {
            Some(known) => *known = unsealed,
            None => self.unsealed.push(unsealed),
        }
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
