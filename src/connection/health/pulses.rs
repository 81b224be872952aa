//! The health of every connection: in memory where it was looked at, and on disk.
//!
//! What must outlive the process is a record without secrets beside the connection: written when the status
//! changes and after each refresh and test, and for the time of the last success now and then.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::pulse::needs_reconnect;
use super::{Health, Key, Pulse, Status};
use crate::base::clock::Timestamp;
use crate::store::{Records, StoreError};
use crate::telemetry::notice::Notices;

/// The collection of what is remembered of connections' health.
pub const COLLECTION: &str = "health";

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
    pub(in crate::connection) fn tell(&mut self, notices: &Arc<Notices>) {
        self.notices = Arc::clone(notices);
    }

    /// Tells of connections that need a person and did so before this process began.
    pub(in crate::connection) async fn tell_broken(&self, is_loaded: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let Some(records) = &self.records else { return Ok(()) };
        for record in records.keys(COLLECTION).await? {
            let Some((integration, id)) = record.key.split_once('/') else { continue };
            if is_loaded(integration) {
                let key = Key::new(integration, id);
                let health = self.read(&key).await?;
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

    /// The pulse of a connection that exists; while the store cannot be read, one that says so
    /// ([`Pulse::fault`]) and is not kept.
    pub async fn of(&self, key: &Key) -> Arc<Pulse> {
        if let Some(pulse) = self.known().get(key) {
            return Arc::clone(pulse);
        }
        let health = match self.read(key).await {
            Ok(health) => health,
            Err(error) => {
                tracing::warn!(connection = %key, "the health of a connection could not be read: {error}");
                return Arc::new(Pulse::unread(error));
            }
        };
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
    pub(in crate::connection) fn begin_era(&self, key: &Key) {
        if let Some(pulse) = self.known_one(key) {
            pulse.era.store(self.next_era(), Ordering::Release);
        }
    }

    pub(in crate::connection) fn known_one(&self, key: &Key) -> Option<Arc<Pulse>> {
        self.known().get(key).map(Arc::clone)
    }

    async fn read(&self, key: &Key) -> Result<Health, StoreError> {
        let Some(records) = &self.records else { return Ok(Health::default()) };
        let found = records.get(&key.record(COLLECTION)).await?;
        Ok(found.map_or_else(Health::default, |(bytes, _)| decoded(key, &bytes)))
    }

    /// Writes what is known of a connection; durable when this returns.
    ///
    /// # Errors
    /// When the store fails; it is written again at the next [`Self::flush`].
    pub async fn save(&self, key: &Key, pulse: &Pulse) -> Result<(), StoreError> {
        let Some(records) = self.records.as_ref().filter(|_| pulse.fault().is_none()) else { return Ok(()) };
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

    /// At most this many connections of which a token has ended since renewing it failed.
    pub fn outlived(&self, now: Timestamp, most: usize) -> Vec<Key> {
        let known = self.known();
        let outlived = known.iter().filter(|(_, pulse)| pulse.lock().is_outlived(now));
        outlived.take(most).map(|(key, _)| key.clone()).collect()
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

/// What a record says. Of one that is in no form of ours only that the connection is paused is believed: a record
/// that is damaged must not keep a working connection from being used, nor put one into use that people took out.
fn decoded(key: &Key, bytes: &[u8]) -> Health {
    serde_json::from_slice(bytes).unwrap_or_else(|error| {
        tracing::error!(connection = %key, "what was remembered of a connection's health is lost: {error}");
        let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        Health { paused: json["paused"] == true, ..Health::default() }
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::memory::Memory;
    use super::super::{Renewal, Trouble};
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
            let trouble = Trouble::new(at(9), "invalid_grant", "connect again");
            let renewal = Renewal::new(Status::NeedsReconnect, trouble);
            health.hold_against("default", renewal);
        });
        assert_eq!(changed, (Status::Active, Status::NeedsReconnect));
        pulses.flush(10).await;
        let again = Pulses::new(memory).of(&key).await;
        assert!(again.is_blocked());
        assert_eq!(again.health(), pulse.health());
        assert_eq!(again.health().since, Some(at(9)));
    }

    #[tokio::test]
    async fn what_cannot_be_read_puts_no_paused_connection_into_use() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let record = key.record(COLLECTION);
        memory.put(&record, Bytes::from_static(b"{\"paused\":true,\"condition\":\"odd\"}"), None).await.expect("put");
        assert!(Pulses::new(memory.clone()).of(&key).await.health().paused, "a form of another version");
        let pulses = Pulses::new(memory.clone());
        memory.fail_reads(true);
        let unread = pulses.of(&key).await;
        assert!(unread.fault().is_some());
        unread.change(at(1), |health| health.last_refresh = Some(at(1)));
        pulses.save(&key, &unread).await.expect("nothing is written");
        memory.fail_reads(false);
        assert_eq!(pulses.of(&key).await.health().status(), Status::Paused);
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
}
