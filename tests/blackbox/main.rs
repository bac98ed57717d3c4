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
mod cert_commands;
mod certificates;
mod cli;
mod disk;
mod domain_check;
mod durability;
mod estate;
mod framing;
mod inventory;
mod issuance;
mod issuance_authorities;
mod issuance_dns;
mod issuance_proving;
mod issuance_queue;
mod limits;
mod metering;
mod on_demand;
mod origins;
mod outside;
mod patience;
mod plain;
mod recommend;
mod reload;
mod renewal;
mod sealed;
mod serving;
mod standby;
mod storage;
mod throttling;
mod tls;
mod usage_commands;
mod usage_records;
mod vault_commands;
mod vault_rotation;
