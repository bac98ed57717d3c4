//! The request's way. It uses the rules, the snapshot and `origin`, and nothing else: so traffic flows while the
//! database, the CA, the mail server or the console is down.
//!
//! `listen` accepts, [`tls`] shakes hands, [`serve`] walks each request, [`forward`] and [`answer`] know HTTP's fine
//! print, [`plain`] is port 80, [`access_log`] gathers a line for each request.

pub mod access_log;
pub mod answer;
pub mod body;
pub mod client;
pub mod connection;
pub mod counters;
pub mod date;
pub mod forward;
pub mod held;
pub mod plain;
pub mod pulse;
pub mod serve;
pub mod socket;
pub mod tls;
pub mod transport;
pub mod tunnel;
pub mod worker;

pub use counters::Counters;
pub use worker::{Order, Protocol, Shared, Worker};
