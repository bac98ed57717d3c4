//! The keys of sealed certificates that are open: only so many at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::{ArcSwapOption, Guard};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// Opens sealed keys: the vault.
pub trait OpensKeys: Send + Sync {
    /// The key, PKCS#8 DER, that was sealed for `context`. `None`: it does not open (now).
    fn open_key(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>>;

    /// Whether it opens anything at all now.
    fn is_open(&self) -> bool {
        true
    }
}

/// The keys that are open: at most so many, and of those that were not used for a while the next is closed when one more
/// is opened (second chance, also known as CLOCK).
///
/// A handshake whose key is open comes no further than its cell: the lock here is for those that open one.
pub struct OpenedKeys {
    vault: Arc<dyn OpensKeys>,
    max: usize,
    /// Whether the vault opened nothing when it was last looked at: then no certificate here can serve.
    is_locked: AtomicBool,
    /// Which state of the vault this is: what did not open is not tried again in the same. Begins at 1.
    generation: AtomicU64,
    ring: Mutex<Ring>,
}

/// Where the key of one certificate hangs while it is open. Made when it is first opened.
#[derive(Default)]
pub(super) struct Cell {
    key: ArcSwapOption<CertifiedKey>,
    /// Whether it was asked for since the hand last came by.
    used: AtomicBool,
    /// The generation in which it did not open; 0: in none.
    broken_in: AtomicU64,
    /// Held while one thread opens it and the others wait.
    opening: Mutex<()>,
}

/// The place of one certificate's cell: empty until its key is first asked for.
#[derive(Default)]
pub(super) struct Place(ArcSwapOption<Cell>);

impl Place {
    /// The cell, if there is one.
    pub(super) fn get(&self) -> Guard<Option<Arc<Cell>>> {
        self.0.load()
    }

    /// The cell, made if there is none.
    pub(super) fn fill(&self) -> Arc<Cell> {
        let made = Arc::default();
        let before = self.0.compare_and_swap(&None::<Arc<Cell>>, Some(Arc::clone(&made)));
        Guard::into_inner(before).unwrap_or(made)
    }
}

/// The cells that hold a key. Those of certificates that are gone leave an empty place.
#[derive(Default)]
struct Ring {
    cells: Vec<Weak<Cell>>,
    hand: usize,
}

/// How often what opens and what does not has changed, in the whole process.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A number that changes whenever a key turns out not to open, or may open again: how a domain stands is then to be
/// looked at anew, whatever the clock says.
pub fn key_changes() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

/// To be called when a key was found not to open.
pub(super) fn note_change() {
    CHANGES.fetch_add(1, Ordering::AcqRel);
}

impl OpenedKeys {
    /// Room for `max` open keys (at least one) of `vault`.
    pub fn new(vault: Arc<dyn OpensKeys>, max: usize) -> Arc<Self> {
        let is_locked = AtomicBool::new(!vault.is_open());
        Arc::new(Self { vault, max: max.max(1), is_locked, generation: AtomicU64::new(1), ring: Mutex::default() })
    }

    /// How many are open. Looks at every one.
    pub fn len(&self) -> usize {
        self.ring().cells.iter().filter(|cell| cell.upgrade().is_some_and(|cell| cell.key.load().is_some())).count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes all, and forgets which did not open. To be called after the vault changed: was unlocked, locked, or
    /// given other data keys.
    pub fn close_all(&self) {
        let mut ring = self.ring();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.is_locked.store(!self.vault.is_open(), Ordering::Release);
        ring.cells.drain(..).filter_map(|cell| cell.upgrade()).for_each(|cell| cell.key.store(None));
        ring.hand = 0;
        note_change();
    }

    /// The key of `cell`; if it is closed, what `open` makes of it with the vault, which one thread at a time does.
    pub(super) fn key(
        &self,
        cell: &Arc<Cell>,
        open: impl FnOnce(&dyn OpensKeys) -> Option<Arc<CertifiedKey>>,
    ) -> Option<Arc<CertifiedKey>> {
        if let Some(key) = cell.key.load_full() {
            // Written only where it changes something: all workers share this line.
            if !cell.used.load(Ordering::Relaxed) {
                cell.used.store(true, Ordering::Relaxed);
            }
            return Some(key);
        }
        if self.is_broken(cell) {
            return None;
        }
        let _opening = cell.opening.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have opened it, or failed to, while this thread waited.
        if let Some(key) = cell.key.load_full() {
            return Some(key);
        }
        let generation = self.generation.load(Ordering::Acquire);
        if cell.broken_in.load(Ordering::Acquire) == generation {
            return None;
        }
        let Some(key) = open(&*self.vault) else {
            cell.broken_in.store(generation, Ordering::Release);
            note_change();
            return None;
        };
        self.keep(cell, &key, generation);
        Some(key)
    }

    /// Whether what `open` opens with the vault opens; asked of it only if it is not known. It is not kept open for that,
    /// and takes memory only if it does not open.
    pub(super) fn opens(&self, place: &Place, open: impl FnOnce(&dyn OpensKeys) -> Option<Arc<CertifiedKey>>) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        match &*place.get() {
            Some(cell) if cell.key.load().is_some() => return true,
            Some(cell) if cell.broken_in.load(Ordering::Acquire) == generation => return false,
            _ => {}
        }
        let opens = open(&*self.vault).is_some();
        // Locked, it opens nothing, and that says nothing of a key.
        if !opens && self.vault.is_open() {
            place.fill().broken_in.store(generation, Ordering::Release);
            note_change();
        }
        opens
    }

    /// Which state of the vault this is: another number whenever what does not open may open again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether none opens, as the vault is now.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked.load(Ordering::Acquire)
    }

    /// Whether it is known not to open, as the vault is now.
    pub(super) fn is_broken(&self, cell: &Cell) -> bool {
        cell.broken_in.load(Ordering::Acquire) == self.generation.load(Ordering::Acquire)
    }

    fn keep(&self, cell: &Arc<Cell>, key: &Arc<CertifiedKey>, generation: u64) {
        let mut ring = self.ring();
        // Opened by a vault that has changed meanwhile: good for this handshake, but not to be kept.
        if self.generation.load(Ordering::Acquire) == generation {
            ring.put(Arc::downgrade(cell), self.max);
            cell.used.store(false, Ordering::Relaxed);
            cell.key.store(Some(Arc::clone(key)));
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Cell {
    pub(super) fn is_open(&self) -> bool {
        self.key.load().is_some()
    }
}

impl Ring {
    /// Puts `cell` in a free place; if there is none, in that of the first which was not used since the hand last came
    /// by. Once around frees one; were they used faster than the hand moves, twice around is the end of patience.
    fn put(&mut self, cell: Weak<Cell>, max: usize) {
        if self.cells.len() < max {
            self.cells.push(cell);
            return;
        }
        for patience in (0..=self.cells.len() * 2).rev() {
            let at = self.hand;
            self.hand = if at + 1 >= self.cells.len() { 0 } else { at + 1 };
            let Some(place) = self.cells.get_mut(at) else { continue };
            if let Some(held) = place.upgrade() {
                if held.used.swap(false, Ordering::Relaxed) && patience > 0 {
                    continue;
                }
                held.key.store(None);
            }
            *place = cell;
            return;
        }
    }
}
