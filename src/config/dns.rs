//! `[acme.dns]`, and `dns` of a domain or a group: who sets TXT records.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{Wrong, shown};
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::values::{choice, duration};
use super::{command, secret};
use crate::issuance::{Dns, DnsProvider};
use crate::secret::SecretSource;

/// How long a record may take unless the file says otherwise.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(120);

/// How long others may keep a record unless the file says otherwise.
const TTL: Duration = Duration::from_secs(60);

/// What signs updates (RFC 8945, section 6): those that are not broken, whole.
const KEY_ALGORITHMS: [&str; 4] = ["hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"];

const RFC2136_KEYS: [&str; 5] = ["server", "key_name", "key_algorithm", "key_file", "key_env"];
const API_KEYS: [&str; 3] = ["settings", "secret_files", "secret_env"];
const EXEC_KEYS: [&str; 1] = ["command"];

/// Reads who sets TXT records; `None` if that is not said rightly, which is reported.
pub fn read(table: &Reader, base: &Path, problems: &mut Problems) -> Option<Arc<Dns>> {
    let name = table.require("provider", "\"rfc2136\"", problems, |v| Ok(v.text()?.trim().to_owned()));
    let provider = name.and_then(|name| match name.as_str() {
        "rfc2136" => {
            refuse(table, &[&API_KEYS, &EXEC_KEYS], "of another provider than \"rfc2136\"", problems);
            read_rfc2136(table, base, problems)
        }
        "exec" => {
            refuse(table, &[&RFC2136_KEYS, &API_KEYS], "of another provider than \"exec\"", problems);
            read_exec(table, base, problems)
        }
        _ => {
            refuse(table, &[&RFC2136_KEYS], "of `provider = \"rfc2136\"`", problems);
            refuse(table, &[&EXEC_KEYS], "of `provider = \"exec\"`", problems);
            read_api(name, table, base, problems)
        }
    });
    let resolvers = table.list("resolvers", problems, name_server).unwrap_or_default();
    let mut propagation_timeout = PROPAGATION_TIMEOUT;
    table.read_into("propagation_timeout", &mut propagation_timeout, problems, |v| {
        duration_in(v, Duration::from_secs(1)..=Duration::from_secs(3600), "a time from \"1s\" to \"1h\"")
    });
    let mut ttl = TTL;
    table.read_into("ttl", &mut ttl, problems, |v| {
        duration_in(v, Duration::from_secs(1)..=Duration::from_secs(86_400), "a time from \"1s\" to \"1day\"")
    });
    let resolvers = resolvers.into_iter().map(|(_, address)| address).collect();
    Some(Arc::new(Dns { provider: provider?, resolvers, propagation_timeout, ttl }))
}

fn read_rfc2136(table: &Reader, base: &Path, problems: &mut Problems) -> Option<DnsProvider> {
    let server = table.require("server", "\"192.0.2.53:53\"", problems, name_server);
    let key_name = table.require("key_name", "\"acme-key\"", problems, |v| Ok(v.text()?.trim().to_owned()));
    let mut key_algorithm = "hmac-sha256";
    table
        .read_into("key_algorithm", &mut key_algorithm, problems, |v| choice(v, &KEY_ALGORITHMS.map(|one| (one, one))));
    let key = secret::require(table, ("key_file", "key_env"), base, problems);
    Some(DnsProvider::Rfc2136 {
        server: server?,
        key_name: key_name?,
        key_algorithm: key_algorithm.to_owned(),
        key: key?,
    })
}

fn read_exec(table: &Reader, base: &Path, problems: &mut Problems) -> Option<DnsProvider> {
    table.require("command", "[\"/usr/local/bin/dns-hook\"]", problems, |_| Ok(()))?;
    command::read(table, "command", base, problems).map(|command| DnsProvider::Exec { command })
}

fn read_api(name: String, table: &Reader, base: &Path, problems: &mut Problems) -> Option<DnsProvider> {
    let mut known: Vec<&str> = Vec::new();
    let mut is_new = |name, value: &Value, problems: &mut Problems| {
        let is_new = !known.contains(&name);
        known.push(name);
        if !is_new {
            let message = format!("the setting `{}` is written twice", shown(name));
            problems.report(value.place, Wrong::new(message, "write it once"));
        }
        is_new
    };
    let mut settings = Vec::new();
    for (name, value) in table.entries("settings", problems) {
        if let (Some(text), true) = (value.read(problems, Value::text), is_new(name, &value, problems)) {
            settings.push((name.to_owned(), text.to_owned()));
        }
    }
    let mut secrets: Vec<(String, SecretSource)> = Vec::new();
    for (name, value) in table.entries("secret_files", problems) {
        if let (Some(file), true) = (secret::secret_file(&value, base, problems), is_new(name, &value, problems)) {
            secrets.push((name.to_owned(), file));
        }
    }
    for (name, value) in table.entries("secret_env", problems) {
        if let (Some(variable), true) = (value.read(problems, secret::variable), is_new(name, &value, problems)) {
            secrets.push((name.to_owned(), variable));
        }
    }
    let names: Vec<&str> = secrets.iter().map(|(name, _)| name.as_str()).collect();
    let named: Vec<&str> = settings.iter().map(|(name, _)| name.as_str()).collect();
    let provider = table.value("provider")?;
    provider.read(problems, |_| check_provider(&name, &named, &names))?;
    Some(DnsProvider::Api { name, settings, secrets })
}

/// Whether there is a provider called `name`, and it has the settings and secrets that it needs.
///
/// To be wired: `crate::dns` knows the providers and what each needs. Until then every name is taken.
///
/// # Errors
/// There is none, or it needs others.
fn check_provider(name: &str, settings: &[&str], secrets: &[&str]) -> Result<(), Wrong> {
    let _ = (name, settings, secrets);
    Ok(())
}

/// Reports keys that only other providers have.
fn refuse(table: &Reader, keys: &[&[&'static str]], whose: &str, problems: &mut Problems) {
    for value in keys.iter().copied().flatten().filter_map(|key| table.value(key)) {
        let wrong = Wrong::new(format!("`{}` is a key {whose}", value.key), "leave it out, or write that `provider`");
        problems.report(value.place, wrong);
    }
}

/// An address and a port, which is 53 unless it is written: a name server's.
fn name_server(value: &Value) -> Result<SocketAddr, Wrong> {
    let text = value.text()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(ip), _) => Ok(SocketAddr::new(ip, 53)),
        (_, Ok(address)) if address.port() > 0 => Ok(address),
        _ => {
            let message = format!("`{}` is not the address of a name server", shown(text));
            Err(Wrong::new(message, "write an IP address, and a port if it is not 53, as in \"192.0.2.53:5353\""))
        }
    }
}

/// A time between two times, which `words` says as text.
fn duration_in(value: &Value, range: RangeInclusive<Duration>, words: &str) -> Result<Duration, Wrong> {
    let duration = duration(value)?;
    if range.contains(&duration) {
        return Ok(duration);
    }
    Err(Wrong::new(format!("`{}` is {}, out of its range", value.key, value.written()), format!("write {words}")))
}
