//! The one thing to do about a failure, in plain words.

use super::{AcmeError, ErrorKind};
use crate::issuance::Challenge;
use crate::remedy;

impl AcmeError {
    /// The one thing to do about it.
    pub fn advice(&self) -> String {
        let name = self.name().unwrap_or("the domain");
        match self.kind() {
            ErrorKind::Unreachable => {
                "wait, it is tried again; if it lasts, check that this machine reaches the authority's directory URL \
                 over HTTPS, and that `ca_file` is its root where that is private"
                    .to_owned()
            }
            ErrorKind::Timeout => "wait, it is tried again; if it lasts, look at the authority's status page and at \
                                   what firewalls here let out"
                .to_owned(),
            ErrorKind::RateLimited => {
                "wait, it is tried again when the authority allows; until then another authority can issue: name \
                 one more in `[[acme.ca]]`"
                    .to_owned()
            }
            ErrorKind::Unauthorized => self.wrong_proof(name),
            ErrorKind::Caa => match self.caa_identity() {
                Some(authority) => remedy::allow(name, "issue", authority),
                None => remedy::allow_unnamed(name),
            },
            ErrorKind::Dns => remedy::answer_for(name),
            ErrorKind::Connection => remedy::open_way(name, self.challenge()),
            ErrorKind::Tls => remedy::pass_tls(name),
            ErrorKind::BadNonce => {
                "wait, it is tried again; if it lasts, the authority or a proxy on the way to it is \
                                    broken"
                    .to_owned()
            }
            ErrorKind::AccountGone => "nothing: a new account is made with the authority".to_owned(),
            ErrorKind::ExternalAccountRequired => {
                "get the key identifier and the HMAC key of your account from the authority, and write them as \
                 `eab = { kid = \"...\", hmac_key_file = \"...\" }` in its `[[acme.ca]]`; \
                 both are often good for one use"
                    .to_owned()
            }
            ErrorKind::InvalidContact => "write an `email` in `[acme]` that the authority can write to".to_owned(),
            ErrorKind::UserActionRequired => {
                "read what the authority says, and do it: often there are new terms to agree to".to_owned()
            }
            ErrorKind::UnsupportedIdentifier => remedy::ask_another(name),
            ErrorKind::RejectedIdentifier => format!(
                "check how {name} is spelled and that it is a public name; if it is, ask another authority for it"
            ),
            ErrorKind::InvalidProfile => "write a `profile` that the authority offers, or none".to_owned(),
            ErrorKind::Gone => "nothing: the certificate is ordered anew".to_owned(),
            ErrorKind::Nonsense => {
                "check that `directory` is the URL of an ACME directory; if it is, tell the authority, and name \
                 another one in `[[acme.ca]]`"
                    .to_owned()
            }
            ErrorKind::Refused => "do what the authority says; if it says nothing of use, ask another one".to_owned(),
            ErrorKind::Local => "look at what is said above: it is wrong on this machine, not with the authority; \
                                 root certificates come with the system's package `ca-certificates`, or from `ca_file`"
                .to_owned(),
        }
    }

    fn wrong_proof(&self, name: &str) -> String {
        let point_here = remedy::point_here(name);
        match self.challenge() {
            Some(Challenge::Http01) => {
                format!("{point_here}: http://{name}/.well-known/acme-challenge/ was answered by somebody else")
            }
            Some(Challenge::TlsAlpn01) => {
                format!("{point_here}, and let port 443 reach it as it is: somebody else answered there")
            }
            Some(Challenge::Dns01) => remedy::show_txt(name),
            None => format!("{point_here}, then it is tried again"),
        }
    }
}
