//! The index: what lists and lookups need, in one sled tree, so that a batch is one atomic step.
//!
//! | key | value |
//! |---|---|
//! | `m` | meta: the journal sequence applied, format |
//! | `e` event | [`EventRow`] |
//! | `d` event ordinal | [`DeliveryRow`] |
//! | `a` event ordinal | nothing: the item is unfinished |
//! | `x` event ordinal | nothing: the delivery is dead |
//! | `k` hash of integration, endpoint and delivery id | event id |
//!
//! Numbers in keys are big-endian. A value is a version byte, postcard, and a CRC32C of both; one that
//! does not match is damage, and the index is rebuilt from the journal. Values stay below 6 KiB.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::op::{Head, ItemKey, Outcome};
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::store::StoreError;
use crate::store::journal::Pointer;
use crate::store::model::{Attempt, DeliveryState, EventHead, EventState, Lane};

const VERSION: u8 = 1;
/// Attempts that are kept of a delivery.
const ATTEMPTS: usize = 20;
/// Bytes of an attempt's error that are kept.
const ERROR_BYTES: usize = 200;

/// What is known of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRow {
    /// What it said when it came.
    pub head: Head,
    /// Where its content stands.
    pub pointer: Pointer,
    /// Where it stands.
    pub state: EventState,
    /// How many deliveries it has.
    pub deliveries: u16,
    /// How often its match item was claimed without a result.
    pub strikes: u8,
}

/// What is known of a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// The rule that asked for it.
    pub rule: String,
    /// The action's position in the rule.
    pub action: u16,
    /// The action in words.
    pub summary: String,
    /// Its lane.
    pub lane: Lane,
    /// Where it stands.
    pub stand: Stand,
    /// The newest attempts.
    pub attempts: Vec<Attempt>,
    /// Attempts since the last replay, counting those under way.
    pub tried: u32,
    /// How often it was claimed without a result.
    pub strikes: u8,
}

/// Where a delivery stands, as far as the index knows: a lease is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// It is tried at this moment.
    Ready(Timestamp),
    /// It succeeded.
    Done,
    /// It was given up.
    Dead,
}

impl From<Outcome> for Stand {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Retry(due) => Self::Ready(due),
            Outcome::Done => Self::Done,
            Outcome::Dead => Self::Dead,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Meta {
    applied: u64,
}

/// The open index.
#[derive(Debug)]
pub struct Index {
    db: sled::Db,
    file: File,
    directory: PathBuf,
}

impl Index {
    /// Opens or makes the index. sled's own leftovers of a crash that keep it from opening are removed
    /// first.
    ///
    /// # Errors
    /// When it cannot be opened; the caller may rebuild it from the journal.
    pub fn open(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(directory);
        let opened = std::panic::catch_unwind(|| {
            sled::Config::new()
                .path(directory)
                .cache_capacity(cache_bytes)
                .use_compression(false)
                .flush_every_ms(Some(200))
                .mode(sled::Mode::LowSpace)
                .open()
        });
        // sled panics on some kinds of damage instead of answering.
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => return Err(damaged(directory, "sled cannot open it")),
        };
        let file = File::options()
            .write(true)
            .open(directory.join("db"))
            .map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", directory.display()))))?;
        Ok(Self { db, file, directory: directory.to_owned() })
    }

    /// The journal sequence up to which the index is applied.
    pub fn applied(&self) -> Result<u64, StoreError> {
        Ok(self.get::<Meta>(b"m")?.unwrap_or_default().applied)
    }

    /// Applies a batch as one step and makes it durable, sled's own flush included, which alone does
    /// not reach the disk.
    pub fn write(&self, mut batch: Batch, applied: u64) -> Result<(), StoreError> {
        batch.put(b"m".to_vec(), &Meta { applied })?;
        self.db.apply_batch(batch.0).map_err(|error| failed(&error))?;
        self.db.flush().map_err(|error| failed(&error))?;
        self.file
            .sync_data()
            .map_err(|error| StoreError::Unavailable(Arc::from(format!("syncing the index failed: {error}"))))
    }

    /// An event's row.
    pub fn event(&self, event: u128) -> Result<Option<EventRow>, StoreError> {
        self.get(&event_key(event))
    }

    /// A delivery's row.
    pub fn delivery(&self, key: ItemKey) -> Result<Option<DeliveryRow>, StoreError> {
        self.get(&item_key(b'd', key))
    }

    /// The event that a delivery id stands for.
    pub fn duplicate_of(&self, hash: &[u8; 16]) -> Result<Option<u128>, StoreError> {
        self.get(&dedupe_key(hash))
    }

    /// Event rows from newest to oldest, beginning before `after`.
    pub fn events_before(&self, after: Option<u128>) -> impl Iterator<Item = Result<EventRow, StoreError>> + '_ {
        let upper = after.map_or_else(|| vec![b'e' + 1], |event| event_key(event).to_vec());
        self.db.range(vec![b'e']..upper).rev().map(|entry| {
            let (key, value) = entry.map_err(|error| failed(&error))?;
            self.decode(&key, &value)
        })
    }

    /// Keys of unfinished items (`a`) or dead deliveries (`x`), oldest event first.
    pub fn items(&self, kind: ItemKind) -> impl Iterator<Item = Result<ItemKey, StoreError>> + '_ {
        self.db.scan_prefix([kind as u8]).keys().map(|key| {
            let key = key.map_err(|error| failed(&error))?;
            let event = key.get(1..17).and_then(|bytes| bytes.try_into().ok()).map(u128::from_be_bytes);
            let ordinal = key.get(17..19).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
            event.zip(ordinal).ok_or_else(|| damaged(&self.directory, "an item's key is malformed"))
        })
    }

    /// Bytes the index takes on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.db.get(key).map_err(|error| failed(&error))? {
            Some(value) => self.decode(key, &value).map(Some),
            None => Ok(None),
        }
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
        let bad = || damaged(&self.directory, &format!("the value under {} is not what was written", hex(key)));
        let (content, crc) = value.split_last_chunk::<4>().ok_or_else(bad)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) || content.first() != Some(&VERSION) {
            return Err(bad());
        }
        postcard::from_bytes(content.get(1..).unwrap_or_default()).map_err(|_| bad())
    }
}

/// Which set of items.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum ItemKind {
    /// Unfinished.
    Active = b'a',
    /// Dead.
    Dead = b'x',
}

/// Changes that are applied as one step.
#[derive(Debug, Default)]
pub struct Batch(sled::Batch);

impl Batch {
    fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) -> Result<(), StoreError> {
        let encoded = postcard::to_extend(value, vec![VERSION])
            .map_err(|error| StoreError::Read(Arc::from(format!("a row does not encode: {error}"))))?;
        let mut encoded = encoded;
        let crc = crc32c::crc32c(&encoded);
        encoded.extend_from_slice(&crc.to_le_bytes());
        self.0.insert(key, encoded);
        Ok(())
    }

    /// Stores an event's row.
    pub fn event(&mut self, row: &EventRow) -> Result<(), StoreError> {
        self.put(event_key(row.head.id).to_vec(), row)
    }

    /// Stores a delivery's row.
    pub fn delivery(&mut self, key: ItemKey, row: &DeliveryRow) -> Result<(), StoreError> {
        self.put(item_key(b'd', key).to_vec(), row)
    }

    /// Remembers which event a delivery id stands for.
    pub fn duplicate(&mut self, hash: &[u8; 16], event: u128) -> Result<(), StoreError> {
        self.put(dedupe_key(hash).to_vec(), &event)
    }

    /// Puts an item into a set, or takes it out.
    pub fn item(&mut self, kind: ItemKind, key: ItemKey, present: bool) {
        let key = item_key(kind as u8, key).to_vec();
        if present { self.0.insert(key, Vec::new()) } else { self.0.remove(key) }
    }
}

impl EventRow {
    /// What lists show of the event.
    pub fn shown(&self) -> EventHead {
        EventHead {
            id: EventId::from_u128(self.head.id),
            integration: Arc::clone(&self.head.integration),
            endpoint: self.head.endpoint.clone(),
            event_type: self.head.event_type.clone(),
            delivery_id: self.head.delivery_id.clone(),
            received_at: self.head.received_at,
            body_bytes: self.head.body_bytes,
            state: self.state,
        }
    }
}

impl DeliveryRow {
    /// Adds an attempt, keeping the newest within bounds.
    pub fn record(&mut self, attempt: &Attempt) {
        let mut attempt = attempt.clone();
        if let Some(error) = attempt.error.as_mut() {
            let mut end = error.len().min(ERROR_BYTES);
            while !error.is_char_boundary(end) {
                end -= 1;
            }
            error.truncate(end);
        }
        self.attempts.push(attempt);
        if self.attempts.len() > ATTEMPTS {
            self.attempts.remove(0);
        }
    }

    /// What the API shows of the delivery.
    pub fn shown(self, key: ItemKey) -> crate::store::model::Delivery {
        crate::store::model::Delivery {
            id: DeliveryId { event: EventId::from_u128(key.0), ordinal: key.1 },
            rule: self.rule,
            action: self.action,
            summary: self.summary,
            lane: self.lane,
            state: match self.stand {
                Stand::Ready(due) => DeliveryState::Ready { due },
                Stand::Done => DeliveryState::Done,
                Stand::Dead => DeliveryState::Dead,
            },
            attempts: self.attempts,
        }
    }
}

/// What a delivery id is remembered by; `None` for an event without one.
pub fn dedupe_hash(head: &Head) -> Option<[u8; 16]> {
    let delivery = head.delivery_id.as_deref()?;
    let mut hasher = Sha256::new();
    hasher.update([u8::from(head.endpoint.is_some())]);
    for part in [&*head.integration, head.endpoint.as_deref().unwrap_or_default(), delivery] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().first_chunk().copied()
}

fn event_key(event: u128) -> [u8; 17] {
    let mut key = [b'e'; 17];
    key[1..].copy_from_slice(&event.to_be_bytes());
    key
}

fn item_key(kind: u8, (event, ordinal): ItemKey) -> [u8; 19] {
    let mut key = [kind; 19];
    key[1..17].copy_from_slice(&event.to_be_bytes());
    key[17..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

fn dedupe_key(hash: &[u8; 16]) -> [u8; 17] {
    let mut key = [b'k'; 17];
    key[1..].copy_from_slice(hash);
    key
}

/// sled refuses to open beside a snapshot that a crash left half written (spacejam/sled #1527).
fn remove_unfinished_snapshots(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let unfinished = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("snap.") && name.ends_with(".generating")
        });
        if unfinished && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), error = %error, "a half-written snapshot could not be removed");
        }
    }
}

fn failed(error: &sled::Error) -> StoreError {
    StoreError::Unavailable(Arc::from(format!("the index failed: {error}")))
}

fn damaged(directory: &Path, what: &str) -> StoreError {
    StoreError::Damaged {
        what: what.to_owned(),
        place: directory.display().to_string(),
        help: "run `trunkline store rebuild` to make the index anew from the journal".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
