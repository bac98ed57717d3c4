//! Which file a database is, and what all who have it open know of it.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::SqlitePool;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::super::Standing;
use super::{Layout, WAIT_MAX};

/// What all clones and connections of a database know in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) layout: &'static Layout,
    pub(super) path: PathBuf,
    /// The file that was opened: device and inode.
    opened: Option<(u64, u64)>,
    file: Mutex<FileSeen>,
    /// Whether anything of it turned out to be damaged.
    is_damaged: AtomicBool,
    /// The ids of names met since the start: most folds are of names that were folded before.
    pub(super) ids: Mutex<HashMap<Arc<str>, i64>>,
}

/// Which file the database is. SQLite would go on writing to one that was deleted or replaced.
#[derive(Debug)]
struct FileSeen {
    /// Device and inode; `None` while there is none.
    id: Option<(u64, u64)>,
    /// Connections that are older have another file open.
    since: Instant,
}

impl Shared {
    pub(super) fn new(layout: &'static Layout, path: PathBuf) -> Self {
        let opened = file_id(&path);
        let file = Mutex::new(FileSeen { id: opened, since: Instant::now() });
        Self { layout, path, opened, file, is_damaged: AtomicBool::new(false), ids: Mutex::default() }
    }

    pub(super) fn pool(self: &Arc<Self>, connections_max: u32, options: SqliteConnectOptions) -> SqlitePool {
        let shared = Arc::clone(self);
        PoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(WAIT_MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire(move |_, connection| {
                let is_current = shared.has_open(connection.age);
                Box::pin(async move { Ok(is_current) })
            })
            .connect_lazy_with(options)
    }

    /// Notes that something of it is damaged.
    pub(super) fn note_damage(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// How it stands. Asks the disk, which may take its time.
    pub(super) fn standing(&self) -> Standing {
        match self.path.metadata() {
            Ok(file) if self.opened == Some((file.dev(), file.ino())) => {}
            Ok(_) => return Standing::Gone,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Standing::Gone,
            // Who does not answer has taken nothing away.
            Err(_) => {}
        }
        if self.is_damaged.load(Ordering::Relaxed) { Standing::Damaged } else { Standing::Sound }
    }

    /// Whether a connection of this age has the file open that is there now.
    fn has_open(&self, age: Duration) -> bool {
        let id = file_id(&self.path);
        let mut seen = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.id != id {
            *seen = FileSeen { id, since: Instant::now() };
            // Another database may have given other ids.
            self.ids.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        age <= seen.since.elapsed()
    }
}

pub(super) fn file_id(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}
