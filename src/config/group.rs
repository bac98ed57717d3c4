//! `[[certificate]]`: one certificate for several names.

use std::collections::HashMap;
use std::path::Path;

use super::acme::{Issuing, misfit};
use super::diagnostic::Wrong;
use super::domain::tenant;
use super::keys;
use super::problems::Problems;
use super::reader::Reader;
use super::source::Place;
use super::values::domain_name;
use crate::issuance::CertificateSpec;
use crate::name::DomainName;

/// The groups of names of all files.
#[derive(Debug, Default)]
pub struct Groups {
    /// Those with names, in the order written, each with its place.
    pub list: Vec<(Place, CertificateSpec)>,
    places: HashMap<DomainName, Place>,
}

impl Groups {
    /// Reads the groups of a file in the directory `base`.
    pub fn read_file(&mut self, file: &Reader, base: &Path, issuing: &Issuing, problems: &mut Problems) {
        for table in file.tables("certificate", &keys::GROUP, problems) {
            let names = self.read_names(&table, problems);
            let tenant = table.read("tenant", problems, tenant);
            let method = issuing.read_method(&table, base, problems);
            for (place, name) in &names {
                if let Some(wrong) = method.challenge.and_then(|challenge| misfit(name, challenge)) {
                    problems.report(*place, Wrong { remedy: in_a_group(name), ..wrong });
                }
            }
            if !names.is_empty() {
                let names = names.into_iter().map(|(_, name)| name).collect();
                self.list.push((table.place, CertificateSpec { names, tenant, method }));
            }
        }
    }

    fn read_names(&mut self, table: &Reader, problems: &mut Problems) -> Vec<(Place, DomainName)> {
        const EXAMPLE: &str = "[\"example.com\", \"www.example.com\"]";
        table.require("names", EXAMPLE, problems, |v| match v.is_empty() {
            true => Err(Wrong::new("`names` is empty", format!("write the names it is for: `names = {EXAMPLE}`"))),
            false => Ok(()),
        });
        let names = table.list("names", problems, domain_name).unwrap_or_default();
        for (place, name) in &names {
            if let Some(first) = self.places.insert(name.clone(), *place) {
                let message = format!("`{name}` is in two certificates, or twice in one");
                let wrong = Wrong::new(message, "leave it out of one `[[certificate]]`");
                problems.report_both((*place, "again here"), (first, "first here"), wrong);
            }
        }
        names
    }
}

/// What to do about a name that the group's challenge cannot prove.
fn in_a_group(name: &DomainName) -> String {
    match name.wildcard_parent() {
        Some(_) => "write `challenge = \"dns-01\"` in this `[[certificate]]`, or leave the wildcard out".to_owned(),
        None => "leave the address out, or write another `challenge`".to_owned(),
    }
}
