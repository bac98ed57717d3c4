//! `[acme.on_demand]`: names that nobody wrote into the configuration.

use super::diagnostic::Wrong;
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::url::web_url;
use super::values::{domain_name, integer_in};
use crate::issuance::OnDemand;
use crate::name::Kind;

/// Names at most unless the file says otherwise.
const MAX_NAMES: usize = 10_000;
/// New ones in an hour. Let's Encrypt takes 300 orders of an account in three hours, renewals with them.
const MAX_NEW_PER_HOUR: usize = 60;

/// Reads which names are served at their first handshake, and by which site.
pub fn read(table: &Reader, problems: &mut Problems) -> Option<OnDemand> {
    let site = table.require("site", "\"shops.example.com\"", problems, domain_name);
    let allow = table.list("allow", problems, pattern);
    let ask = table
        .read("ask", problems, |v| web_url(v, &["http", "https"], "http://127.0.0.1:9000/allowed").map(String::from));
    let mut max_names = MAX_NAMES;
    table.read_into("max_names", &mut max_names, problems, |v| integer_in(v, 1..=1_000_000));
    let mut max_new_per_hour = MAX_NEW_PER_HOUR;
    table.read_into("max_new_per_hour", &mut max_new_per_hour, problems, |v| integer_in(v, 1..=100_000));
    let allows_nothing = table.value("allow").is_none_or(|value| value.is_empty());
    if allows_nothing && table.value("ask").is_none() {
        let message = "neither `allow` nor `ask`: no name would be approved";
        problems.report_missing(
            table.place,
            Wrong::new(message, "write `allow = [\"*.customers.example\"]` or an `ask` URL"),
        );
    }
    let allow = allow.unwrap_or_default().into_iter().map(|(_, pattern)| pattern).collect();
    Some(OnDemand { site: site?, allow, ask, max_names, max_new_per_hour })
}

/// A name, or a wildcard, which covers any depth.
fn pattern(value: &Value) -> Result<String, Wrong> {
    let name = domain_name(value)?;
    match name.kind() {
        Kind::Ip(_) => Err(Wrong::new(
            format!("`{name}` is an address, which no handshake asks for by name"),
            "write a host name or a wildcard, as in \"*.customers.example\"",
        )),
        Kind::Exact | Kind::Wildcard => Ok(name.as_str().to_owned()),
    }
}
