//! Access logs of any server, read: how many requests arrived for whom, and when.
//!
//! ```text
//! source      plain, gzip or zstd -> text
//! lines       text -> lines of bounded length
//! line        one line -> host and arrival; combined and json are the formats, stamp their times
//! hosts       hosts by number
//! tally       counts by host and bucket; what memory has no room for goes to disk (runs) and is merged at the end
//! ```
//!
//! Lines may come in any order and from several files that overlap in time: counts add up.

mod combined;
mod hosts;
mod json;
mod line;
mod lines;
mod runs;
mod source;
mod stamp;
mod tally;

use std::io::{self, Read};
use std::sync::Arc;

use crate::meter::Bucket;
use crate::name::DomainName;
use hosts::Hosts;
use line::Line;
use lines::Lines;
use stamp::Stamps;
use tally::{Counts, MAX_COUNTS, Tally};

pub use hosts::{HostId, MAX_HOSTS};
pub use line::Why;
pub use source::explain;

/// Places of skipped lines that are kept.
pub const MAX_SKIPPED_SHOWN: usize = 10;

/// Reads logs and counts.
#[derive(Debug)]
pub struct Reader {
    stamps: Stamps,
    hosts: Hosts,
    tally: Tally,
    read: ReadLines,
}

/// What became of the lines.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ReadLines {
    /// All of them.
    pub lines: u64,
    /// Those that could not be read.
    pub skipped: u64,
    /// Those that could, but tell of no request that is counted, or of a host that was not asked for.
    pub passed_over: u64,
    /// Where the first of the skipped lines are.
    pub places: Vec<Skipped>,
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The log's name.
    pub log: Arc<str>,
    /// The line's number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: Why,
}

/// Why a log could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log itself. What stood before counts.
    #[error("{}", explain(.0))]
    Log(#[source] io::Error),
    /// What memory has no room for. Nothing counts.
    #[error("a temporary file cannot be written: {0}; set TMPDIR to a folder with more room")]
    Temporary(#[source] io::Error),
}

/// Everything that was read: host by host, and each in order of time.
#[derive(Debug)]
pub struct Harvest {
    /// What became of the lines.
    pub read: ReadLines,
    /// The last bucket with a request.
    pub last: Option<Bucket>,
    hosts: Hosts,
    counts: Counts,
}

impl Reader {
    /// Counts the `wanted` domains alone, or all if there are none.
    pub fn new(wanted: Vec<DomainName>) -> Self {
        Self::with_limits(wanted, MAX_HOSTS, MAX_COUNTS)
    }

    fn with_limits(wanted: Vec<DomainName>, max_hosts: usize, max_counts: usize) -> Self {
        let (hosts, tally) = (Hosts::new(wanted, max_hosts), Tally::new(max_counts));
        Self { stamps: Stamps::default(), hosts, tally, read: ReadLines::default() }
    }

    /// Reads one log, called `log` in what is said of it. Lines that do not say whose they are belong to `host`.
    ///
    /// # Errors
    /// If it cannot be read to its end.
    pub fn read(&mut self, log: &str, host: &str, input: impl Read) -> Result<(), ReadError> {
        let log: Arc<str> = log.into();
        let mut lines = Lines::new(source::unpacked(input).map_err(ReadError::Log)?);
        let mut own_host = None;
        let mut number = 0;
        while let Some(line) = lines.next_line().map_err(ReadError::Log)? {
            number += 1;
            let line = line.map_err(|lines::TooLong| Why::TooLong).and_then(|line| line::parse(line, &mut self.stamps));
            let whose_and_when = line.and_then(|line| match line {
                Line::Other => Ok(None),
                Line::Request { host: Some(host), arrival } => Ok(self.hosts.of_line(&host)?.map(|id| (id, arrival))),
                Line::Request { host: None, arrival } => {
                    let id = match own_host {
                        Some(known) => known,
                        None => *own_host.insert(self.hosts.of_name(host)?),
                    };
                    Ok(id.map(|id| (id, arrival)))
                }
            });
            let counted = match whose_and_when {
                Ok(Some((host, arrival))) => match self.tally.add(host, Bucket::of(arrival)) {
                    Ok(spilled) => spilled.map(|()| Ok(true)).map_err(ReadError::Temporary)?,
                    Err(tally::TooFar) => Err(Why::NoTime),
                },
                Ok(None) => Ok(false),
                Err(why) => Err(why),
            };
            self.read.note(&log, number, counted);
        }
        Ok(())
    }

    /// What was counted.
    ///
    /// # Errors
    /// [`ReadError::Temporary`].
    pub fn finish(self) -> Result<Harvest, ReadError> {
        let last = self.tally.last();
        let counts = self.tally.finish().map_err(ReadError::Temporary)?;
        Ok(Harvest { read: self.read, last, hosts: self.hosts, counts })
    }
}

impl ReadLines {
    fn note(&mut self, log: &Arc<str>, line: u64, counted: Result<bool, Why>) {
        self.lines += 1;
        match counted {
            Ok(true) => {}
            Ok(false) => self.passed_over += 1,
            Err(why) => {
                self.skipped += 1;
                if self.places.len() < MAX_SKIPPED_SHOWN {
                    self.places.push(Skipped { log: Arc::clone(log), line, why });
                }
            }
        }
    }
}

impl Harvest {
    /// The next count: whose, when, how many. Each host's come one after the other.
    ///
    /// # Errors
    /// [`ReadError::Temporary`].
    pub fn pop(&mut self) -> Result<Option<(HostId, Bucket, u64)>, ReadError> {
        self.counts.pop().map_err(ReadError::Temporary)
    }

    /// What a host is called.
    pub fn name(&self, host: HostId) -> &str {
        self.hosts.names().get(host as usize).map_or("", AsRef::as_ref)
    }

    /// Whether requests of a host of that name were counted.
    pub fn knows(&self, name: &str) -> bool {
        self.hosts.names().iter().any(|known| **known == *name)
    }

    /// Hosts that were met and not asked for.
    pub fn unwanted(&self) -> impl Iterator<Item = &str> {
        self.hosts.unwanted()
    }
}

#[cfg(test)]
mod tests;
