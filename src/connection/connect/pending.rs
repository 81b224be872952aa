//! A flow that waits for its callback: what was asked for, by whom, and what must come back.
//!
//! The state that travels through the browser is 256 random bits; only its digest is kept. A flow is taken
//! once: of two callbacks with one state, even at the same moment or on two sides of a crash, one at most
//! goes on. Called by `authorize` and `callback`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::browser::digest;
use super::drawer::{Drawer, Enclosed, KeepError, key};
use super::link::{Link, expires, moment};
use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::store::model::RecordKey;

/// The collection of flows under way.
pub const COLLECTION: &str = "connect_flows";
/// How long a person may take at the service.
pub const LIFE: Duration = Duration::from_mins(10);
/// How many flows may be under way: each costs a sealed record of a few KiB.
pub const MOST: usize = 10_000;
/// Characters of a state: the moment it ends, and 256 random bits.
const STATE: usize = 10 + 43;

/// A flow under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flow {
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

/// A fresh state that ends [`LIFE`] after `now`.
///
/// # Errors
/// When there is no randomness.
pub fn fresh_state(now: Timestamp, random: &dyn Random) -> Result<Secret, RandomUnavailable> {
    let mut bytes = [0; 32];
    random.fill(&mut bytes)?;
    Ok(Secret::new(format!("{}{}", moment(now.after(LIFE)), URL_SAFE_NO_PAD.encode(bytes))))
}

fn record(state: &str) -> Option<RecordKey> {
    let ours = state.len() == STATE && state.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let end = expires(state).filter(|_| ours)?;
    Some(key(COLLECTION, &format!("{}-{}", moment(end), digest(state))))
}

impl Flow {
    /// Keeps the flow until its callback comes.
    pub(super) async fn keep(&self, drawer: &Drawer, state: &Secret) -> Result<(), KeepError> {
        let key = record(state.expose()).ok_or(KeepError::Form)?;
        drawer.put(&key, self, Some(0)).await.map(drop)
    }

    /// The flow of a state, once. `None` for a state that is unknown, was used before or has ended.
    pub(super) async fn take(drawer: &Drawer, state: &str, now: Timestamp) -> Result<Option<Self>, KeepError> {
        let Some(key) = record(state) else { return Ok(None) };
        let taken = drawer.take(&key).await?;
        // Taken all the same: what has ended will not be asked for again.
        Ok(taken.filter(|_| expires(state).is_some_and(|end| end > now)))
    }
}
