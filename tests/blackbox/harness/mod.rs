//! What the tests stand on: the real program, real origins, real clients, and a clock that can be moved.
//!
//! - [`Lockgate`]: the running proxy, from a [`Setup`] that writes its configuration; ends with the checks that hold
//!   for every test (no panic, no unexpected ERROR, descriptors back, exit code 0).
//! - [`Pki`], [`Leaf`]: a certification authority and what it issues, with any names, dates and keys.
//! - [`Nginx`], [`Scripted`]: a real origin for real traffic, and one that does exactly what a test tells it to.
//! - [`Disk`]: the program's data directory on a disk that fails when told to; [`SmallDisk`]: one that really is full, or
//!   read-only.
//! - [`Pebble`]: a real ACME server; [`FaultCa`]: one in the test's process that errs as a [`Fault`] says.
//! - [`Machine`]: namespaces in which one test has every port.
//! - [`Managed`]: where a proxy and its authorities find each other; [`Authority`]: one of them.
//! - [`ChallTestSrv`]: a DNS server that answers what a test puts in; [`Bind`]: a real one that is updated over DNS;
//!   [`dns_query`]: what a server says of a name; [`Hoster`]: one that is changed through a program.
//! - [`TlsClient`], [`Connection`], [`H2`], `curl`, [`Load`]: clients, from single bytes to thousands of requests.
//!
//! Nothing here sleeps for a guess: whatever takes time is polled by [`eventually`] under a limit.

mod answer;
mod bind;
mod challtestsrv;
mod clock;
mod curl;
mod disk;
mod dns;
mod fault_ca;
mod h2;
mod hoster;
mod load;
mod lockgate;
mod machine;
mod managed;
mod metrics;
mod nginx;
mod pebble;
mod pki;
mod process;
mod scripted;
mod setup;
mod small_disk;
mod tls;

use std::thread;
use std::time::{Duration, Instant};

pub use answer::{Answer, read_answer};
pub use bind::Bind;
pub use challtestsrv::ChallTestSrv;
pub use clock::utc;
pub use curl::Curl;
pub use disk::Disk;
pub use dns::dns_query;
pub use fault_ca::{Fault, FaultCa, Resource, RetryAfter};
pub use h2::H2;
pub use hoster::{Call, Hoster};
pub use load::{Load, fill_bucket, h2load, h2load_at, wrk};
pub use lockgate::{Lockgate, plain_get};
pub use machine::Machine;
pub use managed::{Authority, Managed};
pub use metrics::Metrics;
pub use nginx::{Nginx, free_port};
pub use pebble::{Pebble, PebbleSetup};
pub use pki::{Leaf, Pki, Presented};
pub use process::{Output, Process, lockgate, program, run};
pub use scripted::{Request, Scripted, response};
pub use setup::{Setup, ToOrigin};
pub use small_disk::SmallDisk;
pub use tls::{Connection, Failure, TlsClient, client_hello};

/// How long anything may take that ought to happen soon; generous, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Polls until `look` finds something; panics after `limit`, naming what was awaited.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// [`eventually_within`] the usual [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// The digest by which bodies are compared.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

/// `len` bytes that neither compress nor repeat, the same for the same seed (xorshift).
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
