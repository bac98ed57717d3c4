//! Proving control over names: what an authority will look for is put on show before it is told to look.

mod providers;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::failure::Failure;
use crate::challenge::{Board, Exhibit};
use crate::dns::{DnsError, Shown, TxtRecords};
use crate::issuance::subject::Subject;
use crate::issuance::{Authority, Challenge, Dns};
use crate::issuer::acme::Proof;
use crate::issuer::proof_certificate;
use crate::name::DomainName;
pub use providers::Providers;

/// How long it may take to prove control, besides setting records and waiting until they are seen.
const PROVING_PATIENCE: Duration = Duration::from_secs(1800);
/// Records of one order that are set, waited for or cleared at once.
const RECORDS_AT_ONCE: usize = 16;

/// How long it may take in all to prove control over so many names: all that the configuration allows, also if the
/// records are set one after the other, as those of one zone may be.
pub fn patience(dns: Option<&Arc<Dns>>, names: usize) -> Duration {
    let Some(dns) = dns else { return PROVING_PATIENCE };
    let setting = TxtRecords::call_timeout(dns).saturating_mul(u32::try_from(names).unwrap_or(u32::MAX));
    PROVING_PATIENCE.saturating_add(dns.propagation_timeout).saturating_add(setting)
}

/// For whom something is put on show, and by what means.
pub struct Stage<'a> {
    /// What the order is for.
    pub subject: &'a Subject,
    /// Who will look.
    pub authority: &'a Authority,
    /// Files and certificates.
    pub board: &'a Arc<Board>,
    /// TXT records.
    pub providers: &'a Arc<Providers>,
}

/// What is on show for one order.
#[derive(Default)]
pub struct OnShow {
    exhibits: Vec<Exhibit>,
    /// All that may be there, whether anybody knows that it is or not.
    records: Arc<Mutex<Vec<Arc<Record>>>>,
    /// What is done for several records at once. It ends before they are cleared.
    at_work: JoinSet<Result<(), (DomainName, DnsError)>>,
}

/// A TXT record.
pub(super) struct Record {
    records: Arc<TxtRecords>,
    shown: Shown,
    /// The name that it is to prove control over, the parent of a wildcard.
    name: DomainName,
}

impl OnShow {
    /// Puts the answers to these challenges on show.
    ///
    /// # Errors
    /// If one of them cannot be.
    pub async fn put(&mut self, stage: &Stage<'_>, chosen: &[(&Proof, Challenge)]) -> Result<(), Failure> {
        let Stage { authority, board, .. } = *stage;
        let full = || Failure::here(authority, "too many answers are on show already".to_owned());
        let mut values = Vec::new();
        for (proof, challenge) in chosen {
            let failed = |reason: &str| Failure::unproved(authority, proof, &format!("{}: {reason}", proof.name));
            let Some(answer) = proof.offer(*challenge) else {
                return Err(failed(&format!("the authority does not offer {challenge} for it")));
            };
            match challenge {
                Challenge::Http01 => {
                    let shown = board.show_file(&answer.token, &answer.key_authorization);
                    self.exhibits.push(shown.ok_or_else(full)?);
                }
                Challenge::TlsAlpn01 => {
                    let (server_name, key) = proof_certificate(&proof.name, &answer.tls_alpn_digest)
                        .ok_or_else(|| failed("the proving certificate cannot be made"))?;
                    let shown = board.show_certificate(&server_name, key);
                    self.exhibits.push(shown.ok_or_else(full)?);
                }
                Challenge::Dns01 => values.push((proof.name.clone(), answer.dns_value.clone())),
            }
        }
        if values.is_empty() { Ok(()) } else { self.set(stage, values).await }
    }

    /// Sets TXT records: a value for each name.
    async fn set(&mut self, stage: &Stage<'_>, values: Vec<(DomainName, String)>) -> Result<(), Failure> {
        // It is nothing of one name's if nobody can set records.
        let failed = |reason| Failure::here(stage.authority, reason);
        let dns = stage.subject.terms.method.dns.as_ref();
        let dns = dns.ok_or_else(|| failed("dns-01 needs `[acme.dns]`".to_owned()))?;
        let records = stage.providers.get(dns).await.map_err(failed)?;
        let (all, providers) = (Arc::clone(&self.records), Arc::clone(stage.providers));
        let work = move |(name, value): (DomainName, String)| {
            let (records, all, providers) = (Arc::clone(&records), Arc::clone(&all), Arc::clone(&providers));
            async move {
                let failed = |error| (name.clone(), error);
                let shown = records.place(&format!("_acme-challenge.{name}"), &value).await.map_err(failed)?;
                let record = Arc::new(Record { records, shown, name: name.clone() });
                // Before it is set: what is broken off is cleared all the same.
                all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&record));
                providers.note(&record).await;
                record.records.set(&record.shown).await.map_err(failed)
            }
        };
        let done = self.for_each(values, work).await;
        done.map_err(|failed| failure(stage, failed, |name, error| format!("{name}: {error}")))
    }

    /// Waits until what was put on show can be seen by everybody, and the authority can be told to look.
    ///
    /// # Errors
    /// If it is not seen in time.
    pub async fn seen(&mut self, stage: &Stage<'_>) -> Result<(), Failure> {
        let records = self.records();
        let mut deadlines: Vec<(Arc<TxtRecords>, Instant)> = Vec::new();
        let timed = records.iter().map(|record| {
            let known = deadlines.iter().find(|(of, _)| Arc::ptr_eq(of, &record.records)).map(|(_, at)| *at);
            let deadline = known.unwrap_or_else(|| {
                let deadline = record.records.deadline();
                deadlines.push((Arc::clone(&record.records), deadline));
                deadline
            });
            (Arc::clone(record), deadline)
        });
        let timed: Vec<_> = timed.collect();
        let work = |(record, deadline): (Arc<Record>, Instant)| async move {
            let seen = record.records.wait_until_seen(&record.shown, deadline).await;
            seen.map_err(|error| (record.name.clone(), error))
        };
        let done = self.for_each(timed, work).await;
        done.map_err(|failed| failure(stage, failed, |_, error| error.to_string()))?;
        stage.providers.tell(&records).await;
        Ok(())
    }

    /// Takes everything down again. What cannot be cleared at once is tried again later, beside everything else.
    pub async fn clear(mut self, providers: &Arc<Providers>) {
        self.at_work.shutdown().await;
        clear_all(self.records(), |record, error| providers.sweep_later(record, &error)).await;
    }

    fn records(&self) -> Vec<Arc<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does `work` for all, some of them at once, until one fails.
    async fn for_each<T, F>(&mut self, all: Vec<T>, work: impl Fn(T) -> F) -> Result<(), Option<(DomainName, DnsError)>>
    where
        F: Future<Output = Result<(), (DomainName, DnsError)>> + Send + 'static,
    {
        let mut waiting = all.into_iter();
        loop {
            for one in waiting.by_ref().take(RECORDS_AT_ONCE.saturating_sub(self.at_work.len())) {
                self.at_work.spawn(work(one));
            }
            match self.at_work.join_next().await {
                Some(Ok(done)) => done.map_err(Some)?,
                Some(Err(_)) => return Err(None),
                None => return Ok(()),
            }
        }
    }
}

/// Clears records, some of them at once. `left` is told of those that could not be.
async fn clear_all(records: Vec<Arc<Record>>, mut left: impl FnMut(Arc<Record>, DnsError)) {
    let (mut clearing, mut waiting) = (JoinSet::new(), records.into_iter());
    loop {
        for record in waiting.by_ref().take(RECORDS_AT_ONCE.saturating_sub(clearing.len())) {
            clearing.spawn(async move {
                let cleared = record.records.clear(&record.shown).await;
                (record, cleared)
            });
        }
        match clearing.join_next().await {
            Some(Ok((record, Err(error)))) => left(record, error),
            Some(_) => {}
            None => return,
        }
    }
}

/// What failed, in these words. It is put down to a name only where another one may be proved all the same.
fn failure(
    stage: &Stage<'_>,
    failed: Option<(DomainName, DnsError)>,
    words: impl Fn(&DomainName, &DnsError) -> String,
) -> Failure {
    let Some((name, error)) = failed else {
        return Failure::here(stage.authority, "an internal error: see the log".to_owned());
    };
    Failure {
        advice: error.advice(),
        unproved: is_to_blame(stage.subject, &name, &error).then(|| Box::new(name.clone())),
        ..Failure::here(stage.authority, words(&name, &error))
    }
}

/// Whether a certificate without `name` is to be had although that is what failed at its TXT record. A required name's
/// record stands at the same place as that of the parent of a wildcard.
fn is_to_blame(subject: &Subject, name: &DomainName, error: &DnsError) -> bool {
    let place = |of: &DomainName| of.wildcard_parent().unwrap_or(of.as_str()) == name.as_str();
    error.is_of_name() && !subject.required().any(place)
}
