//! `lockgate check`

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Args;

use super::ConfigFile;
use crate::clock;
use crate::config::{self, Diagnostics, Loaded};
use crate::pairs::{PairError, PairFiles};
use crate::server::broken_diagnostic;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        let (wrong, notes, advice, summary) = match config::load(&self.file.config) {
            Err(wrong) => (wrong, Vec::new(), Diagnostics::new(), String::new()),
            Ok(mut loaded) => {
                let (pairs_wrong, notes) = check_pairs(&loaded);
                // A process would start, and serve fallbacks: better learnt now.
                let mut wrong: Diagnostics = std::mem::take(&mut loaded.lacking).into_iter().collect();
                pairs_wrong.into_iter().for_each(|diagnostic| wrong.push(diagnostic));
                let (domains, pairs) = (loaded.config.domains.len(), loaded.pairs.len());
                (
                    wrong,
                    notes,
                    loaded.notes.into_iter().collect::<Diagnostics>(),
                    format!("{}: fine (domains: {domains}, certificates: {pairs})", self.file.config.display()),
                )
            }
        };
        let is_fine = wrong.is_empty();
        if self.json {
            let notes: Vec<String> = notes.into_iter().chain(advice.iter().map(ToString::to_string)).collect();
            let findings: Vec<_> = wrong.iter().collect();
            println!("{}", serde_json::json!({ "ok": is_fine, "errors": findings, "notes": notes }));
        } else {
            for note in &notes {
                eprintln!("note: {note}");
            }
            if !advice.is_empty() {
                eprintln!("{}\n", advice.render(std::io::stderr().is_terminal()));
            }
            if is_fine {
                println!("{summary}");
            } else {
                let errors = if wrong.len() == 1 { "1 error".to_owned() } else { format!("{} errors", wrong.len()) };
                eprintln!(
                    "{}\n\n{}: {errors}",
                    wrong.render(std::io::stderr().is_terminal()),
                    self.file.config.display()
                );
            }
        }
        if is_fine { ExitCode::SUCCESS } else { ExitCode::from(2) }
    }
}

/// Every pair read, opened, and held against its domain; and what is right today but may not be meant.
fn check_pairs(loaded: &Loaded) -> (Diagnostics, Vec<String>) {
    let (mut wrong, mut notes) = (Diagnostics::new(), Vec::new());
    let now = clock::now();
    let pairs: Vec<_> = loaded.pairs.iter().map(|used| used.pair.clone()).collect();
    for (used, read) in loaded.pairs.iter().zip(PairFiles::new().load_all(&pairs)) {
        let opened = read.and_then(|certificate| match certificate.open() {
            Ok(()) => Ok(certificate),
            Err(source) => Err(PairError::of_certificate(&used.pair, source)),
        });
        let certificate = match opened {
            Ok(certificate) => certificate,
            Err(error) => {
                wrong.push(broken_diagnostic(loaded, used, &error));
                continue;
            }
        };
        if let Some(domain) = used.domain.as_ref().filter(|domain| !certificate.covers(domain)) {
            let names: Vec<_> = certificate.names().iter().map(|name| name.as_str()).take(5).collect();
            let what = format!("this certificate is for {}, not for {domain}", names.join(", "));
            wrong.push(loaded.broken_pair(used, &what, "name a certificate that covers the domain"));
        } else if !certificate.is_valid_at(now) {
            let (from, to) = (certificate.not_before(), certificate.not_after());
            notes
                .push(format!("{} is valid from {from} to {to}, not now: a fallback serves", used.pair.cert.display()));
        }
    }
    (wrong, notes)
}
