//! A key-encryption key that lies on this machine: 32 random octets in a file, a variable or a systemd credential.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::KEY_BYTES;
use super::envelope::Cipher;
use super::places::read_whole;
use crate::secret::SecretSource;

/// Where such a key may lie: how its identity begins.
pub(super) const KINDS: [&str; 3] = ["file", "env", "credential"];

/// How a wrapped data key begins: what follows it may change one day.
const VERSION: u8 = 1;

/// What tells this use of a key from any other that it may have.
const WRAPPING: &[u8] = b"lockgate vault: wrapping of data keys";
const IDENTITY: &[u8] = b"lockgate vault: identity of a key-encryption key\0";
/// Octets of the digest that are shown: enough that no two keys of one operator's are alike.
const IDENTITY_BYTES: usize = 8;

/// Base64, padded or not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What wraps: a key derived from the key-encryption key (HKDF-SHA256, RFC 5869), and which one that was.
pub(super) struct LocalKey {
    cipher: Cipher,
    identity: String,
}

impl LocalKey {
    /// The key in this place.
    ///
    /// # Errors
    /// If there is none; the text says what would be right.
    pub(super) fn read(source: &SecretSource, env: &impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let kind = match source {
            SecretSource::File(_) => "file",
            SecretSource::Env(_) => "env",
            SecretSource::Credential(_) => "credential",
        };
        let text = read_whole(source, env).map_err(|error| format!("it {}", error.fault))?;
        Self::new(kind, &parse(&text)?).map_err(|_| "deriving a key from it failed".to_owned())
    }

    /// The key in this file, which is made, with 32 random octets, if it is not there. Also returns whether it was made.
    ///
    /// # Errors
    /// If it can be neither read nor made, or holds no key.
    pub(super) fn made(path: &Path) -> Result<(Self, bool), String> {
        let was_made = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => make(path).map_err(|error| {
                format!("it cannot be made: {error}; make its directory writable, or name a key in [vault]")
            })?,
            _ => false,
        };
        let key = Self::read(&SecretSource::File(path.to_owned()), &|_| None)?;
        Ok((key, was_made))
    }

    fn new(kind: &str, octets: &[u8]) -> Result<Self, Unspecified> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Salt::new(HKDF_SHA256, b"").extract(octets).expand(&[WRAPPING], HKDF_SHA256)?.fill(key.as_mut_slice())?;
        let mut digest = digest::Context::new(&SHA256);
        digest.update(IDENTITY);
        digest.update(octets);
        let digest = digest.finish();
        let shown = digest.as_ref().get(..IDENTITY_BYTES).unwrap_or_default();
        Ok(Self { cipher: Cipher::new(key.as_slice())?, identity: format!("{kind}:{}", hex::encode(shown)) })
    }

    /// Kind and digest.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// A version (one octet), a nonce and the data key's ciphertext.
    ///
    /// # Errors
    /// If there is no randomness.
    pub(super) fn wrap(&self, data_key: &[u8], id: u32) -> Result<Vec<u8>, Unspecified> {
        self.cipher.seal(&[VERSION], &id.to_be_bytes(), data_key)
    }

    /// # Errors
    /// If it is not what [`LocalKey::wrap`] returned for this id.
    pub(super) fn unwrap(&self, wrapped: &[u8], id: u32) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        match wrapped.split_first() {
            Some((&VERSION, body)) => self.cipher.open(&[VERSION], &id.to_be_bytes(), body),
            _ => Err(Unspecified),
        }
    }
}

/// The 32 octets that `text` is or spells. The form is told by the length, so a password is none.
fn parse(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    const RIGHT: &str = "make one with `head -c 32 /dev/urandom | base64`";
    let trimmed = text.trim_ascii();
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    let is_key = match trimmed.len() {
        64 => {
            key.resize(KEY_BYTES, 0);
            hex::decode_to_slice(trimmed, &mut key).is_ok()
        }
        43 | 44 => {
            STANDARD.decode_vec(trimmed, &mut key).is_ok() || {
                key.clear();
                URL_SAFE.decode_vec(trimmed, &mut key).is_ok()
            }
        }
        _ if text.len() == KEY_BYTES => {
            // Random octets are text once in 10^13 keys; what somebody typed always is.
            if text.iter().all(|octet| octet.is_ascii_graphic() || octet.is_ascii_whitespace()) {
                return Err(format!("its 32 octets are a text, such as a password, and no random key: {RIGHT}"));
            }
            key.extend_from_slice(text);
            true
        }
        _ => false,
    };
    if !is_key || key.len() != KEY_BYTES {
        let octets = text.len();
        return Err(format!(
            "its {octets} octets are no key: it must be 32 random octets, as they are, in hexadecimal or in base64; \
             {RIGHT}"
        ));
    }
    if key.iter().all(|octet| Some(octet) == key.first()) {
        return Err(format!("its 32 octets are all the same, and no random key: {RIGHT}"));
    }
    Ok(key)
}

/// Makes the file, whole or not at all, and never in place of another. Returns whether it did; else somebody else had.
pub(super) fn make(path: &Path) -> io::Result<bool> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(key.as_mut_slice()).map_err(|_| io::Error::other("the system has no randomness"))?;
    let mut line = Zeroizing::new([b'\n'; 2 * KEY_BYTES + 1]);
    let digits = line.split_last_mut().map(|(_, digits)| digits).unwrap_or_default();
    hex::encode_to_slice(key.as_slice(), digits).map_err(io::Error::other)?;

    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under another name until every octet is on the disk: a file that holds half a key, left by a crash, would be in the
    // way for ever. `tempfile` opens with O_EXCL.
    let mut file = tempfile::Builder::new()
        .prefix(".vault-key-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(line.as_slice())?;
    file.as_file().sync_all()?;
    let was_made = match file.persist_noclobber(path) {
        Ok(_) => true,
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error.error),
    };
    // Whoever made it: nothing may be sealed under a key whose name a crash can still take away.
    File::open(directory)?.sync_all()?;
    Ok(was_made)
}
