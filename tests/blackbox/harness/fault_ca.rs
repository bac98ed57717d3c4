//! An ACME server in the test's own process that issues like a real one until it is told to err.
//!
//! It speaks RFC 8555, ARI (RFC 9773) and profiles, takes every signature for good, and validates nothing: an
//! authorization is valid once one of its challenges was triggered. What it should do wrong, and where, is a
//! [`Fault`]; what it was asked is kept and can be looked at.

mod acme;
mod fault;
mod issuing;
mod listener;
mod order;
mod seen;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use self::acme::Ca;
pub use self::fault::{Fault, RetryAfter};
pub use self::order::OrderSeen;
pub use self::seen::{Resource, Seen};
use super::pki::{Leaf, Pki};

/// The server, running until it is dropped.
pub struct FaultCa {
    ca: Arc<Mutex<Ca>>,
    /// What its HTTPS listener presents.
    api: Leaf,
    base: String,
    /// Dropped, it ends the listener's thread.
    _over: oneshot::Sender<()>,
}

impl FaultCa {
    /// On a free port, with an HTTPS certificate of `pki`, which is not what it issues under.
    #[track_caller]
    pub fn start(pki: &Pki) -> Self {
        let api = pki.issue(&["127.0.0.1", "localhost"]).leaf();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let base = format!("https://{}", listener.local_addr().expect("bound"));
        let ca = Arc::new(Mutex::new(Ca::new(&base)));
        let over = listener::serve(listener, &api, Arc::clone(&ca));
        Self { ca, api, base, _over: over }
    }

    pub fn directory(&self) -> String {
        format!("{}/directory", self.base)
    }

    /// The root that its API's certificate comes from.
    pub fn ca_file(&self) -> PathBuf {
        self.api.pki.ca_file()
    }

    /// The root of the chain of that number, in PEM: 0 for the first, alternates from 1.
    pub fn root_pem(&self, chain: usize) -> String {
        self.ca().issuing.root_pem(chain)
    }

    // How it is.

    /// Its clock stands at this Unix second; real time flows there until this is called.
    pub fn set_now(&self, secs: i64) {
        self.ca().now = Some(secs);
    }

    /// Its certificates are valid from the second of issue for so long; 90 days unless told otherwise.
    pub fn set_validity_secs(&self, secs: i64) {
        self.ca().validity_secs = secs;
    }

    /// Offers ARI: every certificate should be renewed between these Unix seconds; asking again is due after
    /// `retry_after_secs`.
    pub fn ari(&self, start: i64, end: i64, retry_after_secs: u64) {
        self.ca().ari = Some((start, end, retry_after_secs));
    }

    /// Offers ARI no more.
    pub fn no_ari(&self) {
        self.ca().ari = None;
    }

    /// Offers these profiles; an order that names another one is refused, none at all is fine.
    pub fn profiles(&self, names: &[&str]) {
        self.ca().profiles = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// Offers so many chains besides the first, each to a root of its own.
    pub fn alternate_chains(&self, count: usize) {
        self.ca().issuing.offer_alternates(count);
    }

    /// Knows none of its accounts any more; their keys may register again.
    pub fn forget_accounts(&self) {
        self.ca().forget_accounts();
    }

    // What it does wrong.

    /// From now on it does this wrong too; of two faults that could befall a request, the one set first does.
    pub fn set(&self, fault: Fault) {
        self.ca().faults.push(fault);
    }

    /// Everything is right again; what stood still goes on when it is next asked for.
    pub fn heal(&self) {
        self.ca().faults.clear();
    }

    // What it saw.

    /// Every request so far, in order.
    pub fn requests(&self) -> Vec<Seen> {
        self.ca().seen.clone()
    }

    /// The requests for one kind of resource so far, those included that met a fault.
    pub fn requests_for(&self, resource: Resource) -> Vec<Seen> {
        self.requests().into_iter().filter(|seen| seen.resource == resource).collect()
    }

    /// The orders that it accepted so far.
    pub fn orders(&self) -> Vec<OrderSeen> {
        self.ca().orders_seen()
    }

    /// How many accounts it made so far, forgotten ones included.
    pub fn accounts(&self) -> usize {
        self.ca().accounts()
    }

    fn ca(&self) -> MutexGuard<'_, Ca> {
        self.ca.lock().expect("the CA")
    }
}
