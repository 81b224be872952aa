//! Why a connection cannot be used, read or written.

use std::sync::Arc;
use std::time::Duration;

use super::stored::StoredError;
use crate::respond::Refusal;
use crate::store::StoreError;

/// Why there is no connection to use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The integration has none of that name.
    #[error("`{integration}` has no connection `{connection}`")]
    Unknown {
        /// The integration.
        integration: Arc<str>,
        /// The name that was asked for.
        connection: String,
    },
    /// It lacks something it needs.
    #[error("the connection `{integration}/{connection}` cannot be used: {reason}")]
    Unusable {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
        /// What it lacks, and what to do.
        reason: String,
    },
    /// It does not fit the definition.
    #[error("the connection `{integration}/{connection}` does not fit the definition: {reason}")]
    Invalid {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
        /// What does not fit.
        reason: String,
    },
    /// The operator put it out of use.
    #[error("the connection `{integration}/{connection}` is paused; resume it to use it")]
    Paused {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
    },
    /// The service refused for good to give it a token.
    #[error("the connection `{integration}/{connection}` needs to be connected again: {reason}")]
    NeedsReconnect {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
        /// What the service said.
        reason: String,
    },
    /// It has no token now, and is expected to get one.
    #[error("the connection `{integration}/{connection}` has no usable token now: {reason}")]
    Waiting {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
        /// Why not.
        reason: String,
        /// How long until it is tried again.
        wait: Duration,
    },
    /// The store failed.
    #[error("the connection `{integration}/{connection}` could not be read or written: {reason}")]
    Store {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
        /// Why not.
        reason: StoreError,
    },
}

impl ConnectionError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Unknown { .. } => Refusal::ConnectionUnknown,
            Self::Unusable { .. } | Self::Waiting { .. } => Refusal::ConnectionUnusable,
            Self::Paused { .. } => Refusal::ConnectionPaused,
            Self::NeedsReconnect { .. } => Refusal::NeedsReconnect,
            Self::Invalid { .. } => Refusal::InvalidInput,
            Self::Store { .. } => Refusal::StoreUnavailable,
        }
    }

    /// Why a stored connection could not be read or written.
    pub(super) fn of_stored(integration: &str, connection: &str, reason: StoredError) -> Self {
        stored_error(integration, connection, reason)
    }

    /// Why the stored connections could not be listed.
    pub(super) fn listing(reason: StoredError) -> Self {
        stored_error("*", "*", reason)
    }

    /// Whether waiting may mend it: someone has to act, but nothing was sent.
    pub fn passing(&self) -> bool {
        match self {
            Self::Unusable { .. }
            | Self::Waiting { .. }
            | Self::Paused { .. }
            | Self::NeedsReconnect { .. }
            | Self::Store { .. } => true,
            Self::Unknown { .. } | Self::Invalid { .. } => false,
        }
    }

    /// When it is worth coming again, where that is known.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Waiting { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}

pub(super) fn stored_error(integration: &str, connection: &str, reason: StoredError) -> ConnectionError {
    let (integration, connection) = (Arc::from(integration), connection.to_owned());
    match reason {
        StoredError::Store(reason) => ConnectionError::Store { integration, connection, reason },
        reason => ConnectionError::Unusable { integration, connection, reason: reason.to_string() },
    }
}
