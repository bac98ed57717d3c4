//! Access logs as the command line names them: opened, read with a progress bar, advised on.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::report::{HostAdvice, Report, Source, Unread};
use super::settings::Settings;
use crate::advice::Advisor;
use crate::cli::text;
use crate::logs::{Harvest, HostId, ReadError, Reader, explain};
use crate::meter::Bucket;
use crate::name::DomainName;
use crate::usage::Calendar;

/// What a log's name may end in beyond the name of its host.
const FORMAT_SUFFIXES: [&str; 7] = [".log", ".json", ".txt", ".access", "-access", "_access", ".access_log"];
const PACKED_SUFFIXES: [&str; 4] = [".gz", ".zst", ".zstd", ".old"];

/// A log to be read.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Stdin,
    File { path: PathBuf, bytes: Option<u64> },
}

/// Reads `logs` and advises the hosts in them: the `wanted`, or all if there are none.
pub(super) fn advise(
    logs: &[PathBuf],
    host: Option<&DomainName>,
    wanted: &[DomainName],
    settings: &Settings,
) -> Result<(Report, Vec<String>), String> {
    let inputs = find(logs)?;
    let mut reader = Reader::new(wanted.to_vec());
    let mut unread = Vec::new();
    let bar = progress(&inputs);
    for input in &inputs {
        let (name, of_name) = match input {
            Input::Stdin => ("-".to_owned(), "stdin".to_owned()),
            Input::File { path, .. } => (text::file(path), host_of_file(path)),
        };
        let host = host.map_or(of_name.as_str(), DomainName::as_str);
        match input.open().map_err(ReadError::Log).and_then(|log| reader.read(&name, host, bar.wrap_read(log))) {
            Ok(()) => {}
            Err(ReadError::Log(error)) => unread.push(Unread { file: name.into(), why: explain(&error) }),
            Err(error) => return Err(error.to_string()),
        }
    }
    bar.finish_and_clear();
    let mut harvest = reader.finish().map_err(|error| error.to_string())?;
    let hosts = advise_hosts(&mut harvest, settings).map_err(|error| error.to_string())?;
    let others = harvest.unwanted().map(str::to_owned).collect();
    let mut report = Report::new(Source::Log, settings.zone.clone(), hosts);
    (report.read, report.unread) = (harvest.read, unread);
    Ok((report, others))
}

fn advise_hosts(harvest: &mut Harvest, settings: &Settings) -> Result<Vec<HostAdvice>, ReadError> {
    let end = harvest.last.unwrap_or(Bucket(0));
    let mut calendar = Calendar::new(settings.zone.clone());
    let mut hosts = Vec::new();
    let mut next = harvest.pop()?;
    while let Some((host, ..)) = next {
        let mut advisor = Advisor::new(&settings.plans, &mut calendar, end);
        while let Some((_, bucket, count)) = next.filter(|(id, ..): &(HostId, _, _)| *id == host) {
            advisor.add(bucket, count);
            next = harvest.pop()?;
        }
        let name = harvest.name(host).into();
        hosts.extend(advisor.finish([]).map(|advice| HostAdvice { host: name, advice }));
    }
    Ok(hosts)
}

/// Looks at every log before the first is read: a name that is wrong shows at once, not after an hour.
fn find(logs: &[PathBuf]) -> Result<Vec<Input>, String> {
    let (mut inputs, mut wrong) = (Vec::new(), Vec::new());
    let mut met = HashSet::new();
    for path in logs {
        let (input, identity) = match Input::look_at(path) {
            Ok(found) => found,
            Err(error) => {
                wrong.push(format!("{} cannot be read: {}", text::file(path), explain(&error)));
                continue;
            }
        };
        if met.insert(identity) {
            inputs.push(input);
        } else {
            eprintln!("note: {} is named twice and counted once", text::file(path));
        }
    }
    if wrong.is_empty() { Ok(inputs) } else { Err(wrong.join("\nerror: ")) }
}

impl Input {
    /// What `path` names, and what tells it from others.
    fn look_at(path: &Path) -> io::Result<(Self, Option<(u64, u64)>)> {
        if path == Path::new("-") {
            return Ok((Self::Stdin, None));
        }
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // A pipe that is opened and closed again would lose its writer.
        if metadata.is_file() {
            File::open(path)?;
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok((Self::File { path: path.to_owned(), bytes }, Some((metadata.dev(), metadata.ino()))))
    }

    fn open(&self) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            Self::Stdin => Box::new(io::stdin().lock()),
            Self::File { path, .. } => Box::new(File::open(path)?),
        })
    }
}

/// A bar where somebody looks at it and the end is known, a spinner where it is not.
fn progress(inputs: &[Input]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes = inputs.iter().map(|input| match input {
        Input::File { bytes, .. } => *bytes,
        Input::Stdin => None,
    });
    let (bar, template) = match sizes.sum::<Option<u64>>() {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The host that a log's name tells, or the name without what rotation adds to it, so that the parts of one log are of
/// one host.
fn host_of_file(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let unrotated = without_rotation(&file);
    let mut stem = unrotated;
    while let Some(shorter) = FORMAT_SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)) {
        stem = without_rotation(shorter);
    }
    match DomainName::parse(stem) {
        Ok(name) if stem.contains(['.', ':']) => name.as_str().to_owned(),
        _ => unrotated.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
    }
}

/// `access.log.2.gz`, `access.log-20260601.zst` -> `access.log`.
fn without_rotation(mut name: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    while name.parse::<std::net::IpAddr>().is_err() {
        let shorter = PACKED_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).or_else(|| {
            let by = |mark| name.rsplit_once(mark).filter(|(front, _)| !front.is_empty());
            let number = by('.').filter(|(_, number)| is_number(number));
            number.or_else(|| by('-').filter(|(_, date)| date.len() >= 8 && is_number(date))).map(|(front, _)| front)
        });
        match shorter.filter(|shorter| !shorter.is_empty()) {
            Some(shorter) => name = shorter,
            None => break,
        }
    }
    name
}

/// What is said of a log without requests.
pub(super) fn nothing_found(report: &Report) -> String {
    let read = &report.read;
    match read.places.first() {
        Some(place) => {
            let log: &Arc<str> = &place.log;
            format!(
                "no request was found: {} of {} lines were skipped, as {log}:{}: {}",
                read.skipped, read.lines, place.line, place.why
            )
        }
        None => format!("no request was found in the {} lines that were read", read.lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/var/log/nginx/www.example.com.log", "www.example.com")]
    #[case("WWW.Example.com.access.log.2.gz", "www.example.com")]
    #[case("example.com-access.log-20260601.zst", "example.com")]
    #[case("example.com_access.log.1", "example.com")]
    #[case("example.com.access_log", "example.com")]
    #[case("192.0.2.1.log.1.gz", "192.0.2.1")]
    #[case("access.log", "access.log")]
    #[case("access.log.1", "access.log")]
    #[case("access.log-20260601.gz", "access.log")]
    #[case("all my\nlogs", "all my?logs")]
    #[case(".gz", ".gz")]
    #[case("7.1", "7")]
    fn the_parts_of_a_log_are_of_one_host(#[case] path: &str, #[case] host: &str) {
        assert_eq!(host_of_file(Path::new(path)), host);
    }
}
