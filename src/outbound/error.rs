//! Why a call was not made or not successful, and whether it may be made again.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde_json::json;

use super::credential::PlaceError;
use super::policy::Held;
use crate::connection::{ConnectionError, TokenError};
use crate::net::{BaseError, Failure, Sent};
use crate::request::{AnswerError, FillError};
use crate::respond::{Answer, Refusal};

/// A call that was not made or not successful. Its text is for people and has no secret in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OutboundError {
    /// There is no connection to use.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The definition has no API.
    #[error("`{0}` has no `api`, so there is nothing to call")]
    NoApi(Arc<str>),
    /// The definition has no test request.
    #[error("`{0}` has no `api.test`, so its connections cannot be tested")]
    NoTest(Arc<str>),
    /// The call may not go where it would.
    #[error("`{integration}`: {reason}")]
    Base {
        /// The integration.
        integration: Arc<str>,
        /// Why not.
        reason: BaseError,
    },
    /// The credential does not fit.
    #[error("the connection `{integration}/{connection}` cannot be used: {reason}")]
    Credential {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: Arc<str>,
        /// Why not.
        reason: PlaceError,
    },
    /// The application's own credentials are not there.
    #[error("`{integration}`: {reason}")]
    Client {
        /// The integration.
        integration: Arc<str>,
        /// Why not.
        reason: TokenError,
    },
    /// One of the API's headers could not be made.
    #[error("`{integration}`: `api.headers.{header}`: {reason}")]
    Header {
        /// The integration.
        integration: Arc<str>,
        /// The header.
        header: HeaderName,
        /// Why not.
        reason: String,
    },
    /// The request could not be filled in.
    #[error("`{integration}`: {reason}")]
    Fill {
        /// The integration.
        integration: Arc<str>,
        /// Why not.
        reason: FillError,
    },
    /// The connection was not granted what the endpoint needs, and nothing was sent.
    #[error("`{integration}/{connection}` was not granted {}, which the endpoint `{endpoint}` needs", quoted(.missing))]
    Scope {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: Arc<str>,
        /// The endpoint.
        endpoint: Arc<str>,
        /// What was granted, as far as it is known.
        granted: Vec<String>,
        /// What is missing.
        missing: Vec<String>,
    },
    /// The call may not go now, and nothing of it was sent.
    #[error("`{integration}`: {reason}")]
    Held {
        /// The integration.
        integration: Arc<str>,
        /// What holds it.
        reason: Held,
    },
    /// The call was tried.
    #[error("`{}`: {}", .0.integration, .0.reason)]
    Tried(Box<Unsuccessful>),
}

/// A call that was tried without success.
#[derive(Debug, Clone)]
pub struct Unsuccessful {
    /// The integration.
    pub integration: Arc<str>,
    /// Whether sending the call again has no further effect: by its method, or by the key it carries.
    pub repeatable: bool,
    /// Why it had no success.
    pub reason: Why,
}

/// Why a call that was tried had no success.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Why {
    /// There was no answer.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// There was, and it is not a success.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// How a connection is connected anew with these scopes.
fn reconnect<'a>(integration: &str, connection: &str, scopes: impl Iterator<Item = &'a String>) -> String {
    let scopes: Vec<_> = scopes.collect();
    let wanted = json!({ "integration": integration, "connection": connection, "scopes": scopes });
    format!("Connect it again: `POST /api/connect-links` at the admin door with {wanted} answers the link to open.")
}

impl OutboundError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Connection(error) => error.refusal(),
            Self::NoApi(_) | Self::NoTest(_) => Refusal::NotFound,
            Self::Base { reason, .. } => reason.refusal(),
            Self::Credential { reason, .. } => reason.refusal(),
            Self::Header { .. } | Self::Client { .. } => Refusal::DefinitionFailed,
            Self::Fill { reason, .. } => reason.refusal(),
            Self::Scope { .. } => Refusal::ScopeMissing,
            Self::Held { reason, .. } => reason.refusal(),
            Self::Tried(tried) => match &tried.reason {
                Why::Failure(failure) => failure.refusal(),
                Why::Answer(answer) => answer.refusal(),
            },
        }
    }

    /// Whether the service may have seen the call.
    pub fn sent(&self) -> Sent {
        match self {
            Self::Tried(tried) => match &tried.reason {
                Why::Failure(failure) => failure.sent,
                Why::Answer(_) => Sent::Maybe,
            },
            _ => Sent::Nothing,
        }
    }

    /// Whether the call should be made again later: it may then fare better, and making it again does
    /// not do its work twice. A call that changes something and may have been seen is never one.
    pub fn may_repeat(&self) -> bool {
        match self {
            Self::Connection(error) => error.passing(),
            Self::Held { .. } => true,
            Self::Tried(tried) => match &tried.reason {
                Why::Failure(failure) => failure.passing() && (tried.repeatable || failure.sent == Sent::Nothing),
                Why::Answer(answer) => answer.passing() && (tried.repeatable || answer.turned_away()),
            },
            _ => false,
        }
    }

    /// Whether the service was not asked at all, for a reason that passes.
    pub fn was_held(&self) -> bool {
        match self {
            Self::Connection(error) => error.passing(),
            Self::Held { .. } => true,
            Self::Tried(tried) => matches!(&tried.reason, Why::Failure(failure) if failure.was_held()),
            _ => false,
        }
    }

    /// Whether a redirect led to where it failed, so that the call itself was carried out.
    pub fn was_led(&self) -> bool {
        matches!(self, Self::Tried(tried) if matches!(tried.reason, Why::Answer(AnswerError::Refused { led: true, .. })))
    }

    /// How long the service asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Tried(tried) => match &tried.reason {
                Why::Answer(AnswerError::Refused { retry_after, .. }) => *retry_after,
                Why::Answer(_) | Why::Failure(_) => None,
            },
            Self::Connection(error) => error.wait(),
            Self::Held { reason, .. } => Some(reason.after()),
            _ => None,
        }
    }

    /// What the gateway answers because of it, with when to come again where that is known.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Connection(error) if error.wait().is_some() => {
                self.refusal().answer_after(&self.to_string(), error.wait().unwrap_or_default())
            }
            Self::Held { integration, reason } => reason.answer(integration),
            Self::Scope { integration, connection, granted, missing, .. } => {
                let help = reconnect(integration, connection, granted.iter().chain(missing));
                self.refusal().answer_with(&self.to_string(), Some(&help), None)
            }
            _ => self.refusal().answer(&self.to_string()),
        }
    }

    /// The service's status, where it answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Tried(tried) => match &tried.reason {
                Why::Answer(answer) => Some(answer.status()),
                Why::Failure(_) => None,
            },
            _ => None,
        }
    }
}
