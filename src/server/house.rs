//! The data directory, which one process has, and what the machine allows us.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::net::UnixListener;

use super::StartError;

/// More descriptors than this help nobody, and some systems say "unlimited".
const MAX_FILES: u64 = 1 << 20;

/// The data directory, locked while this lives.
#[derive(Debug)]
pub struct House {
    data_dir: PathBuf,
    _lock: File,
}

impl House {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// If it cannot be written to, or another process has it.
    pub fn enter(data_dir: &Path) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            let data_dir = data_dir.display();
            StartError::Machine(format!(
                "data_dir {data_dir} cannot be used: {error}; make it writable, or name another"
            ))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let mut lock = open_lock(&data_dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                _ = lock.read_to_string(&mut holder);
                return Err(StartError::Machine(format!(
                    "data_dir {} is in use by process {}: stop it first, or give this one a data_dir of its own",
                    data_dir.display(),
                    holder.trim()
                )));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        // For people and for the message above; nothing depends on it.
        _ = lock.set_len(0);
        _ = lock.rewind();
        _ = writeln!(lock, "{}", std::process::id());
        Ok(Self { data_dir: data_dir.to_owned(), _lock: lock })
    }

    /// The control socket, for whoever may enter the directory. A disk that is full or read-only has no place for it,
    /// and keeps no site dark: it is said, and there is none.
    ///
    /// # Errors
    /// If it cannot be made for another reason.
    pub fn open_control_socket(&self) -> Result<Option<UnixListener>, StartError> {
        let path = control_socket(&self.data_dir);
        let failed = StartError::machine(format!("{} cannot be made", path.display()));
        let open = || {
            // The lock is ours, so whoever made this is gone. What a disk does not even give up is in the way.
            fs::remove_file(&path).or_else(|error| if is_no_place(&error) { Err(error) } else { Ok(()) })?;
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match open() {
            Err(error) if is_no_place(&error) => {
                tracing::error!("{} cannot be made: {error}; `lockgate reload` will not work", path.display());
                Ok(None)
            }
            opened => opened.map(Some).map_err(failed),
        }
    }
}

/// The file that says who has the directory. One that is there can be locked on a full or read-only disk, too.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => options.create(true).truncate(false).open(path),
        Err(error) if is_no_place(&error) => File::open(path),
        opened => opened,
    }
}

fn is_no_place(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem)
}

impl Drop for House {
    fn drop(&mut self) {
        _ = fs::remove_file(control_socket(&self.data_dir));
    }
}

/// Where the control socket of a data directory is.
pub fn control_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// No core dumps: one would hold every key that is open, and lie on a disk. Nor may other processes of the same user
/// read this one's memory and environment, such as the programs that it starts.
pub fn forbid_core_dumps() {
    // Where cores go to a program's standard input, no limit holds them back (core(5)).
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("this process cannot be kept from being dumped: {error}");
    }
    let none = Rlimit { current: Some(0), maximum: getrlimit(Resource::Core).maximum };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!("core dumps cannot be forbidden: {error}");
    }
}

/// Takes as many file descriptors as the machine gives. Returns how many that is.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MAX_FILES).min(MAX_FILES);
    let current = limit.current.unwrap_or(MAX_FILES).min(MAX_FILES);
    if wanted > current && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok()
    {
        wanted
    } else {
        current
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn nobody_gets_a_dump_neither_a_file_nor_a_program() {
        // Where nobody asked for dumps there are none anyway, and nothing would be seen.
        let maximum = getrlimit(Resource::Core).maximum;
        setrlimit(Resource::Core, Rlimit { current: maximum, maximum }).unwrap();
        forbid_core_dumps();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
