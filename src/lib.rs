//! Trunkline, a declarative integration gateway.
//!
//! Data flows one way: `integrations/*.yaml → definition (raw → checked → plan) → Live (one swap) →
//! request path (proxy | webhook | worker) → store`. The rooms below are in order of dependency:
//! each imports only from rooms above it in this list (`tests/it/architecture.rs` checks).

pub mod base;
pub mod telemetry;
pub mod respond;
pub mod template;
pub mod definition;
pub mod store;
pub mod net;
pub mod otlp;
pub mod secrets;
pub mod request;
pub mod usage;
pub mod activity;
pub mod connection;
pub mod outbound;
pub mod queue;
pub mod notices;
pub mod webhook;
pub mod proxy;
pub mod action;
pub mod admin;
pub mod page;
pub mod mock;
pub mod server;
pub mod reload;
pub mod app;
pub mod cli;
