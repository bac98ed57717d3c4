//! `[vault]`: who can open the keys that are kept.

use std::path::{Component, Path, PathBuf};

use super::diagnostic::{Wrong, shown};
use super::origin::CaFiles;
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::url::web_url;
use super::values::path;
use super::{command, keys, secret};
use crate::issuance::{KeySource, Transit};
use crate::secret::SecretSource;

/// What is made in `data_dir` where nothing is written.
const MADE: &str = "vault.key";

/// Where HashiCorp Vault mounts its transit engine unless told otherwise.
const MOUNT: &str = "transit";

/// Reads `[vault]`; without it, or where it is wrong, a key is made in `data_dir`.
pub fn read(top: &Reader, base: &Path, data_dir: &Path, ca_files: &mut CaFiles, problems: &mut Problems) -> KeySource {
    let made = || KeySource::Made(data_dir.join(MADE));
    let Some(table) = top.table("vault", &keys::VAULT, problems) else { return made() };
    let sources = ["key_file", "key_env", "credential", "exec", "transit"];
    let Some(value) = table.one_of(&sources, "key_file = \"/etc/lockgate/vault.key\"", problems) else { return made() };
    let source = match value.key {
        "key_file" => key_file(&value, base, data_dir, problems),
        "key_env" => value.read(problems, secret::variable).map(KeySource::Secret),
        "credential" => value.read(problems, credential).map(KeySource::Secret),
        "exec" => command::read(&table, "exec", base, problems).map(KeySource::Exec),
        _ => table
            .table("transit", &keys::TRANSIT, problems)
            .and_then(|transit| read_transit(&transit, base, ca_files, problems))
            .map(KeySource::Transit),
    };
    source.unwrap_or_else(made)
}

fn key_file(value: &Value, base: &Path, data_dir: &Path, problems: &mut Problems) -> Option<KeySource> {
    let written = value.read(problems, |v| {
        let file = path(v, base)?;
        if is_within(&file, data_dir) {
            let message = "the key would lie in `data_dir`, beside what it seals: whoever takes one has both";
            return Err(Wrong::new(message, "name a file elsewhere, as in \"/etc/lockgate/vault.key\""));
        }
        Ok(file)
    });
    written?;
    secret::vault_key_file(value, base, problems).map(KeySource::Secret)
}

/// Whether `file` lies in the directory `dir`, as far as both exist, or else as they are written.
fn is_within(file: &Path, dir: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| lexical(path));
    let parent = file.parent().map(real).unwrap_or_default();
    parent.starts_with(real(dir)) || real(file).starts_with(real(dir))
}

/// The path, absolute, without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
        path
    })
}

/// The name of a credential, which is one of a file (systemd.exec(5)).
fn credential(value: &Value) -> Result<SecretSource, Wrong> {
    let name = value.text()?.trim();
    if name.contains(['/', '\0']) || name == "." || name == ".." {
        let message = format!("`{}` is not the name of a credential", shown(name));
        return Err(Wrong::new(message, "write its name in `LoadCredential=`, as in \"vault-key\""));
    }
    Ok(SecretSource::Credential(name.to_owned()))
}

fn read_transit(table: &Reader, base: &Path, ca_files: &mut CaFiles, problems: &mut Problems) -> Option<Transit> {
    const EXAMPLE: &str = "https://vault.example.com:8200";
    let address = table.require("address", &format!("\"{EXAMPLE}\""), problems, |v| {
        let url = web_url(v, &["https", "http"], EXAMPLE)?;
        if url.query().is_some() {
            let message = format!("`{}` has a query", shown(url.as_str()));
            return Err(Wrong::new(message, "leave out the `?` and what follows"));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    });
    let segments = |v: &Value| {
        let text = v.text()?.trim().trim_matches('/');
        let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        match text.bytes().all(is_good) && !text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            true => Ok(text.to_owned()),
            false => {
                let message = format!("`{}` cannot be in a path of Vault", shown(text));
                Err(Wrong::new(message, "write letters (a to z), digits, `-`, `_` and `.`"))
            }
        }
    };
    let mut mount = MOUNT.to_owned();
    table.read_into("mount", &mut mount, problems, segments);
    let key = table.require("key", "\"lockgate\"", problems, |v| {
        let key = segments(v)?;
        match key.contains('/') {
            true => Err(Wrong::new("`key` has a slash in it", "write the key's name alone, and `mount` beside it")),
            false => Ok(key),
        }
    });
    let token = secret::require_for_vault(table, ("token_file", "token_env"), base, problems);
    let namespace = table.read("namespace", problems, segments);
    let roots = table.read("ca_file", problems, |v| ca_files.get(path(v, base)?));
    Some(Transit { address: address?, mount, key: key?, token: token?, namespace, roots })
}
