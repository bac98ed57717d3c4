//! What goes wrong with an authority: of which kind, in whose words, and when to come back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{Error, Identifier, Problem};

use super::call::Answer;
use super::http::{Http, HttpError};
use crate::issuance::Challenge;
use crate::name::DomainName;

/// The longest text kept of what an authority says, in characters.
const MAX_PROBLEM_CHARS: usize = 1000;
/// Subproblems that are repeated; the text is cut before there are that many.
const MAX_SUBPROBLEMS: usize = 100;
/// What the types of RFC 8555 begin with (section 6.7).
const TYPES: &str = "urn:ietf:params:acme:error:";

/// Why an authority did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct AcmeError {
    kind: ErrorKind,
    problem: String,
    name: Option<String>,
    is_wildcard: bool,
    challenge: Option<Challenge>,
    caa_identity: Option<String>,
    retry_after: Option<Duration>,
    status: Option<u16>,
    is_order_over: bool,
}

/// What kind of failure it is: what to do next depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The authority cannot be reached, or has trouble of its own (5xx).
    Unreachable,
    /// It did not answer in time, or was not done in time.
    Timeout,
    /// Too many requests, orders or failures.
    RateLimited,
    /// It looked at the proof of control, and the proof was not there or not right.
    Unauthorized,
    /// CAA records forbid it to issue (RFC 8659).
    Caa,
    /// It could not ask the name servers.
    Dns,
    /// It could not connect to where the proof is.
    Connection,
    /// It connected, and TLS failed.
    Tls,
    /// It refused nonce after nonce.
    BadNonce,
    /// It does not know the account, or closed it: a new one is needed.
    AccountGone,
    /// It wants an account that its customer has already, or another than this.
    ExternalAccountRequired,
    /// It does not take the contact address.
    InvalidContact,
    /// The operator must do something first, such as agree to new terms.
    UserActionRequired,
    /// It issues nothing for such names: addresses, for instance.
    UnsupportedIdentifier,
    /// It does not issue for this name.
    RejectedIdentifier,
    /// It has no such profile.
    InvalidProfile,
    /// It has no such order (any more), or the order is another account's.
    Gone,
    /// What it answers makes no sense.
    Nonsense,
    /// It refused for another reason, in its own words.
    Refused,
    /// It was not the authority: something on this machine is wrong.
    Local,
}

impl AcmeError {
    pub(super) fn new(kind: ErrorKind, problem: &str) -> Self {
        Self {
            kind,
            problem: clean(problem),
            name: None,
            is_wildcard: false,
            challenge: None,
            caa_identity: None,
            retry_after: None,
            status: None,
            is_order_over: false,
        }
    }

    /// An answer that makes no sense.
    pub(super) fn nonsense(problem: &str) -> Self {
        Self::new(ErrorKind::Nonsense, problem)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The authority's own words: what it says, the type of the problem, and the same for each name that it speaks
    /// of. Where it said nothing, ours. At most 1,000 characters, none of them control characters.
    pub fn problem(&self) -> String {
        self.problem.clone()
    }

    /// The name that the authority speaks of.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The name, as it was ordered, that the authority does not issue for, or of which the proof failed. `None` if it says
    /// that of no name, or something else.
    pub fn unproved(&self) -> Option<DomainName> {
        let is_of_name = matches!(
            self.kind,
            ErrorKind::Unauthorized
                | ErrorKind::Caa
                | ErrorKind::Dns
                | ErrorKind::Connection
                | ErrorKind::Tls
                | ErrorKind::UnsupportedIdentifier
                | ErrorKind::RejectedIdentifier
                | ErrorKind::Refused
        );
        let name = DomainName::parse(self.name().filter(|_| is_of_name)?).ok()?;
        if self.is_wildcard { name.wildcard_below() } else { Some(name) }
    }

    /// The challenge that failed.
    pub fn challenge(&self) -> Option<Challenge> {
        self.challenge
    }

    /// What CAA records call the authority, by its own directory.
    pub(super) fn caa_identity(&self) -> Option<&str> {
        self.caa_identity.as_deref()
    }

    /// When the authority wants to be asked again: at most 7 days.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether it is why the order, or a proof for it, is invalid: nothing brings that order back, also where it is for
    /// trouble of the authority's that passes.
    pub fn is_order_over(&self) -> bool {
        self.is_order_over
    }

    pub(super) fn ending_the_order(self) -> Self {
        Self { is_order_over: true, ..self }
    }

    pub(super) fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    pub(super) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The name and the challenge that the problem is about.
    pub(super) fn about(self, name: &str, challenge: Option<Challenge>) -> Self {
        Self { name: Some(clean(name)), challenge, ..self }
    }

    /// The same, where it is about the wildcard below the name.
    pub(super) fn below(self, is_wildcard: bool) -> Self {
        Self { is_wildcard, ..self }
    }

    /// Whether there is nothing at the URL that was asked (404): the directory that named it may be another by now.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404) && self.kind != ErrorKind::AccountGone
    }

    /// Whether the authority does not do what it was asked, and will not if it is asked again.
    pub fn is_refusal(&self) -> bool {
        let may_pass = matches!(self.kind, ErrorKind::RateLimited | ErrorKind::BadNonce | ErrorKind::Timeout);
        !may_pass && self.status.is_some_and(|status| (400..500).contains(&status))
    }

    /// Whether an order that says what it replaces may have been refused for that: the certificate was replaced before
    /// (RFC 9773, section 7.4), is unknown there, or is another account's (section 5). Authorities have no type of their
    /// own for most of that.
    pub(super) fn may_be_about_replacing(&self) -> bool {
        let is_for_something_else = matches!(
            self.kind,
            ErrorKind::AccountGone
                | ErrorKind::ExternalAccountRequired
                | ErrorKind::InvalidContact
                | ErrorKind::UserActionRequired
        );
        self.is_refusal() && !is_for_something_else
    }

    /// The same failure when an order of before was asked for: an authority has many ways to say that it has none.
    pub(super) fn of_resumed_order(self) -> Self {
        let says_no = matches!(self.kind, ErrorKind::Refused | ErrorKind::Unauthorized | ErrorKind::Nonsense);
        if self.is_refusal() && says_no { self.with_kind(ErrorKind::Gone) } else { self }
    }
}

/// What all errors of one authority have in common.
pub(super) struct Context {
    /// What logs call it.
    pub(super) authority: String,
    /// The client, which read the directory.
    pub(super) http: Arc<Http>,
}

impl Context {
    /// The outcome of a call, with errors as we tell them.
    pub(super) fn judge<T>(&self, (result, answer): (Result<T, Error>, Answer)) -> Result<(T, Answer), AcmeError> {
        match result {
            Ok(value) => Ok((value, answer)),
            Err(error) => Err(self.error(error, &answer)),
        }
    }

    pub(super) fn error(&self, error: Error, answer: &Answer) -> AcmeError {
        let status = answer.status.map(|status| status.as_u16());
        let failed = answer.status.is_some_and(|status| status.is_client_error() || status.is_server_error());
        let told = match error {
            Error::Api(problem) => self.of_problem(&problem),
            Error::KeyRejected => AcmeError::new(ErrorKind::AccountGone, "the account's key cannot be read"),
            Error::Crypto => AcmeError::new(ErrorKind::Local, "a signature cannot be made"),
            Error::Other(error) if error.is::<HttpError>() => match error.downcast_ref::<HttpError>() {
                Some(error) => AcmeError::new(kind_of_fault(error), &error.to_string()),
                None => AcmeError::new(ErrorKind::Unreachable, "no answer"),
            },
            // The library looks for a problem document in few places; it may be anywhere (RFC 8555, section 6.7).
            other => match serde_json::from_slice::<Problem>(&answer.body) {
                Ok(problem) if failed && problem.detail.is_some() => self.of_problem(&problem),
                _ => {
                    let words = format!("the authority's answer is not understood: {other}");
                    AcmeError::new(ErrorKind::Nonsense, &words)
                }
            },
        };
        let told = match (told.kind, status) {
            (ErrorKind::Nonsense | ErrorKind::Refused, Some(status @ (429 | 500..))) => of_status(told, status),
            _ => told,
        };
        let retry_after = answer.retry_after.filter(|_| failed);
        AcmeError { retry_after, status: status.filter(|_| failed), ..told }
    }

    /// What a problem document says (RFC 7807; RFC 8555, section 6.7).
    pub(super) fn of_problem(&self, problem: &Problem) -> AcmeError {
        let mut text = words(problem.detail.as_deref(), problem.r#type.as_deref());
        let mut name = None;
        for sub in problem.subproblems.iter().take(MAX_SUBPROBLEMS) {
            let of = sub.identifier.as_ref().map(text_of);
            let about = of.as_deref().unwrap_or("one of the names");
            text = format!("{text}; {about}: {}", words(sub.detail.as_deref(), sub.r#type.as_deref()));
            name = name.or(of);
        }
        let own = kind_of(problem.r#type.as_deref(), problem.detail.as_deref());
        // `compound` and `malformed` are said of the whole where the parts say more (RFC 8555, section 6.7.1).
        let part = problem.subproblems.iter().find_map(|sub| kind_of(sub.r#type.as_deref(), sub.detail.as_deref()));
        let kind = own.or(part).unwrap_or(ErrorKind::Refused);
        let caa_identity = self.http.meta().caa_identities.first().map(|identity| clean(identity));
        AcmeError { name: name.map(|name| clean(&name)), caa_identity, ..AcmeError::new(kind, &text) }
    }
}

/// The client could not be made.
pub(super) fn unopened(error: &HttpError) -> AcmeError {
    AcmeError::new(kind_of_fault(error), &error.to_string())
}

/// Whether a problem is of the type `kind` (RFC 8555, section 6.7).
pub(super) fn is_type(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|text| text.strip_prefix(TYPES)) == Some(kind)
}

/// Text of a stranger's for logs and pages: without control characters, and not endless.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_PROBLEM_CHARS).collect()
}

fn kind_of_fault(error: &HttpError) -> ErrorKind {
    match error {
        HttpError::NoRoots(_) | HttpError::NoClient(_) => ErrorKind::Local,
        HttpError::Unreachable(_) => ErrorKind::Unreachable,
        HttpError::Timeout(_) => ErrorKind::Timeout,
        HttpError::NotHttps(_) | HttpError::Redirect | HttpError::TooLarge(_) | HttpError::BadDirectory { .. } => {
            ErrorKind::Nonsense
        }
    }
}

/// An answer that is no problem document, or one of a type that nobody knows: its status says enough.
fn of_status(told: AcmeError, status: u16) -> AcmeError {
    let (kind, words) = match status {
        429 => (ErrorKind::RateLimited, "the authority is asked too often"),
        _ => (ErrorKind::Unreachable, "the authority has trouble of its own"),
    };
    match told.kind {
        ErrorKind::Refused => told.with_kind(kind),
        _ => AcmeError::new(kind, &format!("{words} (HTTP status {status})")),
    }
}

/// The types of RFC 8555, section 6.7, and those that came later. `None`: the type says nothing of use.
fn kind_of(kind: Option<&str>, detail: Option<&str>) -> Option<ErrorKind> {
    let closed =
        || detail.is_some_and(|detail| detail.contains("ccount is not valid") || detail.contains("deactivated"));
    Some(match kind?.strip_prefix(TYPES)? {
        "accountDoesNotExist" => ErrorKind::AccountGone,
        "unauthorized" if closed() => ErrorKind::AccountGone,
        "unauthorized" | "incorrectResponse" => ErrorKind::Unauthorized,
        "badNonce" => ErrorKind::BadNonce,
        "caa" => ErrorKind::Caa,
        "connection" => ErrorKind::Connection,
        "dns" => ErrorKind::Dns,
        "externalAccountRequired" => ErrorKind::ExternalAccountRequired,
        "invalidContact" | "unsupportedContact" => ErrorKind::InvalidContact,
        "invalidProfile" => ErrorKind::InvalidProfile,
        "orderNotFound" => ErrorKind::Gone,
        "rateLimited" => ErrorKind::RateLimited,
        "rejectedIdentifier" => ErrorKind::RejectedIdentifier,
        "serverInternal" => ErrorKind::Unreachable,
        "tls" => ErrorKind::Tls,
        "unsupportedIdentifier" => ErrorKind::UnsupportedIdentifier,
        "userActionRequired" => ErrorKind::UserActionRequired,
        _ => return None,
    })
}

fn words(detail: Option<&str>, kind: Option<&str>) -> String {
    match (detail.map(str::trim).filter(|detail| !detail.is_empty()), kind) {
        (Some(detail), Some(kind)) => format!("{detail} ({kind})"),
        (Some(text), None) | (None, Some(text)) => text.to_owned(),
        (None, None) => "refused without a reason".to_owned(),
    }
}

fn text_of(identifier: &Identifier) -> String {
    identifier.authorized(false).to_string()
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl ErrorKind {
    /// For logs and metrics: one of a few words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::Caa => "caa",
            Self::Dns => "dns",
            Self::Connection => "connection",
            Self::Tls => "tls",
            Self::BadNonce => "bad_nonce",
            Self::AccountGone => "account_gone",
            Self::ExternalAccountRequired => "external_account_required",
            Self::InvalidContact => "invalid_contact",
            Self::UserActionRequired => "user_action_required",
            Self::UnsupportedIdentifier => "unsupported_identifier",
            Self::RejectedIdentifier => "rejected_identifier",
            Self::InvalidProfile => "invalid_profile",
            Self::Gone => "gone",
            Self::Nonsense => "nonsense",
            Self::Refused => "refused",
            Self::Local => "local",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::proof(ErrorKind::Unauthorized, "example.com", false, Some("example.com"))]
    #[case::wildcards_proof(ErrorKind::Dns, "example.com", true, Some("*.example.com"))]
    #[case::policy(ErrorKind::RejectedIdentifier, "*.example.com", false, Some("*.example.com"))]
    #[case::limited(ErrorKind::RateLimited, "example.com", false, None)]
    #[case::in_the_middle(ErrorKind::Timeout, "example.com", false, None)]
    #[case::down(ErrorKind::Unreachable, "example.com", false, None)]
    #[case::no_name(ErrorKind::Unauthorized, "the domain", false, None)]
    fn a_name_is_unproved_if_it_is_what_failed(
        #[case] kind: ErrorKind,
        #[case] name: &str,
        #[case] is_wildcard: bool,
        #[case] expected: Option<&str>,
    ) {
        let error = AcmeError::new(kind, "no").about(name, None).below(is_wildcard);
        assert_eq!(error.unproved().as_ref().map(DomainName::as_str), expected);
        assert_eq!(AcmeError::new(kind, "no").unproved(), None);
    }
}
