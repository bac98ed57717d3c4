//! The server behind.

use super::facts::{Answered, Facts, OriginSeen, Unreached};
use super::finding::{Finding, What};

/// Whether it answers. Nothing where it was not looked at.
pub(super) fn findings(facts: &Facts) -> Option<Finding> {
    let (url, seen) = facts.origin.as_ref()?;
    let wrong = |says: String, remedy: String| Finding::wrong(What::Origin, says, remedy);
    let start = || format!("start the server at {url}, or correct `origin`");
    Some(match seen {
        OriginSeen::Answered(Answered { status: status @ 500.. }) => {
            Finding::note(What::Origin, format!("{url} answers `HEAD /` with status {status}"))
                .with_remedy("look into the origin's own log")
        }
        OriginSeen::Answered(Answered { status }) => {
            Finding::ok(What::Origin, format!("{url} answers `HEAD /` with status {status}"))
        }
        OriginSeen::Unresolved(words) => {
            wrong(format!("the origin {url} has no address: {words}"), "correct the host in `origin`".to_owned())
        }
        OriginSeen::Unreached(Unreached::Refused) => wrong(format!("nothing listens at the origin {url}"), start()),
        OriginSeen::Unreached(Unreached::Silent) => wrong(
            format!("the origin {url} does not answer"),
            format!("start the server at {url}, and let this machine through its firewall"),
        ),
        OriginSeen::Unreached(Unreached::Other(words)) => {
            wrong(format!("the origin {url} cannot be reached: {words}"), start())
        }
        OriginSeen::Tls(words) => wrong(
            format!("TLS with the origin {url} fails: {words}"),
            "give the origin a certificate that is valid for its name, or say in `origin_tls` whom to trust (`ca`) and which \
             name it has (`sni`)"
                .to_owned(),
        ),
        OriginSeen::Garbled => wrong(
            format!("what answers at the origin {url} is no HTTP server"),
            "correct the port in `origin`, or whether it is `http` or `https`".to_owned(),
        ),
        OriginSeen::Mute => wrong(
            format!("the origin {url} takes connections and answers nothing"),
            "look into the origin's own log: it hangs, or `origin` should be `https`".to_owned(),
        ),
    })
}
