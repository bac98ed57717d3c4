//! A loop with an inventory and a vault of its own, and no network.

use std::cell::Cell;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use super::super::failure::Blame;
use super::super::*;
use crate::certificate::fixture::{DAY, NOW, pair};
use crate::certificate::key_context_of_leaf;
use crate::control::{Blueprint, WantedCertificate};
use crate::issuance::{CertificateSpec, DomainAcme, KeyAlgorithm, KeySource, Method, OnDemand};
use crate::name::TenantId;
use crate::site::{OriginSpec, SiteSpec};
use crate::store::inventory::{NewCertificate, Provenance, Role, StoredCertificate};

thread_local!(static CLOCK: Cell<UnixTime> = const { Cell::new(NOW) });

pub(super) struct Bench {
    pub(super) issuing: Issuing,
    /// Orders that are over, of which the loop has not heard.
    jobs: HashMap<Task, Job>,
    dir: TempDir,
}

/// The pen, in other hands.
pub(super) struct HeldPen {
    release: mpsc::Sender<()>,
    holder: JoinHandle<bool>,
}

impl HeldPen {
    /// Gives it back; nobody may have waited for that.
    pub(super) fn release(self) {
        _ = self.release.send(());
        assert!(self.holder.join().unwrap(), "the loop waited for the pen");
    }
}

pub(super) fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

pub(super) fn own(subject: &str) -> Task {
    Task { subject: name(subject), role: Role::Own }
}

pub(super) fn standby(subject: &str) -> Task {
    Task { subject: name(subject), role: Role::Standby }
}

/// What the authority `one` says, and nobody would do better.
pub(super) fn failure() -> Failure {
    Failure { ca: directory("one"), ..Failure::from("out of paper".to_owned()) }
}

pub(super) fn rate_limit(secs: i64) -> Failure {
    let retry_after = Some(Duration::from_secs(u64::try_from(secs).unwrap()));
    Failure { retry_after, is_rate_limit: true, is_passing: true, blame: Blame::Authority, ..failure() }
}

/// Nothing, for a while.
pub(super) fn silence() -> Failure {
    Failure { blame: Blame::Authority, is_silence: true, is_passing: true, ..failure() }
}

/// That control over a name is not proved.
pub(super) fn unproved(text: &str) -> Failure {
    let unproved = Some(Box::new(name(text)));
    Failure { blame: Blame::Proof, unproved, reason: "unauthorized", ..failure() }
}

/// Nobody is reached there.
fn directory(authority: &str) -> String {
    format!("https://{authority}.invalid/directory")
}

/// By its name; with `private` behind it, one that issues for names such as ours.
fn authority(text: &str) -> Arc<Authority> {
    let (name, is_private) = text.split_once(' ').map_or((text, false), |(name, word)| (name, word == "private"));
    Arc::new(Authority {
        name: name.to_owned(),
        directory: directory(name),
        roots: is_private.then(|| [vec![].into()].into()),
        email: None,
        eab: None,
        profile: None,
        preferred_chain: None,
        is_standby_only: false,
    })
}

/// A domain by its name; with `at CA` behind it, one that is for this authority alone, and with `of TENANT`, whose.
fn domain(text: &str, method: &Method) -> Arc<SiteSpec> {
    let mut words = text.split(' ');
    let mut spec = SiteSpec::new(name(words.next().unwrap()), OriginSpec::http("127.0.0.1", 1));
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        match word {
            "at" => {
                let authorities = Some(vec![value.to_owned()]);
                spec.acme = DomainAcme::Method(Box::new(Method { authorities, ..method.clone() }));
            }
            _ => spec.tenant = TenantId::new(value),
        }
    }
    Arc::new(spec)
}

/// The first domain takes strangers in.
fn blueprint(domains: &[&str], authorities: &[&str], change: impl FnOnce(&mut Acme)) -> Blueprint {
    let method = Method {
        authorities: None,
        challenge: None,
        dns: None,
        key: KeyAlgorithm::default(),
        profile: None,
        standby: true,
    };
    let specs = domains.iter().map(|text| domain(text, &method)).collect();
    let on_demand = domains.first().map(|site| OnDemand {
        site: name(site.split(' ').next().unwrap()),
        allow: vec!["*.test".to_owned(), "stranger.example".to_owned()],
        ask: None,
        max_names: 10,
        max_new_per_hour: 1000,
    });
    let mut acme = Acme {
        agreed_to_terms: true,
        authorities: authorities.iter().map(|text| authority(text)).collect(),
        method,
        max_orders: 16,
        on_demand,
    };
    change(&mut acme);
    Blueprint { domains: specs, acme: Some(Arc::new(acme)), has_http_listener: true, ..Blueprint::default() }
}

impl Bench {
    /// For these domains, with the authority `one`.
    pub(super) async fn new(domains: &[&str], change: impl FnOnce(&mut Acme)) -> Self {
        Self::with(domains, &["one private"], change).await
    }

    pub(super) async fn with(domains: &[&str], authorities: &[&str], change: impl FnOnce(&mut Acme)) -> Self {
        CLOCK.set(NOW);
        Self::open(tempfile::tempdir().unwrap(), blueprint(domains, authorities, change)).await
    }

    /// Another process in the same folder.
    pub(super) async fn restarted(self, domains: &[&str]) -> Self {
        let Self { issuing, dir, .. } = self;
        let inventory = issuing.workshop.custody.inventory().unwrap();
        drop(issuing);
        // Orders that were under way hold it, too, until they are dropped.
        tokio::task::yield_now().await;
        drop(inventory);
        Self::open(dir, blueprint(domains, &["one private"], |_| ())).await
    }

    async fn open(dir: TempDir, blueprint: Blueprint) -> Self {
        let registry = Registry::new();
        let source = KeySource::Made(dir.path().join("vault.key"));
        let custody = Custody::new(dir.path(), source, &registry).unwrap();
        let live = Arc::new(Live::default());
        let mut control = Control::new(Arc::clone(&live));
        let internal = Arc::clone(control.internal());
        let contents = custody.open(CLOCK.get()).await.unwrap();
        custody.unlock(&internal, CLOCK.get()).await.unwrap();
        control.apply(blueprint).unwrap();
        control.take_in(contents.certificates.clone());
        let (control, clock) = (Arc::new(Mutex::new(control)), Arc::new(Clock::new(|| CLOCK.get())));
        let (board, alerts) = (Arc::default(), Arc::default());
        let mut issuing = Issuing::new(custody, control, board, clock, alerts, Handle::current(), &registry).unwrap();
        issuing.take_over(contents);
        Self { issuing, jobs: HashMap::new(), dir }
    }

    /// The configuration is another one.
    pub(super) fn apply(&mut self, domains: &[&str], authorities: &[&str], change: impl FnOnce(&mut Acme)) {
        lock(&self.issuing.control).apply(blueprint(domains, authorities, change)).unwrap();
    }

    /// The same with one certificate for several names.
    pub(super) fn group(&mut self, domains: &[&str], names: &[&str]) {
        let mut blueprint = blueprint(domains, &["one private"], |_| ());
        let method = blueprint.acme.as_ref().unwrap().method.clone();
        let names = names.iter().map(|text| name(text)).collect();
        blueprint.groups = vec![Arc::new(CertificateSpec { names, tenant: None, method })];
        lock(&self.issuing.control).apply(blueprint).unwrap();
    }

    pub(super) fn set(&mut self, now: UnixTime) {
        CLOCK.set(now);
    }

    pub(super) async fn step(&mut self, now: UnixTime) {
        CLOCK.set(now);
        self.issuing.step(now).await;
    }

    /// By their names.
    pub(super) fn under_way(&self) -> Vec<Task> {
        let mut tasks: Vec<_> = self.issuing.under_way.keys().cloned().collect();
        tasks.sort();
        tasks
    }

    pub(super) fn planned(&self, task: &Task) -> Option<UnixTime> {
        self.issuing.wanted.due_at(task)
    }

    pub(super) fn replan(&mut self, subject: &str) {
        let control = Arc::clone(&self.issuing.control);
        self.issuing.plan(&lock(&control), &name(subject), CLOCK.get());
    }

    /// A handshake came for a name that is approved.
    pub(super) fn ring(&mut self, stranger: &str) -> oneshot::Receiver<Ordered> {
        let (reply, answer) = oneshot::channel();
        // Where there are aliases is known from the first step on.
        self.issuing.admit(name(stranger), reply);
        answer
    }

    /// `lockgate cert order`.
    pub(super) fn ask(&mut self, names: &[&str]) -> oneshot::Receiver<Ordered> {
        let (reply, answer) = oneshot::channel();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.issuing.asked(&WantedCertificate { names }, reply);
        answer
    }

    pub(super) fn authority(&self, wanted: &str) -> Arc<Authority> {
        let acme = self.issuing.acme.as_ref().unwrap();
        Arc::clone(acme.authorities.iter().find(|it| it.name == wanted).unwrap())
    }

    /// The order that is under way for it, which has failed for want of a network; the loop has not heard of that.
    async fn job(&mut self, task: &Task) -> Job {
        while !self.jobs.contains_key(task) {
            let joined = self.issuing.running.join_next().await.expect("it is under way");
            let (job, _) = joined.unwrap();
            self.jobs.insert(job.task.clone(), job);
        }
        self.jobs.remove(task).unwrap()
    }

    /// Who is asked for it, and whether an order that was placed before is gone on with.
    pub(super) async fn begun(&mut self, task: &Task) -> (String, bool) {
        let job = self.job(task).await;
        let begun = (job.authority.name.clone(), job.under_way.is_some());
        self.jobs.insert(task.clone(), job);
        begun
    }

    /// How it is ordered: whose turn it is of the ways, and for which names.
    pub(super) async fn ordered(&mut self, task: &Task) -> (u32, Vec<String>) {
        let job = self.job(task).await;
        let ordered = (job.turn, job.names().iter().map(ToString::to_string).collect());
        self.jobs.insert(task.clone(), job);
        ordered
    }

    /// The orders that the inventory has, by subject and authority.
    pub(super) async fn kept_orders(&self) -> Vec<(String, String, String)> {
        let orders = self.issuing.workshop.custody.inventory().unwrap().orders().await.unwrap();
        let parts = |(_, it): (OrderId, Order)| (it.subject.to_string(), it.ca, it.url);
        orders.into_iter().map(parts).collect()
    }

    /// Its order has failed.
    pub(super) async fn failed(&mut self, task: &Task, failure: Failure) {
        let job = self.job(task).await;
        self.issuing.finished(job, Err(failure)).await;
    }

    /// Its order has brought a certificate, valid from so many days after [`NOW`] to so many.
    pub(super) async fn issued(&mut self, task: &Task, from: i64, to: i64) {
        let job = self.job(task).await;
        let names: Vec<&str> = job.subject.names().map(DomainName::as_str).collect();
        let made = pair(&names).valid(from * DAY, to * DAY - 1).pem().stored();
        let context = key_context_of_leaf(&made.chain[0]).unwrap();
        let custody = Arc::clone(&self.issuing.workshop.custody);
        let new = NewCertificate {
            subject: task.subject.clone(),
            tenant: None,
            role: task.role,
            provenance: if job.is_on_demand { Provenance::OnDemand } else { Provenance::Acme },
            ca: job.authority.directory.as_str().into(),
            facts: made.facts,
            chain: made.chain,
            sealed_key: custody.vault().seal(&made.key[context.len()..], &context).unwrap(),
            at: CLOCK.get(),
        };
        let id = custody.inventory().unwrap().keep(&new).await.unwrap();
        let kept = custody.kept(StoredCertificate { id, certificate: new, revoked_at: None, ari: None }).unwrap();
        self.issuing.finished(job, Ok(kept)).await;
    }

    /// A certificate that is there from before, valid for a while.
    pub(super) fn hold(&mut self, subject: &str, ca: &str, tenant: Option<&str>) {
        let kept = Kept {
            id: CertificateId(1),
            subject: name(subject),
            tenant: tenant.and_then(TenantId::new),
            role: Role::Own,
            is_on_demand: false,
            ca: ca.into(),
            certificate: pair(&[subject]).valid(-DAY, 89 * DAY).make(),
            ari: None,
        };
        lock(&self.issuing.control).take_in(vec![Arc::new(kept)]);
    }

    /// Somebody has the pen while a disk is slow.
    pub(super) fn hold_the_pen(&self) -> HeldPen {
        let (release, released) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let control = Arc::clone(&self.issuing.control);
        let holder = thread::spawn(move || {
            let _pen = lock(&control);
            tell.send(()).unwrap();
            released.recv_timeout(Duration::from_secs(5)).is_ok()
        });
        told.recv().unwrap();
        HeldPen { release, holder }
    }

    /// The subjects of what is served.
    pub(super) fn kept(&self) -> Vec<String> {
        lock(&self.issuing.control).kept().all().map(|kept| kept.subject.to_string()).collect()
    }

    /// What an earlier process left under way: subject, authority and URL.
    pub(super) async fn leave_orders(&mut self, orders: &[(&str, &str, &str)]) {
        let order = |(subject, authority, url): &(&str, &str, &str)| Order {
            subject: name(subject),
            role: Role::Own,
            ca: directory(authority),
            url: (*url).to_owned(),
            names: vec![name(subject)],
            sealed_key: None,
            placed_at: NOW,
        };
        let inventory = self.issuing.workshop.custody.inventory().unwrap();
        for left in orders {
            inventory.begin_order(&order(left)).await.unwrap();
        }
        let orders = inventory.orders().await.unwrap();
        self.issuing.take_over(Contents { orders, ..Contents::default() });
    }
}
