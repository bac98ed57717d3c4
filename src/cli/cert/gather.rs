//! Every certificate there is or is to be: from the inventory, from certificate files, from what is configured.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::tz::TimeZone;

use super::deployed::note_internal;
use super::entry::{Entry, For, Held, State};
use crate::cli::Running;
use crate::cli::failure::Failure;
use crate::clock::{self, UnixTime};
use crate::config::{self, Config};
use crate::issuance::subject::{Subject, subjects};
use crate::name::DomainName;
use crate::pairs::PairFiles;
use crate::site::SiteSpec;
use crate::store::inventory::{Attempts, Certificates, Inventory, Order, Role};
use crate::upkeep::issuing::renewal_at;

/// How long it is told that something failed which nobody wants any more.
const FAILURE_SHOWN_SECS: i64 = 7 * 86_400;

/// Where to look.
#[derive(Debug, Args)]
pub(super) struct Place {
    #[command(flatten)]
    pub(super) running: Running,
}

/// What is wanted, as far as the configuration could be read.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) domains: Arc<[Arc<SiteSpec>]>,
    pub(super) subjects: Vec<Arc<Subject>>,
    /// The subject of each name that cannot be left out of it.
    subject_of: HashMap<DomainName, Arc<Subject>>,
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) data_dir: PathBuf,
    pub(super) zone: TimeZone,
    pub(super) now: UnixTime,
    /// `None`: the configuration cannot be read.
    pub(super) wanted: Option<Wanted>,
    /// By name; of one name in the order in which they came.
    pub(super) entries: Vec<Entry>,
    /// What could not be read.
    pub(super) notes: Vec<String>,
}

impl Wanted {
    pub(super) fn of(config: &Config) -> Self {
        let groups: Vec<_> = config.groups.iter().cloned().map(Arc::new).collect();
        let subjects = subjects(&config.domains, &groups, config.acme.as_ref());
        let of_names = |it: &Arc<Subject>| it.required().map(|name| (name.clone(), Arc::clone(it))).collect::<Vec<_>>();
        let subject_of = subjects.iter().flat_map(of_names).collect();
        Self { domains: Arc::clone(&config.domains), subjects, subject_of }
    }

    /// What is configured for this name.
    pub(super) fn subject_of(&self, name: &DomainName) -> Option<&Arc<Subject>> {
        self.subject_of.get(name)
    }
}

impl Place {
    /// Reads everything.
    pub(super) async fn gather(&self) -> Result<Gathered, Failure> {
        let data_dir = self.running.data_dir();
        let now = clock::now();
        let mut notes = Vec::new();
        let path = &self.running.file.config;
        let config = match config::load(path) {
            Ok(loaded) => Some(loaded.config),
            Err(wrong) if self.running.data_dir.is_none() && !data_dir.is_dir() => return Err(Failure::Config(wrong)),
            Err(wrong) => {
                notes.push(format!("{} cannot be followed, see `lockgate check`: {wrong}", path.display()));
                None
            }
        };
        let mut entries = config.as_ref().map(|config| of_files(config, now, &mut notes)).unwrap_or_default();
        let inventory = Inventory::open_to_read(&data_dir).await?;
        let mut orders = Vec::new();
        let mut attempts = Vec::new();
        if let Some(inventory) = &inventory {
            let Certificates { certificates, unusable } = inventory.certificates().await?;
            entries.extend(certificates.into_iter().map(|stored| Entry::of_stored(stored, now)));
            notes.extend(unusable.iter().map(|it| format!("certificate {} cannot be used: {}", it.id.0, it.reason)));
            orders = inventory.orders().await?.into_iter().map(|(_, order)| order).collect();
            attempts = inventory.attempts().await?;
            inventory.close().await;
        }
        mark_newest(&mut entries);
        let wanted = config.as_ref().map(Wanted::of);
        let known = wanted.as_ref();
        entries.extend(to_be(&entries, known, orders, attempts, now));
        if let Some(wanted) = known {
            plan_renewals(&mut entries, wanted);
        }
        if let Some(wanted) = known {
            note_internal(&mut entries, wanted);
        }
        entries.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let zone = config.map_or(TimeZone::UTC, |config| config.timezone);
        Ok(Gathered { data_dir, zone, now, wanted, entries, notes })
    }
}

/// Certificate files, each pair once; the first domain that has it gives its name.
fn of_files(config: &Config, now: UnixTime, notes: &mut Vec<String>) -> Vec<Entry> {
    let mut pairs = Vec::new();
    let mut seen = HashSet::new();
    let own = config.domains.iter().flat_map(|spec| spec.certificates.iter().map(move |pair| (pair, Some(spec))));
    for (pair, spec) in own.chain(config.fallback.iter().map(|pair| (pair, None))) {
        if seen.insert((pair, spec.is_none())) {
            pairs.push((pair.clone(), spec));
        }
    }
    let paths: Vec<_> = pairs.iter().map(|(pair, _)| pair.clone()).collect();
    let mut entries = Vec::new();
    for ((pair, spec), read) in pairs.into_iter().zip(PairFiles::new().load_all(&paths)) {
        let certificate = match read {
            Ok(certificate) => certificate,
            Err(error) => {
                let whose = spec.map_or("[fallback]", |spec| spec.name.as_str());
                notes.push(format!("{whose}: {error}"));
                continue;
            }
        };
        let (facts, chain) = (certificate.facts().clone(), certificate.chain());
        let held = Held { facts, chain, files: Some(pair), revoked_at: None, ari: None };
        entries.push(match spec {
            Some(spec) => {
                let tenant = spec.tenant.clone();
                Entry::of_files(spec.name.to_string(), For::Domain(Role::Own), tenant, held, now)
            }
            None => Entry::of_files("[fallback]".to_owned(), For::Fallback, None, held, now),
        });
    }
    entries
}

/// Of one subject and role the last that was not revoked; else the last. What was ordered goes with its name, whoever's
/// that is; what was uploaded is one tenant's.
pub(super) fn mark_newest(entries: &mut [Entry]) {
    let key = |entry: &Entry| {
        let tenant = entry.tenant.clone().filter(|_| entry.ca.is_empty());
        (entry.name.clone(), tenant, entry.role)
    };
    let mut newest = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.id.is_some()) {
        let rank = (entry.state != State::Revoked, entry.id);
        let best = newest.entry(key(entry)).or_insert(rank);
        *best = rank.max(*best);
    }
    for entry in entries.iter_mut().filter(|entry| entry.id.is_some()) {
        entry.is_newest = newest.get(&key(entry)).is_some_and(|(_, id)| *id == entry.id);
    }
}

/// What is under way, what failed, and who waits.
pub(super) fn to_be(
    there: &[Entry],
    wanted: Option<&Wanted>,
    orders: Vec<Order>,
    attempts: Vec<Attempts>,
    now: UnixTime,
) -> Vec<Entry> {
    let subjects: BTreeMap<&DomainName, &Arc<Subject>> =
        wanted.iter().flat_map(|wanted| &wanted.subjects).map(|subject| (&subject.name, subject)).collect();
    let mut attempts: BTreeMap<_, _> = attempts.into_iter().map(|it| ((it.subject.clone(), it.role), it)).collect();
    let mut entries = Vec::new();
    let mut told = BTreeSet::new();
    for order in orders {
        let task = (order.subject.clone(), order.role);
        // One that is gone on with later, when what failed is tried again.
        if attempts.get(&task).is_some_and(|attempts| attempts.next_at > now) {
            continue;
        }
        let subject = subjects.get(&order.subject).copied();
        let mut entry = Entry::to_be(&order.subject, order.role, State::Validating, subject.map(Arc::as_ref));
        entry.ca.clone_from(&order.ca);
        entry.names.clone_from(&order.names);
        entry.attempts = attempts.remove(&task);
        entries.push(entry);
        told.insert(task);
    }
    for (task, attempts) in attempts {
        let subject = subjects.get(&task.0).copied();
        let is_old = attempts.last_at.plus_secs(FAILURE_SHOWN_SECS) < now;
        if wanted.is_some() && subject.is_none() && is_old {
            continue;
        }
        let mut entry = Entry::to_be(&task.0, task.1, State::Failed, subject.map(Arc::as_ref));
        entry.ca.clone_from(&attempts.ca);
        entry.attempts = Some(attempts);
        entries.push(entry);
        told.insert(task);
    }
    let usable: HashSet<&str> = there
        .iter()
        .filter(|entry| entry.role == For::Domain(Role::Own) && entry.id.is_some() && entry.is_usable())
        .map(|entry| entry.name.as_str())
        .collect();
    for (name, subject) in subjects {
        let is_served = subject.terms.is_manual || usable.contains(name.as_str());
        if !is_served && !told.contains(&(name.clone(), Role::Own)) {
            entries.push(Entry::to_be(name, Role::Own, State::Waiting, Some(subject)));
        }
    }
    entries
}

/// When what is renewed by itself is.
fn plan_renewals(entries: &mut [Entry], wanted: &Wanted) {
    let subjects: HashMap<&str, &Arc<Subject>> =
        wanted.subjects.iter().map(|subject| (subject.name.as_str(), subject)).collect();
    let failed: HashMap<(String, For), UnixTime> = entries
        .iter()
        .filter_map(|entry| Some(((entry.name.clone(), entry.role), entry.attempts.as_ref()?.next_at)))
        .collect();
    for entry in entries.iter_mut().filter(|entry| entry.is_newest && entry.id.is_some()) {
        let (Some(subject), Some(held), For::Domain(role)) =
            (subjects.get(entry.name.as_str()), &entry.held, entry.role)
        else {
            continue;
        };
        let is_renewed = match role {
            Role::Own => !subject.terms.is_manual,
            Role::Standby => subject.terms.method.standby,
        };
        let (true, None) = (is_renewed, held.revoked_at) else { continue };
        let validity = (held.facts.not_before, held.facts.not_after);
        let due = renewal_at(&subject.name, role, validity, held.ari.and_then(|ari| ari.window));
        let next_attempt = failed.get(&(entry.name.clone(), entry.role)).copied();
        entry.renew_at = Some(next_attempt.map_or(due, |next| next.max(due)));
    }
}
