//! Putting back what an inventory lacks and the process has: its file was removed, or damaged.

use std::collections::HashSet;
use std::sync::Arc;

use super::unlocking::tell_if_made;
use super::{Custody, CustodyError};
use crate::clock::UnixTime;
use crate::control::Kept;
use crate::store::inventory::{CertificateId, Inventory, NewCertificate, Provenance, StoredCertificate};
use crate::vault::{WrappedKey, rotation};

impl Custody {
    /// Puts back what is `known` and not among what is stored under `ids`, with the keys that it takes to open it: keys first.
    ///
    /// # Errors
    /// [`CustodyError`]; what was not put back can be put back again.
    pub(super) async fn restore(
        &self,
        inventory: &Inventory,
        ids: &[CertificateId],
        known: &[Arc<Kept>],
        now: UnixTime,
    ) -> Result<(), CustodyError> {
        let keys = self.restore_keys(inventory, now).await?;
        // At a start nothing is known, and nobody is asked.
        let ids: HashSet<_> = if known.is_empty() { HashSet::new() } else { ids.iter().collect() };
        let missing: Vec<_> =
            known.iter().filter(|kept| !ids.contains(&kept.id)).filter_map(|kept| stored_form(kept, now)).collect();
        if keys == 0 && missing.is_empty() {
            return Ok(());
        }
        let certificates = inventory.restore(&missing, now).await?;
        tracing::warn!(keys, certificates, "the inventory lacked what is in memory: it was put back");
        Ok(())
    }

    /// How many keys were put back.
    async fn restore_keys(&self, inventory: &Inventory, now: UnixTime) -> Result<usize, CustodyError> {
        let Some(keys) = self.keys.load_full() else { return Ok(0) };
        let stored = inventory.data_keys().await?;
        let is_missing = |key: &WrappedKey| !stored.iter().any(|it| it.id == key.id);
        let mut missing: Vec<_> = keys.data_keys.iter().filter(|key| is_missing(key)).cloned().collect();
        if !missing.is_empty() && self.vault.is_open() {
            // By the key of now: since they were read they may have been wrapped by another one.
            let wrap = rotation::find(&self.source.load_full(), &stored).await?.wrap;
            tell_if_made(&wrap);
            missing = self.vault.rewrap(&wrap, now).await?;
            missing.retain(is_missing);
        }
        for key in &missing {
            inventory.add_data_key(key).await?;
        }
        for internal in &keys.internal {
            if inventory.secret(&internal.name).await?.is_none() {
                inventory.put_secret(internal).await?;
            }
        }
        Ok(missing.len())
    }
}

/// A certificate as it is stored. `None`: it never came out of the inventory.
fn stored_form(kept: &Kept, now: UnixTime) -> Option<StoredCertificate> {
    let provenance = match (kept.is_on_demand, kept.ca.is_empty()) {
        (true, _) => Provenance::OnDemand,
        (false, true) => Provenance::Uploaded,
        (false, false) => Provenance::Acme,
    };
    let certificate = NewCertificate {
        subject: kept.subject.clone(),
        tenant: kept.tenant.clone(),
        role: kept.role,
        provenance,
        ca: kept.ca.clone(),
        chain: kept.certificate.chain(),
        facts: kept.certificate.facts().clone(),
        sealed_key: kept.certificate.sealed_key()?.into(),
        at: now,
    };
    Some(StoredCertificate { id: kept.id, certificate, revoked_at: None, ari: kept.ari })
}
