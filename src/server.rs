//! Opens doors and sockets, starts the workers and the walks; reloads; drains.

mod access_log;
mod blueprint;
mod crew;
mod house;
mod logging;
pub mod office;
mod reload;
mod reports;
mod signals;
mod sockets;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntCounterVec, Registry};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::{self, Desk};
use crate::clock::{self, Clock};
use crate::config::{self, Config, Diagnostics, Loaded};
use crate::control::{AskReload, Control, poll_pairs};
use crate::on_demand::Doorbell;
use crate::proxy::{Counters, Shared};
use crate::snapshot::Live;
use crate::upkeep::alerts::Alerts;
use crate::upkeep::custody::{self, Ahead, Custody};
use crate::upkeep::harvest::{Harvest, Incoming, Published};
use crate::upkeep::issuing::{Issuing, Providers};
use crate::upkeep::on_demand::Porter;
use crate::upkeep::probe::Probe;
use crate::upkeep::recorder::{Beginning, Gauges, Recording, Retention};
use crate::upkeep::watch::Watch;
use access_log::AccessLog;
use blueprint::{blueprint, public_port};
use crew::Crew;
use house::House;
pub use house::{control_socket, forbid_core_dumps};
pub use reports::broken_diagnostic;
use reports::{report_broken, warn_of};
use signals::{Signals, Told};

/// How often certificate files, and which certificate serves, are looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How long the end waits for the disk to take what was counted last.
const WRITING_PATIENCE: Duration = Duration::from_secs(5);
/// How long a start waits for the inventory: without it most domains would be served by the internal authority.
const INVENTORY_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the vault's key, which may come over a network.
const UNLOCKING_PATIENCE: Duration = Duration::from_secs(2);
/// Questions that may wait for their answer.
const MAX_WAITING_QUESTIONS: usize = 64;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or what it names, is wrong: exit code 2.
    #[error("{0}")]
    Config(Diagnostics),
    /// The machine does not allow it: exit code 1.
    #[error("{0}")]
    Machine(String),
}

impl StartError {
    fn machine(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Machine(format!("{what}: {error}"))
    }

    /// The exit code that says whose side the error is on.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            Self::Machine(_) => ExitCode::from(1),
        }
    }
}

/// Where a server listens, once it does.
#[derive(Debug, Clone)]
pub struct Listening {
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// Plain.
    pub http: Vec<SocketAddr>,
    /// Admin.
    pub admin: SocketAddr,
    /// The internal authority's root, for clients that are to trust it.
    pub internal_root_pem: String,
}

/// Serves the configuration in `path` until told to stop. `ready` is called once requests are answered.
///
/// # Errors
/// If it cannot start. Afterwards nothing ends it but a signal.
pub fn run(path: &Path, ready: impl FnOnce(&Listening)) -> Result<(), StartError> {
    // The first random number takes the library some 60 ms: it is drawn beside the reading of the configuration.
    _ = std::thread::Builder::new().spawn(|| aws_lc_rs::rand::fill(&mut [0]));
    // So is what was issued read, which takes as long.
    let ahead = config::data_dir_ahead(path).and_then(Ahead::begin);
    let loaded = config::load(path).map_err(StartError::Config)?;
    let log = logging::start(&loaded.config.log);
    let office = office::open().map_err(StartError::machine("threads cannot be started"))?;
    let quiet = office::open_quiet().map_err(StartError::machine("threads cannot be started"))?;
    let served = office.block_on(async {
        let signals = Signals::listen().map_err(StartError::machine("signals cannot be received"))?;
        let server = Server::start(loaded, ahead, log, quiet.handle()).await?;
        ready(&server.listening);
        server.attend(signals).await;
        Ok(())
    });
    // Dropped, a runtime waits for what blocks: for ever, where a file lies on a server that is gone.
    [quiet, office].into_iter().for_each(Runtime::shutdown_background);
    served
}

/// A server that serves.
struct Server {
    config: Config,
    log: logging::Handle,
    control: Arc<Mutex<Control>>,
    custody: Arc<Custody>,
    live: Arc<Live>,
    published: mpsc::UnboundedSender<Published>,
    crew: Crew,
    access_log: AccessLog,
    counters: Arc<Counters>,
    desk: Arc<Desk>,
    reloads: IntCounterVec,
    asked_reloads: mpsc::Receiver<AskReload>,
    listening: Listening,
    recording: Recording,
    /// Who clears the TXT records that are on show.
    providers: Arc<Providers>,
    retention: watch::Sender<Retention>,
    served_at: watch::Sender<Vec<SocketAddr>>,
    _house: House,
}

impl Server {
    async fn start(
        loaded: Loaded,
        ahead: Option<Ahead>,
        log: logging::Handle,
        quiet: &Handle,
    ) -> Result<Self, StartError> {
        let config = loaded.config.clone();
        forbid_core_dumps();
        let house = House::enter(&config.data_dir)?;
        let beginning = Beginning::begin(&config.data_dir, clock::now());
        let file_limit = house::raise_file_limit();
        let registry = Registry::new();
        let metrics = |error: prometheus::Error| StartError::Machine(error.to_string());
        let custody = Custody::after(ahead, &config.data_dir, config.vault.clone(), &registry).map_err(metrics)?;
        let opening = custody.begin(clock::now());
        let counters = Arc::new(Counters::register(&registry).map_err(metrics)?);
        let reloads = reload::register(&registry).map_err(metrics)?;

        let live = Arc::new(Live::default());
        let gauges = Gauges::register(&registry).map_err(metrics)?;
        let alerts = Arc::new(Alerts::default());
        let mut crew = Crew::enlist(&config, file_limit);
        let opened = access_log::open(config.access_log.as_ref()).map_err(StartError::Machine)?;
        let addresses = crew.bind(&config.listen)?;
        let (access_log, outlet) = AccessLog::default()
            .succeed(opened, public_port(&config, &addresses), &counters)
            .map_err(StartError::machine("threads cannot be started"))?;
        crew.log_to(outlet);
        let admin = sockets::bind(config.listen.admin, 1).map_err(StartError::machine(config.listen.admin))?;
        let scrapes = match config.listen.metrics {
            Some(address) => Some(sockets::bind(address, 1).map_err(StartError::machine(address))?),
            None => None,
        };

        let mut control = Control::new(Arc::clone(&live));
        let (mut contents, opening) = custody::within(INVENTORY_PATIENCE, opening)
            .await
            .map_err(|error| StartError::Machine(error.to_string()))?;
        control
            .take_in(contents.as_mut().map(|contents| std::mem::take(&mut contents.certificates)).unwrap_or_default());
        let broken = control
            .apply(blueprint(&config, addresses.https.first()))
            .map_err(|error| StartError::Machine(error.to_string()))?;
        report_broken(&loaded, &broken)?;
        let mut recorder = beginning.recorder().await.map_err(|error| StartError::Machine(error.to_string()))?;
        let clock = Arc::new(Clock::resuming(recorder.last_reading()));
        let (late, opened) = mpsc::channel(1);
        let (tried, unlocking) = oneshot::channel();
        let internal = Arc::clone(control.internal());
        let control = Arc::new(Mutex::new(control));
        let (kept, pen) = (Arc::clone(&custody), Arc::clone(&control));
        tokio::spawn(kept.attend(opening, pen, Arc::clone(&clock), late, tried));
        _ = timeout(UNLOCKING_PATIENCE, unlocking).await;
        let internal_root_pem = internal.root_pem(clock.read().now);

        let (published, news) = mpsc::unbounded_channel();
        let (figures, questions) = mpsc::channel(MAX_WAITING_QUESTIONS);
        let (ask_reload, asked_reloads) = mpsc::channel(MAX_WAITING_QUESTIONS);
        let mut harvest = Harvest::new(Arc::clone(&alerts));
        // Before anything is counted: what was counted before goes on, and verdicts stand.
        harvest.follow(&live.snapshot(), &config.timezone, clock.read());
        harvest.resume(recorder.take_past(), clock.read());
        let (errands, asked_errands) = mpsc::channel(MAX_WAITING_QUESTIONS);
        let (retention, retained) = watch::channel(config.retention);
        let recording = recorder.start(errands, Arc::clone(&clock), retained, gauges);
        let (doorbell, rings) = Doorbell::new();
        let (counted, places) = (Arc::clone(&counters), crew.max_connections());
        let shared = Shared::new(Arc::clone(&live), Arc::clone(&clock), counted, doorbell, places)
            .map_err(|error| StartError::Machine(error.to_string()))?;
        let (ask_issuing, asked_to_issue) = mpsc::channel(MAX_WAITING_QUESTIONS);
        let mut issuing = Issuing::new(
            Arc::clone(&custody),
            Arc::clone(&control),
            Arc::clone(&shared.challenges),
            Arc::clone(&clock),
            Arc::clone(&alerts),
            quiet.clone(),
            &registry,
        )
        .map_err(metrics)?;
        let (admit, admissions) = mpsc::channel(MAX_WAITING_QUESTIONS);
        let (asker, providers) = (Arc::clone(issuing.asker()), Arc::clone(issuing.providers()));
        let porter = Porter::new(Arc::clone(&live), asker, admit, &registry).map_err(metrics)?;
        if let Some(contents) = contents {
            issuing.take_over(contents);
        }
        let (served_at, listeners) = watch::channel(addresses.https.clone());
        let probes = Arc::clone(&shared.probes);
        let probe = Probe::new(Arc::clone(&live), Arc::clone(&clock), listeners, probes, &registry).map_err(metrics)?;
        let (shipments, workers) = crew.start(&shared)?;
        tokio::spawn(probe.run());
        tokio::spawn(issuing.run(asked_to_issue, admissions, opened));
        tokio::spawn(porter.run(rings));
        let incoming = Incoming { shipments, published: news, questions, errands: asked_errands, workers };
        tokio::spawn(harvest.run(Arc::clone(&clock), incoming));
        tokio::spawn(poll(Arc::clone(&control)));
        tokio::spawn(watch(Arc::clone(&live), Arc::clone(&clock), alerts));
        tokio::spawn(office::tidy());

        let desk = Arc::new(Desk {
            registry,
            live: Arc::clone(&live),
            clock,
            figures,
            is_serving: AtomicBool::new(true),
            admin_hosts: config.listen.admin_hosts.clone(),
        });
        let (admin_address, sockets) = admin;
        sockets.into_iter().for_each(|socket| serve_http(socket, admin::admin(Arc::clone(&desk))));
        let scrapes_address = scrapes.as_ref().map(|(address, _)| *address);
        for socket in scrapes.into_iter().flat_map(|(_, sockets)| sockets) {
            serve_http(socket, admin::scrapes(Arc::clone(&desk)));
        }
        if let Some(control_socket) = house.open_control_socket()? {
            tokio::spawn(admin::listen::serve(
                control_socket,
                admin::socket::routes(ask_reload, ask_issuing, Arc::clone(&shared.challenges), Arc::clone(&desk)),
            ));
        }

        for address in &addresses.https {
            tracing::info!("listening on https://{address}");
        }
        for address in &addresses.http {
            tracing::info!("listening on http://{address}");
        }
        tracing::info!("listening on admin http://{admin_address}");
        if let Some(address) = scrapes_address {
            tracing::info!("listening on metrics http://{address}");
        }
        let listening =
            Listening { https: addresses.https, http: addresses.http, admin: admin_address, internal_root_pem };
        tracing::info!(domains = config.domains.len(), workers = crew.len(), "ready");
        Ok(Self {
            config,
            log,
            control,
            custody,
            live,
            published,
            crew,
            access_log,
            counters,
            desk,
            reloads,
            asked_reloads,
            listening,
            recording,
            providers,
            retention,
            served_at,
            _house: house,
        })
    }

    /// Attends to signals and requests to reload, until it is time to go.
    async fn attend(mut self, mut signals: Signals) {
        loop {
            let reply = tokio::select! {
                told = signals.told() => match told {
                    Told::Reload => None,
                    Told::End => break,
                },
                Some(reply) = self.asked_reloads.recv() => Some(reply),
            };
            // A reload may wait for a disk that never answers; the end does not.
            let Some(outcome) = signals.unless_end(self.reload()).await else { break };
            if let Some(reply) = reply {
                _ = reply.send(outcome);
            }
        }
        self.drain(signals).await;
    }

    async fn drain(mut self, mut signals: Signals) {
        tracing::info!("draining: no new connections; requests under way have {:?}", self.config.shutdown_grace);
        self.desk.is_serving.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + self.config.shutdown_grace;
        match signals.unless_end(self.crew.drain(deadline)).await {
            Some(true) => tracing::info!("all requests finished"),
            Some(false) => tracing::warn!("some requests did not finish in time and were ended"),
            None => return tracing::warn!("told again: ending at once"),
        }
        let (access_log, recording, providers) = (self.access_log, self.recording, self.providers);
        let written = async { tokio::join!(access_log.close(), recording.finish(WRITING_PATIENCE), providers.end()) };
        _ = signals.unless_end(written).await;
    }
}

/// Once a second: have certificate files changed? Where a disk does not answer, nobody else waits for it.
async fn poll(control: Arc<Mutex<Control>>) {
    let mut tick = interval(WATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let control = Arc::clone(&control);
        for broken in in_background(move || poll_pairs(&control)).await.unwrap_or_default() {
            warn_of(&broken);
        }
    }
}

/// Once a second: which certificate serves whom?
async fn watch(live: Arc<Live>, clock: Arc<Clock>, alerts: Arc<Alerts>) {
    let mut tick = interval(WATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    loop {
        tick.tick().await;
        watch.step(clock.read().now, &live.snapshot(), &alerts);
    }
}

/// Serves one of the back office's own sockets.
fn serve_http(socket: std::net::TcpListener, routes: axum::Router) {
    match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => _ = tokio::spawn(admin::listen::serve(listener, routes)),
        Err(error) => tracing::error!(%error, "the admin socket cannot be used"),
    }
}

/// Runs what blocks on the disk where that hurts nobody.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "an internal error, see the log".to_owned())
}

/// The pen. If its last holder panicked, the world it published before is still whole.
fn lock(control: &Mutex<Control>) -> std::sync::MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}
