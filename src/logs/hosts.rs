//! Whose requests are counted: the hosts met in logs, by number.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;

use super::line::Why;
use crate::name::{DomainName, normalize_host, pattern_covers};

/// A host's place in the order of their first requests.
pub type HostId = u32;

/// More hosts are not told apart: whoever scans a server can make up as many as it likes.
pub const MAX_HOSTS: usize = 1_000_000;

/// The hosts, each under every spelling it was met in.
#[derive(Debug)]
pub struct Hosts {
    /// `None`: of a host that nobody asked for.
    by_spelling: HashMap<Box<[u8]>, Option<HostId>, RandomState>,
    /// Those that are counted.
    names: Vec<Box<str>>,
    /// How many there are that are not.
    unwanted: usize,
    /// Empty: all.
    wanted: Vec<DomainName>,
    max_hosts: usize,
}

impl Hosts {
    /// Counts the `wanted` alone, if there are any. A wildcard stands for all hosts that it covers and that are not
    /// wanted by themselves: one meter, as when they are served.
    pub fn new(wanted: Vec<DomainName>, max_hosts: usize) -> Self {
        Self { by_spelling: HashMap::default(), names: Vec::new(), unwanted: 0, wanted, max_hosts }
    }

    /// The number of the host that a line spells so. `None` if it is of none that was asked for.
    ///
    /// # Errors
    /// If it cannot be a host, or is one too many.
    pub fn of_line(&mut self, spelling: &[u8]) -> Result<Option<HostId>, Why> {
        if let Some(known) = self.by_spelling.get(spelling) {
            return Ok(*known);
        }
        let text = std::str::from_utf8(spelling).map_err(|_| Why::NoHost)?;
        let name = meter_name(text).ok_or(Why::NoHost)?;
        let host = self.of_name(&name)?;
        // Spellings are as many as their writers like; without room the long way is taken each time.
        if self.by_spelling.len() < self.max_hosts.saturating_mul(2) {
            self.by_spelling.insert(spelling.into(), host);
        }
        Ok(host)
    }

    /// The number of the host that is called exactly so.
    ///
    /// # Errors
    /// If it is one too many.
    pub fn of_name(&mut self, name: &str) -> Result<Option<HostId>, Why> {
        if let Some(known) = self.by_spelling.get(name.as_bytes()) {
            return Ok(*known);
        }
        match self.meter_of(name) {
            Some(meter) if meter != name => self.of_name(&meter),
            meter => {
                if self.names.len() + self.unwanted >= self.max_hosts {
                    return Err(Why::TooManyHosts);
                }
                let host = match meter {
                    Some(_) => {
                        self.names.push(name.into());
                        Some(HostId::try_from(self.names.len() - 1).map_err(|_| Why::TooManyHosts)?)
                    }
                    None => {
                        self.unwanted += 1;
                        None
                    }
                };
                self.by_spelling.insert(name.as_bytes().into(), host);
                Ok(host)
            }
        }
    }

    /// What the hosts are called, by their numbers.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Hosts that were met and not asked for.
    pub fn unwanted(&self) -> impl Iterator<Item = &str> {
        let unwanted = self.by_spelling.iter().filter(|(_, host)| host.is_none());
        unwanted.filter_map(|(spelling, _)| std::str::from_utf8(spelling).ok())
    }

    fn meter_of<'a>(&self, name: &'a str) -> Option<Cow<'a, str>> {
        let is_wanted = self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted.as_str() == name);
        if is_wanted {
            return Some(Cow::Borrowed(name));
        }
        let wildcard = self.wanted.iter().find(|wanted| pattern_covers(wanted.as_str(), name))?;
        Some(Cow::Owned(wildcard.as_str().to_owned()))
    }
}

/// A host, or a wildcard or bare address, which Lockgate's own log writes, in its normal form.
fn meter_name(text: &str) -> Option<Cow<'_, str>> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Cow::Owned(address.to_canonical().to_string()));
    }
    match text.strip_prefix("*.") {
        Some(parent) => Some(Cow::Owned(format!("*.{}", normalize_host(parent)?))),
        None => normalize_host(text).filter(|host| host.bytes().any(|b| b.is_ascii_alphanumeric())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(wanted: &[&str], max_hosts: usize) -> Hosts {
        Hosts::new(wanted.iter().map(|name| DomainName::parse(name).unwrap()).collect(), max_hosts)
    }

    #[test]
    fn one_host_has_one_number_however_it_is_spelled() {
        let mut hosts = hosts(&[], 10);
        let spellings = ["www.example.com", "WWW.Example.com.", "www.example.com:443", "www.example.com"];
        assert_eq!(spellings.map(|spelling| hosts.of_line(spelling.as_bytes())), [Ok(Some(0)); 4]);
        assert_eq!(hosts.of_line(b"[2001:DB8::1]:443"), Ok(Some(1)));
        assert_eq!(hosts.of_line(b"2001:db8::1"), Ok(Some(1)));
        assert_eq!(hosts.of_line(b"*.Example.com"), Ok(Some(2)));
        assert_eq!(
            hosts.names().iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
            ["www.example.com", "2001:db8::1", "*.example.com"]
        );
        for none in [&b"-"[..], b"", b"a b", b"\xff", b"*.", b"_"] {
            assert_eq!(hosts.of_line(none), Err(Why::NoHost), "{none:?}");
        }
    }

    #[test]
    fn a_wildcard_that_is_asked_for_is_one_meter_for_what_it_covers() {
        let mut hosts = hosts(&["*.example.com", "www.example.com"], 10);
        let met =
            ["a.example.com", "b.example.com", "www.example.com", "example.com", "*.example.com", "a.b.example.com"];
        let numbers = met.map(|host| hosts.of_line(host.as_bytes()).unwrap());
        assert_eq!(numbers, [Some(0), Some(0), Some(1), None, Some(0), None]);
        let mut unwanted: Vec<_> = hosts.unwanted().collect();
        unwanted.sort_unstable();
        assert_eq!(unwanted, ["a.b.example.com", "example.com"]);
    }

    #[test]
    fn hosts_have_a_limit_and_those_that_are_known_go_on() {
        let mut hosts = hosts(&[], 2);
        let met = ["a.test", "A.test", "b.test", "c.test", "B.test", "a.test"];
        let numbers = met.map(|host| hosts.of_line(host.as_bytes()));
        assert_eq!(numbers, [Ok(Some(0)), Ok(Some(0)), Ok(Some(1)), Err(Why::TooManyHosts), Ok(Some(1)), Ok(Some(0))]);
    }
}
