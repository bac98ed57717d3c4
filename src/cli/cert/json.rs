//! Certificates as scripts see them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::entry::{Entry, State};
use super::gather::Gathered;
use crate::alert::reminder::replaceable_from;
use crate::certificate::{Validation, fingerprint, serial, subject_and_issuer, validation};
use crate::cli::text::rfc3339;
use crate::clock::UnixTime;
use crate::name::{DomainName, TenantId};

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    pub(super) certificates: Vec<Certificate<'a>>,
    /// How many are in each state.
    pub(super) states: BTreeMap<State, usize>,
    /// What could not be read.
    pub(super) notes: &'a [String],
}

/// A certificate, or one that is to be: then it has no facts.
#[derive(Debug, Serialize)]
pub(super) struct Certificate<'a> {
    id: Option<i64>,
    name: &'a str,
    names: Vec<&'a str>,
    state: State,
    /// `file`, `uploaded`, `acme` or `internal`.
    source: &'a str,
    /// Whether its name was approved at a handshake.
    on_demand: bool,
    /// Whether its domain is served with a certificate of the internal authority.
    internal_serves: bool,
    #[serde(rename = "type")]
    kind: Option<String>,
    role: &'a str,
    tenant: Option<&'a str>,
    /// The authority's directory URL.
    ca: Option<&'a str>,
    issuer: Option<&'a str>,
    key: Option<String>,
    /// SHA-256, hexadecimal.
    fingerprint: Option<String>,
    serial: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    days_left: Option<i64>,
    /// When it may be replaced, if that is somebody's to do.
    replaceable_from: Option<String>,
    revoked_at: Option<String>,
    renew_at: Option<String>,
    ari: Option<Window>,
    is_newest: bool,
    files: Option<Files<'a>>,
    failures: Option<u32>,
    problem: Option<&'a str>,
    advice: Option<&'a str>,
    next_attempt: Option<String>,
    #[serde(flatten)]
    more: Option<More<'a>>,
}

/// What takes a while to find out.
#[derive(Debug, Serialize)]
struct More<'a> {
    chain: Vec<Link>,
    serves: Vec<&'a str>,
    stands_by_for: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct Link {
    subject: String,
    issuer: String,
}

#[derive(Debug, Serialize)]
struct Window {
    start: String,
    end: String,
}

#[derive(Debug, Serialize)]
struct Files<'a> {
    cert: &'a Path,
    key: &'a Path,
}

/// An entry; with everything, if it is one of a few.
pub(super) fn certificate<'a>(entry: &'a Entry, gathered: &Gathered, is_whole: bool) -> Certificate<'a> {
    let at = |at: UnixTime| rfc3339(at, &gathered.zone);
    let held = entry.held.as_ref();
    let facts = held.map(|held| &held.facts);
    let by_hand = facts.filter(|_| entry.source == "file");
    let attempts = entry.attempts.as_ref();
    let window = held.and_then(|held| held.ari?.window);
    Certificate {
        id: entry.id.map(|id| id.0),
        name: &entry.name,
        names: texts(&entry.names),
        state: entry.state,
        source: entry.source,
        on_demand: entry.is_on_demand,
        internal_serves: entry.is_internal_serving,
        kind: kind(entry),
        role: entry.role.label(),
        tenant: entry.tenant.as_ref().map(TenantId::as_str),
        ca: Some(entry.ca.as_str()).filter(|ca| !ca.is_empty()),
        issuer: facts.map(|facts| &*facts.issuer),
        key: facts.map(|facts| facts.key_kind.to_string()),
        fingerprint: held.and_then(|held| held.chain.first()).map(|leaf| hex::encode(fingerprint(leaf))),
        serial: held.and_then(|held| serial(held.chain.first()?)).map(hex::encode),
        not_before: facts.map(|facts| at(facts.not_before)),
        not_after: facts.map(|facts| at(facts.not_after)),
        days_left: entry.days_left(gathered.now),
        replaceable_from: by_hand.map(|facts| at(replaceable_from(facts.not_before, facts.not_after))),
        revoked_at: held.and_then(|held| held.revoked_at).map(at),
        renew_at: entry.renew_at.map(at),
        ari: window.map(|window| Window { start: at(window.start), end: at(window.end) }),
        is_newest: entry.is_newest,
        files: held.and_then(|held| held.files.as_ref()).map(|pair| Files { cert: &pair.cert, key: &pair.key }),
        failures: attempts.map(|attempts| attempts.failures),
        problem: attempts.map(|attempts| attempts.problem.as_str()),
        advice: attempts.map(|attempts| attempts.advice.as_str()).filter(|advice| !advice.is_empty()),
        next_attempt: attempts.map(|attempts| at(attempts.next_at)),
        more: is_whole.then(|| more(entry)),
    }
}

/// How its subject was validated.
fn kind(entry: &Entry) -> Option<String> {
    match &entry.held {
        Some(held) => held.chain.first().and_then(validation).map(|kind| kind.to_string()),
        None => (entry.source == "internal").then(|| Validation::Internal.to_string()),
    }
}

fn more(entry: &Entry) -> More<'_> {
    let chain = entry.held.as_ref().map(|held| held.chain.as_slice()).unwrap_or_default();
    let links = chain.iter().filter_map(subject_and_issuer);
    More {
        chain: links.map(|(subject, issuer)| Link { subject, issuer }).collect(),
        serves: texts(&entry.serves),
        stands_by_for: texts(&entry.stands_by_for),
    }
}

fn texts(names: &[DomainName]) -> Vec<&str> {
    names.iter().map(DomainName::as_str).collect()
}
