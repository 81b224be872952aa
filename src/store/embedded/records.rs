//! Records: small named values. All keys are in memory with the place of their value; values are read
//! from the journal. Versions grow by one with each write.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::Embedded;
use super::lock::Lock;
use crate::store::journal::segment::{self, payload};
use crate::store::journal::{Appended, Counts, Durability, Journal, JournalOptions, Pointer};
use crate::store::model::RecordKey;
use crate::store::{Records as RecordsTrait, StoreError};

/// The most bytes of a record.
pub const MAX_RECORD: usize = 256 << 10;
/// The most bytes of a collection's name, and of a key's.
const MAX_NAME: usize = 256;

/// An entry of the records journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Write {
    pub(super) key: RecordKey,
    version: u64,
    /// `None` when the record was removed.
    pub(super) value: Option<Vec<u8>>,
}

impl Write {
    /// An entry that changes nothing.
    pub(super) fn nothing() -> Self {
        let key = RecordKey { collection: Arc::from(""), key: Arc::from("") };
        Self { key, version: 0, value: None }
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    pointer: Pointer,
    version: u64,
}

/// The records journal and its keys.
#[derive(Debug)]
pub struct Records {
    journal: Journal<(RecordKey, u64, bool)>,
    places: Arc<RwLock<BTreeMap<RecordKey, Place>>>,
    /// Held while a record is compared and written.
    writing: Mutex<()>,
    options: JournalOptions,
}

impl Records {
    /// Opens the records journal.
    pub fn open(options: JournalOptions, lock: Arc<Lock>) -> Result<Self, StoreError> {
        let mut found = BTreeMap::new();
        let end = segment::walk(&*options.disk, &options.directory, 1, &mut |_, pointer, payload| {
            let write: Write = postcard::from_bytes(payload)
                .map_err(|_| segment::damaged("a record does not decode", &options.directory, pointer.offset))?;
            match write.value {
                Some(_) => drop(found.insert(write.key, Place { pointer, version: write.version })),
                None => drop(found.remove(&write.key)),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let places = Arc::new(RwLock::new(found));
        let told = Arc::clone(&places);
        let sink = Box::new(move |written: Vec<(Appended, (RecordKey, u64, bool))>| {
            let mut places = told.write().unwrap_or_else(PoisonError::into_inner);
            for (appended, (key, version, present)) in written {
                if present {
                    places.insert(key, Place { pointer: appended.pointer, version });
                } else {
                    places.remove(&key);
                }
            }
        });
        let journal = Journal::open(options.clone(), end, sink, lock)?;
        Ok(Self { journal, places, writing: Mutex::new(()), options })
    }

    fn place(&self, key: &RecordKey) -> Option<Place> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    async fn write(&self, write: Write) -> Result<(), StoreError> {
        let entry = (write.key.clone(), write.version, write.value.is_some());
        let payload = postcard::to_allocvec(&write)
            .map_err(|error| StoreError::Read(Arc::from(format!("a record does not encode: {error}"))))?;
        self.journal.append(payload, entry, Durability::Synced).await.map(drop)
    }

    async fn put(&self, key: &RecordKey, value: &[u8], expected: Option<u64>) -> Result<u64, StoreError> {
        let name = key.collection.len().max(key.key.len());
        if name > MAX_NAME {
            return Err(StoreError::TooLarge { what: "the record's key", size: name, limit: MAX_NAME });
        }
        if value.len() > MAX_RECORD {
            return Err(StoreError::TooLarge { what: "the record", size: value.len(), limit: MAX_RECORD });
        }
        let _writing = self.writing.lock().await;
        let current = self.place(key).map_or(0, |place| place.version);
        if expected.is_some_and(|expected| expected != current) {
            let what = format!("{}/{} has version {current}", key.collection, key.key);
            return Err(StoreError::Conflict(what));
        }
        let version = current + 1;
        self.write(Write { key: key.clone(), version, value: Some(value.to_vec()) }).await?;
        Ok(version)
    }

    fn get(&self, key: &RecordKey) -> Result<Option<(Bytes, u64)>, StoreError> {
        let Some(place) = self.place(key) else { return Ok(None) };
        let path = segment::path(&self.options.directory, place.pointer.segment);
        let file = self
            .options
            .disk
            .read(&path)
            .map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", path.display()))))?;
        let payload = payload(&file, &self.options.directory, place.pointer)?;
        let write: Write = postcard::from_bytes(&payload)
            .map_err(|_| segment::damaged("a record does not decode", &path, place.pointer.offset))?;
        Ok(write.value.map(|value| (Bytes::from(value), place.version)))
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        match self.place(key) {
            Some(place) => self.write(Write { key: key.clone(), version: place.version + 1, value: None }).await,
            None => Ok(()),
        }
    }

    /// Reads and removes with nobody between.
    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        let _writing = self.writing.lock().await;
        let Some((value, version)) = self.get(key)? else { return Ok(None) };
        self.write(Write { key: key.clone(), version: version + 1, value: None }).await?;
        Ok(Some(value))
    }

    /// Writes what is live in the oldest segments again and removes them, as long as that frees at least
    /// half of them. Returns how many were removed.
    pub async fn compact(&self) -> Result<usize, StoreError> {
        let (disk, directory) = (&self.options.disk, &self.options.directory);
        let failed = |error: std::io::Error| super::open::unavailable(directory, &error);
        let segments = segment::list(&**disk, directory).map_err(failed)?;
        let mut removed = 0;
        for pair in segments.windows(2) {
            let &[oldest, next] = pair else { continue };
            let bytes =
                disk.read(&segment::path(directory, oldest)).and_then(|file| file.metadata()).map_err(failed)?.len();
            let _writing = self.writing.lock().await;
            let live: Vec<(RecordKey, Place)> = {
                let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
                let live = places.iter().filter(|(_, place)| place.pointer.segment == oldest);
                live.map(|(key, place)| (key.clone(), *place)).collect()
            };
            let live_bytes: u64 = live.iter().map(|(_, place)| u64::from(place.pointer.length)).sum();
            if live_bytes * 2 > bytes {
                break;
            }
            for (key, place) in live {
                let value = self.get(&key)?.map(|(value, _)| value.to_vec());
                self.write(Write { key, version: place.version, value }).await?;
            }
            self.journal.retire(next).await?;
            removed += 1;
        }
        Ok(removed)
    }

    /// What was written since the opening.
    pub fn counts(&self) -> &Counts {
        self.journal.counts()
    }

    /// Whether records can be written.
    pub fn state(&self) -> Result<(), StoreError> {
        self.journal.state()
    }

    /// Ends the journal's thread.
    pub async fn close(&self) {
        self.journal.close().await;
    }
}

/// The error of a task that did not come to its end: the runtime is shutting down, or it panicked.
pub(super) fn ended(_: tokio::task::JoinError) -> StoreError {
    StoreError::Unavailable(Arc::from("the process is ending"))
}

#[async_trait]
impl RecordsTrait for Embedded {
    async fn put(&self, key: &RecordKey, value: Bytes, expected: Option<u64>) -> Result<u64, StoreError> {
        // In a task of its own: a caller that goes away must not let the next one compare with a version
        // that is being replaced.
        let (records, key) = (Arc::clone(&self.records), key.clone());
        tokio::spawn(async move { records.put(&key, &value, expected).await }).await.map_err(ended)?
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<(Bytes, u64)>, StoreError> {
        self.records.get(key)
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), StoreError> {
        let (records, key) = (Arc::clone(&self.records), key.clone());
        tokio::spawn(async move { records.remove(&key).await }).await.map_err(ended)?
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        let (records, key) = (Arc::clone(&self.records), key.clone());
        tokio::spawn(async move { records.take(&key).await }).await.map_err(ended)?
    }

    async fn keys(&self, collection: &str) -> Result<Vec<RecordKey>, StoreError> {
        let places = self.records.places.read().unwrap_or_else(PoisonError::into_inner);
        let first = RecordKey { collection: Arc::from(collection), key: Arc::from("") };
        Ok(places
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| *key.collection == *collection)
            .cloned()
            .collect())
    }
}
