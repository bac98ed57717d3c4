//! Opening what is kept, again and again until it is open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Contents, Custody};
use crate::clock::{Clock, UnixTime};
use crate::control::Control;
use crate::store::StoreError;

/// Pauses between attempts to open what did not open: at first, and at most.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The inventory on its way.
pub type Opening = JoinHandle<Result<Contents, StoreError>>;

impl Custody {
    /// Begins to open the inventory, beside whatever else a start has to do.
    pub fn begin(self: &Arc<Self>, now: UnixTime) -> Opening {
        let custody = Arc::clone(self);
        tokio::spawn(async move { custody.open(now).await })
    }

    /// Tries to open what is not open yet until all is; `first` is what was begun and is not over. What the inventory
    /// holds goes to `contents` if it comes only now, without the certificates that `control` has already; and `tried`
    /// is dropped when the vault was tried once.
    pub async fn attend(
        self: Arc<Self>,
        first: Option<Opening>,
        control: Arc<Mutex<Control>>,
        clock: Arc<Clock>,
        contents: mpsc::Sender<Contents>,
        tried: oneshot::Sender<()>,
    ) {
        let internal = Arc::clone(lock(&control).internal());
        let mut opened = match first {
            Some(opening) => opening.await.ok(),
            None => None,
        };
        let (mut is_unlocked, mut tried, mut pause) = (false, Some(tried), RETRY);
        loop {
            match opened.take() {
                Some(Ok(mut found)) => {
                    is_unlocked = false;
                    retain_news(&mut found, &lock(&control));
                    _ = contents.send(found).await;
                }
                Some(Err(error)) => tracing::error!("{error}: nothing is issued before it is well"),
                None => {}
            }
            if !is_unlocked && self.keys.load().is_some() {
                match self.unlock(&internal, clock.read().now).await {
                    Ok(()) => is_unlocked = true,
                    Err(error) => tracing::error!("{error}; kept certificates stay closed, and fallbacks serve"),
                }
            }
            drop(tried.take());
            let is_open = self.inventory.load().is_some();
            if is_open && is_unlocked {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
            if !is_open {
                opened = Some(self.open(clock.read().now).await);
            }
        }
    }
}

/// Leaves out the certificates that are served already: they were read before the inventory could be written.
fn retain_news(found: &mut Contents, control: &Control) {
    let known: HashMap<_, _> = control.kept().all().map(|kept| (kept.id, kept.certificate.fingerprint())).collect();
    found.certificates.retain(|kept| known.get(&kept.id) != Some(&kept.certificate.fingerprint()));
}

/// The pen. If its last holder panicked, the world it published before is still whole.
fn lock(control: &Mutex<Control>) -> std::sync::MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the inventory held, if it opens within `patience`; else it goes on opening.
///
/// # Errors
/// If a newer Lockgate wrote it: this one must not. Whatever else is wrong is reported, and tried again later.
pub async fn within(
    patience: Duration,
    mut opening: Opening,
) -> Result<(Option<Contents>, Option<Opening>), StoreError> {
    match timeout(patience, &mut opening).await {
        Ok(Ok(Ok(contents))) => Ok((Some(contents), None)),
        Ok(Ok(Err(error @ StoreError::Newer(_)))) => Err(error),
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
