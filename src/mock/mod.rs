//! Simulated services: every definition doubles as a service on loopback that its own calls work with.
//!
//! The simulation is made from the definition: its paths answer bodies in which the expressions of the
//! definition find what they read, its credential placement is checked, its limits are enforced and
//! told in the headers it names, its collections come in the pages it walks, and its webhooks are
//! signed the way it verifies. Its OAuth side ([`oauth`]) asks people for consent and issues the tokens that its API
//! then wants. It knows nothing of the gateway at run time, and is for the quickstart, demonstrations and tests. What it
//! issued is in memory; [`Mock::state`] tells it for a later process. Called by `cli`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::definition::plan::Integration;

pub mod app;
mod control;
mod counted;
mod credential;
mod draft;
mod limit;
mod oauth;
mod page;
mod paths;
mod received;
mod route;
mod samples;
pub mod server;
mod service;
mod shape;
mod sign;
mod signed;
pub mod trigger;

pub use draft::DraftError;
pub use oauth::Consent;
pub use server::{Controls, Mock};
pub use sign::SignError;

/// A definition to simulate.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// It, compiled.
    pub integration: Arc<Integration>,
    /// The resolved document it was compiled from, for the parts whose engines are not in the compiled
    /// form: `api.limits`, `api.quota`, `auth.*.identity` and `syncs`.
    pub resolved: Value,
}

/// What goes wrong on demand.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// How long every answer takes; at most 30 s.
    pub latency: Duration,
    /// The share of calls answered with 503, from 0 to 1.
    pub error_rate: f64,
    /// The share of calls whose connection breaks in the middle of the answer, from 0 to 1.
    pub reset_rate: f64,
    /// The status that every call is answered with.
    pub status: Option<StatusCode>,
    /// Whether every call's connection breaks.
    pub reset: bool,
}
