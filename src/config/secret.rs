//! Secrets: the files and variables that hold them, named in pairs such as `key_file` and `key_env`.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::diagnostic::{Wrong, shown};
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::source::{Unreadable, open_regular};
use super::values::path;
use crate::secret::{SecretSource, withhold};

/// Others than the owner may read or write.
const OTHERS: u32 = 0o066;

/// Reads the one of `file` and `env` that is written; that neither is, or both are, is reported. The file must be there.
pub fn require(
    table: &Reader,
    names: (&'static str, &'static str),
    base: &Path,
    problems: &mut Problems,
) -> Option<SecretSource> {
    require_as(table, names, problems, |value, problems| secret_file(value, base, problems))
}

/// The same for a secret that unlocks the vault: see [`vault_file`].
pub fn require_for_vault(
    table: &Reader,
    names: (&'static str, &'static str),
    base: &Path,
    problems: &mut Problems,
) -> Option<SecretSource> {
    require_as(table, names, problems, |value, problems| vault_file(value, base, problems, |_| None))
}

fn require_as(
    table: &Reader,
    (file, env): (&'static str, &'static str),
    problems: &mut Problems,
    read_file: impl FnOnce(&Value, &mut Problems) -> Option<SecretSource>,
) -> Option<SecretSource> {
    let value = table.one_of(&[file, env], &format!("{file} = \"/etc/lockgate/secret\""), problems)?;
    match value.key == file {
        true => read_file(&value, problems),
        false => value.read(problems, variable),
    }
}

/// A file with a secret, which must be there.
pub fn secret_file(value: &Value, base: &Path, problems: &mut Problems) -> Option<SecretSource> {
    let file = value.read(problems, |v| {
        let file = path(v, base)?;
        check(&file, |_| None)?;
        Ok(file)
    })?;
    note_exposed(value, &file, problems);
    Some(SecretSource::File(file))
}

/// A file with the key of the vault; the remedy says how one is made.
pub fn vault_key_file(value: &Value, base: &Path, problems: &mut Problems) -> Option<SecretSource> {
    vault_file(value, base, problems, |file| {
        let command = format!("(umask 077; head -c 32 /dev/urandom | base64 > {})", quoted(file));
        Some(format!("put it back; where nothing is sealed yet, make one: `{command}`"))
    })
}

/// A file that unlocks the vault. If it is not there sites are served all the same, and it is read when it comes:
/// nothing is refused for it. `missing` is what to do then.
fn vault_file(
    value: &Value,
    base: &Path,
    problems: &mut Problems,
    missing: impl FnOnce(&Path) -> Option<String>,
) -> Option<SecretSource> {
    let file = value.read(problems, |v| path(v, base))?;
    let checked = check(&file, |e| match e {
        Unreadable::Os(e) if e.kind() == io::ErrorKind::NotFound => missing(&file),
        _ => None,
    });
    if let Err(wrong) = checked {
        problems.lack(value.place, wrong);
    }
    note_exposed(value, &file, problems);
    Some(SecretSource::File(file))
}

/// The name of an environment variable, which from then on no program that is started gets. Whether it is set is for the process to see that needs it: `check` may run in
/// another environment.
///
/// # Errors
/// It is something else.
pub fn variable(value: &Value) -> Result<SecretSource, Wrong> {
    let name = value.text()?.trim();
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.bytes().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        withhold(name);
        return Ok(SecretSource::Env(name.to_owned()));
    }
    let message = format!("`{}` is not the name of an environment variable", shown(name));
    Err(Wrong::new(message, "write its name alone, as in \"LOCKGATE_SECRET\""))
}

fn check(file: &Path, remedy: impl FnOnce(&Unreadable) -> Option<String>) -> Result<(), Wrong> {
    let named = |what: &str| format!("the secret file `{}` {what}", shown(&file.to_string_lossy()));
    match open_regular(file) {
        Ok(metadata) if metadata.len() == 0 => Err(Wrong::new(named("is empty"), "write the secret into it")),
        Ok(_) => Ok(()),
        Err(e) => {
            let remedy = remedy(&e).unwrap_or_else(|| e.remedy().to_owned());
            Err(Wrong::new(named(&e.to_string()), remedy))
        }
    }
}

fn note_exposed(value: &Value, file: &Path, problems: &mut Problems) {
    let Ok(metadata) = file.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS == 0 {
        return;
    }
    let message = format!(
        "the secret file `{}` is open to others than its owner (mode {mode:04o})",
        shown(&file.to_string_lossy())
    );
    let remedy = format!("run `chmod go= {}`; lockgate's user must own it", quoted(file));
    problems.note(value.place, Wrong::new(message, remedy));
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_');
    match text.bytes().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
