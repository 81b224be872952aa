//! The policy for calls of signing in, behind the seam that `connection` has for it.
//!
//! A call to the API's own address counts against the integration's limits and its count at the service, in a
//! lane of its own: it waits for what is left before any other call, for as long as its own time lasts, and is
//! never turned away because many wait. A call elsewhere has the circuit of its place and nothing else.

use std::sync::Arc;

use async_trait::async_trait;

use super::limit::{Ask, Lane};
use super::policy::{Pass, Policies};
use crate::connection::grant::Account;
use crate::connection::turn::{Entered, NotNow, Turnstile};
use crate::net::{Base, Failure, Outgoing, Received};

#[async_trait]
impl Turnstile for Policies {
    async fn enter(
        &self,
        account: Account<'_>,
        outgoing: &Outgoing,
        home: Option<&Base>,
    ) -> Result<Box<dyn Entered>, NotNow> {
        let policy = self.of(account.generation, account.integration);
        let home = home.filter(|home| home.origin == outgoing.origin);
        let ask = Ask {
            connection: &Arc::from(account.connection),
            caller: None,
            endpoint: None,
            method: &outgoing.method,
            path: home.and_then(|home| outgoing.path.strip_prefix(&home.path)).unwrap_or(&outgoing.path),
            place: &Arc::from(outgoing.origin.to_string()),
            until: Some(self.now().saturating_add(outgoing.timeouts.total)),
            lane: if home.is_some() { Lane::First } else { Lane::Apart },
        };
        let admitted = policy.admit(ask, account.generation.gateway.limits.waiting_calls).await;
        let not_now = |held: super::Held| NotNow { after: held.after(), words: held.to_string() };
        admitted.map(|pass| Box::new(pass) as Box<dyn Entered>).map_err(not_now)
    }
}

impl Entered for Pass {
    fn ended(self: Box<Self>, sent: &Result<Received, Failure>) {
        match sent {
            Ok(received) => _ = self.read(received, None),
            Err(failure) => self.failed(failure),
        }
    }
}
