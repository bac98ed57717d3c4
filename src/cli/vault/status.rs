//! `lockgate vault status`

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::home_of;
use crate::cli::Running;
use crate::cli::failure::Failure;
use crate::cli::text::counted;
use crate::clock;
use crate::config::Diagnostics;
use crate::issuance::KeySource;
use crate::secret::SecretSource;
use crate::store::inventory::Inventory;
use crate::upkeep::custody::{INTERNAL_CA, INTERNAL_CA_BEFORE};
use crate::vault::{Vault, VaultError, WrappedKey, exposure, rotation};

#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    running: Running,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// Whether every data key opens.
    ok: bool,
    /// Where the key is to be had.
    place: Option<String>,
    /// Which one is there.
    identity: Option<String>,
    data_keys: usize,
    /// What wrapped the data keys.
    wrapped_by: BTreeSet<String>,
    sealed_keys: usize,
    warnings: Vec<String>,
    problem: Option<String>,
    remedy: Option<String>,
}

impl Status {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let (data_dir, source) = home_of(&self.running);
        let findings = look(&data_dir, source).await?;
        if self.json {
            println!("{}", serde_json::json!(findings));
        } else {
            print(&findings);
        }
        Ok(if findings.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

async fn look(data_dir: &Path, source: Result<KeySource, Diagnostics>) -> Result<Findings, Failure> {
    let inventory = Inventory::open_to_read(data_dir).await?;
    let mut findings = Findings::default();
    let mut stored = Vec::new();
    if let Some(inventory) = &inventory {
        stored = inventory.data_keys().await?;
        findings.sealed_keys = sealed_keys(inventory).await?;
        inventory.close().await;
    }
    findings.data_keys = stored.len();
    findings.wrapped_by = stored.iter().map(|key| key.wrapped_by.clone()).collect();
    match source {
        Err(wrong) => {
            findings.problem = Some(wrong.to_string());
            findings.remedy = Some(match findings.needed() {
                Some(needed) => format!("put {needed} where [vault] says, or have [vault] say where it is"),
                None => "correct [vault]".to_owned(),
            });
        }
        Ok(source) => findings.try_to_open(&source, &stored).await,
    }
    Ok(findings)
}

async fn sealed_keys(inventory: &Inventory) -> Result<usize, Failure> {
    let certificates = inventory.certificates().await?;
    let orders = inventory.orders().await?.iter().filter(|(_, order)| order.sealed_key.is_some()).count();
    let accounts = inventory.accounts().await?.len();
    let mut internal = 0;
    for name in [INTERNAL_CA, INTERNAL_CA_BEFORE] {
        internal += usize::from(inventory.secret(name).await?.is_some());
    }
    Ok(certificates.certificates.len() + certificates.unusable.len() + orders + accounts + internal)
}

impl Findings {
    /// The key that wrapped the data keys, as it is called; the first if there are several.
    fn needed(&self) -> Option<&str> {
        self.wrapped_by.first().map(String::as_str)
    }

    async fn try_to_open(&mut self, source: &KeySource, stored: &[WrappedKey]) {
        if let Some(file) = file_of(source) {
            self.warnings.extend(exposure(file));
            // Looking makes no key; a start does.
            if matches!(source, KeySource::Made(_)) && stored.is_empty() && !file.exists() {
                self.place = Some(format!("the file {}, which the first start makes", file.display()));
                self.ok = true;
                return;
            }
        }
        let found = match rotation::find(source, stored).await {
            Ok(found) => found,
            Err(error) => return self.fail(&error, source),
        };
        self.place = Some(found.wrap.place().to_owned());
        self.identity = Some(found.wrap.identity().to_owned());
        if let Some(unfinished) = &found.unfinished {
            self.warnings.push(format!(
                "a change of key was interrupted: the key in force is in {}; the next start, or `lockgate vault rotate`, \
                 puts it in its place",
                unfinished.next().display()
            ));
        }
        if self.wrapped_by.len() > 1 {
            self.warnings.push("data keys are wrapped by different keys: `lockgate vault rotate` once more".to_owned());
        }
        if stored.is_empty() {
            self.ok = true;
            return;
        }
        match Vault::locked().unlock(&found.wrap, stored, clock::now()).await {
            Ok(_) => self.ok = true,
            Err(error) => self.fail(&error, source),
        }
    }

    fn fail(&mut self, error: &VaultError, source: &KeySource) {
        self.problem = Some(error.to_string());
        let needed = self.needed().map(str::to_owned);
        self.remedy = Some(match (error, needed) {
            (VaultError::WrongKey { wrapped_by, .. }, _) => match file_of(source) {
                Some(file) => format!("put the key {wrapped_by} into {}, from a copy of it", file.display()),
                None => format!("have [vault] name the key {wrapped_by}"),
            },
            (VaultError::NoKey { place, .. }, Some(needed)) => format!("have {place} give the key {needed}"),
            (VaultError::TamperedDataKey { .. }, _) => "restore certificates.db from a backup".to_owned(),
            _ => "see [vault] in the configuration".to_owned(),
        });
    }
}

fn file_of(source: &KeySource) -> Option<&Path> {
    match source {
        KeySource::Made(file) | KeySource::Secret(SecretSource::File(file)) => Some(file),
        _ => None,
    }
}

fn print(findings: &Findings) {
    if let Some(place) = &findings.place {
        println!("key        {place}");
    }
    if let Some(identity) = &findings.identity {
        println!("identity   {identity}");
    }
    let (data, sealed) = (counted(findings.data_keys, "data key"), counted(findings.sealed_keys, "sealed key"));
    println!("kept       {data}, {sealed}");
    let opens = if findings.ok && findings.data_keys > 0 { "yes" } else { "no" };
    println!("opens      {}", if findings.ok && findings.data_keys == 0 { "nothing is sealed yet" } else { opens });
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(problem) = &findings.problem {
        eprintln!("error: {problem}");
    }
    if let Some(remedy) = &findings.remedy {
        eprintln!("what to do: {remedy}");
    }
}
