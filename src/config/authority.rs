//! `[[acme.ca]]`: the certificate authorities.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Wrong, shown};
use super::keys;
use super::keys::nearest;
use super::origin::CaFiles;
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::secret;
use super::source::Place;
use super::url::web_url;
use super::values::path;
use crate::issuance::{Authority, Eab, LETS_ENCRYPT};

/// Directories that have a short name.
const WELL_KNOWN: [(&str, &str); 6] = [
    ("letsencrypt", LETS_ENCRYPT),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ("zerossl", "https://acme.zerossl.com/v2/DV90"),
    ("google", "https://dv.acme-v02.api.pki.goog/directory"),
    // The key decides which of the two: the default key is an elliptic one.
    ("sslcom", "https://acme.ssl.com/sslcom-dv-ecc"),
    ("sslcom-rsa", "https://acme.ssl.com/sslcom-dv-rsa"),
];

const DIRECTORY_EXAMPLE: &str = "https://acme.example.com/directory";

/// A label in metrics is no place for more.
const MAX_NAME_CHARS: usize = 64;

/// The authorities that were read.
#[derive(Debug, Default)]
pub struct Authorities {
    /// Those without faults, in the order written; Let's Encrypt if none was.
    pub list: Vec<Arc<Authority>>,
    /// Some that were written have faults, so that nothing can be said of names that are not there.
    is_incomplete: bool,
}

impl Authorities {
    /// Whether there may be one of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.is_incomplete || self.names().any(|known| known == name)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.list.iter().map(|authority| authority.name.as_str())
    }

    /// Whether none of `names` issues anything but standbys.
    pub fn are_standby_only(&self, names: &[String]) -> bool {
        !self.is_incomplete
            && self.list.iter().filter(|one| names.contains(&one.name)).all(|authority| authority.is_standby_only)
    }
}

/// What `[acme]` says for all authorities.
struct Common {
    email: Option<String>,
    preferred_chain: Option<String>,
}

/// Reads the authorities of `[acme]`.
pub fn read(acme: &Reader, base: &Path, ca_files: &mut CaFiles, problems: &mut Problems) -> Authorities {
    let common = Common {
        email: acme.read("email", problems, email),
        preferred_chain: acme.read("preferred_chain", problems, text),
    };
    let tables = acme.tables("ca", &keys::CA, problems);
    if acme.value("ca").is_none_or(|value| value.is_empty()) {
        let only = Authority {
            name: host_of(LETS_ENCRYPT),
            directory: LETS_ENCRYPT.to_owned(),
            roots: None,
            email: common.email,
            eab: None,
            profile: None,
            preferred_chain: common.preferred_chain,
            is_standby_only: false,
        };
        return Authorities { list: vec![Arc::new(only)], is_incomplete: problems.is_broken(acme.place) };
    }
    let mut unique = Unique::default();
    let list: Vec<_> = tables
        .iter()
        .filter_map(|table| read_one(table, &common, base, ca_files, &mut unique, problems))
        .map(Arc::new)
        .collect();
    let is_incomplete = list.len() < tables.len() || tables.is_empty() || problems.is_broken(acme.place);
    if let (Some(last), false, true) = (tables.last(), is_incomplete, list.iter().all(|one| one.is_standby_only)) {
        let place = last.value("standby_only").map_or(last.place, |value| value.place);
        let message = "every CA is `standby_only`: nobody would issue";
        problems.report(place, Wrong::new(message, "leave it out for one of them, or write another `[[acme.ca]]`"));
    }
    Authorities { list, is_incomplete }
}

fn read_one(
    table: &Reader,
    common: &Common,
    base: &Path,
    ca_files: &mut CaFiles,
    unique: &mut Unique,
    problems: &mut Problems,
) -> Option<Authority> {
    let directory = table.require("directory", &format!("\"{DIRECTORY_EXAMPLE}\""), problems, directory);
    let name = match table.value("name") {
        Some(value) => value.read(problems, name),
        None => directory.as_deref().map(host_of),
    };
    let roots = table.read("ca_file", problems, |v| ca_files.get(path(v, base)?));
    let own_email = table.read("email", problems, email);
    let eab = table.table("eab", &keys::EAB, problems).map(|eab| read_eab(&eab, base, problems));
    let profile = table.read("profile", problems, text);
    let preferred_chain = table.read("preferred_chain", problems, text);
    let is_standby_only = table.read("standby_only", problems, Value::boolean).unwrap_or_default();
    let (name, directory) = (name?, directory?);
    unique.take(table, &name, &directory, problems);
    Some(Authority {
        name,
        directory,
        roots,
        email: own_email.or_else(|| common.email.clone()),
        eab: eab.flatten(),
        profile,
        preferred_chain: preferred_chain.or_else(|| common.preferred_chain.clone()),
        is_standby_only,
    })
}

fn read_eab(table: &Reader, base: &Path, problems: &mut Problems) -> Option<Eab> {
    let kid = table.require("kid", "\"the key's identifier\"", problems, text);
    let hmac_key = secret::require(table, ("hmac_key_file", "hmac_key_env"), base, problems);
    Some(Eab { kid: kid?, hmac_key: hmac_key? })
}

/// Names and directories met so far.
#[derive(Default)]
struct Unique {
    names: HashMap<String, Place>,
    directories: HashMap<String, Place>,
}

impl Unique {
    fn take(&mut self, table: &Reader, name: &str, directory: &str, problems: &mut Problems) {
        let directory_place = table.value("directory").map_or(table.place, |value| value.place);
        let name_place = table.value("name").map_or(directory_place, |value| value.place);
        if let Some(first) = self.directories.insert(directory.to_owned(), directory_place) {
            let message = format!("two CAs have the directory `{}`", shown(directory));
            let wrong = Wrong::new(message, "make them one `[[acme.ca]]`");
            problems.report_both((directory_place, "again here"), (first, "first here"), wrong);
            self.names.entry(name.to_owned()).or_insert(name_place);
        } else if let Some(first) = self.names.insert(name.to_owned(), name_place) {
            let wrong = Wrong::new(format!("two CAs are called `{name}`"), "write another `name` for one of them");
            problems.report_both((name_place, "again here"), (first, "first here"), wrong);
        }
    }
}

fn directory(value: &Value) -> Result<String, Wrong> {
    let text = value.text()?.trim();
    if let Some((_, url)) = WELL_KNOWN.iter().find(|(word, _)| *word == text) {
        return Ok((*url).to_owned());
    }
    let words = || WELL_KNOWN.iter().map(|(word, _)| *word);
    if !text.contains([':', '/']) {
        let remedy = match nearest(text, words()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("write a URL as in \"{DIRECTORY_EXAMPLE}\"; there are {}", keys::list(words())),
        };
        return Err(Wrong::new(format!("no CA is known as `{}`", shown(text)), remedy));
    }
    // RFC 8555, section 6.1: over HTTPS.
    web_url(value, &["https"], DIRECTORY_EXAMPLE).map(String::from)
}

/// The host of a URL, without the brackets of an address.
fn host_of(url: &str) -> String {
    let url = reqwest::Url::parse(url).ok();
    let host = url.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
    host.trim_matches(['[', ']']).to_owned()
}

fn name(value: &Value) -> Result<String, Wrong> {
    let text = value.text()?.trim();
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.len() <= MAX_NAME_CHARS && text.bytes().all(is_good) {
        return Ok(text.to_owned());
    }
    let remedy = format!("write 1 to {MAX_NAME_CHARS} letters (a to z), digits, `-`, `_` or `.`");
    Err(Wrong::new(format!("`{}` cannot be the name of a CA", shown(text)), remedy))
}

fn text(value: &Value) -> Result<String, Wrong> {
    Ok(value.text()?.trim().to_owned())
}

/// An e-mail address, as far as a look can tell.
fn email(value: &Value) -> Result<String, Wrong> {
    let text = value.text()?.trim();
    let is_address = |text: &str| {
        text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !host.contains('@') && !text.contains([' ', ',', '<', '>', ':'])
        })
    };
    if is_address(text) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let remedy = match text.strip_prefix("mailto:") {
        Some(bare) if is_address(bare) => format!("write \"{bare}\""),
        _ => "write one address alone, as in \"ops@example.com\"".to_owned(),
    };
    Err(Wrong::new(format!("`{}` is not an e-mail address", shown(text)), remedy))
}
