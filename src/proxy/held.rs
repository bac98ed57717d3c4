//! What a connection holds while it lives: its place in the house, its client's entry, its part of the gauges.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use dashmap::DashMap;
use tokio::sync::OwnedSemaphorePermit;

use super::counters::Counters;

/// What a connection holds: its place in the house, its client's entry, its part of the gauges.
#[derive(Debug)]
pub struct Held {
    counters: Arc<Counters>,
    gauge: AtomicU8,
    _entry: Option<Entry>,
    _place: OwnedSemaphorePermit,
}

/// Which gauge of open connections one belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Gauge {
    /// Before the end of the handshake, or plain.
    Handshake = 0,
    /// HTTP/1.1 over TLS.
    Http1 = 1,
    /// HTTP/2.
    Http2 = 2,
    /// The `http` listeners.
    Plain = 3,
    /// Upgraded.
    Tunnel = 4,
}

impl Held {
    /// What a connection holds from the moment it is accepted; `entry`: if it is a client's.
    pub fn new(counters: Arc<Counters>, entry: Option<Entry>, place: OwnedSemaphorePermit) -> Self {
        counters.open_handshake.inc();
        Self { counters, gauge: AtomicU8::new(Gauge::Handshake as u8), _entry: entry, _place: place }
    }

    /// Where the connection is counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts the connection under `gauge` from now on.
    pub fn count_as(&self, gauge: Gauge) {
        self.gauge_of(self.gauge.swap(gauge as u8, Relaxed)).dec();
        self.gauge_of(gauge as u8).inc();
    }

    fn gauge_of(&self, gauge: u8) -> &prometheus::IntGauge {
        match gauge {
            g if g == Gauge::Http1 as u8 => &self.counters.open_http1,
            g if g == Gauge::Http2 as u8 => &self.counters.open_http2,
            g if g == Gauge::Plain as u8 => &self.counters.open_plain,
            g if g == Gauge::Tunnel as u8 => &self.counters.open_tunnel,
            _ => &self.counters.open_handshake,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge_of(self.gauge.load(Relaxed)).dec();
    }
}

/// How many connections each client has: IPv4 addresses and IPv6 /64s. No larger than the open connections.
#[derive(Debug, Default)]
pub struct Clients {
    open: DashMap<ClientKey, usize>,
}

/// Whom a limit is for: an IPv4 address, or the /64 that one IPv6 subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ClientKey {
    V4([u8; 4]),
    V6([u16; 4]),
}

/// One connection's entry among its client's.
#[derive(Debug)]
pub struct Entry {
    clients: Arc<Clients>,
    key: ClientKey,
}

impl Clients {
    /// Counts a connection from `client`, unless it has `limit` already.
    pub fn enter(self: &Arc<Self>, client: IpAddr, limit: Option<usize>) -> Option<Entry> {
        let key = match client.to_canonical() {
            IpAddr::V4(v4) => ClientKey::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                ClientKey::V6([a, b, c, d])
            }
        };
        let mut open = self.open.entry(key).or_default();
        if limit.is_some_and(|limit| *open >= limit) {
            return None;
        }
        *open += 1;
        Some(Entry { clients: Arc::clone(self), key })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clients.open.remove_if_mut(&self.key, |_, open| {
            *open = open.saturating_sub(1);
            *open == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_slash_64() {
        let clients = Arc::new(Clients::default());
        let enter = |ip: &str| clients.enter(ip.parse().unwrap(), Some(1));
        let _first = (enter("192.0.2.1").unwrap(), enter("2001:db8::1").unwrap());
        assert!(enter("192.0.2.1").is_none() && enter("::ffff:192.0.2.1").is_none() && enter("2001:db8::2").is_none());
        assert!(enter("192.0.2.2").is_some() && enter("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn a_client_that_left_takes_no_memory() {
        let clients = Arc::new(Clients::default());
        let entries: Vec<_> = (0..100).map(|i| clients.enter([192, 0, 2, i].into(), None)).collect();
        assert_eq!(clients.open.len(), 100);
        drop(entries);
        assert_eq!(clients.open.len(), 0);
    }
}
