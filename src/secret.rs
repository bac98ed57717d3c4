//! Where a secret is to be had. The configuration names the place, never the secret.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use tokio::process::Command;

/// Where systemd puts credentials (systemd.exec(5)).
pub const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

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

/// The variables that hold secrets, by what configurations said. Never fewer: one that is not named any more may hold its
/// secret still. Never more than operators wrote.
static VARIABLES: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

/// From now on no program that is started gets this variable of the process's environment.
pub fn withhold(variable: &str) {
    VARIABLES.write().unwrap_or_else(PoisonError::into_inner).insert(variable.to_owned());
}

/// Takes from the environment of a program that is about to be started what is not for it: each variable that holds a
/// secret of Lockgate's, and where systemd puts such secrets. A secret of the program's own comes in a variable that the
/// configuration does not name.
pub fn withhold_all(program: &mut Command) {
    program.env_remove(CREDENTIALS_DIRECTORY);
    for variable in &*VARIABLES.read().unwrap_or_else(PoisonError::into_inner) {
        program.env_remove(variable);
    }
}
