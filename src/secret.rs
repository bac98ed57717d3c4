//! Where a secret is to be had. The configuration names the place, never the secret.

use std::fmt;
use std::path::PathBuf;

/// A place that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// A file; white space at its end does not belong to it.
    File(PathBuf),
    /// A variable of the process's environment.
    Env(String),
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), `LoadCredential=`).
    Credential(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
        }
    }
}
