//! Authorities that are left alone for a while: those that ask for less haste, and those that do not answer.
//!
//! What strangers' orders meet with is counted apart: their names are as many as clients like, and must not keep those
//! that are configured waiting.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::name::{DomainName, Kind};

/// So many in a row, and nobody else is tried before the pause is over.
const IN_A_ROW_MAX: usize = 3;
/// Those further apart than this have nothing to do with each other.
const IN_A_ROW_SECS: i64 = 15 * 60;
/// A pause is no longer than this, whatever is asked for: another subject's limit may be another.
const PAUSE_MAX_SECS: i64 = 6 * 3600;
/// How long an authority that does not answer is left alone.
const SILENCE_SECS: i64 = 600;
/// How long one order alone shows whether an authority is well again, at most.
const PROBE_SECS: i64 = 600;
/// When whoever waits for what becomes of that order looks again.
const LOOK_AGAIN_SECS: i64 = 60;

/// Which authorities are left alone, by the URL of their directory: as many as are configured.
#[derive(Debug, Default)]
pub struct Pauses {
    by_ca: HashMap<String, OfAuthority>,
}

/// Pauses of one authority.
#[derive(Debug, Default)]
struct OfAuthority {
    haste: [Pause; 2],
    silence: [Pause; 2],
}

/// A row of orders that met with the same, and what follows from it.
#[derive(Debug, Default)]
struct Pause {
    /// Whose they were, each once: at most [`IN_A_ROW_MAX`].
    row: Vec<String>,
    /// When the last one did.
    last: Option<UnixTime>,
    until: Option<UnixTime>,
    /// When the one order began that is let through after the pause.
    probe: Option<UnixTime>,
}

impl Pauses {
    /// Until when nothing is to be ordered from this authority, for a stranger or for a name that is configured.
    pub fn until(&self, ca: &str, is_stranger: bool, now: UnixTime) -> Option<UnixTime> {
        let of = self.by_ca.get(ca)?;
        let whose = if is_stranger { &[false, true][..] } else { &[false] };
        let pauses =
            whose.iter().flat_map(|whose| [of.haste.get(usize::from(*whose)), of.silence.get(usize::from(*whose))]);
        pauses.flatten().filter_map(|pause| pause.until(now)).max()
    }

    /// Until when it wants to be left alone by names that are configured; that it may not answer is another matter.
    pub fn haste_until(&self, ca: &str, now: UnixTime) -> Option<UnixTime> {
        self.by_ca.get(ca)?.haste.first()?.until(now)
    }

    /// An order begins there: after a pause, it is the one that shows how things are.
    pub fn begin(&mut self, ca: &str, is_stranger: bool, now: UnixTime) {
        if let Some(of) = self.by_ca.get_mut(ca) {
            for pause in
                [&mut of.haste, &mut of.silence].into_iter().filter_map(|it| it.get_mut(usize::from(is_stranger)))
            {
                pause.begin(now);
            }
        }
    }

    /// It refused `subject` for going too fast. One that is refused again and again is its own affair, as are all of one
    /// registered domain: many limits are for those. Gives back for how many seconds it is paused, if that is news.
    pub fn refused(
        &mut self,
        ca: &str,
        subject: &DomainName,
        is_stranger: bool,
        retry_after: Duration,
        now: UnixTime,
    ) -> Option<i64> {
        let secs = i64::try_from(retry_after.as_secs()).unwrap_or(i64::MAX).min(PAUSE_MAX_SECS);
        let of = self.by_ca.entry(ca.to_owned()).or_default();
        of.haste.get_mut(usize::from(is_stranger))?.note(registered(subject), secs, now)
    }

    /// It did not answer when something was ordered for `subject`. Gives back for how many seconds it is paused, if that
    /// is news.
    pub fn silent(&mut self, ca: &str, subject: &DomainName, is_stranger: bool, now: UnixTime) -> Option<i64> {
        let of = self.by_ca.entry(ca.to_owned()).or_default();
        of.silence.get_mut(usize::from(is_stranger))?.note(subject.as_str(), SILENCE_SECS, now)
    }

    /// It took an order: nobody goes too fast.
    pub fn took_order(&mut self, ca: &str) {
        if let Some(of) = self.by_ca.get_mut(ca) {
            of.haste = Default::default();
        }
    }

    /// It answered to the end, whatever it said.
    pub fn answered(&mut self, ca: &str) {
        if let Some(of) = self.by_ca.get_mut(ca) {
            of.silence = Default::default();
        }
    }
}

impl Pause {
    fn until(&self, now: UnixTime) -> Option<UnixTime> {
        // Also when the clock has stepped back, no pause lasts longer than the longest.
        let lasts = |until: &UnixTime| (1..=PAUSE_MAX_SECS).contains(&until.secs().saturating_sub(now.secs()));
        let is_probed = |began: UnixTime| (0..PROBE_SECS).contains(&now.secs().saturating_sub(began.secs()));
        let probed = self.probe.filter(|began| is_probed(*began)).map(|_| now.plus_secs(LOOK_AGAIN_SECS));
        self.until.filter(lasts).or(probed)
    }

    fn begin(&mut self, now: UnixTime) {
        if self.until.is_some() {
            self.probe = Some(now);
        }
    }

    fn note(&mut self, whose: &str, secs: i64, now: UnixTime) -> Option<i64> {
        let is_in_a_row = |last: UnixTime| (0..=IN_A_ROW_SECS).contains(&now.secs().saturating_sub(last.secs()));
        if !self.last.is_some_and(is_in_a_row) {
            self.row.clear();
        }
        self.last = Some(now);
        if self.row.len() < IN_A_ROW_MAX && !self.row.iter().any(|known| known == whose) {
            self.row.push(whose.to_owned());
        }
        let was_paused = self.until.is_some_and(|until| now < until);
        // The one that was let through says enough.
        if self.probe.take().is_none() && self.row.len() < IN_A_ROW_MAX {
            return None;
        }
        self.until = Some(now.plus_secs(secs));
        (!was_paused).then_some(secs)
    }
}

/// What a name was registered under, as far as it can be told without a list of public suffixes: its last two labels, or
/// three below such as `co.uk` and `com.au`. Where that is wrong, fewer names count as different.
fn registered(name: &DomainName) -> &str {
    const LABEL_CHARS_MAX: usize = 3;
    if matches!(name.kind(), Kind::Ip(_)) {
        return name.as_str();
    }
    let text = name.wildcard_parent().unwrap_or(name.as_str());
    let mut labels = text.rsplit('.');
    let (top, second) = (labels.next().unwrap_or_default(), labels.next().unwrap_or_default());
    let is_public = top.len() == 2 && second.len() <= LABEL_CHARS_MAX;
    let dots = if is_public { 3 } else { 2 };
    match text.rmatch_indices('.').nth(dots - 1) {
        Some((at, _)) => text.get(at + 1..).unwrap_or(text),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::fixture::NOW;
    use rstest::rstest;

    const CA: &str = "https://ca.example/directory";
    const HOUR: Duration = Duration::from_secs(3600);

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn at(secs: i64) -> UnixTime {
        NOW.plus_secs(secs)
    }

    #[rstest]
    #[case("example.com", "example.com")]
    #[case("*.example.com", "example.com")]
    #[case("a.b.example.com", "example.com")]
    #[case("a.b.example.co.uk", "example.co.uk")]
    #[case("shop.example.com.au", "example.com.au")]
    #[case("a.example.de", "example.de")]
    #[case("localhost", "localhost")]
    #[case("192.0.2.7", "192.0.2.7")]
    #[case("2001:db8::1", "2001:db8::1")]
    fn a_name_was_registered_under(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(registered(&name(text)), expected);
    }

    #[test]
    fn three_domains_that_are_refused_pause_an_authority_and_many_names_of_one_do_not() {
        let mut pauses = Pauses::default();
        let mut refused = |subject: &str, secs| pauses.refused(CA, &name(subject), false, HOUR, at(secs));
        let told = ["a.one.org", "b.one.org", "c.one.org", "d.one.org", "a.two.org"].map(|subject| refused(subject, 0));
        assert_eq!(told, [None; 5]);
        assert_eq!(refused("three.org", 0), Some(3600));
        assert_eq!(refused("four.org", 1), None, "it is known");
        assert_eq!(pauses.until(CA, false, at(2)), Some(at(3601)));
        assert_eq!(pauses.until("https://other.example", false, at(2)), None);
        assert_eq!(pauses.until(CA, false, at(-8 * 3600)), None, "the clock stepped back");
    }

    #[test]
    fn what_is_far_apart_is_not_in_a_row() {
        let mut pauses = Pauses::default();
        for (number, secs) in [0, 900, 1801, 2701].into_iter().enumerate() {
            assert_eq!(pauses.silent(CA, &name(&format!("d{number}.org")), false, at(secs)), None, "{secs}");
        }
        assert_eq!(pauses.silent(CA, &name("e.org"), false, at(2702)), Some(600));
    }

    #[test]
    fn what_strangers_meet_with_pauses_strangers_alone() {
        let mut pauses = Pauses::default();
        for stranger in ["a.org", "b.org", "c.org"] {
            pauses.refused(CA, &name(stranger), true, HOUR, NOW);
            pauses.silent(CA, &name(stranger), true, NOW);
        }
        assert_eq!((pauses.until(CA, true, NOW), pauses.until(CA, false, NOW)), (Some(at(3600)), None));
        let mut pauses = Pauses::default();
        for configured in ["a.org", "b.org", "c.org"] {
            pauses.silent(CA, &name(configured), false, NOW);
        }
        assert_eq!((pauses.until(CA, true, NOW), pauses.until(CA, false, NOW)), (Some(at(600)), Some(at(600))));
    }

    #[test]
    fn after_a_pause_one_order_shows_how_things_are() {
        let mut pauses = Pauses::default();
        let silent = |pauses: &mut Pauses, secs| pauses.silent(CA, &name(&format!("d{secs}.org")), false, at(secs));
        for secs in 0..3 {
            silent(&mut pauses, secs);
        }
        assert_eq!((pauses.until(CA, false, at(601)), pauses.until(CA, false, at(602))), (Some(at(602)), None));
        pauses.begin(CA, false, at(602));
        assert_eq!(pauses.until(CA, false, at(610)), Some(at(670)), "it is waited for");
        assert_eq!(silent(&mut pauses, 1000), Some(600), "once is enough now, and it is news");
        assert_eq!(pauses.until(CA, false, at(1599)), Some(at(1600)));
        // One of which nobody hears is not waited for for ever.
        pauses.begin(CA, false, at(1600));
        assert_eq!((pauses.until(CA, false, at(2199)).is_some(), pauses.until(CA, false, at(2200))), (true, None));
        pauses.answered(CA);
        pauses.begin(CA, false, at(2200));
        assert_eq!((pauses.until(CA, false, at(2200)), silent(&mut pauses, 2201)), (None, None));
    }

    #[test]
    fn an_order_that_is_taken_ends_a_pause_for_haste() {
        let mut pauses = Pauses::default();
        for domain in ["a.org", "b.org", "c.org"] {
            pauses.refused(CA, &name(domain), false, HOUR, NOW);
        }
        pauses.answered(CA);
        assert!(pauses.until(CA, false, NOW).is_some());
        pauses.took_order(CA);
        assert_eq!(pauses.until(CA, false, NOW), None);
    }
}
