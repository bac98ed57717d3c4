//! One worker thread: its own runtime, its own listening sockets, its own origin pools. A request lives and dies here.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::access_log::{AccessLog, Outlet};
use super::body::RequestBody;
use super::connection::{Attended, Connection};
use super::counters::Counters;
use super::date::Date;
use super::held::{Clients, Held};
use super::pulse::Pulse;
use super::{plain, serve, tls};
use crate::challenge::Board;
use crate::clock::Clock;
use crate::meter::{Shipment, WorkerMeter};
use crate::on_demand::Doorbell;
use crate::origin::Origins;
use crate::probes::Probes;
use crate::snapshot::Live;

/// How often connections are swept.
const SWEEP: Duration = Duration::from_millis(100);
/// Sweeps in which every connection is looked at once, where there are many: deadlines are kept to within a second.
const SWEEPS_PER_ROUND: usize = 10;
/// How many are "many". Fewer are looked at in every sweep.
const MANY_CONNECTIONS: usize = 1_000;
/// How often counts, and lines of the access log, are shipped without being asked.
const SHIP: Duration = Duration::from_millis(200);
/// Threads that one worker may have waiting for a name server.
const MAX_RESOLVING: usize = 16;
/// The longest pause after a failure to accept, most likely for want of file descriptors.
const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where the current snapshot hangs.
    pub live: Arc<Live>,
    /// The arrival clock.
    pub clock: Arc<Clock>,
    /// Process-wide counts.
    pub counters: Arc<Counters>,
    /// The same of our own looks at ourselves, which nobody reads: they are counted where they are made.
    unread: Arc<Counters>,
    /// Where those come from.
    pub probes: Arc<Probes>,
    /// How many connections each client has.
    pub clients: Arc<Clients>,
    /// Room for the connections of all clients together. One room, not one per worker: the kernel deals connections
    /// out by chance, and nobody should wait at one worker while another has room.
    places: Arc<Semaphore>,
    /// The TLS configuration and its tickets.
    pub acceptor: Arc<tls::Acceptor>,
    /// What authorities look for while they issue.
    pub challenges: Arc<Board>,
    /// Where it is asked about names that are no site's.
    pub doorbell: Arc<Doorbell>,
}

impl Shared {
    /// What workers share over `live`, with room for `max_connections`.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new(
        live: Arc<Live>,
        clock: Arc<Clock>,
        counters: Arc<Counters>,
        doorbell: Arc<Doorbell>,
        max_connections: usize,
    ) -> Result<Self, rustls::Error> {
        let acceptor = Arc::new(tls::Acceptor::new()?);
        let unread = Counters::register(&Registry::new()).map_err(|error| rustls::Error::General(error.to_string()))?;
        let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        let (clients, challenges, probes) = (Arc::default(), Arc::default(), Arc::default());
        let unread = Arc::new(unread);
        Ok(Self { live, clock, counters, unread, probes, clients, places, acceptor, challenges, doorbell })
    }
}

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    /// Accept connections from this socket, which has this address.
    Listen(Protocol, SocketAddr, std::net::TcpListener),
    /// Accept no more from that address. Connections that came from there go on.
    Unlisten(Protocol, SocketAddr),
    /// Write the lines of the access log there, or none.
    AccessLog(Option<Outlet>),
    /// Accept no more and let what runs finish. The thread ends when all is finished.
    Drain,
    /// End now.
    End,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TLS, then HTTP/1.1 or HTTP/2.
    Https,
    /// HTTP/1.1, for redirects.
    Http,
}

/// The channels of one worker.
#[derive(Debug)]
pub struct Channels {
    /// What it is told.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// Where its counts go. When full, they wait here and lose nothing.
    pub shipments: mpsc::Sender<Shipment>,
    /// Requests to ship at once, answered when it is done.
    pub ship_now: mpsc::Receiver<oneshot::Sender<()>>,
}

/// A worker, as its connections see it.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Shared,
    /// This worker's counts.
    pub meter: WorkerMeter,
    /// This worker's lines of the access log.
    pub access_log: AccessLog,
    /// This worker's connections to origins.
    pub origins: OriginPools,
    /// The present as answers show it.
    pub date: Date,
    pulse: Arc<Pulse>,
    connections: RefCell<Vec<Weak<Connection>>>,
    /// Where the next sweep goes on.
    swept: Cell<usize>,
}

/// [`Origins`] for the bodies that this walk sends.
pub type OriginPools = Origins<RequestBody>;

impl std::fmt::Debug for OriginPools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Origins")
    }
}

/// Runs a worker until it is drained or ended. Blocks its thread.
///
/// # Errors
/// If the thread cannot have a runtime.
pub fn run(shared: Shared, channels: Channels) -> std::io::Result<()> {
    let Channels { orders, shipments, mut ship_now } = channels;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAX_RESOLVING).build()?;
    let tasks = LocalSet::new();
    let worker = tasks.block_on(&runtime, async {
        let worker = Rc::new(Worker {
            shared,
            meter: WorkerMeter::default(),
            access_log: AccessLog::default(),
            origins: Origins::default(),
            date: Date::default(),
            pulse: Arc::default(),
            connections: RefCell::default(),
            swept: Cell::default(),
        });
        let shipping = async {
            let mut tick = interval(SHIP);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = tick.tick() => worker.ship(&shipments),
                    Some(done) = ship_now.recv() => {
                        worker.ship(&shipments);
                        _ = done.send(());
                    }
                }
            }
        };
        tokio::select! {
            () = shipping => {}
            () = attend_orders(&worker, orders) => {}
        }
        worker
    });
    // Requests that did not finish in time end here, and count like all.
    drop(tasks);
    worker.ship(&shipments);
    worker.access_log.direct(None);
    runtime.shutdown_background();
    Ok(())
}

/// Follows orders, and sweeps.
async fn attend_orders(worker: &Rc<Worker>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut listeners = Vec::new();
    let mut draining = false;
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Listen(protocol, address, socket)) => {
                    let accepting = spawn_local(accept(Rc::clone(worker), protocol, socket));
                    listeners.push(((protocol, address), accepting));
                }
                Some(Order::Unlisten(protocol, address)) => listeners.retain(|(listener, accepting)| {
                    let stays = *listener != (protocol, address);
                    if !stays {
                        accepting.abort();
                    }
                    stays
                }),
                Some(Order::AccessLog(outlet)) => worker.access_log.direct(outlet),
                Some(Order::Drain) => {
                    listeners.drain(..).for_each(|(_, accepting)| accepting.abort());
                    draining = true;
                    worker.each_connection(Connection::finish);
                }
                Some(Order::End) | None => return,
            },
            now = tick.tick() => {
                worker.pulse.beat();
                worker.sweep();
                worker.origins.sweep(now);
                if draining {
                    if worker.connections.borrow().is_empty() {
                        return;
                    }
                    // Those that were in their handshake, or between two requests, when the order came.
                    worker.each_connection(Connection::finish);
                }
            }
        }
    }
}

async fn accept(worker: Rc<Worker>, protocol: Protocol, socket: std::net::TcpListener) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listening socket cannot be used"),
    };
    let mut pause = Duration::ZERO;
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                pause = Duration::ZERO;
                // A full house keeps this one waiting at the door, and further ones in the kernel's queue.
                let Ok(place) = Arc::clone(&worker.shared.places).acquire_owned().await else { return };
                worker.admit(protocol, tcp, peer, place);
            }
            Err(_) => {
                worker.shared.counters.accept_errors.inc();
                pause = (pause * 2).clamp(Duration::from_millis(10), MAX_ACCEPT_PAUSE);
                sleep(pause).await;
            }
        }
    }
}

impl Worker {
    fn admit(self: &Rc<Self>, protocol: Protocol, tcp: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let snapshot = self.shared.live.snapshot();
        // We are no client of ours: we take nobody's place among the connections of this address.
        let (counters, entry) = if self.shared.probes.recognise(peer) {
            (&self.shared.unread, None)
        } else {
            let limit = snapshot.limits.max_connections_per_client;
            let Some(entry) = self.shared.clients.enter(peer.ip(), limit) else {
                return self.shared.counters.refused_connections.inc();
            };
            (&self.shared.counters, Some(entry))
        };
        _ = tcp.set_nodelay(true);
        let held = Held::new(Arc::clone(counters), entry, place);
        let connection = Arc::new(Connection::new(Arc::clone(&self.pulse), &snapshot.limits, held));
        self.connections.borrow_mut().push(Arc::downgrade(&connection));
        let worker = Rc::clone(self);
        let client = peer.ip().to_canonical();
        spawn_local(async move {
            let task = Arc::clone(&connection);
            match protocol {
                Protocol::Https => {
                    let served = serve::connection(Rc::clone(&worker), tcp, client, Arc::clone(&connection));
                    if Attended::new(served, task).await.is_none() && connection.is_shaking_hands() {
                        connection.held().counters().handshakes_timeout.inc();
                    }
                }
                Protocol::Http => _ = Attended::new(plain::connection(worker, tcp, connection), task).await,
            }
        });
    }

    /// Looks at the next share of the connections, and forgets those that are gone.
    fn sweep(&self) {
        let mut connections = self.connections.borrow_mut();
        let share = connections.len().div_ceil(SWEEPS_PER_ROUND).max(MANY_CONNECTIONS);
        let mut at = self.swept.get();
        for _ in 0..share.min(connections.len()) {
            if at >= connections.len() {
                at = 0;
            }
            match connections.get(at).and_then(Weak::upgrade) {
                Some(connection) => {
                    connection.check();
                    at += 1;
                }
                None if at < connections.len() => _ = connections.swap_remove(at),
                None => {}
            }
        }
        self.swept.set(at);
    }

    fn each_connection(&self, tell: impl Fn(&Connection)) {
        self.connections.borrow_mut().retain(|weak| weak.upgrade().inspect(|connection| tell(connection)).is_some());
    }

    fn ship(&self, shipments: &mpsc::Sender<Shipment>) {
        self.access_log.ship();
        if let Ok(room) = shipments.try_reserve() {
            let shipment = self.meter.ship();
            if !shipment.is_empty() {
                room.send(shipment);
            }
        }
    }
}
