//! The key-encryption key: here, or with a service that never gives it away.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

use super::exec::Program;
use super::local::{self, LocalKey};
use super::once::look_at;
use super::transit::TransitKey;
use super::{KEY_BYTES, VaultError, WrappedKey};
use crate::issuance::KeySource;

/// For reading a file. A file system on the network may hang for ever.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// For one call of a service or a program: nobody's handshake waits for it.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What a service or a program may answer at most; a wrapped data key has some hundred octets.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Of what others say, this much goes into a message.
const MAX_WORDS_CHARS: usize = 300;

/// Wraps data keys, and unwraps them.
///
/// Made anew whenever the vault is opened or its key changes: keys, tokens and programs may have changed since.
pub struct KeyWrap {
    place: String,
    identity: String,
    was_made: bool,
    wrapper: Wrapper,
}

enum Wrapper {
    Local(LocalKey),
    Transit(Box<TransitKey>),
    Exec(Program),
}

/// Why a service or a program did not do it.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be had, or does not work.
    Away(String),
    /// It works, and will not have what it was given.
    Refused(String),
}

impl Fault {
    pub(super) fn reason(self) -> String {
        let (Self::Away(reason) | Self::Refused(reason)) = self;
        reason
    }
}

impl KeyWrap {
    /// Reads the key-encryption key and looks whether it is one; of a service or a program, reads what is needed to call
    /// it. A key that is to be made is made if its file is not there.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] if it cannot be had or is none, with what would be right.
    pub async fn open(source: &KeySource) -> Result<Self, VaultError> {
        Self::open_in(source, |name| std::env::var_os(name)).await
    }

    /// The same in another environment.
    pub(super) async fn open_in(
        source: &KeySource,
        env: impl Fn(&str) -> Option<OsString> + Send + 'static,
    ) -> Result<Self, VaultError> {
        let place = place_of(source);
        let source = source.clone();
        let opened = look_at(&place, READ_TIMEOUT, move || open(&source, &env)).await;
        let slow = || Err(format!("it was not read within {READ_TIMEOUT:?}: see whether its file system answers"));
        match opened.unwrap_or_else(slow) {
            Ok((identity, was_made, wrapper)) => Ok(Self { place, identity, was_made, wrapper }),
            Err(reason) => Err(VaultError::NoKey { place, reason }),
        }
    }

    /// Where it is, in words: `the file /etc/lockgate/vault.key`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Which one it is: `file:5f2c09d1a4b7e836`, `env:...`, `credential:...` with the first octets of a digest of the key;
    /// `transit:MOUNT/KEY`; `exec:PROGRAM`. No secret.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether its file was made just now: the operator must be told to keep a copy elsewhere.
    pub fn was_made(&self) -> bool {
        self.was_made
    }

    /// Wraps the data key `id`. Of a service or a program it is made sure that it unwraps what it wrapped, and does wrap.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] if the service or the program does not do it, or does it wrong.
    pub async fn wrap(&self, data_key: &[u8], id: u32) -> Result<Vec<u8>, VaultError> {
        if let Wrapper::Local(key) = &self.wrapper {
            return key.wrap(data_key, id).map_err(|_| VaultError::NoRandomness);
        }
        let payload = payload(data_key, id);
        let wrapped = self.call_wrap(&payload).await.map_err(|fault| self.no_key(fault.reason()))?;
        // One `cat` or `base64` for a program, and every data key would lie in the database in plain.
        if shows(&wrapped, data_key) {
            return Err(self.no_key("it gave the data key back as it was: it must wrap it".to_owned()));
        }
        let back = self.call_unwrap(&wrapped).await.map_err(|fault| self.no_key(fault.reason()))?;
        if *back != *payload {
            return Err(self.no_key("it does not unwrap what it wrapped: both calls must use one key".to_owned()));
        }
        Ok(wrapped)
    }

    /// The data key in `wrapped`: 32 octets.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`] if another key wrapped it, [`VaultError::TamperedDataKey`] if this one did and it was
    /// changed, [`VaultError::NoKey`] if the service or the program does not do it.
    pub async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let wrong_key =
            || VaultError::WrongKey { place: self.place.clone(), wrapped_by: printable(&wrapped.wrapped_by) };
        let tampered = |reason: &str| VaultError::TamperedDataKey {
            id: wrapped.id,
            wrapped_by: printable(&wrapped.wrapped_by),
            reason: reason.to_owned(),
        };
        if !self.may_have_wrapped(wrapped) {
            return Err(wrong_key());
        }
        let data_key = if let Wrapper::Local(key) = &self.wrapper {
            key.unwrap(&wrapped.wrapped, wrapped.id).map_err(|_| tampered("it was changed"))?
        } else {
            let payload = self.call_unwrap(&wrapped.wrapped).await.map_err(|fault| match fault {
                Fault::Refused(_) if wrapped.wrapped_by != self.identity => wrong_key(),
                fault => self.no_key(fault.reason()),
            })?;
            match payload.split_first_chunk() {
                Some((id, data_key)) if u32::from_be_bytes(*id) == wrapped.id => Zeroizing::new(data_key.to_vec()),
                _ => return Err(tampered("what came back is another's")),
            }
        };
        if data_key.len() == KEY_BYTES { Ok(data_key) } else { Err(tampered("what came back is no data key")) }
    }

    /// A key that lies here is known by its digest, wherever it lies now. A service or a program may have got another
    /// name, so it is asked; but one is never sent what the other wrapped.
    pub(super) fn may_have_wrapped(&self, wrapped: &WrappedKey) -> bool {
        let (Some((kind, which)), Some((own_kind, own))) =
            (wrapped.wrapped_by.split_once(':'), self.identity.split_once(':'))
        else {
            return false;
        };
        match self.wrapper {
            Wrapper::Local(_) => local::KINDS.contains(&kind) && which == own,
            Wrapper::Transit(_) | Wrapper::Exec(_) => kind == own_kind,
        }
    }

    /// Has a service make a new version of its key, which wraps from then on. `None`: it is no service that is known to
    /// have versions.
    ///
    /// # Errors
    /// What the service says.
    pub async fn renew_at_service(&self) -> Option<Result<(), String>> {
        match &self.wrapper {
            Wrapper::Transit(key) => Some(key.rotate().await.map_err(Fault::reason)),
            Wrapper::Local(_) | Wrapper::Exec(_) => None,
        }
    }

    async fn call_wrap(&self, payload: &[u8]) -> Result<Vec<u8>, Fault> {
        match &self.wrapper {
            Wrapper::Local(_) => Err(Fault::Away("it is no service".to_owned())),
            Wrapper::Transit(key) => key.encrypt(payload).await,
            Wrapper::Exec(program) => program.run("wrap", payload).await.map(|wrapped| wrapped.to_vec()),
        }
    }

    async fn call_unwrap(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        match &self.wrapper {
            Wrapper::Local(_) => Err(Fault::Away("it is no service".to_owned())),
            Wrapper::Transit(key) => key.decrypt(wrapped).await,
            Wrapper::Exec(program) => program.run("unwrap", wrapped).await,
        }
    }

    fn no_key(&self, reason: String) -> VaultError {
        VaultError::NoKey { place: self.place.clone(), reason }
    }
}

/// Shows no key and no token.
impl fmt::Debug for KeyWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyWrap")
            .field("place", &self.place)
            .field("identity", &self.identity)
            .field("was_made", &self.was_made)
            .finish()
    }
}

pub(super) fn place_of(source: &KeySource) -> String {
    match source {
        KeySource::Made(path) => format!("the file {}", path.display()),
        KeySource::Secret(secret) => secret.to_string(),
        KeySource::Transit(transit) => {
            format!("the transit key {}/{} at {}", transit.mount, transit.key, transit.address)
        }
        KeySource::Exec(command) => format!("the program {}", command.first().map_or("", String::as_str)),
    }
}

/// Blocks: reads files.
fn open(source: &KeySource, env: &impl Fn(&str) -> Option<OsString>) -> Result<(String, bool, Wrapper), String> {
    match source {
        KeySource::Made(path) => {
            let (key, was_made) = LocalKey::made(path)?;
            Ok((key.identity().to_owned(), was_made, Wrapper::Local(key)))
        }
        KeySource::Secret(secret) => {
            let key = LocalKey::read(secret, env)?;
            Ok((key.identity().to_owned(), false, Wrapper::Local(key)))
        }
        KeySource::Transit(transit) => {
            let key = TransitKey::open(transit, env)?;
            Ok((key.identity(), false, Wrapper::Transit(Box::new(key))))
        }
        KeySource::Exec(command) => {
            let program = Program::new(command)?;
            Ok((program.identity(), false, Wrapper::Exec(program)))
        }
    }
}

/// What a service or a program wraps: the data key behind its id, so that no two can change places.
fn payload(data_key: &[u8], id: u32) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([&id.to_be_bytes(), data_key].concat())
}

/// Whether `wrapped` has the data key in it as it is, or in hexadecimal or base64, whatever stands before and behind it.
fn shows(wrapped: &[u8], data_key: &[u8]) -> bool {
    // Programs break lines.
    let text = Zeroizing::new(wrapped.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect::<Vec<_>>());
    let has = |octets: &[u8], part: &[u8]| !part.is_empty() && octets.windows(part.len()).any(|window| window == part);
    let mut digits = Zeroizing::new(vec![0; 2 * data_key.len()]);
    let is_hex = hex::encode_to_slice(data_key, &mut digits).is_ok()
        && text.windows(digits.len().max(1)).any(|window| window.eq_ignore_ascii_case(&digits));
    let is_base64 = || {
        (0..3).any(|alignment| {
            let mut octets = Zeroizing::new(Vec::with_capacity(alignment + data_key.len()));
            octets.resize(alignment, 0);
            octets.extend_from_slice(data_key);
            [STANDARD, URL_SAFE].into_iter().any(|alphabet| {
                let digits = Zeroizing::new(alphabet.encode(&*octets));
                // Those that neither the octets before nor those behind have a part in.
                let own = (alignment * 8).div_ceil(6)..octets.len() * 8 / 6;
                digits.as_bytes().get(own).is_some_and(|own| has(&text, own))
            })
        })
    };
    has(wrapped, data_key) || is_hex || is_base64()
}

/// What others say goes to logs and terminals: without control characters, and not endless.
pub(super) fn printable(text: &str) -> String {
    let mut printable = text.chars().filter(|c| !c.is_control()).take(MAX_WORDS_CHARS + 1).collect::<String>();
    if let Some((end, _)) = printable.char_indices().nth(MAX_WORDS_CHARS) {
        printable.truncate(end);
        printable.push('…');
    }
    printable
}
