//! `lockgate vault rotate`
//!
//! Sealed keys stay as they are: what is wrapped anew are the data keys that sealed them, all in one transaction. A
//! running process has them in memory and goes on.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{home_of, work};
use crate::cli::Running;
use crate::cli::failure::Failure;
use crate::cli::text::counted;
use crate::clock::{self, UnixTime};
use crate::config;
use crate::issuance::KeySource;
use crate::secret::{SecretSource, withhold};
use crate::store::inventory::Inventory;
use crate::vault::rotation::{self, Replacement};
use crate::vault::{KeyWrap, Vault, WrappedKey};

#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    to: To,
    /// Seal what comes from the next start on under a fresh data key, too
    #[arg(long)]
    data_key: bool,
    /// Do not keep the old key beside the new one: backups made before now then open no more
    #[arg(long, conflicts_with_all = ["to_file", "to_env", "to_credential", "to_config"])]
    discard_old: bool,
}

/// Where the key is to come from afterwards; where nothing is said, from where it comes now.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct To {
    /// From now on the key in this file, which is made if it is not there
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// The one in this environment variable
    #[arg(long, value_name = "NAME")]
    to_env: Option<String>,
    /// The one in this systemd credential
    #[arg(long, value_name = "NAME")]
    to_credential: Option<String>,
    /// The one that [vault] of this configuration file names
    #[arg(long, value_name = "FILE")]
    to_config: Option<PathBuf>,
}

/// How the key is changed.
enum Change {
    /// A new key in the place of the one in a file.
    InPlace(PathBuf),
    /// A service or a program wraps anew, by what is its newest key.
    Anew(KeySource),
    /// The key comes from elsewhere; these are the lines to write.
    Elsewhere(KeySource, String),
}

impl Rotate {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let (data_dir, source) = home_of(&self.running);
        let source = source.map_err(Failure::Config)?;
        let change = self.to.change(&source, &data_dir)?;
        let now = clock::now();
        let _lock = lock(&data_dir)?;
        // To read at first: opened to write, a damaged database is replaced, which is for the server alone to do.
        let reading = Inventory::open_to_read(&data_dir).await?;
        let stored = match &reading {
            Some(inventory) => inventory.data_keys().await?,
            None => Vec::new(),
        };
        if let Some(inventory) = reading {
            inventory.close().await;
        }
        if stored.is_empty() {
            let data_dir = data_dir.display();
            return Err(Failure::Work(format!(
                "nothing is sealed in {data_dir} yet: write into [vault] what you want"
            )));
        }
        let found = rotation::find(&source, &stored).await.map_err(work)?;
        let before = Before::open(found.wrap, stored, now).await?;
        if let Some(unfinished) = found.unfinished {
            let next = unfinished.next().display().to_string();
            unfinished.finish().await.map_err(|error| Failure::Work(format!("{next} cannot be moved: {error}")))?;
            println!("a change of key that was interrupted is finished: the key of {next} is in its place");
        }
        let wrap = match &change {
            Change::InPlace(file) => before.replace_in(file, &data_dir, self.discard_old, now).await?,
            Change::Anew(target) => {
                // First, so that what is wrapped anew is wrapped by the new one.
                let renewed = before.wrap.renew_at_service().await;
                let wrap = before.wrap_by(target, &data_dir, now).await?;
                tell_of_service(&wrap, renewed);
                wrap
            }
            Change::Elsewhere(target, lines) => {
                let wrap = before.wrap_by(target, &data_dir, now).await?;
                println!(
                    "The next start needs this in the configuration, instead of what is in [vault] now:\n\n{lines}\n"
                );
                let old = before.wrap.place();
                println!("Backups of {} made before now need the old key, from {old}.", data_dir.display());
                wrap
            }
        };
        if self.data_key {
            before.add_data_key(&wrap, &data_dir, now).await?;
            println!("A fresh data key seals what is sealed from the next start on.");
        }
        println!("A Lockgate that runs goes on as it is: the keys that it has open did not change.");
        Ok(ExitCode::SUCCESS)
    }
}

impl To {
    fn change(&self, now: &KeySource, data_dir: &Path) -> Result<Change, Failure> {
        if let Some(file) = &self.to_file {
            let file = std::path::absolute(file).map_err(work)?;
            let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
            if file.parent().is_some_and(|parent| real(parent).starts_with(real(data_dir))) {
                return Err(Failure::Usage(
                    "the key would lie in data_dir, beside what it seals: whoever takes one has both; name a file \
                     elsewhere, as in /etc/lockgate/vault.key"
                        .to_owned(),
                ));
            }
            let lines = format!("[vault]\nkey_file = {:?}", file.display().to_string());
            return Ok(Change::Elsewhere(KeySource::Made(file), lines));
        }
        if let Some(name) = &self.to_env {
            withhold(name);
            let lines = format!("[vault]\nkey_env = {name:?}");
            return Ok(Change::Elsewhere(KeySource::Secret(SecretSource::Env(name.clone())), lines));
        }
        if let Some(name) = &self.to_credential {
            let lines = format!("[vault]\ncredential = {name:?}");
            return Ok(Change::Elsewhere(KeySource::Secret(SecretSource::Credential(name.clone())), lines));
        }
        if let Some(file) = &self.to_config {
            let home = config::vault_of(file).map_err(Failure::Config)?;
            return Ok(Change::Elsewhere(home.vault, format!("# the [vault] of {}", file.display())));
        }
        match now {
            KeySource::Made(file) | KeySource::Secret(SecretSource::File(file)) => Ok(Change::InPlace(file.clone())),
            KeySource::Transit(_) | KeySource::Exec(_) => Ok(Change::Anew(now.clone())),
            KeySource::Secret(elsewhere) => Err(Failure::Usage(format!(
                "{elsewhere} is not Lockgate's to write: put a new key into another one, and say which, by --to-env, \
                 --to-credential or --to-file"
            ))),
        }
    }
}

/// Two changes at once would leave nobody knowing which key is the right one.
fn lock(data_dir: &Path) -> Result<File, Failure> {
    let failed = |error| Failure::Work(format!("data_dir {} cannot be used: {error}", data_dir.display()));
    let directory = File::open(data_dir).map_err(failed)?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(Failure::Work("another `lockgate vault rotate` is under way".to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// What became of a key that never leaves its service: the data keys being wrapped anew does not change it.
fn tell_of_service(wrap: &KeyWrap, renewed: Option<Result<(), String>>) {
    let place = wrap.place();
    match renewed {
        Some(Ok(())) => println!(
            "{place} has a new version, which wraps from now on. Older versions stay there, for backups: retire them \
             there."
        ),
        Some(Err(why)) => println!(
            "{place} itself was not changed: {why}. Rotate it there, or let the token do it, and call this again: the \
             data keys were wrapped by the version that it has."
        ),
        None => println!(
            "Whether the key behind {place} is another one is for the program to say: only the data keys were wrapped \
             anew. To change the key, change it there, and call this again."
        ),
    }
}

/// The data keys as they were, and what wrapped them.
struct Before {
    wrap: KeyWrap,
    stored: Vec<WrappedKey>,
    vault: Vault,
}

impl Before {
    async fn open(wrap: KeyWrap, stored: Vec<WrappedKey>, now: UnixTime) -> Result<Self, Failure> {
        let vault = Vault::locked();
        vault.unlock(&wrap, &stored, now).await.map_err(work)?;
        Ok(Self { wrap, stored, vault })
    }

    /// A new key in the place of the one in `file`.
    async fn replace_in(
        &self,
        file: &Path,
        data_dir: &Path,
        discards_old: bool,
        now: UnixTime,
    ) -> Result<KeyWrap, Failure> {
        let failed = |error| {
            Failure::Work(format!(
                "a key cannot be written beside {}: {error}; nothing was changed. --to-file names another place",
                file.display()
            ))
        };
        let replacement = Replacement::make(file).map_err(failed)?;
        let prepared = async {
            let wrap = KeyWrap::open(&replacement.source()).await.map_err(work)?;
            let rewrapped = self.rewrapped(&wrap, now).await?;
            let previous = replacement.keep_old().map_err(failed)?;
            Ok((rewrapped, previous))
        };
        let (rewrapped, previous) = prepared.await.inspect_err(|_: &Failure| replacement.abandon())?;
        // From here on the new key stays where it is, whatever happens: it may be the one that counts.
        store(data_dir, &rewrapped).await?;
        replacement.finish().map_err(|error| {
            Failure::Work(format!(
                "the new key is in force, but cannot be put in the place of {}: {error}; the next start does it, or \
                 `lockgate vault rotate`",
                file.display()
            ))
        })?;
        let wrap = check(&KeySource::Secret(SecretSource::File(file.to_owned())), data_dir, now).await?;
        self.tell(&wrap);
        let data_dir = data_dir.display();
        if discards_old {
            let previous_file = previous.display();
            fs::remove_file(&previous).map_err(|error| {
                Failure::Work(format!(
                    "the key is changed, but the old one cannot be removed: {previous_file}: {error}"
                ))
            })?;
            println!("The old key is gone: backups of {data_dir} made before now open no more.");
        } else {
            println!(
                "Backups of {data_dir} made before now need the old key, which is kept in {}. Keep a copy of the new one \
                 where this machine's backups are not.",
                previous.display()
            );
        }
        Ok(wrap)
    }

    /// Has the data keys wrapped by the key in `target`.
    async fn wrap_by(&self, target: &KeySource, data_dir: &Path, now: UnixTime) -> Result<KeyWrap, Failure> {
        let wrap = KeyWrap::open(target).await.map_err(work)?;
        store(data_dir, &self.rewrapped(&wrap, now).await?).await?;
        let wrap = check(target, data_dir, now).await?;
        self.tell(&wrap);
        Ok(wrap)
    }

    fn tell(&self, wrap: &KeyWrap) {
        let count = counted(self.stored.len(), "data key");
        println!("{count}: wrapped by {} ({}), before by {}", wrap.identity(), wrap.place(), self.wrap.identity());
    }

    /// The data keys, wrapped by `wrap`, which gives back the very same.
    async fn rewrapped(&self, wrap: &KeyWrap, now: UnixTime) -> Result<Vec<WrappedKey>, Failure> {
        let rewrapped = self.vault.rewrap(wrap, now).await.map_err(work)?;
        for (old, new) in self.stored.iter().zip(&rewrapped) {
            let before = self.wrap.unwrap(old).await.map_err(work)?;
            let after = wrap.unwrap(new).await.map_err(work)?;
            if old.id != new.id || before != after {
                let place = wrap.place();
                return Err(Failure::Work(format!(
                    "{place} gives back another key than it wrapped: nothing was changed"
                )));
            }
        }
        Ok(rewrapped)
    }

    async fn add_data_key(&self, wrap: &KeyWrap, data_dir: &Path, now: UnixTime) -> Result<(), Failure> {
        let made = self.vault.renew(wrap, now).await.map_err(work)?;
        let inventory = Inventory::open(data_dir, now).await?.inventory;
        let added = inventory.add_data_key(&made).await;
        inventory.close().await;
        Ok(added?)
    }
}

/// Stores the data keys as they are wrapped now, all or none.
async fn store(data_dir: &Path, rewrapped: &[WrappedKey]) -> Result<(), Failure> {
    let inventory = Inventory::open(data_dir, clock::now()).await?.inventory;
    let stored = inventory.rewrap_data_keys(rewrapped).await;
    inventory.close().await;
    Ok(stored?)
}

/// Whether what is stored now opens with the key that the next start will find.
async fn check(source: &KeySource, data_dir: &Path, now: UnixTime) -> Result<KeyWrap, Failure> {
    let broken = || Failure::Work("the inventory is gone: restore it from a backup".to_owned());
    let inventory = Inventory::open_to_read(data_dir).await?.ok_or_else(broken)?;
    let stored = inventory.data_keys().await?;
    inventory.close().await;
    let found = rotation::find(source, &stored).await.map_err(work)?;
    Vault::locked().unlock(&found.wrap, &stored, now).await.map_err(work)?;
    Ok(found.wrap)
}
