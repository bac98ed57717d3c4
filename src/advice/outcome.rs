//! What one plan would have meant.

use crate::meter::{BUCKET_SECS, Bucket};
use crate::plan::{Plan, Standing};

/// For how many buckets one that is excessive puts a domain under the verdict: the 24 hours from its end.
const VERDICT_BUCKETS: i64 = 8_640;

/// What one plan would have meant for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// Buckets over its limit by at most 10 %: alerts `qps_over`.
    pub over: u64,
    /// Buckets over it by more: alerts `qps_throttled`.
    pub excessive: u64,
    /// Buckets that the host would have spent held to the limit.
    throttled_buckets: u64,
    /// The last bucket that is under the verdict so far.
    held_until: Bucket,
    /// The last bucket that is looked at.
    end: Bucket,
}

impl Outcome {
    pub(super) fn new(plan: Plan, end: Bucket) -> Self {
        Self { plan, over: 0, excessive: 0, throttled_buckets: 0, held_until: Bucket(i64::MIN), end }
    }

    /// Buckets come in order, so the union of the verdicts' times grows at its end only.
    pub(super) fn add(&mut self, bucket: Bucket, count: u64) {
        match self.plan.judge(count) {
            Standing::Within => {}
            Standing::Over => self.over = self.over.saturating_add(1),
            Standing::Excessive => {
                self.excessive = self.excessive.saturating_add(1);
                let until = Bucket(bucket.0.saturating_add(VERDICT_BUCKETS)).min(self.end);
                let added = until.0.saturating_sub(bucket.max(self.held_until).0);
                self.throttled_buckets = self.throttled_buckets.saturating_add(u64::try_from(added).unwrap_or(0));
                self.held_until = until.max(self.held_until);
            }
        }
    }

    /// How long the host would have been held to the limit.
    pub fn throttled_secs(&self) -> u64 {
        self.throttled_buckets.saturating_mul(BUCKET_SECS)
    }
}
