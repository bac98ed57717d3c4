//! Another key-encryption key in the place of one that lies in a file.
//!
//! Three steps, of which a crash may come between any two: the new key is written beside the old one (`FILE.next`), the
//! data keys are wrapped by it in one transaction of the database, and it is renamed over the old one. Which key is the
//! right one is told by the data keys: [`find`] takes the new one where the last step is missing, and it can be finished.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::once::look_at;
use super::wrap::{READ_TIMEOUT, place_of};
use super::{KeyWrap, VaultError, WrappedKey, local};
use crate::issuance::KeySource;
use crate::secret::SecretSource;

/// Old keys that are kept beside a key at most.
const PREVIOUS_MAX: u32 = 100;

/// The key-encryption key as it was found.
#[derive(Debug)]
pub struct Found {
    /// The key: the one that wrapped the data keys, if that could be found.
    pub wrap: KeyWrap,
    /// The last step of a change of key, which a crash kept from being taken.
    pub unfinished: Option<Unfinished>,
}

/// A new key that is in force and does not lie in its place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    next: PathBuf,
    file: PathBuf,
}

/// Opens the key in `source` that wrapped what is `stored`, also if a change of key was interrupted. A key is made only
/// where nothing is stored: another than the one that is missing opens nothing. If none fits, the key is the one in its
/// place, and unwrapping says what is wrong.
///
/// # Errors
/// [`VaultError::NoKey`].
pub async fn find(source: &KeySource, stored: &[WrappedKey]) -> Result<Found, VaultError> {
    let source = match source {
        KeySource::Made(file) if !stored.is_empty() => KeySource::Secret(SecretSource::File(file.clone())),
        source => source.clone(),
    };
    let opened = KeyWrap::open(&source).await;
    let fits = |wrap: &KeyWrap| stored.iter().all(|key| wrap.may_have_wrapped(key));
    let KeySource::Secret(SecretSource::File(file)) = &source else {
        return opened.map(|wrap| Found { wrap, unfinished: None });
    };
    if !opened.as_ref().is_ok_and(fits)
        && let Some(unfinished) = look_for_next(file.clone()).await
        && let Ok(wrap) = KeyWrap::open(&file_source(&unfinished.next)).await
        && fits(&wrap)
    {
        return Ok(Found { wrap, unfinished: Some(unfinished) });
    }
    opened.map(|wrap| Found { wrap, unfinished: None })
}

async fn look_for_next(file: PathBuf) -> Option<Unfinished> {
    let place = place_of(&file_source(&file));
    let looking = look_at(&place, READ_TIMEOUT, move || {
        let file = real(&file);
        let next = beside(&file, ".next");
        next.is_file().then_some(Unfinished { next, file })
    });
    looking.await.flatten()
}

impl Unfinished {
    /// Where the key lies.
    pub fn next(&self) -> &Path {
        &self.next
    }

    /// Puts the key in its place. Another process may have done so meanwhile.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub async fn finish(self) -> io::Result<()> {
        let place = place_of(&file_source(&self.file));
        let finishing = look_at(&place, READ_TIMEOUT, move || put_in_place(&self.next, &self.file));
        finishing.await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A new key beside the one in a file: not in force before the data keys are wrapped by it. Blocks on the disk.
#[derive(Debug)]
pub struct Replacement {
    /// The file itself, where a link leads to it.
    file: PathBuf,
    next: PathBuf,
}

impl Replacement {
    /// Makes a key beside `file`, for the same owner and with the same mode. One that was left there by a change that
    /// never came into force is replaced.
    ///
    /// # Errors
    /// If it cannot be written beside it.
    pub fn make(file: &Path) -> io::Result<Self> {
        let file = real(file);
        let next = beside(&file, ".next");
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !local::make(&next)? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "somebody else writes the same file"));
        }
        let replacement = Self { file, next };
        // Whoever runs this may not be whom the server runs as.
        match replacement.take_after_the_old_one() {
            Ok(()) => Ok(replacement),
            Err(error) => {
                replacement.abandon();
                Err(error)
            }
        }
    }

    fn take_after_the_old_one(&self) -> io::Result<()> {
        let (old, new) = (fs::metadata(&self.file)?, File::open(&self.next)?);
        let made = new.metadata()?;
        if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
            fchown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        new.set_permissions(Permissions::from_mode(old.mode() & 0o660))?;
        new.sync_all()
    }

    /// Where the new key lies now.
    pub fn source(&self) -> KeySource {
        file_source(&self.next)
    }

    /// Keeps the old key under another name, for backups of the database that only it opens. Says where. Whoever does
    /// not want it calls this all the same, before the data keys are wrapped anew, and removes it at the end: a file that
    /// cannot have a second name there, such as one that is mounted by itself, cannot be replaced either.
    ///
    /// # Errors
    /// If the directory cannot be written to, or the file is not of its file system.
    pub fn keep_old(&self) -> io::Result<PathBuf> {
        for number in 1..=PREVIOUS_MAX {
            let ending = if number == 1 { ".previous".to_owned() } else { format!(".previous.{number}") };
            let previous = beside(&self.file, &ending);
            match fs::hard_link(&self.file, &previous) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked.map(|()| previous),
            }
        }
        Err(io::Error::other(format!("{PREVIOUS_MAX} old keys are kept already: take some away")))
    }

    /// Puts the new key in its place: the data keys are wrapped by it.
    ///
    /// # Errors
    /// If the directory cannot be written to; then [`find`] finds it where it is.
    pub fn finish(&self) -> io::Result<()> {
        put_in_place(&self.next, &self.file)
    }

    /// Takes the new key away again: nothing is wrapped by it.
    pub fn abandon(&self) {
        _ = fs::remove_file(&self.next);
    }
}

fn put_in_place(next: &Path, file: &Path) -> io::Result<()> {
    match fs::rename(next, file) {
        // Somebody else has just done it: a server that starts meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_file() => {}
        renamed => renamed?,
    }
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Where the key itself lies: renaming over a link would replace the link.
fn real(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_owned())
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn file_source(file: &Path) -> KeySource {
    KeySource::Secret(SecretSource::File(file.to_owned()))
}
