//! What is kept: the inventory opened, the vault unlocked, both as soon as they can be, and tried again until they are.
//!
//! Requests wait for neither. Without the inventory a domain has its files and the internal authority; without the
//! vault's key its certificates are known and closed, and open in the second in which the key is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus::{IntGauge, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::certificate::{Certificate, OpenedKeys};
use crate::clock::{Clock, UnixTime};
use crate::control::Kept;
use crate::issuance::KeySource;
use crate::issuer::InternalCa;
use crate::store::StoreError;
use crate::store::inventory::{
    Attempts, Certificates, Inventory, NewCertificate, Order, OrderId, Provenance, Secret, StoredCertificate, Unusable,
};
use crate::vault::{Vault, VaultError, rotation};

/// Keys that are open at once; the rest open in well under a millisecond when they are asked for.
const MAX_OPENED_KEYS: usize = 10_000;
/// Pauses between attempts to open what did not open: at first, and at most.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// What the internal authority's key is kept under.
pub const INTERNAL_CA: &str = "internal-ca";

/// The inventory and the vault, as far as they are open.
pub struct Custody {
    data_dir: PathBuf,
    /// Where the key-encryption key is to be had. A reload may name another place.
    source: ArcSwap<KeySource>,
    vault: Vault,
    opened: Arc<OpenedKeys>,
    inventory: ArcSwapOption<Inventory>,
    is_unlocked: IntGauge,
}

/// The inventory on its way.
pub type Opening = JoinHandle<Result<Contents, StoreError>>;

/// What the inventory held when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// Certificates that were not revoked.
    pub certificates: Vec<Arc<Kept>>,
    /// Orders under way.
    pub orders: Vec<(OrderId, Order)>,
    /// What failed.
    pub attempts: Vec<Attempts>,
}

/// Why something that is kept cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// It is not open yet.
    #[error("the inventory is not open")]
    NotOpen,
}

impl Custody {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// If the metric's name is taken.
    pub fn new(data_dir: &Path, source: KeySource, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let is_unlocked = IntGauge::new("lockgate_vault_unlocked", "Whether kept private keys can be opened.")?;
        registry.register(Box::new(is_unlocked.clone()))?;
        let vault = Vault::locked();
        Ok(Arc::new(Self {
            data_dir: data_dir.to_owned(),
            source: ArcSwap::from_pointee(source),
            opened: OpenedKeys::new(Arc::new(vault.clone()), MAX_OPENED_KEYS),
            vault,
            inventory: ArcSwapOption::empty(),
            is_unlocked,
        }))
    }

    /// Where keys are sealed and opened.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Whether the vault is open, and what did not open before is forgotten.
    pub fn is_unlocked(&self) -> bool {
        self.is_unlocked.get() == 1
    }

    /// The inventory.
    ///
    /// # Errors
    /// If it is not open yet.
    pub fn inventory(&self) -> Result<Arc<Inventory>, CustodyError> {
        self.inventory.load_full().ok_or(CustodyError::NotOpen)
    }

    /// Opens the inventory and reads what is in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(&self, now: UnixTime) -> Result<Contents, StoreError> {
        let opened = Inventory::open(&self.data_dir, now).await?;
        if let Some(aside) = &opened.set_aside {
            let rows = opened.salvaged_rows;
            tracing::error!(
                "the inventory was damaged: {rows} rows were carried over; it is kept as {}",
                aside.display()
            );
        }
        let inventory = opened.inventory;
        let Certificates { certificates, unusable } = inventory.certificates().await?;
        for Unusable { id, reason } in unusable {
            tracing::error!(certificate = id.0, "a kept certificate cannot be used: {reason}");
        }
        let contents = Contents {
            certificates: certificates.into_iter().filter_map(|stored| self.kept(stored)).collect(),
            orders: inventory.orders().await?,
            attempts: inventory.attempts().await?,
        };
        self.inventory.store(Some(Arc::new(inventory)));
        Ok(contents)
    }

    /// A certificate of the inventory, to serve with. `None`: it was revoked.
    pub fn kept(&self, stored: StoredCertificate) -> Option<Arc<Kept>> {
        if stored.revoked_at.is_some() {
            return None;
        }
        let StoredCertificate { id, certificate: new, ari, .. } = stored;
        let certificate = self.closed(&new);
        Some(Arc::new(Kept {
            id,
            subject: new.subject,
            tenant: new.tenant,
            role: new.role,
            is_on_demand: new.provenance == Provenance::OnDemand,
            ca: new.ca,
            certificate: Arc::new(certificate),
            ari,
        }))
    }

    /// A certificate whose key is opened at its first handshake.
    pub fn closed(&self, new: &NewCertificate) -> Certificate {
        Certificate::sealed(new.facts.clone(), new.chain.clone(), new.sealed_key.clone(), Arc::clone(&self.opened))
    }

    /// Unlocks the vault, makes its first keys if there are none, and gives the internal authority its own back.
    ///
    /// # Errors
    /// [`CustodyError`]; nothing was changed then.
    pub async fn unlock(&self, internal: &InternalCa, now: UnixTime) -> Result<(), CustodyError> {
        let inventory = self.inventory()?;
        let stored = inventory.data_keys().await?;
        let found = rotation::find(&self.source.load_full(), &stored).await?;
        let wrap = found.wrap;
        if wrap.was_made() {
            tracing::warn!(
                "made {}: the key that opens all other keys. Keep a copy where this machine's backups are not, or name \
                 another in [vault]: without it every kept private key is lost",
                wrap.place()
            );
        }
        if let Some(made) = self.vault.unlock(&wrap, &stored, now).await? {
            inventory.add_data_key(&made).await?;
            self.vault.trust(made.id)?;
        }
        if let Some(unfinished) = found.unfinished {
            let next = unfinished.next().display().to_string();
            match unfinished.finish().await {
                Ok(()) => tracing::info!("the vault's new key was in {next}, and is now in its place"),
                Err(error) => {
                    tracing::warn!("the vault's new key is in {next} and cannot be put in its place: {error}")
                }
            }
        }
        self.opened.close_all();
        self.is_unlocked.set(1);
        match inventory.secret(INTERNAL_CA).await? {
            Some(secret) => {
                let adopted = self
                    .vault
                    .open(&secret.sealed, INTERNAL_CA.as_bytes())
                    .is_ok_and(|key| internal.adopt(&secret.public, &key));
                if !adopted {
                    tracing::error!("the internal authority's key cannot be used: another one is made at need");
                }
            }
            None => {
                if let Some((root, key)) = internal.export(now) {
                    let sealed = self.vault.seal(&key, INTERNAL_CA.as_bytes())?;
                    let name = INTERNAL_CA.to_owned();
                    inventory.put_secret(&Secret { name, sealed, public: root.into() }).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the key in `source` opens what is kept.
    ///
    /// # Errors
    /// [`CustodyError`] if it does not.
    pub async fn opens_with(&self, source: &KeySource, now: UnixTime) -> Result<(), CustodyError> {
        let stored = self.inventory()?.data_keys().await?;
        let found = rotation::find(source, &stored).await?;
        Ok(Vault::locked().unlock(&found.wrap, &stored, now).await.map(drop)?)
    }

    /// From now on the key is to be had there.
    pub fn turn_to(&self, source: KeySource) {
        self.source.store(Arc::new(source));
    }

    /// Begins to open the inventory, beside whatever else a start has to do.
    pub fn begin(self: &Arc<Self>, now: UnixTime) -> Opening {
        let custody = Arc::clone(self);
        tokio::spawn(async move { custody.open(now).await })
    }

    /// Tries to open what is not open yet until all is; `first` is what was begun. What the inventory held goes to
    /// `contents` if it comes only now, and `tried` is dropped when the vault was tried once.
    pub async fn attend(
        self: Arc<Self>,
        mut first: Option<Opening>,
        internal: Arc<InternalCa>,
        clock: Arc<Clock>,
        contents: mpsc::Sender<Contents>,
        tried: oneshot::Sender<()>,
    ) {
        let mut tried = Some(tried);
        let mut pause = RETRY;
        loop {
            let now = clock.read().now;
            if self.inventory.load().is_none() {
                let opened = match first.take() {
                    Some(opening) => opening.await.ok(),
                    None => Some(self.open(now).await),
                };
                match opened {
                    Some(Ok(found)) => _ = contents.send(found).await,
                    Some(Err(error)) => tracing::error!("{error}: nothing is issued before it is well"),
                    None => {}
                }
            }
            if self.inventory.load().is_some() {
                match self.unlock(&internal, now).await {
                    Ok(()) => return,
                    Err(error) => tracing::error!("{error}; kept certificates stay closed, and fallbacks serve"),
                }
            }
            drop(tried.take());
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
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
