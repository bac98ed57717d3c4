//! What is to be proved for an order, and with what.

use aws_lc_rs::digest;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use instant_acme::{AuthorizationHandle, AuthorizationStatus, ChallengeStatus, ChallengeType, Identifier, Problem};

use super::error::{AcmeError, Context};
use crate::issuance::Challenge;
use crate::name::{DomainName, Kind};

/// The longest token taken; the ones in use have 43 characters.
const MAX_TOKEN_CHARS: usize = 256;

/// Control over one name, to be proved in one of the ways on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The name; of `*.example.com` it is `example.com`.
    pub name: DomainName,
    /// Whether it is for the wildcard below the name.
    pub is_wildcard: bool,
    /// The ways on offer, as far as we know them; never empty.
    pub offers: Vec<Offer>,
    pub(super) authorization_url: String,
}

/// One way to prove control over a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which.
    pub challenge: Challenge,
    /// The token: the last part of the URL at which HTTP-01's answer is looked for. Letters, digits, `-` and `_`.
    pub token: String,
    /// What HTTP-01 answers (RFC 8555, section 8.1).
    pub key_authorization: String,
    /// What DNS-01's TXT record says (RFC 8555, section 8.4).
    pub dns_value: String,
    /// What TLS-ALPN-01's certificate carries (RFC 8737, section 3).
    pub tls_alpn_digest: [u8; 32],
    pub(super) url: String,
}

impl Proof {
    /// The name as it was ordered.
    pub fn ordered(&self) -> DomainName {
        let wildcard = self.name.wildcard_below().filter(|_| self.is_wildcard);
        wildcard.unwrap_or_else(|| self.name.clone())
    }

    /// The way of this kind, if it is on offer.
    pub fn offer(&self, challenge: Challenge) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.challenge == challenge)
    }
}

/// An authorization as read (RFC 8555, section 7.1.4).
pub(super) struct Authorization {
    url: String,
    name: Option<DomainName>,
    is_wildcard: bool,
    pub(super) status: AuthorizationStatus,
    challenges: Vec<Stated>,
}

struct Stated {
    challenge: Challenge,
    url: String,
    token: String,
    status: ChallengeStatus,
    error: Option<Problem>,
}

impl Authorization {
    pub(super) fn read(handle: &AuthorizationHandle<'_>) -> Self {
        let identifier = handle.identifier();
        let (name, is_wildcard) = match identifier.identifier {
            Identifier::Dns(name) => {
                let bare = name.strip_prefix("*.");
                let exact = DomainName::parse(bare.unwrap_or(name)).ok().filter(|name| name.kind() == Kind::Exact);
                (exact, identifier.wildcard || bare.is_some())
            }
            Identifier::Ip(address) => (DomainName::parse(&address.to_string()).ok(), false),
            _ => (None, false),
        };
        let stated = |it: &instant_acme::Challenge| {
            let challenge = known(&it.r#type)?;
            let (url, token) = (it.url.clone(), it.token.clone());
            Some(Stated { challenge, url, token, status: it.status, error: it.error.clone() })
        };
        let challenges = handle.challenges.iter().filter_map(stated).collect();
        Self { url: handle.url().to_owned(), name, is_wildcard, status: handle.status, challenges }
    }

    /// What is to be proved, by an account whose key has this thumbprint.
    pub(super) fn proof(self, thumbprint: &str) -> Result<Proof, AcmeError> {
        let Some(name) = self.name else {
            return Err(AcmeError::nonsense("the authority wants a proof for something that is no name"));
        };
        let usable = |it: &Stated| it.status != ChallengeStatus::Invalid && is_token(&it.token);
        let good = self.challenges.into_iter().filter(usable);
        let offers: Vec<Offer> = good.map(|it| Offer::new(it.challenge, it.token, it.url, thumbprint)).collect();
        if offers.is_empty() {
            let words = format!("the authority offers no challenge for {name} that is known here");
            return Err(AcmeError::nonsense(&words).about(name.as_str(), None));
        }
        Ok(Proof { name, is_wildcard: self.is_wildcard, offers, authorization_url: self.url })
    }

    /// Why it is neither pending nor valid, in the authority's words.
    pub(super) fn failure(&self, context: &Context) -> AcmeError {
        let name = self.name.as_ref().map_or("the domain", DomainName::as_str);
        let failed = self.challenges.iter().find_map(|it| Some((it.challenge, it.error.as_ref()?)));
        let failure = match failed {
            Some((challenge, problem)) => {
                context.of_problem(problem).about(name, Some(challenge)).below(self.is_wildcard)
            }
            None => {
                let status = format!("{:?}", self.status).to_lowercase();
                let words = format!("the authorization for {name} is {status}, and no reason is given");
                AcmeError::new(super::ErrorKind::Unauthorized, &words).about(name, None).below(self.is_wildcard)
            }
        };
        failure.ending_the_order()
    }
}

impl Offer {
    fn new(challenge: Challenge, token: String, url: String, thumbprint: &str) -> Self {
        let key_authorization = format!("{token}.{thumbprint}");
        let hash = digest::digest(&digest::SHA256, key_authorization.as_bytes());
        let mut tls_alpn_digest = [0; 32];
        tls_alpn_digest.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        let dns_value = BASE64_URL_SAFE_NO_PAD.encode(tls_alpn_digest);
        Self { challenge, token, key_authorization, dns_value, tls_alpn_digest, url }
    }
}

/// Whether an answer to this challenge was announced before.
pub(super) fn is_answered(status: ChallengeStatus) -> bool {
    status != ChallengeStatus::Pending
}

pub(super) fn library_type(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

fn known(challenge: &ChallengeType) -> Option<Challenge> {
    match challenge {
        ChallengeType::Http01 => Some(Challenge::Http01),
        ChallengeType::TlsAlpn01 => Some(Challenge::TlsAlpn01),
        ChallengeType::Dns01 => Some(Challenge::Dns01),
        _ => None,
    }
}

/// Base64url and nothing else (RFC 8555, section 8): it becomes part of a URL.
fn is_token(token: &str) -> bool {
    let is_good = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=MAX_TOKEN_CHARS).contains(&token.len()) && token.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", true)]
    #[case("", false)]
    #[case("../../etc/passwd", false)]
    #[case("a b", false)]
    #[case("a\r\nSet-Cookie", false)]
    #[case(&"a".repeat(257), false)]
    fn a_token_is_base64url(#[case] token: &str, #[case] good: bool) {
        assert_eq!(is_token(token), good);
    }

    /// The key authorization of RFC 8555's examples; the digest by `openssl dgst -sha256`.
    #[test]
    fn what_is_shown_is_made_of_token_and_thumbprint() {
        let offer = Offer::new(Challenge::Dns01, "token".to_owned(), String::new(), "thumb");
        assert_eq!(offer.key_authorization, "token.thumb");
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&offer.dns_value).unwrap(), offer.tls_alpn_digest);
        let expected = digest::digest(&digest::SHA256, b"token.thumb");
        assert_eq!(offer.tls_alpn_digest, expected.as_ref());
    }
}
