//! Why a pair of files is of no use, and which of the two is to blame.

use std::io;
use std::path::{Path, PathBuf};

use super::file::ReadError;
use crate::certificate::{CertificateError, PairFile, PairPaths};

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// Not there, not allowed, not readable.
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// A directory, a FIFO, a device: reading it might wait for ever.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// Read, but of no use.
    #[error("`{}`: {source}", path.display())]
    Certificate {
        /// The file to blame.
        path: PathBuf,
        /// What is wrong in it.
        source: CertificateError,
    },
}

impl PairError {
    /// What is wrong with `pair` once it was read.
    pub fn of_certificate(pair: &PairPaths, source: CertificateError) -> Self {
        blame(pair, source)
    }

    /// The file to blame.
    pub fn path(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. } | Self::NotAFile { path } | Self::Certificate { path, .. } => path,
        }
    }

    /// What would be right, as one instruction.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreadable { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    "correct the path, which is relative to the file that names it, or put the file there"
                }
                io::ErrorKind::PermissionDenied => {
                    "let the user that Lockgate runs as read the file and enter its directories"
                }
                _ => "make the file readable",
            },
            Self::NotAFile { .. } => "name a regular file or a link to one",
            Self::Certificate { source, .. } => source.remedy(),
        }
    }
}

/// What could not be read.
pub(super) fn refusal(pair: &PairPaths, file: PairFile, error: ReadError) -> PairError {
    let path = path(pair, file);
    match error {
        ReadError::Io(source) => PairError::Unreadable { path, source },
        ReadError::NotAFile => PairError::NotAFile { path },
        ReadError::TooLarge(bytes) => {
            PairError::Certificate { path, source: CertificateError::TooLarge { file, bytes } }
        }
    }
}

/// What was read and is wrong.
pub(super) fn blame(pair: &PairPaths, source: CertificateError) -> PairError {
    PairError::Certificate { path: path(pair, source.file()), source }
}

fn path(pair: &PairPaths, file: PairFile) -> PathBuf {
    match file {
        PairFile::Certificate => pair.cert.clone(),
        PairFile::Key => pair.key.clone(),
    }
}
