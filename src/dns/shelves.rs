//! Which values are on show where, and whose turn it is to change them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use super::error::DnsError;

/// Records on show at once: far more than orders are ever under way.
const ON_SHOW_MAX: usize = 10_000;

/// What keeps two orders at one name, or in one zone, from erasing each other's values, however each was told how to set
/// them: one for the whole process.
#[derive(Debug, Default)]
pub struct Shelves {
    by_place: Mutex<HashMap<String, Arc<AsyncMutex<Shelf>>>>,
}

/// What is on show at one place, or about to be.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    claims: HashMap<Claimed, Claim>,
}

/// By whom it is set, where, and the value.
pub(super) type Claimed = (String, String, String);

/// Whoever clears a value leaves it to those who still want the same.
#[derive(Debug, Default)]
struct Claim {
    holders: usize,
    is_set: bool,
}

impl Shelves {
    /// The shelf of values that must not be changed at the same time.
    pub(super) fn at(&self, place: &str) -> Result<Arc<AsyncMutex<Shelf>>, DnsError> {
        let mut shelves = self.by_place.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |shelf: &AsyncMutex<Shelf>| shelf.try_lock().is_ok_and(|shelf| shelf.claims.is_empty());
        shelves.retain(|_, shelf| Arc::strong_count(shelf) > 1 || !is_empty(shelf));
        if shelves.len() >= ON_SHOW_MAX && !shelves.contains_key(place) {
            return Err(DnsError::TooMany { max: ON_SHOW_MAX });
        }
        Ok(Arc::clone(shelves.entry(place.to_owned()).or_default()))
    }
}

impl Shelf {
    /// One more wants it there. Whether it is already.
    pub(super) fn claim(&mut self, what: &Claimed) -> bool {
        let claim = self.claims.entry(what.clone()).or_default();
        claim.holders += 1;
        claim.is_set
    }

    /// It was set.
    pub(super) fn note_set(&mut self, what: &Claimed) {
        if let Some(claim) = self.claims.get_mut(what) {
            claim.is_set = true;
        }
    }

    /// One wants it no more. Whether that was the last one.
    pub(super) fn give_up(&mut self, what: &Claimed) -> bool {
        let Some(claim) = self.claims.get_mut(what) else { return false };
        claim.holders = claim.holders.saturating_sub(1);
        let is_last = claim.holders == 0;
        if is_last {
            self.claims.remove(what);
        }
        is_last
    }

    /// Whether somebody wants it.
    pub(super) fn is_claimed(&self, what: &Claimed) -> bool {
        self.claims.contains_key(what)
    }
}
