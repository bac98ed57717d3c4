//! Private keys, sealed and opened.
//!
//! An envelope: each key is sealed with AES-256-GCM under a data key; the data key is wrapped by a key-encryption key
//! that lies elsewhere ([`KeyWrap`]). Unwrapping happens once, when the vault is opened; sealing and opening are then
//! local, so that no handshake waits for a key management service. Changing the key-encryption key wraps the data keys
//! anew and touches no sealed key.
//!
//! A sealed key is, one after the other: a version (one octet, 1), the data key's id (four octets, big-endian), a random
//! nonce (12 octets), and the ciphertext with its tag. Version, id and the caller's context are authenticated with it:
//! what was sealed for one purpose opens for no other.
//!
//! Nonces are random, so one data key is good for 2^32 seals (NIST SP 800-38D, section 8.3): a million certificates,
//! each renewed every day, for eleven years. [`Vault::renew`] begins anew.

mod envelope;
mod exec;
mod local;
mod once;
mod places;
pub mod rotation;
#[cfg(test)]
mod tests;
mod transit;
mod wrap;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use self::envelope::Cipher;
pub use self::places::{SecretError, SecretFault, exposure, read_secret};
pub use self::wrap::KeyWrap;
use crate::certificate::OpensKeys;
use crate::clock::UnixTime;

/// Octets of a data key, and of a key-encryption key: AES-256's.
const KEY_BYTES: usize = 32;

/// Data keys at most. Each new one is made by a person's hand; unwrapping this many by a service takes a while already.
const MAX_DATA_KEYS: usize = 1_000;

/// How a sealed key begins: what follows it may change one day.
const VERSION: u8 = 1;
/// Version and data key's id.
const HEAD_BYTES: usize = 5;

/// A data key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its number: sealed keys name it.
    pub id: u32,
    /// What wrapped it: enough to know the right one from a wrong one. See [`KeyWrap::identity`].
    pub wrapped_by: String,
    /// The data key, wrapped.
    pub wrapped: Vec<u8>,
    /// When it was wrapped so: when the data key was made, or the key-encryption key last changed.
    pub made_at: UnixTime,
}

/// Why a vault does not open, or a key in it.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key-encryption key cannot be had: its file is gone, its service does not answer.
    #[error("the key-encryption key cannot be had from {place}: {reason}")]
    NoKey {
        /// Where it should be.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// There is one, but not the one that wrapped the data keys.
    #[error("the key-encryption key from {place} is not the one that sealed these keys: that was {wrapped_by}")]
    WrongKey {
        /// Where it came from.
        place: String,
        /// Which would be right.
        wrapped_by: String,
    },
    /// The key-encryption key is the right one, but what it wrapped was changed.
    #[error(
        "data key {id} does not open, although {wrapped_by} wrapped it: {reason}; restore the certificates' database \
         from a backup"
    )]
    TamperedDataKey {
        /// Which data key.
        id: u32,
        /// What wrapped it.
        wrapped_by: String,
        /// What was seen, by a service in its own words.
        reason: String,
    },
    /// What was sealed does not open: it was changed, or belongs to something else.
    #[error("a sealed key does not open: it was changed, or is another's")]
    Tampered,
    /// What was sealed names a data key that is not here: the database lost it, or was put together from two.
    #[error("a sealed key needs data key {id}, which the vault does not have")]
    NoDataKey {
        /// Which one.
        id: u32,
    },
    /// What was sealed has a form that this version does not know.
    #[error("a sealed key has form {version}, which this version of Lockgate does not know: a newer one wrote it")]
    UnknownForm {
        /// The first octet.
        version: u8,
    },
    /// No data key is open.
    #[error("the vault is locked")]
    Locked,
    /// There are as many data keys as there may be.
    #[error("the vault has {MAX_DATA_KEYS} data keys and takes no more")]
    Full,
    /// The system has no randomness, or the like.
    #[error("the system has no randomness")]
    NoRandomness,
}

/// What seals and opens. Cheap to clone: all clones are one vault.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    /// `None`: never unlocked. Read by every thread, without a lock.
    ring: ArcSwapOption<Ring>,
    /// Held by whoever changes the ring and waits for a service meanwhile: two never make the same number.
    changing: Mutex<()>,
}

/// The data keys at one time.
#[derive(Clone)]
struct Ring {
    keys: HashMap<u32, Arc<DataKey>>,
    /// The one that seals. `None`: the first one is not trusted yet.
    sealing: Option<u32>,
    /// One that was made and may not be stored yet: nothing is sealed under it.
    untrusted: Option<(u32, Arc<DataKey>)>,
}

/// A data key, open.
struct DataKey {
    /// What is wrapped when the key-encryption key changes.
    octets: Zeroizing<Vec<u8>>,
    /// The same, ready for use; AWS-LC wipes it when it is freed (`OPENSSL_free`).
    cipher: Cipher,
}

impl Vault {
    /// A vault that seals and opens nothing until [`Vault::unlock`].
    pub fn locked() -> Self {
        Self(Arc::new(Inner { ring: ArcSwapOption::empty(), changing: Mutex::new(()) }))
    }

    /// Unwraps all data keys; the one with the highest id seals from now on. Data keys from an earlier call are dropped,
    /// in one step with the new ones' coming.
    ///
    /// Where none is stored, makes the first one and returns it: nothing is sealed, and [`Vault::is_open`] is false,
    /// until the caller has stored it and says so by [`Vault::trust`].
    ///
    /// # Errors
    /// If one data key cannot be unwrapped, or the first one not be wrapped: the vault is then as it was before.
    pub async fn unlock(
        &self,
        wrap: &KeyWrap,
        stored: &[WrappedKey],
        now: UnixTime,
    ) -> Result<Option<WrappedKey>, VaultError> {
        let _changing = self.0.changing.lock().await;
        let mut ring = Ring { keys: HashMap::new(), sealing: None, untrusted: None };
        for wrapped in stored {
            let data_key = DataKey::new(wrap.unwrap(wrapped).await?)?;
            ring.keys.insert(wrapped.id, Arc::new(data_key));
            ring.sealing = ring.sealing.max(Some(wrapped.id));
        }
        let first = if stored.is_empty() { Some(ring.grow(wrap, now).await?) } else { None };
        self.0.ring.store(Some(Arc::new(ring)));
        Ok(first)
    }

    /// Seals under the data key `id` from now on: the caller has stored it, wrapped, as [`Vault::unlock`] or
    /// [`Vault::renew`] returned it. One that seals already stays.
    ///
    /// # Errors
    /// If the vault does not have it, because it was unlocked anew meanwhile.
    pub fn trust(&self, id: u32) -> Result<(), VaultError> {
        self.0.ring.rcu(|ring| ring.as_ref().map(|ring| Arc::new(ring.trusting(id))));
        match self.0.ring.load().as_deref() {
            None => Err(VaultError::Locked),
            Some(ring) if ring.keys.contains_key(&id) => Ok(()),
            Some(_) => Err(VaultError::NoDataKey { id }),
        }
    }

    /// Whether it seals.
    pub fn is_open(&self) -> bool {
        self.0.ring.load().as_ref().is_some_and(|ring| ring.sealing.is_some())
    }

    /// Seals `secret` for what `context` says: its purpose and whose it is, such as `certificate:example.com`. It opens
    /// with the same context only.
    ///
    /// # Errors
    /// If the vault is locked, or the system has no randomness.
    pub fn seal(&self, secret: &[u8], context: &[u8]) -> Result<Box<[u8]>, VaultError> {
        let ring = self.0.ring.load();
        let (id, data_key) = ring.as_ref().and_then(|ring| ring.sealing()).ok_or(VaultError::Locked)?;
        let mut head = [VERSION, 0, 0, 0, 0];
        head.iter_mut().skip(1).zip(id.to_be_bytes()).for_each(|(to, from)| *to = from);
        let sealed = data_key.cipher.seal(&head, context, secret).map_err(|_| VaultError::NoRandomness)?;
        Ok(sealed.into_boxed_slice())
    }

    /// Opens what [`Vault::seal`] sealed for the same context.
    ///
    /// # Errors
    /// If the vault is locked or does not have its data key, or if one bit of it, or of the context, is another.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let ring = self.0.ring.load();
        let ring = ring.as_ref().filter(|ring| ring.sealing.is_some()).ok_or(VaultError::Locked)?;
        let (head, body) = sealed.split_first_chunk::<HEAD_BYTES>().ok_or(VaultError::Tampered)?;
        let [version, id @ ..] = *head;
        if version != VERSION {
            return Err(VaultError::UnknownForm { version });
        }
        let id = u32::from_be_bytes(id);
        let data_key = ring.keys.get(&id).ok_or(VaultError::NoDataKey { id })?;
        data_key.cipher.open(head, context, body).map_err(|_| VaultError::Tampered)
    }

    /// All data keys, in the order of their ids, wrapped by another key-encryption key: what is to be stored, all at
    /// once, in place of what was. The data keys stay as they are, and so does every sealed key.
    ///
    /// # Errors
    /// If the vault is locked, or a data key cannot be wrapped.
    pub async fn rewrap(&self, wrap: &KeyWrap, now: UnixTime) -> Result<Vec<WrappedKey>, VaultError> {
        let _changing = self.0.changing.lock().await;
        let ring = self.0.ring.load_full().ok_or(VaultError::Locked)?;
        // One that is not trusted may be stored all the same, and must not stay there under the old one.
        let mut data_keys = ring.all().collect::<Vec<_>>();
        data_keys.sort_unstable_by_key(|(id, _)| *id);
        let mut wrapped = Vec::with_capacity(data_keys.len());
        for (id, data_key) in data_keys {
            wrapped.push(data_key.wrapped(id, wrap, now).await?);
        }
        Ok(wrapped)
    }

    /// Makes a fresh data key, wrapped: what is sealed is sealed under it as soon as the caller has stored it and says
    /// so by [`Vault::trust`]. What was sealed before opens as before.
    ///
    /// # Errors
    /// If the vault is locked or full, or the data key cannot be wrapped.
    pub async fn renew(&self, wrap: &KeyWrap, now: UnixTime) -> Result<WrappedKey, VaultError> {
        let _changing = self.0.changing.lock().await;
        let ring = self.0.ring.load_full().filter(|ring| ring.sealing.is_some()).ok_or(VaultError::Locked)?;
        let mut ring = Ring::clone(&ring);
        let wrapped = ring.grow(wrap, now).await?;
        // Somebody may have trusted the one before while this one was wrapped.
        self.0.ring.rcu(|current| {
            current.as_ref().map(|current| {
                let untrusted = ring.untrusted.clone();
                Arc::new(Ring { untrusted, ..Ring::clone(current) })
            })
        });
        Ok(wrapped)
    }
}

/// Shows no key.
impl OpensKeys for Vault {
    fn open_key(&self, sealed: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.open(sealed, context).ok()
    }

    fn is_open(&self) -> bool {
        Vault::is_open(self)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data_keys = self.0.ring.load().as_ref().map_or(0, |ring| ring.keys.len());
        f.debug_struct("Vault").field("is_open", &self.is_open()).field("data_keys", &data_keys).finish()
    }
}

impl Ring {
    fn sealing(&self) -> Option<(u32, &DataKey)> {
        let id = self.sealing?;
        self.keys.get(&id).map(|data_key| (id, data_key.as_ref()))
    }

    fn all(&self) -> impl Iterator<Item = (u32, &DataKey)> {
        let trusted = self.keys.iter().map(|(id, data_key)| (*id, data_key.as_ref()));
        trusted.chain(self.untrusted.iter().map(|(id, data_key)| (*id, data_key.as_ref())))
    }

    /// Adds a data key, not trusted yet. Its number is higher than any, that of one never trusted included: the caller
    /// may have stored that one and not know it.
    async fn grow(&mut self, wrap: &KeyWrap, now: UnixTime) -> Result<WrappedKey, VaultError> {
        if self.keys.len() >= MAX_DATA_KEYS {
            return Err(VaultError::Full);
        }
        let highest = self.all().map(|(id, _)| id).max().unwrap_or(0);
        let id = highest.checked_add(1).ok_or(VaultError::Full)?;
        let mut octets = Zeroizing::new(vec![0; KEY_BYTES]);
        rand::fill(&mut octets).map_err(|_| VaultError::NoRandomness)?;
        let data_key = DataKey::new(octets)?;
        let wrapped = data_key.wrapped(id, wrap, now).await?;
        self.untrusted = Some((id, Arc::new(data_key)));
        Ok(wrapped)
    }

    /// The same, with `id` trusted if it is the one that waits for it.
    fn trusting(&self, id: u32) -> Self {
        let mut ring = self.clone();
        if let Some((_, data_key)) = ring.untrusted.take_if(|(untrusted, _)| *untrusted == id) {
            ring.keys.insert(id, data_key);
            ring.sealing = Some(id);
        }
        ring
    }
}

impl DataKey {
    fn new(octets: Zeroizing<Vec<u8>>) -> Result<Self, VaultError> {
        let cipher = Cipher::new(&octets).map_err(|_| VaultError::NoRandomness)?;
        Ok(Self { octets, cipher })
    }

    async fn wrapped(&self, id: u32, wrap: &KeyWrap, now: UnixTime) -> Result<WrappedKey, VaultError> {
        let wrapped = wrap.wrap(&self.octets, id).await?;
        Ok(WrappedKey { id, wrapped_by: wrap.identity().to_owned(), wrapped, made_at: now })
    }
}
