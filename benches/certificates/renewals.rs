//! A thousand renewals beside the requests: everything that is done for one, but for the authority's own answers.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockgate::certificate::prove;
use lockgate::clock::{self, Clock};
use lockgate::control::{Blueprint, Control};
use lockgate::issuer::InternalCa;
use lockgate::on_demand::Doorbell;
use lockgate::proxy::worker::{self, Channels};
use lockgate::proxy::{Counters, Order, Protocol, Shared};
use lockgate::server::office;
use lockgate::site::{OriginSpec, SiteSpec};
use lockgate::snapshot::Live;
use lockgate::store::inventory::{NewCertificate, StoredCertificate};
use lockgate::upkeep::alerts::Alerts;
use lockgate::upkeep::custody::Custody;
use lockgate::upkeep::watch::Watch;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::load::P99;
use crate::stock::{self, Stock};
use crate::{client, load, median};

const RENEWALS: usize = 1_000;
/// Three times as many a second as the issuing loop starts.
const TIME: Duration = Duration::from_secs(20);
/// How much later than that the last one may be done.
const LATE: Duration = Duration::from_secs(1);

/// What it is, its p99 without renewals, and with them: medians of so many runs, in milliseconds.
pub fn measure(stock: &Stock, runs: usize) -> [(&'static str, f64, f64); 2] {
    let runtime = office::open_quiet().unwrap();
    let (live, now) = (Arc::new(Live::default()), clock::now());
    let mut control = Control::new(Arc::clone(&live));
    let custody = Custody::new(&stock.data_dir(), stock.key_source(), &prometheus::Registry::new()).unwrap();
    control.take_in(runtime.block_on(custody.open(now)).unwrap().certificates);
    runtime.block_on(custody.unlock(&InternalCa::new(), now)).unwrap();
    let origin = client::origin();
    let origin = Arc::new(OriginSpec::http("127.0.0.1", origin.port()));
    let spec = |i| Arc::new(SiteSpec::new(stock::name(i), Arc::clone(&origin)));
    control.apply(Blueprint { domains: (0..stock::DOMAINS).map(spec).collect(), ..Blueprint::default() }).unwrap();
    let address = listen(&live);
    let config = client::config(stock);
    load::run(address, &config, Duration::from_secs(2), 0);

    let mut figures: Vec<(P99, P99)> = Vec::new();
    for run in 0..runs {
        let renewed = |i: usize| {
            let i = (run * RENEWALS + i) * 61 % stock::DOMAINS;
            stock.authority.issue(i, now.plus_secs(-3600 + run as i64), custody.vault(), now)
        };
        let renewed: Vec<NewCertificate> = (0..RENEWALS).map(renewed).collect();
        let quiet = load::run(address, &config, TIME, run);
        let began = Instant::now();
        let (busy, renewed_in) = std::thread::scope(|scope| {
            let renewing = scope.spawn(|| {
                renew(&runtime, &custody, &mut control, &live, renewed);
                began.elapsed()
            });
            (load::run(address, &config, TIME, run), renewing.join().unwrap())
        });
        assert!(renewed_in < TIME + LATE, "what gives way has not been starved: {renewed_in:?}");
        println!(
            "run {run}: kept {:.3} -> {:.3} ms, fresh {:.3} -> {:.3} ms, {RENEWALS} renewals in {:.1} s",
            quiet.kept,
            busy.kept,
            quiet.fresh,
            busy.fresh,
            renewed_in.as_secs_f64()
        );
        figures.push((quiet, busy));
    }
    let median = |of: fn(&(P99, P99)) -> f64| median(figures.iter().map(of));
    [
        ("a request on a kept connection", median(|it| it.0.kept), median(|it| it.1.kept)),
        ("a full handshake and a request", median(|it| it.0.fresh), median(|it| it.1.fresh)),
    ]
}

/// Tests, keeps and publishes each, evenly over the time; the watch looks once a second as ever.
fn renew(runtime: &Runtime, custody: &Arc<Custody>, control: &mut Control, live: &Live, renewed: Vec<NewCertificate>) {
    office::give_way(office::giving_way());
    let alerts = Alerts::default();
    let mut watch = Watch::default();
    watch.step(clock::now(), &live.snapshot(), &alerts);
    let mut tick = runtime.block_on(async { interval(TIME / RENEWALS as u32) });
    let each_second = RENEWALS / TIME.as_secs() as usize;
    for (i, new) in renewed.into_iter().enumerate() {
        runtime.block_on(tick.tick());
        prove(
            &custody.to_try(new.facts.clone(), &new.chain, &new.sealed_key),
            std::slice::from_ref(&new.subject),
            new.at,
        )
        .unwrap();
        let id = runtime.block_on(custody.inventory().unwrap().keep(&new)).unwrap();
        let stored = StoredCertificate { id, certificate: new, revoked_at: None, ari: None };
        control.take_in(custody.kept(stored).into_iter().collect());
        if i % each_second == 0 {
            watch.step(clock::now(), &live.snapshot(), &alerts);
        }
    }
}

/// One worker; its address.
fn listen(live: &Arc<Live>) -> SocketAddr {
    let counters = Arc::new(Counters::register(&prometheus::Registry::new()).unwrap());
    let shared = Shared::new(Arc::clone(live), Arc::new(Clock::default()), counters, Doorbell::new().0, 1000).unwrap();
    let (tell, orders) = mpsc::unbounded_channel();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    tell.send(Order::Listen(Protocol::Https, address, socket)).unwrap();
    std::thread::spawn(move || {
        let _tell = tell;
        let (shipments, mut arriving) = mpsc::channel(16);
        std::thread::spawn(move || while arriving.blocking_recv().is_some() {});
        let (_ask, ship_now) = mpsc::channel(1);
        worker::run(shared, Channels { orders, shipments, ship_now }).unwrap();
    });
    address
}
