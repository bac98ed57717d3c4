//! What a CA can do wrong.

use super::seen::{Resource, Seen};

/// One thing that goes wrong, until [`FaultCa::heal`](super::FaultCa::heal) or for a number of requests.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(super) what: What,
    /// Where it does; `None`: everywhere.
    at: Option<Resource>,
    /// How many more requests it befalls; `None`: all.
    left: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Problem {
        status: u16,
        kind: String,
        detail: String,
        retry_after: RetryAfter,
    },
    Silence,
    LostAnswer,
    Garbage,
    Endless,
    /// Every n-th; counts the requests that it looked at.
    BadNonce {
        every: usize,
        asked: usize,
    },
    InvalidAuthorization {
        kind: String,
        detail: String,
    },
    StuckPending,
    StuckProcessing,
    WrongKey,
    WrongNames(Vec<String>),
    Expired,
    BrokenChain,
}

/// What a refusal says about when to come back (RFC 9110, section 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    Nothing,
    /// A number of seconds.
    Secs(u64),
    /// The date that so many seconds from now will be, by the CA's clock.
    DateIn(u64),
}

impl Fault {
    // Answers of any kind of resource; everywhere, unless told otherwise by `at`.

    /// A problem document (RFC 7807) with this status; `kind` is the last word of its ACME error type.
    pub fn problem(status: u16, kind: &str, detail: &str) -> Self {
        Self::refusal(status, kind, detail, RetryAfter::Nothing)
    }

    /// 429 `rateLimited` to every new order.
    pub fn rate_limited(retry_after: RetryAfter) -> Self {
        Self::refusal(429, "rateLimited", "too many certificates already issued", retry_after).at(Resource::NewOrder)
    }

    /// 503 to everything.
    pub fn unavailable(retry_after: RetryAfter) -> Self {
        Self::refusal(503, "serverInternal", "down for maintenance", retry_after)
    }

    /// The connection is accepted, the request read, and never answered.
    pub fn silence() -> Self {
        Self::new(What::Silence)
    }

    /// What is asked for is done, and never answered.
    pub fn lost_answer() -> Self {
        Self::new(What::LostAnswer)
    }

    /// 200 with something that is not JSON.
    pub fn garbage() -> Self {
        Self::new(What::Garbage)
    }

    /// 200 with a body that never ends, as fast as the client reads it.
    pub fn endless_body() -> Self {
        Self::new(What::Endless)
    }

    /// Every n-th signed request is refused with `badNonce`.
    pub fn bad_nonce(every: usize) -> Self {
        assert!(every > 0, "every n-th, from 1");
        Self::new(What::BadNonce { every, asked: 0 })
    }

    // What becomes of an order.

    /// A triggered challenge fails with this problem: `caa`, `dns`, `connection`, `unauthorized`...
    pub fn invalid_authorization(kind: &str, detail: &str) -> Self {
        Self::new(What::InvalidAuthorization { kind: kind.to_owned(), detail: detail.to_owned() })
    }

    /// A triggered challenge is never decided: its order stays pending.
    pub fn stuck_pending() -> Self {
        Self::new(What::StuckPending)
    }

    /// A finalized order is never decided: it stays processing.
    pub fn stuck_processing() -> Self {
        Self::new(What::StuckProcessing)
    }

    // What is issued.

    /// The certificate is for another key than the CSR's.
    pub fn wrong_key() -> Self {
        Self::new(What::WrongKey)
    }

    /// The certificate is for these names.
    pub fn wrong_names(names: &[&str]) -> Self {
        Self::new(What::WrongNames(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    /// The certificate has expired when it is issued.
    pub fn expired() -> Self {
        Self::new(What::Expired)
    }

    /// The chain's PEM is cut off in the middle of a certificate.
    pub fn broken_chain() -> Self {
        Self::new(What::BrokenChain)
    }

    // Limits.

    /// Befalls only requests for this kind of resource.
    pub fn at(mut self, resource: Resource) -> Self {
        self.at = Some(resource);
        self
    }

    /// Befalls so many requests (orders, certificates) and is over.
    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }

    fn new(what: What) -> Self {
        Self { what, at: None, left: None }
    }

    fn refusal(status: u16, kind: &str, detail: &str, retry_after: RetryAfter) -> Self {
        let (kind, detail) = (kind.to_owned(), detail.to_owned());
        Self::new(What::Problem { status, kind, detail, retry_after })
    }

    /// Whether it befalls this request's answer as such.
    fn befalls(&mut self, seen: &Seen) -> bool {
        let is_here = self.at.is_none_or(|at| at == seen.resource);
        match &mut self.what {
            What::Problem { .. } | What::Silence | What::LostAnswer | What::Garbage | What::Endless => is_here,
            What::BadNonce { every, asked } if is_here && seen.is_signed() => {
                *asked += 1;
                *asked % *every == 0
            }
            _ => false,
        }
    }

    /// Uses it up once; `false` when it was used up before.
    fn strike(&mut self) -> bool {
        let has_any = self.left != Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        has_any
    }
}

/// The fault that befalls this request's answer.
pub(super) fn befalling(faults: &mut [Fault], seen: &Seen) -> Option<What> {
    let mut found = faults.iter_mut().filter(|fault| fault.left != Some(0));
    let fault = found.find_map(|fault| fault.befalls(seen).then_some(fault))?;
    fault.strike().then(|| fault.what.clone())
}

/// The fault among these kinds that befalls what is being done.
pub(super) fn striking(faults: &mut [Fault], fits: impl Fn(&What) -> bool) -> Option<What> {
    let fault = faults.iter_mut().find(|fault| fault.left != Some(0) && fits(&fault.what))?;
    fault.strike().then(|| fault.what.clone())
}
