//! How many connections to origins there may be.

use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The room that the process has. Static because what it counts, file descriptors, belongs to the process as well.
static PROCESS: OnceLock<Semaphore> = OnceLock::new();

/// Limits the connections to origins that the whole process may have at once. The first limit stays; without one there
/// is none.
pub fn limit_connections(max: usize) {
    _ = PROCESS.set(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
}

/// One connection's share of the process's room and of its origin's, until it is closed.
#[derive(Debug)]
pub(super) struct Place {
    _process: SemaphorePermit<'static>,
    _origin: OwnedSemaphorePermit,
}

impl Place {
    /// A place, if there is one now.
    pub(super) fn take(origin: &Arc<Semaphore>) -> Option<Self> {
        let origin = Arc::clone(origin).try_acquire_owned().ok()?;
        let process = process().try_acquire().ok()?;
        Some(Self { _process: process, _origin: origin })
    }

    /// A place as soon as there is one. `None` never comes, because no room is ever closed.
    pub(super) async fn wait(origin: &Arc<Semaphore>) -> Option<Self> {
        let origin = Arc::clone(origin).acquire_owned().await.ok()?;
        let process = process().acquire().await.ok()?;
        Some(Self { _process: process, _origin: origin })
    }
}

/// Whether the process has no room left.
pub(super) fn is_process_full() -> bool {
    process().available_permits() == 0
}

fn process() -> &'static Semaphore {
    PROCESS.get_or_init(|| Semaphore::new(Semaphore::MAX_PERMITS))
}
