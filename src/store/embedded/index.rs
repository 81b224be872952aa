//! The index: what lists and lookups need, in one sled tree, so that a batch is one atomic step.
//!
//! | key | value |
//! |---|---|
//! | `m` | meta: format, the journal sequence applied, digests of all other entries |
//! | `e` event | [`EventRow`] |
//! | `d` event ordinal | [`DeliveryRow`] |
//! | `a` event ordinal | nothing: the item is unfinished |
//! | `x` event ordinal | nothing: the item was given up |
//! | `k` hash of integration, endpoint and delivery id | [`Mark`] |
//!
//! Numbers in keys are big-endian. A value is a version byte, postcard, and a CRC32C of both. sled is
//! known to lose entries silently when its files are damaged; therefore each batch also carries sums of
//! a hash of every entry, and what is read back must add up to them. The index is rebuilt from the
//! journal when it does not: it never holds the only copy of anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::op::ItemKey;
use super::row::{DeliveryRow, EventRow, Mark};
use crate::store::StoreError;
use crate::store::disk::own_directory;

/// How often, and how long apart, the database is tried again while sled still holds its lock.
const UNLOCK_TRIES: u32 = 100;
const UNLOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

const VERSION: u8 = 2;
/// Rows that are checked against their digest before the index is used; more are checked behind.
const CHECKED_AT_OPEN: u64 = 20_000;

/// A sum over entries that does not depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Digest {
    sum: u64,
    count: u64,
}

impl Digest {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        (self.sum, self.count) = (self.sum.wrapping_add(hash(key, value)), self.count.wrapping_add(1));
    }

    fn remove(&mut self, key: &[u8], value: &[u8]) {
        (self.sum, self.count) = (self.sum.wrapping_sub(hash(key, value)), self.count.wrapping_sub(1));
    }
}

/// `SplitMix64`'s finish over both checksums, so that sums of them do not cancel out.
fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut mixed = u64::from(crc32c::crc32c(key)) << 32 | u64::from(crc32c::crc32c(value));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Meta {
    applied: u64,
    /// Of `a` and `x`.
    items: Digest,
    /// Of `e`, `d` and `k`.
    rows: Digest,
}

/// How far the rows have been read back and added up since the index was opened.
#[derive(Debug, Default)]
struct Scrub {
    cursor: Vec<u8>,
    seen: Digest,
    done: bool,
}

#[derive(Debug)]
struct Open {
    db: sled::Db,
    file: File,
    written: Mutex<(Meta, Scrub)>,
    marks: Filter,
}

/// The index. It can be closed and opened again in place.
#[derive(Debug)]
pub struct Index {
    directory: PathBuf,
    cache_bytes: u64,
    open: RwLock<Option<Arc<Open>>>,
    /// Something was read that is not what was written.
    suspect: AtomicBool,
    applied: AtomicU64,
    /// How often it was opened.
    openings: AtomicU64,
}

impl Index {
    /// Opens or makes the index. sled's own leftovers of a crash that keep it from opening are removed
    /// first.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it does not read back as it was written; the caller may rebuild it
    /// from the journal. [`StoreError::Unavailable`] for any other reason.
    pub fn open(directory: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let index = Self::unopened(directory, cache_bytes);
        index.reopen()?;
        Ok(index)
    }

    /// An index that is to be opened later; until then it answers nothing.
    pub fn unopened(directory: &Path, cache_bytes: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            cache_bytes,
            open: RwLock::new(None),
            suspect: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            openings: AtomicU64::new(0),
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.get_open().is_ok()
    }

    /// Opens the index after it was closed or failed.
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.close();
        self.openings.fetch_add(1, Ordering::AcqRel);
        // sled would make it for everybody to read.
        own_directory(&self.directory).map_err(|error| StoreError::Unavailable(Arc::from(error.to_string())))?;
        remove_unfinished_snapshots(&self.directory);
        let open = self.guarded(|| self.open_sled())?;
        self.applied.store(open.written().0.applied, Ordering::Release);
        self.suspect.store(false, Ordering::Release);
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(open));
        Ok(())
    }

    /// Opens the database. sled lets go of its file lock a moment after its last handle is gone; as the
    /// store's own lock is held, a lock found taken is such a one, and worth waiting for.
    fn open_database(&self) -> sled::Result<sled::Db> {
        let config = sled::Config::new()
            .path(&self.directory)
            .cache_capacity(self.cache_bytes)
            .use_compression(false)
            .flush_every_ms(Some(200))
            .mode(sled::Mode::LowSpace);
        for _ in 0..UNLOCK_TRIES {
            match config.open() {
                Err(error) if is_locked(&error) => std::thread::sleep(UNLOCK_PAUSE),
                opened => return opened,
            }
        }
        config.open()
    }

    fn open_sled(&self) -> Result<Open, StoreError> {
        let db = self.open_database().map_err(|error| self.failed(&error))?;
        let file = File::options()
            .write(true)
            .open(self.directory.join("db"))
            .map_err(|error| StoreError::Unavailable(Arc::from(format!("{}: {error}", self.directory.display()))))?;
        let meta = match db.get(b"m").map_err(|error| self.failed(&error))? {
            Some(value) => self.decode(b"m", &value)?,
            None => Meta::default(),
        };
        let open = Open { db, file, written: Mutex::new((meta, Scrub::default())), marks: Filter::new() };
        self.check_items(&open)?;
        if open.written().0.rows.count <= CHECKED_AT_OPEN {
            while self.scrub_step(&open, 4_096)? {}
        }
        Ok(open)
    }

    fn check_items(&self, open: &Open) -> Result<(), StoreError> {
        let mut seen = Digest::default();
        for kind in [ItemKind::Active, ItemKind::Dead] {
            for entry in open.db.scan_prefix([kind as u8]) {
                let (key, value) = entry.map_err(|error| self.failed(&error))?;
                seen.add(&key, &value);
            }
        }
        if seen != open.written().0.items {
            return Err(self.damaged("its work items are not those that were written"));
        }
        Ok(())
    }

    /// Checks some of the rows that have not been checked since the index was opened; false when there
    /// are no more.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when all are read and do not add up.
    pub fn scrub(&self, rows: usize) -> Result<bool, StoreError> {
        let open = self.get_open()?;
        self.guarded(|| self.scrub_step(&open, rows))
    }

    fn scrub_step(&self, open: &Open, rows: usize) -> Result<bool, StoreError> {
        let mut written = open.written();
        let (meta, scrub) = &mut *written;
        if scrub.done {
            return Ok(false);
        }
        let mut read = 0;
        for entry in open.db.range(scrub.cursor.clone()..).take(rows) {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            if is_row(&key) {
                scrub.seen.add(&key, &value);
                open.marks.add(hash_of(&key).into_iter());
            }
            read += 1;
            scrub.cursor.clear();
            scrub.cursor.extend_from_slice(&key);
            scrub.cursor.push(0);
        }
        if read == rows {
            return Ok(true);
        }
        scrub.done = true;
        if scrub.seen != meta.rows {
            return Err(self.damaged("its rows are not those that were written"));
        }
        open.marks.complete();
        Ok(false)
    }

    /// Lets go of sled and its lock, as soon as those who read now are through.
    pub fn close(&self) {
        drop(self.open.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Removes all of it and begins anew, empty.
    pub fn wipe(&self) -> Result<(), StoreError> {
        self.close();
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::Unavailable(Arc::from(format!("{}: {error}", self.directory.display()))))
            }
            _ => self.reopen(),
        }
    }

    /// Whether something was read since the opening that is not what was written.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// How often it was opened: what was read of it is of one opening where that is as it was before.
    pub fn openings(&self) -> u64 {
        self.openings.load(Ordering::Acquire)
    }

    /// The journal sequence up to which the index is applied.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Applies a batch as one step and makes it durable, sled's own flush included, which alone does
    /// not reach the disk.
    pub fn write(&self, batch: Batch, applied: u64) -> Result<(), StoreError> {
        let open = self.get_open()?;
        self.guarded(|| self.write_to(&open, batch, applied))?;
        self.applied.store(applied, Ordering::Release);
        Ok(())
    }

    fn write_to(&self, open: &Open, batch: Batch, applied: u64) -> Result<(), StoreError> {
        let mut written = open.written();
        let (meta, scrub) = &mut *written;
        let mut next = Meta { applied, ..*meta };
        let mut seen = scrub.seen;
        let mut changes = sled::Batch::default();
        open.marks.add(batch.0.keys().filter_map(|key| hash_of(key)));
        for (key, Change { value, fresh }) in batch.0 {
            let old = if fresh { None } else { open.db.get(&key).map_err(|error| self.failed(&error))? };
            if old.as_deref() == value.as_deref() {
                continue;
            }
            let digest = if is_row(&key) { &mut next.rows } else { &mut next.items };
            let read = is_row(&key) && key < scrub.cursor;
            if let Some(old) = &old {
                digest.remove(&key, old);
                read.then(|| seen.remove(&key, old));
            }
            match value {
                Some(value) => {
                    digest.add(&key, &value);
                    read.then(|| seen.add(&key, &value));
                    changes.insert(key, value);
                }
                None => changes.remove(key),
            }
        }
        changes.insert(b"m", encode(&next)?);
        open.db.apply_batch(changes).map_err(|error| self.failed(&error))?;
        open.db.flush().map_err(|error| self.failed(&error))?;
        open.file
            .sync_data()
            .map_err(|error| StoreError::Unavailable(Arc::from(format!("syncing the index failed: {error}"))))?;
        (*meta, scrub.seen) = (next, seen);
        Ok(())
    }

    /// An event's row.
    pub fn event(&self, event: u128) -> Result<Option<EventRow>, StoreError> {
        self.get(&event_key(event))
    }

    /// A delivery's row.
    pub fn delivery(&self, key: ItemKey) -> Result<Option<DeliveryRow>, StoreError> {
        self.get(&item_key(b'd', key))
    }

    /// The mark of a delivery id.
    pub fn mark(&self, hash: &[u8; 16]) -> Result<Option<Mark>, StoreError> {
        if self.get_open()?.marks.lacks(hash) {
            return Ok(None);
        }
        self.get(&mark_key(hash))
    }

    /// Event rows from newest to oldest, beginning before `after`.
    pub fn events_before(
        &self,
        after: Option<u128>,
    ) -> Result<impl Iterator<Item = Result<EventRow, StoreError>> + '_, StoreError> {
        let upper = after.map_or_else(|| vec![b'e' + 1], |event| event_key(event).to_vec());
        Ok(self.get_open()?.db.range(vec![b'e']..upper).rev().map(|entry| {
            let (key, value) = entry.map_err(|error| self.failed(&error))?;
            self.decode(&key, &value)
        }))
    }

    /// Keys of unfinished or dead items, oldest event first.
    pub fn items(
        &self,
        kind: ItemKind,
    ) -> Result<impl DoubleEndedIterator<Item = Result<ItemKey, StoreError>> + '_, StoreError> {
        Ok(self.get_open()?.db.scan_prefix([kind as u8]).map(|entry| {
            let (key, _) = entry.map_err(|error| self.failed(&error))?;
            let event = key.get(1..17).and_then(|bytes| bytes.try_into().ok()).map(u128::from_be_bytes);
            let ordinal = key.get(17..19).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
            event.zip(ordinal).ok_or_else(|| self.damaged("an item's key is malformed"))
        }))
    }

    /// Entries that are not meta.
    pub fn entries(&self) -> Result<u64, StoreError> {
        let meta = self.get_open()?.written().0;
        Ok(meta.items.count + meta.rows.count)
    }

    /// Bytes the index takes on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.get_open().ok().and_then(|open| open.file.metadata().ok()).map_or(0, |meta| meta.len())
    }

    fn get_open(&self) -> Result<Arc<Open>, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| {
            StoreError::Unavailable(Arc::from(
                "the index is not open: it is being opened anew, or waits for room on the disk",
            ))
        })
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let open = self.get_open()?;
        match self.guarded(|| open.db.get(key).map_err(|error| self.failed(&error)))? {
            Some(value) => self.decode(key, &value).map(Some),
            None => Ok(None),
        }
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
        let bad = || self.damaged(&format!("the value under {} is not what was written", hex(key)));
        let (content, crc) = value.split_last_chunk::<4>().ok_or_else(bad)?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*crc) || content.first() != Some(&VERSION) {
            return Err(bad());
        }
        postcard::from_bytes(content.get(1..).unwrap_or_default()).map_err(|_| bad())
    }

    /// Anything sled answers that the machine does not explain is damage: it can be rebuilt.
    fn failed(&self, error: &sled::Error) -> StoreError {
        use std::io::ErrorKind::{OutOfMemory, PermissionDenied, ReadOnlyFilesystem, StorageFull, WouldBlock};
        match error {
            sled::Error::Io(io)
                if matches!(
                    io.kind(),
                    OutOfMemory | PermissionDenied | ReadOnlyFilesystem | StorageFull | WouldBlock
                ) || io.raw_os_error() == Some(libc::EMFILE) =>
            {
                StoreError::Unavailable(Arc::from(format!("the index failed: {error}")))
            }
            // It is another process's, and not to be made anew.
            error if is_locked(error) => StoreError::InUse {
                path: self.directory.display().to_string(),
                holder: "that holds its index".to_owned(),
            },
            _ => self.damaged(&error.to_string()),
        }
    }

    /// sled panics on some kinds of damage instead of answering.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(self.damaged("sled cannot read it")))
    }

    /// The error for an index that does not read back as it was written.
    pub fn damaged(&self, what: &str) -> StoreError {
        self.suspect.store(true, Ordering::Release);
        damaged(&self.directory, what)
    }
}

impl Open {
    fn written(&self) -> MutexGuard<'_, (Meta, Scrub)> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which set of items.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum ItemKind {
    /// Unfinished.
    Active = b'a',
    /// Given up.
    Dead = b'x',
}

/// Changes that are applied as one step.
#[derive(Debug, Default)]
pub struct Batch(BTreeMap<Vec<u8>, Change>);

/// What becomes of one key.
#[derive(Debug)]
struct Change {
    /// Its value; `None` takes it away.
    value: Option<Vec<u8>>,
    /// It belongs to an event that arrives with this batch, so that nothing is there yet.
    fresh: bool,
}

/// The keys of one event in a batch.
#[derive(Debug)]
pub struct Part<'a> {
    batch: &'a mut Batch,
    event: u128,
    fresh: bool,
}

impl Part<'_> {
    /// Stores the event's row.
    pub fn event(&mut self, row: &EventRow) -> Result<(), StoreError> {
        self.set(event_key(self.event).to_vec(), Some(encode(row)?));
        Ok(())
    }

    /// Stores a delivery's row.
    pub fn delivery(&mut self, ordinal: u16, row: &DeliveryRow) -> Result<(), StoreError> {
        self.set(item_key(b'd', (self.event, ordinal)).to_vec(), Some(encode(row)?));
        Ok(())
    }

    /// Puts an item into a set, or takes it out.
    pub fn item(&mut self, kind: ItemKind, ordinal: u16, present: bool) {
        self.set(item_key(kind as u8, (self.event, ordinal)).to_vec(), present.then(Vec::new));
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        // What is not there need not be taken away.
        if value.is_some() || !self.fresh {
            self.batch.0.insert(key, Change { value, fresh: self.fresh });
        }
    }
}

impl Batch {
    /// What changes of one event; `fresh` when it arrives with this batch.
    pub fn part(&mut self, event: u128, fresh: bool) -> Part<'_> {
        Part { batch: self, event, fresh }
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.0.insert(key, Change { value, fresh: false });
    }

    /// Remembers a delivery id, or forgets it.
    pub fn mark(&mut self, hash: &[u8; 16], mark: Option<&Mark>) -> Result<(), StoreError> {
        self.set(mark_key(hash).to_vec(), mark.map(encode).transpose()?);
        Ok(())
    }

    /// Forgets an event with all that belongs to it but the mark of its delivery id.
    pub fn forget(&mut self, row: &EventRow) {
        self.set(event_key(row.head.id).to_vec(), None);
        for ordinal in (0..row.deliveries).chain([super::op::MATCH]) {
            for kind in [b'd', b'a', b'x'] {
                self.set(item_key(kind, (row.head.id, ordinal)).to_vec(), None);
            }
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut encoded = postcard::to_extend(value, vec![VERSION])
        .map_err(|error| StoreError::Read(Arc::from(format!("a row does not encode: {error}"))))?;
    let crc = crc32c::crc32c(&encoded);
    encoded.extend_from_slice(&crc.to_le_bytes());
    Ok(encoded)
}

fn is_row(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'e' | b'd' | b'k'))
}

/// The hash that a mark's key holds.
fn hash_of(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"k")
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

fn mark_key(hash: &[u8; 16]) -> [u8; 17] {
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

fn damaged(directory: &Path, what: &str) -> StoreError {
    StoreError::Damaged {
        what: what.to_owned(),
        place: directory.display().to_string(),
        help: "run `trunkline store rebuild` to make the index anew from the journal".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
/// Whether sled says that another has its files.
fn is_locked(error: &sled::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}
