//! How connections fare: what people are shown of it, and what it keeps from being used.
//!
//! [`Health`] is what is remembered of one connection; what stands against renewing its tokens is told for each
//! token, so that one which is refused keeps no other from being used. A [`Pulse`] has it in memory, one for each
//! connection in use; [`Pulses`] has them all and their records. Called by whoever calls a service or renews a token.

mod pulse;
mod pulses;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::store::model::RecordKey;

pub use pulse::Pulse;
pub use pulses::{COLLECTION, Pulses};

/// The most characters that are kept of what a service said.
const WORDS: usize = 500;

/// Integration and name of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The integration's id.
    pub integration: Arc<str>,
    /// The connection's name within it.
    pub id: Arc<str>,
}

impl Key {
    /// The key of a connection.
    pub fn new(integration: &str, id: &str) -> Self {
        Self { integration: Arc::from(integration), id: Arc::from(id) }
    }

    /// Its record in a collection.
    pub fn record(&self, collection: &str) -> RecordKey {
        RecordKey { collection: Arc::from(collection), key: Arc::from(self.to_string()) }
    }
}

/// `integration/name`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.integration, self.id)
    }
}

/// How a connection fares, from well to worse.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConnectionStatus)]
pub enum Status {
    /// Nothing is known against it.
    #[default]
    Active,
    /// It works, and something about it went wrong.
    Warning,
    /// It does not work at present; waiting or the operator may mend it.
    Error,
    /// The service refused for good: a person has to connect again.
    NeedsReconnect,
    /// The operator put it out of use.
    Paused,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Active, Self::Warning, Self::Error, Self::NeedsReconnect, Self::Paused];

    /// Its word in metrics, lists and records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::NeedsReconnect => "needs_reconnect",
            Self::Paused => "paused",
        }
    }
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When.
    pub at: Timestamp,
    /// What, with the service's own words, and nothing secret.
    pub what: String,
    /// What to do about it.
    pub step: String,
}

impl Trouble {
    /// Something that went wrong just now; `what` is cut to 500 characters.
    pub fn new(at: Timestamp, what: &str, step: &str) -> Self {
        Self { at, what: what.chars().take(WORDS).collect(), step: step.to_owned() }
    }
}

/// The outcome of a test request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// When it ended.
    pub at: Timestamp,
    /// Whether it succeeded.
    pub passed: bool,
}

/// What stands against one token since it was last to be renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// A warning while the token works, an error once it does not; whether a person has to connect again.
    pub status: Status,
    /// What went wrong.
    pub trouble: Trouble,
    /// Before this it is not renewed again, because renewing failed.
    pub next_try: Option<Timestamp>,
    /// When the token ends that could not be renewed, where that was told.
    pub ends: Option<Timestamp>,
    /// The definition that someone has to correct first, by its fingerprint: with another one it is tried at once.
    pub definition: Option<String>,
}

impl Renewal {
    /// One after which nothing holds another try back.
    pub const fn new(status: Status, trouble: Trouble) -> Self {
        Self { status, trouble, next_try: None, ends: None, definition: None }
    }

    /// Whether it holds back another try at `now`, by a definition of this fingerprint.
    pub fn holds_back(&self, now: Timestamp, definition: &str) -> bool {
        let corrected = self.definition.as_deref().is_some_and(|faulty| faulty != definition);
        self.status == Status::NeedsReconnect || !corrected && self.next_try.is_some_and(|next| next > now)
    }

    /// Whether it says of a token that it works, and it has ended.
    fn is_outlived(&self, now: Timestamp) -> bool {
        self.status == Status::Warning && self.next_try.is_some() && self.ends.is_some_and(|end| end <= now)
    }
}

/// What is remembered of a connection's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// How it fares, apart from the renewal of its tokens and from being paused.
    pub condition: Status,
    /// Whether the operator put it out of use.
    pub paused: bool,
    /// Since when the status is what it is; `None` when it never changed.
    pub since: Option<Timestamp>,
    /// The last test request.
    pub last_test: Option<Tested>,
    /// When a call last succeeded.
    pub last_success: Option<Timestamp>,
    /// What last went wrong; while a person has to connect again, why.
    pub last_error: Option<Trouble>,
    /// When its tokens were last renewed.
    pub last_refresh: Option<Timestamp>,
    /// What stands against its tokens, by their names; none of those that fare well.
    pub renewals: BTreeMap<Arc<str>, Renewal>,
}

impl Health {
    /// How it fares.
    pub fn status(&self) -> Status {
        if self.paused { Status::Paused } else { self.standing() }
    }

    /// How it fares, apart from being paused: as its worst part does.
    pub fn standing(&self) -> Status {
        self.renewals.values().map(|renewal| renewal.status).fold(self.condition, Status::max)
    }

    /// When a token is renewed again whose renewal failed: the first of them.
    pub fn next_try(&self) -> Option<Timestamp> {
        self.renewals.values().filter_map(|renewal| renewal.next_try).min()
    }

    /// Remembers what went wrong. While a person has to connect again, why they have to stays: what fails then
    /// fails because of it.
    pub fn blame(&mut self, trouble: Trouble) {
        if self.standing() != Status::NeedsReconnect {
            self.last_error = Some(trouble);
        }
    }

    /// Remembers what stands against a token.
    pub fn hold_against(&mut self, token: &str, renewal: Renewal) {
        let trouble = renewal.trouble.clone();
        let refused = renewal.status == Status::NeedsReconnect;
        self.renewals.insert(Arc::from(token), renewal);
        if refused {
            self.last_error = Some(trouble);
        } else {
            self.blame(trouble);
        }
    }

    /// Whether a token has ended since renewing it failed.
    pub fn is_outlived(&self, now: Timestamp) -> bool {
        self.renewals.values().any(|renewal| renewal.is_outlived(now))
    }

    /// Tokens that have ended since renewing them failed work no more.
    pub fn outlive(&mut self, now: Timestamp) {
        let outlived = self.renewals.values_mut().filter(|renewal| renewal.is_outlived(now));
        outlived.for_each(|renewal| renewal.status = Status::Error);
    }

    /// Nothing stands against a token any more. What else a person has to connect again for is then what is told.
    pub fn clear(&mut self, token: &str) {
        self.renewals.remove(token);
        let refused = self.renewals.values().find(|renewal| renewal.status == Status::NeedsReconnect);
        self.last_error = refused.map(|renewal| renewal.trouble.clone()).or(self.last_error.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal(status: Status, what: &str) -> Renewal {
        let at = Timestamp::from_seconds(1);
        Renewal { next_try: Some(at), ..Renewal::new(status, Trouble::new(at, what, "act")) }
    }

    fn told(health: &Health) -> (&str, &str) {
        (health.status().word(), health.last_error.as_ref().map_or("", |trouble| &trouble.what))
    }

    #[test]
    fn a_connection_fares_as_its_worst_token_and_tells_why_a_person_has_to_act() {
        let mut health = Health::default();
        health.hold_against("user", renewal(Status::NeedsReconnect, "user is refused"));
        health.hold_against("bot", renewal(Status::Error, "bot failed"));
        assert_eq!(told(&health), ("needs_reconnect", "user is refused"));
        health.hold_against("bot", renewal(Status::NeedsReconnect, "bot is refused"));
        assert_eq!(told(&health), ("needs_reconnect", "bot is refused"));
        health.clear("bot");
        assert_eq!(told(&health), ("needs_reconnect", "user is refused"));
        health.clear("user");
        assert_eq!((health.status(), health.next_try()), (Status::Active, None));
    }

    #[test]
    fn a_token_that_ends_while_it_waits_to_be_renewed_works_no_more() {
        let (mut health, at) = (Health::default(), Timestamp::from_seconds);
        health.hold_against("bot", Renewal { ends: Some(at(20)), ..renewal(Status::Warning, "bot failed") });
        health.outlive(at(19));
        assert_eq!((health.status(), health.is_outlived(at(20))), (Status::Warning, true));
        health.outlive(at(20));
        assert_eq!((health.status(), health.is_outlived(at(20))), (Status::Error, false));
        let odd = Renewal { next_try: None, ends: Some(at(20)), ..renewal(Status::Warning, "the answer was odd") };
        health.hold_against("bot", odd);
        assert!(!health.is_outlived(at(20)), "it was renewed");
    }
}
