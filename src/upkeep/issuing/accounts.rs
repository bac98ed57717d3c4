//! Accounts with authorities: one for each, made once, kept in the inventory, opened when it is first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use super::order::Failure;
use super::pauses::Pauses;
use crate::clock::UnixTime;
use crate::issuance::Authority;
use crate::issuer::acme::{self, KnownAccount};
use crate::name::DomainName;
use crate::store::StoreError;
use crate::store::inventory::{self, Inventory};
use crate::upkeep::custody::Custody;
use crate::vault::read_secret;

/// The authorities that were entered.
pub struct Accounts {
    custody: Arc<Custody>,
    entered: Mutex<HashMap<AccountKey, Slot>>,
    pauses: Mutex<Pauses>,
}

/// Directory URL and external account.
type AccountKey = (String, Option<String>);
/// Entered by one task while the others wait for it.
type Slot = Arc<AsyncMutex<Entrance>>;

#[derive(Default)]
struct Entrance {
    entered: Option<Entered>,
    /// What became of the last try, if that failed, and when it was over: for all who waited meanwhile. An authority
    /// that is silent would else keep them waiting one after the other.
    failed: Option<(Instant, Arc<Authority>, Failure)>,
    /// The URL of an account that the authority said it does not know. It stays in the inventory until there is
    /// another one: what a lagging replica says is not always so.
    gone: Option<String>,
}

/// An account that is open.
struct Entered {
    as_configured: Arc<Authority>,
    account: Arc<acme::Account>,
    /// As it is stored: made once, it is not made again because the disk is full, or the inventory was lost.
    stored: Option<inventory::Account>,
    /// The inventory that has it; `None`: it was not taken yet.
    kept_in: Option<Weak<Inventory>>,
}

impl Entered {
    async fn keep(&mut self, inventory: &Arc<Inventory>) -> Result<(), StoreError> {
        let kept_in = Arc::downgrade(inventory);
        if let Some(stored) = &self.stored
            && !self.kept_in.as_ref().is_some_and(|it| it.ptr_eq(&kept_in))
        {
            inventory.put_account(stored).await?;
            self.kept_in = Some(kept_in);
        }
        Ok(())
    }
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
        let came_at = Instant::now();
        let mut slot = slot.lock().await;
        let inventory = self.custody.inventory()?;
        if let Some(entered) = slot.entered.as_mut().filter(|entered| entered.as_configured == *authority) {
            entered.keep(&inventory).await?;
            return Ok(Arc::clone(&entered.account));
        }
        if let Some((at, as_configured, failure)) = &slot.failed
            && as_configured == authority
            && *at > came_at
        {
            return Err(failure.clone());
        }
        match self.enter_anew(&inventory, authority, slot.gone.as_deref(), now).await {
            Ok(entered) => {
                let account = Arc::clone(&entered.account);
                slot.failed = None;
                slot.entered.insert(entered).keep(&inventory).await?;
                Ok(account)
            }
            Err(failure) => {
                if !failure.ca.is_empty() {
                    slot.failed = Some((Instant::now(), Arc::clone(authority), failure.clone()));
                }
                Err(failure)
            }
        }
    }

    async fn enter_anew(
        &self,
        inventory: &Arc<Inventory>,
        authority: &Arc<Authority>,
        gone: Option<&str>,
        now: UnixTime,
    ) -> Result<Entered, Failure> {
        let context = context(authority);
        let (ca, eab_kid) = key(authority);
        let is_known = |account: &inventory::Account| {
            account.ca == ca && account.eab_kid == eab_kid && Some(account.url.as_str()) != gone
        };
        let stored = inventory.accounts().await?.into_iter().find(is_known);
        let known = match &stored {
            Some(account) => Some(KnownAccount {
                key_pkcs8: self.custody.vault().open(&account.sealed_key, &context)?,
                url: account.url.clone(),
            }),
            None => None,
        };
        let eab_key = match &authority.eab {
            Some(eab) if known.is_none() => {
                Some(read_secret(&eab.hmac_key).map_err(|error| Failure::here(authority, error.to_string()))?)
            }
            _ => None,
        };
        let (account, made) =
            acme::Account::enter(authority, known, eab_key).await.map_err(|error| Failure::of(authority, &error))?;
        let kept_in = made.is_none().then(|| Arc::downgrade(inventory));
        let stored = match made {
            Some(made) => {
                let sealed_key = self.custody.vault().seal(&made.key_pkcs8, &context)?;
                tracing::info!(ca = authority.name, "made an account");
                Some(inventory::Account { ca, eab_kid, url: made.url, sealed_key, made_at: now })
            }
            None => stored,
        };
        Ok(Entered { as_configured: Arc::clone(authority), account: Arc::new(account), stored, kept_in })
    }

    /// Notes that the authority does not know `account` any more: the next who enters makes another one, unless that
    /// has been done.
    pub async fn forget(&self, authority: &Authority, account: &Arc<acme::Account>) {
        let slot = self.slot(authority);
        let mut slot = slot.lock().await;
        if slot.entered.as_ref().is_some_and(|entered| Arc::ptr_eq(&entered.account, account)) {
            *slot = Entrance { gone: Some(account.url().to_owned()), ..Entrance::default() };
        }
    }

    /// Until when nothing is to be ordered from an authority, for a stranger or for a name that is configured: it said so
    /// to several in a row, or answers nobody.
    pub fn paused_until(&self, authority: &Authority, is_stranger: bool, now: UnixTime) -> Option<UnixTime> {
        self.pauses().until(&authority.directory, is_stranger, now)
    }

    /// Until when an authority wants to be left alone by names that are configured: one that does not answer does not.
    pub fn haste_until(&self, authority: &Authority, now: UnixTime) -> Option<UnixTime> {
        self.pauses().haste_until(&authority.directory, now)
    }

    /// Notes that an order begins with an authority.
    pub fn note_begin(&self, authority: &Authority, is_stranger: bool, now: UnixTime) {
        self.pauses().begin(&authority.directory, is_stranger, now);
    }

    /// Notes that an authority refused `subject` for going too fast.
    pub fn note_refusal(
        &self,
        authority: &Authority,
        subject: &DomainName,
        is_stranger: bool,
        retry_after: Duration,
        now: UnixTime,
    ) {
        let paused = self.pauses().refused(&authority.directory, subject, is_stranger, retry_after, now);
        if let Some(secs) = paused {
            tracing::warn!(ca = authority.name, "asks for less haste: nothing is ordered there for {secs} s");
        }
    }

    /// Notes that an authority did not answer when something was ordered for `subject`.
    pub fn note_silence(&self, authority: &Authority, subject: &DomainName, is_stranger: bool, now: UnixTime) {
        if let Some(secs) = self.pauses().silent(&authority.directory, subject, is_stranger, now) {
            tracing::warn!(ca = authority.name, "does not answer: nothing is ordered there for {secs} s");
        }
    }

    /// Notes that an authority answered to an order's end, whatever it said.
    pub fn note_answer(&self, authority: &Authority) {
        self.pauses().answered(&authority.directory);
    }

    /// Notes that an authority took an order.
    pub fn note_order(&self, authority: &Authority) {
        self.pauses().took_order(&authority.directory);
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
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
