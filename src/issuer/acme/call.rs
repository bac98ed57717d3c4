//! One call of the library: what the HTTP client saw during it, tried again for a bad nonce, and survived if it panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use instant_acme::Error;

use super::error::is_type;

/// Calls for one answer that is not `badNonce`. The library sends each three times: fifteen requests, which even an
/// authority that refuses every second nonce does not all refuse (RFC 8555, section 6.5).
const NONCE_ROUNDS: usize = 5;

tokio::task_local! {
    /// Orders are under way side by side through one client: each call hears of its own answers only.
    static SEEN: Arc<Mutex<Answer>>;
}

/// What the HTTP client saw of the last answer of a call, which the library does not show.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// `None`: there was none.
    pub(super) status: Option<StatusCode>,
    /// When to come back.
    pub(super) retry_after: Option<Duration>,
    /// The URLs of `Link: <...>; rel="alternate"` (RFC 8555, section 7.4.2).
    pub(super) alternates: Vec<String>,
    /// The whole body.
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.is_success())
    }

    /// Notes this answer for the call that is under way.
    pub(super) fn note(self) {
        _ = SEEN.try_with(|seen| *seen.lock().unwrap_or_else(PoisonError::into_inner) = self);
    }
}

/// The library panicked: what was sent is something that nobody thought of. An error, not the end of the process.
#[derive(Debug, thiserror::Error)]
#[error("it is nothing that anybody thought of")]
pub(super) struct Panicked;

/// Calls the library (a future), again while the authority refuses the nonce. Gives the result, and the last
/// [`Answer`].
///
/// A macro, because each round needs a future of its own, and a function that takes what makes them (an `AsyncFnMut`)
/// gives a future that the compiler cannot show to be `Send`.
macro_rules! call {
    ($attempt:expr) => {{
        let mut round = 1;
        loop {
            let (result, answer) = $crate::issuer::acme::call::watched($attempt).await;
            if !$crate::issuer::acme::call::is_again(&result, round) {
                break (result, answer);
            }
            round += 1;
        }
    }};
}
pub(super) use call;

/// One call, and the last answer that the HTTP client saw during it.
pub(super) async fn watched<T>(call: impl Future<Output = Result<T, Error>>) -> (Result<T, Error>, Answer) {
    let seen = Arc::new(Mutex::new(Answer::default()));
    let result = SEEN.scope(Arc::clone(&seen), survived(call)).await;
    let answer = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    (result, answer)
}

/// Whether the call is to be made again after this round, the first being 1.
pub(super) fn is_again<T>(result: &Result<T, Error>, round: usize) -> bool {
    round < NONCE_ROUNDS && matches!(result, Err(Error::Api(problem)) if is_type(problem, "badNonce"))
}

/// The library unwraps a URL that comes from the directory; whatever else it may unwrap, this process goes on.
async fn survived<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut call = pin!(call);
    poll_fn(|cx| {
        // What was half done is dropped with the call: nothing of it is looked at again.
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(Error::Other(Box::new(Panicked)))))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_library_is_an_error() {
        let (result, _) = watched(async { panic!("on purpose") }).await;
        let result: Result<(), Error> = result;
        assert!(matches!(result, Err(Error::Other(error)) if error.is::<Panicked>()));
    }
}
