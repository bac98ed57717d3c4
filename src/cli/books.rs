//! What is there to read: the store, and what only the journal and the states of accounts tell so far.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::DEFAULT_CONFIG;
use super::failure::Failure;
use crate::clock::{self, UnixTime};
use crate::config;
use crate::journal;
use crate::meter::Bucket;
use crate::name::DomainName;
use crate::store::Store;
use crate::usage::{Calendar, Series, Usage, raise};

/// Where to look.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The configuration file [default: /etc/lockgate/lockgate.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data_dir, if no configuration file says; days are then those of the time zone that was counted last
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What was sealed, and who reads it where and when.
#[derive(Debug)]
pub(super) struct Books {
    data_dir: PathBuf,
    pub(super) zone: TimeZone,
    pub(super) now: UnixTime,
    /// `None`: there is no database.
    pub(super) store: Option<Store>,
}

/// What is known beyond [`Books`] of days that are not sealed.
#[derive(Debug, Default)]
pub(super) struct Unsealed {
    states: HashMap<Arc<str>, Usage>,
    journaled: HashMap<Arc<str>, Series>,
}

impl Place {
    /// Opens what was sealed.
    pub(super) async fn open(&self) -> Result<Books, Failure> {
        let (data_dir, zone) = self.find()?;
        let mut books = Books::open(data_dir, zone.clone()).await?;
        if let (None, Some(store)) = (zone, &books.store) {
            books.zone = named(store.remembered().await?.zone.as_deref());
        }
        Ok(books)
    }

    /// Opens everything.
    pub(super) async fn open_all(&self) -> Result<(Books, Unsealed), Failure> {
        let (data_dir, zone) = self.find()?;
        Books::open_all(data_dir, zone).await
    }

    fn find(&self) -> Result<(PathBuf, Option<TimeZone>), Failure> {
        let (data_dir, zone) = match (&self.config, &self.data_dir) {
            (None, Some(data_dir)) => (data_dir.clone(), None),
            (file, data_dir) => {
                let file = file.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
                let home = config::home_of(file).map_err(Failure::Config)?;
                (data_dir.clone().unwrap_or(home.data_dir), home.timezone)
            }
        };
        match data_dir.metadata() {
            Ok(there) if there.is_dir() => Ok((data_dir, zone)),
            Ok(_) => Err(Failure::Usage(format!("{} is no directory", data_dir.display()))),
            Err(error) => Err(Failure::Usage(format!(
                "there is no data_dir {}: {error}; name the configuration file with -c, or the directory with --data-dir",
                data_dir.display()
            ))),
        }
    }
}

fn named(zone: Option<&str>) -> TimeZone {
    zone.and_then(|zone| TimeZone::get(zone).ok()).unwrap_or(TimeZone::UTC)
}

impl Books {
    async fn open(data_dir: PathBuf, zone: Option<TimeZone>) -> Result<Self, Failure> {
        let store = Store::open_to_read(&data_dir).await?;
        Ok(Self { data_dir, zone: zone.unwrap_or(TimeZone::UTC), now: clock::now(), store })
    }

    /// Opens everything there. Without a zone it is the one that was counted last.
    pub(super) async fn open_all(data_dir: PathBuf, zone: Option<TimeZone>) -> Result<(Self, Unsealed), Failure> {
        // The journal first: what is folded from it into the store while we read is then seen there, if not here.
        let mut unsealed = Unsealed::read_journal(&data_dir)?;
        let mut books = Self::open(data_dir, zone.clone()).await?;
        if let Some(store) = &books.store {
            let remembered = store.remembered().await?;
            if zone.is_none() {
                books.zone = named(remembered.zone.as_deref());
            }
            // A state that cannot be read is a later start's loss, not ours: it tells no more than the last bucket.
            let states = remembered.states.into_iter();
            unsealed.states = states.filter_map(|(name, bytes)| Some((name, Usage::load(&bytes).ok()?))).collect();
        }
        Ok((books, unsealed))
    }

    /// Today's date.
    pub(super) fn today(&self) -> Date {
        Calendar::new(self.zone.clone()).today(self.now).date
    }

    /// Every name of which something is stored, in order.
    pub(super) async fn stored_names(&self) -> Result<Vec<Arc<str>>, Failure> {
        match &self.store {
            Some(store) => Ok(store.names().await?),
            None => Ok(Vec::new()),
        }
    }

    /// Every name of which anything is known, in order.
    pub(super) async fn names(&self, unsealed: &Unsealed) -> Result<BTreeSet<Arc<str>>, Failure> {
        let mut names: BTreeSet<_> = self.stored_names().await?.into_iter().collect();
        names.extend(unsealed.journaled.keys().cloned());
        Ok(names)
    }

    /// What to say if there is nothing at all.
    pub(super) fn nothing(&self) -> String {
        format!("nothing has been metered yet in {}", self.data_dir.display())
    }

    /// What to say of a domain of which nothing is known.
    pub(super) fn unknown(&self, domain: &str, known: &[Arc<str>]) -> Failure {
        if known.is_empty() {
            return Failure::Work(self.nothing());
        }
        let wildcard = domain.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let wildcard = wildcard.filter(|wildcard| known.iter().any(|name| **name == **wildcard));
        let hint = match wildcard {
            Some(wildcard) => format!(": it may have been metered as `{wildcard}`"),
            None => config::nearest(domain, known.iter().map(|name| &**name))
                .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?")),
        };
        Failure::Work(format!("nothing was metered of `{domain}` in {}{hint}", self.data_dir.display()))
    }

    /// The counts of `name` in these buckets: whatever anybody knows of them.
    pub(super) async fn series(&self, unsealed: &Unsealed, name: &str, span: Range<Bucket>) -> Result<Series, Failure> {
        let mut series = match &self.store {
            Some(store) => store.series(name, span.start, span.end).await?,
            None => Series::new(),
        };
        unsealed.add_to(&mut series, name, &span);
        Ok(series)
    }

    /// The counts of everybody in these buckets.
    pub(super) async fn series_of_all(
        &self,
        unsealed: &Unsealed,
        span: Range<Bucket>,
    ) -> Result<HashMap<Arc<str>, Series>, Failure> {
        let mut all = match &self.store {
            Some(store) => store.series_of_all(span.start, span.end).await?,
            None => HashMap::new(),
        };
        for name in unsealed.journaled.keys().chain(unsealed.states.keys()) {
            let mut more = Series::new();
            unsealed.add_to(&mut more, name, &span);
            if !more.is_empty() {
                let series = all.entry(Arc::clone(name)).or_default();
                more.into_iter().for_each(|(bucket, count)| raise(series, bucket, count));
            }
        }
        Ok(all)
    }
}

/// Names as a person wrote them, in their normal form, each once.
pub(super) fn parse_names(written: &[String]) -> Result<Vec<Arc<str>>, Failure> {
    let mut names = Vec::new();
    for text in written {
        let name = DomainName::parse(text).map_err(|error| Failure::Usage(error.to_string()))?.shared();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

impl Unsealed {
    fn read_journal(data_dir: &Path) -> Result<Self, Failure> {
        let replay =
            journal::replay(data_dir).map_err(|error| Failure::Work(format!("the journal cannot be read: {error}")))?;
        for damage in &replay.damage {
            tracing::warn!("a part of the journal is left out: {damage}");
        }
        let mut journaled = HashMap::<Arc<str>, Series>::new();
        for entry in replay.entries {
            raise(journaled.entry(entry.name).or_default(), entry.bucket, entry.count);
        }
        Ok(Self { states: HashMap::new(), journaled })
    }

    /// What a start would go on with.
    pub(super) fn state(&self, name: &str) -> Option<&Usage> {
        self.states.get(name)
    }

    fn add_to(&self, series: &mut Series, name: &str, span: &Range<Bucket>) {
        let journaled = self.journaled.get(name).into_iter().flatten().map(|(bucket, count)| (*bucket, *count));
        let recent = self.states.get(name).into_iter().flat_map(Usage::recent);
        for (bucket, count) in journaled.chain(recent).filter(|(bucket, count)| span.contains(bucket) && *count > 0) {
            raise(series, bucket, count);
        }
    }
}
