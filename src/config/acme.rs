//! `[acme]`: who issues certificates, and how; and what domains and groups of names take over from it.

use std::path::Path;

use super::authority::{self, Authorities};
use super::diagnostic::{Wrong, shown};
use super::origin::CaFiles;
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::source::Place;
use super::values::{choice, integer_in, not_among};
use super::{dns, keys, on_demand};
use crate::issuance::{Acme, Challenge, KeyAlgorithm, MAX_ORDERS, Method};
use crate::name::{DomainName, Kind};

/// What `[acme]` says, or would if it were there.
#[derive(Debug)]
pub struct Issuing {
    /// What it says, if it is written.
    pub acme: Option<Acme>,
    /// What a domain has that says nothing else.
    pub method: Method,
    /// What names are held against: those of the authorities.
    authorities: Authorities,
    /// `[acme.dns]` is written, right or wrong.
    has_dns: bool,
    /// Where its agreement, or else its header, is written.
    pub place: Option<Place>,
    /// Where `[acme.on_demand] site` is written.
    site_place: Option<Place>,
}

impl Issuing {
    /// Reads `[acme]` of the main file, in the directory `base`.
    pub fn read(top: &Reader, base: &Path, ca_files: &mut CaFiles, problems: &mut Problems) -> Self {
        let mut issuing = Self {
            acme: None,
            method: Method {
                authorities: None,
                challenge: None,
                dns: None,
                key: KeyAlgorithm::default(),
                profile: None,
                standby: true,
            },
            authorities: Authorities::default(),
            has_dns: false,
            place: None,
            site_place: None,
        };
        let Some(table) = top.table("acme", &keys::ACME, problems) else { return issuing };
        let agreed_to_terms = table.read("agree_to_terms", problems, Value::boolean).unwrap_or_default();
        issuing.place = Some(table.value("agree_to_terms").map_or(table.place, |value| value.place));
        let mut max_orders = MAX_ORDERS;
        table.read_into("max_orders", &mut max_orders, problems, |v| integer_in(v, 1..=1000));
        issuing.authorities = authority::read(&table, base, ca_files, problems);
        let mut method = issuing.method.clone();
        issuing.read_common(&table, &keys::ACME_DNS, base, &mut method, problems);
        issuing.method = method;
        issuing.has_dns = table.value("dns").is_some();
        let on_demand = table.table("on_demand", &keys::ON_DEMAND, problems);
        issuing.site_place = on_demand.and_then(|table| table.value("site")).map(|value| value.place);
        let on_demand = on_demand.and_then(|table| on_demand::read(&table, problems));
        let authorities = issuing.authorities.list.clone();
        let method = issuing.method.clone();
        issuing.acme = Some(Acme { agreed_to_terms, authorities, method, max_orders, on_demand });
        issuing
    }

    /// Reads how the certificates of a domain or a group are obtained, which inherits what it does not say.
    pub fn read_method(&self, table: &Reader, base: &Path, problems: &mut Problems) -> Method {
        let mut method = self.method.clone();
        if let Some(value) = table.value("ca") {
            method.authorities = self.read_names(&value, table, problems);
        }
        table.read_into("profile", &mut method.profile, problems, |v| Ok(Some(v.text()?.trim().to_owned())));
        self.read_common(table, &keys::DNS, base, &mut method, problems);
        method
    }

    /// Reports a site for names on demand that is none of the domains; `is_domain` knows them.
    pub fn check_site(&self, is_domain: impl Fn(&DomainName) -> bool, problems: &mut Problems) {
        let site = self.acme.as_ref().and_then(|acme| acme.on_demand.as_ref()).map(|on_demand| &on_demand.site);
        let (Some(site), Some(place)) = (site, self.site_place) else { return };
        if !is_domain(site) && problems.has_all_domains() {
            let message = format!("the site `{site}` is none of the domains");
            problems.report(place, Wrong::new(message, "write the `name` of a `[[domain]]`"));
        }
    }

    /// What `[acme]` and every `[[domain]]` and `[[certificate]]` can say.
    fn read_common(
        &self,
        table: &Reader,
        dns_keys: &'static keys::Keys,
        base: &Path,
        method: &mut Method,
        problems: &mut Problems,
    ) {
        table.read_into("challenge", &mut method.challenge, problems, |v| challenge(v).map(Some));
        table.read_into("key", &mut method.key, problems, key_algorithm);
        table.read_into("standby", &mut method.standby, problems, Value::boolean);
        if let Some(dns) = table.table("dns", dns_keys, problems) {
            method.dns = dns::read(&dns, base, problems);
        }
        let has_dns = method.dns.is_some() || table.value("dns").is_some() || self.has_dns;
        if let (Some(value), Some(Challenge::Dns01), false) = (table.value("challenge"), method.challenge, has_dns) {
            let message = "`dns-01`, and nobody who sets TXT records";
            problems.report(value.place, Wrong::new(message, "write `[acme.dns]` with a `provider`"));
        }
    }

    fn read_names(&self, value: &Value, table: &Reader, problems: &mut Problems) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let read = table.list("ca", problems, |v| {
            let name = v.text()?.trim();
            if names.iter().any(|known| known == name) {
                return Err(Wrong::new(format!("the CA `{name}` is named twice"), "name it once"));
            }
            names.push(name.to_owned());
            match self.authorities.knows(name) {
                true => Ok(()),
                false if self.authorities.list.is_empty() => {
                    let message = format!("no CA is called `{}`", shown(name));
                    Err(Wrong::new(message, "write `[acme]`, and a `[[acme.ca]]` of that name"))
                }
                false => Err(not_among("CA", name, self.authorities.names())),
            }
        })?;
        if value.is_empty() {
            let wrong = Wrong::new("`ca` is empty: nobody would issue", "name a CA, or leave `ca` out for all of them");
            problems.report(value.place, wrong);
        } else if read.len() == names.len() && self.authorities.are_standby_only(&names) {
            let wrong = Wrong::new("every CA named here is `standby_only`: nobody would issue", "name another one too");
            problems.report(value.place, wrong);
        }
        Some(names)
    }
}

/// Why `challenge` cannot prove control over `name`.
pub fn misfit(name: &DomainName, challenge: Challenge) -> Option<Wrong> {
    match (name.kind(), challenge) {
        (Kind::Wildcard, Challenge::Http01 | Challenge::TlsAlpn01) => Some(Wrong::new(
            format!("`{challenge}` cannot prove control over `{name}`: for a wildcard only dns-01 does"),
            "write \"dns-01\", or leave `challenge` out",
        )),
        (Kind::Ip(_), Challenge::Dns01) => Some(Wrong::new(
            format!("`dns-01` cannot prove control over `{name}`: an address has no TXT record"),
            "write \"http-01\" or \"tls-alpn-01\", or leave `challenge` out",
        )),
        _ => None,
    }
}

fn challenge(value: &Value) -> Result<Challenge, Wrong> {
    choice(value, &[Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01].map(|one| (one.label(), one)))
}

fn key_algorithm(value: &Value) -> Result<KeyAlgorithm, Wrong> {
    use KeyAlgorithm::{EcdsaP256, EcdsaP384, Rsa};
    let algorithms = [
        ("p256", EcdsaP256),
        ("p384", EcdsaP384),
        ("rsa2048", Rsa(2048)),
        ("rsa3072", Rsa(3072)),
        ("rsa4096", Rsa(4096)),
    ];
    choice(value, &algorithms)
}
