//! Sites by name, of which one can change at little cost, however many there are.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use crate::site::Site;

/// Into how many parts sites are divided: with 100,000 of them a part has 400.
const PARTS: usize = 256;

/// Sites by name, in parts that successive snapshots share: where one site changes, only its part is made anew.
#[derive(Debug, Clone)]
pub struct Sites<K> {
    /// [`PARTS`], or none where there are no sites.
    parts: Box<[Arc<Part<K>>]>,
    /// Which name belongs into which part.
    divider: foldhash::fast::RandomState,
}

/// Clients only look up and never insert, so a fast hash is safe here: nobody can fill a bucket.
type Part<K> = HashMap<K, Arc<Site>, foldhash::fast::RandomState>;

impl<K> Default for Sites<K> {
    fn default() -> Self {
        Self { parts: Box::default(), divider: foldhash::fast::RandomState::default() }
    }
}

impl<K: Hash + Eq + Clone> Sites<K> {
    /// Puts a site in the place of the one that has its key.
    pub fn insert(&mut self, key: K, site: Arc<Site>) {
        if self.parts.is_empty() {
            self.parts = (0..PARTS).map(|_| Arc::default()).collect();
        }
        let at = self.part_of(&key);
        if let Some(part) = self.parts.get_mut(at) {
            Arc::make_mut(part).insert(key, site);
        }
    }

    /// The site of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Arc<Site>>
    where
        K: Borrow<Q>,
    {
        // Most worlds have no wildcard, no address and no alias: then nothing is hashed.
        if self.parts.is_empty() { None } else { self.parts.get(self.part_of(key))?.get(key) }
    }

    fn part_of<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        self.divider.hash_one(key) as usize % PARTS
    }
}

impl<K> Sites<K> {
    /// All of them, in no order.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.parts.iter().flat_map(|part| part.values())
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.parts.iter().flat_map(|part| part.keys())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether there is none: parts are made with the first site, and none is ever taken out.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The sites of all parts that are not the very same in `other`.
    pub fn unlike<'s>(&'s self, other: &'s Self) -> impl Iterator<Item = &'s Arc<Site>> {
        let is_unlike =
            |(at, part): &(usize, &'s Arc<Part<K>>)| other.parts.get(*at).is_none_or(|other| !Arc::ptr_eq(part, other));
        self.parts.iter().enumerate().filter(is_unlike).flat_map(|(_, part)| part.values())
    }
}
