//! `[[domain]]`: what is served, and the certificate pairs that are named or how others are obtained.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::acme::{Issuing, misfit};
use super::diagnostic::{Wrong, shown};
use super::group::Groups;
use super::keys;
use super::load::PairUse;
use super::origin::{self, CaFiles};
use super::problems::Problems;
use super::reader::{Reader, Value};
use super::source::Place;
use super::values::{domain_name, duration, hsts, not_among, path, size, word_or};
use crate::certificate::PairPaths;
use crate::issuance::DomainAcme;
use crate::name::{DomainName, TenantId};
use crate::plan::Plan;
use crate::site::{OriginSpec, SiteSpec, Terms, Timeouts};

/// Origins that are known by how they are written.
const MAX_KNOWN_URLS: usize = 1000;

/// The domains of all files.
#[derive(Debug)]
pub struct Domains {
    /// The plans that they can name.
    pub plans: BTreeMap<String, Plan>,
    /// Whether `plans` are all that were written.
    has_all_plans: bool,
    ca_files: CaFiles,
    known: Known,
    /// What they inherit.
    pub issuing: Issuing,
    /// Certificates for several names, written beside them.
    pub groups: Groups,
    places: HashMap<DomainName, Place>,
    /// Those without faults, in the order written.
    pub sites: Vec<Arc<SiteSpec>>,
    /// Their certificate pairs.
    pub pairs: Vec<PairUse>,
}

/// What many domains say alike, of which there is one: with 100,000 domains the copies would weigh more than the names.
#[derive(Debug, Default)]
struct Known {
    origins: HashSet<Arc<OriginSpec>>,
    /// The first of them by how they are written: what is written again need not be understood again.
    urls: HashMap<Box<str>, Arc<OriginSpec>>,
    terms: HashSet<Arc<Terms>>,
    tenants: HashSet<TenantId>,
}

impl Domains {
    /// None yet; `plans` are those that they can name, which is only held against them if those are all.
    pub fn new((plans, has_all_plans): (BTreeMap<String, Plan>, bool), issuing: Issuing, ca_files: CaFiles) -> Self {
        Self {
            plans,
            has_all_plans,
            ca_files,
            known: Known::default(),
            issuing,
            groups: Groups::default(),
            places: HashMap::default(),
            sites: Vec::new(),
            pairs: Vec::new(),
        }
    }

    /// Whether a domain of that name was read.
    pub fn contains(&self, name: &DomainName) -> bool {
        self.places.contains_key(name)
    }

    /// Where the domain of that name is written.
    pub fn place_of(&self, name: &DomainName) -> Option<Place> {
        self.places.get(name).copied()
    }

    /// Reads the domains and groups of a file in the directory `base`.
    pub fn read_file(&mut self, file: &Reader, base: &Path, problems: &mut Problems) {
        for domain in file.tables("domain", &keys::DOMAIN, problems) {
            self.read(&domain, base, problems);
        }
        self.groups.read_file(file, base, &self.issuing, problems);
    }

    fn read(&mut self, domain: &Reader, base: &Path, problems: &mut Problems) {
        let name = self.read_name(domain, problems);
        let tenant = domain.read("tenant", problems, tenant);
        let plan = domain.read("plan", problems, |v| self.plan(v));
        let origin = self.read_origin(domain, base, problems);
        let hsts = domain.read("hsts", problems, hsts);
        let max_body = domain.read("max_body", problems, |v| word_or(v, "unlimited", body_size));
        let timeouts = read_timeouts(domain, problems);
        let acme = self.read_acme(domain, name.as_ref(), base, problems);
        let mut certificates = Vec::new();
        for table in domain.tables("certificate", &keys::CERTIFICATE, problems) {
            if let Some(pair) = PairUse::read(&table, base, name.clone(), problems) {
                certificates.push(pair.pair.clone());
                self.pairs.push(pair);
            }
        }
        if let (Some(name), Some(origin)) = (name, origin) {
            let max_body_bytes = max_body.flatten();
            let terms = one_of(&mut self.known.terms, Terms { plan, hsts, max_body_bytes, timeouts });
            let tenant = tenant.map(|tenant| one_of(&mut self.known.tenants, tenant));
            self.sites.push(Arc::new(SiteSpec {
                name,
                tenant,
                terms,
                origin,
                certificates: certificates.into(),
                acme,
            }));
        }
    }

    fn read_origin(&mut self, domain: &Reader, base: &Path, problems: &mut Problems) -> Option<Arc<OriginSpec>> {
        let written = origin::written_alone(domain);
        if let Some(known) = written.and_then(|url| self.known.urls.get(url)) {
            return Some(Arc::clone(known));
        }
        let origin = origin::read(domain, base, &mut self.ca_files, problems)?;
        let origin = one_of(&mut self.known.origins, origin);
        if let Some(url) = written.filter(|_| self.known.urls.len() < MAX_KNOWN_URLS) {
            self.known.urls.insert(url.into(), Arc::clone(&origin));
        }
        Some(origin)
    }

    fn read_acme(
        &self,
        domain: &Reader,
        name: Option<&DomainName>,
        base: &Path,
        problems: &mut Problems,
    ) -> DomainAcme {
        let Some(value) = domain.value("acme") else { return DomainAcme::Inherit };
        match value.boolean() {
            Ok(true) => return DomainAcme::Inherit,
            Ok(false) => return DomainAcme::Never,
            Err(_) if value.is_table() => {}
            Err(_) => {
                let remedy = "write `acme = false`, or a table as in `acme = { challenge = \"dns-01\" }`";
                problems.report(value.place, value.expected("false or a table", remedy));
            }
        }
        let table = value.is_table().then(|| domain.table("acme", &keys::DOMAIN_ACME, problems)).flatten();
        let Some(table) = table else { return DomainAcme::Inherit };
        let method = self.issuing.read_method(&table, base, problems);
        if let (Some(name), Some(written), Some(challenge)) = (name, table.value("challenge"), method.challenge)
            && let Some(wrong) = misfit(name, challenge)
        {
            problems.report(written.place, wrong);
        }
        DomainAcme::Method(Box::new(method))
    }

    fn read_name(&mut self, domain: &Reader, problems: &mut Problems) -> Option<DomainName> {
        let Some(name) = domain.require("name", "\"www.example.com\"", problems, domain_name) else {
            problems.note_missing_domain();
            return None;
        };
        let place = domain.value("name").map_or(domain.place, |value| value.place);
        if let Some(first) = self.places.get(&name) {
            let wrong = Wrong::new(format!("two domains are called `{name}`"), "make them one `[[domain]]`");
            problems.report_both((place, "again here"), (*first, "first here"), wrong);
        } else {
            self.places.insert(name.clone(), place);
        }
        Some(name)
    }

    fn plan(&self, value: &Value) -> Result<Arc<Plan>, Wrong> {
        let name = value.text()?;
        match self.plans.get(name) {
            Some(plan) => Ok(Arc::new(plan.clone())),
            None if self.has_all_plans => Err(not_among("plan", name, self.plans.keys().map(String::as_str))),
            None => Ok(Arc::new(Plan::new(name, 1))),
        }
    }
}

impl PairUse {
    /// Reads `cert` and `key`.
    pub(super) fn read(
        table: &Reader,
        base: &Path,
        domain: Option<DomainName>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let place_of = |key| table.value(key).map_or(table.place, |value| value.place);
        let cert = table.require("cert", "\"certs/www.pem\"", problems, |v| path(v, base));
        let key = table.require("key", "\"certs/www.key\"", problems, |v| path(v, base));
        let pair = PairPaths { cert: cert?, key: key? };
        Some(Self { pair, domain, place: table.place, cert_place: place_of("cert"), key_place: place_of("key") })
    }
}

/// The one of `known` that is like `value`, which is one of them if there was none.
fn one_of<T, V>(known: &mut HashSet<T>, value: V) -> T
where
    T: Borrow<V> + Clone + Eq + Hash + From<V>,
    V: Eq + Hash,
{
    match known.get(&value) {
        Some(one) => one.clone(),
        None => {
            let one = T::from(value);
            known.insert(one.clone());
            one
        }
    }
}

/// Whose something is.
///
/// # Errors
/// Nothing is written, or what no name has in it.
pub fn tenant(value: &Value) -> Result<TenantId, Wrong> {
    let text = value.text()?;
    // Some are what the inventory's columns are parted by.
    if text.trim().contains(char::is_control) {
        let message = format!("`tenant` is `{}`, with a control character in it", shown(text));
        return Err(Wrong::new(message, "write a name without tabs, line ends and the like"));
    }
    TenantId::new(text).ok_or_else(|| Wrong::new("`tenant` is empty", "write a name, or leave `tenant` out"))
}

fn body_size(value: &Value) -> Result<u64, Wrong> {
    match size(value)? {
        0 => Err(Wrong::new("`max_body` is 0 and would refuse every body", "write a size such as \"10MiB\"")),
        size => Ok(size),
    }
}

fn read_timeouts(domain: &Reader, problems: &mut Problems) -> Timeouts {
    let mut timeouts = Timeouts::default();
    if let Some(table) = domain.table("timeouts", &keys::TIMEOUTS, problems) {
        table.read_into("connect", &mut timeouts.connect, problems, duration);
        table.read_into("response", &mut timeouts.response, problems, duration);
        table.read_into("idle", &mut timeouts.idle, problems, duration);
    }
    timeouts
}
