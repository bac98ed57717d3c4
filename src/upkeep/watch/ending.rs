//! The end of a domain's own certificate, as far as somebody is to be reminded of it.

use std::sync::Arc;

use crate::alert::reminder::{self, Reminder, Renewed};
use crate::certificate::{Certificate, KeyKind};
use crate::clock::UnixTime;
use crate::issuance::DomainAcme;
use crate::site::Site;

/// First and last second of the certificate that is to be followed by another one, and by whose doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    not_before: UnixTime,
    pub(super) not_after: UnixTime,
    renewed: Renewed,
}

impl Ending {
    /// Of the domain's own certificates: while any is valid, the end of the unbroken time in which one is, of elliptic
    /// curves or of RSA, whichever ends first; else the last that ended. `None`: none has begun.
    pub(super) fn of(site: &Site, now: UnixTime) -> Option<Self> {
        let own = || site.certificates.own().filter(|it| !it.is_known_broken());
        let of_kind =
            |is_rsa| own().filter(move |it| matches!(it.key_kind(), KeyKind::Rsa(_)) == is_rsa).collect::<Vec<_>>();
        let valid = [false, true].into_iter().filter_map(|is_rsa| last_of_unbroken(&of_kind(is_rsa), now));
        let begun = || own().filter(|it| it.not_before().secs() <= now.secs());
        let it = valid.min_by_key(|it| it.not_after()).or_else(|| begun().max_by_key(|it| it.not_after()))?;
        let is_by_hand = !site.spec.certificates.is_empty() || site.spec.acme == DomainAcme::Never;
        let renewed = if is_by_hand { Renewed::ByHand } else { Renewed::ByItself };
        Some(Self { not_before: it.not_before(), not_after: it.not_after(), renewed })
    }

    /// The reminder that is due.
    pub(super) fn due(&self, now: UnixTime) -> Option<Reminder> {
        reminder::due(self.not_before, self.not_after, self.renewed, now)
    }

    /// When the next one is.
    pub(super) fn next_at(&self, now: UnixTime) -> Option<UnixTime> {
        reminder::next_at(self.not_before, self.not_after, self.renewed, now)
    }

    /// What somebody is told, and what to do.
    pub(super) fn in_words(&self, site: &Site, now: UnixTime) -> String {
        let left = reminder::left(self.not_after, now);
        let files: Vec<_> = site.spec.certificates.iter().map(|pair| pair.cert.display().to_string()).collect();
        let what_to_do = match self.renewed {
            Renewed::ByHand if files.is_empty() => "nobody renews it".to_owned(),
            Renewed::ByHand => format!("put a fresh one into {}", files.join(" or ")),
            Renewed::ByItself => {
                format!("it should have been renewed, `lockgate cert show {}` says why", site.spec.name)
            }
        };
        format!("its own certificate {left}: {what_to_do}")
    }
}

/// Of these the last one of the unbroken time from `now` on in which one of them is valid.
fn last_of_unbroken<'c>(certificates: &[&'c Arc<Certificate>], now: UnixTime) -> Option<&'c Arc<Certificate>> {
    let mut last: Option<&'c Arc<Certificate>> = None;
    // Each takes its turn once.
    for _ in certificates {
        let from = last.map_or(now, |it| it.not_after().plus_secs(1));
        let reaches = certificates.iter().copied().filter(|it| it.is_valid_at(from));
        match reaches.max_by_key(|it| it.not_after()) {
            Some(next) => last = Some(next),
            None => break,
        }
    }
    last
}
