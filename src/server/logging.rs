//! The program's own log, on standard error.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::Log;

/// Changes the level while the program runs.
#[derive(Debug)]
pub struct Handle(reload::Handle<Targets, Registry>);

/// Says `ERROR` for every connection whose certificate it refuses, and not to whom; `lockgate_origin_errors_total` does.
const PLATFORM_VERIFIER: &str = "rustls_platform_verifier";

/// Begins to log. Only the first call of a process has an effect.
pub fn start(log: &Log) -> Handle {
    let (level, handle) = reload::Layer::new(from(log.level));
    let registry = tracing_subscriber::registry().with(level);
    let stderr = std::io::stderr;
    _ = if log.json {
        registry.with(fmt::layer().json().flatten_event(true).with_target(false).with_writer(stderr)).try_init()
    } else {
        let is_terminal = stderr().is_terminal();
        registry.with(fmt::layer().with_target(false).with_ansi(is_terminal).with_writer(stderr)).try_init()
    };
    Handle(handle)
}

impl Handle {
    /// Logs from `level` on.
    pub fn set_level(&self, level: Level) {
        _ = self.0.reload(from(level));
    }
}

fn from(level: Level) -> Targets {
    Targets::new().with_default(level).with_target(PLATFORM_VERIFIER, LevelFilter::OFF)
}
