//! `lockgate plan recommend`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::tz::TimeZone;

use super::report::{Report, Source};
use super::{access_logs, history, human, settings};
use crate::cli::DEFAULT_CONFIG;
use crate::cli::failure::Failure;
use crate::config::{data_dir_of, list, nearest};
use crate::name::{DomainName, pattern_covers};
use crate::plan::Plan;

/// Known names that an error lists.
const MAX_KNOWN_SHOWN: usize = 10;

/// Says for every host which is the smallest plan that holds its daily peaks, and what each plan would have meant.
///
/// Without --log it goes by the history that Lockgate itself metered; with --log by access logs, for which neither a
/// configuration nor a running Lockgate is needed.
#[derive(Debug, Args)]
#[command(after_long_help = LONG_HELP)]
pub(in crate::cli) struct Recommend {
    /// Only these domains; for logs, a wildcard (*.example.com) sums up all names that it covers
    #[arg(value_name = "DOMAIN", value_parser = DomainName::parse)]
    domains: Vec<DomainName>,
    /// Access logs to go by instead of the metered history; `-` is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    log: Vec<PathBuf>,
    /// Whose the requests are in logs that do not say; without it, the name of the file tells
    #[arg(long, value_name = "NAME", requires = "log", value_parser = DomainName::parse)]
    host: Option<DomainName>,
    /// The configuration file, for plans, time zone and data_dir [default: /etc/lockgate/lockgate.toml; with --log or
    /// --data-dir it need not be there]
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the metered history is, if the configuration file does not say
    #[arg(long, value_name = "DIR", conflicts_with = "log")]
    data_dir: Option<PathBuf>,
    /// Whose midnights begin a day, such as Asia/Shanghai [default: the configuration's, else UTC]
    #[arg(long, value_name = "ZONE", value_parser = settings::zone)]
    timezone: Option<TimeZone>,
    /// A plan besides the configured ones, or instead of the one of that name; may be given several times
    #[arg(long = "plan", value_name = "NAME=QPS", value_parser = settings::plan)]
    plans: Vec<Plan>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

const LONG_HELP: &str = "\
Requests are counted as Lockgate meters them: in buckets of 10 seconds by the time of arrival. A plan of L QPS holds a \
bucket of up to 10 L requests; more is an alert; more than 11 L throttles the domain for 24 hours. Arrivals are taken \
as they were: what a throttled domain would have refused is not taken off.

Logs may be Lockgate's own, Caddy's JSON, or common, combined and vhost_combined ones as nginx and Apache write them; \
plain, gzip or zstd; in any order and number, also of several servers at once: counts add up. Lockgate's own log gives \
exactly the metered peaks; other servers stamp requests more roughly, most when they end.

Exit codes: 0 fine; 1 a log could not be read to its end (the rest was counted), or there is nothing to go by; 2 wrong \
usage or configuration.";

impl Recommend {
    pub(super) fn run(self) -> ExitCode {
        self.recommend().unwrap_or_else(|failure| failure.report())
    }

    fn recommend(self) -> Result<ExitCode, Failure> {
        let may_be_missing = !self.log.is_empty() || self.data_dir.is_some();
        let settings = settings::load(self.config.as_deref(), may_be_missing, self.timezone, self.plans);
        let settings = settings.map_err(Failure::Config)?;
        if self.log.is_empty() {
            let data_dir = self.data_dir.or_else(|| settings.data_dir.clone());
            let data_dir = data_dir.unwrap_or_else(|| data_dir_of(Path::new(DEFAULT_CONFIG)));
            let hosts = history::advise(&data_dir, &self.domains, &settings)?;
            return print(&Report::new(Source::History, settings.zone, hosts), self.json);
        }
        let advised = access_logs::advise(&self.log, self.host.as_ref(), &self.domains, &settings);
        let (report, others) = advised.map_err(Failure::Work)?;
        let code = print(&report, self.json)?;
        for unread in &report.unread {
            eprintln!(
                "error: {} could not be read to its end: {}; what stood before was counted",
                unread.file, unread.why
            );
        }
        if report.hosts.is_empty() && self.domains.is_empty() {
            return Err(Failure::Work(access_logs::nothing_found(&report)));
        }
        let is_known = |domain: &&DomainName| report.hosts.iter().any(|known| *known.host == *domain.as_str());
        if let Some(unknown) = self.domains.iter().find(|domain| !is_known(domain)) {
            let known = report.hosts.iter().map(|host| &*host.host).chain(others.iter().map(String::as_str));
            return Err(Failure::Work(unknown_domain(unknown, known)));
        }
        Ok(if report.unread.is_empty() { code } else { ExitCode::from(1) })
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn print(report: &Report, json: bool) -> Result<ExitCode, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = if json {
        serde_json::to_writer(&mut out, report).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        write!(out, "{}", human::render(report))
    };
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Work(format!("the report cannot be printed: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// What to say of a domain without requests.
pub(super) fn unknown_domain<'a>(unknown: &DomainName, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let name = unknown.as_str();
    let wildcard = known.clone().find(|known| pattern_covers(known, name));
    if let Some(meant) = wildcard.or_else(|| nearest(name, known.clone())) {
        return format!("nothing is known of `{name}`; did you mean `{meant}`?");
    }
    let mut names: Vec<&str> = known.collect();
    names.sort_unstable();
    let more = match names.len().saturating_sub(MAX_KNOWN_SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    names.truncate(MAX_KNOWN_SHOWN);
    match names.is_empty() {
        true => format!("nothing is known of `{name}`, nor of any other"),
        false => format!("nothing is known of `{name}`; known: {}{more}", list(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_domain_is_told_what_is_known() {
        let said = |name, known: &[&str]| unknown_domain(&DomainName::parse(name).unwrap(), known.iter().copied());
        assert_eq!(said("a.test", &[]), "nothing is known of `a.test`, nor of any other");
        assert_eq!(
            said("a.test", &["b.example", "access.log"]),
            "nothing is known of `a.test`; known: `access.log` and `b.example`"
        );
        assert_eq!(
            said("exmaple.com", &["b.example", "example.com"]),
            "nothing is known of `exmaple.com`; did you mean `example.com`?"
        );
        assert_eq!(said("a.b.test", &["x.y", "*.b.test"]), "nothing is known of `a.b.test`; did you mean `*.b.test`?");
    }
}
