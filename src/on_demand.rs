//! Names that nobody wrote into the configuration: how a handshake asks whether one may be served.
//!
//! The request's way rings and waits; the back office answers. A ring is one look-up and one message that never waits.
//! However many handshakes are for a name, it is asked about once; however many names are asked about, what is kept of
//! them is bounded.

mod pace;
mod recent;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::issuance::OnDemand;
use crate::name::{DomainName, Kind};
pub use pace::Pace;
pub use recent::Recent;

/// Names about which nothing is known yet, and which are asked about at once.
pub const MAX_ASKED: usize = 256;
/// Names that are approved, and whose handshakes wait for an order.
pub const MAX_ORDERED: usize = 1024;
/// Names whose refusal is remembered.
const MAX_REFUSED: usize = 10_000;

/// What a name's handshakes wait for: `None` until it is known.
pub type Waiting = watch::Receiver<Option<bool>>;

/// Where handshakes ring.
#[derive(Debug)]
pub struct Doorbell {
    rings: mpsc::Sender<Ring>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<DomainName, (Waiting, Stage)>,
    asked: usize,
    ordered: usize,
    refused: Recent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Ordered,
}

/// One name that is asked about, for whoever answers. Dropped without an answer, it is refused.
#[derive(Debug)]
pub struct Ring {
    /// Which: a host name with at least one dot.
    pub name: DomainName,
    answer: watch::Sender<Option<bool>>,
    doorbell: Arc<Doorbell>,
}

impl Doorbell {
    /// A doorbell, and where its rings arrive.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Ring>) {
        let (rings, arriving) = mpsc::channel(MAX_ASKED);
        let refused = Recent::new(MAX_REFUSED);
        let state = State { waiting: HashMap::new(), asked: 0, ordered: 0, refused };
        (Arc::new(Self { rings, state: Mutex::new(state) }), arriving)
    }

    /// Asks whether `host`, in normal form, may be served. `None`: it may not, for now.
    pub fn ring(self: &Arc<Self>, host: &str, now: Instant) -> Option<Waiting> {
        let name = stranger(host)?;
        let mut state = self.lock();
        if state.refused.has(&name, now) {
            return None;
        }
        if let Some((waiting, _)) = state.waiting.get(&name) {
            return Some(waiting.clone());
        }
        if state.asked >= MAX_ASKED {
            return None;
        }
        let room = self.rings.try_reserve().ok()?;
        let (answer, waiting) = watch::channel(None);
        state.asked += 1;
        state.waiting.insert(name.clone(), (waiting.clone(), Stage::Asked));
        drop(state);
        room.send(Ring { name, answer, doorbell: Arc::clone(self) });
        Some(waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Notes that the name was approved and its certificate is ordered, so that further names can be asked about.
    /// Gives back how many names wait for an order, this one with them; `None`: too many do.
    pub fn wait_for_order(&self) -> Option<usize> {
        let mut state = self.doorbell.lock();
        if state.ordered >= MAX_ORDERED {
            return None;
        }
        if let Entry::Occupied(mut waiting) = state.waiting.entry(self.name.clone()) {
            waiting.get_mut().1 = Stage::Ordered;
            state.asked -= 1;
            state.ordered += 1;
        }
        Some(state.ordered)
    }

    /// The name can be served from now on: it is in the snapshot.
    pub fn welcome(self) {
        self.answer.send_replace(Some(true));
    }

    /// The name is not served, and not asked about again before `until`.
    pub fn refuse(self, until: Option<Instant>) {
        if let Some(until) = until {
            self.doorbell.lock().refused.put(self.name.clone(), until);
        }
        self.answer.send_replace(Some(false));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut state = self.doorbell.lock();
        match state.waiting.remove(&self.name) {
            Some((_, Stage::Asked)) => state.asked -= 1,
            Some((_, Stage::Ordered)) => state.ordered -= 1,
            None => {}
        }
        drop(state);
        self.answer.send_if_modified(|answer| answer.replace(answer.unwrap_or(false)).is_none());
    }
}

/// How long a handshake waits for an answer, so that it can still be told before its own time is up.
pub fn patience(handshake_timeout: Duration) -> Duration {
    handshake_timeout.saturating_sub(Duration::from_secs(1)).max(handshake_timeout / 2)
}

/// Whether a host, in normal form, can be asked about at all.
pub fn is_stranger(host: &str) -> bool {
    stranger(host).is_some()
}

/// A host, in normal form, that can be somebody's: letters, digits and hyphens, with a dot, and no address.
fn stranger(host: &str) -> Option<DomainName> {
    let is_public = host.contains('.') && !host.contains('_');
    let name = is_public.then(|| DomainName::parse(host).ok()).flatten()?;
    (name.kind() == Kind::Exact).then_some(name)
}

/// Whether `on_demand` approves of `host`, in normal form, unasked.
pub fn is_allowed_host(on_demand: &OnDemand, host: &str) -> bool {
    stranger(host).is_some_and(|name| is_allowed(on_demand, &name))
}

/// Whether `on_demand` approves `name` unasked. Its wildcards cover any depth, and not the name that they stand under.
pub fn is_allowed(on_demand: &OnDemand, name: &DomainName) -> bool {
    let name = name.as_str();
    on_demand.allow.iter().any(|pattern| match pattern.strip_prefix('*') {
        // The rest begins with a dot, so nothing ends with it that is no subdomain.
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    })
}

#[cfg(test)]
mod tests;
