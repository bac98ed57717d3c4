//! Whether all who must have a record do: each is asked itself, until it has it or time is up. Who does not answer is
//! passed over in the end: an authority's resolver asks another one, too.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{Failure, Lack, Lacking, LookupError};
use super::exchange::{Way, ask};
use super::resolver::{Resolver, texts};
use super::update::plain;

/// The pauses between two rounds of questions grow from the first to the second.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a name server's other addresses have once one of them has the record.
const GRACE: Duration = Duration::from_secs(1);
/// So often, and for so long, a name server that does not answer is asked before the others' word is enough. An answer may
/// take its share of that.
const SILENT_LOOKS_MIN: u32 = 3;
pub(super) const SILENCE_MIN: Duration = Duration::from_secs(10);
/// Addresses of one name server that are asked.
const ADDRESSES_MAX: usize = 8;

/// A name server that must have the record.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    /// What it is called in errors.
    pub(super) server: String,
    pub(super) addresses: Vec<SocketAddr>,
    /// It has to ask others; the zone's own servers must know.
    pub(super) recursion: bool,
}

/// The name servers of `zone`, all of them, at `port`.
pub(super) async fn authorities(resolver: &Resolver, zone: &Name, port: u16) -> Result<Vec<Witness>, LookupError> {
    let mut witnesses = vec![];
    let mut lookups = JoinSet::new();
    for server in resolver.servers_of(zone).await? {
        let (resolver, server) = (resolver.clone(), plain(&server));
        lookups.spawn(async move {
            let found = resolver.addresses(&server).await;
            (server, found)
        });
    }
    while let Some(found) = lookups.join_next().await {
        let Ok((server, found)) = found else { continue };
        // A server whose address cannot be found is one that does not answer: it shows as lacking.
        let (v4, v6) = found.unwrap_or_default();
        let addresses = v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6));
        let addresses = addresses.map(|ip| SocketAddr::new(ip, port)).take(ADDRESSES_MAX).collect();
        witnesses.push(Witness { server, addresses, recursion: false });
    }
    witnesses.sort_by(|a, b| a.server.cmp(&b.server));
    Ok(witnesses)
}

/// A witness that was not seen to have the record, and what is known of it.
struct Open {
    witness: Witness,
    last: (Option<SocketAddr>, Lack),
    /// Since when it does not answer, and how often it has been asked since.
    silent: Option<(Instant, u32)>,
}

impl Open {
    fn new(witness: Witness) -> Self {
        Self { witness, last: (None, Lack::NotAsked), silent: None }
    }

    /// Notes what came of a question of the moment `asked_at`.
    fn note(&mut self, last: (Option<SocketAddr>, Lack), asked_at: Instant) {
        let (since, looks) = self.silent.unwrap_or((asked_at, 0));
        self.silent = (!last.1.is_answer()).then_some((since, looks.saturating_add(1)));
        self.last = last;
    }

    /// Whether it had its fair number of tries, and answered none.
    fn is_passed_over(&self, silence_min: Duration, now: Instant) -> bool {
        self.silent.is_some_and(|(since, looks)| {
            looks >= SILENT_LOOKS_MIN && now.saturating_duration_since(since) >= silence_min
        })
    }

    fn lacking(self) -> Lacking {
        let (address, lack) = self.last;
        Lacking { server: self.witness.server, address, lack }
    }
}

/// Asks `witnesses` until each has `value` among the TXT records at `at`, or `deadline` comes: then who lacks it.
///
/// One at least must have it. Those that have not answered for `silence_min` are passed over, and named in what comes
/// back; one that answers without the value never is.
pub(super) async fn wait(
    witnesses: Vec<Witness>,
    at: &Name,
    value: &str,
    deadline: Instant,
    silence_min: Duration,
) -> Result<Vec<Lacking>, Vec<Lacking>> {
    let (all, patience) = (witnesses.len(), silence_min / SILENT_LOOKS_MIN);
    let mut open: Vec<_> = witnesses.into_iter().map(Open::new).collect();
    let mut pause = PAUSE_MIN;
    loop {
        let asked_at = Instant::now();
        let mut round = JoinSet::new();
        for (i, Open { witness, .. }) in open.iter().enumerate() {
            let (witness, at, value) = (witness.clone(), at.clone(), value.to_owned());
            round.spawn(async move { (i, witness.lack(&at, &value, patience).await) });
        }
        let mut has = vec![false; open.len()];
        while let Ok(Some(asked)) = timeout_at(deadline, round.join_next()).await {
            let Ok((i, lack)) = asked else { continue };
            match (lack, open.get_mut(i), has.get_mut(i)) {
                (Some(lack), Some(one), _) => one.note(lack, asked_at),
                (None, _, Some(has)) => *has = true,
                _ => {}
            }
        }
        let mut has = has.into_iter();
        open.retain(|_| !has.next().unwrap_or_default());
        let now = Instant::now();
        if open.len() < all && open.iter().all(|one| one.is_passed_over(silence_min, now)) {
            return Ok(open.into_iter().map(Open::lacking).collect());
        }
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(open.into_iter().map(Open::lacking).collect());
        }
        // The last pause leaves time for one more question.
        sleep(pause.min((left / 2).max(PAUSE_MIN / 10))).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}

impl Witness {
    /// What it lacks, and at which address. `None`: one of its addresses at least answers, and all that do have it.
    async fn lack(&self, at: &Name, value: &str, patience: Duration) -> Option<(Option<SocketAddr>, Lack)> {
        let mut asking = JoinSet::new();
        for address in self.addresses.iter().copied() {
            let (at, recursion) = (at.clone(), self.recursion);
            asking.spawn(async move {
                (address, ask(address, &at, RecordType::TXT, recursion, Way::Usual, patience).await)
            });
        }
        let mut failed = (None, Lack::NoAddress);
        let mut has = false;
        // With one IP version cut off, the other's word is enough, and nobody waits long for the silent one.
        let mut until = Instant::now() + patience;
        while let Ok(Some(asked)) = timeout_at(until, asking.join_next()).await {
            let Ok((address, answer)) = asked else { continue };
            let failure = match answer {
                Ok(message) => match Failure::of_code(message.response_code) {
                    None | Some(Failure::NoSuchName) => {
                        let values = texts(&message.answers);
                        if !values.iter().any(|found| found == value) {
                            let lack = if values.is_empty() { Lack::Nothing } else { Lack::Others(values.len()) };
                            return Some((Some(address), lack));
                        }
                        has = true;
                        until = until.min(Instant::now() + GRACE);
                        continue;
                    }
                    Some(failure) => failure,
                },
                Err(failure) => failure,
            };
            failed = (Some(address), Lack::Failed(failure));
        }
        if has { None } else { Some(failed) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Each look is so many seconds after the first one, and ends with an answer or not.
    #[rstest]
    #[case::too_early(&[(0, false), (4, false), (9, false)], 9, false)]
    #[case::too_seldom(&[(0, false), (11, false)], 11, false)]
    #[case::long_enough(&[(0, false), (5, false), (10, false)], 10, true)]
    #[case::it_answered_in_between(&[(0, false), (5, true), (10, false), (12, false), (14, false)], 14, false)]
    #[case::it_answered_and_fell_silent(&[(0, true), (5, false), (10, false), (15, false)], 15, true)]
    #[case::it_answers(&[(0, false), (5, false), (20, true)], 20, false)]
    fn who_does_not_answer_has_a_fair_number_of_tries(
        #[case] looks: &[(u64, bool)],
        #[case] now: u64,
        #[case] is_passed_over: bool,
    ) {
        let start = Instant::now();
        let after = |secs| start + Duration::from_secs(secs);
        let mut one = Open::new(Witness { server: "ns".into(), addresses: vec![], recursion: false });
        assert!(!one.is_passed_over(SILENCE_MIN, after(60)), "nobody has asked");
        for (secs, answers) in looks {
            let lack = if *answers { Lack::Nothing } else { Lack::Failed(Failure::Refused) };
            one.note((None, lack), after(*secs));
        }
        assert_eq!(one.is_passed_over(SILENCE_MIN, after(now)), is_passed_over);
    }
}
