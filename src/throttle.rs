//! A limit -> admit or refuse.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::plan::Plan;
use crate::refusal::Refusal;

/// A domain's throttle: open to everything until the verdict engages it, then held to the plan's rate (GCRA, by
/// `governor`, on monotonic time). Lives as long as the name does, through reloads.
#[derive(Debug, Default)]
pub struct Throttle {
    engaged: AtomicBool,
    limiter: ArcSwapOption<Limiter>,
}

#[derive(Debug)]
struct Limiter {
    max_qps: u32,
    burst: u32,
    governor: DefaultDirectRateLimiter,
}

impl Throttle {
    /// Holds the domain to `plan` from now on. The same plan again changes nothing: a limiter that is running keeps
    /// its state, so that a reload gives nobody a second burst.
    pub fn engage(&self, plan: &Plan) {
        let running = self.limiter.load();
        if running.as_ref().is_none_or(|l| (l.max_qps, l.burst) != (plan.max_qps, plan.burst)) {
            let quota = Quota::per_second(at_least_1(plan.max_qps)).allow_burst(at_least_1(plan.burst));
            let governor = RateLimiter::direct(quota);
            self.limiter.store(Some(Limiter { max_qps: plan.max_qps, burst: plan.burst, governor }.into()));
        }
        self.engaged.store(true, Ordering::Release);
    }

    /// Lets everything pass again. Forgets the limiter: the next verdict begins with a whole burst.
    pub fn lift(&self) {
        self.engaged.store(false, Ordering::Release);
        self.limiter.store(None);
    }

    /// Whether the verdict holds.
    pub fn is_engaged(&self) -> bool {
        self.engaged.load(Ordering::Acquire)
    }

    /// Admits a request, or refuses it.
    ///
    /// # Errors
    /// [`Refusal::Throttled`] while engaged and over the rate.
    pub fn admit(&self) -> Result<(), Refusal> {
        if !self.is_engaged() {
            return Ok(());
        }
        let limiter = self.limiter.load();
        let Some(limiter) = limiter.as_ref() else { return Ok(()) };
        limiter.governor.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let retry_after_s = u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
            Refusal::Throttled { retry_after_s }
        })
    }
}

fn at_least_1(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted_of(throttle: &Throttle, requests: usize) -> usize {
        (0..requests).filter(|_| throttle.admit().is_ok()).count()
    }

    #[test]
    fn only_an_engaged_throttle_refuses_and_its_burst_is_the_plans() {
        let throttle = Throttle::default();
        assert_eq!(admitted_of(&throttle, 1000), 1000);
        throttle.engage(&Plan { burst: 3, ..Plan::new("p", 1) });
        assert_eq!(admitted_of(&throttle, 1000), 3);
        assert_eq!(throttle.admit(), Err(Refusal::Throttled { retry_after_s: 1 }));
        throttle.lift();
        assert_eq!(admitted_of(&throttle, 1000), 1000);
    }

    #[test]
    fn the_same_plan_again_gives_no_second_burst_and_another_does() {
        let throttle = Throttle::default();
        throttle.engage(&Plan::new("p", 5));
        assert_eq!(admitted_of(&throttle, 100), 5);
        throttle.engage(&Plan::new("p", 5));
        assert_eq!(admitted_of(&throttle, 100), 0);
        throttle.engage(&Plan::new("q", 7));
        assert_eq!(admitted_of(&throttle, 100), 7);
    }
}
