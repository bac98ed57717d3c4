//! Secrets, read from the places that the configuration names.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::secret::{CREDENTIALS_DIRECTORY, SecretSource};

/// Octets of a secret at most: the largest are keys and tokens.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A secret that cannot be had: where it should be, what is wrong there, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{place} {fault}")]
pub struct SecretError {
    /// Where it should be.
    pub place: SecretSource,
    /// What is wrong there.
    pub fault: SecretFault,
}

/// What is wrong with the place of a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    /// There is no such file, or it may not be read.
    #[error("cannot be read: {0}; put the secret there, readable for Lockgate's user alone")]
    Io(#[from] io::Error),
    /// A directory, a socket, a device.
    #[error("is not a regular file: name one that holds the secret and nothing else")]
    NotAFile,
    /// More than 64 KiB.
    #[error("has more than {MAX_SECRET_BYTES} octets: it must hold the secret and nothing else")]
    TooLarge,
    /// Nothing, or nothing but white space.
    #[error("is empty: put the secret there")]
    Empty,
    /// The variable is not in the environment.
    #[error("is not set: set it for this process, or name another place")]
    Unset,
    /// systemd gave this process no credentials.
    #[error(
        "is not there, for ${CREDENTIALS_DIRECTORY} is not set: give the unit a line LoadCredential=NAME:PATH, or name \
         another place"
    )]
    NoCredentials,
    /// A name that is a path.
    #[error("has a name that no credential can have: it must be a file's name, without a slash")]
    BadName,
}

/// Reads a secret. White space at its end does not belong to it. Blocks for as long as the file system does.
///
/// # Errors
/// If it is not there, cannot be read, is no regular file, is empty, or has more than 64 KiB.
pub fn read_secret(source: &SecretSource) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    read_trimmed(source, |name| std::env::var_os(name))
}

/// The same in another environment.
pub(super) fn read_trimmed(
    source: &SecretSource,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut secret = read_whole(source, env)?;
    let octets = secret.trim_ascii_end().len();
    secret.truncate(octets);
    if secret.is_empty() {
        return Err(SecretError { place: source.clone(), fault: SecretFault::Empty });
    }
    Ok(secret)
}

/// Who else can read the secret in this file, and what to do about it. `None`: nobody, or there is no such file.
pub fn exposure(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).as_ref().map(Metadata::permissions).ok()?.mode();
    let readers = match (mode & 0o040 != 0, mode & 0o004 != 0) {
        (false, false) => return None,
        (true, false) => "its group",
        (_, true) => "everybody on this machine",
    };
    let path = path.display();
    Some(format!("{path} holds a secret, and {readers} can read it (mode {:04o}): chmod 600 {path}", mode & 0o7777))
}

/// What a place holds, white space included: a key of raw octets may end with one that looks so. `env` stands for the
/// process's environment.
pub(super) fn read_whole(
    source: &SecretSource,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let read = || match source {
        SecretSource::File(path) => read_file(path),
        SecretSource::Env(name) => {
            let secret = Zeroizing::new(env(name).ok_or(SecretFault::Unset)?.into_vec());
            if secret.len() > MAX_SECRET_BYTES { Err(SecretFault::TooLarge) } else { Ok(secret) }
        }
        SecretSource::Credential(name) => {
            if name.is_empty() || name == "." || name == ".." || name.contains('/') {
                return Err(SecretFault::BadName);
            }
            let directory = env(CREDENTIALS_DIRECTORY).ok_or(SecretFault::NoCredentials)?;
            read_file(&PathBuf::from(directory).join(name))
        }
    };
    let secret = read().map_err(|fault| SecretError { place: source.clone(), fault })?;
    if secret.is_empty() {
        return Err(SecretError { place: source.clone(), fault: SecretFault::Empty });
    }
    Ok(secret)
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    // Without waiting: opening a FIFO would, until somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    if !file.metadata()?.is_file() {
        return Err(SecretFault::NotAFile);
    }
    // Room for all of it at once: a buffer that grows leaves copies of the secret behind.
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut secret)?;
    if secret.len() > MAX_SECRET_BYTES {
        return Err(SecretFault::TooLarge);
    }
    Ok(secret)
}
