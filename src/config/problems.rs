//! Gathers everything wrong while the files are read, so that all of it is reported together.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Diagnostics, Mark, Wrong, shown};
use super::source::{Place, Source, Sources};

/// How many are kept; the rest is counted. A machine-made file can have millions of faults.
const MAX_KEPT: usize = 10_000;

/// The files read so far and what is wrong with them.
#[derive(Debug, Default)]
pub struct Problems {
    sources: Sources,
    found: Vec<(Option<Place>, Diagnostic)>,
    /// What is right but may not be meant, in the order found.
    notes: Vec<Diagnostic>,
    /// What is named and not there: it may come any moment, and nothing is refused for it but by `check`.
    lacking: Vec<(Option<Place>, Diagnostic)>,
    /// What the notes say: of a file that a thousand domains name, one note is enough.
    noted: HashSet<String>,
    not_kept: usize,
    /// Lines that are no TOML: what was made of them is not worth a second complaint.
    broken_lines: HashSet<(u32, usize)>,
    /// Files with such lines: what is missing from them may just not have been understood.
    broken_files: HashSet<u32>,
    /// Domains are missing from what was read, so nothing can be said about names that are not there.
    domains_missing: bool,
}

/// Files with nothing wrong in them.
#[derive(Debug)]
pub struct Verdict {
    /// The files.
    pub sources: Sources,
    /// What is right but may not be meant.
    pub notes: Vec<Diagnostic>,
    /// What is named and not there.
    pub lacking: Vec<Diagnostic>,
}

impl Problems {
    /// Takes in a file that was read.
    pub fn add_source(&mut self, source: Source) -> (u32, Arc<Source>) {
        self.sources.add(source)
    }

    /// Something is wrong at `place`.
    pub fn report(&mut self, place: Place, wrong: Wrong) {
        self.report_as(place, || wrong);
    }

    /// Like [`Problems::report`], for words that take time to find: they may not be needed.
    pub fn report_as(&mut self, place: Place, wrong: impl FnOnce() -> Wrong) {
        self.report_with((place, ""), None, wrong);
    }

    /// Something is wrong at `place` because of what stands at `other`; both labelled.
    pub fn report_both(&mut self, place: (Place, &'static str), other: (Place, &'static str), wrong: Wrong) {
        self.report_with(place, Some(other), || wrong);
    }

    /// Something that the table at `place` ought to have is not there.
    pub fn report_missing(&mut self, place: Place, wrong: Wrong) {
        if !self.is_broken(place) {
            self.report(place, wrong);
        }
    }

    /// Something is wrong with a file that could not be read, at `line` of it if that is known.
    pub fn report_file(&mut self, file: &Path, line: Option<usize>, wrong: Wrong) {
        self.domains_missing = true;
        if self.has_room() {
            self.found.push((None, Diagnostic::of_file(file, line, wrong)));
        }
    }

    /// What `place` names is not there, or cannot be used as it is now.
    pub fn lack(&mut self, place: Place, wrong: Wrong) {
        let diagnostic = Self::diagnostic(&self.sources, (place, ""), &[], wrong);
        self.lacking.push((Some(place), diagnostic));
    }

    /// What stands at `place` is right but may not be meant.
    pub fn note(&mut self, place: Place, wrong: Wrong) {
        let note = Self::diagnostic(&self.sources, (place, ""), &[], wrong);
        self.add_note(note);
    }

    /// The same of `file` as a whole.
    pub fn note_file(&mut self, file: &Path, wrong: Wrong) {
        self.add_note(Diagnostic::of_file(file, None, wrong));
    }

    fn add_note(&mut self, note: Diagnostic) {
        if self.notes.len() < MAX_KEPT && self.noted.insert(note.message.clone()) {
            self.notes.push(note.into_note());
        }
    }

    /// The file's text is no TOML at `place`. One complaint a line: a parser that lost its way has many.
    pub fn report_syntax(&mut self, place: Place, wrong: Wrong) {
        if !self.is_on_broken_line(place) {
            self.report(place, wrong);
            if let Some(source) = self.sources.of(place) {
                self.broken_lines.insert((place.file(), source.line(place.span().start)));
            }
        }
        self.broken_files.insert(place.file());
        self.domains_missing = true;
    }

    /// Not all domains that were written could be read.
    pub fn note_missing_domain(&mut self) {
        self.domains_missing = true;
    }

    /// Whether all domains that were written could be read.
    pub fn has_all_domains(&self) -> bool {
        !self.domains_missing
    }

    /// Whether parts of the file that `place` is in were not understood.
    pub fn is_broken(&self, place: Place) -> bool {
        self.broken_files.contains(&place.file())
    }

    /// The diagnostic of what is wrong at a place; `others` explain it.
    pub fn diagnostic(
        sources: &Sources,
        at: (Place, &'static str),
        others: &[(Place, &'static str)],
        wrong: Wrong,
    ) -> Diagnostic {
        let mark = |(place, label): (Place, &'static str)| {
            sources.of(place).map(|source| Mark { source: Arc::clone(source), span: place.span(), label })
        };
        match mark(at) {
            Some(first) => Diagnostic::at(first, others.iter().copied().filter_map(mark).collect(), wrong),
            None => Diagnostic::of_file(Path::new(""), None, wrong),
        }
    }

    /// The files, if nothing is wrong with them; else everything that is, in the order of the files.
    ///
    /// # Errors
    /// What was reported, and what is lacking.
    pub fn verdict(mut self) -> Result<Verdict, Diagnostics> {
        if self.found.is_empty() {
            let lacking = self.lacking.into_iter().map(|(_, diagnostic)| diagnostic).collect();
            return Ok(Verdict { sources: self.sources, notes: self.notes, lacking });
        }
        self.found.append(&mut self.lacking);
        self.found.sort_by_key(|(place, _)| *place);
        let list = self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        Err(Diagnostics::with_more(list, self.not_kept))
    }

    fn report_with(
        &mut self,
        at: (Place, &'static str),
        other: Option<(Place, &'static str)>,
        wrong: impl FnOnce() -> Wrong,
    ) {
        if !self.is_on_broken_line(at.0) && self.has_room() {
            let diagnostic = Self::diagnostic(&self.sources, at, other.as_slice(), wrong());
            self.found.push((Some(at.0), diagnostic));
        }
    }

    /// Whether one more is kept; else it is counted.
    fn has_room(&mut self) -> bool {
        let has_room = self.found.len() < MAX_KEPT;
        self.not_kept += usize::from(!has_room);
        has_room
    }

    fn is_on_broken_line(&self, place: Place) -> bool {
        self.is_broken(place)
            && self
                .sources
                .of(place)
                .is_some_and(|source| self.broken_lines.contains(&(place.file(), source.line(place.span().start))))
    }
}

/// The words for what the TOML parser says of `text`.
pub fn syntax(error: &toml::de::Error, text: &str) -> Wrong {
    let at = error.span().and_then(|span| text.get(span)).map(str::trim).unwrap_or_default();
    let (what, expected) = match error.message().split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (error.message(), None),
    };
    match what {
        "string values must be quoted" if !at.is_empty() => {
            let message = format!("the text `{}` is not in quotes", shown(at));
            Wrong::new(message, format!("write \"{}\"", shown(at)))
        }
        "duplicate key" => {
            let message = format!("`{}` is written twice", shown(at));
            Wrong::new(message, "write it once; tables that may repeat have two brackets, as in `[[domain]]`")
        }
        "invalid basic string" | "invalid literal string" => {
            let message = "the text in quotes does not end on its line, or has a character that must be escaped";
            Wrong::new(message, "end it with the quote that it begins with")
        }
        "string values must be quoted" | "key with no value" | "missing value for key" | "missing value" => {
            Wrong::new("a key without a value", "write `key = value`, or begin the line with `#`")
        }
        _ => {
            let remedy = match expected {
                Some("nothing") | None => "correct the line, or begin it with `#`".to_owned(),
                Some(expected) => format!("expected here: {expected}"),
            };
            Wrong::new(format!("not TOML: {what}"), remedy)
        }
    }
}
