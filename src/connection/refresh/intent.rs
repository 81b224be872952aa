//! Who renews the tokens of a connection, as a record that all who share the store see.
//!
//! The record is a lease and a journal in one: it is durable before the token call is made, and says who makes
//! it, until when nobody else may, and how the last one ended. Its fence grows with each lease. It is
//! replaced only in the version that was read, so that of two who want it one gets it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::connection::health::Key;
use crate::store::{Records, StoreError};

/// The collection of intents.
pub const COLLECTION: &str = "refreshes";
/// How long a lease lasts. Longer than a token call and its writes may take.
pub const LEASE: Duration = Duration::from_mins(1);

/// What the record says. It has no secret in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Intent {
    /// Grows with each lease.
    pub fence: u64,
    /// The process that has the lease, or had it.
    pub holder: String,
    /// Which token is renewed.
    pub token: String,
    /// When the lease was taken.
    pub since: Timestamp,
    /// When it runs out.
    pub until: Timestamp,
    /// Whether the call may be under way: its end is not known.
    pub open: bool,
    /// How many calls in a row have failed.
    pub failures: u32,
    /// No call is made before this, because the last one failed.
    pub next_try: Option<Timestamp>,
    /// Whether the service has refused for good.
    pub refused: bool,
}

/// A lease that was taken.
#[derive(Debug)]
pub struct Lease {
    /// What the record says.
    pub intent: Intent,
    version: u64,
}

/// What became of the wish for a lease.
#[derive(Debug)]
pub enum Taken {
    /// It was given.
    Lease(Box<Lease>),
    /// Someone else has it.
    Held,
    /// The last call failed, and it is too early for another.
    TooEarly(Intent),
}

/// Takes and gives back leases in the name of one process.
pub struct Leases {
    records: Arc<dyn Records>,
    /// This process.
    holder: String,
    /// Leases of others that were taken before this are of processes that have ended; `None` where others
    /// may be alive.
    alone_since: Option<Timestamp>,
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leases").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Leases {
    /// Leases for a process of this name, which nobody else has or had.
    pub fn new(records: Arc<dyn Records>, holder: String, alone_since: Option<Timestamp>) -> Self {
        Self { records, holder, alone_since }
    }

    /// What the record says, and its version.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read(&self, key: &Key) -> Result<(Intent, u64), StoreError> {
        let Some((bytes, version)) = self.records.get(&key.record(COLLECTION)).await? else {
            return Ok((Intent::default(), 0));
        };
        // What cannot be read is from another version: it is overwritten rather than obeyed for ever.
        Ok((serde_json::from_slice(&bytes).unwrap_or_default(), version))
    }

    /// Takes the lease of a connection for the renewal of a token; durable when this returns. `insist` is
    /// for a person who asks: earlier failures do not matter then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn take(&self, key: &Key, token: &str, now: Timestamp, insist: Insist) -> Result<Taken, StoreError> {
        let (before, version) = self.read(key).await?;
        if before.open && before.until > now && !self.is_ended(&before) {
            return Ok(Taken::Held);
        }
        let early = before.refused || before.next_try.is_some_and(|next| next > now);
        // A call whose end nobody knows is made again whatever was before it.
        if early && !before.open && insist == Insist::No {
            return Ok(Taken::TooEarly(before));
        }
        let intent = Intent {
            fence: before.fence + 1,
            holder: self.holder.clone(),
            token: token.to_owned(),
            since: now,
            until: now.after(LEASE),
            open: true,
            ..before
        };
        match self.write(key, &intent, version).await {
            Ok(version) => Ok(Taken::Lease(Box::new(Lease { intent, version }))),
            Err(StoreError::Conflict(_)) => Ok(Taken::Held),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease is of this process, whose single flight then has ended, or of one that is gone.
    fn is_ended(&self, intent: &Intent) -> bool {
        intent.holder == self.holder || self.alone_since.is_some_and(|since| intent.since < since)
    }

    /// Gives a lease back with what came of it. A lease that ran out and was taken by another is not
    /// touched.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn close(&self, key: &Key, lease: Lease, end: impl FnOnce(&mut Intent)) -> Result<(), StoreError> {
        let Lease { mut intent, version } = lease;
        intent.open = false;
        end(&mut intent);
        match self.write(key, &intent, version).await {
            Ok(_) | Err(StoreError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins anew: the connection has other tokens. Whoever has the lease loses it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reset(records: &dyn Records, key: &Key) -> Result<(), StoreError> {
        let record = key.record(COLLECTION);
        while let Some((bytes, version)) = records.get(&record).await? {
            let before: Intent = serde_json::from_slice(&bytes).unwrap_or_default();
            if before == (Intent { fence: before.fence, ..Intent::default() }) {
                return Ok(());
            }
            let intent = Intent { fence: before.fence + 1, ..Intent::default() };
            match records.put(&record, encoded(&intent)?, Some(version)).await {
                Err(StoreError::Conflict(_)) => {}
                other => return other.map(drop),
            }
        }
        Ok(())
    }

    /// Connections whose last call has no known end.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open(&self) -> Result<Vec<(Key, Intent)>, StoreError> {
        let mut open = Vec::new();
        for record in self.records.keys(COLLECTION).await? {
            let Some((integration, id)) = record.key.split_once('/') else { continue };
            let key = Key::new(integration, id);
            let (intent, _) = self.read(&key).await?;
            if intent.open {
                open.push((key, intent));
            }
        }
        Ok(open)
    }

    async fn write(&self, key: &Key, intent: &Intent, version: u64) -> Result<u64, StoreError> {
        self.records.put(&key.record(COLLECTION), encoded(intent)?, Some(version)).await
    }
}

/// Whether earlier failures hold a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insist {
    /// They do.
    No,
    /// They do not: a person asks.
    Yes,
}

fn encoded(intent: &Intent) -> Result<Bytes, StoreError> {
    let bytes = serde_json::to_vec(intent).map_err(|error| StoreError::Read(Arc::from(error.to_string())))?;
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::super::memory::Memory;
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn lease(taken: Taken) -> Lease {
        match taken {
            Taken::Lease(lease) => *lease,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn of_two_who_want_a_lease_one_gets_it_and_the_fence_grows() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let leases = |name: &str| Leases::new(memory.clone(), name.to_owned(), None);
        let (one, two) = (leases("one"), leases("two"));
        let first = lease(one.take(&key, "default", at(0), Insist::No).await.expect("taken"));
        assert!(matches!(two.take(&key, "default", at(59), Insist::Yes).await, Ok(Taken::Held)));
        let second = lease(two.take(&key, "default", at(60), Insist::No).await.expect("the first ran out"));
        assert_eq!((first.intent.fence, second.intent.fence), (1, 2));
        one.close(&key, first, |intent| intent.refused = true).await.expect("it is no longer its own");
        assert!(!two.read(&key).await.expect("read").0.refused, "who lost the lease writes nothing");
        two.close(&key, second, |intent| intent.next_try = Some(at(99))).await.expect("closed");
        assert!(matches!(one.take(&key, "default", at(98), Insist::No).await, Ok(Taken::TooEarly(_))));
        assert_eq!(lease(one.take(&key, "default", at(98), Insist::Yes).await.expect("taken")).intent.fence, 3);
    }

    #[tokio::test]
    async fn a_lease_of_a_process_that_has_ended_is_not_waited_for() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let before = Leases::new(memory.clone(), "before".to_owned(), Some(at(0)));
        let lost = lease(before.take(&key, "default", at(5), Insist::No).await.expect("taken"));
        let after = Leases::new(memory.clone(), "after".to_owned(), Some(at(6)));
        assert_eq!(after.open().await.expect("read").len(), 1);
        assert_eq!(lease(after.take(&key, "default", at(6), Insist::No).await.expect("taken")).intent.fence, 2);
        Leases::reset(&*memory, &key).await.expect("reset");
        drop(lost);
        assert_eq!(after.read(&key).await.expect("read").0, Intent { fence: 3, ..Intent::default() });
    }
}
