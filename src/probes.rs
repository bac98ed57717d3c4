//! Connections of ours to our own listeners, told apart from clients': a look at what is served is nobody's visit.
//!
//! Whoever looks says from which socket before it connects; whoever accepts asks of each connection whether it is that
//! one. For a client's this is a look at a few numbers: a lock is taken only where the port is one of ours.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are remembered. There is one look at a time; one that nobody accepted is forgotten after so many others.
const MAX_PROBES: usize = 8;

/// The sockets from which we look at ourselves.
#[derive(Debug, Default)]
pub struct Probes {
    /// Their ports; 0: none.
    ports: [AtomicU16; MAX_PROBES],
    sockets: Mutex<Sockets>,
}

#[derive(Debug, Default)]
struct Sockets {
    addresses: [Option<SocketAddr>; MAX_PROBES],
    next: usize,
}

impl Probes {
    /// Says that a connection will come from this socket, which is bound.
    pub fn announce(&self, from: SocketAddr) {
        let mut sockets = self.lock();
        let at = sockets.next % MAX_PROBES;
        sockets.next = at + 1;
        if let (Some(address), Some(port)) = (sockets.addresses.get_mut(at), self.ports.get(at)) {
            *address = Some(canonical(from));
            port.store(from.port(), Ordering::Release);
        }
    }

    /// Whether a connection that was accepted from there is ours. It is once.
    pub fn recognise(&self, peer: SocketAddr) -> bool {
        if !self.ports.iter().any(|port| port.load(Ordering::Acquire) == peer.port()) {
            return false;
        }
        let peer = canonical(peer);
        let mut sockets = self.lock();
        let mut places = sockets.addresses.iter_mut().zip(&self.ports);
        match places.find(|(address, _)| **address == Some(peer)) {
            Some((address, port)) => {
                *address = None;
                port.store(0, Ordering::Release);
                true
            }
            None => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A dual-stack listener sees IPv4 addresses as IPv6 ones.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn what_was_announced_is_recognised_once_and_by_address_and_port() {
        let probes = Probes::default();
        probes.announce(at("127.0.0.1:50000"));
        probes.announce(at("[::1]:50001"));
        assert!(!probes.recognise(at("192.0.2.1:50000")) && !probes.recognise(at("127.0.0.1:50001")));
        assert!(probes.recognise(at("[::ffff:127.0.0.1]:50000")) && probes.recognise(at("[::1]:50001")));
        assert!(!probes.recognise(at("127.0.0.1:50000")) && !probes.recognise(at("[::1]:50001")));
    }

    #[test]
    fn what_nobody_accepts_is_forgotten() {
        let probes = Probes::default();
        let all: Vec<_> = (1..=100).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        all.iter().for_each(|address| probes.announce(*address));
        assert_eq!(all.iter().filter(|address| probes.recognise(**address)).count(), MAX_PROBES);
    }
}
