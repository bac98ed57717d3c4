//! `lockgate usage export`

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tempfile::{NamedTempFile, TempPath};

use super::exported::{ExportedDomain, Format, Writer};
use super::range::Range;
use super::{progress, stdout};
use crate::cli::books::{Books, Place, parse_names};
use crate::cli::failure::Failure;
use crate::cli::text::counted;

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// Export these domains; without any, all
    #[arg(value_name = "DOMAIN")]
    domains: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    range: Range,
    /// How to write it; unless told, as the output file's name ends, and else JSON
    #[arg(long)]
    format: Option<Format>,
    /// Write to this file, which then is either there whole or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long, requires = "output")]
    force: bool,
}

impl Export {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let names = parse_names(&self.domains)?;
        let books = self.place.open().await?;
        let stored = books.stored_names().await?;
        if let Some(unknown) = names.iter().find(|name| stored.binary_search(name).is_err()) {
            return Err(books.unknown(unknown, &stored));
        }
        let dates = self.range.all_unless_told(books.today())?;
        let names = if names.is_empty() { stored } else { names };
        if names.is_empty() {
            eprintln!("{}", books.nothing());
        }
        let takes = |date| dates.contains(&date);
        match &self.output {
            None => _ = write_all(&books, &names, takes, self.format(), &mut stdout()).await?,
            Some(path) => {
                let taking = Taking { path, replaces: self.force };
                let mut file = BufWriter::new(taking.begin()?);
                let written = write_all(&books, &names, takes, self.format(), &mut file).await;
                let records = written.map_err(|failure| match failure {
                    Failure::Work(why) => Failure::Work(format!("{}: {why}", path.display())),
                    other => other,
                })?;
                taking.finish(file.into_inner().map_err(|error| taking.unwritable(error.error()))?)?;
                let (domains, records) = (counted(names.len(), "domain"), counted(records, "record"));
                let mut out = stdout();
                writeln!(out, "{}: {domains}, {records}", path.display())?;
                out.flush()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn format(&self) -> Format {
        let by_name = self.output.as_ref().and_then(|path| path.extension());
        let is_csv = by_name.is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        self.format.unwrap_or(if is_csv { Format::Csv } else { Format::Json })
    }
}

/// Returns how many records it wrote.
async fn write_all(
    books: &Books,
    names: &[Arc<str>],
    takes: impl Fn(jiff::civil::Date) -> bool,
    format: Format,
    out: &mut impl std::io::Write,
) -> Result<usize, Failure> {
    let mut records = 0;
    let mut writer = Writer::begin(format, out, books.now)?;
    let bar = progress(names.len(), "exporting");
    for name in names {
        if let Some(store) = &books.store
            && let Some(chain) = store.chain(name).await?
        {
            let exported = ExportedDomain::of(&chain, &takes);
            records += exported.records.len();
            writer.put(exported)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    writer.finish()?;
    Ok(records)
}

/// A file that takes an export: under another name until it is whole.
struct Taking<'p> {
    path: &'p Path,
    replaces: bool,
}

impl Taking<'_> {
    fn begin(&self) -> Result<NamedTempFile, Failure> {
        if self.path.is_dir() {
            return Err(Failure::Usage(format!("{} is a directory", self.path.display())));
        }
        if self.path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(Failure::Usage(format!("{} is no ordinary file", self.path.display())));
        }
        if !self.replaces && self.path.symlink_metadata().is_ok() {
            return Err(Failure::Usage(self.is_there()));
        }
        let directory = match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let prefix = self.path.file_name().unwrap_or_default();
        tempfile::Builder::new()
            .prefix(&[".".as_ref(), prefix].join("".as_ref()))
            .suffix(".new")
            .tempfile_in(directory)
            .map_err(|error| self.unwritable(&error))
    }

    fn finish(&self, file: NamedTempFile) -> Result<(), Failure> {
        let mut file = file;
        file.flush().and_then(|()| file.as_file().sync_all()).map_err(|error| self.unwritable(&error))?;
        let unfinished: TempPath = file.into_temp_path();
        let persisted = match self.replaces {
            true => unfinished.persist(self.path),
            false => unfinished.persist_noclobber(self.path),
        };
        persisted.map_err(|failed| match failed.error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::Usage(self.is_there()),
            _ => self.unwritable(&failed.error),
        })
    }

    fn is_there(&self) -> String {
        format!("{} is there already: name another file, or replace it with --force", self.path.display())
    }

    fn unwritable(&self, error: &std::io::Error) -> Failure {
        Failure::Work(format!("{} cannot be written: {error}", self.path.display()))
    }
}
