//! What tests of managed certificates share: authorities in the test's process that validate nothing and live by the
//! proxy's clock, and a look at how a domain stands.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::harness::*;

pub const SITE: &str = "shop.lockgate.test";
pub const DOMAIN: [(&str, &str); 1] = [("domain", SITE)];
pub const NOON: &str = "2026-06-01 12:00:00";
pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;
pub const GUARANTEED: &str = "lockgate_certificate_guaranteed_seconds";
pub const FALLBACK: &str = "lockgate_certificate_fallback_active";

/// Begins a proxy whose domains' certificates come from these authorities; all but the first are for standbys only.
pub fn managed(pki: &Pki, authorities: &[&FaultCa]) -> Setup {
    let mut setup = Lockgate::under(pki).set("acme.agree_to_terms", "true");
    for (number, authority) in authorities.iter().enumerate() {
        let (directory, ca_file, standby_only) = (authority.directory(), authority.ca_file(), number > 0);
        setup = setup.table(&format!(
            "[[acme.ca]]\nname = 'ca-{number}'\ndirectory = '{directory}'\nca_file = '{}'\nstandby_only = {standby_only}",
            ca_file.display()
        ));
    }
    setup
}

/// Puts the proxy's clock, which stands, and those of the authorities to this Unix second.
#[track_caller]
pub fn stop_at(gate: &Lockgate, authorities: &[&FaultCa], secs: i64) {
    authorities.iter().for_each(|authority| authority.set_now(secs));
    gate.clock().advance(secs - gate.clock().now_ms().div_euclid(1000));
}

/// Certificates that an authority issued.
pub fn issued(authority: &FaultCa) -> usize {
    authority.orders().iter().filter(|order| order.is_issued).count()
}

/// Where the certificate comes from that serves a name.
pub fn source(gate: &Lockgate, name: &str) -> &'static str {
    let metrics = gate.metrics();
    let serves = |source: &&str| {
        metrics.get("lockgate_certificate_not_after_seconds", &[("domain", name), ("source", source)]).is_some()
    };
    if metrics.get(FALLBACK, &[("domain", name)]) == Some(0.0) {
        return "own";
    }
    ["store", "standby", "configured", "internal"].into_iter().find(serves).unwrap_or("none")
}

/// Who signed what is served.
#[track_caller]
pub fn issuer(gate: &Lockgate, name: &str) -> String {
    let leaf = gate.leaf(name);
    X509Certificate::from_der(&leaf.der).unwrap().1.issuer().to_string()
}

#[track_caller]
pub fn await_source(gate: &Lockgate, name: &str, wanted: &str) {
    eventually(&format!("{wanted} serves {name}"), || (source(gate, name) == wanted).then_some(()));
}

#[track_caller]
pub fn await_own(gate: &Lockgate) -> Presented {
    await_source(gate, SITE, "own");
    gate.leaf(SITE)
}

/// Waits until another leaf serves than this one.
#[track_caller]
pub fn await_other(gate: &Lockgate, before: &Presented) -> Presented {
    eventually("another leaf", || Some(gate.leaf(SITE)).filter(|leaf| leaf != before))
}

/// Several looks at what is due: what did not happen by now would not have.
pub fn let_it_look() {
    thread::sleep(Duration::from_millis(1200));
}

/// A handshake: the seconds in which it began and ended, and what was shown.
pub type Shown = (i64, i64, Presented);

/// Lets clients shake hands without pause while the clock, which stands, flows on and the leaf that serves is replaced.
#[track_caller]
pub fn under_load(gate: &Lockgate, own: &Presented, flow: impl FnOnce()) -> Vec<Shown> {
    let shown = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let (over, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let now = || gate.clock().now_ms().div_euclid(1000);
    let shake_hands = || {
        let mut seen = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let begun = now();
            match gate.tls(SITE).connect() {
                Ok(connection) => {
                    let leaf = connection.presented();
                    shown[usize::from(leaf != *own)].fetch_add(1, Ordering::Relaxed);
                    seen.push((begun, now(), leaf));
                }
                Err(failure) => failed.lock().unwrap().push(format!("at {begun}: {failure:?}")),
            }
        }
        seen
    };
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(shake_hands)).collect();
        let enough = |shown: &AtomicUsize| (shown.load(Ordering::Relaxed) > 40).then_some(());
        eventually("handshakes before", || enough(&shown[0]));
        flow();
        eventually("handshakes after", || enough(&shown[1]));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    for (begun, done, leaf) in &seen {
        assert!(leaf.not_before <= *done && *begun <= leaf.not_after, "at {begun}: not valid, {leaf:?}");
        assert!(leaf == own || *done > own.not_after, "own certificate left early, at {done}");
    }
    seen
}

/// A Unix second as the tests' clock takes it.
pub fn date(secs: i64) -> String {
    jiff::Timestamp::from_second(secs).unwrap().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Carries out a statement in the certificates' database of a process that has ended.
#[track_caller]
pub fn in_database(gate: &Lockgate, sql: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::Connection as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(gate.data_dir().join("certificates.db"));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}
