//! Accounts with authorities: one for each, made once, kept in the inventory, opened when it is first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::order::Failure;
use crate::clock::UnixTime;
use crate::issuance::Authority;
use crate::issuer::acme::{self, KnownAccount};
use crate::store::inventory;
use crate::upkeep::custody::Custody;
use crate::vault::read_secret;

/// So many subjects refused in a row for going too fast, and nobody else is tried before the authority said.
const REFUSALS_BEFORE_PAUSE: u32 = 3;
/// A pause is no longer than this, whatever is asked for: another subject's limit may be another.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);

/// The authorities that were entered.
pub struct Accounts {
    custody: Arc<Custody>,
    entered: Mutex<HashMap<AccountKey, Slot>>,
    pauses: Mutex<HashMap<String, Pause>>,
}

/// Directory URL and external account.
type AccountKey = (String, Option<String>);
/// Entered by one task while the others wait for it.
type Slot = Arc<AsyncMutex<Option<(Arc<Authority>, Arc<acme::Account>)>>>;

#[derive(Debug, Default)]
struct Pause {
    refusals: u32,
    until: Option<UnixTime>,
}

impl Accounts {
    /// None entered yet.
    pub fn new(custody: Arc<Custody>) -> Self {
        Self { custody, entered: Mutex::default(), pauses: Mutex::default() }
    }

    /// Enters an authority, with a new account if there is none.
    ///
    /// # Errors
    /// If it cannot be reached or refuses, or the account cannot be kept.
    pub async fn enter(&self, authority: &Arc<Authority>, now: UnixTime) -> Result<Arc<acme::Account>, Failure> {
        let slot = self.slot(authority);
        let mut slot = slot.lock().await;
        if let Some((as_configured, entered)) = &*slot
            && as_configured == authority
        {
            return Ok(Arc::clone(entered));
        }
        let inventory = self.custody.inventory()?;
        let context = context(authority);
        let known = inventory
            .accounts()
            .await?
            .into_iter()
            .find(|account| key(authority) == (account.ca.clone(), account.eab_kid.clone()));
        let known = match known {
            Some(account) => Some(KnownAccount {
                key_pkcs8: self.custody.vault().open(&account.sealed_key, &context)?,
                url: account.url,
            }),
            None => None,
        };
        let eab_key = match &authority.eab {
            Some(eab) => Some(read_secret(&eab.hmac_key).map_err(|error| Failure::here(authority, error.to_string()))?),
            None => None,
        };
        let (entered, made) =
            acme::Account::enter(authority, known, eab_key).await.map_err(|error| Failure::of(authority, &error))?;
        if let Some(made) = made {
            let sealed_key = self.custody.vault().seal(&made.key_pkcs8, &context)?;
            let (ca, eab_kid) = key(authority);
            inventory.put_account(&inventory::Account { ca, eab_kid, url: made.url, sealed_key, made_at: now }).await?;
            tracing::info!(ca = authority.name, "made an account");
        }
        let entered = Arc::new(entered);
        *slot = Some((Arc::clone(authority), Arc::clone(&entered)));
        Ok(entered)
    }

    /// Forgets an account that the authority does not know any more.
    pub async fn forget(&self, authority: &Authority) {
        let (ca, eab_kid) = key(authority);
        *self.slot(authority).lock().await = None;
        if let Ok(inventory) = self.custody.inventory()
            && let Err(error) = inventory.remove_account(&ca, eab_kid.as_deref()).await
        {
            tracing::warn!(ca = authority.name, "the account is unknown there, and cannot be forgotten here: {error}");
        }
    }

    /// Until when nothing is to be asked of an authority, because it said so to several subjects in a row.
    pub fn paused_until(&self, authority: &Authority, now: UnixTime) -> Option<UnixTime> {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let until = pauses.get(&authority.directory)?.until?;
        // Also when the clock has stepped back, no pause lasts longer than the longest.
        let longest = i64::try_from(PAUSE_MAX.as_secs()).unwrap_or(i64::MAX);
        (until.secs() > now.secs() && until.secs() - now.secs() <= longest).then_some(until)
    }

    /// Notes that an authority refused for going too fast.
    pub fn note_refusal(&self, authority: &Authority, retry_after: Duration, now: UnixTime) {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = pauses.entry(authority.directory.clone()).or_default();
        pause.refusals += 1;
        if pause.refusals >= REFUSALS_BEFORE_PAUSE {
            let secs = i64::try_from(retry_after.min(PAUSE_MAX).as_secs()).unwrap_or(i64::MAX);
            pause.until = Some(now.plus_secs(secs));
            tracing::warn!(ca = authority.name, "asks for less haste: nothing is ordered there for {secs} s");
        }
    }

    /// Notes that an authority took an order.
    pub fn note_order(&self, authority: &Authority) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).remove(&authority.directory);
    }

    fn slot(&self, authority: &Authority) -> Slot {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entered.entry(key(authority)).or_default())
    }
}

fn key(authority: &Authority) -> AccountKey {
    (authority.directory.clone(), authority.eab.as_ref().map(|eab| eab.kid.clone()))
}

/// What an account's key is sealed for.
fn context(authority: &Authority) -> Vec<u8> {
    format!("acme account\0{}", authority.directory).into_bytes()
}
