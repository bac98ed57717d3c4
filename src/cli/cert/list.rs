//! `lockgate cert list`

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use clap::Args;
use glob::Pattern;

use super::entry::{Entry, State};
use super::gather::{Gathered, Place};
use super::json::{Answer, certificate};
use crate::certificate::Facts;
use crate::cli::failure::Failure;
use crate::cli::text::{Edge, counted, local, table};
use crate::name::DomainName;

/// An issuer's distinguished name says a country and more; of what is left, so many characters fit into a table.
const ISSUER_CHARS: usize = 32;

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Only of these names: a part of one, or a pattern with `*`
    #[arg(value_name = "PATTERN")]
    names: Vec<String>,
    /// The same
    #[arg(long = "name", value_name = "PATTERN")]
    more_names: Vec<String>,
    /// Only in this state
    #[arg(long)]
    state: Vec<State>,
    /// Only of issuers whose name, or address, has this in it
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
    /// Those that were replaced, too
    #[arg(long)]
    all: bool,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What a name is to be like.
enum Like {
    Part(String),
    Pattern(Pattern),
}

impl Like {
    fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.to_lowercase();
        if !text.contains(['*', '?']) {
            return Ok(Self::Part(text));
        }
        let wrong = |error| Failure::Usage(format!("`{text}` is no pattern: {error}; write `*` for any characters"));
        Pattern::new(&text).map(Self::Pattern).map_err(wrong)
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Part(part) => name.contains(part),
            Self::Pattern(pattern) => pattern.matches(name),
        }
    }
}

impl List {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let likes = self.names.iter().chain(&self.more_names).map(|text| Like::parse(text));
        let likes = likes.collect::<Result<Vec<_>, _>>()?;
        let gathered = self.place.gather().await?;
        let found: Vec<_> = gathered.entries.iter().filter(|entry| self.wants(entry, &likes)).collect();
        let mut states = BTreeMap::<State, usize>::new();
        for entry in &found {
            *states.entry(entry.state).or_default() += 1;
        }
        let is_in_state = |entry: &&&Entry| self.state.is_empty() || self.state.contains(&entry.state);
        let shown: Vec<_> = found.iter().filter(is_in_state).copied().collect();
        let mut out = BufWriter::new(io::stdout().lock());
        if self.json {
            let certificates = shown.iter().map(|entry| certificate(entry, &gathered, false)).collect();
            let answer = Answer { certificates, states, notes: &gathered.notes };
            serde_json::to_writer(&mut out, &answer).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            gathered.print_notes();
            write!(out, "{}", in_words(&shown, &states, &gathered))?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, entry: &Entry, likes: &[Like]) -> bool {
        let is_called = |like: &Like| {
            like.fits(&entry.name.to_lowercase()) || entry.names.iter().any(|name| like.fits(name.as_str()))
        };
        let is_by = |issuer: &String| {
            let of_leaf = entry.held.as_ref().map(|held| &*held.facts.issuer).unwrap_or_default();
            [of_leaf, &entry.ca].iter().any(|text| text.to_lowercase().contains(&issuer.to_lowercase()))
        };
        (self.all || entry.is_newest)
            && (likes.is_empty() || likes.iter().any(is_called))
            && self.issuer.as_ref().is_none_or(is_by)
    }
}

impl Gathered {
    /// Says what could not be read, beside the answer.
    pub(super) fn print_notes(&self) {
        for note in &self.notes {
            eprintln!("note: {note}");
        }
    }

    /// When a certificate ends, with the days until then.
    pub(super) fn end(&self, entry: &Entry) -> String {
        let (Some(end), Some(days)) = (entry.not_after(), entry.days_left(self.now)) else { return String::new() };
        let date = local(end, &self.zone, "%Y-%m-%d");
        let count = |days: i64| counted(usize::try_from(days).unwrap_or_default(), "day");
        match days {
            0 => format!("{date} (within a day)"),
            1.. => format!("{date} ({})", count(days)),
            _ => format!("{date} ({} ago)", count(-days)),
        }
    }
}

pub(super) fn in_words(shown: &[&Entry], states: &BTreeMap<State, usize>, gathered: &Gathered) -> String {
    if states.is_empty() {
        return format!("no certificates in {}\n", gathered.data_dir.display());
    }
    let rows: Vec<_> = shown.iter().map(|entry| row(entry, gathered)).collect();
    let columns = [
        ("ID", Edge::Right),
        ("NAME", Edge::Left),
        ("STATE", Edge::Left),
        ("SOURCE", Edge::Left),
        ("ISSUER", Edge::Left),
        ("KEY", Edge::Left),
        ("EXPIRES", Edge::Left),
        ("NAMES", Edge::Right),
    ];
    let counts = State::ALL.iter().filter_map(|state| Some(format!("{state} {}", states.get(state)?)));
    format!("{}\n{}\n", table(columns, &rows), counts.collect::<Vec<_>>().join(", "))
}

fn row(entry: &Entry, gathered: &Gathered) -> [String; 8] {
    let facts = entry.held.as_ref().map(|held| &held.facts);
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let role = entry.role.label();
    [
        dash(entry.id.map(|id| id.0.to_string())),
        if role == "standby" { format!("{} (standby)", entry.name) } else { entry.name.clone() },
        entry.state.to_string(),
        source(entry),
        dash(facts.map(issuer).or_else(|| authority(&entry.ca))),
        dash(facts.map(|facts| facts.key_kind.to_string())),
        dash(facts.map(|_| gathered.end(entry))),
        entry.names.iter().collect::<std::collections::HashSet<&DomainName>>().len().to_string(),
    ]
}

/// Where it came from, and whether the internal authority serves in its place.
fn source(entry: &Entry) -> String {
    match entry.source {
        "internal" => "internal".to_owned(),
        source if entry.is_internal_serving => format!("{source} (internal serves)"),
        source => source.to_owned(),
    }
}

/// What of an issuer's name tells it from others: the common name, or all of it.
fn issuer(facts: &Facts) -> String {
    let common_name = facts.issuer.split(", ").find_map(|part| part.strip_prefix("CN="));
    common_name.unwrap_or(&facts.issuer).chars().take(ISSUER_CHARS).collect()
}

/// The host of a directory's URL.
fn authority(ca: &str) -> Option<String> {
    let host = ca.split_once("://").map_or(ca, |(_, rest)| rest).split('/').next()?;
    (!host.is_empty()).then(|| host.chars().take(ISSUER_CHARS).collect())
}
