//! Why there is no certificate, and what of that decides what is tried next.

use std::time::Duration;

use crate::issuance::Authority;
use crate::issuer::acme::{AcmeError, ErrorKind, Proof};
use crate::name::DomainName;
use crate::upkeep::custody::CustodyError;

/// What was said of an order that failed, and by whom.
#[derive(Debug, Clone)]
pub struct Said {
    /// The authority's name.
    pub by: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub advice: String,
}

/// What it is that failed: what is tried at once depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The authority: another one may issue.
    Authority,
    /// The proof of control: there may be another way to prove it.
    Proof,
    /// Neither: nobody would do better now.
    Nobody,
}

impl Blame {
    fn of(error: &AcmeError) -> Self {
        match error.kind() {
            // Every authority reads the same records, and most operators mean all of them.
            ErrorKind::Caa => Self::Nobody,
            ErrorKind::Dns | ErrorKind::Connection | ErrorKind::Tls => Self::Proof,
            ErrorKind::Unauthorized if error.name().is_some() => Self::Proof,
            ErrorKind::Refused if error.challenge().is_some() => Self::Proof,
            _ => Self::Authority,
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Who was asked: the directory URL.
    pub ca: String,
    /// What is wrong, in the authority's own words where they are its.
    pub problem: String,
    /// The one thing to do about it.
    pub advice: String,
    /// Of which kind it is, in a word: for metrics.
    pub reason: &'static str,
    /// What it was that failed.
    pub blame: Blame,
    /// Whether the authority did not answer, or was not done in time.
    pub is_silence: bool,
    /// Not before this is over.
    pub retry_after: Option<Duration>,
    /// Whether the authority refused for going too fast.
    pub is_rate_limit: bool,
    /// Whether the account is unknown there.
    pub is_account_gone: bool,
    /// Whether the order is unknown there, or cannot be gone on with.
    pub is_order_gone: bool,
    /// Whether the order is invalid, so that nothing brings it back.
    pub is_order_over: bool,
    /// The name whose proof failed, if it was one name's.
    pub unproved: Option<Box<DomainName>>,
    /// Whether it may pass by itself: an order under way is then gone on with.
    pub is_passing: bool,
    /// Whether the operator does not approve of the name any more: there was no order.
    pub is_withdrawn: bool,
}

impl Failure {
    /// What an authority answered.
    pub fn of(authority: &Authority, error: &AcmeError) -> Self {
        let kind = error.kind();
        Self {
            ca: authority.directory.clone(),
            problem: error.problem(),
            advice: error.advice(),
            reason: kind.label(),
            blame: Blame::of(error),
            is_silence: matches!(kind, ErrorKind::Unreachable | ErrorKind::Timeout),
            retry_after: error.retry_after(),
            is_rate_limit: kind == ErrorKind::RateLimited,
            is_account_gone: kind == ErrorKind::AccountGone,
            is_order_gone: kind == ErrorKind::Gone,
            is_order_over: error.is_order_over(),
            unproved: error.unproved().map(Box::new),
            is_passing: matches!(
                kind,
                ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::RateLimited | ErrorKind::BadNonce
            ),
            is_withdrawn: false,
        }
    }

    /// Something that went wrong on this side, with this authority.
    pub fn here(authority: &Authority, problem: String) -> Self {
        Self { ca: authority.directory.clone(), blame: Blame::Authority, ..Self::from(problem) }
    }

    /// The same, where it is one name that cannot be proved.
    pub fn unproved(authority: &Authority, proof: &Proof, problem: &str) -> Self {
        let unproved = Some(Box::new(proof.ordered()));
        Self { unproved, blame: Blame::Proof, ..Self::here(authority, problem.to_owned()) }
    }
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self {
            ca: String::new(),
            problem,
            advice: String::new(),
            reason: ErrorKind::Local.label(),
            blame: Blame::Nobody,
            is_silence: false,
            retry_after: None,
            is_rate_limit: false,
            is_account_gone: false,
            is_order_gone: false,
            is_order_over: false,
            unproved: None,
            is_passing: false,
            is_withdrawn: false,
        }
    }
}

/// Trouble with what is kept: it may pass, and what the authority signed meanwhile is fetched then.
impl<E: Into<CustodyError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { is_passing: true, ..Self::from(error.into().to_string()) }
    }
}
