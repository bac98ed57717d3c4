//! Providers with an API: what each needs, and `dns-update`, which speaks to them.
//!
//! The table has those that can add a value to a name's and take one away; `dns-update` has four more (DDNSS, DuckDNS,
//! FreeMyIP, Hurricane Electric) that hold a single value at a name.

mod table;

use std::time::Duration;

use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, Error};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::DnsError;
use super::records::Shown;
use table::{Given, PROVIDERS};

/// How long an addition or deletion may take, with all requests that it needs.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of a provider's own words that are passed on.
const WORDS_MAX: usize = 300;

/// What a provider needs to be spoken to.
#[derive(Debug)]
pub struct Needs {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Settings that must be there.
    pub settings: &'static [&'static str],
    /// Settings that may be.
    pub optional_settings: &'static [&'static str],
    /// Secrets that must be there.
    pub secrets: &'static [&'static str],
    /// Secrets that may be.
    pub optional_secrets: &'static [&'static str],
    /// The shortest time to live that it takes, in seconds; shorter ones are raised to it. 0: any that we know of.
    pub ttl_min_secs: u32,
    open: fn(&Given) -> dns_update::Result<DnsUpdater>,
}

/// What the provider of this name needs; `None`: no such provider is known.
pub fn provider_needs(name: &str) -> Option<&'static Needs> {
    PROVIDERS.iter().find(|needs| needs.name == name)
}

/// The names of all providers, in the order of the alphabet.
pub fn provider_names() -> impl Iterator<Item = &'static str> + Clone {
    PROVIDERS.iter().map(|needs| needs.name)
}

/// A provider, and who speaks to it.
pub(super) struct Api {
    needs: &'static Needs,
    updater: DnsUpdater,
    /// Blacked out in what is passed on of a provider's words.
    secrets: Vec<Zeroizing<String>>,
}

impl Api {
    /// The provider `name` with what the configuration gives. The error says what is missing or too much.
    pub(super) fn open(
        name: &str,
        settings: &[(String, String)],
        secrets: Vec<(String, Zeroizing<Vec<u8>>)>,
    ) -> Result<Self, String> {
        let Some(needs) = provider_needs(name) else {
            let known: Vec<_> = provider_names().collect();
            return Err(format!("no DNS provider is called `{name}`; there are {}", known.join(", ")));
        };
        let keys = |pairs: &mut dyn Iterator<Item = &str>, must: &[&str], may: &[&str], kind: &str| {
            let given: Vec<_> = pairs.collect();
            if let Some(missing) = must.iter().find(|key| !given.contains(*key)) {
                return Err(format!("the DNS provider {name} needs the {kind} `{missing}`"));
            }
            match given.iter().find(|key| !must.contains(*key) && !may.contains(*key)) {
                Some(unknown) => Err(format!(
                    "the DNS provider {name} has no {kind} `{unknown}`; its {kind}s are {}",
                    [must, may].concat().join(", ")
                )),
                None => Ok(()),
            }
        };
        keys(&mut settings.iter().map(|(key, _)| &**key), needs.settings, needs.optional_settings, "setting")?;
        keys(&mut secrets.iter().map(|(key, _)| &**key), needs.secrets, needs.optional_secrets, "secret")?;
        let mut read = vec![];
        for (key, octets) in secrets {
            let Ok(text) = str::from_utf8(&octets) else {
                return Err(format!("the secret `{key}` of the DNS provider {name} is not text"));
            };
            if text.is_empty() {
                return Err(format!("the secret `{key}` of the DNS provider {name} is empty"));
            }
            read.push((key, Zeroizing::new(text.to_owned())));
        }
        let secrets: Vec<_> = read.iter().map(|(_, secret)| secret.clone()).collect();
        let updater = (needs.open)(&Given { settings, secrets: &read }).map_err(|error| {
            format!("the DNS provider {name} cannot be used: {}", without(&error.to_string(), &secrets))
        })?;
        Ok(Self { needs, updater, secrets })
    }

    /// Which provider it is.
    pub(super) fn name(&self) -> &'static str {
        self.needs.name
    }

    /// Adds a value to those at the name.
    pub(super) async fn add(&self, shown: &Shown, ttl_secs: u32) -> Result<(), DnsError> {
        let (ttl_secs, value) = (ttl_secs.max(self.needs.ttl_min_secs), vec![DnsRecord::TXT(shown.value.clone())]);
        let adding = self.updater.add_to_rrset(&shown.at, DnsRecordType::TXT, ttl_secs, value, &shown.zone);
        self.call("set", shown, adding).await
    }

    /// Deletes one value of those at the name.
    pub(super) async fn delete(&self, shown: &Shown) -> Result<(), DnsError> {
        let value = vec![DnsRecord::TXT(shown.value.clone())];
        let deleting = self.updater.remove_from_rrset(&shown.at, DnsRecordType::TXT, value, &shown.zone);
        self.call("delete", shown, deleting).await
    }

    async fn call(
        &self,
        verb: &'static str,
        shown: &Shown,
        calling: impl Future<Output = dns_update::Result<()>>,
    ) -> Result<(), DnsError> {
        let error = match timeout(CALL_TIMEOUT, calling).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => {
                let why = format!("it was not done within {}", humantime::format_duration(CALL_TIMEOUT));
                return Err(self.error(verb, shown, why));
            }
        };
        let why = match &error {
            Error::Unauthorized => {
                format!("it does not accept the credentials: compare {}", self.needs.secrets.join(", "))
            }
            Error::NotFound => format!("it knows no zone {}, or the credentials do not reach it", shown.zone),
            Error::Client(words) => format!("it cannot be reached: {words}"),
            Error::BadRequest => "it does not understand the request".into(),
            other => other.to_string(),
        };
        Err(self.error(verb, shown, without(&why, &self.secrets)))
    }

    fn error(&self, verb: &'static str, shown: &Shown, why: String) -> DnsError {
        DnsError::Api { provider: self.needs.name, verb, at: shown.at.clone(), why }
    }
}

/// Foreign words in one short line, without our secrets: some APIs have them in the address, which errors repeat.
fn without(words: &str, secrets: &[Zeroizing<String>]) -> String {
    let hidden = secrets.iter().fold(words.to_owned(), |words, secret| words.replace(&***secret, "***"));
    let line: String = hidden.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    line.trim().to_owned()
}
