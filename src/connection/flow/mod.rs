//! Getting, renewing and giving back tokens: every call of signing in.
//!
//! [`TokenCalls`] is what makes these calls; it keeps nothing but the metadata of issuers and the registrations
//! of applications that register themselves ([`registration`]). What else it brings is stored by whoever asked. A file a stage: what a call's parameters are ([`token_params`]), where it
//! may go ([`send`]), what its answer means ([`token_reply`]). Called by `refresh`, the connect flow and
//! the commands that connect an account.

mod ask;
pub mod assertion;
mod authorize;
mod codes;
mod device;
mod issuer;
mod purpose;
mod push;
mod registration;
mod scene;
mod secrets;
mod send;
pub mod token;
mod token_params;
pub mod token_reply;

use std::sync::Arc;

use crate::activity::Activity;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::connection::turn::Turnstile;
use crate::net::Clients;
use crate::telemetry::metrics::Metrics;

pub use ask::{CHOICES_MOST, Choice, Discovered, Who};
pub use authorize::Authorization;
pub use device::{DeviceCode, Poll};
pub use issuer::Issuer;
pub use purpose::Purpose;
pub use registration::{Force, Forgotten, RegistrationError, RegistrationShown, SEALED};
pub use secrets::Secrets;
pub use token::TokenCalls;
pub use token_params::client_header;

/// What calls of signing in are made with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What sends them.
    pub clients: Clients,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for assertions.
    pub random: Arc<dyn Random>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What happened.
    pub activity: Arc<Activity>,
    /// What lets them go.
    pub turns: Arc<dyn Turnstile>,
}

/// What a call of signing in is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To bring a token.
    Token,
    /// To renew one.
    Refresh,
    /// To ask what one is worth.
    Introspect,
    /// To take one back.
    Revoke,
    /// To ask for a device code.
    Device,
    /// To push what a person is sent with.
    Push,
    /// To ask whose account it is.
    Identity,
    /// To find accounts or sites.
    Discover,
    /// To ask an issuer for its metadata.
    Issuer,
    /// To register the application, or to take that back.
    Registration,
}

impl Stage {
    /// The field of `auth.oauth2` that describes it.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Refresh => "refresh",
            Self::Introspect => "introspect",
            Self::Revoke => "revoke",
            Self::Device => "device",
            Self::Push => "push",
            Self::Identity => "identity",
            Self::Discover => "discover",
            Self::Issuer => "issuer",
            Self::Registration => "registration",
        }
    }
}
