//! The whole program from outside: the real binary, real sockets, real origins, the clock moved by libfaketime.
//!
//! Every test drives one proxy of its own on free ports and ends with the checks of `harness::Lockgate`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should say so at once"
)]

mod harness;

mod access_log;
mod admin;
mod certificates;
mod cli;
mod disk;
mod durability;
mod framing;
mod issuance;
mod issuance_authorities;
mod issuance_proving;
mod issuance_queue;
mod limits;
mod metering;
mod origins;
mod outside;
mod patience;
mod plain;
mod recommend;
mod reload;
mod serving;
mod storage;
mod throttling;
mod tls;
mod usage_commands;
mod usage_records;
