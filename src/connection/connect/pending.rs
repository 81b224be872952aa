//! A flow that waits for its callback: what was asked for, by whom, and what must come back.
//!
//! The state that travels through the browser is the id of its link and 256 random bits, of which only the
//! digest is kept. A link has one flow, the newest: whoever has a link can fill no more than one place. A flow
//! is taken once: of two callbacks with one state, even at the same moment or on two sides of a crash, one at
//! most goes on. Called by `begin` and `callback`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::browser::{digest, same};
use super::drawer::{Drawer, Enclosed, KeepError, key};
use super::link::{self, Link};
use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::store::StoreError;

/// The collection of flows under way.
pub const COLLECTION: &str = "connect_flows";
/// How long a person may take at the service.
pub const LIFE: Duration = Duration::from_mins(10);
/// How many flows may be under way: each costs a sealed record of a few KiB.
pub const MOST: usize = 10_000;
/// Characters of a state: the id of its link, and 256 random bits.
const STATE: usize = link::ID + 43;

/// A flow under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
    /// The digest of its state, which is the id it is told apart by.
    pub id: String,
    /// When it is too late for its callback.
    pub ends: Timestamp,
    /// The link it began with.
    pub link: Link,
    /// The digest of the cookie of the browser it began in.
    pub browser: String,
    /// The scopes that were asked for.
    pub scopes: Vec<String>,
    /// The inputs of the connection, defaults filled in.
    pub inputs: Map<String, Json>,
    /// The PKCE verifier; none where the definition turns PKCE off. It never leaves the gateway but in
    /// the token call.
    pub verifier: Option<Enclosed>,
    /// The redirect address that was sent, which the token call has to repeat.
    pub redirect_uri: String,
    /// Who must say that it sent the callback (RFC 9207), where that is known.
    pub issuer: Option<Issuer>,
    /// The temporary token and its secret, where the service gave some before (RFC 5849 §2.1).
    pub held: Option<(Enclosed, Enclosed)>,
}

/// Who must have sent a callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// The issuer, compared letter by letter.
    pub name: String,
    /// Whether the service says that it always names itself, so that a callback without `iss` is refused.
    pub always: bool,
}

/// What a state leads to.
#[derive(Debug)]
pub(super) enum Taken {
    /// Its flow, which no one else gets.
    Flow(Box<Flow>),
    /// A flow that its link has left behind, or something that only looks so: this newer one has begun.
    Older(Box<Flow>),
    /// Nothing: it was never given out, was used before, or is too old.
    Unknown,
}

/// A fresh state for a link.
///
/// # Errors
/// When there is no randomness.
pub fn fresh_state(link: &Link, random: &dyn Random) -> Result<Secret, RandomUnavailable> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes)?;
    Ok(Secret::new(format!("{}{}", link.id, URL_SAFE_NO_PAD.encode(bytes))))
}

/// The link of a state.
pub(super) fn link_of(state: &str) -> Option<&str> {
    let ours = state.len() == STATE && state.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    state.get(..link::ID).filter(|_| ours)
}

impl Flow {
    /// Keeps the flow until its callback comes, in place of the one that its link had.
    pub(super) async fn keep(&self, drawer: &Drawer) -> Result<(), KeepError> {
        drawer.put(&key(COLLECTION, &self.link.id), self, None).await.map(drop)
    }

    /// The flow of a state, once.
    pub(super) async fn take(drawer: &Drawer, state: &str, now: Timestamp) -> Result<Taken, KeepError> {
        let Some(key) = link_of(state).map(|link| key(COLLECTION, link)) else { return Ok(Taken::Unknown) };
        let id = digest(state);
        // Looked at first: an older state must not take a newer flow away.
        match drawer.get::<Self>(&key).await? {
            None => return Ok(Taken::Unknown),
            Some((flow, _)) if !same(&flow.id, &id) => return Ok(Taken::Older(Box::new(flow))),
            Some(_) => {}
        }
        let Some(flow) = drawer.take::<Self>(&key).await? else { return Ok(Taken::Unknown) };
        if !same(&flow.id, &id) {
            // A newer one began between the two looks.
            return match drawer.put(&key, &flow, Some(0)).await {
                Ok(_) | Err(KeepError::Store(StoreError::Conflict(_))) => Ok(Taken::Older(Box::new(flow))),
                Err(error) => Err(error),
            };
        }
        // Taken all the same: what has ended will not be asked for again.
        Ok(if flow.ends > now { Taken::Flow(Box::new(flow)) } else { Taken::Unknown })
    }
}
