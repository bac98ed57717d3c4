//! Process-wide counts of the request's way, resolved once so that counting is one atomic addition.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The handles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Open client connections, by protocol.
    pub open_http1: IntGauge,
    /// Over TLS, HTTP/2.
    pub open_http2: IntGauge,
    /// On the `http` listeners.
    pub open_plain: IntGauge,
    /// In the TLS handshake.
    pub open_handshake: IntGauge,
    /// Tunnels: upgraded HTTP/1.1 connections, which count as such no longer.
    pub open_tunnel: IntGauge,
    /// Handshakes that succeeded, by version.
    pub handshakes_ok_tls12: IntCounter,
    /// TLS 1.3.
    pub handshakes_ok_tls13: IntCounter,
    /// No site of that name and no default.
    pub handshakes_unrecognized_name: IntCounter,
    /// A site, but no certificate that is valid now: never while the internal CA works.
    pub handshakes_no_certificate: IntCounter,
    /// Not finished in time.
    pub handshakes_timeout: IntCounter,
    /// The rest: broken off, not TLS, nothing in common.
    pub handshakes_failed: IntCounter,
    /// Connections closed at once because their client has too many.
    pub refused_connections: IntCounter,
    /// Failures to accept a connection: out of file descriptors, mostly.
    pub accept_errors: IntCounter,
    /// Lines of the access log that were written.
    pub access_log_lines: IntCounter,
    /// Those for which there was no room.
    pub access_log_dropped_lines: IntCounter,
}

impl Counters {
    /// Registers the counts with `registry`.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = Opts::new("lockgate_open_connections", "Open client connections.");
        let open = IntGaugeVec::new(gauge, &["protocol"])?;
        let counter = Opts::new("lockgate_tls_handshakes_total", "TLS handshakes by outcome.");
        let handshakes = IntCounterVec::new(counter, &["result", "version"])?;
        let refused = Opts::new(
            "lockgate_refused_connections_total",
            "Connections closed at once because their client had too many open.",
        );
        let refused_connections = IntCounter::with_opts(refused)?;
        let accept_errors =
            IntCounter::with_opts(Opts::new("lockgate_accept_errors_total", "Failures to accept a connection."))?;
        let lines = Opts::new("lockgate_access_log_lines_total", "Lines written to the access log.");
        let access_log_lines = IntCounter::with_opts(lines)?;
        let dropped = Opts::new(
            "lockgate_access_log_dropped_lines_total",
            "Lines of the access log that were dropped because it is written too slowly or not at all.",
        );
        let access_log_dropped_lines = IntCounter::with_opts(dropped)?;
        registry.register(Box::new(access_log_lines.clone()))?;
        registry.register(Box::new(access_log_dropped_lines.clone()))?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(handshakes.clone()))?;
        registry.register(Box::new(refused_connections.clone()))?;
        registry.register(Box::new(accept_errors.clone()))?;
        Ok(Self {
            open_http1: open.with_label_values(&["http/1.1"]),
            open_http2: open.with_label_values(&["h2"]),
            open_plain: open.with_label_values(&["http"]),
            open_handshake: open.with_label_values(&["handshake"]),
            open_tunnel: open.with_label_values(&["tunnel"]),
            handshakes_ok_tls12: handshakes.with_label_values(&["ok", "TLSv1.2"]),
            handshakes_ok_tls13: handshakes.with_label_values(&["ok", "TLSv1.3"]),
            handshakes_unrecognized_name: handshakes.with_label_values(&["unrecognized_name", ""]),
            handshakes_no_certificate: handshakes.with_label_values(&["no_certificate", ""]),
            handshakes_timeout: handshakes.with_label_values(&["timeout", ""]),
            handshakes_failed: handshakes.with_label_values(&["failed", ""]),
            refused_connections,
            accept_errors,
            access_log_lines,
            access_log_dropped_lines,
        })
    }
}
