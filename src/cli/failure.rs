//! Why a command did not do its work, and what it exits with.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use crate::config::Diagnostics;
use crate::store::StoreError;

/// Why a command did not do its work.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was asked for what cannot be.
    Usage(String),
    /// The configuration does not say where to look.
    Config(Diagnostics),
    /// It was asked rightly.
    Work(String),
    /// Whoever read the output has seen enough (`| head`): nothing to say, and nobody to say it to.
    ReaderGone,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Work(error.to_string())
    }
}

/// Of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Work(format!("the output cannot be written: {error}")),
        }
    }
}

impl Failure {
    /// Says it. The exit code that says whose side it is on.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Usage(why) => {
                eprintln!("error: {why}");
                ExitCode::from(2)
            }
            Self::Config(wrong) => {
                eprintln!("{}", wrong.render(io::stderr().is_terminal()));
                ExitCode::from(2)
            }
            Self::Work(why) => {
                eprintln!("error: {why}");
                ExitCode::from(1)
            }
            Self::ReaderGone => ExitCode::SUCCESS,
        }
    }
}
