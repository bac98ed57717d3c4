//! The counts that Lockgate itself took: those in the store, and those on their way there.

use std::path::Path;

use super::recommend::unknown_domain;
use super::report::HostAdvice;
use super::settings::Settings;
use crate::advice::{Advisor, DayUse};
use crate::cli::books::Books;
use crate::cli::failure::Failure;
use crate::meter::Bucket;
use crate::name::DomainName;
use crate::usage::{Calendar, Chain};

/// How far ahead: counts of a clock that was ahead and came back are not lost.
const AHEAD_SECS: i64 = 86_400;

/// Advises the `wanted` domains, or all if there are none.
pub(super) fn advise(data_dir: &Path, wanted: &[DomainName], settings: &Settings) -> Result<Vec<HostAdvice>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Work(error.to_string()))?;
    runtime.block_on(advise_all(data_dir, wanted, settings))
}

async fn advise_all(data_dir: &Path, wanted: &[DomainName], settings: &Settings) -> Result<Vec<HostAdvice>, Failure> {
    let (books, unsealed) = Books::open_all(data_dir.to_owned(), Some(settings.zone.clone())).await?;
    let mut names = books.names(&unsealed).await?;
    if names.is_empty() {
        return Err(Failure::Work(format!(
            "there is no metered history in {}: serve with `lockgate run` first, or read an access log with --log FILE",
            data_dir.display()
        )));
    }
    if !wanted.is_empty() {
        if let Some(unknown) = wanted.iter().find(|wanted| !names.contains(wanted.as_str())) {
            return Err(Failure::Work(unknown_domain(unknown, names.iter().map(AsRef::as_ref))));
        }
        names.retain(|name| wanted.iter().any(|wanted| wanted.as_str() == &**name));
    }
    let now = books.now;
    // Of days before, only what was sealed is known.
    let kept_secs = i64::try_from(settings.kept.as_secs()).unwrap_or(i64::MAX);
    let span = Bucket::of(now.plus_secs(-kept_secs))..Bucket::of(now.plus_secs(AHEAD_SECS));
    let mut calendar = Calendar::new(settings.zone.clone());
    let mut hosts = Vec::new();
    for name in names {
        let series = books.series(&unsealed, &name, span.clone()).await?;
        let chain = match &books.store {
            Some(store) => store.chain(&name).await?,
            None => None,
        };
        let mut advisor = Advisor::new(&settings.plans, &mut calendar, Bucket::of(now));
        series.iter().for_each(|(bucket, count)| advisor.add(*bucket, *count));
        if let Some(advice) = advisor.finish(chain.iter().flat_map(sealed_days)) {
            hosts.push(HostAdvice { host: name.as_ref().into(), advice });
        } else if !wanted.is_empty() {
            return Err(Failure::Work(format!("`{name}` has had no request in what is remembered of it")));
        }
    }
    Ok(hosts)
}

/// Of each date of a zone the last record, which amends those before it.
fn sealed_days(chain: &Chain) -> Vec<DayUse> {
    let mut days = std::collections::BTreeMap::new();
    for facts in chain.records.iter().map(|record| &record.facts) {
        let (date, peak_count, peak_at, requests) = (facts.date, facts.peak_count, facts.peak_at, facts.requests);
        days.insert((date, &facts.zone), DayUse { date, peak_count, peak_at, requests });
    }
    days.into_values().collect()
}
