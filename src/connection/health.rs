//! How connections fare: what people are shown of it, and what it keeps from being used.
//!
//! A [`Pulse`] is in memory, one for each connection in use, and costs a call an atomic store or none. What
//! must outlive the process is a record without secrets beside the connection: written when the status
//! changes and after each refresh and test, and for the time of the last success now and then.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::ConnectionId;
use crate::store::model::RecordKey;
use crate::store::{Records, StoreError};
use crate::telemetry::notice::{Kind, Notice, Notices};

/// The collection of what is remembered of connections' health.
pub const COLLECTION: &str = "health";
/// A last success is written again when it is this much newer than the one written.
const SUCCESS_EVERY: Duration = Duration::from_mins(10);
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

/// How a connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
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

/// What is remembered of a connection's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// How it fares, apart from being paused.
    pub condition: Status,
    /// Whether the operator put it out of use.
    pub paused: bool,
    /// Since when the status is what it is; `None` when it never changed.
    pub since: Option<Timestamp>,
    /// The last test request.
    pub last_test: Option<Tested>,
    /// When a call last succeeded.
    pub last_success: Option<Timestamp>,
    /// What last went wrong.
    pub last_error: Option<Trouble>,
    /// When its tokens were last renewed.
    pub last_refresh: Option<Timestamp>,
    /// Before this, no token is renewed again, because renewing failed.
    pub next_try: Option<Timestamp>,
}

impl Health {
    /// How it fares.
    pub fn status(&self) -> Status {
        if self.paused { Status::Paused } else { self.condition }
    }
}

/// One connection's health, shared by all who use the connection.
#[derive(Debug, Default)]
pub struct Pulse {
    health: Mutex<Health>,
    /// The last success in milliseconds; zero when there was none in this process.
    success: AtomicU64,
    /// Until then, in milliseconds, a success is nothing new.
    quiet_until: AtomicU64,
    unwritten: AtomicBool,
    /// Set while calls must not go out without a closer look.
    blocked: AtomicBool,
    /// How many refreshes in a row were made because the service refused the token.
    refusals: AtomicU64,
    /// Which account it is of; see [`Pulses::begin_era`].
    era: AtomicU64,
    /// Whose pulse it is, and who is told when a person has to act.
    teller: Option<(Key, Arc<Notices>)>,
}

impl Pulse {
    fn of(key: &Key, health: Health, era: u64, notices: &Arc<Notices>) -> Self {
        let teller = Some((key.clone(), Arc::clone(notices)));
        let pulse = Self { health: Mutex::new(health), era: AtomicU64::new(era), teller, ..Self::default() };
        pulse.block(&pulse.lock());
        pulse
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, health: &Health) {
        let status = health.status();
        self.blocked.store(matches!(status, Status::Paused | Status::NeedsReconnect), Ordering::Release);
    }

    /// Which account it is of: no two of this process have the same.
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// What is known now.
    pub fn health(&self) -> Health {
        let mut health = self.lock().clone();
        health.last_success = health.last_success.max(self.succeeded());
        health
    }

    fn succeeded(&self) -> Option<Timestamp> {
        Some(self.success.load(Ordering::Relaxed)).filter(|millis| *millis > 0).map(Timestamp::from_millis)
    }

    /// Whether calls need a closer look at [`Self::health`] before they go out. Costs an atomic load.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// A call succeeded. A warning, which a call that failed may have left, ends with it.
    pub fn succeed(&self, now: Timestamp) {
        self.success.store(now.millis(), Ordering::Relaxed);
        if now.millis() < self.quiet_until.load(Ordering::Relaxed) {
            return;
        }
        let mut health = self.lock();
        if health.condition == Status::Warning && health.next_try.is_none() {
            health.condition = Status::Active;
            health.since = Some(now);
            self.unwritten.store(true, Ordering::Relaxed);
        }
        let told = health.last_success.filter(|told| now.since(*told) < SUCCESS_EVERY);
        if told.is_none() {
            health.last_success = Some(now);
            self.unwritten.store(true, Ordering::Relaxed);
        }
        self.quiet_until.store(told.unwrap_or(now).after(SUCCESS_EVERY).millis(), Ordering::Relaxed);
    }

    /// A call was refused for its credential. Only what was well becomes a warning.
    pub fn refuse(&self, trouble: Trouble) {
        let mut health = self.lock();
        if health.condition == Status::Active {
            health.condition = Status::Warning;
            health.since = Some(trouble.at);
        }
        health.last_error = Some(trouble);
        self.unwritten.store(true, Ordering::Relaxed);
        self.quiet_until.store(0, Ordering::Relaxed);
    }

    /// Changes what is known. Answers the status before and after.
    pub fn change(&self, now: Timestamp, change: impl FnOnce(&mut Health)) -> (Status, Status) {
        let mut health = self.lock();
        let (before, condition) = (health.status(), health.condition);
        change(&mut health);
        let after = health.status();
        if before != after {
            health.since = Some(now);
        }
        self.unwritten.store(true, Ordering::Relaxed);
        self.quiet_until.store(0, Ordering::Relaxed);
        self.block(&health);
        if let Some((key, notices)) = &self.teller
            && condition != health.condition
            && health.condition == Status::NeedsReconnect
        {
            notices.tell(|| needs_reconnect(key, &health));
        }
        (before, after)
    }

    /// How long a token must have been in use before a refusal of it is a reason to renew it: from one
    /// minute, twice as long each time that a new token was refused as well, at most about an hour.
    pub fn patience(&self) -> Duration {
        let doublings = u32::try_from(self.refusals.load(Ordering::Relaxed)).unwrap_or(u32::MAX).min(6);
        Duration::from_mins(1) * (1 << doublings)
    }

    pub(super) fn renewed_for_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn renewed_in_time(&self) {
        self.refusals.store(0, Ordering::Relaxed);
    }
}

/// What is told of a connection that a person has to connect again.
fn needs_reconnect(key: &Key, health: &Health) -> Notice {
    let since = health.since.unwrap_or_default();
    let (what, trouble) = (format!("The connection `{key}` has to be connected again."), health.last_error.as_ref());
    let step = trouble.map_or("connect the account again", |trouble| &trouble.step);
    let notice = Notice::new(Kind::NeedsReconnect, since, what, step)
        .of(&key.integration)
        .at(format!("/connections/{}", ConnectionId::of(&key.integration, &key.id)))
        .once(format!("{}/{key}/{}", Kind::NeedsReconnect.word(), since.millis()));
    let notice = Notice { connection: Some(Arc::clone(&key.id)), ..notice };
    match trouble {
        Some(trouble) => notice.because(&trouble.what),
        None => notice,
    }
}

/// The health of every connection that was looked at, and its records.
#[derive(Default)]
pub struct Pulses {
    records: Option<Arc<dyn Records>>,
    known: Mutex<HashMap<Key, Arc<Pulse>>>,
    eras: AtomicU64,
    notices: Arc<Notices>,
}

impl fmt::Debug for Pulses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulses").field("durable", &self.records.is_some()).finish_non_exhaustive()
    }
}

impl Pulses {
    /// Health that is kept in `records`.
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records: Some(records), ..Self::default() }
    }

    /// With who is told of connections that need a person.
    pub(super) fn tell(&mut self, notices: &Arc<Notices>) {
        self.notices = Arc::clone(notices);
    }

    /// Tells of connections that need a person and did so before this process began.
    pub(super) async fn tell_broken(&self, is_loaded: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let Some(records) = &self.records else { return Ok(()) };
        for record in records.keys(COLLECTION).await? {
            let Some((integration, id)) = record.key.split_once('/') else { continue };
            if is_loaded(integration) {
                let key = Key::new(integration, id);
                let health = self.read(&key).await;
                if health.status() == Status::NeedsReconnect {
                    self.notices.tell(|| needs_reconnect(&key, &health));
                }
            }
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Arc<Pulse>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pulse of a connection that exists. What cannot be read counts as nothing known: a lost record
    /// must not keep a working connection from being used.
    pub async fn of(&self, key: &Key) -> Arc<Pulse> {
        if let Some(pulse) = self.known().get(key) {
            return Arc::clone(pulse);
        }
        let health = self.read(key).await;
        let mut known = self.known();
        Arc::clone(
            known
                .entry(key.clone())
                .or_insert_with(|| Arc::new(Pulse::of(key, health, self.next_era(), &self.notices))),
        )
    }

    fn next_era(&self) -> u64 {
        self.eras.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// From here on the connection may be another account: what was learnt through it is not of this one.
    pub(super) fn begin_era(&self, key: &Key) {
        if let Some(pulse) = self.known_one(key) {
            pulse.era.store(self.next_era(), Ordering::Release);
        }
    }

    pub(super) fn known_one(&self, key: &Key) -> Option<Arc<Pulse>> {
        self.known().get(key).map(Arc::clone)
    }

    async fn read(&self, key: &Key) -> Health {
        let Some(records) = &self.records else { return Health::default() };
        match records.get(&key.record(COLLECTION)).await {
            Ok(Some((bytes, _))) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Ok(None) => Health::default(),
            Err(error) => {
                tracing::warn!(connection = %key, "the health of a connection could not be read: {error}");
                Health::default()
            }
        }
    }

    /// Writes what is known of a connection; durable when this returns.
    ///
    /// # Errors
    /// When the store fails; it is written again at the next [`Self::flush`].
    pub async fn save(&self, key: &Key, pulse: &Pulse) -> Result<(), StoreError> {
        let Some(records) = &self.records else { return Ok(()) };
        pulse.unwritten.store(false, Ordering::Relaxed);
        let health = pulse.health();
        let bytes = serde_json::to_vec(&health).map_err(|error| StoreError::Read(Arc::from(error.to_string())))?;
        let put = records.put(&key.record(COLLECTION), Bytes::from(bytes), None).await;
        match &put {
            Ok(_) => pulse.lock().last_success = health.last_success,
            Err(_) => pulse.unwritten.store(true, Ordering::Relaxed),
        }
        put.map(drop)
    }

    /// Writes what is unwritten of at most `most` connections.
    pub async fn flush(&self, most: usize) {
        let unwritten: Vec<_> = {
            let known = self.known();
            let unwritten = known.iter().filter(|(_, pulse)| pulse.unwritten.load(Ordering::Relaxed));
            unwritten.take(most).map(|(key, pulse)| (key.clone(), Arc::clone(pulse))).collect()
        };
        for (key, pulse) in unwritten {
            if let Err(error) = self.save(&key, &pulse).await {
                tracing::warn!("the health of connections could not be written: {error}");
                return;
            }
        }
    }

    /// Forgets a connection that was removed, or starts it anew.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self, key: &Key) -> Result<(), StoreError> {
        self.known().remove(key);
        match &self.records {
            Some(records) => records.remove(&key.record(COLLECTION)).await,
            None => Ok(()),
        }
    }

    /// How many of the connections that were looked at fare how, by integration and status.
    pub fn count(&self) -> HashMap<(Arc<str>, Status), i64> {
        let mut counts = HashMap::new();
        for (key, pulse) in &*self.known() {
            *counts.entry((Arc::clone(&key.integration), pulse.lock().status())).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[tokio::test]
    async fn what_is_known_outlives_the_process() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let pulses = Pulses::new(memory.clone());
        let pulse = pulses.of(&key).await;
        let changed = pulse.change(at(9), |health| {
            health.condition = Status::NeedsReconnect;
            health.last_error = Some(Trouble::new(at(9), "invalid_grant", "connect again"));
        });
        assert_eq!(changed, (Status::Active, Status::NeedsReconnect));
        pulses.flush(10).await;
        let again = Pulses::new(memory).of(&key).await;
        assert!(again.is_blocked());
        assert_eq!(again.health(), pulse.health());
        assert_eq!(again.health().since, Some(at(9)));
    }

    #[tokio::test]
    async fn successes_are_written_now_and_then() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let pulses = Pulses::new(memory.clone());
        let pulse = pulses.of(&key).await;
        let mut writes = 0;
        for second in 1..=3_600 {
            pulse.succeed(at(1_000_000 + second));
            let before = memory.get(&key.record(COLLECTION)).await.expect("read").map_or(0, |(_, version)| version);
            pulses.flush(10).await;
            writes +=
                memory.get(&key.record(COLLECTION)).await.expect("read").map_or(0, |(_, version)| version) - before;
        }
        assert_eq!(writes, 6, "an hour of calls");
        assert_eq!(pulse.health().last_success, Some(at(1_003_600)));
    }

    #[test]
    fn a_warning_ends_with_a_success_and_a_pause_does_not() {
        let pulse = Pulse::default();
        pulse.refuse(Trouble::new(at(1), "401", "check the key"));
        assert_eq!(pulse.health().status(), Status::Warning);
        pulse.succeed(at(2));
        assert_eq!(pulse.health().status(), Status::Active);
        pulse.change(at(3), |health| health.paused = true);
        pulse.succeed(at(4));
        assert_eq!((pulse.health().status(), pulse.is_blocked()), (Status::Paused, true));
        pulse.change(at(5), |health| health.paused = false);
        assert_eq!((pulse.health().status(), pulse.is_blocked()), (Status::Active, false));
    }
}
