//! Accounts with authorities: one for each, made once, kept in the inventory, opened when it is first needed.
//!
//! An account's key is kept before the authority hears of it, as an account without an URL: whoever comes after a
//! process that ended in between asks for the account of that key again, and gets the same one.

#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::pauses::Pauses;
use crate::clock::UnixTime;
use crate::issuance::Authority;
use crate::issuer::acme::{self, ErrorKind, KnownAccount, account_key};
use crate::name::DomainName;
use crate::store::StoreError;
use crate::store::inventory::{self, Inventory};
use crate::upkeep::custody::{Custody, CustodyError};
use crate::vault::{VaultError, read_secret};

/// How long a directory holds: authorities move, and a process may run for years.
const DIRECTORY_HOLDS: Duration = Duration::from_secs(24 * 3600);
/// It is not read again within this time: neither when it could not be, nor when what it names leads nowhere all the
/// same.
const DIRECTORY_PAUSE: Duration = Duration::from_secs(600);

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
    /// The URL of an account that the authority said it does not know. Its key stays in the inventory until that was
    /// asked about, too: what a lagging replica says is not always so.
    gone: Option<String>,
}

/// An account that is open.
struct Entered {
    as_configured: Arc<Authority>,
    account: Arc<acme::Account>,
    /// As it is stored: made once, it is not made again because the disk is full, or the inventory was lost.
    stored: inventory::Account,
    /// The inventory that has it; `None`: it was not taken yet.
    kept_in: Option<Weak<Inventory>>,
    /// When the directory was read.
    read_at: Instant,
    /// When it is to be read again.
    outdated_at: Instant,
}

impl Entrance {
    /// What was entered with just this configuration.
    fn entered_as(&mut self, authority: &Arc<Authority>) -> Option<&mut Entered> {
        self.entered.as_mut().filter(|entered| entered.as_configured == *authority)
    }
}

impl Entered {
    async fn keep(&mut self, inventory: &Arc<Inventory>) -> Result<(), StoreError> {
        let kept_in = Arc::downgrade(inventory);
        if !self.kept_in.as_ref().is_some_and(|it| it.ptr_eq(&kept_in)) {
            inventory.put_account(&self.stored).await?;
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
        self.enter_at(authority, now, Instant::now()).await
    }

    async fn enter_at(
        &self,
        authority: &Arc<Authority>,
        now: UnixTime,
        came_at: Instant,
    ) -> Result<Arc<acme::Account>, Failure> {
        let slot = self.slot(authority);
        let mut slot = slot.lock().await;
        let inventory = self.custody.inventory()?;
        let Some(entered) = slot.entered_as(authority) else {
            return self.enter_anew(&mut slot, &inventory, authority, now, came_at).await;
        };
        entered.keep(&inventory).await?;
        let account = Arc::clone(&entered.account);
        if came_at < entered.outdated_at {
            return Ok(account);
        }
        match self.enter_anew(&mut slot, &inventory, authority, now, came_at).await {
            Ok(account) => Ok(account),
            // Nobody is worse off with the directory of before.
            Err(failure) => {
                tracing::debug!(ca = authority.name, "the directory cannot be read again: {}", failure.problem);
                Ok(account)
            }
        }
    }

    /// Reads the directory again because what it named leads nowhere, and enters by it; `None` if it was just read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn enter_again(
        &self,
        authority: &Arc<Authority>,
        account: &Arc<acme::Account>,
        now: UnixTime,
    ) -> Result<Option<Arc<acme::Account>>, Failure> {
        self.enter_again_at(authority, account, now, Instant::now()).await
    }

    async fn enter_again_at(
        &self,
        authority: &Arc<Authority>,
        account: &Arc<acme::Account>,
        now: UnixTime,
        came_at: Instant,
    ) -> Result<Option<Arc<acme::Account>>, Failure> {
        let slot = self.slot(authority);
        let mut slot = slot.lock().await;
        let inventory = self.custody.inventory()?;
        match slot.entered_as(authority) {
            // Somebody else has done it.
            Some(entered) if !Arc::ptr_eq(&entered.account, account) => Ok(Some(Arc::clone(&entered.account))),
            Some(entered) if came_at < entered.read_at + DIRECTORY_PAUSE => Ok(None),
            _ => self.enter_anew(&mut slot, &inventory, authority, now, came_at).await.map(Some),
        }
    }

    /// Enters, whether or not somebody has; not if that failed while one waited.
    async fn enter_anew(
        &self,
        slot: &mut Entrance,
        inventory: &Arc<Inventory>,
        authority: &Arc<Authority>,
        now: UnixTime,
        came_at: Instant,
    ) -> Result<Arc<acme::Account>, Failure> {
        if let Some((at, as_configured, failure)) = &slot.failed
            && as_configured == authority
            && *at > came_at
        {
            return Err(failure.clone());
        }
        match self.open(slot, inventory, authority, now, came_at).await {
            Ok(entered) => {
                let account = Arc::clone(&entered.account);
                slot.failed = None;
                slot.entered.insert(entered).keep(inventory).await?;
                Ok(account)
            }
            Err(failure) => {
                if let Some(entered) = slot.entered_as(authority) {
                    entered.outdated_at = came_at + DIRECTORY_PAUSE;
                }
                if !failure.ca.is_empty() {
                    slot.failed = Some((Instant::now(), Arc::clone(authority), failure.clone()));
                }
                Err(failure)
            }
        }
    }

    async fn open(
        &self,
        slot: &Entrance,
        inventory: &Arc<Inventory>,
        authority: &Arc<Authority>,
        now: UnixTime,
        came_at: Instant,
    ) -> Result<Entered, Failure> {
        let entered = |account: acme::Account, stored, kept_in| Entered {
            as_configured: Arc::clone(authority),
            account: Arc::new(account),
            stored,
            kept_in,
            read_at: came_at,
            outdated_at: came_at + DIRECTORY_HOLDS,
        };
        let failed = |error| Failure::of(authority, &error);
        let gone = slot.gone.as_deref();
        let (stored, kept_in) = match &slot.entered {
            Some(entered) => (Some(entered.stored.clone()), entered.kept_in.clone()),
            None => (stored_in(inventory, authority).await?, Some(Arc::downgrade(inventory))),
        };
        let opened = match &stored {
            Some(stored) => self.key_of(stored, authority)?,
            None => None,
        };
        let known = stored.zip(opened);
        if let Some((stored, key_pkcs8)) = &known
            && !stored.url.is_empty()
            && gone != Some(stored.url.as_str())
        {
            let known = KnownAccount { url: stored.url.clone(), key_pkcs8: key_pkcs8.clone() };
            match acme::Account::enter(authority, &known).await {
                Ok(account) => {
                    let told = tell_contact(authority, &account, stored).await;
                    let kept_in = kept_in.filter(|_| told.is_none());
                    return Ok(entered(account, told.unwrap_or_else(|| stored.clone()), kept_in));
                }
                // The key is none.
                Err(error) if error.kind() == ErrorKind::AccountGone => {
                    tracing::error!(ca = authority.name, "{error}: another account is made");
                }
                Err(error) => return Err(failed(error)),
            }
        }
        let eab_key = match &authority.eab {
            Some(eab) => Some(read_secret(&eab.hmac_key).map_err(|error| Failure::here(authority, error.to_string()))?),
            None => None,
        };
        let made = |account: acme::Account, stored: inventory::Account| {
            tracing::info!(ca = authority.name, "made an account");
            let (url, contact) = (account.url().to_owned(), authority.email.clone().unwrap_or_default());
            let stored = inventory::Account { url, made_at: now, contact, ..stored };
            entered(account, stored, None)
        };
        // Begun before, or unknown to whoever was asked for an order: if it is there after all, it is not made twice.
        if let Some((stored, key_pkcs8)) = known {
            match acme::Account::register(authority, &key_pkcs8, eab_key.clone()).await {
                Ok(account) if gone != Some(account.url()) => {
                    // One that was there already keeps the address that it was made with.
                    let told = account.tell_contact(authority.email.as_deref()).await;
                    let mut entered = made(account, stored);
                    if let Err(error) = told {
                        tracing::warn!(
                            ca = authority.name,
                            "the authority was not told of the e-mail address: {error}"
                        );
                        entered.stored.contact.clear();
                    }
                    return Ok(entered);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AccountGone || gone.is_some() && error.is_refusal() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let key_pkcs8 = account_key().map_err(failed)?;
        let sealed_key = self.custody.vault().seal(&key_pkcs8, &context(authority))?;
        let (ca, eab_kid) = key(authority);
        let (url, contact) = (String::new(), String::new());
        let stored = inventory::Account { ca, eab_kid, url, sealed_key, made_at: now, contact };
        inventory.put_account(&stored).await?;
        let account = acme::Account::register(authority, &key_pkcs8, eab_key).await.map_err(failed)?;
        Ok(made(account, stored))
    }

    /// The key of an account; `None` if it never opens: then the account is as good as lost.
    fn key_of(
        &self,
        account: &inventory::Account,
        authority: &Authority,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, CustodyError> {
        match self.custody.vault().open(&account.sealed_key, &context(authority)) {
            Ok(key) => Ok(Some(key)),
            Err(error @ VaultError::Locked) => Err(error.into()),
            Err(error) => {
                tracing::error!(ca = authority.name, "the account's key is lost, and another account is made: {error}");
                Ok(None)
            }
        }
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

async fn stored_in(inventory: &Inventory, authority: &Authority) -> Result<Option<inventory::Account>, StoreError> {
    let (ca, eab_kid) = key(authority);
    let is_it = |account: &inventory::Account| account.ca == ca && account.eab_kid == eab_kid;
    Ok(inventory.accounts().await?.into_iter().find(is_it))
}

/// Tells the authority of the address that is configured by now, if it was told of another one. How it is stored then;
/// `None`: as it was. What it does not take keeps nobody from ordering, and is told again when it is next entered.
async fn tell_contact(
    authority: &Authority,
    account: &acme::Account,
    stored: &inventory::Account,
) -> Option<inventory::Account> {
    let contact = authority.email.clone().unwrap_or_default();
    if stored.contact == contact {
        return None;
    }
    match account.tell_contact(authority.email.as_deref()).await {
        Ok(()) => Some(inventory::Account { contact, ..stored.clone() }),
        Err(error) => {
            tracing::warn!(ca = authority.name, "the authority was not told of the e-mail address: {error}");
            None
        }
    }
}

/// What an account's key is sealed for.
fn context(authority: &Authority) -> Vec<u8> {
    format!("acme account\0{}", authority.directory).into_bytes()
}
