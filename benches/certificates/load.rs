//! Clients at a steady pace, and what their slowest requests take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::stock::DOMAINS;
use crate::{client, part};

/// Connections that are kept, and the pace of each one.
const KEPT: usize = 4;
const BETWEEN_REQUESTS: Duration = Duration::from_millis(5);
/// Clients that come anew each time, and the pace of each one.
const FRESH: usize = 2;
const BETWEEN_HANDSHAKES: Duration = Duration::from_millis(25);

/// In milliseconds.
#[derive(Clone, Copy)]
pub struct P99 {
    pub kept: f64,
    pub fresh: f64,
}

/// Loads `address` for so long.
pub fn run(address: SocketAddr, config: &Arc<ClientConfig>, time: Duration, seed: usize) -> P99 {
    let until = Instant::now() + time;
    let kept = |client: usize| {
        let i = client * 1013 % DOMAINS;
        let mut connection = client::connect(address, config, i).unwrap();
        paced(until, BETWEEN_REQUESTS, client, |_| client::get(&mut connection, i))
    };
    // The same few names: how long a cold one takes is another question.
    let fresh = |client: usize| {
        paced(until, BETWEEN_HANDSHAKES, client, |turn| {
            let i = (seed + client * 64 + turn % 64) * 53 % DOMAINS;
            client::get(&mut client::connect(address, config, i).unwrap(), i);
        })
    };
    thread::scope(|scope| {
        let kept: Vec<_> = (0..KEPT).map(|client| scope.spawn(move || kept(client))).collect();
        let fresh: Vec<_> = (0..FRESH).map(|client| scope.spawn(move || fresh(client))).collect();
        let p99 = |clients: Vec<thread::ScopedJoinHandle<'_, Vec<f64>>>| {
            part(clients.into_iter().flat_map(|it| it.join().unwrap()), 0.99)
        };
        P99 { kept: p99(kept), fresh: p99(fresh) }
    })
}

/// Milliseconds of each turn from when it was to begin: a turn that waits for the one before it counts its waiting.
fn paced(until: Instant, pace: Duration, client: usize, mut turn: impl FnMut(usize)) -> Vec<f64> {
    let mut took = Vec::new();
    let mut begin = Instant::now() + pace * client as u32 / KEPT as u32;
    while begin < until {
        thread::sleep(begin.saturating_duration_since(Instant::now()));
        turn(took.len());
        took.push(begin.elapsed().as_secs_f64() * 1000.);
        begin += pace;
    }
    took
}
