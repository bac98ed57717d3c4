//! From a file to a [`Config`].

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::de::DeTable;

use super::acme::Issuing;
use super::diagnostic::{Diagnostic, Diagnostics, Wrong, shown};
use super::domain::Domains;
use super::include::Included;
use super::keys;
use super::limits::{read_access_log, read_limits, read_log, read_plans, read_store};
use super::notes::note_issuance;
use super::origin::CaFiles;
use super::pieces::{cut, first_of};
use super::problems::{Problems, Verdict, syntax};
use super::reader::{Reader, Value};
use super::source::{Place, Source, Sources, Unreadable, read_named, read_regular};
use super::values::{choice, duration, integer_in, path, timezone, word_or};
use super::{Config, OnBroken, listen, vault};
use crate::certificate::PairPaths;
use crate::issuance::KeySource;
use crate::name::DomainName;

/// Larger files that are no TOML get one complaint, not all: one made of garbage has a fault every other octet.
const MAX_RECOVERED_BYTES: usize = 1024 * 1024;

/// Pieces of a long file that are parsed ahead, by another thread than the one that reads what they say.
const PIECES_AHEAD: usize = 1;

/// Where a process keeps what it must remember, unless the file says otherwise.
const DEFAULT_DATA_DIR: &str = "/var/lib/lockgate";

/// A configuration, and where its certificate pairs are written.
#[derive(Debug)]
pub struct Loaded {
    /// What the files say.
    pub config: Config,
    /// Every certificate pair, in the order of the files, as often as it is used. Nothing has been read of them.
    pub pairs: Vec<PairUse>,
    /// What is right but may not be meant.
    pub notes: Vec<Diagnostic>,
    /// What is named and not there, or not as it must be: the files that unlock the vault. A process starts without, and
    /// looks for it again and again.
    pub lacking: Vec<Diagnostic>,
    sources: Sources,
}

/// A certificate pair where it is used.
#[derive(Debug, Clone)]
pub struct PairUse {
    /// Its files.
    pub pair: PairPaths,
    /// Whose it is; `None`: `[fallback]`'s.
    pub domain: Option<DomainName>,
    pub(super) place: Place,
    pub(super) cert_place: Place,
    pub(super) key_place: Place,
}

/// What of a pair is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairPart {
    /// Both together.
    Pair,
    /// The certificate file.
    Cert,
    /// The key file.
    Key,
}

impl Loaded {
    /// The diagnostic of a pair that cannot be used, at its table.
    pub fn broken_pair(&self, pair: &PairUse, what: &str, remedy: &str) -> Diagnostic {
        self.broken_part(pair, PairPart::Pair, what, remedy)
    }

    /// The diagnostic of a pair that cannot be used, at what is to blame.
    pub fn broken_part(&self, pair: &PairUse, part: PairPart, what: &str, remedy: &str) -> Diagnostic {
        let wrong = Wrong::new(what, remedy);
        let (place, others): (_, &[_]) = match part {
            PairPart::Pair => (pair.place, &[(pair.cert_place, ""), (pair.key_place, "")]),
            PairPart::Cert => (pair.cert_place, &[]),
            PairPart::Key => (pair.key_place, &[]),
        };
        Problems::diagnostic(&self.sources, (place, ""), others, wrong)
    }
}

/// Reads the configuration `path` and the files that it includes, and checks everything but certificate pairs.
///
/// # Errors
/// Everything that is wrong, not only the first.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    match read_named(path) {
        Ok(text) => load_text(path, text),
        Err(e) => Err(Diagnostic::of_file(path, e.line(), unreadable("the configuration file", &e)).into()),
    }
}

/// What of `path` can be understood, and what is wrong with the rest: for commands that only look.
///
/// # Errors
/// If there is nothing to understand: the file cannot be read.
pub fn load_in_part(path: &Path) -> Result<(Config, Option<Diagnostics>), Diagnostics> {
    let text =
        read_named(path).map_err(|e| Diagnostic::of_file(path, e.line(), unreadable("the configuration file", &e)))?;
    let (config, _, problems) = read_pieces(path, std::slice::from_ref(&(0..text.len())), &text.into());
    Ok((config, problems.verdict().err()))
}

/// The data directory that `path` names, as far as the file can be read: enough to find the process that runs on it,
/// also and above all when the rest of the file is wrong.
pub fn data_dir_of(path: &Path) -> PathBuf {
    read_named(path).map_or_else(|_| PathBuf::from(DEFAULT_DATA_DIR), |text| data_dir_in(path, text))
}

/// The same of a long file, out of its beginning: what lies there can be read beside the rest. `None`: it is not long.
pub fn data_dir_ahead(path: &Path) -> Option<PathBuf> {
    first_of(path).map(|text| data_dir_in(path, text))
}

fn data_dir_in(path: &Path, text: String) -> PathBuf {
    let base = path.parent().unwrap_or(Path::new(""));
    let mut problems = Problems::default();
    let mut data_dir = PathBuf::from(DEFAULT_DATA_DIR);
    let (file, source) = problems.add_source(Source::new(path, text));
    let table = parse(file, &source, &mut problems);
    let top = Reader::open(&table, &keys::TOP, Place::new(file, 0..0), &mut problems);
    top.read_into("data_dir", &mut data_dir, &mut problems, |v| super::values::path(v, base));
    data_dir
}

/// Where what was metered lies, and whose days it is shown in.
#[derive(Debug)]
pub struct Home {
    /// Where the process keeps what it must remember.
    pub data_dir: PathBuf,
    /// Whose midnight begins a day; `None` if the file was not understood so far.
    pub timezone: Option<TimeZone>,
}

/// What of `path` it takes to read what was metered: the rest of the file may be wrong.
///
/// # Errors
/// If the file cannot be read, or names a time zone that is none.
pub fn home_of(path: &Path) -> Result<Home, Diagnostics> {
    let base = path.parent().unwrap_or(Path::new(""));
    let text =
        read_named(path).map_err(|e| Diagnostic::of_file(path, e.line(), unreadable("the configuration file", &e)))?;
    let mut problems = Problems::default();
    let (file, source) = problems.add_source(Source::new(path, text));
    let table = parse(file, &source, &mut problems);
    let top = Reader::open(&table, &keys::TOP, Place::new(file, 0..0), &mut problems);
    let mut data_dir = PathBuf::from(DEFAULT_DATA_DIR);
    top.read_into("data_dir", &mut data_dir, &mut problems, |v| super::values::path(v, base));
    let is_written = top.value("timezone").is_some();
    let timezone = top.read("timezone", &mut problems, timezone);
    if is_written && timezone.is_none() {
        problems.verdict()?;
        return Ok(Home { data_dir, timezone: None });
    }
    let is_default = !is_written && !problems.is_broken(top.place);
    Ok(Home { data_dir, timezone: timezone.or(is_default.then_some(TimeZone::UTC)) })
}

/// Where kept keys lie, and who can open them.
#[derive(Debug)]
pub struct VaultHome {
    /// Where the process keeps what it must remember.
    pub data_dir: PathBuf,
    /// `[vault]`.
    pub vault: KeySource,
}

/// What of `path` it takes to open the vault: the rest of the file may be wrong.
///
/// # Errors
/// If the file cannot be read, or `[vault]` cannot be followed.
pub fn vault_of(path: &Path) -> Result<VaultHome, Diagnostics> {
    let base = path.parent().unwrap_or(Path::new(""));
    let text =
        read_named(path).map_err(|e| Diagnostic::of_file(path, e.line(), unreadable("the configuration file", &e)))?;
    let text: Arc<str> = text.into();
    // Whatever else is in it and wrong: no program that is called gets the variables that it names.
    _ = read_pieces(path, std::slice::from_ref(&(0..text.len())), &text);
    let mut problems = Problems::default();
    let (file, source) = problems.add_source(Source::new(path, text));
    let table = parse(file, &source, &mut problems);
    let top = Reader::open(&table, &keys::TOP, Place::new(file, 0..0), &mut problems);
    let mut data_dir = PathBuf::from(DEFAULT_DATA_DIR);
    top.read_into("data_dir", &mut data_dir, &mut problems, |v| super::values::path(v, base));
    let vault = vault::read(&top, base, &data_dir, &mut CaFiles::default(), &mut problems);
    problems.verdict()?;
    Ok(VaultHome { data_dir, vault })
}

fn unreadable(what: &str, error: &Unreadable) -> Wrong {
    Wrong::new(format!("{what} {error}"), error.remedy())
}

/// [`load`], once the file is read.
pub(super) fn load_text(path: &Path, text: String) -> Result<Loaded, Diagnostics> {
    let text = Arc::from(text);
    // If anything is wrong, the whole text tells it best.
    match cut(&text).map(|pieces| load_pieces(path, &pieces, &text)) {
        Some(Ok(loaded)) => Ok(loaded),
        Some(Err(_)) | None => load_pieces(path, std::slice::from_ref(&(0..text.len())), &text),
    }
}

/// Reads the `pieces` of a file, of which all but the first hold domains alone.
fn load_pieces(path: &Path, pieces: &[Range<usize>], text: &Arc<str>) -> Result<Loaded, Diagnostics> {
    let (config, pairs, problems) = read_pieces(path, pieces, text);
    let Verdict { mut sources, notes, lacking } = problems.verdict()?;
    // Only of a pair something may still turn out to be wrong.
    if pairs.is_empty() {
        sources = Sources::default();
    }
    Ok(Loaded { config, pairs, notes, lacking, sources })
}

/// The same, whatever is wrong: what is, is left out.
fn read_pieces(path: &Path, pieces: &[Range<usize>], text: &Arc<str>) -> (Config, Vec<PairUse>, Problems) {
    let mut lines_before = 0;
    let mut sources = pieces.iter().map(|piece| {
        let source = Source::piece(path, text, piece.clone(), lines_before);
        lines_before += source.text().bytes().filter(|octet| *octet == b'\n').count();
        source
    });
    let base = path.parent().unwrap_or(Path::new(""));
    let mut problems = Problems::default();
    let (file, source) = problems.add_source(sources.next().unwrap_or_else(|| Source::new(path, "")));
    let table = parse(file, &source, &mut problems);
    let top = Reader::open(&table, &keys::TOP, Place::new(file, 0..0), &mut problems);

    let mut config = Config {
        path: path.to_owned(),
        data_dir: PathBuf::from(DEFAULT_DATA_DIR),
        timezone: TimeZone::UTC,
        on_broken_certificate: OnBroken::Fallback,
        shutdown_grace: Duration::from_secs(30),
        workers: None,
        listen: super::Listen::default(),
        limits: read_limits(&top, &mut problems),
        log: read_log(&top, &mut problems),
        access_log: read_access_log(&top, base, &mut problems),
        retention: read_store(&top, &mut problems),
        plans: read_plans(&top, &mut problems),
        fallback: None,
        acme: None,
        vault: KeySource::Made(PathBuf::new()),
        domains: [].into(),
        groups: Vec::new(),
    };
    read_top(&top, base, &mut config, &mut problems);
    let mut ca_files = CaFiles::default();
    let vault = vault::read(&top, base, &config.data_dir, &mut ca_files, &mut problems);
    let issuing = Issuing::read(&top, base, &mut ca_files, &mut problems);
    let listening = listen::read(&top, &mut problems);

    let mut domains = Domains::new((config.plans, !problems.is_broken(top.place)), issuing, ca_files);
    if let Some(table) = top.table("fallback", &keys::FALLBACK, &mut problems) {
        let pair = PairUse::read(&table, base, None, &mut problems);
        config.fallback = pair.as_ref().map(|pair| pair.pair.clone());
        domains.pairs.extend(pair);
    }
    domains.read_file(&top, base, &mut problems);
    let pieces: Vec<_> = sources.map(|piece| problems.add_source(piece)).collect();
    thread::scope(|scope| {
        let (parsed, tables) = mpsc::sync_channel(PIECES_AHEAD);
        let parse_ahead = || {
            let parsed = parsed;
            pieces.iter().try_for_each(|(_, source)| parsed.send(DeTable::parse(source.text()).ok()))
        };
        // Where there can be no thread, all of them are parsed here.
        _ = thread::Builder::new().spawn_scoped(scope, parse_ahead);
        for (file, source) in &pieces {
            let table = match tables.recv() {
                Ok(Some(table)) => table.into_inner(),
                _ => parse(*file, source, &mut problems),
            };
            let top = Reader::open(&table, &keys::TOP, Place::new(*file, 0..0), &mut problems);
            domains.read_file(&top, base, &mut problems);
        }
    });
    read_included(&top, path, base, &mut domains, &mut problems);
    listening.check_default(|name| domains.contains(name), &mut problems);
    domains.issuing.check_site(|name| domains.contains(name), &mut problems);
    note_issuance(&domains, path, &mut problems);

    let Domains { plans, sites, pairs, issuing, groups, .. } = domains;
    let groups = groups.list.into_iter().map(|(_, group)| group).collect();
    let acme = issuing.acme;
    config = Config { listen: listening.listen, plans, acme, vault, domains: sites.into(), groups, ..config };
    (config, pairs, problems)
}

fn read_top(top: &Reader, base: &Path, config: &mut Config, problems: &mut Problems) {
    top.read_into("data_dir", &mut config.data_dir, problems, |v| path(v, base));
    top.read_into("timezone", &mut config.timezone, problems, timezone);
    top.read_into("on_broken_certificate", &mut config.on_broken_certificate, problems, |v| {
        choice(v, &[("fallback", OnBroken::Fallback), ("refuse", OnBroken::Refuse)])
    });
    top.read_into("shutdown_grace", &mut config.shutdown_grace, problems, duration);
    top.read_into("workers", &mut config.workers, problems, |v| word_or(v, "auto", |v| integer_in(v, 1..=1024)));
}

fn read_included(top: &Reader, main: &Path, base: &Path, domains: &mut Domains, problems: &mut Problems) {
    let mut included = Included::new(main);
    let Some(patterns) = top.list("include", problems, |v| included.expand(Value::text(v)?, base)) else { return };
    for (place, file) in
        patterns.into_iter().flat_map(|(place, files)| files.into_iter().map(move |file| (place, file)))
    {
        match read_regular(&file) {
            Ok(text) => read_included_file(&file, text, domains, problems),
            Err(e) if e.line().is_some() => problems.report_file(&file, e.line(), unreadable("the included file", &e)),
            Err(e) => {
                problems.note_missing_domain();
                let mut wrong = unreadable(&format!("the included file `{}`", shown(&file.to_string_lossy())), &e);
                if matches!(e, Unreadable::Directory) {
                    wrong.remedy = "name its files with a pattern, as in \"domains.d/*.toml\"".to_owned();
                }
                problems.report(place, wrong);
            }
        }
    }
}

fn read_included_file(path: &Path, text: String, domains: &mut Domains, problems: &mut Problems) {
    let (file, source) = problems.add_source(Source::new(path, text));
    let table = parse(file, &source, problems);
    let reader = Reader::open(&table, &keys::INCLUDED, Place::new(file, 0..0), problems);
    domains.read_file(&reader, path.parent().unwrap_or(Path::new("")), problems);
}

/// The file's table, as far as it is TOML.
fn parse<'i>(file: u32, source: &'i Source, problems: &mut Problems) -> DeTable<'i> {
    let text = source.text();
    let error = match DeTable::parse(text) {
        Ok(table) => return table.into_inner(),
        Err(error) => error,
    };
    let (table, errors) = if text.len() <= MAX_RECOVERED_BYTES {
        let (table, errors) = DeTable::parse_recoverable(text);
        (table.into_inner(), errors)
    } else {
        (DeTable::new(), vec![error])
    };
    for error in errors {
        problems.report_syntax(Place::new(file, error.span().unwrap_or_default()), syntax(&error, text));
    }
    table
}
