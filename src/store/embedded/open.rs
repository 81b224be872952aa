//! Opening a store: lock, format, journals, index, scheduler.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::applier::{self, Applier};
use super::audit::AuditLog;
use super::events::Dedupe;
use super::index::{Index, ItemKind, Stand};
use super::op::{self, ItemKey, MATCH, Op, Outcome};
use super::records::Records;
use super::scheduler::{NewItem, Scheduler};
use super::{Embedded, events};
use crate::base::clock::Clock;
use crate::store::StoreError;
use crate::store::disk::{Disk, SystemDisk};
use crate::store::journal::segment::{self, End};
use crate::store::journal::{Appended, Journal, JournalOptions};
use crate::store::model::{Attempt, Lane};

/// The newest format this version reads and the one it writes.
pub const FORMAT: u32 = 1;
/// Operations applied in one step while catching up.
const CATCH_UP: usize = 4_096;
/// An item that was claimed this often without a result has killed its worker each time.
const STRIKES: u8 = 2;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; made when it is not there.
    pub directory: PathBuf,
    /// Bytes of sled's cache. Default 32 MiB.
    pub cache_bytes: u64,
    /// With less than this free, nothing new is accepted; never more than 5 % of the disk. Default
    /// 256 MiB.
    pub min_free: u64,
    /// A segment this large is followed by a new one. Default 64 MiB.
    pub segment_bytes: u64,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// The defaults, for a directory.
    pub fn new(directory: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            directory: directory.into(),
            cache_bytes: 32 << 20,
            min_free: 256 << 20,
            segment_bytes: 64 << 20,
            disk: Arc::new(SystemDisk),
            clock,
        }
    }

    fn journal(&self, name: &str) -> JournalOptions {
        JournalOptions {
            directory: self.directory.join(name),
            segment_bytes: self.segment_bytes,
            min_free: self.min_free,
            disk: Arc::clone(&self.disk),
            clock: Arc::clone(&self.clock),
        }
    }
}

/// Opens a store, making an empty one in a directory that has none. Blocks; call it from a thread that
/// may wait.
///
/// # Errors
/// [`StoreError::InUse`], [`StoreError::NewerFormat`], [`StoreError::Damaged`],
/// [`StoreError::Unavailable`]. A damaged index alone is not an error: it is rebuilt.
pub fn open(options: &Options) -> Result<Arc<Embedded>, StoreError> {
    let lock = Lock::take(&options.directory)?;
    prepare(options)?;
    let events_options = options.journal("events");
    let (index, end) = caught_up(options, &events_options.directory)?;
    let scheduler = Arc::new(Mutex::new(scheduler(options, &index, end)?));
    let index = Arc::new(index);
    let wake = Arc::new(watch::Sender::new(0));
    let (applier, feed) =
        Applier::start(Arc::clone(&index)).map_err(|error| unavailable(&options.directory, &error))?;
    let sink = sink(Arc::clone(&scheduler), Arc::clone(&wake), feed);
    let store = Embedded {
        directory: options.directory.clone(),
        disk: Arc::clone(&options.disk),
        clock: Arc::clone(&options.clock),
        events: Journal::open(events_options, end, sink)?,
        scheduler,
        applier,
        index,
        dedupe: Dedupe::default(),
        wake,
        records: Records::open(options.journal("records"))?,
        audit: AuditLog::open(options.journal("audit"))?,
        lock,
    };
    Ok(Arc::new(store))
}

/// What each written operation is told to: the scheduler, whoever waits for work, and the index.
fn sink(
    scheduler: Arc<Mutex<Scheduler>>,
    wake: Arc<watch::Sender<u64>>,
    feed: applier::Feed,
) -> Box<dyn FnMut(Appended, Op) + Send> {
    Box::new(move |appended, op| {
        scheduler.lock().unwrap_or_else(PoisonError::into_inner).apply(&op);
        let work = !matches!(op, Op::Claimed { .. });
        feed.push(appended, op);
        if work {
            wake.send_modify(|count| *count = count.wrapping_add(1));
        }
    })
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
}

/// Makes the layout, or checks that all of it is there.
fn prepare(options: &Options) -> Result<(), StoreError> {
    let directory = &options.directory;
    let io = |error: std::io::Error| unavailable(directory, &error);
    let format = directory.join("format");
    let parts = ["events", "records", "audit"].map(|part| directory.join(part));
    match fs::read(&format) {
        Ok(bytes) => {
            let read: Format = serde_json::from_slice(&bytes)
                .map_err(|_| segment::damaged("the format file does not read", &format, 0))?;
            if read.format > FORMAT {
                let path = directory.display().to_string();
                return Err(StoreError::NewerFormat { path, found: read.format, supported: FORMAT });
            }
            match parts.iter().find(|part| !part.is_dir()) {
                Some(missing) => Err(segment::damaged("a directory of the store is missing", missing, 0)),
                None => Ok(()),
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(found) = parts.iter().find(|part| part.exists()) {
                let nothing_in_it = fs::read_dir(found).is_ok_and(|mut entries| entries.next().is_none());
                if !nothing_in_it {
                    return Err(segment::damaged("the format file is missing, but the store is not empty", &format, 0));
                }
            }
            parts.iter().try_for_each(fs::create_dir_all).map_err(io)?;
            let text = serde_json::to_vec(&Format { format: FORMAT }).unwrap_or_default();
            let mut file = File::create(&format).map_err(io)?;
            file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
            options.disk.sync_directory(directory).map_err(io)?;
            directory.parent().map_or(Ok(()), |parent| options.disk.sync_directory(parent)).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// The index, brought up to the journal's end; made anew when it is damaged.
fn caught_up(options: &Options, journal: &Path) -> Result<(Index, End), StoreError> {
    let path = options.directory.join("index");
    let opened = Index::open(&path, options.cache_bytes).and_then(|index| {
        let applied = index.applied()?;
        catch_up(options, journal, &index, applied).map(|end| (index, end))
    });
    match opened {
        Err(error @ StoreError::Damaged { .. }) if is_about(&error, &path) => {
            tracing::warn!(error = %error, "the index is made anew from the journal");
            fs::remove_dir_all(&path).map_err(|error| unavailable(&path, &error))?;
            let index = Index::open(&path, options.cache_bytes)?;
            catch_up(options, journal, &index, 0).map(|end| (index, end))
        }
        other => other,
    }
}

fn is_about(error: &StoreError, path: &Path) -> bool {
    matches!(error, StoreError::Damaged { place, .. } if place.starts_with(&*path.to_string_lossy()))
}

fn catch_up(options: &Options, journal: &Path, index: &Index, applied: u64) -> Result<End, StoreError> {
    let mut waiting: Vec<(Appended, Op)> = Vec::new();
    let end = segment::walk(&*options.disk, journal, applied + 1, &mut |sequence, pointer, payload| {
        waiting.push((Appended { sequence, pointer }, op::decode(payload)?.0));
        if waiting.len() >= CATCH_UP {
            applier::apply(index, waiting.iter().map(|(appended, op)| (*appended, op)))?;
            waiting.clear();
        }
        Ok(())
    })?;
    applier::apply(index, waiting.iter().map(|(appended, op)| (*appended, op)))?;
    if end.sequence < applied {
        // Power loss took operations that were written but not synced, and which the index has. Their
        // numbers will be used again, so the index must not take the next ones for known.
        index.write(super::index::Batch::default(), end.sequence)?;
    }
    Ok(end)
}

/// The scheduler as the index tells it. What was leased when the last process ended is ready again; an
/// item that was claimed twice without a result is given up, because it may be what ended the process.
fn scheduler(options: &Options, index: &Index, end: End) -> Result<Scheduler, StoreError> {
    let now = options.clock.now();
    let mut scheduler = Scheduler::beginning_at(end.sequence);
    let mut poison = Vec::new();
    for key in index.items(ItemKind::Active) {
        let key = key?;
        match active_item(index, key, now)? {
            Some((_, strikes)) if strikes >= STRIKES && key.1 != MATCH => poison.push(key),
            Some((item, _)) => scheduler.insert(item),
            None => {}
        }
    }
    quarantine(index, &poison, now)?;
    for key in index.items(ItemKind::Dead) {
        key?;
        scheduler.count_dead();
    }
    Ok(scheduler)
}

fn active_item(
    index: &Index,
    key: ItemKey,
    now: crate::base::clock::Timestamp,
) -> Result<Option<(NewItem, u8)>, StoreError> {
    if key.1 == MATCH {
        let row = index.event(key.0)?;
        return Ok(row.map(|row| {
            let due = row.head.received_at;
            let attempts = u32::from(row.strikes);
            (NewItem { key, lane: Lane::matching(), rule: Arc::from(""), action: 0, attempts, due }, row.strikes)
        }));
    }
    Ok(index.delivery(key)?.map(|row| {
        let due = match row.stand {
            Stand::Ready(due) => due,
            Stand::Done | Stand::Dead => now,
        };
        let rule = Arc::from(row.rule.as_str());
        (NewItem { key, lane: row.lane, rule, action: row.action, attempts: row.tried, due }, row.strikes)
    }))
}

/// Gives up items that ended the process each time they were tried. It is told to the index only: a
/// rebuilt index finds the same strikes in the journal and decides the same.
fn quarantine(index: &Index, poison: &[ItemKey], now: crate::base::clock::Timestamp) -> Result<(), StoreError> {
    if poison.is_empty() {
        return Ok(());
    }
    let sequence = index.applied()?;
    let ops: Vec<Op> = poison
        .iter()
        .map(|&(event, ordinal)| {
            tracing::error!(event = %crate::base::id::EventId::from_u128(event), ordinal, "a delivery ended the process twice and is given up");
            let error = "given up: the process ended each time this was tried; replay it when the cause is found";
            let attempt =
                Attempt { number: u32::from(STRIKES), started_at: now, duration_ms: 0, status: None, error: Some(error.to_owned()) };
            Op::Finished { event, ordinal, attempt, outcome: Outcome::Dead }
        })
        .collect();
    let nowhere = crate::store::journal::Pointer { segment: 0, offset: 0, length: 0 };
    applier::apply(index, ops.iter().map(|op| (Appended { sequence, pointer: nowhere }, op)))
}

/// The lock that keeps a second process off the store.
#[derive(Debug)]
pub struct Lock {
    file: Mutex<Option<File>>,
    bytes_at_open: u64,
}

impl Lock {
    fn take(directory: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| unavailable(directory, &error);
        fs::create_dir_all(directory).map_err(io)?;
        let path = directory.join("lock");
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // What the file says only helps a person; the lock itself is the kernel's.
            drop(file.read_to_string(&mut holder));
            let path = directory.display().to_string();
            return Err(StoreError::InUse { path, holder: holder.trim().to_owned() });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        write!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { file: Mutex::new(Some(file)), bytes_at_open: bytes_below(directory) })
    }

    /// Lets another process in.
    pub fn release(&self) {
        drop(self.file.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Bytes of the journals when the store was opened.
    pub fn bytes_at_open(&self) -> u64 {
        self.bytes_at_open
    }
}

fn bytes_below(directory: &Path) -> u64 {
    let journals = ["events", "records", "audit"].map(|part| directory.join(part));
    let files = journals.iter().filter_map(|journal| fs::read_dir(journal).ok()).flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

pub(super) fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(Arc::from(format!("{}: {error}", path.display())))
}

/// Reads the content that follows an accepted event's operation.
pub(super) fn content(store: &Embedded, row: &super::index::EventRow) -> Result<Vec<u8>, StoreError> {
    let directory = store.directory.join("events");
    let path = segment::path(&directory, row.pointer.segment);
    let file =
        store.disk.read(&path).map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", path.display()))))?;
    let payload = segment::payload(&file, &directory, row.pointer)?;
    events::content_of(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{SystemClock, Timestamp};
    use crate::base::id::EventId;
    use crate::store::model::{Accepted, Claim, EventState, Item, NewEvent, PlannedDelivery};
    use crate::store::{Events, Work};
    use bytes::Bytes;
    use std::time::Duration;

    fn options(directory: &Path) -> Options {
        Options { min_free: 0, ..Options::new(directory, Arc::new(SystemClock::new())) }
    }

    fn event(number: u128) -> NewEvent {
        NewEvent {
            id: EventId::from_u128(number << 80),
            integration: Arc::from("github"),
            endpoint: None,
            event_type: "push".to_owned(),
            delivery_id: Some(number.to_string()),
            dedupe_window: Duration::from_hours(1),
            received_at: Timestamp::from_millis(1),
            query: String::new(),
            headers: vec![("x".to_owned(), Bytes::from_static(b"y"))],
            body: Bytes::from(vec![b'b'; 1_000]),
        }
    }

    fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(from)?.flatten() {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                fs::create_dir_all(&target)?;
                copy(&entry.path(), &target)?;
            } else {
                fs::copy(entry.path(), target)?;
            }
        }
        Ok(())
    }

    async fn claim(store: &Embedded) -> Vec<crate::store::model::Leased> {
        let now = Timestamp::from_millis(10);
        let claim = Claim { now, until: now.after(Duration::from_mins(1)), max: 10, busy: &[], per_lane: 10 };
        store.claim(claim).await.expect("claims")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_accepted_is_there_after_a_kill_and_ends_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&options(directory.path())).expect("opens");
        assert_eq!(store.accept(event(1)).await.expect("accepts"), Accepted::New);
        assert_eq!(store.accept(event(1)).await.expect("accepts"), Accepted::Duplicate(event(1).id));
        // What a kill leaves is what the files hold at that moment.
        let left = tempfile::tempdir().expect("a directory");
        copy(directory.path(), left.path()).expect("copies");
        let directory = left;
        let store = open(&options(directory.path())).expect("opens again");
        assert_eq!(store.accept(event(1)).await.expect("accepts"), Accepted::Duplicate(event(1).id));
        let leased = claim(&store).await;
        assert_eq!(leased[0].item, Item::Match(event(1).id));
        let lane = Lane(Arc::from("destination:app"));
        let planned = PlannedDelivery {
            rule: "r".to_owned(),
            action: 0,
            summary: "deliver app".to_owned(),
            lane,
            due: Timestamp::from_millis(5),
        };
        store.plan(leased[0].lease, vec![planned]).await.expect("plans");
        let leased = claim(&store).await;
        let attempt = Attempt {
            number: 1,
            started_at: Timestamp::from_millis(6),
            duration_ms: 1,
            status: Some(200),
            error: None,
        };
        store.finish(leased[0].lease, attempt, crate::store::model::Verdict::Done).await.expect("finishes");
        store.close().await;
        drop(store);
        let store = open(&options(directory.path())).expect("opens a third time");
        assert!(claim(&store).await.is_empty());
        let found = store.event(event(1).id).await.expect("reads").expect("is there");
        assert_eq!((found.head.state, found.body.len(), found.headers.len()), (EventState::Done, 1_000, 1));
    }
}
