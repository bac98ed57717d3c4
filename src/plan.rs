//! Plans: named limits, and the integer arithmetic of the verdict.

use std::sync::Arc;

use crate::meter::BUCKET_SECS;

/// A named limit on a domain's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    /// `basic`, `pro`, `enterprise` or the operator's own.
    pub name: Arc<str>,
    /// Requests per second that the plan pays for; at least 1.
    pub max_qps: u32,
    /// Requests that a throttled domain may send at once; at least 1, one second's worth unless set.
    pub burst: u32,
}

/// How the count of one closed bucket stands to a plan's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// At most the limit.
    Within,
    /// Over it by at most 10 %: an alert, nothing else.
    Over,
    /// Over it by more than 10 %: the domain is held to its limit.
    Excessive,
}

impl Plan {
    /// A plan whose burst is one second's worth.
    pub fn new(name: &str, max_qps: u32) -> Self {
        Self { name: name.into(), max_qps, burst: max_qps }
    }

    /// The plans that exist without being written.
    pub fn built_in() -> [Self; 3] {
        [Self::new("basic", 10), Self::new("pro", 30), Self::new("enterprise", 100)]
    }

    /// Judges a bucket's count, in integers: over 10 L is over, over 11 L is excessive.
    pub fn judge(&self, count: u64) -> Standing {
        if count > self.excessive_above() {
            Standing::Excessive
        } else if count > BUCKET_SECS * u64::from(self.max_qps) {
            Standing::Over
        } else {
            Standing::Within
        }
    }

    /// The largest count of a bucket that does not throttle: 11 L.
    pub fn excessive_above(&self) -> u64 {
        (BUCKET_SECS + 1) * u64::from(self.max_qps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(10, 100, Standing::Within)]
    #[case(10, 101, Standing::Over)]
    #[case(10, 110, Standing::Over)]
    #[case(10, 111, Standing::Excessive)]
    #[case(1, 10, Standing::Within)]
    #[case(1, 11, Standing::Over)]
    #[case(1, 12, Standing::Excessive)]
    #[case(u32::MAX, 11 * u32::MAX as u64, Standing::Over)]
    #[case(u32::MAX, 11 * u32::MAX as u64 + 1, Standing::Excessive)]
    fn the_verdict_is_exact_to_one_request(#[case] max_qps: u32, #[case] count: u64, #[case] standing: Standing) {
        assert_eq!(Plan::new("p", max_qps).judge(count), standing);
    }
}
