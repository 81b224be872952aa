//! Tokens renewed once, whoever asks: ahead of their end, when they have ended, and after a refusal.
//!
//! [`Refresher::usable`] is asked before each call and costs nothing while the token lasts;
//! [`Refresher::after_refusal`] is asked after a 401. Both board the connection's one flight ([`flight`]),
//! which runs in a task of its own, so that a caller who goes away takes no token with it. The flight takes
//! the lease ([`intent`]) and makes the call ([`attempt`]); what it brought is stored before anyone uses it, and how
//! it ended is remembered for each token ([`outcome`]).
//! [`sweep`] renews in the background; [`schedule`] says when. Nothing here knows how a token call is made:
//! that is a [`TokenSource`].

mod attempt;
mod flight;
mod intent;
mod outcome;
mod schedule;
mod sweep;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_util::task::TaskTracker;

use super::connect::Revocations;
use super::credential::Credential;
use super::directory::{Connection, Connections, DEFAULT};
use super::error::ConnectionError;
use super::grant::{Issued, TokenSource};
use super::health::{Key, Status};
use super::stored::StoredError;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::{Random, RandomUnavailable};
use crate::definition::live::{Generation, Live};
use crate::definition::plan::Integration;
use crate::store::{Records, StoreError};
use crate::telemetry::metrics::Metrics;
use flight::Flights;
use intent::Leases;
use sweep::Schedule;

pub(super) use intent::{Anew, read as read_intent};
pub use intent::{COLLECTION, LEASE};
pub use schedule::LONGEST_VALIDITY;

/// Begins a connection's record anew: it has other tokens, or is gone. Whoever renews the old ones loses the lease.
pub(super) async fn begin_intent_anew(records: &dyn Records, key: &Key, why: Anew) -> Result<(), StoreError> {
    Leases::begin_anew(records, key, why).await
}

/// What renewing is made of.
#[derive(Clone)]
pub struct Parts {
    /// The definitions in force; token calls use the newest, whatever the request that needs one began with.
    pub live: Arc<Live>,
    /// The connections there are.
    pub connections: Arc<Connections>,
    /// What makes token calls.
    pub source: Arc<dyn TokenSource>,
    /// Who tells services of tokens that came too late to be kept; none without a master key.
    pub revocations: Option<Arc<Revocations>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for names and pauses.
    pub random: Arc<dyn Random>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Whether other processes use the store as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// None: whoever had a lease before this process started has ended.
    None,
    /// There may be: their leases are waited for.
    Some,
}

/// Renews tokens. One for each process.
pub struct Refresher {
    parts: Parts,
    /// `None` where nothing is stored, so that there are no tokens.
    leases: Option<Leases>,
    flights: Flights,
    schedule: Mutex<Schedule>,
    tasks: TaskTracker,
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher").field("leases", &self.leases).finish_non_exhaustive()
    }
}

/// What a call needs of a connection's token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Need<'a> {
    /// Which token. Default: the default one.
    pub token: Option<&'a str>,
    /// How long it must last. At most an hour and half of the token's life count.
    pub validity: Duration,
}

/// Why a token is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Its end is near.
    Due,
    /// A caller needs it to last longer than it does.
    Expired,
    /// The service refused it.
    Refused,
    /// A person asked.
    Asked,
}

impl Cause {
    const fn word(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Asked => "asked",
        }
    }
}

/// Stands for an access token, to see whether it is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark([u8; 32]);

impl Mark {
    fn of(issued: &Issued) -> Self {
        Self(Sha256::digest(issued.access.expose()).into())
    }
}

/// Why no token was renewed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshError {
    /// The service refused for good.
    #[error("{0}; connect the account again")]
    Refused(String),
    /// It failed, and is tried again.
    #[error("{what}; it is tried again in {} s", .wait.as_secs().max(1))]
    Later {
        /// What went wrong.
        what: String,
        /// How long until then.
        wait: Duration,
    },
    /// The store failed, or the record does not open.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The connection or its integration is no longer there, or has no such token.
    #[error("there is no such token any more")]
    Gone,
    /// It takes longer than a caller can wait; it goes on.
    #[error("the service has not answered the token call yet; try again in a moment")]
    Slow,
    /// The task broke; the log says where.
    #[error("renewing the token broke; the log says where")]
    Broken,
}

impl RefreshError {
    /// As what stands in the way of using a connection.
    fn of_connection(self, key: &Key) -> ConnectionError {
        let (integration, connection) = (Arc::clone(&key.integration), key.id.to_string());
        match self {
            Self::Refused(reason) => ConnectionError::NeedsReconnect { integration, connection, reason },
            Self::Later { ref wait, .. } => {
                let wait = *wait;
                ConnectionError::Waiting { integration, connection, reason: self.to_string(), wait }
            }
            Self::Slow => {
                let wait = Duration::from_secs(1);
                ConnectionError::Waiting { integration, connection, reason: self.to_string(), wait }
            }
            Self::Stored(StoredError::Store(reason)) => ConnectionError::Store { integration, connection, reason },
            Self::Stored(_) | Self::Gone | Self::Broken => {
                ConnectionError::Unusable { integration, connection, reason: self.to_string() }
            }
        }
    }
}

impl Refresher {
    /// A refresher of these parts.
    ///
    /// # Errors
    /// When there is no randomness to name this process with.
    pub fn new(parts: Parts, neighbours: Neighbours) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0_u8; 16];
        parts.random.fill(&mut bytes)?;
        let holder = bytes.iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        let alone_since = (neighbours == Neighbours::None).then(|| parts.clock.now());
        let leases =
            parts.connections.stored().map(|stored| Leases::new(Arc::clone(stored.records()), holder, alone_since));
        let (flights, tasks) = (Flights::default(), TaskTracker::new());
        Ok(Self { parts, leases, flights, schedule: Mutex::default(), tasks })
    }

    /// The connection with a token that lasts: the one given while its token does, else the renewed one.
    /// While renewing fails for now, a token that still works goes on being used.
    ///
    /// # Errors
    /// When there is no token to use.
    pub async fn usable(
        self: &Arc<Self>,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: Arc<Connection>,
        need: Need<'_>,
    ) -> Result<Arc<Connection>, ConnectionError> {
        let Credential::Tokens(tokens) = &connection.credential else { return Ok(connection) };
        let Some(issued) = tokens.issued(need.token) else { return Ok(connection) };
        let now = self.parts.clock.now();
        if issued.lasts(now, schedule::least(issued, need.validity)) {
            return Ok(connection);
        }
        let works = |now| issued.lasts(now, Duration::ZERO);
        if works(now) && !self.parts.source.renews(integration, issued) {
            return Ok(connection);
        }
        let key = Key::new(&connection.integration, &connection.id);
        let ended = match held_back((&connection, need.token), integration, now) {
            Some(error) => Err(error),
            None => Box::pin(self.renew(Wish::of(&key, need.token, issued, Cause::Expired))).await,
        };
        match ended {
            Ok(()) => self.parts.connections.resolve(generation, integration, &connection.id).await,
            Err(_) if works(self.parts.clock.now()) => Ok(connection),
            Err(error) => {
                if connection.health.health().is_outlived(now) {
                    self.outlive(&key).await;
                }
                Err(error.of_connection(&key))
            }
        }
    }

    /// After the service refused a call for its token: the connection with another token, to make the call
    /// once more with. `None` when there is no other to be had, so that the refusal stands. A token that was
    /// only just issued is not the reason, and not renewed.
    pub async fn after_refusal(
        self: &Arc<Self>,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &Connection,
        token: Option<&str>,
    ) -> Option<Arc<Connection>> {
        let Credential::Tokens(tokens) = &connection.credential else { return None };
        let issued = tokens.issued(token)?;
        let now = self.parts.clock.now();
        let old_enough = now.since(issued.issued_at) >= connection.health.patience(token.unwrap_or(DEFAULT));
        let renews = self.parts.source.renews(integration, issued);
        if old_enough && renews && held_back((connection, token), integration, now).is_none() {
            let key = Key::new(&connection.integration, &connection.id);
            self.renew(Wish::of(&key, token, issued, Cause::Refused)).await.ok()?;
        }
        // Another call may have renewed it since this one was sent.
        let newest = self.parts.connections.resolve(generation, integration, &connection.id).await.ok()?;
        let Credential::Tokens(tokens) = &newest.credential else { return None };
        let other = tokens.issued(token)?;
        (Mark::of(other) != Mark::of(issued)).then_some(newest)
    }

    /// Renews a token because a person asks: earlier failures do not hold it back.
    ///
    /// # Errors
    /// Why it was not renewed.
    pub async fn renew_now(
        self: &Arc<Self>,
        integration: &Arc<Integration>,
        connection: &Connection,
        token: Option<&str>,
    ) -> Result<(), ConnectionError> {
        let key = Key::new(&connection.integration, &connection.id);
        let Credential::Tokens(tokens) = &connection.credential else {
            return Err(RefreshError::Gone.of_connection(&key));
        };
        let issued = tokens.issued(token).ok_or_else(|| RefreshError::Gone.of_connection(&key))?;
        if !self.parts.source.renews(integration, issued) {
            let what = "the service gave nothing to renew the token with".to_owned();
            return Err(RefreshError::Refused(what).of_connection(&key));
        }
        self.renew(Wish::of(&key, token, issued, Cause::Asked)).await.map_err(|error| error.of_connection(&key))
    }

    /// Whether renewals are under way.
    pub fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Waits for renewals under way to end, at most `grace`: what they bring is lost otherwise. No new ones
    /// should be asked for meanwhile. Answers whether all have ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.tasks.close();
        let ended = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.parts.connections.flush_health().await;
        ended
    }
}

/// Why a token need not be tried to be renewed, known without looking into the store.
fn held_back(
    (connection, token): (&Connection, Option<&str>),
    integration: &Integration,
    now: Timestamp,
) -> Option<RefreshError> {
    let health = connection.health.health();
    let renewal = health.renewals.get(token.unwrap_or(DEFAULT))?;
    if !renewal.holds_back(now, &integration.fingerprint.to_string()) {
        return None;
    }
    let what = renewal.trouble.what.clone();
    if renewal.status == Status::NeedsReconnect {
        return Some(RefreshError::Refused(what));
    }
    Some(RefreshError::Later { what, wait: renewal.next_try.unwrap_or(now).since(now) })
}

/// The wish for a new token.
#[derive(Debug, Clone)]
struct Wish {
    key: Key,
    token: Arc<str>,
    /// The token that is to be replaced: if the store has another, that one will do.
    seen: Mark,
    cause: Cause,
}

impl Wish {
    fn of(key: &Key, token: Option<&str>, issued: &Issued, cause: Cause) -> Self {
        Self { key: key.clone(), token: Arc::from(token.unwrap_or(DEFAULT)), seen: Mark::of(issued), cause }
    }
}
