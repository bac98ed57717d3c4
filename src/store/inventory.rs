//! Certificates and what belongs to them, as verbs: sealed keys, accounts with authorities, orders under way.
//!
//! A database of its own beside the one for what was metered: that one is written all the time and trimmed, this one
//! is written a few times a day and must not be lost with it.
//!
//! Times are kept to the second. Rows that cannot be used (damaged, or written by somebody else) are passed over and
//! told of, in the log where a verb does not return them; they are never deleted.

mod entry;
pub(super) mod facts;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use entry::{
    Account, Ari, Attempts, CertificateId, Certificates, HeldOff, NewCertificate, Order, OrderId, Provenance, Role,
    Secret, StoredCertificate, Unusable,
};

use super::sqlite::{self, inventory::InventoryDb};
use super::{Standing, StoreError};
use crate::clock::UnixTime;
use crate::issuance::renewal::Window;
use crate::name::DomainName;
use crate::vault::WrappedKey;

/// The database's file in `data_dir`.
pub const FILE: &str = "certificates.db";

/// The most octets of one certificate with its key and what is said of it. Nothing larger is kept, and none is read.
pub const CERTIFICATE_BYTES_MAX: usize = 256 * 1024;

/// How much of an authority's words about a failure is kept, in characters.
pub const PROBLEM_CHARS_MAX: usize = 4096;

/// Certificates and what belongs to them.
#[derive(Debug, Clone)]
pub struct Inventory {
    db: InventoryDb,
}

/// Tells whether certificates that were read ahead are still all that there are.
#[derive(Debug)]
pub struct Glance(sqlite::inventory::Glance);

impl Glance {
    /// Reads all certificates in `data_dir` before it is known who may write there, gives what `each` makes of every one,
    /// and changes nothing. `None`: there are none, or they cannot be read just so; whoever opens the inventory meets the
    /// reason. Blocks on the disk.
    pub fn take<T>(data_dir: &Path, each: impl FnMut(StoredCertificate) -> T) -> Option<(Vec<T>, Vec<Unusable>, Self)> {
        let (read, unusable, glance) = sqlite::inventory::Glance::take(data_dir, each)?;
        Some((read, unusable, Self(glance)))
    }

    /// Whether nobody has changed anything since. Blocks on the disk.
    pub fn holds(&self) -> bool {
        self.0.holds()
    }
}

/// An inventory, and what became of the one that was there.
#[derive(Debug)]
pub struct OpenedInventory {
    /// The inventory.
    pub inventory: Inventory,
    /// Where the damaged database was put that it replaces.
    pub set_aside: Option<PathBuf>,
    /// Rows that could be carried over from that one.
    pub salvaged_rows: u64,
}

impl Inventory {
    /// Opens the database in `data_dir`: made if it is not there, brought up to date if it is older. One that is damaged
    /// is replaced as by [`Self::replace`]. Damage among the certificates is met only where those are read.
    ///
    /// # Errors
    /// If it is newer, or the disk does not allow it: see [`StoreError::is_for_writing`].
    pub async fn open(data_dir: &Path, now: UnixTime) -> Result<OpenedInventory, StoreError> {
        match InventoryDb::open(data_dir).await {
            Err(StoreError::Damaged { .. }) => Self::replace(data_dir, now).await,
            opened => Ok(OpenedInventory { inventory: Self { db: opened? }, set_aside: None, salvaged_rows: 0 }),
        }
    }

    /// The same, and leaves one that is damaged as it is.
    ///
    /// # Errors
    /// The same, and [`StoreError::Damaged`].
    pub async fn open_sound(data_dir: &Path) -> Result<Self, StoreError> {
        InventoryDb::open(data_dir).await.map(|db| Self { db })
    }

    /// Carries what can be read of the database in `data_dir` into a fresh one, and puts that in its place: for one that
    /// turned out to be damaged while it was used. [`Self::close`] that one first. Says where the old one was set aside,
    /// with `now` in its name, and how many rows were carried over.
    ///
    /// # Errors
    /// If the disk does not allow it; then the damaged one is still in its place.
    pub async fn salvage(data_dir: &Path, now: UnixTime) -> Result<(Option<PathBuf>, u64), StoreError> {
        InventoryDb::replace(data_dir, now).await
    }

    /// The same, and opens the fresh one.
    ///
    /// # Errors
    /// The same, and those of [`Self::open_sound`]: then the fresh one is in its place.
    pub async fn replace(data_dir: &Path, now: UnixTime) -> Result<OpenedInventory, StoreError> {
        let (set_aside, salvaged_rows) = Self::salvage(data_dir, now).await?;
        Ok(OpenedInventory { inventory: Self::open_sound(data_dir).await?, set_aside, salvaged_rows })
    }

    /// Opens it to read, also while a process writes it. `None` if there is none.
    ///
    /// # Errors
    /// If it is newer or older, damaged or unreadable.
    pub async fn open_to_read(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        InventoryDb::open_to_read(data_dir).await.map(|db| db.map(|db| Self { db }))
    }

    /// Opens it to read where nothing can be written: on a disk that is full or read-only. `None` if there is none.
    /// Nobody else may write it meanwhile, and nobody in this process have it open.
    ///
    /// # Errors
    /// If it is newer, or unreadable. Damage is met where something is read, and so is what an older one has not yet: its
    /// keys and certificates it has.
    pub async fn open_still(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        InventoryDb::open_still(data_dir).await.map(|db| db.map(|db| Self { db }))
    }

    /// Closes it: what was written is on the disk, and the files may be moved, or opened again.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// How it stands. Waits for the disk.
    pub async fn standing(&self) -> Standing {
        self.db.standing().await
    }

    /// The data keys, in the order of their numbers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn data_keys(&self) -> Result<Vec<WrappedKey>, StoreError> {
        self.db.data_keys().await
    }

    /// Keeps a data key. The same one may be added again.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if another one has its number.
    pub async fn add_data_key(&self, key: &WrappedKey) -> Result<(), StoreError> {
        self.db.add_data_key(key).await
    }

    /// Replaces how data keys are wrapped, of all of these or of none.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if one of them is not kept here.
    pub async fn rewrap_data_keys(&self, keys: &[WrappedKey]) -> Result<(), StoreError> {
        self.db.rewrap_data_keys(keys).await
    }

    /// What is kept sealed under `name`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn secret(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        self.db.secret(name).await
    }

    /// Keeps it; replaces what has that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_secret(&self, secret: &Secret) -> Result<(), StoreError> {
        self.db.put_secret(secret).await
    }

    /// All accounts with authorities.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.db.accounts().await
    }

    /// Keeps an account; replaces the one of the same authority and external account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_account(&self, account: &Account) -> Result<(), StoreError> {
        self.db.put_account(account).await
    }

    /// Forgets an account, if it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_account(&self, ca: &str, eab_kid: Option<&str>) -> Result<(), StoreError> {
        self.db.remove_account(ca, eab_kid).await
    }

    /// All certificates.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certificates(&self) -> Result<Certificates, StoreError> {
        let (certificates, unusable) = self.each_certificate(|stored| stored).await?;
        Ok(Certificates { certificates, unusable })
    }

    /// Reads all certificates, in the order of their numbers, and gives what `each` makes of every one: of 100,000 there
    /// is never a second copy. Also gives those that cannot be used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn each_certificate<T: Send + 'static>(
        &self,
        each: impl FnMut(StoredCertificate) -> T + Send + 'static,
    ) -> Result<(Vec<T>, Vec<Unusable>), StoreError> {
        self.db.each_certificate(each).await
    }

    /// One certificate; `None` if it is not there, or cannot be used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certificate(&self, id: CertificateId) -> Result<Option<StoredCertificate>, StoreError> {
        self.db.certificate(id).await
    }

    /// Keeps a certificate, ends the order it came from (if it came over ACME: the one under way for its subject and
    /// role), and forgets their failed attempts: all or nothing. The same certificate (by its fingerprint) kept again
    /// keeps its number, subject, tenant and role, and takes the chain and the sealed key that now come with it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if it has no leaf, too long a chain, an issuer that is no certificate, or more octets
    /// than [`CERTIFICATE_BYTES_MAX`].
    pub async fn keep(&self, new: &NewCertificate) -> Result<CertificateId, StoreError> {
        self.db.keep(new).await
    }

    /// Puts certificates back, under their numbers, that were in a database that was lost: where a number or a
    /// certificate is there already nothing changes. Orders' numbers go on from `now`. Returns how many were put back.
    ///
    /// # Errors
    /// As of [`Self::keep`]; some may be back then, and all may be put back again.
    pub async fn restore(&self, certificates: &[StoredCertificate], now: UnixTime) -> Result<u64, StoreError> {
        self.db.restore(certificates, now).await
    }

    /// Notes what the authority said of a certificate's renewal, instead of what it said before, and when to ask again.
    /// Nothing if the certificate is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_ari(
        &self,
        id: CertificateId,
        window: Option<Window>,
        next_at: UnixTime,
    ) -> Result<(), StoreError> {
        self.db.note_ari(id, window, next_at).await
    }

    /// Notes that a certificate was revoked. The first time holds.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if it is not there.
    pub async fn revoke(&self, id: CertificateId, at: UnixTime) -> Result<(), StoreError> {
        self.db.revoke(id, at).await
    }

    /// Forgets a certificate and its key, if it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(&self, id: CertificateId) -> Result<(), StoreError> {
        self.db.remove(id).await
    }

    /// All orders under way, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn orders(&self) -> Result<Vec<(OrderId, Order)>, StoreError> {
        self.db.orders().await
    }

    /// The order under way for a subject and role; `None` also if it cannot be used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_of(&self, subject: &DomainName, role: Role) -> Result<Option<(OrderId, Order)>, StoreError> {
        self.db.order_of(subject, role).await
    }

    /// Keeps an order; replaces the one of the same subject and role.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_order(&self, order: &Order) -> Result<OrderId, StoreError> {
        self.db.begin_order(order).await
    }

    /// Keeps the key that an order is about to be finalized with.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the order has ended or was replaced: then it must not be finalized.
    pub async fn seal_order_key(&self, id: OrderId, sealed: &[u8]) -> Result<(), StoreError> {
        self.db.seal_order_key(id, sealed).await
    }

    /// Forgets an order, if it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_order(&self, id: OrderId) -> Result<(), StoreError> {
        self.db.end_order(id).await
    }

    /// What failed since the last success, of all subjects.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attempts(&self) -> Result<Vec<Attempts>, StoreError> {
        self.db.attempts().await
    }

    /// Keeps it; replaces what is known of the same subject and role. Of longer words than [`PROBLEM_CHARS_MAX`] the
    /// beginning.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_attempts(&self, attempts: &Attempts) -> Result<(), StoreError> {
        self.db.note_attempts(attempts).await
    }

    /// Forgets what failed, if anything did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_attempts(&self, subject: &DomainName, role: Role) -> Result<(), StoreError> {
        self.db.forget_attempts(subject, role).await
    }

    /// Forgets certificates that ended before `before`, at most `limit`; but never that one of a subject and role that
    /// ends last. Also issuers that no certificate names any more. Returns how many certificates went: less than
    /// `limit` means that nothing is left to forget.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn trim(&self, before: UnixTime, limit: u32) -> Result<u64, StoreError> {
        self.db.trim(before, limit).await
    }
}
