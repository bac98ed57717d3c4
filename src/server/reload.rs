//! A reload: the whole configuration, or the old one whole.

use std::collections::HashSet;
use std::sync::Arc;

use prometheus::{IntCounterVec, Opts, Registry};

use super::blueprint::{blueprint, public_port, refuse_what_needs_a_restart};
use super::reports::warn_of;
use super::{Server, access_log, in_background, lock};
use crate::config::{self, Config};
use crate::control::ReloadOutcome;

impl Server {
    /// Reads the configuration again and takes it whole, or keeps the old one whole. Says which in log and metrics.
    pub(super) async fn reload(&mut self) -> ReloadOutcome {
        let outcome = match self.try_reload().await {
            Ok(message) => ReloadOutcome { ok: true, message, domains: self.config.domains.len() },
            Err(message) => ReloadOutcome { ok: false, message, domains: self.config.domains.len() },
        };
        let result = if outcome.ok { "ok" } else { "refused" };
        self.reloads.with_label_values(&[result]).inc();
        if outcome.ok {
            tracing::info!(domains = outcome.domains, "reloaded: {}", outcome.message);
        } else {
            let kind = "reload_refused";
            tracing::warn!(kind, "reload refused, the old configuration stays in force:\n{}", outcome.message);
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<String, String> {
        let path = self.config.path.clone();
        let file = path.clone();
        let loaded = in_background(move || config::load(&file)).await?.map_err(|wrong| wrong.to_string())?;
        for lacking in &loaded.lacking {
            tracing::warn!("{}: without it the next start opens no kept key", lacking.message);
        }
        let mut config = loaded.config.clone();
        refuse_what_needs_a_restart(&self.config, &config)?;
        if config.vault != self.config.vault {
            self.custody.opens_with(&config.vault, self.desk.clock.read().now).await.map_err(|error| {
                format!("{}: [vault] has changed: {error}; `lockgate vault rotate` changes the key", path.display())
            })?;
        }
        let listeners = self.crew.prepare(&config.listen).map_err(|error| error.to_string())?;
        let wanted = config.access_log.clone();
        let opened = in_background(move || access_log::open(wanted.as_ref())).await??;
        let (access_log, outlet) = self
            .access_log
            .succeed(opened, public_port(&config, &listeners), &self.counters)
            .map_err(|error| format!("threads cannot be started: {error}"))?;
        let control = Arc::clone(&self.control);
        let blueprint = blueprint(&config, listeners.https.first());
        let applied = in_background(move || {
            let mut control = lock(&control);
            control.apply(blueprint).map(|broken| (broken, Arc::clone(&control.blueprint().domains)))
        });
        let (broken, domains) = applied.await?.map_err(|error| error.to_string())?;
        // Those that say the same as before are the same: no second copy of them is kept.
        config.domains = domains;
        // Files are data: a broken pair does not keep the rest of a good configuration out.
        for broken in &broken {
            warn_of(broken);
        }
        self.log.set_level(config.log.level);
        self.custody.turn_to(config.vault.clone());
        _ = self.served_at.send(listeners.https.clone());
        self.crew.take_over(listeners);
        _ = self.retention.send(config.retention);
        _ = self.published.send((self.live.snapshot(), config.timezone.clone()));
        let before = std::mem::replace(&mut self.config, config);
        self.crew.log_to(outlet);
        // Whoever rotates logs may do with the old file what he likes once the reload is over.
        std::mem::replace(&mut self.access_log, access_log).close().await;
        let names = |config: &Config| config.domains.iter().map(|d| d.name.clone()).collect::<HashSet<_>>();
        let (before, after) = (names(&before), names(&self.config));
        Ok(format!(
            "domains: {} ({} added, {} removed); certificate pairs that cannot be used: {}",
            after.len(),
            after.difference(&before).count(),
            before.difference(&after).count(),
            broken.len()
        ))
    }
}

/// The count of reloads.
pub(super) fn register(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let opts = Opts::new("lockgate_config_reloads_total", "Configuration reloads by outcome.");
    let reloads = IntCounterVec::new(opts, &["result"])?;
    registry.register(Box::new(reloads.clone()))?;
    for result in ["ok", "refused"] {
        reloads.with_label_values(&[result]);
    }
    Ok(reloads)
}
