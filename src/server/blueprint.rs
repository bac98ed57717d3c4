//! What a configuration asks of a running server.

use std::net::SocketAddr;
use std::sync::Arc;

use super::crew::Listeners;
use crate::config::Config;
use crate::control::Blueprint;

/// What cannot change while the process runs: said at once, and nothing is half-applied.
pub(super) fn refuse_what_needs_a_restart(old: &Config, new: &Config) -> Result<(), String> {
    let mut changed = Vec::new();
    let mut differs = |key, is_different| {
        if is_different {
            changed.push(key);
        }
    };
    differs("data_dir", old.data_dir != new.data_dir);
    differs("workers", old.workers != new.workers);
    differs("limits.max_connections", old.limits.max_connections != new.limits.max_connections);
    differs("listen.admin", old.listen.admin != new.listen.admin);
    differs("listen.admin_hosts", old.listen.admin_hosts != new.listen.admin_hosts);
    differs("listen.metrics", old.listen.metrics != new.listen.metrics);
    differs("log.format", old.log.json != new.log.json);
    let file = new.path.display();
    if changed.is_empty() {
        return Ok(());
    }
    let changed = changed.join(", ");
    Err(format!("{file}: {changed} cannot change while Lockgate runs: restart it, or set the old value again"))
}

/// The port of TLS as clients know it.
pub(super) fn public_port(config: &Config, listeners: &Listeners) -> u16 {
    config.listen.public_https_port.or(listeners.https.first().map(SocketAddr::port)).unwrap_or(443)
}

/// The world that a configuration asks for.
pub(super) fn blueprint(config: &Config, first_https: Option<&SocketAddr>) -> Blueprint {
    Blueprint {
        domains: Arc::clone(&config.domains),
        default: config.listen.default.clone(),
        fallback: config.fallback.clone(),
        acme: config.acme.clone().map(Arc::new),
        groups: config.groups.iter().cloned().map(Arc::new).collect(),
        limits: config.limits.clone(),
        trusted_proxies: Arc::clone(&config.listen.trusted_proxies),
        has_http_listener: !config.listen.http.is_empty(),
        redirect_port: config.listen.public_https_port.or(first_https.map(SocketAddr::port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nothing("", "", "")]
    #[case::issuance("", "[acme]\nagree_to_terms = true\n[[certificate]]\nnames = ['a.example']", "")]
    #[case::restart("workers = 1", "workers = 2", "workers cannot change while Lockgate runs")]
    #[case::vault("", "[vault]\nkey_env = 'KEY'", "")]
    #[case::vault_moved("data_dir = 'a'", "data_dir = 'b'", "data_dir cannot change while Lockgate runs")]
    fn what_a_reload_cannot_do_is_refused(#[case] old: &str, #[case] new: &str, #[case] said: &str) {
        let dir = tempfile::tempdir().unwrap();
        let config = |text: &str| {
            let file = dir.path().join("lockgate.toml");
            std::fs::write(&file, text).unwrap();
            crate::config::load(&file).unwrap().config
        };
        let (old, new) = (config(old), config(new));
        match refuse_what_needs_a_restart(&old, &new) {
            Ok(()) => assert_eq!(said, ""),
            Err(refused) => assert!(!said.is_empty() && refused.contains(said), "{refused}"),
        }
        let blueprint = blueprint(&new, None);
        assert_eq!((blueprint.acme.as_deref(), blueprint.groups.len()), (new.acme.as_ref(), new.groups.len()));
    }
}
