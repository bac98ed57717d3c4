//! Reading an export, a domain at a time.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{ExportedDomain, ExportedLink, Line};
use crate::name::DomainName;

/// Reads an export, CSV or JSON, and hands over each domain; `false` from `each` ends it.
///
/// # Errors
/// If it cannot be read to its end, in words for people.
pub(in crate::cli::usage) fn read(path: &Path, each: impl FnMut(ExportedDomain) -> bool) -> Result<(), String> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let begin = file.fill_buf().map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let read = if begin.trim_ascii_start().starts_with(b"{") {
        read_json(file, each).map_err(|error| error.to_string())
    } else if begin.starts_with(b"domain,record,") {
        read_csv(file, each).map_err(|error| error.to_string())
    } else {
        Err("it begins neither as its CSV nor as its JSON".to_owned())
    };
    read.map_err(|why| format!("{shown} is no whole export of `lockgate usage export`: {why}"))
}

fn read_csv(file: impl Read, mut each: impl FnMut(ExportedDomain) -> bool) -> Result<(), csv::Error> {
    let mut current: Option<ExportedDomain> = None;
    for line in csv::Reader::from_reader(file).into_deserialize::<Line>() {
        let (domain, record, head) = line?.into_parts();
        check_name(&domain).map_err(|why| csv::Error::from(io::Error::other(why)))?;
        match &mut current {
            Some(current) if current.domain == domain && current.head == head => current.records.push(record),
            _ => {
                let next = ExportedDomain { domain, anchor: ExportedLink::default(), head, records: vec![record] };
                if current.replace(next).is_some_and(|done| !each(done)) {
                    return Ok(());
                }
            }
        }
    }
    current.map(each);
    Ok(())
}

/// Names are shown on terminals, and a file from elsewhere may say anything.
fn check_name(name: &str) -> Result<(), String> {
    match DomainName::parse(name) {
        Ok(parsed) if parsed.as_str() == name => Ok(()),
        _ => Err(format!("`{}` is no domain's name", name.escape_debug())),
    }
}

fn read_json(file: impl Read, mut each: impl FnMut(ExportedDomain) -> bool) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_reader(file);
    json.deserialize_map(Top(&mut each))?;
    json.end()
}

/// The JSON of a whole export.
struct Top<'f, F>(&'f mut F);

impl<'de, F: FnMut(ExportedDomain) -> bool> Visitor<'de> for Top<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an export")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_domains = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "domains" {
                has_domains = true;
                map.next_value_seed(Domains(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if has_domains { Ok(()) } else { Err(A::Error::custom("it has no `domains`")) }
    }
}

/// The list of domains in it.
struct Domains<'f, F>(&'f mut F);

impl<'de, F: FnMut(ExportedDomain) -> bool> DeserializeSeed<'de> for Domains<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(ExportedDomain) -> bool> Visitor<'de> for Domains<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of domains")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(domain) = seq.next_element::<ExportedDomain>()? {
            check_name(&domain.domain).map_err(A::Error::custom)?;
            if !(self.0)(domain) {
                return Err(A::Error::custom("nobody wants the rest"));
            }
        }
        Ok(())
    }
}
