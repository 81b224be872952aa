//! The one integration-test binary: everything over real sockets, against real parts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../rig/mod.rs"]
mod rig;

mod accounts;
mod architecture;
mod calls;
mod cached;
mod canary;
mod catalogue;
mod catalogue_sources;
mod chaos;
mod cli;
mod corpora;
mod connect;
mod credentials;
mod definitions;
mod doors;
mod durable;
mod doors_http2;
mod doors_tls;
mod doors_trust;
mod egress;
mod events;
mod hostile_api;
mod hygiene;
mod kills;
mod kinds;
mod logins;
mod mock;
mod mock_oauth;
mod outside;
mod pages;
mod peers;
mod policy;
mod power;
mod proxy;
mod refresh;
mod rejected;
mod reload;
mod rotation;
mod schema;
mod secrets;
mod signing;
mod slow_clients;
mod start;
mod store_commands;
mod store_contract;
mod store_damage;
mod store_faults;
mod store_maintenance;
mod support;
mod tokens;
mod transforms;
mod vectors;
