//! Sessions: a random number for the browser, its digest here and in the store.
//!
//! They outlive the process, because people should not sign in again after an upgrade. What is in memory decides;
//! the store is written when a session begins or ends, and now and then while it goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::admin::refusal::Refused;
use crate::base::clock::Timestamp;
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::definition::plan::gateway;
use crate::respond::Refusal;
use crate::store::model::RecordKey;
use crate::store::{Store, StoreError};

/// The collection of sessions.
const COLLECTION: &str = "admin_sessions";
/// How many there are at most; who was seen longest ago is signed out.
const MOST: usize = 1_000;
/// How many one account has at most, so that nobody signs others out by signing in again and again.
const EACH: usize = 20;
/// How often the store is told that a session goes on.
const WRITTEN_EVERY: Duration = Duration::from_mins(5);

/// A session as it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    /// Whose it is.
    pub account: String,
    /// What of the account it depends on; empty where the gateway let someone in by a link of its own.
    pub proof: String,
    /// When it began.
    pub began: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    begun: Begun,
    seen: Timestamp,
    #[serde(skip)]
    written: Option<Timestamp>,
}

impl Session {
    fn is_over(&self, times: gateway::Session, now: Timestamp) -> bool {
        now.since(self.seen) >= times.idle || now.since(self.begun.began) >= times.lifetime
    }
}

/// All sessions, by the digest of their number.
pub struct Sessions {
    store: Arc<dyn Store>,
    known: Mutex<HashMap<String, Session>>,
    read: OnceCell<()>,
}

impl Sessions {
    /// Those that the store has, read when the first is asked for.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, known: Mutex::default(), read: OnceCell::new() }
    }

    /// The session of a cookie, and marks it as seen; `None` when there is none or its time is over.
    pub async fn find(
        &self,
        cookie: &str,
        times: gateway::Session,
        now: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        self.read_all().await?;
        let key = key(cookie);
        let (found, write) = {
            let mut known = self.lock();
            let Some(session) = known.get_mut(&key) else { return Ok(None) };
            if session.is_over(times, now) {
                known.remove(&key);
                (None, None)
            } else {
                session.seen = now;
                let due = session.written.is_none_or(|written| now.since(written) >= WRITTEN_EVERY);
                session.written = if due { Some(now) } else { session.written };
                (Some(session.begun.clone()), due.then(|| session.clone()))
            }
        };
        match write {
            Some(session) => self.go_on(&key, &session).await?,
            None if found.is_none() => self.store.remove(&record(&key)).await?,
            None => {}
        }
        Ok(found)
    }

    /// The session of a cookie's digest, which is not marked as seen by this, of those that were read.
    pub fn look_at(&self, key: &str, times: gateway::Session, now: Timestamp) -> Option<Begun> {
        let known = self.lock();
        known.get(key).filter(|session| !session.is_over(times, now)).map(|session| session.begun.clone())
    }

    /// Begins a session and returns its cookie's value.
    pub async fn begin(&self, begun: Begun, random: &dyn Random) -> Result<Secret, Refused> {
        self.read_all().await?;
        let mut bytes = [0; 32];
        random.fill(&mut bytes).map_err(|error| Refused::new(Refusal::Unavailable, &error.to_string()))?;
        let cookie = URL_SAFE_NO_PAD.encode(bytes);
        let key = key(&cookie);
        let session = Session { seen: begun.began, written: Some(begun.began), begun };
        self.write(&key, &session).await?;
        let gone = {
            let mut known = self.lock();
            let is_own = |other: &Session| other.begun.account == session.begun.account;
            let crowded = known.values().filter(|other| is_own(other)).count() >= EACH;
            let candidates = known.iter().filter(|(_, other)| !crowded || is_own(other));
            let oldest = candidates.min_by_key(|(_, other)| other.seen).map(|(key, _)| key.clone());
            let gone = oldest.filter(|_| crowded || known.len() >= MOST);
            if let Some(gone) = &gone {
                known.remove(gone);
            }
            known.insert(key, session);
            gone
        };
        if let Some(gone) = gone {
            self.store.remove(&record(&gone)).await?;
        }
        Ok(Secret::new(cookie))
    }

    /// Tells the store that a session goes on. One that ended meanwhile is not to be there at the next start.
    async fn go_on(&self, key: &str, session: &Session) -> Result<(), StoreError> {
        self.write(key, session).await?;
        if !self.lock().contains_key(key) {
            self.store.remove(&record(key)).await?;
        }
        Ok(())
    }

    /// Ends all sessions but those that count, for good; tells how many those were.
    pub async fn keep(&self, counts: impl Fn(&Begun) -> bool) -> Result<usize, StoreError> {
        self.read_all().await?;
        let gone: Vec<_> = {
            let mut known = self.lock();
            known.extract_if(|_, session| !counts(&session.begun)).map(|(key, _)| key).collect()
        };
        for key in &gone {
            self.store.remove(&record(key)).await?;
        }
        Ok(gone.len())
    }

    /// Ends a session.
    pub async fn end(&self, cookie: &str) -> Result<(), StoreError> {
        self.read_all().await?;
        let key = key(cookie);
        self.store.remove(&record(&key)).await?;
        self.lock().remove(&key);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_all(&self) -> Result<(), StoreError> {
        let read = async || {
            for key in self.store.keys(COLLECTION).await? {
                let Some((bytes, _)) = self.store.get(&key).await? else { continue };
                // One of another version is as good as none.
                if let Ok(session) = serde_json::from_slice::<Session>(&bytes) {
                    self.lock().insert(key.key.to_string(), session);
                }
            }
            Ok(())
        };
        self.read.get_or_try_init(read).await.copied()
    }

    async fn write(&self, key: &str, session: &Session) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(session).unwrap_or_default();
        self.store.put(&record(key), Bytes::from(bytes), None).await.map(drop)
    }
}

fn record(key: &str) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(key) }
}

/// What a cookie's value is kept as.
pub(super) fn key(cookie: &str) -> String {
    super::hex(digest(&SHA256, cookie.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, ManualClock};
    use crate::base::random::SeededRandom;
    use crate::store::embedded;

    #[tokio::test]
    async fn whoever_signs_in_again_and_again_ends_sessions_of_their_own_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)));
        let store = embedded::open(&embedded::Options::new(directory.path(), Arc::clone(&clock))).expect("a store");
        let (sessions, random, times) = (Sessions::new(store), SeededRandom::new(1), gateway::Session::default());
        let begin = async |account: &str, at: u64| {
            let begun =
                Begun { account: account.to_owned(), proof: "p".to_owned(), began: Timestamp::from_seconds(at) };
            sessions.begin(begun, &random).await.expect("a session")
        };
        let ada = begin("ada", 1_000).await;
        let mut vic = Vec::new();
        for at in 0..=EACH as u64 {
            vic.push(begin("vic", 1_001 + at).await);
        }
        let is_known = async |cookie: &Secret| {
            let found = sessions.find(cookie.expose(), times, Timestamp::from_seconds(1_100)).await;
            found.expect("the store works").is_some()
        };
        assert!(is_known(&ada).await && !is_known(&vic[0]).await && is_known(&vic[1]).await);
    }

    #[tokio::test]
    async fn what_ended_is_in_the_store_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)));
        let store = embedded::open(&embedded::Options::new(directory.path(), Arc::clone(&clock))).expect("a store");
        let (random, times, now) = (SeededRandom::new(1), gateway::Session::default(), Timestamp::from_seconds(1_100));
        let sessions = Sessions::new(Arc::clone(&store) as Arc<dyn Store>);
        let mut cookies = Vec::new();
        for account in ["ada", "vic"] {
            let (account, began) = (account.to_owned(), Timestamp::from_seconds(1_000));
            let wanted = Begun { account, proof: "p".to_owned(), began };
            cookies.push(sessions.begin(wanted, &random).await.expect("a session"));
        }
        let known = async |sessions: &Sessions| {
            let mut known = Vec::new();
            for cookie in &cookies {
                known.push(sessions.find(cookie.expose(), times, now).await.expect("the store works").is_some());
            }
            known
        };
        // Those that the store has are read by whoever ends them, too.
        let next = Sessions::new(Arc::clone(&store) as Arc<dyn Store>);
        assert_eq!(next.keep(|session| session.account == "ada").await.expect("the store works"), 1);
        assert_eq!(known(&next).await, [true, false]);
        assert_eq!(known(&Sessions::new(store)).await, [true, false]);
    }
}
