//! Ways of signing in that are not OAuth 2.0 and ask the service something: [`oauth1`] and [`login`].
//!
//! What they bring is a [`Grant`](super::grant::Grant), like that of a token call; whoever asks stores it.
//! One try each: a verifier may be good for one call only. Called by the connect flow and by `outbound`.

mod key;
pub mod login;
pub mod oauth1;
mod send;

use std::sync::Arc;

use crate::activity::Activity;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::connection::turn::Turnstile;
use crate::net::Clients;
use crate::telemetry::metrics::Metrics;

/// What calls of signing in are made with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What sends them.
    pub clients: Clients,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for nonces.
    pub random: Arc<dyn Random>,
    /// What lets them go.
    pub turns: Arc<dyn Turnstile>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What happened.
    pub activity: Arc<Activity>,
}
