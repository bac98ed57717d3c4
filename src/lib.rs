//! Lockgate: one-click HTTPS that you host yourself. A TLS-terminating, multi-tenant reverse proxy that meters every
//! domain, holds each to its plan, and never serves an expired certificate.
//!
//! # The house
//!
//! A room uses only what lies on its own floor or below; the three walks never import each other. `tests/house.rs` holds
//! the code to it.
//!
//! | floor | rooms |
//! | --- | --- |
//! | 5 entrance | [`cli`] commands · [`config`] file -> `Config` · [`server`] opens doors and sockets, reloads, drains |
//! | 4 walks | [`proxy`] the request's way · [`upkeep`] what happens by time · [`admin`] what people ask |
//! | 3 pen | [`control`] the only writer of the world |
//! | 2 doors | [`origin`] origin servers · [`issuer`] ACME authorities and the internal CA · [`dns`] name servers · [`pairs`] certificate files on disk · [`vault`] keys sealed and opened · [`store`] what we remember · [`journal`] counts on their way there · [`logs`] access logs of any server |
//! | 1 rules | [`snapshot`] [`site`] [`plan`] [`meter`] [`usage`] [`throttle`] [`refusal`] [`certificate`] [`issuance`] [`challenge`] [`secret`] [`on_demand`] [`access`] [`advice`] [`checkup`] [`remedy`] [`alert`] [`probes`] |
//! | 0 ground | [`clock`] wall time · [`name`] domain names |
//!
//! # The request's way
//!
//! `proxy::worker` accepts, `proxy::tls` chooses site and certificate, `proxy::serve::walk` is the way itself: host ->
//! site -> count -> throttle -> origin -> answer.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod access;
pub mod admin;
pub mod advice;
pub mod alert;
pub mod certificate;
pub mod challenge;
pub mod checkup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod dns;
pub mod issuance;
pub mod issuer;
pub mod journal;
pub mod logs;
pub mod meter;
pub mod name;
pub mod on_demand;
pub mod origin;
pub mod pairs;
pub mod plan;
pub mod probes;
pub mod proxy;
pub mod refusal;
pub mod remedy;
pub mod secret;
pub mod server;
pub mod site;
pub mod snapshot;
pub mod store;
pub mod text;
pub mod throttle;
pub mod upkeep;
pub mod usage;
pub mod vault;
