//! The key that opens all others, and the internal authority, whose key is one of those.

use std::sync::Arc;

use super::{Custody, CustodyError, INTERNAL_CA, INTERNAL_CA_BEFORE, Keys};
use crate::clock::UnixTime;
use crate::issuance::KeySource;
use crate::issuer::InternalCa;
use crate::store::inventory::Secret;
use crate::vault::{KeyWrap, Vault, rotation};

impl Custody {
    /// Unlocks the vault and gives the internal authority its own key back. Where there are no keys yet, makes the first
    /// ones; but not as long as the inventory can only be read.
    ///
    /// # Errors
    /// [`CustodyError`]; nothing was changed then.
    pub async fn unlock(&self, internal: &InternalCa, now: UnixTime) -> Result<(), CustodyError> {
        let inventory = self.inventory.load_full();
        if let Some(inventory) = &inventory {
            self.keys.store(Some(Arc::new(Keys::of(inventory).await?)));
        }
        let keys = self.keys.load_full().ok_or(CustodyError::NotOpen)?;
        let stored = &keys.data_keys;
        if inventory.is_none() && stored.is_empty() {
            return Err(CustodyError::NotOpen);
        }
        let found = rotation::find(&self.source.load_full(), stored).await?;
        let wrap = found.wrap;
        tell_if_made(&wrap);
        if let Some(made) = self.vault.unlock(&wrap, stored, now).await? {
            self.inventory()?.add_data_key(&made).await?;
            self.vault.trust(made.id)?;
            self.keys.store(Some(Arc::new(Keys { data_keys: vec![made], internal: keys.internal.clone() })));
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
        for secret in &keys.internal {
            let key = self.vault.open(&secret.sealed, secret.name.as_bytes());
            if !key.is_ok_and(|key| internal.adopt(&secret.public, &key)) {
                tracing::error!("the internal authority's key cannot be used: another one is made at need");
            }
        }
        if keys.internal.is_empty() && inventory.is_some() {
            internal.root_pem(now);
            self.keep_internal(internal).await?;
        }
        Ok(())
    }

    /// Keeps the internal authority, and the one before it, as far as they are not kept yet.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub async fn keep_internal(&self, internal: &InternalCa) -> Result<(), CustodyError> {
        let inventory = self.inventory()?;
        let latest_first = internal.roots().into_iter().rev();
        // The one before first: until the next is kept, it is kept twice.
        let before_first: Vec<_> = latest_first.zip([INTERNAL_CA, INTERNAL_CA_BEFORE]).collect();
        for ((root, key), name) in before_first.into_iter().rev() {
            if inventory.secret(name).await?.is_some_and(|kept| *kept.public == *root) {
                continue;
            }
            let sealed = self.vault.seal(&key, name.as_bytes())?;
            inventory.put_secret(&Secret { name: name.to_owned(), sealed, public: root.into() }).await?;
        }
        Ok(())
    }

    /// Whether the key in `source` opens what is kept.
    ///
    /// # Errors
    /// [`CustodyError`] if it does not.
    pub async fn opens_with(&self, source: &KeySource, now: UnixTime) -> Result<(), CustodyError> {
        let stored = match self.inventory.load_full() {
            Some(inventory) => inventory.data_keys().await?,
            None => self.keys.load_full().ok_or(CustodyError::NotOpen)?.data_keys.clone(),
        };
        let found = rotation::find(source, &stored).await?;
        Ok(Vault::locked().unlock(&found.wrap, &stored, now).await.map(drop)?)
    }

    /// From now on the key is to be had there.
    pub fn turn_to(&self, source: KeySource) {
        self.source.store(Arc::new(source));
    }
}

/// Has the operator keep a copy of a key that was made just now.
pub(super) fn tell_if_made(wrap: &KeyWrap) {
    if wrap.was_made() {
        tracing::warn!(
            "made {}: the key that opens all other keys. Keep a copy where this machine's backups are not, or name \
             another in [vault]: without it every kept private key is lost",
            wrap.place()
        );
    }
}
