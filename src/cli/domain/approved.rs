//! Whether a name that nobody configured is approved: the question that a handshake for it would cause, asked once.

use crate::checkup::Approval;
use crate::issuance::OnDemand;
use crate::name::DomainName;
use crate::on_demand::is_allowed;
use crate::upkeep::on_demand::{Asker, Verdict};

/// What `allow`, or whoever answers at the `ask` URL, says of a name.
pub(super) async fn approval(on_demand: &OnDemand, name: &DomainName) -> Approval {
    if is_allowed(on_demand, name) {
        return Approval::Allowed;
    }
    let url = shown(on_demand.ask.as_deref().unwrap_or_default());
    match Asker::default().ask(on_demand, name).await {
        Verdict::Approved => Approval::Approved(url),
        Verdict::Refused => Approval::Refused(url),
        Verdict::Failed | Verdict::Limited => Approval::Unanswered(url),
    }
}

/// A URL without what may be a secret in it.
fn shown(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "`ask`".to_owned() };
    url.set_query(None);
    _ = url.set_password(None);
    _ = url.set_username("");
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        assert_eq!(shown("http://me:word@127.0.0.1:9000/allowed?key=1"), "http://127.0.0.1:9000/allowed");
    }
}
