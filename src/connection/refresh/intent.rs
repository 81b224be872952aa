//! Who renews the tokens of a connection, as a record that all who share the store see.
//!
//! The record is a lease and a journal in one: it is durable before the token call is made, and says who makes
//! it, until when nobody else may, and how the last one for each token ended. Its fence grows with each lease. It
//! is replaced only in the version that was read, so that of two who want it one gets it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::schedule;
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
    /// Grows each time that the connection is connected anew or removed.
    pub era: u64,
    /// Grows each time that it is removed.
    pub removals: u64,
    /// The process that has the lease, or had it.
    pub holder: String,
    /// Which token is renewed.
    pub token: String,
    /// When the lease was taken.
    pub since: Timestamp,
    /// When it runs out.
    pub until: Timestamp,
    /// Whether the lease was not given back.
    pub open: bool,
    /// How renewing each token goes; none of those whose last call brought one.
    pub courses: BTreeMap<String, Course>,
}

/// How renewing one token goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Course {
    /// Whether a call may be under way: its end is not known.
    pub open: bool,
    /// How many calls in a row have failed.
    pub failures: u32,
    /// No call is made before this, because the last one failed.
    pub next_try: Option<Timestamp>,
    /// Whether the service has refused for good.
    pub refused: bool,
    /// The definition that the last call failed for, by its fingerprint, where the operator has to correct it.
    pub definition: Option<String>,
}

impl Course {
    /// Whether the last call failed for the definition, and this is another one: the pause after it is over.
    pub fn is_corrected(&self, definition: &str) -> bool {
        !self.refused && self.definition.as_deref().is_some_and(|faulty| faulty != definition)
    }
}

impl Intent {
    fn decoded(bytes: &[u8]) -> Self {
        // What cannot be read is from another version: it is overwritten rather than obeyed for ever.
        let mut intent: Self = serde_json::from_slice(bytes).unwrap_or_default();
        // Versions before this one kept one course for each connection: that of the token named last.
        let course: Course = serde_json::from_slice(bytes).unwrap_or_default();
        if intent.courses.is_empty() && course != Course::default() {
            intent.courses.insert(intent.token.clone(), course);
        }
        intent
    }

    fn course(&self, token: &str) -> Course {
        self.courses.get(token).cloned().unwrap_or_default()
    }
}

/// A lease that was taken.
#[derive(Debug)]
pub struct Lease {
    /// What the record says.
    pub intent: Intent,
    version: u64,
}

impl Lease {
    /// How many calls in a row have failed before this one.
    pub fn failures(&self) -> u32 {
        self.intent.courses.get(&self.intent.token).map_or(0, |course| course.failures)
    }
}

/// Whose a lease was when it was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Its own: the record says how it ended.
    InTime,
    /// Another's, or nobody's because the connection has other tokens or is gone: the record was not touched.
    Lost,
}

/// What became of the wish for a lease.
#[derive(Debug)]
pub enum Taken {
    /// It was given.
    Lease(Box<Lease>),
    /// Someone else has it.
    Held,
    /// The last call failed, and it is too early for another.
    TooEarly(Course),
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
        read(&*self.records, key).await
    }

    /// Takes the lease of a connection for the renewal of a token; durable when this returns. `insist` is
    /// for a person who asks: earlier failures do not matter then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn take(&self, key: &Key, token: &str, now: Timestamp, insist: Insist) -> Result<Taken, StoreError> {
        let (before, version) = self.read(key).await?;
        // A clock that was set back makes no lease last longer than one may, and no pause.
        let holds = before.until > now && before.until <= now.after(LEASE);
        if before.open && holds && !self.is_ended(&before) {
            return Ok(Taken::Held);
        }
        let mut course = before.course(token);
        let waits = |next: Timestamp| next > now && next <= now.after(schedule::LONGEST_PAUSE);
        let early = course.refused || course.next_try.is_some_and(waits);
        // A call whose end nobody knows is made again whatever was before it.
        if early && !course.open && insist == Insist::No {
            return Ok(Taken::TooEarly(course));
        }
        course.open = true;
        let mut intent = Intent {
            fence: before.fence + 1,
            holder: self.holder.clone(),
            token: token.to_owned(),
            since: now,
            until: now.after(LEASE),
            open: true,
            ..before
        };
        intent.courses.insert(token.to_owned(), course);
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

    /// Gives a lease back with what came of it, as `end` says by the names of tokens. A lease that ran out and was
    /// taken by another is not touched.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn close(
        &self,
        key: &Key,
        lease: Lease,
        end: impl FnOnce(&mut BTreeMap<String, Course>),
    ) -> Result<Closed, StoreError> {
        let Lease { mut intent, version } = lease;
        intent.open = false;
        if let Some(course) = intent.courses.get_mut(&intent.token) {
            course.open = false;
        }
        end(&mut intent.courses);
        intent.courses.retain(|_, course| *course != Course::default());
        match self.write(key, &intent, version).await {
            Ok(_) => Ok(Closed::InTime),
            Err(StoreError::Conflict(_)) => Ok(Closed::Lost),
            Err(error) => Err(error),
        }
    }

    /// Begins anew: the connection has other tokens, or is gone. Whoever has the lease loses it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn begin_anew(records: &dyn Records, key: &Key, why: Anew) -> Result<(), StoreError> {
        loop {
            let (before, version) = read(records, key).await?;
            let Intent { fence, era, removals, .. } = before;
            if why == Anew::Confirmed && before == (Intent { fence, era, removals, ..Intent::default() }) {
                return Ok(());
            }
            let removals = removals + u64::from(why == Anew::Removed);
            let intent = Intent { fence: fence + 1, era: era + 1, removals, ..Intent::default() };
            match records.put(&key.record(COLLECTION), encoded(&intent)?, Some(version)).await {
                Err(StoreError::Conflict(_)) => {}
                other => return other.map(drop),
            }
        }
    }

    /// Connections with tokens whose last call has no known end, and those tokens.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open(&self) -> Result<Vec<(Key, Vec<String>)>, StoreError> {
        let mut open = Vec::new();
        for record in self.records.keys(COLLECTION).await? {
            let Some((integration, id)) = record.key.split_once('/') else { continue };
            let key = Key::new(integration, id);
            let (intent, _) = self.read(&key).await?;
            let tokens = intent.courses.into_iter().filter(|(_, course)| course.open);
            let tokens: Vec<_> = tokens.map(|(token, _)| token).collect();
            if !tokens.is_empty() {
                open.push((key, tokens));
            }
        }
        Ok(open)
    }

    async fn write(&self, key: &Key, intent: &Intent, version: u64) -> Result<u64, StoreError> {
        self.records.put(&key.record(COLLECTION), encoded(intent)?, Some(version)).await
    }
}

/// Why a connection begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// It is about to have other tokens.
    Connected,
    /// It has them: what others did in between counts no more.
    Confirmed,
    /// It is gone.
    Removed,
}

/// What the record says, and its version.
///
/// # Errors
/// When the store fails.
pub async fn read(records: &dyn Records, key: &Key) -> Result<(Intent, u64), StoreError> {
    let found = records.get(&key.record(COLLECTION)).await?;
    Ok(found.map_or_else(|| (Intent::default(), 0), |(bytes, version)| (Intent::decoded(&bytes), version)))
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

    /// The default token's renewal ends so.
    fn ends(course: Course) -> impl FnOnce(&mut BTreeMap<String, Course>) {
        move |all| _ = all.insert("default".to_owned(), course)
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
        let refused = Course { refused: true, ..Course::default() };
        assert_eq!(one.close(&key, first, ends(refused)).await.expect("it is no longer its own"), Closed::Lost);
        assert!(!two.read(&key).await.expect("read").0.course("default").refused, "who lost the lease writes nothing");
        let later = Course { next_try: Some(at(99)), ..Course::default() };
        assert_eq!(two.close(&key, second, ends(later)).await.expect("closed"), Closed::InTime);
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
        Leases::begin_anew(&*memory, &key, Anew::Connected).await.expect("begun");
        Leases::begin_anew(&*memory, &key, Anew::Confirmed).await.expect("nothing to do");
        drop(lost);
        assert_eq!(after.read(&key).await.expect("read").0, Intent { fence: 3, era: 1, ..Intent::default() });
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_holds_nothing_up_for_longer_than_it_may() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let (one, two) =
            (Leases::new(memory.clone(), "one".to_owned(), None), Leases::new(memory, "two".to_owned(), None));
        drop(lease(one.take(&key, "default", at(900_000), Insist::No).await.expect("taken")));
        let second = lease(two.take(&key, "default", at(9), Insist::No).await.expect("no lease lasts for days"));
        let later = Course { next_try: Some(at(900_000)), ..Course::default() };
        two.close(&key, second, ends(later)).await.expect("closed");
        let third = one.take(&key, "default", at(10), Insist::No).await.expect("read");
        assert!(matches!(third, Taken::Lease(_)), "no pause lasts for days: {third:?}");
    }

    #[tokio::test]
    async fn what_stands_against_one_token_stands_against_no_other() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let leases = Leases::new(memory, "one".to_owned(), None);
        let user = lease(leases.take(&key, "user", at(0), Insist::No).await.expect("taken"));
        let refused = Course { refused: true, ..Course::default() };
        leases.close(&key, user, |all| _ = all.insert("user".to_owned(), refused.clone())).await.expect("closed");
        let bot = lease(leases.take(&key, "bot", at(1), Insist::No).await.expect("taken"));
        let later = Course { failures: 1, next_try: Some(at(9)), ..Course::default() };
        leases.close(&key, bot, |all| _ = all.insert("bot".to_owned(), later.clone())).await.expect("closed");
        for (token, expected) in [("user", refused), ("bot", later)] {
            let taken = leases.take(&key, token, at(2), Insist::No).await.expect("read");
            assert!(matches!(&taken, Taken::TooEarly(course) if *course == expected), "{token}: {taken:?}");
        }
    }

    #[tokio::test]
    async fn a_call_that_a_crash_interrupted_stays_known_while_another_token_is_renewed() {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("a", "x"));
        let before = Leases::new(memory.clone(), "before".to_owned(), None);
        drop(lease(before.take(&key, "user", at(0), Insist::No).await.expect("taken")));
        let after = Leases::new(memory, "after".to_owned(), Some(at(1)));
        let bot = lease(after.take(&key, "bot", at(1), Insist::No).await.expect("taken"));
        after.close(&key, bot, |_| ()).await.expect("closed");
        assert_eq!(after.open().await.expect("read"), [(key, vec!["user".to_owned()])]);
    }

    #[test]
    fn the_record_of_a_version_that_kept_one_course_is_read() {
        let written = br#"{"fence":7,"holder":"h","token":"user","since":1,"until":61,"open":false,"failures":2,
            "next_try":99000,"refused":true}"#;
        let intent = Intent::decoded(written);
        let next_try = serde_json::from_str("99000").expect("a time");
        assert_eq!(intent.course("user"), Course { failures: 2, next_try, refused: true, ..Course::default() });
        assert_eq!((intent.fence, intent.course("default")), (7, Course::default()));
    }
}
