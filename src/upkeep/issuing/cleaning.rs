//! What is kept for nobody any more is given up, a little at a time.

use std::sync::Arc;

use super::queue::Task;
use super::{Issuing, pen, try_lock};
use crate::clock::UnixTime;
use crate::control::{Control, Kept};
use crate::store::inventory::CertificateId;
use crate::upkeep::custody::CustodyError;

/// How long a certificate that nobody needs is kept after it has expired.
const KEPT_SECS: i64 = 7 * 86_400;
/// The same for the last one of a name that nobody configures any more: whoever takes a domain out for a year finds it.
const KEPT_UNCONFIGURED_SECS: i64 = 400 * 86_400;
/// Certificates given up per cleaning at most.
const MAX_GIVEN_UP: usize = 100;
/// So many renewals of a name on demand that failed say that it is lost, whatever the clock says: they are an hour apart,
/// so that this takes four days.
const LOST_AFTER_FAILURES: u32 = 100;
/// How long it is remembered what failed, and what was under way, for a subject that is gone: by then every back-off is
/// over, and every authority has forgotten the order.
const GONE_SECS: i64 = 30 * 86_400;
/// Of either so many are forgotten per cleaning at most.
const MAX_FORGOTTEN: usize = 100;

/// Who needs a certificate that has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A name that is served, of which it is the last.
    Some,
    /// A name that nobody configures any more.
    IfConfiguredAgain,
    /// Nobody: there is another one, or the name is lost.
    None,
}

/// Whether a certificate that ended, or will end, at `end` is given up.
fn is_given_up(end: UnixTime, need: Need, now: UnixTime) -> bool {
    let kept_secs = match need {
        Need::Some => return false,
        Need::IfConfiguredAgain => KEPT_UNCONFIGURED_SECS,
        Need::None => KEPT_SECS,
    };
    end.secs() < now.secs().saturating_sub(kept_secs)
}

impl Issuing {
    /// Gives up a little of what is old.
    pub(super) async fn clean(&mut self, now: UnixTime) {
        // Before the first look at the world, nobody is wanted.
        if self.edition == 0 {
            return;
        }
        self.give_up_what_is_old(now).await;
        if let Err(error) = self.forget_the_gone(now).await {
            tracing::warn!("what is kept for names that are gone cannot be forgotten: {error}");
        }
    }

    /// Forgets certificates that expired long ago, and that were replaced or are for a name that is gone.
    pub(super) async fn give_up_what_is_old(&mut self, now: UnixTime) {
        let Ok(inventory) = self.workshop.custody.inventory() else { return };
        let control = Arc::clone(&self.control);
        let old: Vec<CertificateId> = {
            let Some(control) = try_lock(&control) else { return };
            let is_old = |kept: &&Arc<Kept>| {
                let newest = control.kept().newest(&kept.subject, kept.role);
                let is_replaced = newest.is_some_and(|it| it.id != kept.id);
                let need = match () {
                    () if is_replaced || kept.is_on_demand && self.is_lost(&control, kept) => Need::None,
                    () if self.is_unconfigured(&control, kept) => Need::IfConfiguredAgain,
                    () => Need::Some,
                };
                is_given_up(kept.certificate.not_after(), need, now)
            };
            control.kept().all().filter(is_old).map(|kept| kept.id).take(MAX_GIVEN_UP).collect()
        };
        for id in &old {
            if inventory.remove(*id).await.is_err() {
                return;
            }
        }
        if !old.is_empty() {
            let mut control = pen(&control).await;
            control.give_up(&old);
            self.forget_gone_aliases(&control);
        }
    }

    /// Forgets what failed, and what was under way, for subjects that nobody configures, and no handshake asked for, any
    /// more.
    async fn forget_the_gone(&mut self, now: UnixTime) -> Result<(), CustodyError> {
        self.left_out.retain(|task, _| self.wanted.has(&task.subject));
        let before = now.plus_secs(-GONE_SECS);
        let is_gone = |task: &Task| {
            let is_wanted = self.wanted.has(&task.subject) || self.once.has(task);
            !is_wanted && !self.strangers.is_first(task) && !self.under_way.contains_key(task)
        };
        let failed = self.attempts.values().filter(|it| it.last_at < before && it.next_at < before);
        let failed = failed.map(|it| Task { subject: it.subject.clone(), role: it.role });
        let failed: Vec<Task> = failed.filter(is_gone).take(MAX_FORGOTTEN).collect();
        let placed = self.orders.iter().filter(|(task, (_, order))| order.placed_at < before && is_gone(task));
        let placed: Vec<_> = placed.map(|(task, (id, _))| (task.clone(), *id)).take(MAX_FORGOTTEN).collect();
        if failed.is_empty() && placed.is_empty() {
            return Ok(());
        }
        let inventory = self.workshop.custody.inventory()?;
        for task in failed {
            inventory.forget_attempts(&task.subject, task.role).await?;
            self.attempts.remove(&task);
            self.strangers.forget_failure(&task);
        }
        for (task, id) in placed {
            inventory.end_order(id).await?;
            self.orders.remove(&task);
        }
        Ok(())
    }

    /// Whether nobody configures a name any more, and no handshake asked for it.
    fn is_unconfigured(&self, control: &Control, kept: &Kept) -> bool {
        let is_served = self.live.snapshot().site(kept.subject.as_str()).is_some();
        !is_served && !self.wanted.has(&kept.subject) && !control.is_alias(&kept.subject)
    }

    /// Whether a name on demand, of which this is the last certificate, is gone for good. That it has expired does not say
    /// so: a clock that is a year ahead for an hour says that of all of them, and each would be ordered anew.
    fn is_lost(&self, control: &Control, kept: &Kept) -> bool {
        if !control.is_alias(&kept.subject) {
            return !self.wanted.has(&kept.subject);
        }
        let task = Task { subject: kept.subject.clone(), role: kept.role };
        let failures = self.attempts.get(&task).map_or(0, |attempts| attempts.failures);
        self.strangers.is_refused(&kept.subject) || failures >= LOST_AFTER_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use rstest::rstest;
    use tempfile::TempDir;

    use super::super::lock;
    use super::*;
    use crate::certificate::facts_of;
    use crate::certificate::fixture::{DAY, NOW, pair};
    use crate::challenge::Board;
    use crate::clock::Clock;
    use crate::control::Blueprint;
    use crate::issuance::{Acme, Authority, KeyAlgorithm, KeySource, Method, OnDemand};
    use crate::name::DomainName;
    use crate::site::{OriginSpec, SiteSpec};
    use crate::snapshot::Live;
    use crate::store::inventory::{Attempts, NewCertificate, Order, Provenance, Role};
    use crate::upkeep::alerts::Alerts;
    use crate::upkeep::custody::Custody;
    use std::sync::Mutex;
    use tokio::runtime::Handle;

    const SITE: &str = "shops.example";
    const STRANGER: &str = "a.customers.example";
    const CA: &str = "https://ca.example/directory";

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn blueprint(allow: &[&str]) -> Blueprint {
        let authority = Authority {
            name: "ca".to_owned(),
            directory: CA.to_owned(),
            // A private one: it issues for anybody's names.
            roots: Some(Arc::new([])),
            email: None,
            eab: None,
            profile: None,
            preferred_chain: None,
            is_standby_only: false,
        };
        let on_demand = (!allow.is_empty()).then(|| OnDemand {
            site: name(SITE),
            allow: allow.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ask: None,
            max_names: 10,
            max_new_per_hour: 10,
        });
        let key = KeyAlgorithm::EcdsaP256;
        let method = Method { authorities: None, challenge: None, dns: None, key, profile: None, standby: false };
        let authorities = vec![Arc::new(authority)];
        let acme = Acme { agreed_to_terms: true, authorities, method, max_orders: 1, on_demand };
        let site = SiteSpec::new(name(SITE), OriginSpec::http("127.0.0.1", 1));
        Blueprint { domains: [Arc::new(site)].into(), acme: Some(Arc::new(acme)), ..Blueprint::default() }
    }

    /// A loop over an inventory of its own, whose vault is locked: nothing is ordered.
    struct World {
        dir: TempDir,
        issuing: Issuing,
    }

    impl World {
        /// With the site, and names under `allow`; `None` of them: none are served on demand.
        async fn new(allow: &[&str]) -> Self {
            let dir = TempDir::new().unwrap();
            let issuing = issuing(&dir, allow).await;
            Self { dir, issuing }
        }

        /// As the next process finds it.
        async fn restarted(self, allow: &[&str]) -> Self {
            self.issuing.workshop.custody.inventory().unwrap().close().await;
            let issuing = issuing(&self.dir, allow).await;
            Self { issuing, ..self }
        }

        /// A certificate for `subject` from the first second of the fixture's until so many days from [`NOW`].
        async fn keep(&self, subject: &str, provenance: Provenance, ends_days: i64) {
            let chain = pair(&[subject]).valid(-100 * DAY, ends_days * DAY).make().chain();
            let new = NewCertificate {
                subject: name(subject),
                tenant: None,
                role: Role::Own,
                provenance,
                ca: CA.into(),
                facts: facts_of(&chain[0]).unwrap(),
                chain,
                sealed_key: b"sealed".as_slice().into(),
                at: NOW,
            };
            self.issuing.workshop.custody.inventory().unwrap().keep(&new).await.unwrap();
        }

        async fn note(&self, subject: &str, failures: u32, at: UnixTime) {
            let attempts = Attempts {
                subject: name(subject),
                role: Role::Own,
                failures,
                first_at: at,
                last_at: at,
                next_at: at.plus_secs(3600),
                ca: CA.to_owned(),
                problem: String::new(),
                advice: String::new(),
                held_off: Vec::new(),
            };
            self.issuing.workshop.custody.inventory().unwrap().note_attempts(&attempts).await.unwrap();
        }

        /// `url`: empty before it was placed.
        async fn begin(&self, subject: &str, url: &str, at: UnixTime) {
            let order = Order {
                subject: name(subject),
                role: Role::Own,
                ca: CA.to_owned(),
                url: url.to_owned(),
                names: vec![name(subject)],
                sealed_key: None,
                placed_at: at,
            };
            self.issuing.workshop.custody.inventory().unwrap().begin_order(&order).await.unwrap();
        }

        /// For whom there are failures and orders, in the inventory; and in memory there are as many.
        async fn remembered(&self) -> (Vec<String>, Vec<String>) {
            let inventory = self.issuing.workshop.custody.inventory().unwrap();
            let (failed, placed) = (inventory.attempts().await.unwrap(), inventory.orders().await.unwrap());
            assert_eq!((failed.len(), placed.len()), (self.issuing.attempts.len(), self.issuing.orders.len()));
            let failed = failed.iter().map(|it| it.subject.to_string()).collect();
            (failed, placed.iter().map(|(_, it)| it.subject.to_string()).collect())
        }

        /// Whose certificates there are after a cleaning, in the inventory and in the world.
        async fn cleaned(&mut self, now: UnixTime) -> Vec<String> {
            self.issuing.clean(now).await;
            let stored = self.issuing.workshop.custody.inventory().unwrap().certificates().await.unwrap();
            let stored: Vec<_> = stored.certificates.iter().map(|it| it.certificate.subject.to_string()).collect();
            let served: Vec<_> = lock(&self.issuing.control).kept().all().map(|it| it.subject.to_string()).collect();
            assert_eq!(stored, served);
            stored
        }
    }

    async fn issuing(dir: &TempDir, allow: &[&str]) -> Issuing {
        let registry = Registry::new();
        let source = KeySource::Made(dir.path().join("vault.key"));
        let custody = Custody::new(dir.path(), source, &registry).unwrap();
        let mut contents = custody.open(NOW).await.unwrap();
        let live = Arc::new(Live::default());
        let mut control = Control::new(Arc::clone(&live));
        control.apply(blueprint(allow)).unwrap();
        control.take_in(std::mem::take(&mut contents.certificates));
        let (control, clock) = (Arc::new(Mutex::new(control)), Arc::new(Clock::new(|| NOW)));
        let (board, alerts) = (Arc::new(Board::default()), Arc::new(Alerts::default()));
        let mut issuing = Issuing::new(custody, control, board, clock, alerts, Handle::current(), &registry).unwrap();
        issuing.take_over(contents);
        issuing.step(NOW).await;
        issuing
    }

    #[rstest]
    #[case::served(Need::Some, 10_000, false)]
    #[case::replaced(Need::None, 7, false)]
    #[case::replaced_long_ago(Need::None, 8, true)]
    #[case::configured_by_nobody(Need::IfConfiguredAgain, 400, false)]
    #[case::configured_by_nobody_for_long(Need::IfConfiguredAgain, 401, true)]
    #[case::valid(Need::None, -1, false)]
    fn what_has_expired_is_given_up(#[case] need: Need, #[case] days: i64, #[case] expected: bool) {
        assert_eq!(is_given_up(NOW, need, NOW.plus_secs(days * DAY)), expected);
    }

    #[rstest]
    #[case::a_clock_that_is_ahead(0, false, true)]
    #[case::tried_for_days(99, false, true)]
    #[case::tried_in_vain(100, false, false)]
    #[case::refused_again(0, true, false)]
    #[tokio::test]
    async fn a_name_on_demand_is_not_given_up_for_what_the_clock_says(
        #[case] failures: u32,
        #[case] is_refused: bool,
        #[case] is_kept: bool,
    ) {
        let world = World::new(&["*.customers.example"]).await;
        world.keep(STRANGER, Provenance::OnDemand, 10).await;
        if failures > 0 {
            world.note(STRANGER, failures, NOW).await;
        }
        let mut world = world.restarted(&["*.customers.example"]).await;
        if is_refused {
            world.issuing.strangers.refuse(&name(STRANGER));
        }
        assert_eq!(world.cleaned(NOW.plus_secs(16 * DAY)).await, [STRANGER], "not a week past its end");
        let kept = if is_kept { vec![STRANGER] } else { Vec::new() };
        assert_eq!(world.cleaned(NOW.plus_secs(400 * DAY)).await, kept);
        let snapshot = world.issuing.live.snapshot();
        assert_eq!(snapshot.aliases.get(STRANGER).is_some(), is_kept);
        assert_eq!(world.issuing.wanted.has(&name(STRANGER)), is_kept);
    }

    #[tokio::test]
    async fn what_was_replaced_or_is_nobodys_is_given_up() {
        let world = World::new(&[]).await;
        // Of names that are served: what was replaced goes.
        world.keep(SITE, Provenance::Acme, 1).await;
        world.keep(SITE, Provenance::OnDemand, 2).await;
        world.keep(STRANGER, Provenance::OnDemand, 3).await;
        // Once configured, now not: it may be again.
        world.keep("gone.example", Provenance::Acme, 4).await;
        let mut world = world.restarted(&[]).await;
        assert_eq!(world.cleaned(NOW.plus_secs(400 * DAY)).await, [SITE, "gone.example"]);
        assert_eq!(lock(&world.issuing.control).kept().of(&name(SITE)).len(), 1);
        // But not for ever.
        assert_eq!(world.cleaned(NOW.plus_secs(405 * DAY)).await, [SITE]);
    }

    #[tokio::test]
    async fn what_is_remembered_of_names_that_are_gone_is_forgotten() {
        let world = World::new(&[]).await;
        for subject in [SITE, "gone.example", "lately.example"] {
            let at = if subject == "lately.example" { NOW.plus_secs(-29 * DAY) } else { NOW.plus_secs(-31 * DAY) };
            world.note(subject, 3, at).await;
            world.begin(subject, "https://ca.example/order/1", at).await;
        }
        world.begin("never-placed.example", "", NOW.plus_secs(-31 * DAY)).await;
        let mut world = world.restarted(&[]).await;
        world.issuing.edition = 0;
        world.issuing.clean(NOW).await;
        assert_eq!(world.remembered().await.0.len(), 3, "nobody knows yet who is wanted");
        world.issuing.step(NOW).await;
        world.issuing.clean(NOW).await;
        let left = [SITE, "lately.example"].map(str::to_owned).to_vec();
        let (failed, placed) = world.remembered().await;
        assert_eq!((failed, placed), ([left[1].clone(), left[0].clone()].to_vec(), left));
    }

    #[tokio::test]
    async fn little_is_forgotten_at_once() {
        let world = World::new(&["*.customers.example"]).await;
        for number in 0..MAX_FORGOTTEN + 5 {
            world.note(&format!("n{number}.customers.example"), 1, NOW.plus_secs(-31 * DAY)).await;
        }
        let mut world = world.restarted(&["*.customers.example"]).await;
        for left in [5, 0] {
            world.issuing.clean(NOW).await;
            assert_eq!(world.remembered().await.0.len(), left);
        }
    }
}
