//! What is wrong with a configuration: where, what, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde::Serialize;

use super::source::Source;

/// How many diagnostics [`Diagnostics::render`] writes out.
pub const MAX_RENDERED: usize = 100;

/// Longer stretches of a file are not quoted: a machine-made file may be one line.
const MAX_EXCERPT_BYTES: usize = 4096;

/// Marks at most this many lines apart are shown in one excerpt.
const MAX_EXCERPT_LINES: usize = 20;

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but may not do what is expected of it.
    Note,
}

/// What is wrong and what would be right: the words of a diagnostic, before it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl Wrong {
    /// Both sentences, without a full stop.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// One thing wrong. Serializes as `{severity, file, line, message, remedy}`.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// The file it is in.
    pub file: PathBuf,
    /// The line, from 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
    /// What to show of the files; the first is where the fault is.
    #[serde(skip)]
    marks: Vec<Mark>,
}

/// A marked stretch of a file.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
    pub(super) label: &'static str,
}

impl Diagnostic {
    /// An error of a file as a whole, or of one that cannot be shown.
    pub fn of_file(file: &Path, line: Option<usize>, wrong: Wrong) -> Self {
        let Wrong { message, remedy } = wrong;
        Self { severity: Severity::Error, file: file.to_owned(), line, message, remedy, marks: Vec::new() }
    }

    /// An error at `mark`; `others` explain it.
    pub(super) fn at(mark: Mark, others: Vec<Mark>, wrong: Wrong) -> Self {
        let line = mark.source.line(mark.span.start);
        let mut diagnostic = Self::of_file(&mark.source.path, Some(line), wrong);
        diagnostic.marks.push(mark);
        diagnostic.marks.extend(others);
        diagnostic
    }

    /// The same, as no more than a note.
    pub(super) fn into_note(mut self) -> Self {
        self.severity = Severity::Note;
        self
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Note => Level::NOTE,
        };
        let group = Group::with_title(level.primary_title(&self.message));
        let mut group = match self.snippets() {
            Some(snippets) => group.elements(snippets),
            None => {
                let origin = Origin::path(self.file.to_string_lossy());
                group.element(match self.line {
                    Some(line) => origin.line(line),
                    None => origin,
                })
            }
        };
        if !self.remedy.is_empty() {
            group = group.element(Level::HELP.message(normalize_untrusted_str(&self.remedy)));
        }
        renderer.render(&[group])
    }

    /// The marked lines: in one excerpt where they are close together. `None` if they are too long to show.
    fn snippets(&self) -> Option<Vec<Snippet<'_, Annotation<'_>>>> {
        let first = self.marks.first()?;
        if let Some(together) = snippet(&first.source, &self.marks) {
            return Some(vec![together]);
        }
        let single = |mark| snippet(&first.source, std::slice::from_ref(mark));
        let primary = single(first)?;
        let others = self.marks.iter().skip(1).filter_map(|mark| {
            let line = mark.source.line(mark.span.start);
            let excerpt = excerpt(&mark.source, line, line)?;
            let annotation = annotation(&excerpt, mark, AnnotationKind::Context);
            Some(excerpt.snippet(&mark.source).annotation(annotation))
        });
        Some(std::iter::once(primary).chain(others).collect())
    }
}

/// Whole lines of a file.
struct Excerpt<'a> {
    text: &'a str,
    start: usize,
    first_line: usize,
}

impl<'a> Excerpt<'a> {
    fn snippet(&self, source: &'a Source) -> Snippet<'a, Annotation<'a>> {
        Snippet::source(self.text).line_start(self.first_line).path(source.path.to_string_lossy())
    }
}

fn excerpt(source: &Source, first_line: usize, last_line: usize) -> Option<Excerpt<'_>> {
    let span = source.line_span(first_line).start..source.line_span(last_line).end;
    let start = span.start;
    let text = source.text().get(span).filter(|text| text.len() <= MAX_EXCERPT_BYTES)?;
    (last_line - first_line <= MAX_EXCERPT_LINES).then_some(Excerpt { text, start, first_line })
}

/// All marks in one excerpt, the first of them the primary one, if they are in `source` and close together.
fn snippet<'a>(source: &'a Arc<Source>, marks: &'a [Mark]) -> Option<Snippet<'a, Annotation<'a>>> {
    if marks.iter().any(|mark| !Arc::ptr_eq(source, &mark.source)) {
        return None;
    }
    let lines = || marks.iter().map(|mark| source.line(mark.span.start));
    let excerpt = excerpt(source, lines().min()?, lines().max()?)?;
    let annotations = marks.iter().enumerate().map(|(at, mark)| {
        annotation(&excerpt, mark, if at == 0 { AnnotationKind::Primary } else { AnnotationKind::Context })
    });
    Some(excerpt.snippet(source).annotations(annotations))
}

/// The mark within the excerpt; of several lines the first.
fn annotation<'a>(excerpt: &Excerpt<'_>, mark: &'a Mark, kind: AnnotationKind) -> Annotation<'a> {
    let line = mark.source.line_span(mark.source.line(mark.span.start));
    let start = mark.span.start.min(line.end);
    let end = mark.span.end.clamp(start, line.end);
    let annotation = kind.span(start.saturating_sub(excerpt.start)..end.saturating_sub(excerpt.start));
    if mark.label.is_empty() { annotation } else { annotation.label(mark.label) }
}

/// In one line, without what it is about.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {}", self.message, self.remedy)
    }
}

/// Everything wrong, in the order of the files.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// Found, but not kept: a machine-made file can have millions of faults.
    not_kept: usize,
}

impl Diagnostics {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn with_more(list: Vec<Diagnostic>, not_kept: usize) -> Self {
        Self { list, not_kept }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are, those included that were counted and not kept.
    pub fn len(&self) -> usize {
        self.list.len() + self.not_kept
    }

    /// Adds one at the end.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Those that were kept, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// For people: each with the lines it is about, at most [`MAX_RENDERED`] of them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut parts: Vec<String> =
            self.list.iter().take(MAX_RENDERED).map(|diagnostic| diagnostic.render(&renderer)).collect();
        let more = self.len() - parts.len();
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        parts.join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<T: IntoIterator<Item = Diagnostic>>(list: T) -> Self {
        Self { list: list.into_iter().collect(), not_kept: 0 }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic], not_kept: 0 }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// `text` as a message quotes it: control characters made visible, long texts cut.
pub(super) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut shown: String = text
        .chars()
        .take(MAX_CHARS)
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(n: usize) -> Diagnostic {
        Diagnostic::of_file(Path::new("a.toml"), Some(n), Wrong::new(format!("number {n}"), "another"))
    }

    #[test]
    fn serializes_without_its_excerpts() {
        let source = Arc::new(Source::new(Path::new("a.toml"), "x = 1\ny = 2\n".to_owned()));
        let mark = Mark { source, span: 6..7, label: "" };
        let json = serde_json::to_value(Diagnostic::at(mark, Vec::new(), Wrong::new("what", "how"))).unwrap();
        let expected = serde_json::json!(
            {"severity": "error", "file": "a.toml", "line": 2, "message": "what", "remedy": "how"}
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn a_flood_is_cut_short_and_counted() {
        let mut diagnostics = Diagnostics::with_more((1..=150).map(wrong).collect(), 7);
        diagnostics.push(wrong(151));
        assert_eq!(diagnostics.len(), 158);
        let rendered = diagnostics.render(false);
        assert!(rendered.contains("number 100\n") && !rendered.contains("number 101\n"));
        assert!(rendered.ends_with("and 58 more"), "{rendered}");
    }

    #[test]
    fn a_very_long_line_is_named_and_not_shown() {
        let source = Arc::new(Source::new(Path::new("a.toml"), format!("\n{}", "x".repeat(MAX_EXCERPT_BYTES + 1))));
        let mark = Mark { source, span: 5..9, label: "" };
        let rendered = Diagnostics::from(Diagnostic::at(mark, Vec::new(), Wrong::new("what", "how"))).to_string();
        insta::assert_snapshot!(rendered, @r#"
    error: what
    --> a.toml:2
     = help: how
    "#);
    }

    #[test]
    fn what_a_file_says_cannot_steer_the_terminal() {
        let source = Arc::new(Source::new(Path::new("a.toml"), "x = '\u{1b}[31m'".to_owned()));
        let mark = Mark { source, span: 4..11, label: "" };
        let wrong = Wrong::new("bad \u{1b}[31m", "good \u{1b}[31m");
        let rendered = Diagnostics::from(Diagnostic::at(mark, Vec::new(), wrong)).to_string();
        assert!(!rendered.contains('\u{1b}'), "{rendered:?}");
        assert_eq!(shown("a\u{1b}[0m\nb"), "a\\u{1b}[0m\\nb");
    }
}
