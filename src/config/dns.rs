//! `[acme.dns]`, and `dns` of a domain or a group: who sets TXT records.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{Wrong, shown};
use super::keys::{list, nearest};
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::values::{choice, duration};
use super::{command, secret};
use crate::dns::{Needs, provider_names, provider_needs};
use crate::issuance::{Dns, DnsProvider};
use crate::secret::SecretSource;

/// How long a record may take unless the file says otherwise.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a program may take unless the file says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// How long others may keep a record unless the file says otherwise.
const TTL: Duration = Duration::from_secs(60);

/// What signs updates (RFC 8945, section 6): those that are not broken, whole.
const KEY_ALGORITHMS: [&str; 4] = ["hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"];

const RFC2136_KEYS: [&str; 5] = ["server", "key_name", "key_algorithm", "key_file", "key_env"];
const API_KEYS: [&str; 3] = ["settings", "secret_files", "secret_env"];
const EXEC_KEYS: [&str; 2] = ["command", "command_timeout"];

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
    let mut timeout = COMMAND_TIMEOUT;
    table.read_into("command_timeout", &mut timeout, problems, |v| {
        duration_in(v, Duration::from_secs(1)..=Duration::from_secs(600), "a time from \"1s\" to \"10m\"")
    });
    command::read(table, "command", base, problems).map(|command| DnsProvider::Exec { command, timeout })
}

fn read_api(name: String, table: &Reader, base: &Path, problems: &mut Problems) -> Option<DnsProvider> {
    // What is written wrongly is there all the same: it must not be reported as missing too.
    let (mut named_settings, mut named_secrets): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut settings = Vec::new();
    for (name, value) in table.entries("settings", problems) {
        let is_new = is_new(name, &value, &named_settings, problems);
        named_settings.push(name);
        if let (Some(text), true) = (value.read(problems, Value::text), is_new) {
            settings.push((name.to_owned(), text.to_owned()));
        }
    }
    let mut secrets: Vec<(String, SecretSource)> = Vec::new();
    let written = [table.entries("secret_files", problems), table.entries("secret_env", problems)];
    for (entries, is_file) in written.into_iter().zip([true, false]) {
        for (name, value) in entries {
            let is_new = is_new(name, &value, &[&*named_settings, &*named_secrets].concat(), problems);
            named_secrets.push(name);
            let secret = match is_file {
                true => secret::secret_file(&value, base, problems),
                false => value.read(problems, secret::variable),
            };
            if let (Some(secret), true) = (secret, is_new) {
                secrets.push((name.to_owned(), secret));
            }
        }
    }
    // One that is written as both was complained of.
    named_secrets.retain(|name| !named_settings.contains(name));
    let provider = table.value("provider")?;
    provider.read(problems, |_| check_provider(&name, &named_settings, &named_secrets))?;
    Some(DnsProvider::Api { name, settings, secrets })
}

/// Whether `known` does not have the name of a setting yet; reports it otherwise.
fn is_new(name: &str, value: &Value, known: &[&str], problems: &mut Problems) -> bool {
    let is_new = !known.contains(&name);
    if !is_new {
        let message = format!("the setting `{}` is written twice", shown(name));
        problems.report(value.place, Wrong::new(message, "write it once"));
    }
    is_new
}

/// Whether there is a provider called `name`, and it has the settings and secrets that it needs and no others.
///
/// # Errors
/// There is none, or it needs others.
fn check_provider(name: &str, settings: &[&str], secrets: &[&str]) -> Result<(), Wrong> {
    let Some(needs) = provider_needs(name) else {
        let message = format!("no DNS provider is called `{}`", shown(name));
        let own = ["rfc2136", "exec"];
        let remedy = match nearest(name, provider_names().chain(own)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                let all = provider_names().collect::<Vec<_>>().join(", ");
                format!("write \"rfc2136\", \"exec\", or one of {all}")
            }
        };
        return Err(Wrong::new(message, remedy));
    };
    let (must, may) = (needs.settings, needs.optional_settings);
    check_names(name, settings, (must, may), ("setting", "settings = { NAME = \"...\" }"), secrets_of(needs))?;
    let (must, may) = (needs.secrets, needs.optional_secrets);
    check_names(name, secrets, (must, may), ("secret", "secret_files = { NAME = \"FILE\" }"), settings_of(needs))
}

fn settings_of(needs: &Needs) -> Vec<&'static str> {
    [needs.settings, needs.optional_settings].concat()
}

fn secrets_of(needs: &Needs) -> Vec<&'static str> {
    [needs.secrets, needs.optional_secrets].concat()
}

/// Whether `given` has all names that must be there, and none that is not known; `others` are the names of the other
/// kind, which are easily written in the wrong place.
fn check_names(
    provider: &str,
    given: &[&str],
    (must, may): (&[&'static str], &[&'static str]),
    (kind, written): (&str, &str),
    others: Vec<&'static str>,
) -> Result<(), Wrong> {
    let known = [must, may].concat();
    if let Some(unknown) = given.iter().find(|name| !known.contains(*name)) {
        let message = format!("the DNS provider `{provider}` has no {kind} `{}`", shown(unknown));
        let remedy = match nearest(unknown, known.iter().copied()) {
            _ if others.contains(unknown) && kind == "setting" => {
                "it is a secret: write it as `secret_files` or `secret_env`".to_owned()
            }
            _ if others.contains(unknown) => "it is no secret: write it as `settings`".to_owned(),
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => format!("leave it out: it has no {kind}s"),
            None => format!("its {kind}s are {}", list(known.iter().copied())),
        };
        return Err(Wrong::new(message, remedy));
    }
    match must.iter().find(|name| !given.contains(*name)) {
        Some(missing) => {
            let message = format!("the DNS provider `{provider}` needs the {kind} `{missing}`");
            Err(Wrong::new(message, format!("write `{}`", written.replace("NAME", missing))))
        }
        None => Ok(()),
    }
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
