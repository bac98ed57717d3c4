//! What was metered, as it lies on the disk: the store and the journal together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::harvest::Past;
use crate::clock::UnixTime;
use crate::journal::{self, Segment};
use crate::store::{Opened, Remembered, Store, StoreError};
use crate::usage::Usage;

/// What the journal remembers.
#[derive(Debug, Default)]
pub struct Journaled {
    /// Counts, and nothing else.
    pub past: Past,
    /// The last file that there is.
    pub last: Option<Segment>,
    /// Files that could not be read whole.
    damaged: Vec<PathBuf>,
}

/// A store that was opened, and what it remembers.
#[derive(Debug)]
pub struct Stored {
    /// The store.
    pub store: Store,
    /// Accounts, and nothing else.
    pub past: Past,
}

/// Reads the journal. What cannot be read is reported, and the rest taken. Blocks on the disk.
pub fn read_journal(data_dir: &Path) -> Journaled {
    let replay = match journal::replay(data_dir) {
        Ok(replay) => replay,
        Err(error) => {
            tracing::error!("the journal cannot be read, what it had counted is not known: {error}");
            return Journaled::default();
        }
    };
    for damage in &replay.damage {
        tracing::error!("a part of what the journal had counted is not known: {damage}");
    }
    let past = Past { at: replay.at, entries: replay.entries, ..Past::default() };
    Journaled { past, last: replay.last, damaged: replay.damage.into_iter().map(|damage| damage.file).collect() }
}

impl Journaled {
    /// Gives files that could not be read whole another name: the others are removed when the store has what they say.
    pub fn set_damaged_aside(&mut self) {
        for file in self.damaged.drain(..) {
            let mut aside = file.clone().into_os_string();
            aside.push(".damaged");
            match std::fs::rename(&file, &aside) {
                Ok(()) => tracing::error!("it is kept as {}", aside.display()),
                Err(error) => tracing::error!("{} cannot be set aside: {error}", file.display()),
            }
        }
    }
}

/// Opens the store and reads what a start needs. A damaged one is set aside and replaced, and reported.
///
/// # Errors
/// If the store is a newer Lockgate's, or the disk does not allow it.
pub async fn open_store(data_dir: PathBuf, now: UnixTime) -> Result<Stored, StoreError> {
    let mut opened = Store::open(&data_dir, now).await?;
    report_set_aside(&opened);
    let remembered = match opened.store.remembered().await {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!("{error}");
            opened.store.close().await;
            opened = Store::replace(&data_dir, now).await?;
            report_set_aside(&opened);
            opened.store.remembered().await?
        }
        remembered => remembered?,
    };
    Ok(Stored { store: opened.store, past: past(remembered) })
}

/// What a start needs of a store that cannot be opened, as far as it can be read. Nothing if not even that.
pub async fn glimpse_at_store(data_dir: &Path) -> Past {
    Store::glimpse(data_dir).await.map(past).unwrap_or_default()
}

fn past(remembered: Remembered) -> Past {
    let usages = remembered.states.iter().filter_map(|(name, state)| Some((Arc::clone(name), read(name, state)?)));
    Past { usages: usages.collect(), at: remembered.at, zone: remembered.zone, entries: Vec::new() }
}

/// Says that a damaged database was replaced.
pub fn report_set_aside(opened: &Opened) {
    if let Some(path) = &opened.set_aside {
        let path = path.display();
        tracing::error!("the database was damaged: it is now {path}, and a new one is used; its history is not in it");
    }
}

fn read(name: &str, state: &[u8]) -> Option<Usage> {
    Usage::load(state)
        .inspect_err(|error| tracing::error!(domain = name, "what was stored of its last day cannot be read: {error}"))
        .ok()
}
