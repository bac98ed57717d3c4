//! Waiting for an authority to be done.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::error::{AcmeError, ErrorKind};

/// The first pause between two looks, and the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Looks in a row that may go wrong before waiting is given up: a network has its moments.
const MAX_FAILED_LOOKS: usize = 3;

/// Looking again and again, with pauses, until patience ends.
pub(super) struct Waiting {
    deadline: Instant,
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
        Self { deadline, pause: FIRST_PAUSE, retry_after: None, looks: 0, failed_in_a_row: 0, what, patience }
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

    /// Waits as long as the authority wants, and longer each time. If that is past the end, not at all.
    pub(super) async fn pause(&mut self) -> Result<(), AcmeError> {
        let pause = self.pause.max(self.retry_after.unwrap_or_default());
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        if Instant::now() + pause > self.deadline {
            return Err(self.ended());
        }
        sleep(pause).await;
        Ok(())
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
