//! Certificates that are read while the configuration still is: with a hundred thousand of each that is a third of a
//! start's time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::task::spawn_blocking;

use super::{MAX_OPENED_KEYS, kept_with};
use crate::certificate::OpenedKeys;
use crate::control::Kept;
use crate::store::inventory::{CertificateId, Glance, Unusable};
use crate::vault::Vault;

/// Every certificate by its number; `None`: it was revoked. And those that cannot be used.
pub(super) type Read = (Vec<(CertificateId, Option<Arc<Kept>>)>, Vec<Unusable>);

/// A reading under way, by a thread of its own.
pub struct Ahead {
    data_dir: PathBuf,
    /// For which keys will be asked.
    pub(super) vault: Vault,
    pub(super) opened: Arc<OpenedKeys>,
    reading: JoinHandle<Option<(Read, Glance)>>,
}

impl Ahead {
    /// Begins to read what lies in `data_dir`. Nothing is changed, and nothing waits for it. `None`: there is no thread
    /// for it.
    pub fn begin(data_dir: PathBuf) -> Option<Self> {
        let vault = Vault::locked();
        let opened = OpenedKeys::new(Arc::new(vault.clone()), MAX_OPENED_KEYS);
        let (keys, dir) = (Arc::clone(&opened), data_dir.clone());
        let read = move || {
            let (read, unusable, glance) = Glance::take(&dir, |stored| (stored.id, kept_with(&keys, stored)))?;
            Some(((read, unusable), glance))
        };
        let reading = thread::Builder::new().name("lockgate-ahead".to_owned()).spawn(read).ok()?;
        Some(Self { data_dir, vault, opened, reading })
    }

    /// Whether that is where it reads.
    pub(super) fn is_of(&self, data_dir: &Path) -> bool {
        self.data_dir == data_dir
    }

    /// What was read, if nobody has written since.
    pub(super) async fn finish(self) -> Option<Read> {
        let finish = || self.reading.join().ok().flatten().filter(|(_, glance)| glance.holds()).map(|(read, _)| read);
        spawn_blocking(finish).await.ok().flatten()
    }
}
