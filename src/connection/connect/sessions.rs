//! Sessions of services that are signed in to by requests of their own, when they are over: queued for the
//! service to be told, as removed connections are.
//!
//! Sessions are in memory alone, so that one which lives when the program ends is not logged out. Called by
//! `removal`.

use std::sync::Arc;
use std::time::Duration;

use super::Connect;
use super::revocations::{Revocations, What};
use crate::base::clock::Timestamp;
use crate::connection::health::Key;
use crate::connection::{Connection, ConnectionError, Content, Credential, Tokens};

/// How long a session that was replaced lives on: calls under way still carry it.
const GRACE: Duration = Duration::from_mins(1);

/// A session as the content of a connection.
pub(super) fn content(session: &Connection) -> Option<Content> {
    let Credential::Tokens(Tokens(tokens)) = &session.credential else { return None };
    let tokens = tokens.iter().map(|(name, issued)| (Arc::clone(name), issued.copy())).collect();
    let credential = Credential::Tokens(Tokens(tokens));
    Some(Content { credential, inputs: session.inputs.clone(), saved: session.saved.clone() })
}

impl Connect {
    /// When a session is over; never where there are none.
    pub(super) async fn session_ended(&self) {
        match &self.logins {
            Some(logins) => logins.ended.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Queues the sessions that are over, and those whose connection is gone.
    pub(super) async fn queue_sessions(&self, revocations: &Revocations) {
        let Some(logins) = &self.logins else { return };
        let now = self.clock.now();
        for (integration, connection) in logins.live() {
            if self.is_gone(&integration, &connection).await
                && let Some(session) = logins.leave(&integration, &connection)
            {
                queue_one(revocations, &session, now).await;
            }
        }
        for session in logins.over() {
            queue_one(revocations, &session, now.after(GRACE)).await;
        }
    }

    /// Whether nobody can use a connection any more: its file or its integration went away.
    async fn is_gone(&self, integration: &str, connection: &str) -> bool {
        let generation = self.live.load();
        let Some(known) = generation.integration(integration) else { return true };
        let found = self.connections.resolve(&generation, known, connection).await;
        matches!(found, Err(ConnectionError::Unknown { .. }))
    }
}

async fn queue_one(revocations: &Revocations, session: &Connection, next: Timestamp) {
    let Some(content) = content(session) else { return };
    let key = Key::new(&session.integration, &session.id);
    if let Err(error) = revocations.queue_from(&key, (What::Session, next), &content).await {
        let (integration, connection) = (&session.integration, &session.id);
        tracing::warn!(%integration, %connection, "a session will not be logged out, its end could not be kept: {error}");
    }
}
