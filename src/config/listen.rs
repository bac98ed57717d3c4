//! `[listen]`: the addresses, and what belongs to them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Listen;
use super::diagnostic::Wrong;
use super::keys;
use super::problems::Problems;
use super::reader::Reader;
use super::source::Place;
use super::values::{address, domain_name, host, integer_in, network};
use crate::name::DomainName;

impl Default for Listen {
    fn default() -> Self {
        let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        Self {
            https: vec![everywhere(443)],
            http: vec![everywhere(80)],
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)),
            metrics: None,
            admin_hosts: Vec::new(),
            default: None,
            public_https_port: None,
            trusted_proxies: [].into(),
        }
    }
}

/// `[listen]` as read.
#[derive(Debug, Default)]
pub struct Listening {
    /// What it says; whether `default` is a domain is not known yet.
    pub listen: Listen,
    /// Where `default` is written.
    pub default_place: Option<Place>,
}

/// Reads `[listen]`.
pub fn read(top: &Reader, problems: &mut Problems) -> Listening {
    let mut listening = Listening::default();
    let Some(table) = top.table("listen", &keys::LISTEN, problems) else { return listening };
    let listen = &mut listening.listen;

    let mut taken = Taken::new(table.place);
    let https = table.list("https", problems, |v| address(v, 443));
    if let (Some([]), Some(value)) = (https.as_deref(), table.value("https"))
        && value.is_empty()
    {
        let wrong =
            Wrong::new("`https` is empty: no domain could be served", "write \"[::]:443\", or leave `https` out");
        problems.report(value.place, wrong);
    }
    taken.take_list("https", &mut listen.https, https, problems);
    let http = table.list("http", problems, |v| address(v, 80));
    taken.take_list("http", &mut listen.http, http, problems);
    let admin_place = table.value("admin").map(|value| value.place);
    table.read_into("admin", &mut listen.admin, problems, |v| address(v, 9180));
    taken.take("admin", listen.admin, admin_place, problems);
    let metrics_place = table.value("metrics").map(|value| value.place);
    listen.metrics = table.read("metrics", problems, |v| address(v, 9181));
    if let Some(metrics) = listen.metrics {
        taken.take("metrics", metrics, metrics_place, problems);
    }

    listen.admin_hosts = without_places(table.list("admin_hosts", problems, host));
    listening.default_place = table.value("default").map(|value| value.place);
    listen.default = table.read("default", problems, domain_name);
    listen.public_https_port = table.read("public_https_port", problems, |v| integer_in(v, 1..=65_535));
    listen.trusted_proxies = without_places(table.list("trusted_proxies", problems, network)).into();
    listening
}

impl Listening {
    /// Reports a `default` that is none of the domains; `is_domain` knows them.
    pub fn check_default(&self, is_domain: impl Fn(&DomainName) -> bool, problems: &mut Problems) {
        let (Some(name), Some(place)) = (&self.listen.default, self.default_place) else { return };
        if is_domain(name) || !problems.has_all_domains() {
            return;
        }
        let wildcard =
            name.as_str().split_once('.').and_then(|(_, parent)| DomainName::parse(&format!("*.{parent}")).ok());
        let remedy = match wildcard.filter(|wildcard| is_domain(wildcard)) {
            Some(wildcard) => format!("write \"{wildcard}\", the domain that serves it"),
            None => "write the `name` of a `[[domain]]`, or leave `default` out".to_owned(),
        };
        problems.report(place, Wrong::new(format!("the default site `{name}` is none of the domains"), remedy));
    }
}

fn without_places<T>(list: Option<Vec<(Place, T)>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|(_, element)| element).collect()
}

/// The addresses met so far, each with the listener that takes it.
struct Taken {
    /// For those that stand at their default.
    table: Place,
    /// By address, all unspecified ones being one: `[::]` is dual-stack.
    by_address: HashMap<(IpAddr, u16), (&'static str, SocketAddr, Place)>,
}

impl Taken {
    fn new(table: Place) -> Self {
        Self { table, by_address: HashMap::new() }
    }

    /// Takes all addresses of a list; if it is not written, those that stand in `into`.
    fn take_list(
        &mut self,
        listener: &'static str,
        into: &mut Vec<SocketAddr>,
        read: Option<Vec<(Place, SocketAddr)>>,
        problems: &mut Problems,
    ) {
        match read {
            Some(read) => {
                for (place, address) in &read {
                    self.take(listener, *address, Some(*place), problems);
                }
                *into = read.into_iter().map(|(_, address)| address).collect();
            }
            None => {
                for address in into.iter() {
                    self.take(listener, *address, None, problems);
                }
            }
        }
    }

    fn take(&mut self, listener: &'static str, address: SocketAddr, place: Option<Place>, problems: &mut Problems) {
        // The operating system chooses another port for each.
        if address.port() == 0 {
            return;
        }
        let ip = match address.ip().to_canonical() {
            ip if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ip => ip,
        };
        let entry = (listener, address, place.unwrap_or(self.table));
        let Some((other, other_address, other_place)) = self.by_address.insert((ip, address.port()), entry) else {
            return;
        };
        // `0.0.0.0:443` beside `[::]:443` is one listener too many and harmless; for two purposes it is a riddle.
        if other == listener && other_address != address {
            return;
        }
        let whose = |listener, place| match place {
            Some(_) => format!("`{listener}`"),
            None => format!("`{listener}`'s default"),
        };
        let other_written = (other_place != self.table).then_some(other_place);
        let message = match other == listener {
            true => format!("`{address}` is written twice"),
            false => format!("`{address}` is taken by {} and {}", whose(other, other_written), whose(listener, place)),
        };
        let remedy = if other == listener { "write it once" } else { "write another port for one of them" };
        match (place, other_written) {
            (Some(place), Some(other)) => {
                problems.report_both((place, "again here"), (other, "first here"), Wrong::new(message, remedy));
            }
            (place, other) => problems.report(place.or(other).unwrap_or(self.table), Wrong::new(message, remedy)),
        }
    }
}
