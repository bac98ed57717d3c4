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

/// How control over each of `names`, which are the subject's or some of them, is proved at the attempt after `failures`
/// failed ones. A wildcard by dns-01, which is the only way; else as the subject's method says; else by dns-01 if it
/// has somebody to set TXT records; else by http-01 or tls-alpn-01, as there are listeners: the first time http-01,
/// then both in turn.
pub fn challenges_for(
    subject: &Subject,
    names: &[DomainName],
    has_http_listener: bool,
    has_https_listener: bool,
    failures: u32,
) -> Vec<(DomainName, Result<Challenge, ChallengeError>)> {
    let listens = |challenge| match challenge {
        Challenge::Http01 => has_http_listener,
        Challenge::TlsAlpn01 => has_https_listener,
        Challenge::Dns01 => true,
    };
    let has_dns = subject.terms.method.dns.is_some();
    let one = |name: &DomainName| {
        let is_address = matches!(name.kind(), Kind::Ip(_));
        let challenge = match subject.terms.method.challenge {
            _ if name.kind() == Kind::Wildcard => Challenge::Dns01,
            Some(challenge) => challenge,
            None if has_dns && !is_address => Challenge::Dns01,
            None => by_listener(has_http_listener, has_https_listener, failures),
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

fn by_listener(http: bool, https: bool, failures: u32) -> Challenge {
    // The Thue-Morse sequence. Plain alternation would keep step with the turns of two authorities, and one of them
    // would be asked for the same challenge for ever.
    let is_others_turn = failures.count_ones() % 2 == 1;
    if !https || http && !is_others_turn { Challenge::Http01 } else { Challenge::TlsAlpn01 }
}

fn listener(challenge: Challenge) -> &'static str {
    match challenge {
        Challenge::Http01 => "http = [\"[::]:80\"]",
        _ => "https = [\"[::]:443\"]",
    }
}
