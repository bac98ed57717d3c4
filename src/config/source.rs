//! The files of a configuration and places in them.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The largest configuration file that is read, each included one on its own: 100,000 domains take about 20 MiB.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A file as read.
pub struct Source {
    /// As the operator or the including file named it.
    pub path: PathBuf,
    /// All of it, whichever piece of it this is.
    whole: Arc<str>,
    /// The piece's octets.
    piece: Range<usize>,
    /// Lines of the file before the piece.
    lines_before: usize,
    /// Where lines start. Made at the first question: a file without errors is never asked.
    line_starts: OnceLock<Vec<usize>>,
}

impl Source {
    /// A file and what it holds.
    pub fn new(path: &Path, text: impl Into<Arc<str>>) -> Self {
        let whole = text.into();
        Self::piece(path, &whole, 0..whole.len(), 0)
    }

    /// A piece of a file, and how many lines come before it.
    pub fn piece(path: &Path, whole: &Arc<str>, piece: Range<usize>, lines_before: usize) -> Self {
        Self { path: path.to_owned(), whole: Arc::clone(whole), piece, lines_before, line_starts: OnceLock::new() }
    }

    /// All of it, or of the piece.
    pub fn text(&self) -> &str {
        self.whole.get(self.piece.clone()).unwrap_or_default()
    }

    /// The line, from 1, that `offset` is in.
    pub fn line(&self, offset: usize) -> usize {
        self.lines_before + self.line_starts().partition_point(|start| *start <= offset)
    }

    /// The octets of `line`, without its end.
    pub fn line_span(&self, line: usize) -> Range<usize> {
        let starts = self.line_starts();
        let line = line.saturating_sub(self.lines_before);
        let start = starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text().len());
        let end = starts.get(line).copied().unwrap_or(self.text().len());
        let text = self.text().get(start..end).unwrap_or_default();
        start..start + text.trim_end_matches(['\r', '\n']).len()
    }

    fn line_starts(&self) -> &[usize] {
        self.line_starts
            .get_or_init(|| std::iter::once(0).chain(self.text().match_indices('\n').map(|(at, _)| at + 1)).collect())
    }
}

/// Its name alone: the text may be long.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A stretch of one file. Small, because every certificate of every domain has some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    file: u32,
    start: u32,
    end: u32,
}

impl Place {
    /// The octets `span` of the file that [`Sources::add`] called `file`. `MAX_FILE_BYTES` fits 32 bits.
    pub fn new(file: u32, span: Range<usize>) -> Self {
        let octet = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { file, start: octet(span.start), end: octet(span.end) }
    }

    /// Which file.
    pub fn file(self) -> u32 {
        self.file
    }

    /// Which octets.
    pub fn span(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Every file of a configuration, the main one first.
#[derive(Debug, Default)]
pub struct Sources(Vec<Arc<Source>>);

impl Sources {
    /// Takes a file in and numbers it.
    pub fn add(&mut self, source: Source) -> (u32, Arc<Source>) {
        let source = Arc::new(source);
        self.0.push(Arc::clone(&source));
        (u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX), source)
    }

    /// The file that `place` is in.
    pub fn of(&self, place: Place) -> Option<&Arc<Source>> {
        self.0.get(place.file as usize)
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// What the operating system says, symlink loops included.
    #[error("cannot be read: {0}")]
    Os(#[from] io::Error),
    /// A directory, where a file was meant.
    #[error("is a directory")]
    Directory,
    /// A pipe or a device: reading one could wait for ever.
    #[error("is not a regular file")]
    Special,
    /// Over [`MAX_FILE_BYTES`].
    #[error("is larger than {} MiB", MAX_FILE_BYTES / (1024 * 1024))]
    TooLarge,
    /// Not UTF-8.
    #[error("is not UTF-8 text")]
    NotText {
        /// The first line with an octet that is none.
        line: usize,
    },
}

impl Unreadable {
    /// What would be right.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Os(e) if e.kind() == io::ErrorKind::NotFound => "create it, or correct the path",
            Self::Os(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                "let the user that runs lockgate read it and enter its directories"
            }
            Self::Os(_) => "make it a readable file",
            Self::Directory => "name a file in it",
            Self::Special => "name a regular file",
            Self::TooLarge => "spread the domains over several files and name them in `include`",
            Self::NotText { .. } => "save it as UTF-8",
        }
    }

    /// The line of the fault, where it is in the text.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::NotText { line } => Some(*line),
            _ => None,
        }
    }
}

/// Reads the file an operator named on the command line, which may be a pipe.
///
/// # Errors
/// [`Unreadable`] says why not.
pub fn read_named(path: &Path) -> Result<String, Unreadable> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Unreadable::Directory);
    }
    // Where the size is known, what is too large costs no memory.
    if metadata.len() > MAX_FILE_BYTES {
        return Err(Unreadable::TooLarge);
    }
    let mut octets = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MAX_FILE_BYTES {
        return Err(Unreadable::TooLarge);
    }
    String::from_utf8(octets).map_err(|e| {
        let good = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        Unreadable::NotText { line: 1 + good.iter().filter(|b| **b == b'\n').count() }
    })
}

/// Reads a file that a configuration names: a regular one.
///
/// # Errors
/// [`Unreadable`] says why not.
pub fn read_regular(path: &Path) -> Result<String, Unreadable> {
    regular(path)?;
    read_named(path)
}

/// Whether a file that a configuration names could be read, which is not done: what is in it is no text, or secret.
///
/// # Errors
/// [`Unreadable`] says why not.
pub fn open_regular(path: &Path) -> Result<Metadata, Unreadable> {
    regular(path)?;
    Ok(File::open(path)?.metadata()?)
}

fn regular(path: &Path) -> Result<(), Unreadable> {
    let kind = path.metadata()?.file_type();
    if kind.is_dir() {
        return Err(Unreadable::Directory);
    }
    if kind.is_file() { Ok(()) } else { Err(Unreadable::Special) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", 0, 1, "")]
    #[case("a\nbc\r\n\nd", 0, 1, "a")]
    #[case("a\nbc\r\n\nd", 1, 1, "a")]
    #[case("a\nbc\r\n\nd", 3, 2, "bc")]
    #[case("a\nbc\r\n\nd", 6, 3, "")]
    #[case("a\nbc\r\n\nd", 7, 4, "d")]
    #[case("a\nbc\r\n\nd", 8, 4, "d")]
    #[case("a\n", 2, 2, "")]
    fn offsets_have_lines(#[case] text: &str, #[case] offset: usize, #[case] line: usize, #[case] content: &str) {
        let source = Source::new(Path::new("f"), text.to_owned());
        assert_eq!((source.line(offset), &text[source.line_span(line)]), (line, content));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, octets: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, octets).unwrap();
            path
        };
        let latin1 = read_named(&file("latin1", b"a\nb\nM\xfcnchen")).unwrap_err();
        assert_eq!(latin1.line(), Some(3));
        assert!(matches!(read_named(dir.path()), Err(Unreadable::Directory)));
        assert!(matches!(read_regular(Path::new("/dev/null")), Err(Unreadable::Special)));
        let large = file("large", b"");
        File::options().write(true).open(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(read_named(&large), Err(Unreadable::TooLarge)));
        let around = dir.path().join("around");
        std::os::unix::fs::symlink(&around, &around).unwrap();
        assert!(matches!(read_regular(&around), Err(Unreadable::Os(_))));
    }
}
