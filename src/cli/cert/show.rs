//! `lockgate cert show`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::entry::{Entry, For, Held, State};
use super::gather::{Gathered, Place};
use super::json::{Answer, certificate};
use crate::alert::reminder::replaceable_from;
use crate::certificate::{fingerprint, serial, subject_and_issuer, validation};
use crate::cli::failure::Failure;
use crate::cli::text::{counted, local};
use crate::clock::UnixTime;
use crate::config;
use crate::name::DomainName;
use crate::store::inventory::{Attempts, Role};

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// Its number, or a name that it is for
    #[arg(value_name = "ID|NAME")]
    what: String,
    /// Print its chain as PEM, leaf first, and nothing else
    #[arg(long, conflicts_with = "json")]
    pem: bool,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Show {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut gathered = self.place.gather().await?;
        let found = gathered.find(&self.what)?;
        if found.is_empty() {
            return Err(gathered.unknown(&self.what));
        }
        gathered.deploy(&found);
        let entries: Vec<_> = found.iter().filter_map(|index| gathered.entries.get(*index)).collect();
        let mut out = io::stdout().lock();
        if self.json {
            let mut states = BTreeMap::<State, usize>::new();
            entries.iter().for_each(|entry| *states.entry(entry.state).or_default() += 1);
            let certificates = entries.iter().map(|entry| certificate(entry, &gathered, true)).collect();
            let answer = Answer { certificates, states, notes: &gathered.notes };
            serde_json::to_writer(&mut out, &answer).map_err(io::Error::from)?;
            writeln!(out)?;
        } else if self.pem {
            let held = entries.iter().find_map(|entry| entry.held.as_ref());
            let held = held.ok_or_else(|| Failure::Work(format!("there is no certificate yet for `{}`", self.what)))?;
            write!(out, "{}", pem_of(held))?;
        } else {
            gathered.print_notes();
            let texts: Vec<_> = entries.iter().map(|entry| gathered.in_words(entry)).collect();
            write!(out, "{}", texts.join("\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Gathered {
    /// Where in the entries what is meant stands: the one with this number; those that were issued for this name, and
    /// those that are to be; or, if there are none, those that cover it. The best first.
    pub(super) fn find(&self, what: &str) -> Result<Vec<usize>, Failure> {
        let all = || self.entries.iter().enumerate();
        if let Ok(id) = what.parse::<i64>() {
            return Ok(all().filter(|(_, entry)| entry.id.is_some_and(|it| it.0 == id)).map(|(at, _)| at).collect());
        }
        let name = DomainName::parse(what).map_err(|error| Failure::Usage(error.to_string()))?;
        let subject = self.wanted.as_ref().and_then(|wanted| wanted.subject_of(&name)).map(|it| &it.name);
        let is_meant = |entry: &Entry| {
            entry.is_newest && (entry.name == name.as_str() || subject.is_some_and(|it| entry.name == it.as_str()))
        };
        let covers = |entry: &Entry| entry.is_newest && entry.role != For::Fallback && entry.covers(&name);
        let mut found: Vec<_> = all().filter(|(_, entry)| is_meant(entry)).collect();
        if found.is_empty() {
            found = all().filter(|(_, entry)| covers(entry)).collect();
        }
        found.sort_by_key(|(_, entry)| (entry.held.is_none(), entry.role, !entry.is_usable(), entry.id.is_some()));
        Ok(found.into_iter().map(|(at, _)| at).collect())
    }

    /// What to say of one of which nothing is known.
    pub(super) fn unknown(&self, what: &str) -> Failure {
        let meant = config::nearest(what, self.entries.iter().map(|entry| entry.name.as_str()));
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        Failure::Work(format!("there is no certificate `{what}` in {}{hint}", self.data_dir.display()))
    }

    fn at(&self, at: UnixTime) -> String {
        local(at, &self.zone, "%Y-%m-%d %H:%M:%S %:z")
    }

    fn in_words(&self, entry: &Entry) -> String {
        let mut lines = Lines::default();
        let id = entry.id.map(|id| format!(" (ID {})", id.0)).unwrap_or_default();
        lines.put("name", &format!("{}{id}", entry.name));
        lines.put("state", &entry.state.to_string());
        lines.list("names", entry.names.iter().map(ToString::to_string));
        lines.put("role", entry.role.label());
        lines.put("source", &from(entry));
        lines.put_some("tenant", entry.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()));
        if let Some(held) = &entry.held {
            self.tell_held(&mut lines, entry, held);
        }
        if entry.source != "internal" && entry.is_internal_serving {
            lines.put("meanwhile", "served with one of the internal authority, which no browser trusts");
        }
        lines.list("serves", entry.serves.iter().map(ToString::to_string));
        lines.list("stands by for", entry.stands_by_for.iter().map(ToString::to_string));
        if entry.held.is_some() && !entry.is_newest {
            lines.put("replaced", "by a newer one");
        }
        if let Some(held) = entry.held.as_ref().filter(|held| held.files.is_some() && entry.role != For::Fallback) {
            let from = replaceable_from(held.facts.not_before, held.facts.not_after);
            lines.put("replace", &format!("from {} on", self.at(from)));
        }
        lines.put_some("renewal", entry.renew_at.map(|at| self.at(at)));
        if let Some(attempts) = &entry.attempts {
            self.tell_attempts(&mut lines, attempts);
        }
        lines.0
    }

    fn tell_held(&self, lines: &mut Lines, entry: &Entry, held: &Held) {
        let facts = &held.facts;
        lines.put_some("type", held.chain.first().and_then(validation).map(|kind| kind.to_string()));
        lines.put("issuer", &facts.issuer);
        lines.put("key", &facts.key_kind.to_string());
        lines.put_some("fingerprint", held.chain.first().map(|leaf| format!("SHA-256 {}", colons(&fingerprint(leaf)))));
        lines.put_some("serial", held.chain.first().and_then(serial).map(|serial| colons(&serial)));
        lines.put("valid from", &self.at(facts.not_before));
        let left = match entry.days_left(self.now) {
            Some(0) => "ends within a day".to_owned(),
            Some(days @ 1..) => format!("{} left", counted(usize::try_from(days).unwrap_or_default(), "day")),
            _ => "over".to_owned(),
        };
        lines.put("valid until", &format!("{} ({left})", self.at(facts.not_after)));
        lines.put_some("revoked", held.revoked_at.map(|at| self.at(at)));
        let window = held.ari.and_then(|ari| ari.window);
        let window = window.map(|window| format!("{} to {}", self.at(window.start), self.at(window.end)));
        lines.put_some("renewal wished", window);
        let links = held.chain.iter().filter_map(subject_and_issuer);
        lines.list("chain", links.map(|(subject, issuer)| format!("{subject} → {issuer}")));
    }

    fn tell_attempts(&self, lines: &mut Lines, attempts: &Attempts) {
        let failures = usize::try_from(attempts.failures).unwrap_or(usize::MAX);
        let (first, last) = (self.at(attempts.first_at), self.at(attempts.last_at));
        let since = if failures == 1 { last } else { format!("from {first} to {last}") };
        lines.put("failed", &format!("{}, {since}", counted(failures, "time")));
        lines.put("the CA says", &attempts.problem);
        lines.put_some("advice", Some(attempts.advice.clone()).filter(|advice| !advice.is_empty()));
        let is_tried = self.wanted.as_ref().is_none_or(|wanted| wanted.subject_of(&attempts.subject).is_some());
        let next = if is_tried { self.at(attempts.next_at) } else { "none: it is not configured".to_owned() };
        lines.put("next attempt", &next);
    }
}

/// Where it came from, in words.
fn from(entry: &Entry) -> String {
    let files = entry.held.as_ref().and_then(|held| held.files.as_ref());
    match (files, entry.role) {
        (Some(pair), _) => format!("file {}", pair.cert.display()),
        (None, _) if entry.is_on_demand => format!("{} from {}, on demand", entry.source, entry.ca),
        (None, _) if entry.source == "internal" => "internal: made by Lockgate itself, no browser trusts it".to_owned(),
        (None, For::Domain(Role::Own | Role::Standby) | For::Fallback) if !entry.ca.is_empty() => {
            format!("{} from {}", entry.source, entry.ca)
        }
        _ => entry.source.to_owned(),
    }
}

/// Facts under each other, their words under a title.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    /// Authorities' words may have line breaks and characters that a terminal obeys.
    fn put(&mut self, title: &str, text: &str) {
        let text = text.replace(char::is_control, " ");
        _ = writeln!(self.0, "{title:<15} {text}");
    }

    fn put_some(&mut self, title: &str, text: Option<String>) {
        text.iter().for_each(|text| self.put(title, text));
    }

    /// One each line.
    fn list(&mut self, title: &str, texts: impl Iterator<Item = String>) {
        for (number, text) in texts.enumerate() {
            self.put(if number == 0 { title } else { "" }, &text);
        }
    }
}

/// `AB:CD`
fn colons(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":")
}

fn pem_of(held: &Held) -> String {
    let blocks: Vec<_> = held.chain.iter().map(|der| pem::Pem::new("CERTIFICATE", der.to_vec())).collect();
    pem::encode_many_config(&blocks, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}
