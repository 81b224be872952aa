//! The one thread that writes a journal.
//!
//! Its state is its position in [`Committer::run`]: *open*, in which batches are written, or *failed*,
//! in which everything is refused while it tries to begin a new segment.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};

use super::mark::Mark;
use super::segment::{self, End};
use super::{Pointer, frame};
use crate::base::clock::Clock;
use crate::store::StoreError;
use crate::store::disk::{Disk, DiskFile};

/// Bytes that may wait to be written; callers beyond that wait their turn.
const WAITING_BYTES: usize = 64 << 20;
/// Bytes that one write takes.
const BATCH_BYTES: usize = 8 << 20;
/// Bytes that may be written without a sync; their copy is kept so that a failed sync loses nothing.
const UNSYNCED_BYTES: usize = 4 << 20;
/// How old the knowledge of free space may be.
const SPACE_AGE: Duration = Duration::from_millis(500);
/// How long a failed journal waits before it tries again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Where and how a journal writes.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The directory of its segments.
    pub directory: PathBuf,
    /// A segment this large is followed by a new one.
    pub segment_bytes: u64,
    /// With less than this free, nothing new is accepted.
    pub min_free: u64,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// When an append is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it is written: survives a kill of the process.
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

/// What is told of each append, in order of sequence, before its caller is answered.
pub type Sink<T> = Box<dyn FnMut(Appended, T) + Send>;

struct Request<T> {
    payload: Vec<u8>,
    entry: T,
    durability: Durability,
    reply: oneshot::Sender<Result<Appended, StoreError>>,
}

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

/// A journal that is open for appending. `T` is what the sink is told besides the place.
pub struct Journal<T> {
    sender: Mutex<Option<mpsc::Sender<Request<T>>>>,
    outlet: mpsc::WeakSender<Request<T>>,
    room: Semaphore,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
    state: Arc<std::sync::RwLock<Result<(), StoreError>>>,
    options: JournalOptions,
}

impl<T> std::fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Journal<T> {
    /// Opens a journal for appending after `end`, cutting the torn tail off.
    ///
    /// # Errors
    /// When the tail cannot be cut or the first segment cannot be made.
    pub fn open(options: JournalOptions, end: End, sink: Sink<T>) -> Result<Self, StoreError> {
        let (sender, receiver) = mpsc::channel(4_096);
        let (counts, state) = (Arc::<Counts>::default(), Arc::new(std::sync::RwLock::new(Ok(()))));
        let failed = |error: std::io::Error| unavailable(&options, &error);
        let mark = Mark::open(&*options.disk, &options.directory).map_err(failed)?;
        let mut committer = Committer {
            file: None,
            segment: end.segment.unwrap_or(0),
            offset: end.offset,
            written: end.sequence,
            synced: end.sequence,
            synced_offset: end.offset,
            unsynced: Vec::new(),
            mark,
            space: None,
            since_space: 0,
            sink,
            counts: Arc::clone(&counts),
            state: Arc::clone(&state),
            options: options.clone(),
        };
        committer.reopen().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || committer.run(receiver))
            .map_err(failed)?;
        Ok(Self {
            outlet: sender.downgrade(),
            sender: Mutex::new(Some(sender)),
            room: Semaphore::new(WAITING_BYTES),
            thread: std::sync::Mutex::new(Some(thread)),
            counts,
            state,
            options,
        })
    }

    /// Appends a payload. Answered as `durability` says.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Full`], [`StoreError::Unavailable`]. After an error the
    /// payload is not in the journal, unless the process dies before the journal has been opened anew.
    pub async fn append(&self, payload: Vec<u8>, entry: T, durability: Durability) -> Result<Appended, StoreError> {
        if payload.len() > frame::MAX_PAYLOAD {
            return Err(StoreError::TooLarge { what: "the entry", size: payload.len(), limit: frame::MAX_PAYLOAD });
        }
        let closed = || StoreError::Unavailable(Arc::from("the store is closed"));
        let bytes = u32::try_from(payload.len() + frame::HEADER).unwrap_or(u32::MAX);
        let _room = self.room.acquire_many(bytes).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let outlet = self.outlet.upgrade().ok_or_else(closed)?;
        outlet.send(Request { payload, entry, durability, reply }).await.map_err(|_| closed())?;
        drop(outlet);
        answer.await.map_err(|_| closed())?
    }

    /// Whether new facts are taken now. A full disk is looked at again, so that the answer changes
    /// when space returns, even while nobody appends.
    pub fn state(&self) -> Result<(), StoreError> {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        match state {
            Err(StoreError::Full { .. }) => match room(&self.options) {
                Some((free, needed)) if free < needed => Err(StoreError::Full { free, needed }),
                _ => Ok(()),
            },
            other => other,
        }
    }

    /// What was written since the journal was opened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Writes and syncs what waits, and ends the thread. Appends after this are refused.
    pub async fn close(&self) {
        drop(self.sender.lock().await.take());
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread has been reported by the panic hook; there is nothing left to close.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }
}

struct Committer<T> {
    file: Option<Box<dyn DiskFile>>,
    segment: u64,
    offset: u64,
    /// The last sequence number written, and the last synced with the offset after it.
    written: u64,
    synced: u64,
    synced_offset: u64,
    /// The frames between those two.
    unsynced: Vec<u8>,
    mark: Mark,
    /// When it was last asked, and the free and needed bytes.
    space: Option<(Duration, u64, u64)>,
    since_space: u64,
    sink: Sink<T>,
    counts: Arc<Counts>,
    state: Arc<std::sync::RwLock<Result<(), StoreError>>>,
    options: JournalOptions,
}

impl<T> Committer<T> {
    fn run(mut self, mut receiver: mpsc::Receiver<Request<T>>) {
        while let Some(first) = receiver.blocking_recv() {
            let mut batch = vec![first];
            let mut bytes = batch.iter().map(|request| request.payload.len()).sum::<usize>();
            while bytes < BATCH_BYTES {
                let Ok(next) = receiver.try_recv() else { break };
                bytes += next.payload.len();
                batch.push(next);
            }
            let batch = self.refuse_new_when_full(batch);
            if let Err(error) = self.commit(batch) {
                self.failed(&mut receiver, &error);
            }
        }
        // Nobody waits for these; a failure here is found, and told, when the journal is next opened.
        let ended = self.sync().and_then(|()| self.mark.sync());
        if let Err(error) = ended {
            tracing::warn!(error = %error, "the journal could not be synced while closing");
        }
    }

    /// Takes new facts out of a batch while the disk is nearly full.
    fn refuse_new_when_full(&mut self, batch: Vec<Request<T>>) -> Vec<Request<T>> {
        if batch.iter().all(|request| request.durability != Durability::New) {
            return batch;
        }
        let Some((free, needed)) = self.shortage() else { return batch };
        let error = StoreError::Full { free, needed };
        self.tell(Err(error.clone()));
        let (new, follow): (Vec<_>, Vec<_>) = batch.into_iter().partition(|r| r.durability == Durability::New);
        for request in new {
            answer(request.reply, Err(error.clone()));
        }
        follow
    }

    /// Free and needed bytes, when fewer are free than needed.
    fn shortage(&mut self) -> Option<(u64, u64)> {
        let now = self.options.clock.monotonic();
        let fresh =
            self.since_space < 16 << 20 && self.space.is_some_and(|(at, ..)| now.saturating_sub(at) < SPACE_AGE);
        if !fresh {
            let (free, needed) = room(&self.options)?;
            self.space = Some((now, free, needed));
            self.since_space = 0;
            if free >= needed {
                self.tell(Ok(()));
            }
        }
        self.space.map(|(_, free, needed)| (free, needed)).filter(|(free, needed)| free < needed)
    }

    /// Writes a batch, syncs it where one of it asks for that, tells the sink, answers.
    fn commit(&mut self, batch: Vec<Request<T>>) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let rolled = self.roll();
        let before = (self.unsynced.len(), self.written, self.offset);
        let written = rolled.and_then(|()| self.write(&batch));
        let sync = batch.iter().any(|request| request.durability != Durability::Written);
        let done = written.and_then(|places| {
            if sync || self.unsynced.len() > UNSYNCED_BYTES { self.sync().map(|()| places) } else { Ok(places) }
        });
        match done {
            Ok(places) => {
                for (request, appended) in batch.into_iter().zip(places) {
                    (self.sink)(appended, request.entry);
                    answer(request.reply, Ok(appended));
                }
                Ok(())
            }
            Err(error) => {
                // What is refused must not be written again when the journal is opened anew.
                self.unsynced.truncate(before.0);
                (self.written, self.offset) = (before.1, before.2);
                let error = unavailable(&self.options, &error);
                for request in batch {
                    answer(request.reply, Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    fn write(&mut self, batch: &[Request<T>]) -> std::io::Result<Vec<Appended>> {
        let Some(file) = self.file.as_mut() else { return Err(std::io::Error::other("no segment is open")) };
        let (begin, mut places) = (self.unsynced.len(), Vec::with_capacity(batch.len()));
        let mut sequence = self.written;
        for request in batch {
            sequence += 1;
            let offset = self.offset + (self.unsynced.len() - begin) as u64;
            let length = u32::try_from(request.payload.len()).unwrap_or(u32::MAX);
            places.push(Appended { sequence, pointer: Pointer { segment: self.segment, offset, length } });
            frame::encode(sequence, &request.payload, &mut self.unsynced);
        }
        let bytes = self.unsynced.get(begin..).unwrap_or_default();
        let length = bytes.len() as u64;
        file.write_all(bytes)?;
        (self.offset, self.written) = (self.offset + length, sequence);
        self.since_space += length;
        self.counts.frames.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.counts.bytes.fetch_add(length, Ordering::Relaxed);
        Ok(places)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        if self.synced == self.written {
            return Ok(());
        }
        let Some(file) = self.file.as_mut() else { return Err(std::io::Error::other("no segment is open")) };
        file.sync_data()?;
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        (self.synced, self.synced_offset) = (self.written, self.offset);
        self.unsynced.clear();
        self.unsynced.shrink_to(UNSYNCED_BYTES);
        self.mark.write(self.synced)
    }

    /// Begins a new segment when this one is full.
    fn roll(&mut self) -> std::io::Result<()> {
        if self.file.is_some() && self.offset < self.options.segment_bytes {
            return Ok(());
        }
        self.sync()?;
        self.mark.sync()?;
        self.begin_segment()
    }

    fn begin_segment(&mut self) -> std::io::Result<()> {
        self.file = None;
        let first = self.synced + 1;
        self.file = Some(segment::create(&*self.options.disk, &self.options.directory, first)?);
        (self.segment, self.offset, self.synced_offset) = (first, segment::HEADER, segment::HEADER);
        Ok(())
    }

    /// Refuses everything until a new segment holds all that was acknowledged.
    fn failed(&mut self, receiver: &mut mpsc::Receiver<Request<T>>, error: &StoreError) {
        tracing::error!(error = %error, journal = %self.options.directory.display(), "the journal takes no writes; it will be opened anew");
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.tell(Err(error.clone()));
        loop {
            while let Ok(request) = receiver.try_recv() {
                answer(request.reply, Err(error.clone()));
            }
            if receiver.is_closed() && receiver.is_empty() {
                return;
            }
            std::thread::sleep(REOPEN_PAUSE);
            match self.reopen() {
                Ok(()) => break,
                Err(again) => tracing::warn!(error = %again, "the journal still takes no writes"),
            }
        }
        tracing::info!(journal = %self.options.directory.display(), "the journal takes writes again");
        self.tell(Ok(()));
    }

    /// Cuts the current segment to what is known to be synced, checks that it reads back, and writes
    /// what was acknowledged but not synced into a new one. The failed descriptor is dropped unsynced.
    fn reopen(&mut self) -> std::io::Result<()> {
        self.file = None;
        let (disk, directory) = (Arc::clone(&self.options.disk), self.options.directory.clone());
        if self.segment > 0 {
            let path = segment::path(&directory, self.segment);
            let empty = self.synced < self.segment;
            let next_exists = segment::list(&*disk, &directory)?.last().is_some_and(|last| *last > self.segment);
            if next_exists {
                // An earlier attempt made the next segment and failed after that.
                disk.remove(&segment::path(&directory, self.synced + 1))?;
            }
            if empty {
                disk.remove(&path)?;
                disk.sync_directory(&directory)?;
            } else {
                let mut file = disk.append(&path)?;
                file.truncate(self.synced_offset)?;
                file.sync_data()?;
            }
        }
        let end =
            segment::walk(&*disk, &directory, self.synced, &mut |_, _, _| Ok(())).map_err(std::io::Error::other)?;
        if end.segment.is_some() && end.sequence != self.synced {
            return Err(std::io::Error::other(format!("it ends with {} instead of {}", end.sequence, self.synced)));
        }
        self.mark = Mark::open(&*disk, &directory)?;
        self.begin_segment()?;
        if let Some(file) = self.file.as_mut().filter(|_| !self.unsynced.is_empty()) {
            file.write_all(&self.unsynced)?;
            self.offset += self.unsynced.len() as u64;
        }
        self.sync()
    }

    fn tell(&self, state: Result<(), StoreError>) {
        *self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner) = state;
    }
}

/// Answers a caller, who may have gone away.
fn answer(reply: oneshot::Sender<Result<Appended, StoreError>>, result: Result<Appended, StoreError>) {
    let _gone = reply.send(result).is_err();
}

/// Free and needed bytes. A file system that cannot be asked is taken to have room: the write itself
/// will tell.
fn room(options: &JournalOptions) -> Option<(u64, u64)> {
    let space = options.disk.space(&options.directory).ok()?;
    Some((space.free, options.min_free.min(space.total / 20)))
}

fn unavailable(options: &JournalOptions, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(Arc::from(format!("writing to {} failed: {error}", options.directory.display())))
}
