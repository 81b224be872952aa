//! The journal: append-only segment files, the truth of the store.
//!
//! A segment is a header and frames. A frame is a length, a CRC32C, a sequence number, hidden by the segment's [`salt`], and
//! a payload; the payload is bytes to this room. One [`committer`] thread per journal groups what many callers
//! append into one write and one `fdatasync`, and answers them only then. After a failed write or sync
//! nothing is acknowledged until a new segment has been begun; the failed descriptor is never synced
//! again, because a second sync may succeed without having written what the first lost.
//!
//! Where the journal begins and how far it is durable is also kept in a [`mark`] beside the segments.
//! A journal that ends before its mark, or misses a segment, has lost acknowledged facts and is
//! refused; a torn tail after the mark is the ordinary end of a crash, and is cut off. Where whole frames stand in
//! that, which a power cut leaves of what was not synced, or a slot of the mark is not whole, it is said before the cut:
//! nothing tells a power cut from damage there. Called by the embedded engine.

mod answers;
pub mod committer;
pub mod frame;
pub mod mark;
pub mod queue;
pub mod salt;
pub mod salvage;
pub mod segment;
pub mod watermark;

use std::any::Any;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::base::clock::Clock;
use crate::base::units::Reserve;
use crate::store::StoreError;
use crate::store::disk::Disk;
use committer::{Committer, Health, Request, Shared};
use queue::Queue;
use segment::End;
use watermark::Watermark;

/// Bytes that may wait to be written; callers beyond that wait their turn.
const WAITING_BYTES: usize = 64 << 20;

/// Where a payload stands: enough to read it back without a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pointer {
    /// The first sequence number of its segment, which names the file.
    pub segment: u64,
    /// Where its frame begins in the file.
    pub offset: u64,
    /// Bytes of its payload.
    pub length: u32,
}

/// What an append writes: one payload, whose second part is taken from where it lies.
#[derive(Debug, Default)]
pub struct Payload {
    /// Its beginning.
    pub head: Vec<u8>,
    /// The rest.
    pub body: Bytes,
}

impl Payload {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }
}

impl From<Vec<u8>> for Payload {
    fn from(head: Vec<u8>) -> Self {
        Self { head, body: Bytes::new() }
    }
}

/// Where and how a journal writes.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The directory of its segments.
    pub directory: PathBuf,
    /// A segment this large is followed by a new one.
    pub segment_bytes: u64,
    /// With less than this free, nothing new is accepted.
    pub min_free: Reserve,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where the journal tells the last sequence number that is durable.
    pub synced: Arc<AtomicU64>,
    /// What hides the sequence numbers in the segments that are begun. When it changes, another is begun.
    pub salt: salt::Current,
}

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is written: survives a kill of the process. It is synced within 200 ms.
    Written,
    /// When it is synced: survives power loss as well.
    Synced,
    /// As [`Self::Synced`], and refused when the disk is nearly full: for new facts, so that work on
    /// those already accepted can go on.
    New,
}

/// An append that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence number.
    pub sequence: u64,
    /// Where it stands.
    pub pointer: Pointer,
}

/// What is told of the appends of a batch in order of sequence, once they are as durable as was asked for and
/// before their callers are answered, who may have gone. The entry of a refused append is dropped instead.
pub type Sink<T> = Box<dyn FnMut(Vec<(Appended, T)>) + Send>;

/// Counts of a journal since it was opened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames written.
    pub frames: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Syncs of segments.
    pub syncs: AtomicU64,
    /// Times it failed and was opened anew.
    pub failures: AtomicU64,
}

/// A journal that is open for appending. `T` is what the sink is told besides the place. Dropping it
/// closes it without waiting.
pub struct Journal<T> {
    queue: Arc<Queue<Request<T>>>,
    room: Semaphore,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
    health: Health,
    watermark: Arc<Watermark>,
}

impl<T> std::fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<T> Drop for Journal<T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<T: Send + 'static> Journal<T> {
    /// Opens a journal for appending after `end`, cutting the torn tail off. `held` is kept until the
    /// journal's thread has ended.
    ///
    /// # Errors
    /// When the tail cannot be cut or a segment cannot be made. A full disk is an error only where the journal never
    /// was, [`StoreError::NoRoom`]; else it is opened, and takes entries once there is room.
    pub fn open(
        options: JournalOptions,
        end: End,
        sink: Sink<T>,
        held: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, StoreError> {
        let watermark = Arc::new(Watermark::new(
            options.directory.clone(),
            options.min_free,
            Arc::clone(&options.disk),
            Arc::clone(&options.clock),
        ));
        let (queue, health) = (Arc::<Queue<Request<T>>>::default(), Arc::new(RwLock::new(Ok(()))));
        let counts = Arc::<Counts>::default();
        let shared = Shared {
            queue: Arc::clone(&queue),
            health: Arc::clone(&health),
            counts: Arc::clone(&counts),
            watermark: Arc::clone(&watermark),
        };
        let directory = options.directory.display().to_string();
        tell_of_end(&options, end);
        let begun = Committer::begin(options, end, sink, shared).and_then(|(committer, full)| {
            if let Some(full) = &full {
                *health.write().unwrap_or_else(PoisonError::into_inner) = Err(watermark.explain(full));
            }
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
                committer.run(full.as_ref());
                drop(held);
            })
        });
        let thread = begun.map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull => StoreError::NoRoom { path: directory },
            _ => watermark.explain(&error),
        })?;
        let room = Semaphore::new(WAITING_BYTES);
        Ok(Self { queue, room, thread: Mutex::new(Some(thread)), counts, health, watermark })
    }

    /// Appends a payload. Answered as `durability` says.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Full`], [`StoreError::Unavailable`]. After an error the
    /// payload is not in the journal, unless the process dies before the journal has been opened anew.
    pub async fn append(
        &self,
        payload: impl Into<Payload>,
        entry: T,
        durability: Durability,
    ) -> Result<Appended, StoreError> {
        let payload = payload.into();
        if payload.len() > frame::MAX_PAYLOAD {
            return Err(StoreError::TooLarge { what: "the entry", size: payload.len(), limit: frame::MAX_PAYLOAD });
        }
        let bytes = u32::try_from(payload.len() + frame::HEADER).unwrap_or(u32::MAX);
        let _room = self.room.acquire_many(bytes).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        self.queue.push(Request::Append { payload, entry, durability, reply }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.take()
    }

    /// As [`Self::append`], for a thread that may block, also one that drives a runtime.
    pub fn append_blocking(&self, payload: Vec<u8>, entry: T, durability: Durability) -> Result<Appended, StoreError> {
        let ((reply, answer), payload) = (oneshot::channel(), payload.into());
        self.queue.push(Request::Append { payload, entry, durability, reply }).map_err(|_| closed())?;
        // A thread of its own, because one that drives a runtime must not wait for its channels.
        std::thread::scope(|scope| scope.spawn(|| answer.blocking_recv()).join())
            .map_err(|_| closed())?
            .map_err(|_| closed())?
            .take()
    }

    /// Removes all segments before the one that begins with sequence number `first`.
    pub async fn retire(&self, first: u64) -> Result<(), StoreError> {
        self.ask(|reply| Request::Retire { first, reply }).await
    }

    /// Makes durable all that was appended before; returns the last sequence number.
    pub async fn sync(&self) -> Result<u64, StoreError> {
        self.ask(|reply| Request::Sync { reply }).await
    }

    async fn ask<A>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<A, StoreError>>) -> Request<T>,
    ) -> Result<A, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(request(reply)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Whether new facts are taken now. Asks the disk for its free space twice a second at most.
    pub fn state(&self) -> Result<(), StoreError> {
        self.health.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        self.watermark.check()
    }

    /// What was written since the journal was opened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Writes and syncs what waits, and ends the thread. Appends after this are refused.
    pub async fn close(&self) {
        self.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has been reported by the panic hook; there is nothing left to close.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }
}

/// Says what the opening will take away for good.
fn tell_of_end(options: &JournalOptions, end: End) {
    let journal = options.directory.display();
    let flaw = mark::flaw(&*options.disk, &options.directory);
    if let Some(offset) = flaw {
        let place = mark::path(&options.directory);
        tracing::warn!(offset, "{}: {}", place.display(), mark::FLAW);
    }
    match (end.beyond, flaw) {
        (0, _) => {}
        (entries, None) => tracing::warn!(
            journal = %journal, entries, sequence = end.sequence,
            "whole entries at the journal's end are cut off with one before them that is not whole, as a power cut leaves \
             them; none was acknowledged, as far as the mark tells"
        ),
        (entries, Some(_)) => tracing::error!(
            journal = %journal, entries, sequence = end.sequence,
            "whole entries at the journal's end are cut off with one before them that is not whole; as the mark is not \
             whole either, they may have been acknowledged: compare what came last with a backup or with its senders"
        ),
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable(Arc::from("the store is closed"))
}
