//! Why a request ends early, and whose side that is.

use http::StatusCode;

/// Everything that ends a request's way before the origin's answer. What the visitor gets is decided here and nowhere
/// else; how it is rendered, in `proxy::answer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // The client's side.
    /// No host, two hosts, hosts that differ, framing that could be read two ways.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// The host is not one of the site that this connection's handshake chose (RFC 9110, section 15.5.20).
    #[error("this host is not served on this connection")]
    Misdirected,
    /// `CONNECT`: Lockgate is no forward proxy.
    #[error("CONNECT is not served here")]
    NotAProxy,
    /// An `Expect` other than `100-continue` (RFC 9110, section 10.1.1).
    #[error("the expectation cannot be met")]
    UnknownExpectation,
    /// The body is larger than the domain's `max_body`.
    #[error("the request's body is too large")]
    BodyTooLarge,
    /// The body stopped coming.
    #[error("the request's body did not arrive in time")]
    BodyTimeout,
    /// The body broke off or was no valid chunked coding.
    #[error("the request's body is malformed")]
    BodyMalformed,
    /// Over the plan's limit while throttled.
    #[error("over the plan's limit; try again in {retry_after_s} s")]
    Throttled {
        /// Whole seconds until a request would be admitted; at least 1.
        retry_after_s: u32,
    },
    // The origin's side.
    /// It could not be reached, broke off or talked nonsense.
    #[error("the origin failed: {0}")]
    Origin(OriginFault),
}

/// How an origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum OriginFault {
    /// Its name has no address.
    #[error("its name does not resolve")]
    Resolve,
    /// It refused the connection or did not take it in time.
    #[error("it does not accept connections")]
    Connect,
    /// Its certificate was not accepted, or the handshake failed.
    #[error("no verified TLS connection")]
    Tls,
    /// It closed or reset the connection before its answer was complete.
    #[error("it broke off")]
    Broken,
    /// Its answer is no HTTP, or larger than allowed.
    #[error("its answer is not valid")]
    Malformed,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// All connections that it may have are in use, or all that this process may have to origins.
    #[error("too many connections to origins")]
    Busy,
}

impl OriginFault {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
        }
    }
}

impl Refusal {
    /// The status that the visitor gets.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::BodyMalformed => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotAProxy => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Origin(OriginFault::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            // Nothing was sent, and trying again soon may well help.
            Self::Origin(OriginFault::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Origin(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the connection cannot be trusted with another request: its framing is in doubt.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Malformed(_) | Self::NotAProxy | Self::UnknownExpectation | Self::BodyTimeout | Self::BodyMalformed
        )
    }
}
