//! Whether all who must have a record do: each is asked itself, until it has it or time is up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{Failure, Lack, Lacking, LookupError};
use super::exchange::{Way, ask};
use super::resolver::{LOOKUP_TIMEOUT, Resolver, texts};
use super::update::plain;

/// The pauses between two rounds of questions grow from the first to the second.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a name server's other addresses have once one of them has the record.
const GRACE: Duration = Duration::from_secs(1);
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
        // A server whose address cannot be found is one that the authority may fail at, too: it shows as lacking.
        let (v4, v6) = found.unwrap_or_default();
        let addresses = v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6));
        let addresses = addresses.map(|ip| SocketAddr::new(ip, port)).take(ADDRESSES_MAX).collect();
        witnesses.push(Witness { server, addresses, recursion: false });
    }
    witnesses.sort_by(|a, b| a.server.cmp(&b.server));
    Ok(witnesses)
}

/// Asks `witnesses` until each has `value` among the TXT records at `at`, or `deadline` comes: then who lacks it.
pub(super) async fn wait(
    witnesses: Vec<Witness>,
    at: &Name,
    value: &str,
    deadline: Instant,
) -> Result<(), Vec<Lacking>> {
    let mut open: Vec<_> = witnesses.into_iter().map(|witness| (witness, (None, Lack::NotAsked))).collect();
    let mut pause = PAUSE_MIN;
    loop {
        let mut round = JoinSet::new();
        for (i, (witness, _)) in open.iter().enumerate() {
            let (witness, at, value) = (witness.clone(), at.clone(), value.to_owned());
            round.spawn(async move { (i, witness.lack(&at, &value).await) });
        }
        let mut has = vec![false; open.len()];
        while let Ok(Some(asked)) = timeout_at(deadline, round.join_next()).await {
            let Ok((i, lack)) = asked else { continue };
            match (lack, open.get_mut(i), has.get_mut(i)) {
                (Some(lack), Some((_, last)), _) => *last = lack,
                (None, _, Some(has)) => *has = true,
                _ => {}
            }
        }
        let mut has = has.into_iter();
        open.retain(|_| !has.next().unwrap_or_default());
        if open.is_empty() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let lacking = open.into_iter().map(|(w, (address, lack))| Lacking { server: w.server, address, lack });
            return Err(lacking.collect());
        }
        // The last pause leaves time for one more question.
        sleep(pause.min((left / 2).max(PAUSE_MIN / 10))).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}

impl Witness {
    /// What it lacks, and at which address. `None`: one of its addresses at least answers, and all that do have it.
    async fn lack(&self, at: &Name, value: &str) -> Option<(Option<SocketAddr>, Lack)> {
        let mut asking = JoinSet::new();
        for address in self.addresses.iter().copied() {
            let (at, recursion) = (at.clone(), self.recursion);
            asking.spawn(async move {
                (address, ask(address, &at, RecordType::TXT, recursion, Way::Usual, LOOKUP_TIMEOUT).await)
            });
        }
        let mut failed = (None, Lack::NoAddress);
        let mut has = false;
        // With one IP version cut off, the other's word is enough, and nobody waits long for the silent one.
        let mut until = Instant::now() + LOOKUP_TIMEOUT;
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
