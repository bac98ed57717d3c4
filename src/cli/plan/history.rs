//! The counts that Lockgate itself took: those in the store, and those that wait in the journal to get there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::recommend::unknown_domain;
use super::report::HostAdvice;
use super::settings::Settings;
use crate::advice::{Advisor, DayUse};
use crate::clock::{self, UnixTime};
use crate::journal::{self, Entry};
use crate::meter::Bucket;
use crate::name::DomainName;
use crate::store::Store;
use crate::usage::{Calendar, Chain, Series, raise};

/// How far back 10-second counts are asked for; of days before, only what was sealed is known.
const FINE_SECS: i64 = 30 * 86_400;
/// How far ahead: counts of a clock that was ahead and came back are not lost.
const AHEAD_SECS: i64 = 86_400;

/// Advises the `wanted` domains, or all if there are none.
pub(super) fn advise(data_dir: &Path, wanted: &[DomainName], settings: &Settings) -> Result<Vec<HostAdvice>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(advise_all(data_dir, wanted, settings, clock::now()))
}

async fn advise_all(
    data_dir: &Path,
    wanted: &[DomainName],
    settings: &Settings,
    now: UnixTime,
) -> Result<Vec<HostAdvice>, String> {
    let store = Store::open_to_read(data_dir).await.map_err(|error| error.to_string())?;
    // A name may be so new that only the journal knows it.
    let journal = journal::replay(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?.entries;
    let mut names: BTreeSet<Arc<str>> = journal.iter().map(|entry| Arc::clone(&entry.name)).collect();
    if let Some(store) = &store {
        names.extend(store.names().await.map_err(|error| error.to_string())?);
    }
    if names.is_empty() {
        return Err(format!(
            "there is no metered history in {}: serve with `lockgate run` first, or read an access log with --log FILE",
            data_dir.display()
        ));
    }
    if !wanted.is_empty() {
        if let Some(unknown) = wanted.iter().find(|wanted| !names.contains(wanted.as_str())) {
            return Err(unknown_domain(unknown, names.iter().map(AsRef::as_ref)));
        }
        names.retain(|name| wanted.iter().any(|wanted| wanted.as_str() == &**name));
    }
    let mut calendar = Calendar::new(settings.zone.clone());
    let mut hosts = Vec::new();
    for name in names {
        let (series, chain) = recall(store.as_ref(), &journal, &name, now).await?;
        let mut advisor = Advisor::new(&settings.plans, &mut calendar, Bucket::of(now));
        series.iter().for_each(|(bucket, count)| advisor.add(*bucket, *count));
        if let Some(advice) = advisor.finish(chain.iter().flat_map(sealed_days)) {
            hosts.push(HostAdvice { host: name.as_ref().into(), advice });
        } else if !wanted.is_empty() {
            return Err(format!("`{name}` has had no request in what is remembered of it"));
        }
    }
    Ok(hosts)
}

/// What is known of one name.
async fn recall(
    store: Option<&Store>,
    journal: &[Entry],
    name: &Arc<str>,
    now: UnixTime,
) -> Result<(Series, Option<Chain>), String> {
    let (from, to) = (Bucket::of(now.plus_secs(-FINE_SECS)), Bucket::of(now.plus_secs(AHEAD_SECS)));
    let (mut series, chain) = match store {
        None => (Series::new(), None),
        Some(store) => {
            let series = store.series(name, from, to).await.map_err(|error| error.to_string())?;
            (series, store.chain(name).await.map_err(|error| error.to_string())?)
        }
    };
    for entry in journal.iter().filter(|entry| entry.name == *name) {
        raise(&mut series, entry.bucket, entry.count);
    }
    Ok((series, chain))
}

/// Of each date the last record, which amends those before it.
fn sealed_days(chain: &Chain) -> Vec<DayUse> {
    let mut days = std::collections::BTreeMap::new();
    for facts in chain.records.iter().map(|record| &record.facts) {
        let (date, peak_count, peak_at, requests) = (facts.date, facts.peak_count, facts.peak_at, facts.requests);
        days.insert(date, DayUse { date, peak_count, peak_at, requests });
    }
    days.into_values().collect()
}
