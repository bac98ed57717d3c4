//! Names on demand: who rings is let in if the operator approves, and answered when there is a certificate.
//!
//! A straight way for each ring: is there room, is the name approved, is its certificate ordered. Whoever fails on it is
//! refused, for a time that says how likely it is that the next answer is another one.

mod asker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::control::Ordered;
use crate::name::DomainName;
use crate::on_demand::Ring;
use crate::snapshot::Live;
pub use asker::{Asker, Verdict};

/// How long a refusal is remembered.
const REFUSED: Duration = Duration::from_secs(300);
/// The same where nobody said no: the next answer may be another one.
const NOT_NOW: Duration = Duration::from_secs(10);
/// How long the handshakes of a name wait for its order at most; the order itself goes on.
const ORDER_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is counted how many names there are.
const TICK: Duration = Duration::from_secs(1);
/// Pause between two complaints that there are too many.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(3600);

/// A name that was approved: its certificate is to be ordered, if there is none.
pub type Admission = (DomainName, oneshot::Sender<Ordered>);

/// Who answers the rings.
#[derive(Debug)]
pub struct Porter {
    live: Arc<Live>,
    asker: Arc<Asker>,
    admissions: mpsc::Sender<Admission>,
    questions: IntCounterVec,
    names: IntGauge,
    complained: Mutex<Option<Instant>>,
}

/// Why a name is not served.
enum Refused {
    /// For this long.
    For(Duration),
    /// At this moment; whoever rings next is asked about again.
    Once,
}

impl Porter {
    /// Answers nobody yet; sends names that are approved to `admissions`.
    ///
    /// # Errors
    /// If a metric's name is taken.
    pub fn new(
        live: Arc<Live>,
        asker: Arc<Asker>,
        admissions: mpsc::Sender<Admission>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let help = "Questions whether a name that is not configured may be served, by answer.";
        let questions = IntCounterVec::new(Opts::new("lockgate_on_demand_questions_total", help), &["result"])?;
        for verdict in Verdict::ALL {
            questions.with_label_values(&[verdict.label()]);
        }
        let names = IntGauge::new("lockgate_on_demand_names", "Names that are served and not configured.")?;
        registry.register(Box::new(questions.clone()))?;
        registry.register(Box::new(names.clone()))?;
        Ok(Self { live, asker, admissions, questions, names, complained: Mutex::default() })
    }

    /// Runs until the process ends. As many rings are answered at once as the doorbell lets through.
    pub async fn run(self, mut rings: mpsc::Receiver<Ring>) {
        let porter = Arc::new(self);
        let mut answering = JoinSet::new();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(ring) = rings.recv() => drop(answering.spawn(Arc::clone(&porter).answer(ring))),
                Some(_) = answering.join_next() => {}
                _ = tick.tick() => {
                    porter.names.set(i64::try_from(porter.live.glance().aliases.len()).unwrap_or(i64::MAX));
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, ring: Ring) {
        match self.let_in(&ring).await {
            Ok(()) => ring.welcome(),
            Err(Refused::For(time)) => ring.refuse(Some(Instant::now() + time)),
            Err(Refused::Once) => ring.refuse(None),
        }
    }

    /// The way of a name: room, approval, order.
    async fn let_in(&self, ring: &Ring) -> Result<(), Refused> {
        let name = &ring.name;
        let snapshot = self.live.snapshot();
        let on_demand = snapshot.on_demand.clone().ok_or(Refused::Once)?;
        let (served, is_served) = (snapshot.aliases.len(), snapshot.aliases.get(name.as_str()).is_some());
        drop(snapshot);
        if served >= on_demand.max_names && !is_served {
            self.complain(on_demand.max_names);
            return Err(Refused::For(NOT_NOW));
        }
        let verdict = self.asker.ask(&on_demand, name).await;
        self.questions.with_label_values(&[verdict.label()]).inc();
        match verdict {
            Verdict::Approved => {}
            Verdict::Refused => {
                tracing::debug!(domain = %name, "not approved");
                return Err(Refused::For(REFUSED));
            }
            Verdict::Failed => return Err(Refused::For(NOT_NOW)),
            Verdict::Limited => return Err(Refused::Once),
        }
        let waiting = ring.wait_for_order().ok_or(Refused::Once)?;
        // Those that wait have places already: a thousand at once are no way around the limit.
        if served.saturating_add(waiting) > on_demand.max_names && !is_served {
            self.complain(on_demand.max_names);
            return Err(Refused::For(NOT_NOW));
        }
        let (reply, ordered) = oneshot::channel();
        self.admissions.send((name.clone(), reply)).await.map_err(|_| Refused::Once)?;
        match timeout(ORDER_PATIENCE, ordered).await {
            Ok(Ok(Ordered { ok: true, .. })) => Ok(()),
            Ok(Ok(Ordered { message, .. })) => {
                tracing::debug!(domain = %name, "no certificate: {message}");
                Err(Refused::For(NOT_NOW))
            }
            Ok(Err(_)) | Err(_) => Err(Refused::Once),
        }
    }

    fn complain(&self, max_names: usize) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
            *complained = Some(Instant::now());
            tracing::warn!(
                "there are {max_names} names on demand already: no other is served before `acme.on_demand.max_names` \
                 is raised, or names are given up"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Blueprint, Control};
    use crate::issuance::{Acme, KeyAlgorithm, Method, OnDemand};
    use crate::on_demand::Doorbell;
    use crate::site::{OriginSpec, SiteSpec};

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    /// A world that takes in so many names, all of which are approved.
    fn live(max_names: usize) -> Arc<Live> {
        let live = Arc::new(Live::default());
        let key = KeyAlgorithm::default();
        let method = Method { authorities: None, challenge: None, dns: None, key, profile: None, standby: false };
        let on_demand = OnDemand {
            site: name("www.example.com"),
            allow: vec!["*.test".to_owned()],
            ask: None,
            max_names,
            max_new_per_hour: 1000,
        };
        let acme =
            Acme { agreed_to_terms: true, authorities: vec![], method, max_orders: 1, on_demand: Some(on_demand) };
        let domains = [Arc::new(SiteSpec::new(name("www.example.com"), OriginSpec::http("127.0.0.1", 1)))].into();
        let blueprint = Blueprint { domains, acme: Some(Arc::new(acme)), ..Blueprint::default() };
        Control::new(Arc::clone(&live)).apply(blueprint).unwrap();
        live
    }

    #[tokio::test]
    async fn names_that_wait_for_their_orders_have_places_already() {
        let (doorbell, rings) = Doorbell::new();
        let (admissions, mut admitted) = mpsc::channel(10);
        let porter = Porter::new(live(2), Arc::default(), admissions, &Registry::new()).unwrap();
        let waiting = ["a.test", "b.test", "c.test"].map(|name| doorbell.ring(name, Instant::now()).unwrap());
        let porter = tokio::spawn(porter.run(rings));
        let orders = [admitted.recv().await.unwrap(), admitted.recv().await.unwrap()];
        let mut refused = Vec::new();
        while refused.is_empty() {
            refused = waiting.iter().filter_map(|waiting| *waiting.borrow()).collect();
            tokio::task::yield_now().await;
        }
        assert_eq!((refused, admitted.try_recv().is_err()), (vec![false], true));
        // What comes of the orders is what handshakes are told.
        for (number, (_, reply)) in orders.into_iter().enumerate() {
            let (ok, message) = (number == 0, String::new());
            reply.send(Ordered { ok, id: None, message, advice: None }).unwrap();
        }
        let mut told = Vec::new();
        for mut waiting in waiting {
            told.push(waiting.wait_for(Option::is_some).await.unwrap().unwrap());
        }
        told.sort_unstable();
        assert_eq!(told, [false, false, true]);
        porter.abort();
    }
}
