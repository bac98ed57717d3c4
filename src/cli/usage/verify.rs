//! `lockgate usage verify`

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::compare::{Finding, compare};
use super::exported;
use super::{print_json, progress, stdout};
use crate::cli::books::{Books, Place, parse_names};
use crate::cli::failure::Failure;
use crate::cli::text::{counted, thousands};
use crate::store::StoreError;
use crate::usage::Chain;

/// Domains of an export that are read ahead.
const READ_AHEAD: usize = 64;

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// Check these domains; without any, all
    #[arg(value_name = "DOMAIN")]
    domains: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Check against an earlier export, too: a chain that was rebuilt whole shows only so
    #[arg(long, value_name = "EXPORT")]
    against: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, and what was found.
#[derive(Default)]
struct Verdict {
    domains: usize,
    records: usize,
    findings: Vec<(Arc<str>, Finding)>,
}

impl Verify {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut names = parse_names(&self.domains)?;
        let books = self.place.open().await?;
        let stored = books.stored_names().await?;
        let wanted: HashSet<_> = names.iter().cloned().collect();
        let known: HashSet<_> = stored.iter().cloned().collect();
        let mut unknown: HashSet<_> = wanted.difference(&known).cloned().collect();
        names.retain(|name| known.contains(name));
        let checked = if wanted.is_empty() { &stored } else { &names };

        let mut verdict = Verdict::default();
        if let (None, Some(name)) = (&self.against, unknown.iter().next()) {
            return Err(books.unknown(name, &stored));
        }
        verdict.check_all(&books, checked).await?;
        if let Some(path) = &self.against {
            if let Err(broken) = verdict.compare_all(&books, path, &wanted, &mut unknown).await {
                // What was found before it is not lost for it.
                let has_flaws = !verdict.findings.is_empty();
                let flawed = if has_flaws { Some(self.tell(&books, verdict)?) } else { None };
                let code = broken.report();
                return Ok(flawed.unwrap_or(code));
            }
            if let Some(name) = unknown.iter().next() {
                return Err(books.unknown(name, &stored));
            }
        }
        self.tell(&books, verdict)
    }

    fn tell(&self, books: &Books, verdict: Verdict) -> Result<ExitCode, Failure> {
        let Verdict { domains, records, findings } = verdict;
        if self.json {
            let flaws = findings.iter().map(|(domain, Finding { record, date, what })| {
                json!({ "domain": domain, "record": record, "date": date, "what": what })
            });
            let flaws: Vec<_> = flaws.collect();
            print_json(&json!({ "ok": flaws.is_empty(), "domains": domains, "records": records, "flaws": flaws }))?;
        } else {
            let mut out = stdout();
            for (domain, finding) in &findings {
                writeln!(out, "{domain}: {}", finding.what)?;
            }
            let looked_at = format!("{}, {}", counted(domains, "domain"), counted(records, "record"));
            match (findings.len(), &self.against) {
                (0, None) if domains == 0 => writeln!(out, "{}", books.nothing())?,
                (0, None) => writeln!(out, "{looked_at}: sound")?,
                (0, Some(_)) => writeln!(out, "{looked_at}: sound, and as exported")?,
                (1, _) => writeln!(out, "{looked_at}: 1 flaw")?,
                (flaws, _) => writeln!(out, "{looked_at}: {} flaws", thousands(flaws as u64))?,
            }
            out.flush()?;
        }
        Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

impl Verdict {
    /// Each chain in itself.
    async fn check_all(&mut self, books: &Books, names: &[Arc<str>]) -> Result<(), Failure> {
        let bar = progress(names.len(), "checking");
        for name in names {
            match read_chain(books, name).await? {
                Ok(Some(chain)) => {
                    self.domains += 1;
                    self.records += chain.records.len();
                    self.find(name, chain.flaws().into_iter().map(Finding::from));
                }
                Ok(None) => {}
                Err(unreadable) => {
                    self.domains += 1;
                    self.find(name, [unreadable]);
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The `wanted` chains, or all, against an export. Takes those that it knows from the `unknown` ones.
    async fn compare_all(
        &mut self,
        books: &Books,
        path: &Path,
        wanted: &HashSet<Arc<str>>,
        unknown: &mut HashSet<Arc<str>>,
    ) -> Result<(), Failure> {
        let (sender, mut domains) = mpsc::channel(READ_AHEAD);
        let path = path.to_owned();
        let reading = spawn_blocking(move || exported::read(&path, |domain| sender.blocking_send(domain).is_ok()));
        while let Some(exported) = domains.recv().await {
            let name = Arc::clone(&exported.domain);
            if !wanted.is_empty() && !wanted.contains(&name) {
                continue;
            }
            unknown.remove(&name);
            // One that cannot be read was named already.
            if let Ok(chain) = read_chain(books, &name).await? {
                self.find(&name, compare(&exported, chain.as_ref()));
            }
        }
        reading.await.map_err(|error| Failure::Work(error.to_string()))?.map_err(Failure::Usage)
    }

    fn find(&mut self, name: &Arc<str>, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings.into_iter().map(|finding| (Arc::clone(name), finding)));
    }
}

/// A chain; or that it is damaged, which does not keep us from the others.
async fn read_chain(books: &Books, name: &str) -> Result<Result<Option<Chain>, Finding>, Failure> {
    let Some(store) = &books.store else { return Ok(Ok(None)) };
    match store.chain(name).await {
        Ok(chain) => Ok(Ok(chain)),
        Err(error @ StoreError::Damaged { .. }) => {
            Ok(Err(Finding::of_domain(format!("its records cannot be read: {error}"))))
        }
        Err(error) => Err(error.into()),
    }
}
