//! What is kept: the inventory opened, the vault unlocked, both as soon as they can be, and tried again until they are.
//!
//! Requests wait for neither. Without the inventory a domain has its files and the internal authority; without the
//! vault's key its certificates are known and closed, and open in the second in which the key is there. An inventory
//! that can only be read, on a disk that takes nothing, serves what is in it; nothing is issued then.

mod ahead;
mod attend;
mod proving;
mod restore;
#[cfg(test)]
mod tests;
mod unlocking;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use ahead::Ahead;
use arc_swap::{ArcSwap, ArcSwapOption};
pub use attend::{Opening, pen, within};
use prometheus::{IntGauge, Registry};
use rustls_pki_types::CertificateDer;

use crate::certificate::{Certificate, Facts, OpenedKeys};
use crate::clock::UnixTime;
use crate::control::Kept;
use crate::issuance::KeySource;
use crate::store::StoreError;
use crate::store::inventory::{
    Attempts, CertificateId, Inventory, Order, OrderId, Provenance, Secret, StoredCertificate, Unusable,
};
use crate::vault::{Vault, VaultError, WrappedKey};

/// Keys that are open at once; the rest open in well under a millisecond when they are asked for.
const MAX_OPENED_KEYS: usize = 10_000;
/// How long after a damaged inventory was replaced another one is not.
const REPLACE_PAUSE: Duration = Duration::from_secs(3600);
/// What the internal authority's key is kept under.
pub const INTERNAL_CA: &str = "internal-ca";
/// The same of the one that signed before: a clock that was wrong may have replaced it.
pub const INTERNAL_CA_BEFORE: &str = "internal-ca-before";

/// The inventory and the vault, as far as they are open.
pub struct Custody {
    data_dir: PathBuf,
    /// Where the key-encryption key is to be had. A reload may name another place.
    source: ArcSwap<KeySource>,
    vault: Vault,
    opened: Arc<OpenedKeys>,
    /// What is read ahead, until it is asked for.
    ahead: Mutex<Option<Ahead>>,
    /// `None`: it could not be opened for writing yet.
    inventory: ArcSwapOption<Inventory>,
    /// As they were last read. `None`: not even that was possible yet.
    keys: ArcSwapOption<Keys>,
    /// When one that was damaged was replaced last.
    replaced_at: Mutex<Option<Instant>>,
    is_unlocked: IntGauge,
}

/// What of the inventory it takes to unlock the vault.
#[derive(Debug)]
struct Keys {
    data_keys: Vec<WrappedKey>,
    /// The internal authority's, the one before it first.
    internal: Vec<Secret>,
}

impl Keys {
    async fn of(inventory: &Inventory) -> Result<Self, StoreError> {
        let mut internal = Vec::new();
        for name in [INTERNAL_CA_BEFORE, INTERNAL_CA] {
            internal.extend(inventory.secret(name).await?);
        }
        Ok(Self { data_keys: inventory.data_keys().await?, internal })
    }
}

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
    /// It is not open yet, or can only be read.
    #[error("the inventory is not open for writing")]
    NotOpen,
}

impl Custody {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// If the metric's name is taken.
    pub fn new(data_dir: &Path, source: KeySource, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        Self::after(None, data_dir, source, registry)
    }

    /// The same, taking over what was begun to be read before it was known where all the rest is.
    ///
    /// # Errors
    /// If the metric's name is taken.
    pub fn after(
        ahead: Option<Ahead>,
        data_dir: &Path,
        source: KeySource,
        registry: &Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let is_unlocked = IntGauge::new("lockgate_vault_unlocked", "Whether kept private keys can be opened.")?;
        registry.register(Box::new(is_unlocked.clone()))?;
        let ahead = ahead.filter(|ahead| ahead.is_of(data_dir));
        let (vault, opened) = match &ahead {
            Some(ahead) => (ahead.vault.clone(), Arc::clone(&ahead.opened)),
            None => {
                let vault = Vault::locked();
                (vault.clone(), OpenedKeys::new(Arc::new(vault), MAX_OPENED_KEYS))
            }
        };
        Ok(Arc::new(Self {
            data_dir: data_dir.to_owned(),
            source: ArcSwap::from_pointee(source),
            opened,
            vault,
            ahead: Mutex::new(ahead),
            inventory: ArcSwapOption::empty(),
            keys: ArcSwapOption::empty(),
            replaced_at: Mutex::default(),
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

    /// Whether something can be issued: the inventory keeps it, and the vault seals its key.
    pub fn is_ready(&self) -> bool {
        self.vault.is_open() && self.inventory.load().is_some()
    }

    /// The inventory, open for writing.
    ///
    /// # Errors
    /// If it is not.
    pub fn inventory(&self) -> Result<Arc<Inventory>, CustodyError> {
        self.inventory.load_full().ok_or(CustodyError::NotOpen)
    }

    /// Opens the inventory and reads what is in it. Where nothing can be written, reads it once as it stands: then
    /// [`Self::inventory`] goes on saying that it is not open.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn open(&self, now: UnixTime) -> Result<Contents, CustodyError> {
        self.open_knowing(&[], now).await
    }

    /// The same, and puts back what is `known` and not in it.
    async fn open_knowing(&self, known: &[Arc<Kept>], now: UnixTime) -> Result<Contents, CustodyError> {
        match self.open_to_write(known, now).await {
            Err(CustodyError::Store(error)) if error.is_for_writing() && self.keys.load().is_none() => {
                self.read_still(error).await.map_err(CustodyError::from)
            }
            opened => opened,
        }
    }

    async fn open_to_write(&self, known: &[Arc<Kept>], now: UnixTime) -> Result<Contents, CustodyError> {
        let taken_over = match Inventory::open_sound(&self.data_dir).await {
            Ok(inventory) => self.take_over(inventory, known, now).await,
            Err(error) => Err(error.into()),
        };
        match taken_over {
            // In whole or, as certificates are read only now, in part.
            Err(CustodyError::Store(StoreError::Damaged { .. })) if self.may_replace() => {
                self.replace(known, now).await
            }
            taken_over => taken_over,
        }
    }

    /// Whether one that is damaged is to be replaced: one that is damaged again so soon has a disk that damages it, and
    /// another copy of it would help nobody.
    fn may_replace(&self) -> bool {
        let replaced_at = self.replaced_at.lock().unwrap_or_else(PoisonError::into_inner);
        !replaced_at.is_some_and(|at| at.elapsed() < REPLACE_PAUSE)
    }

    /// The same for one that turned out to be damaged: what can be read of it is carried over before.
    ///
    /// # Errors
    /// [`CustodyError`].
    async fn replace(&self, known: &[Arc<Kept>], now: UnixTime) -> Result<Contents, CustodyError> {
        let (set_aside, rows) = Inventory::salvage(&self.data_dir, now).await?;
        // Whatever becomes of it now: the fresh one is in its place, and that is not to be replaced.
        *self.replaced_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        // What was read is not what is there now.
        self.take_ahead();
        if let Some(aside) = set_aside {
            let aside = aside.display();
            tracing::error!("the inventory was damaged: {rows} rows were carried over; it is kept as {aside}");
        }
        self.take_over(Inventory::open_sound(&self.data_dir).await?, known, now).await
    }

    async fn take_over(
        &self,
        inventory: Inventory,
        known: &[Arc<Kept>],
        now: UnixTime,
    ) -> Result<Contents, CustodyError> {
        let read = async {
            let (certificates, ids) = self.read(&inventory).await?;
            self.restore(&inventory, &ids, known, now).await?;
            let contents =
                Contents { certificates, orders: inventory.orders().await?, attempts: inventory.attempts().await? };
            Ok::<_, CustodyError>((contents, Keys::of(&inventory).await?))
        };
        match read.await {
            Ok((contents, keys)) => {
                self.keys.store(Some(Arc::new(keys)));
                self.inventory.store(Some(Arc::new(inventory)));
                Ok(contents)
            }
            Err(error) => {
                inventory.close().await;
                Err(error)
            }
        }
    }

    /// What stands in an inventory that cannot be opened because of `error`, if it can be read; else that error.
    async fn read_still(&self, error: StoreError) -> Result<Contents, StoreError> {
        let read = async {
            let Some(inventory) = Inventory::open_still(&self.data_dir).await? else { return Ok(None) };
            let read = async {
                let (certificates, _) = self.read(&inventory).await?;
                Ok::<_, StoreError>((certificates, Keys::of(&inventory).await?))
            };
            let read = read.await;
            // Who tells when to try again can wait until it is open.
            let (orders, attempts) = (inventory.orders().await, inventory.attempts().await);
            inventory.close().await;
            let (certificates, keys) = read?;
            let (orders, attempts) = (orders.unwrap_or_default(), attempts.unwrap_or_default());
            Ok::<_, StoreError>(Some((Contents { certificates, orders, attempts }, keys)))
        };
        match read.await {
            Ok(Some((contents, keys))) => {
                let certificates = contents.certificates.len();
                tracing::error!(
                    certificates,
                    "the inventory can only be read: its certificates serve, and nothing is issued until it can be \
                     written: {error}"
                );
                self.keys.store(Some(Arc::new(keys)));
                Ok(contents)
            }
            Ok(None) => Err(error),
            Err(unread) => Err(match (unread, error) {
                (StoreError::Damaged { path, .. }, StoreError::Unavailable { source, .. }) => {
                    StoreError::Unsalvaged { path, source }
                }
                (unread, error) => {
                    tracing::error!("the inventory cannot be read either: {unread}");
                    error
                }
            }),
        }
    }

    /// The certificates to serve with, and the numbers of all that there are.
    async fn read(&self, inventory: &Inventory) -> Result<(Vec<Arc<Kept>>, Vec<CertificateId>), StoreError> {
        let ahead = match self.take_ahead() {
            Some(ahead) => ahead.finish().await,
            None => None,
        };
        let (read, unusable) = match ahead {
            Some(read) => read,
            None => {
                let opened = Arc::clone(&self.opened);
                inventory.each_certificate(move |stored| (stored.id, kept_with(&opened, stored))).await?
            }
        };
        let mut ids: Vec<CertificateId> = read.iter().map(|(id, _)| *id).collect();
        for Unusable { id, reason } in unusable {
            tracing::error!(certificate = id.0, "a kept certificate cannot be used: {reason}");
            ids.push(id);
        }
        Ok((read.into_iter().filter_map(|(_, kept)| kept).collect(), ids))
    }

    fn take_ahead(&self) -> Option<Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A certificate of the inventory, to serve with. `None`: it was revoked.
    pub fn kept(&self, stored: StoredCertificate) -> Option<Arc<Kept>> {
        kept_with(&self.opened, stored)
    }

    /// A certificate to be tried. Its key is not among those that handshakes open: none of them is closed for it, and none
    /// waits for whoever tries it.
    pub fn to_try(&self, facts: Facts, chain: &[CertificateDer<'static>], sealed_key: &[u8]) -> Certificate {
        Certificate::sealed(facts, chain, sealed_key, OpenedKeys::new(Arc::new(self.vault.clone()), 1))
    }
}

fn kept_with(opened: &Arc<OpenedKeys>, stored: StoredCertificate) -> Option<Arc<Kept>> {
    if stored.revoked_at.is_some() {
        return None;
    }
    let StoredCertificate { id, certificate: new, ari, .. } = stored;
    let certificate = Certificate::sealed(new.facts, &new.chain, &new.sealed_key, Arc::clone(opened));
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
