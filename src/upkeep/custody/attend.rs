//! Opening what is kept, again and again until it is open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::proving::prove;
use super::{Contents, Custody, CustodyError};
use crate::clock::{Clock, UnixTime};
use crate::control::{Control, Kept};
use crate::issuer::InternalCa;
use crate::store::{Standing, StoreError};

/// Pauses between attempts to open what did not open: at first, and at most. What is open is looked at as often as at
/// first.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How soon is tried again to have the pen: it is mostly held for less.
const PEN_PAUSE: Duration = Duration::from_millis(5);

/// The inventory on its way.
pub type Opening = JoinHandle<Result<Contents, CustodyError>>;

/// What is attended to, as far as it got.
struct Attendance {
    custody: Arc<Custody>,
    control: Arc<Mutex<Control>>,
    internal: Arc<InternalCa>,
    clock: Arc<Clock>,
    /// Where goes what the inventory held when it opened.
    contents: mpsc::Sender<Contents>,
    /// Whether it went there, all of it.
    is_told: bool,
    is_unlocked: bool,
    is_damaged: bool,
    /// Which internal authority is kept, by its generation; and when keeping it failed.
    kept_internal: Option<u64>,
    not_kept_at: Option<Instant>,
}

impl Custody {
    /// Begins to open the inventory, beside whatever else a start has to do.
    pub fn begin(self: &Arc<Self>, now: UnixTime) -> Opening {
        let custody = Arc::clone(self);
        tokio::spawn(async move { custody.open(now).await })
    }

    /// Tries to open what is not open yet until all is, and sees that it stays so; `first` is what was begun and is not
    /// over. What the inventory holds goes to `contents` if it comes only now, without the certificates that `control`
    /// has already; and `tried` is dropped when the vault was tried once. Does not return.
    pub async fn attend(
        self: Arc<Self>,
        first: Option<Opening>,
        control: Arc<Mutex<Control>>,
        clock: Arc<Clock>,
        contents: mpsc::Sender<Contents>,
        tried: oneshot::Sender<()>,
    ) {
        let is_told = first.is_none() && self.inventory.load().is_some();
        let mut opened = match first {
            Some(opening) => opening.await.ok(),
            None => None,
        };
        tokio::spawn(prove(Arc::clone(&self), Arc::clone(&control)));
        let internal = Arc::clone(pen(&control).await.internal());
        let (is_unlocked, is_damaged) = (false, false);
        let mut attendance = Attendance {
            custody: self,
            control,
            internal,
            clock,
            contents,
            is_told,
            is_unlocked,
            is_damaged,
            kept_internal: None,
            not_kept_at: None,
        };
        let (mut tried, mut pause) = (Some(tried), RETRY);
        loop {
            attendance.welcome(opened.take()).await;
            attendance.unlock().await;
            drop(tried.take());
            let is_well = attendance.is_well();
            sleep(if is_well { RETRY } else { pause }).await;
            pause = if is_well { RETRY } else { (pause * 2).min(RETRY_MAX) };
            attendance.look_after().await;
            if is_well {
                attendance.keep_internal().await;
            }
            opened = attendance.open().await;
        }
    }
}

impl Attendance {
    fn is_well(&self) -> bool {
        self.is_unlocked && self.custody.inventory.load().is_some()
    }

    /// Hands on what an inventory held that opened.
    async fn welcome(&mut self, opened: Option<Result<Contents, CustodyError>>) {
        match opened {
            Some(Ok(mut found)) => {
                (self.is_unlocked, self.kept_internal) = (false, None);
                // Dropped when the pen is free again: there may be a hundred thousand.
                let known = take_known(&mut found, &*pen(&self.control).await);
                drop(known);
                if !self.is_told {
                    self.is_told = self.custody.inventory.load().is_some();
                    _ = self.contents.send(found).await;
                } else if !found.certificates.is_empty() {
                    // Orders and attempts are as whoever orders knows them.
                    pen(&self.control).await.take_in(found.certificates);
                }
            }
            Some(Err(error)) => tracing::error!("{error}: nothing is issued before it is well"),
            None => {}
        }
    }

    async fn unlock(&mut self) {
        if self.is_unlocked || self.custody.keys.load().is_none() {
            return;
        }
        match self.custody.unlock(&self.internal, self.clock.read().now).await {
            Ok(()) => self.is_unlocked = true,
            Err(error) if self.custody.is_unlocked() => tracing::error!("{error}; what is unlocked stays so"),
            Err(error) => tracing::error!("{error}; kept certificates stay closed, and fallbacks serve"),
        }
    }

    /// Closes the inventory if it is one no more.
    async fn look_after(&mut self) {
        let Ok(inventory) = self.custody.inventory() else { return };
        match inventory.standing().await {
            Standing::Sound => return,
            Standing::Gone => tracing::error!("the inventory's file is gone: it is made anew from what is in memory"),
            Standing::Damaged if !self.custody.may_replace() => return,
            Standing::Damaged => {
                tracing::error!(
                    "the inventory is damaged: it is made anew from what can be read and what is in memory"
                );
                self.is_damaged = true;
            }
        }
        self.custody.inventory.store(None);
        inventory.close().await;
    }

    /// Keeps the internal authority if there is another one: a clock that was wrong may have had it replaced.
    async fn keep_internal(&mut self) {
        let generations = self.internal.generations();
        let is_soon = self.not_kept_at.is_some_and(|at| at.elapsed() < RETRY_MAX);
        if self.kept_internal == Some(generations) || is_soon || self.custody.inventory().is_err() {
            return;
        }
        self.not_kept_at = None;
        match self.custody.keep_internal(&self.internal).await {
            Ok(()) => self.kept_internal = Some(generations),
            Err(error) => {
                tracing::warn!("the internal authority's root cannot be kept: {error}");
                self.not_kept_at = Some(Instant::now());
            }
        }
    }

    /// Opens the inventory, unless it is open.
    async fn open(&mut self) -> Option<Result<Contents, CustodyError>> {
        if self.custody.inventory.load().is_some() {
            return None;
        }
        let known: Vec<_> = pen(&self.control).await.kept().all().cloned().collect();
        let now = self.clock.read().now;
        if !self.is_damaged {
            return Some(self.custody.open_knowing(&known, now).await);
        }
        let replaced = self.custody.replace(&known, now).await;
        // Once another one is in its place, that one is opened.
        self.is_damaged = self.custody.may_replace();
        Some(replaced)
    }
}

/// Takes out the certificates that are served already: they were read before the inventory could be written.
fn take_known(found: &mut Contents, control: &Control) -> Vec<Arc<Kept>> {
    let known: HashMap<_, _> = control.kept().all().map(|kept| (kept.id, &kept.certificate)).collect();
    let is_known = |kept: &Arc<Kept>| known.get(&kept.id).is_some_and(|known| known.is_stored_as(&kept.certificate));
    let (known, news) = std::mem::take(&mut found.certificates).into_iter().partition(is_known);
    found.certificates = news;
    known
}

/// The pen, as soon as nobody else has it: whoever has may wait for a disk, and must not make a thread wait that others
/// need. If its last holder panicked, the world it published before is still whole.
pub async fn pen(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    loop {
        if let Some(pen) = try_pen(control) {
            return pen;
        }
        sleep(PEN_PAUSE).await;
    }
}

fn try_pen(control: &Mutex<Control>) -> Option<MutexGuard<'_, Control>> {
    match control.try_lock() {
        Ok(pen) => Some(pen),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// What the inventory held, if it opens within `patience`; else it goes on opening.
///
/// # Errors
/// If a newer Lockgate wrote it: this one must not. Whatever else is wrong is reported, and tried again later.
pub async fn within(
    patience: Duration,
    mut opening: Opening,
) -> Result<(Option<Contents>, Option<Opening>), CustodyError> {
    match timeout(patience, &mut opening).await {
        Ok(Ok(Ok(contents))) => Ok((Some(contents), None)),
        Ok(Ok(Err(error @ CustodyError::Store(StoreError::Newer(_))))) => Err(error),
        Ok(Ok(Err(error))) => {
            tracing::error!("{error}: fallbacks serve until it is well again");
            Ok((None, None))
        }
        Ok(Err(_)) => Ok((None, None)),
        Err(_) => {
            tracing::warn!("the inventory takes its time: fallbacks serve until it is there");
            Ok((None, Some(opening)))
        }
    }
}
