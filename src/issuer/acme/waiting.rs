//! Waiting for an authority to be done.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::{AcmeError, ErrorKind};

/// The first pause between two looks, and the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Looks in a row that may go wrong before waiting is given up: a network has its moments.
const MAX_FAILED_LOOKS: usize = 3;
/// How long the last look may take, once patience was stretched for it.
const LAST_LOOK: Duration = Duration::from_secs(30);

/// Looking again and again, with pauses, until patience ends.
pub(super) struct Waiting {
    deadline: Instant,
    /// When the last look is at the latest, if the authority asks for more patience than there is.
    stretched: Option<Instant>,
    is_last_look: bool,
    pause: Duration,
    retry_after: Option<Duration>,
    /// How often was looked.
    pub(super) looks: usize,
    failed_in_a_row: usize,
    what: &'static str,
    patience: Duration,
}

impl Waiting {
    pub(super) fn new(patience: Duration, what: &'static str) -> Self {
        let deadline = Instant::now() + patience;
        Self {
            deadline,
            stretched: None,
            is_last_look: false,
            pause: FIRST_PAUSE,
            retry_after: None,
            looks: 0,
            failed_in_a_row: 0,
            what,
            patience,
        }
    }

    /// An authority that says to come back after patience ends is waited for once, no longer than for `longest` in all.
    pub(super) fn stretching_to(self, longest: Duration) -> Self {
        Self { stretched: Some(self.deadline + longest.saturating_sub(self.patience)), ..self }
    }

    pub(super) async fn within<T>(&self, look: impl Future<Output = T>) -> Result<T, AcmeError> {
        timeout_at(self.deadline, look).await.map_err(|_| self.ended())
    }

    /// Notes the outcome of a look: now and then one may fail.
    pub(super) fn note(&mut self, looked: Result<Option<Duration>, AcmeError>) -> Result<(), AcmeError> {
        self.looks += 1;
        match looked {
            Ok(retry_after) => {
                self.retry_after = retry_after;
                self.failed_in_a_row = 0;
                Ok(())
            }
            Err(error) => {
                self.failed_in_a_row += 1;
                let is_bearable = is_transient(&error) || error.kind() == ErrorKind::RateLimited;
                if !is_bearable || self.failed_in_a_row > MAX_FAILED_LOOKS {
                    return Err(error);
                }
                self.retry_after = error.retry_after();
                Ok(())
            }
        }
    }

    /// Waits as long as the authority wants, and longer each time. If that is past the end, not at all, unless patience
    /// may be stretched.
    pub(super) async fn pause(&mut self) -> Result<(), AcmeError> {
        if self.is_last_look {
            return Err(self.ended());
        }
        let until = Instant::now() + self.pause.max(self.retry_after.unwrap_or_default());
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        if until <= self.deadline {
            sleep_until(until).await;
            return Ok(());
        }
        let is_asked_for = self.retry_after.is_some_and(|wanted| Instant::now() + wanted > self.deadline);
        match self.stretched.take().filter(|last| is_asked_for && *last > self.deadline) {
            Some(last) => {
                let last = until.min(last);
                sleep_until(last).await;
                self.deadline = last + LAST_LOOK;
                self.is_last_look = true;
                Ok(())
            }
            None => Err(self.ended()),
        }
    }

    fn ended(&self) -> AcmeError {
        let words = format!("{} within {:?}", self.what, self.patience);
        AcmeError::new(ErrorKind::Timeout, &words).with_retry_after(self.retry_after)
    }
}

/// Whether it may be otherwise in a moment.
pub(super) fn is_transient(error: &AcmeError) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PATIENCE: Duration = Duration::from_millis(30);
    const LONGER: Duration = Duration::from_millis(60);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    /// Looks at something that is never done, of which it is said when to come back: how often, and why no more.
    async fn looks(mut waiting: Waiting, retry_after: Option<Duration>) -> (usize, AcmeError) {
        loop {
            waiting.note(Ok(retry_after)).unwrap();
            if let Err(error) = waiting.pause().await {
                return (waiting.looks, error);
            }
        }
    }

    #[rstest]
    #[case::nothing_said(None, true, 1)]
    #[case::soon_after(Some(Duration::from_millis(40)), true, 2)]
    #[case::long_after(Some(WEEK), true, 2)]
    #[case::not_to_be_stretched(Some(WEEK), false, 1)]
    #[tokio::test]
    async fn who_asks_for_more_patience_is_waited_for_once(
        #[case] retry_after: Option<Duration>,
        #[case] may_stretch: bool,
        #[case] expected: usize,
    ) {
        let waiting = Waiting::new(PATIENCE, "not done");
        let waiting = if may_stretch { waiting.stretching_to(LONGER) } else { waiting };
        let (looks, error) = looks(waiting, retry_after).await;
        assert_eq!((looks, error.kind(), error.retry_after()), (expected, ErrorKind::Timeout, retry_after));
    }
}
