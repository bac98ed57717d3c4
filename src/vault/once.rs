//! Looking at a file that may be on a file system that hangs: nobody waits for ever, and each place costs one thread at
//! most, however often it is tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Whose turn it is at each place that is being looked at: never more places than there are threads for it.
static TURNS: Mutex<BTreeMap<String, Weak<Turn<()>>>> = Mutex::new(BTreeMap::new());

/// What `look`, which may block, finds at `place`. `None` if it does not come back within `limit`: it goes on, and until
/// it is over nobody else looks there.
pub(super) async fn look_at<T: Send + 'static>(
    place: &str,
    limit: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = turn_at(place);
    let looking = async {
        let turn = turn.lock_owned().await;
        // The turn ends with the thread's work, not with the patience of whoever asked for it.
        let looked = spawn_blocking(move || (look(), turn)).await;
        looked.ok().map(|(found, _)| found)
    };
    timeout(limit, looking).await.ok().flatten()
}

fn turn_at(place: &str) -> Arc<Turn<()>> {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    if let Some(turn) = turns.get(place).and_then(Weak::upgrade) {
        return turn;
    }
    let turn = Arc::new(Turn::new(()));
    turns.insert(place.to_owned(), Arc::downgrade(&turn));
    turn
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_tried_by_one_thread_at_a_time() {
        const PATIENCE: Duration = Duration::from_secs(20);
        let begun = Arc::new(AtomicUsize::new(0));
        let (release, hangs) = mpsc::channel::<()>();
        let first = Arc::clone(&begun);
        let hanging = look_at("a file that hangs", Duration::from_millis(50), move || {
            first.fetch_add(1, Ordering::Relaxed);
            _ = hangs.recv();
        });
        assert_eq!(hanging.await, None);
        for _ in 0..5 {
            let again = Arc::clone(&begun);
            let look = move || again.fetch_add(1, Ordering::Relaxed);
            assert_eq!(look_at("a file that hangs", Duration::from_millis(10), look).await, None);
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1, "threads that hang");
        assert_eq!(look_at("another file", PATIENCE, || 7).await, Some(7));
        drop(release);
        assert_eq!(look_at("a file that hangs", PATIENCE, || 8).await, Some(8));
    }
}
