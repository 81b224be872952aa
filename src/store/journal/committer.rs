//! The one thread that writes a journal.
//!
//! Its state is its position in the code: [`Committer::run`], in which batches are written, or
//! [`Committer::failed`], in which everything is refused while it tries to begin a new segment.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::answers::{self, Reply, Told};
use super::mark::{Bounds, Mark};
use super::queue::{Queue, Taken};
use super::salt::Salt;
use super::segment::{self, End};
use super::watermark::Watermark;
use super::{Appended, Counts, Durability, JournalOptions, Payload, Pointer, Sink, frame};
use crate::store::StoreError;
use crate::store::disk::DiskFile;

/// Bytes that one write takes.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes that may be written without a sync; their copy is kept so that a failed sync loses nothing.
const UNSYNCED_BYTES: usize = 4 << 20;
/// How long what was written may wait for a sync when nothing else asks for one. It counts from the first
/// write: under a steady stream that asks for none, a journal that waits for a pause would never sync, and
/// the index, which follows what is synced, would fall behind without bound.
const UNSYNCED_AGE: Duration = Duration::from_millis(200);
/// How often it is said again that nothing can be written, as on a full disk.
const SAID_AGAIN: Duration = Duration::from_mins(1);
/// How long a failed journal waits before it tries again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// What callers ask of the committer.
pub enum Request<T> {
    /// Append a payload.
    Append {
        /// The bytes.
        payload: Payload,
        /// What the sink is told.
        entry: T,
        /// When to answer.
        durability: Durability,
        /// The caller.
        reply: Reply,
    },
    /// Remove the segments before the one that begins with a sequence number.
    Retire {
        /// That number.
        first: u64,
        /// The caller.
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Sync all that was written before.
    Sync {
        /// The caller, who is told the last sequence number.
        reply: oneshot::Sender<Result<u64, StoreError>>,
    },
}

impl<T> Request<T> {
    fn weight(&self) -> usize {
        match self {
            Self::Append { payload, .. } => payload.len() + frame::HEADER,
            Self::Retire { .. } | Self::Sync { .. } => 0,
        }
    }

    /// Answers with a refusal, letting go of the entry first.
    fn refuse(self, told: &StoreError) {
        match self {
            Self::Append { payload, entry, durability, reply } => {
                Append { payload, entry, durability, reply }.refuse(told);
            }
            Self::Retire { reply, .. } => answer(reply, Err(told.clone())),
            Self::Sync { reply } => answer(reply, Err(told.clone())),
        }
    }
}

struct Append<T> {
    payload: Payload,
    entry: T,
    durability: Durability,
    reply: Reply,
}

impl<T> Append<T> {
    fn refuse(self, told: &StoreError) {
        drop(self.entry);
        answer(self.reply, Told::refused(told.clone()));
    }
}

/// Why nothing is written now, shared with callers.
pub type Health = Arc<RwLock<Result<(), StoreError>>>;

/// What the committer shares with its journal.
pub struct Shared<T> {
    /// Where requests come from.
    pub queue: Arc<Queue<Request<T>>>,
    /// Whether it writes.
    pub health: Health,
    /// What it wrote.
    pub counts: Arc<Counts>,
    /// Whether there is room.
    pub watermark: Arc<Watermark>,
}

/// The thread's own.
pub struct Committer<T> {
    shared: Shared<T>,
    options: JournalOptions,
    sink: Sink<T>,
    mark: Mark,
    /// Of the current segment.
    salt: Salt,
    /// The first sequence number that is kept.
    first: u64,
    file: Option<Box<dyn DiskFile>>,
    segment: u64,
    offset: u64,
    /// The last sequence number written, and the last synced with the offset after it.
    written: u64,
    synced: u64,
    synced_offset: u64,
    /// The frames between those two.
    unsynced: Vec<u8>,
    /// When the first of them was written, on the monotonic clock.
    unsynced_since: Duration,
}

impl<T> Committer<T> {
    /// A committer that goes on after `end`, in a segment of its own. What a process before this one
    /// wrote is synced first: it may have been killed between writing and syncing. Where a full disk keeps it from that,
    /// the error is given with it: it is to [`Self::run`] with that.
    ///
    /// # Errors
    /// Any other, and a full disk where the journal never was.
    pub fn begin(
        options: JournalOptions,
        end: End,
        sink: Sink<T>,
        shared: Shared<T>,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let mark = Mark::open(&*options.disk, &options.directory)?;
        let was = mark.bounds().first > 0;
        let mut committer = Self {
            first: mark.bounds().first.max(1),
            salt: options.salt.get(),
            shared,
            sink,
            mark,
            file: None,
            segment: end.segment.unwrap_or(0),
            offset: end.offset,
            written: end.sequence,
            synced: end.sequence,
            synced_offset: end.offset,
            unsynced: Vec::new(),
            unsynced_since: Duration::ZERO,
            options,
        };
        match committer.reopen() {
            Err(error) if was && error.kind() == io::ErrorKind::StorageFull => Ok((committer, Some(error))),
            other => other.map(|()| (committer, None)),
        }
    }

    /// Writes until the queue is closed, beginning anew first where it could not begin.
    pub fn run(mut self, full: Option<&io::Error>) {
        if let Some(full) = full {
            self.failed(full);
        }
        loop {
            let patience = self.patience();
            let result = match self.shared.queue.take(patience, BATCH_BYTES, Request::weight) {
                Taken::Batch(batch) => self.serve(batch).and_then(|()| self.sync_in_time()),
                Taken::Idle => self.sync(),
                Taken::Closed => break,
            };
            if let Err(error) = result {
                self.failed(&error);
            }
        }
        // Nobody waits for these; a failure here is found, and told, when the journal is next opened.
        if let Err(error) = self.sync().and_then(|()| self.mark.sync()) {
            tracing::warn!(error = %error, "the journal could not be synced while closing");
        }
    }

    /// How long the next request may be waited for; `None` while everything is synced.
    fn patience(&self) -> Option<Duration> {
        let waited = || self.options.clock.monotonic().saturating_sub(self.unsynced_since);
        (self.synced < self.written).then(|| UNSYNCED_AGE.saturating_sub(waited()))
    }

    fn sync_in_time(&mut self) -> io::Result<()> {
        if self.patience() == Some(Duration::ZERO) { self.sync() } else { Ok(()) }
    }

    fn serve(&mut self, batch: Vec<Request<T>>) -> io::Result<()> {
        let (mut appends, mut others) = (Vec::with_capacity(batch.len()), Vec::new());
        for request in batch {
            match request {
                Request::Append { payload, entry, durability, reply } => {
                    appends.push(Append { payload, entry, durability, reply });
                }
                other => others.push(other),
            }
        }
        let appended = self.append(appends);
        for request in others {
            if appended.is_ok() {
                self.serve_other(request)?;
            } else {
                request.refuse(&StoreError::Unavailable(Arc::from("the journal failed")));
            }
        }
        appended
    }

    fn serve_other(&mut self, request: Request<T>) -> io::Result<()> {
        match request {
            Request::Retire { first, reply } => {
                let done = self.retire(first);
                answer(reply, done.map_err(|error| self.shared.watermark.explain(&error)));
                Ok(())
            }
            Request::Sync { reply } => {
                let done = self.sync();
                let told = done.as_ref().map(|()| self.synced).map_err(|error| self.shared.watermark.explain(error));
                answer(reply, told);
                done
            }
            Request::Append { .. } => Ok(()),
        }
    }

    fn append(&mut self, batch: Vec<Append<T>>) -> io::Result<()> {
        let batch = self.refuse_new_when_full(batch);
        if batch.is_empty() {
            return Ok(());
        }
        let before = (self.unsynced.len(), self.written);
        match self.commit(&batch) {
            Ok(places) => {
                let written = batch.into_iter().zip(places);
                let (entries, replies) =
                    written.map(|(append, place)| ((place, append.entry), (append.reply, place))).unzip();
                (self.sink)(entries);
                answers::all(replies);
                Ok(())
            }
            Err(error) => {
                // What is refused must not come back when the rest is written anew.
                self.unsynced.truncate(before.0);
                self.written = before.1;
                let told = self.shared.watermark.explain(&error);
                self.tell(Err(told.clone()));
                for append in batch {
                    append.refuse(&told);
                }
                Err(error)
            }
        }
    }

    /// Takes new facts out of a batch while the disk is nearly full.
    fn refuse_new_when_full(&mut self, batch: Vec<Append<T>>) -> Vec<Append<T>> {
        if batch.iter().all(|append| append.durability != Durability::New) {
            return batch;
        }
        let Err(full) = self.shared.watermark.check() else { return batch };
        let (new, follow): (Vec<_>, Vec<_>) = batch.into_iter().partition(|a| a.durability == Durability::New);
        for append in new {
            append.refuse(&full);
        }
        follow
    }

    /// Writes a batch, and syncs it where one of it asks for that.
    fn commit(&mut self, batch: &[Append<T>]) -> io::Result<Vec<Appended>> {
        self.roll()?;
        let places = self.write(batch)?;
        let sync = batch.iter().any(|append| append.durability != Durability::Written);
        if sync || self.unsynced.len() > UNSYNCED_BYTES {
            self.sync()?;
        }
        Ok(places)
    }

    fn write(&mut self, batch: &[Append<T>]) -> io::Result<Vec<Appended>> {
        let Some(file) = self.file.as_mut() else { return Err(io::Error::other("no segment is open")) };
        let (begin, mut places) = (self.unsynced.len(), Vec::with_capacity(batch.len()));
        let mut sequence = self.written;
        for append in batch {
            sequence += 1;
            let offset = self.offset + (self.unsynced.len() - begin) as u64;
            let length = u32::try_from(append.payload.len()).unwrap_or(u32::MAX);
            places.push(Appended { sequence, pointer: Pointer { segment: self.segment, offset, length } });
            frame::encode_parts(self.salt.hide(sequence), append.payload.parts(), &mut self.unsynced);
        }
        if begin == 0 {
            self.unsynced_since = self.options.clock.monotonic();
        }
        let bytes = self.unsynced.get(begin..).unwrap_or_default();
        let length = bytes.len() as u64;
        file.write_all(bytes)?;
        (self.offset, self.written) = (self.offset + length, sequence);
        self.shared.watermark.count(length);
        self.shared.counts.frames.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.shared.counts.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(places)
    }

    /// Makes all that was written durable, and says so in the mark.
    fn sync(&mut self) -> io::Result<()> {
        if self.synced == self.written {
            return Ok(());
        }
        let Some(file) = self.file.as_mut() else { return Err(io::Error::other("no segment is open")) };
        file.sync_data()?;
        self.shared.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.mark.write(Bounds { first: self.first, durable: self.written })?;
        self.advance();
        self.unsynced.shrink_to(UNSYNCED_BYTES);
        Ok(())
    }

    fn advance(&mut self) {
        (self.synced, self.synced_offset) = (self.written, self.offset);
        self.unsynced.clear();
        self.options.synced.store(self.synced, Ordering::Release);
    }

    /// Begins a new segment when this one is full, or of a salt that is not used any more.
    fn roll(&mut self) -> io::Result<()> {
        let is_outdated = self.salt != self.options.salt.get();
        if self.file.is_some() && self.offset < self.options.segment_bytes && !is_outdated {
            return Ok(());
        }
        self.sync()?;
        if is_outdated {
            // It may be empty: then its name is the new one's.
            return self.reopen();
        }
        self.mark.sync()?;
        self.begin_segment()
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.file = None;
        let first = self.synced + 1;
        let JournalOptions { disk, directory, .. } = &self.options;
        self.file = Some(segment::create(&**disk, directory, first, self.salt)?);
        let offset = segment::header_length(self.salt) as u64;
        (self.segment, self.offset, self.synced_offset) = (first, offset, offset);
        Ok(())
    }

    /// Removes old segments. The mark says first that they are not kept, so that their absence is
    /// never taken for damage.
    fn retire(&mut self, first: u64) -> io::Result<()> {
        let (disk, directory) = (Arc::clone(&self.options.disk), self.options.directory.clone());
        let segments = segment::list(&*disk, &directory)?;
        if !segments.contains(&first) || first > self.segment {
            return Err(io::Error::other(format!("no segment begins with {first}")));
        }
        self.mark.settle(Bounds { first, durable: self.synced })?;
        self.first = first;
        for old in segments.into_iter().filter(|old| *old < first) {
            disk.remove(&segment::path(&directory, old))?;
        }
        disk.sync_directory(&directory)
    }

    /// Refuses everything until a new segment holds all that was acknowledged.
    fn failed(&mut self, error: &io::Error) {
        let directory = self.options.directory.display().to_string();
        tracing::error!(error = %error, journal = directory, "the journal takes no writes; it will be opened anew");
        self.shared.counts.failures.fetch_add(1, Ordering::Relaxed);
        let mut told = self.shared.watermark.explain(error);
        self.tell(Err(told.clone()));
        let (mut closed, mut said) = (false, self.options.clock.monotonic());
        while !closed {
            closed = self.refuse_for(REOPEN_PAUSE, &told);
            match self.reopen() {
                Ok(()) => {
                    tracing::info!(journal = directory, "the journal takes writes again");
                    self.tell(Ok(()));
                    return;
                }
                Err(again) => {
                    let now = self.options.clock.monotonic();
                    if now.saturating_sub(said) >= SAID_AGAIN {
                        tracing::warn!(error = %again, journal = directory, "the journal still takes no writes");
                        said = now;
                    }
                    told = self.shared.watermark.explain(&again);
                    self.tell(Err(told.clone()));
                }
            }
        }
    }

    /// Refuses what comes in for a while; true when nothing more will come.
    fn refuse_for(&self, pause: Duration, told: &StoreError) -> bool {
        let end = self.options.clock.monotonic() + pause;
        loop {
            match self.shared.queue.take(Some(pause), BATCH_BYTES, Request::weight) {
                Taken::Closed => return true,
                Taken::Idle => return false,
                Taken::Batch(batch) => batch.into_iter().for_each(|request| request.refuse(told)),
            }
            if self.options.clock.monotonic() >= end {
                return false;
            }
        }
    }

    /// Cuts the current segment to what is known to be synced, checks that it reads back, and writes
    /// what was acknowledged but not synced into a new one. The failed descriptor is dropped unsynced:
    /// a second sync of it may succeed without having written what the first one lost.
    fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let (disk, directory) = (Arc::clone(&self.options.disk), self.options.directory.clone());
        // The mark may already tell of frames that were refused because writing it failed; it must say
        // less before they are cut off, or their absence would pass for damage.
        self.mark = Mark::open(&*disk, &directory)?;
        self.mark.settle(Bounds { first: self.first, durable: self.synced })?;
        for first in segment::list(&*disk, &directory)? {
            // Segments after the current one are from earlier attempts at this, and an empty one gives
            // its name to the new one.
            if first > self.segment || (first == self.segment && self.synced < first) || first < self.first {
                disk.remove(&segment::path(&directory, first))?;
            } else if first == self.segment {
                let mut file = disk.append(&segment::path(&directory, first))?;
                file.truncate(self.synced_offset)?;
                file.sync_data()?;
            }
        }
        disk.sync_directory(&directory)?;
        let end =
            segment::walk(&*disk, &directory, self.synced, &mut |_, _, _| Ok(std::ops::ControlFlow::Continue(())))
                .map_err(io::Error::other)?;
        if end.sequence != self.synced {
            return Err(io::Error::other(format!("it ends with {} instead of {}", end.sequence, self.synced)));
        }
        // What is written again has its numbers hidden already.
        if self.unsynced.is_empty() {
            self.salt = self.options.salt.get();
        }
        let mut file = segment::create(&*disk, &directory, self.synced + 1, self.salt)?;
        if !self.unsynced.is_empty() {
            file.write_all(&self.unsynced)?;
            file.sync_data()?;
        }
        let length = self.unsynced.len() as u64;
        self.mark.write(Bounds { first: self.first, durable: self.written })?;
        (self.segment, self.offset) = (self.synced + 1, segment::header_length(self.salt) as u64 + length);
        self.advance();
        self.file = Some(file);
        Ok(())
    }

    fn tell(&self, health: Result<(), StoreError>) {
        *self.shared.health.write().unwrap_or_else(PoisonError::into_inner) = health;
    }
}

/// Answers a caller, who may have gone away.
fn answer<A>(reply: oneshot::Sender<A>, result: A) {
    let _gone = reply.send(result).is_err();
}
