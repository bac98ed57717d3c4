//! The worker threads: enlisted, given sockets, drained.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;

use super::{StartError, sockets};
use crate::config::{Config, Listen};
use crate::meter::Shipment;
use crate::origin;
use crate::proxy::access_log::Outlet;
use crate::proxy::worker::Channels;
use crate::proxy::{Order, Protocol, Shared, worker};
use crate::upkeep::harvest::ShipNow;

/// File descriptors kept for everything that is no connection: the admin listener, files, the store. Where there are
/// few, half of them.
const RESERVED_FILES: u64 = 128;
/// Shipments that may wait for the harvest. Beyond, counts wait in the workers.
const MAX_WAITING_SHIPMENTS: usize = 1024;
/// How long workers that were told to end may take to do so.
const ENDING: Duration = Duration::from_secs(2);

/// All workers, and what they listen on.
#[derive(Debug)]
pub struct Crew {
    orders: Vec<UnboundedSender<Order>>,
    waiting: Vec<UnboundedReceiver<Order>>,
    threads: Vec<JoinHandle<()>>,
    max_connections: usize,
    open: Vec<Listener>,
}

/// One address of the configuration, and the one that it became (if its port was 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    protocol: Protocol,
    configured: SocketAddr,
    actual: SocketAddr,
}

/// What the workers are to listen on from now on.
#[derive(Debug)]
pub struct Listeners {
    kept: Vec<Listener>,
    new: Vec<(Listener, Vec<TcpListener>)>,
    gone: Vec<Listener>,
    /// The TLS addresses, in the order written.
    pub https: Vec<SocketAddr>,
    /// The plain ones.
    pub http: Vec<SocketAddr>,
}

impl Crew {
    /// As many workers as `config` says, or as the process may use processors.
    pub fn enlist(config: &Config, file_limit: u64) -> Self {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = config.workers.unwrap_or_else(available).max(1);
        let (orders, waiting) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let files =
            usize::try_from(file_limit.saturating_sub(RESERVED_FILES.min(file_limit / 2))).unwrap_or(usize::MAX);
        // Each connection may need another one to an origin.
        let affordable = files / 2;
        let wanted = config.limits.max_connections.unwrap_or(affordable);
        if wanted > affordable {
            tracing::warn!(
                "limits.max_connections is {wanted}, but {file_limit} open files allow {affordable}: raise them"
            );
        }
        let max_connections = wanted.min(affordable).max(1);
        // What clients leave, and half in any case: one connection of HTTP/2 can need many to origins.
        origin::limit_connections(files.saturating_sub(max_connections).max(1));
        Self { orders, waiting, threads: Vec::new(), max_connections, open: Vec::new() }
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// How many connections they may have together.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Opens all of `listen`'s sockets and hands them out; the workers find them when they start.
    ///
    /// # Errors
    /// If one cannot be had.
    pub fn bind(&mut self, listen: &Listen) -> Result<Listeners, StartError> {
        let mut listeners = self.prepare(listen)?;
        self.hand_out(&mut listeners);
        Ok(listeners)
    }

    /// Opens the sockets that `listen` has and the present listeners have not.
    ///
    /// # Errors
    /// If one cannot be had; nothing has changed then.
    pub fn prepare(&self, listen: &Listen) -> Result<Listeners, StartError> {
        let wanted = |protocol| {
            let addresses = if protocol == Protocol::Https { &listen.https } else { &listen.http };
            addresses.iter().map(move |address| (protocol, *address))
        };
        let mut gone = self.open.clone();
        let mut prepared =
            Listeners { kept: Vec::new(), new: Vec::new(), gone: Vec::new(), https: Vec::new(), http: Vec::new() };
        for (protocol, configured) in wanted(Protocol::Https).chain(wanted(Protocol::Http)) {
            let is_this = |l: &Listener| (l.protocol, l.configured) == (protocol, configured);
            let listener = match gone.iter().position(is_this) {
                Some(open) => {
                    let listener = gone.remove(open);
                    prepared.kept.push(listener);
                    listener
                }
                None => {
                    let failed = |error: std::io::Error| {
                        let hint = match error.kind() {
                            // The new sockets are opened beside the old ones: `0.0.0.0:443` keeps `[::]:443` out.
                            std::io::ErrorKind::AddrInUse if self.has_port(configured.port()) => {
                                ": Lockgate itself listens on an address that overlaps it; restart it to change one for the other"
                            }
                            std::io::ErrorKind::AddrInUse => {
                                ": another program listens there; stop it or choose another port"
                            }
                            std::io::ErrorKind::PermissionDenied => {
                                ": ports below 1024 need root or CAP_NET_BIND_SERVICE (setcap, or AmbientCapabilities in systemd)"
                            }
                            _ => "",
                        };
                        StartError::Machine(format!("cannot listen on {configured}: {error}{hint}"))
                    };
                    let (actual, sockets) = sockets::bind(configured, self.len()).map_err(failed)?;
                    let listener = Listener { protocol, configured, actual };
                    prepared.new.push((listener, sockets));
                    listener
                }
            };
            let addresses = if protocol == Protocol::Https { &mut prepared.https } else { &mut prepared.http };
            addresses.push(listener.actual);
        }
        prepared.gone = gone;
        Ok(prepared)
    }

    fn has_port(&self, port: u16) -> bool {
        self.open.iter().any(|listener| listener.actual.port() == port)
    }

    /// Listens on `listeners` and nothing else from now on.
    pub fn take_over(&mut self, mut listeners: Listeners) {
        self.hand_out(&mut listeners);
    }

    fn hand_out(&mut self, listeners: &mut Listeners) {
        for gone in &listeners.gone {
            self.tell(|| Order::Unlisten(gone.protocol, gone.actual));
        }
        self.open = std::mem::take(&mut listeners.kept);
        for (listener, sockets) in listeners.new.drain(..) {
            for (worker, socket) in self.orders.iter().zip(sockets) {
                _ = worker.send(Order::Listen(listener.protocol, listener.actual, socket));
            }
            self.open.push(listener);
        }
    }

    /// Starts the threads. Returns where their counts arrive, and how to ask each for them.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(&mut self, shared: &Shared) -> Result<(mpsc::Receiver<Shipment>, Vec<ShipNow>), StartError> {
        let (shipments, arriving) = mpsc::channel(MAX_WAITING_SHIPMENTS);
        let mut ship_now = Vec::new();
        for (index, orders) in self.waiting.drain(..).enumerate() {
            let (ask, asked) = mpsc::channel(8);
            ship_now.push(ask);
            let shared = shared.clone();
            let channels = Channels { orders, shipments: shipments.clone(), ship_now: asked };
            let thread = std::thread::Builder::new()
                .name(format!("lockgate-{index}"))
                .spawn(move || {
                    if let Err(error) = worker::run(shared, channels) {
                        tracing::error!(%error, "a worker cannot run");
                    }
                })
                .map_err(StartError::machine("threads cannot be started"))?;
            self.threads.push(thread);
        }
        Ok((arriving, ship_now))
    }

    /// Has the workers write their lines of the access log there, or nowhere.
    pub fn log_to(&self, outlet: Option<Outlet>) {
        self.tell(|| Order::AccessLog(outlet.clone()));
    }

    /// Lets requests under way finish until `deadline`, then ends them. Returns whether all finished.
    pub async fn drain(&mut self, deadline: Instant) -> bool {
        self.tell(|| Order::Drain);
        if self.wait_until(deadline).await {
            return true;
        }
        self.tell(|| Order::End);
        self.wait_until(Instant::now() + ENDING).await;
        false
    }

    async fn wait_until(&self, deadline: Instant) -> bool {
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn tell(&self, order: impl Fn() -> Order) {
        for worker in &self.orders {
            _ = worker.send(order());
        }
    }
}
