//! How control over each name of a subject is proved.

use super::Subject;
use crate::issuance::Challenge;
use crate::name::{DomainName, Kind};

/// Why control over a name cannot be proved here. Each says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// A wildcard (RFC 8555, section 7.1.3) or `challenge = "dns-01"`, and nobody to set TXT records.
    #[error("{name} can be proved by dns-01 only, and nobody is there to set TXT records: write `[acme.dns]`")]
    NoDns {
        /// Which.
        name: DomainName,
    },
    /// An address has no TXT records (RFC 8738, section 7).
    #[error("an address such as {name} cannot be proved by dns-01: write `challenge = \"http-01\"` or leave it out")]
    AddressByDns {
        /// Which.
        name: DomainName,
    },
    /// Nothing listens where the authority would look.
    #[error("{name} cannot be proved by {challenge}: write `[listen] {}`", listener(*challenge))]
    NoListener {
        /// Which.
        name: DomainName,
        /// How it was to be proved.
        challenge: Challenge,
    },
}

/// How control over each of `names`, which are the subject's or some of them, is proved when it is this `turn`. A wildcard
/// by dns-01, which is the only way; else as the subject's method says; else the name under which a wildcard of the same
/// subject stands by dns-01, too, as its record has the same name; else by http-01 or tls-alpn-01, as there are listeners,
/// or by dns-01 if there is somebody to set TXT records: at turn 0 the first of these, then all of them in turn. Zones of
/// customers are seldom the operator's to write to, so that whoever sets records for one name need not for another.
pub fn challenges_for(
    subject: &Subject,
    names: &[DomainName],
    has_http_listener: bool,
    has_https_listener: bool,
    turn: u32,
) -> Vec<(DomainName, Result<Challenge, ChallengeError>)> {
    let listens = |challenge| match challenge {
        Challenge::Http01 => has_http_listener,
        Challenge::TlsAlpn01 => has_https_listener,
        Challenge::Dns01 => true,
    };
    let has_dns = subject.terms.method.dns.is_some();
    let has_wildcard =
        |name: &DomainName| name.wildcard_below().is_some_and(|wildcard| subject.names().any(|it| *it == wildcard));
    let one = |name: &DomainName| {
        let is_address = matches!(name.kind(), Kind::Ip(_));
        let challenge = match subject.terms.method.challenge {
            _ if name.kind() == Kind::Wildcard => Challenge::Dns01,
            Some(challenge) => challenge,
            None if has_dns && has_wildcard(name) => Challenge::Dns01,
            None => {
                let ways = [
                    (Challenge::Http01, has_http_listener),
                    (Challenge::TlsAlpn01, has_https_listener),
                    (Challenge::Dns01, has_dns && !is_address),
                ];
                in_turn(ways, turn)
            }
        };
        let name = name.clone();
        match challenge {
            Challenge::Dns01 if is_address => Err(ChallengeError::AddressByDns { name }),
            Challenge::Dns01 if !has_dns => Err(ChallengeError::NoDns { name }),
            _ if !listens(challenge) => Err(ChallengeError::NoListener { name, challenge }),
            _ => Ok(challenge),
        }
    };
    names.iter().map(|name| (name.clone(), one(name))).collect()
}

/// The turn with which the attempt after `failures` failed ones begins. The first one has two: see [`has_another_way`].
pub fn turn_after(failures: u32) -> u32 {
    if failures == 0 { 0 } else { failures.saturating_add(1) }
}

/// Whether control over all of `names` can be proved at turn 1, and over one of them in another way than at turn 0.
pub fn has_another_way(
    subject: &Subject,
    names: &[DomainName],
    has_http_listener: bool,
    has_https_listener: bool,
) -> bool {
    let ways = |turn| challenges_for(subject, names, has_http_listener, has_https_listener, turn);
    let next = ways(1);
    next.iter().all(|(_, way)| way.is_ok()) && next != ways(0)
}

/// Whose turn it is of the ways that can be gone; http-01 if none can.
fn in_turn(ways: [(Challenge, bool); 3], turn: u32) -> Challenge {
    let open: Vec<Challenge> = ways.into_iter().filter(|(_, is_open)| *is_open).map(|(way, _)| way).collect();
    // The Thue-Morse sequence: the sum of the turn's digits, in the base of so many ways. Plain alternation would keep
    // step with the turns of as many authorities, and one of them would be asked for the same challenge for ever.
    let (mut rest, mut sum) = (usize::try_from(turn).unwrap_or(usize::MAX), 0);
    while open.len() > 1 && rest > 0 {
        sum += rest % open.len();
        rest /= open.len();
    }
    let at = sum.checked_rem(open.len()).unwrap_or_default();
    open.get(at).copied().unwrap_or(Challenge::Http01)
}

fn listener(challenge: Challenge) -> &'static str {
    match challenge {
        Challenge::Http01 => "http = [\"[::]:80\"]",
        _ => "https = [\"[::]:443\"]",
    }
}
