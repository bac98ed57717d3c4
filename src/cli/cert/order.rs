//! `lockgate cert order` and `lockgate cert renew`: the running process orders, and goes on when nobody waits any more.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use super::entry::For;
use super::gather::{Gathered, Place};
use crate::cli::failure::Failure;
use crate::cli::running::post;
use crate::control::{Ordered, WantedCertificate};
use crate::issuance::subject::Subject;
use crate::name::DomainName;
use crate::store::inventory::Role;

/// How often a terminal is shown that something is going on.
const PROGRESS: Duration = Duration::from_millis(120);

#[derive(Debug, Args)]
pub(in crate::cli) struct OrderCommand {
    /// The names that one certificate is to be for
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Renew {
    /// What is renewed: a name that its certificate is for, or its number
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
struct Waiting {
    /// How long to wait for each certificate
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl OrderCommand {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let parse = |name: &String| DomainName::parse(name).map_err(|error| Failure::Usage(error.to_string()));
        let mut names: Vec<DomainName> = Vec::new();
        for name in &self.names {
            let name = parse(name)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        // The running process goes by what it read of the configuration; what we read decides over advice alone.
        let gathered = self.waiting.place.gather().await.ok();
        let configured = gathered.as_ref().and_then(|gathered| configured_for(gathered, &names));
        let is_known = gathered.is_some_and(|gathered| gathered.wanted.is_some());
        let wanted = match configured.as_ref().map(|subject| &subject.name) {
            Some(first) => vec![first.clone()],
            None => names.clone(),
        };
        let is_issued = self.waiting.order(&wanted).await?;
        if is_issued && configured.is_none() && is_known && !self.waiting.json {
            let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
            eprintln!(
                "It is not in the configuration, so it is not renewed by itself. To have that, write:\n\n\
                 [[certificate]]\nnames = [{}]",
                names.join(", ")
            );
        }
        Ok(if is_issued { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// What is configured for exactly these names, or for these and others that come along by themselves.
fn configured_for(gathered: &Gathered, names: &[DomainName]) -> Option<Subject> {
    let subject = gathered.wanted.as_ref()?.subject_of(names.first()?)?;
    let is_whole = subject.required().all(|name| names.contains(name));
    let is_it = !subject.terms.is_manual && is_whole && names.iter().all(|name| subject.names().any(|it| it == name));
    is_it.then(|| Subject::clone(subject))
}

impl Renew {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let gathered = self.waiting.place.gather().await?;
        gathered.print_notes();
        // All are looked up before the first is ordered: a slip of the pen costs none.
        let wanted = self.names.iter().map(|what| gathered.to_renew(what)).collect::<Result<Vec<_>, _>>()?;
        let mut is_all_issued = true;
        for names in &wanted {
            is_all_issued &= self.waiting.order(names).await?;
        }
        Ok(if is_all_issued { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

impl Gathered {
    /// What to ask for, to renew the certificate that is meant.
    fn to_renew(&self, what: &str) -> Result<Vec<DomainName>, Failure> {
        let is_own = |at: &&usize| self.entries.get(**at).is_some_and(|it| it.role == For::Domain(Role::Own));
        let found = self.find(what)?;
        let entry = found.iter().find(is_own).and_then(|at| self.entries.get(*at)).ok_or_else(|| self.unknown(what))?;
        if let Some(files) = entry.held.as_ref().and_then(|held| held.files.as_ref()) {
            return Err(Failure::Work(format!(
                "the certificate of {} lies in {}, and is yours to renew: write another into the file, or leave \
                 [[domain.certificate]] out to have it managed",
                entry.name,
                files.cert.display()
            )));
        }
        let first = DomainName::parse(&entry.name).map_err(|error| Failure::Work(error.to_string()))?;
        let is_configured = self.wanted.as_ref().is_some_and(|wanted| {
            wanted.subjects.iter().any(|subject| subject.name == first && !subject.terms.is_manual)
        });
        if is_configured {
            return Ok(vec![first]);
        }
        let others = entry.names.iter().filter(|name| **name != first).cloned();
        Ok(std::iter::once(first.clone()).chain(others).collect())
    }
}

impl Waiting {
    /// Orders, waits, and says what became of it. Whether it was issued.
    async fn order(&self, names: &[DomainName]) -> Result<bool, Failure> {
        let shown = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let wanted = WantedCertificate { names: names.iter().map(ToString::to_string).collect() };
        // Draws nothing unless standard error is a terminal.
        let progress = ProgressBar::new_spinner().with_message(format!("ordering a certificate for {shown}"));
        progress.enable_steady_tick(PROGRESS);
        let socket = self.place.running.control_socket();
        let left = |why: &str| {
            Failure::Work(format!("{why}: the order for {shown} goes on; `lockgate cert list` says what comes of it"))
        };
        let ordered = tokio::select! {
            ordered = post::<Ordered>(&socket, "/certificates/order", &wanted) => ordered.map_err(Failure::Work),
            () = tokio::time::sleep(self.timeout) => {
                Err(left(&format!("nothing was issued within {}", humantime::format_duration(self.timeout))))
            }
            _ = tokio::signal::ctrl_c() => Err(left("not waiting any more")),
        };
        progress.finish_and_clear();
        let ordered = ordered?;
        if self.json {
            println!("{}", serde_json::json!(ordered));
        } else if ordered.ok {
            let id = ordered.id.map(|id| format!(" (ID {id})")).unwrap_or_default();
            println!("{shown}{id}: {}", ordered.message);
        } else {
            eprintln!("error: no certificate for {shown}: {}", ordered.message);
            if let Some(advice) = &ordered.advice {
                eprintln!("{advice}");
            }
        }
        Ok(ordered.ok)
    }
}
