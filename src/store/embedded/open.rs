//! Opening a store: lock, format, journals, index, scheduler. What an opening writes is in [`super::begin`].

use std::fs;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::applier::{self, Applier, Surroundings};
use super::audit::AuditLog;
use super::begin::{Beginning, Left};
use super::dedupe::Dedupe;
use super::index::{Index, ItemKind};
use super::lock::Lock;
use super::op::{ItemKey, MATCH, Op};
use super::records::Records;
use super::row::{DeliveryRow, Stand, Tries};
use super::scheduler::{NewItem, Scheduler};
use super::{Embedded, Entry};
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::SystemRandom;
use crate::base::units::Reserve;
use crate::store::StoreError;
use crate::store::disk::{Disk, SystemDisk, own_directory};
use crate::store::journal::mark;
use crate::store::journal::salt::{self, Salt};
use crate::store::journal::segment::{self, End};
use crate::store::journal::{self, Journal, JournalOptions};
use crate::store::model::{Attempt, Lane};

/// The newest format this version reads and the one it writes.
pub const FORMAT: u32 = 6;
/// The journals, each a directory.
pub const JOURNALS: [&str; 3] = ["events", "records", "audit"];
/// An item that this many processes held when they ended is given up. A process that is killed from
/// outside looks the same as one that its work has ended, so the last of these must come after [`CALM`].
pub(super) const DEATHS: u8 = 3;
/// How long a process must have run before it tries an item that one less than [`DEATHS`] processes held
/// when they ended. Processes that are killed at random are mostly killed sooner, or without it under way;
/// an item that ends its process does so whenever it is tried.
const CALM: Duration = Duration::from_secs(10);
/// Stands in a directory for as long as a store is restored into it.
pub(super) const RESTORING: &str = "restoring";
/// Stands in a restored store until what was unfinished in the backup is held.
pub(super) const RESTORED: &str = "restored";

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state directory; made when it is not there.
    pub directory: PathBuf,
    /// Bytes of sled's cache. Default 32 MiB.
    pub cache_bytes: u64,
    /// With less than this free, nothing new is accepted.
    pub min_free: Reserve,
    /// A segment this large is followed by a new one. Default 64 MiB.
    pub segment_bytes: u64,
    /// How long things are kept.
    pub retention: Retention,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// How long finished events are kept. Unfinished and dead ones, and dedupe marks within their window,
/// are kept in any case. The audit log is kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At least this long after they came, unless `bytes` is exceeded. Default 7 days.
    pub age: Duration,
    /// The oldest go when the events journal is larger than this. Default none.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_hours(7 * 24), bytes: None }
    }
}

impl Options {
    /// The defaults, for a directory.
    pub fn new(directory: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            directory: directory.into(),
            cache_bytes: 32 << 20,
            min_free: Reserve::Usual,
            segment_bytes: 64 << 20,
            retention: Retention::default(),
            disk: Arc::new(SystemDisk),
            clock,
        }
    }

    /// What the applier needs of it.
    pub(super) fn surroundings(&self) -> Surroundings {
        Surroundings {
            disk: Arc::clone(&self.disk),
            clock: Arc::clone(&self.clock),
            journal: self.directory.join("events"),
            dedupe: Arc::<Dedupe>::default(),
            synced: Arc::default(),
        }
    }

    pub(super) fn journal(&self, name: &str, salt: &salt::Current) -> JournalOptions {
        JournalOptions {
            directory: self.directory.join(name),
            segment_bytes: self.segment_bytes,
            min_free: self.min_free,
            disk: Arc::clone(&self.disk),
            clock: Arc::clone(&self.clock),
            synced: Arc::default(),
            salt: salt.clone(),
        }
    }
}

/// Opens a store, making an empty one in a directory that has none, and begins to use it. Blocks; call it from a thread
/// that may wait.
///
/// # Errors
/// As [`look_into`] and [`Embedded::begin`].
pub fn open(options: &Options) -> Result<Arc<Embedded>, StoreError> {
    let store = look_into(options)?;
    store.begin()?;
    Ok(store)
}

/// A salt for what is written from now on.
pub(super) fn new_salt() -> Result<Salt, StoreError> {
    Salt::new(&SystemRandom::default()).map_err(|error| StoreError::Unavailable(Arc::from(error.to_string())))
}

/// Opens a store without writing anything that the version before does not read, so that a start which is refused
/// afterwards leaves the store to that. Until [`Embedded::begin`] it takes no events and gives no work. Blocks.
///
/// # Errors
/// [`StoreError::InUse`], [`StoreError::NewerFormat`], [`StoreError::Damaged`],
/// [`StoreError::Unavailable`]; [`StoreError::NoRoom`] where there is no room for a new store. A damaged index alone is
/// not an error: it is rebuilt. Nor is a full disk: then the store is read as far as that goes, and what is missing is
/// made good when there is room.
pub fn look_into(options: &Options) -> Result<Arc<Embedded>, StoreError> {
    let lock = Arc::new(Lock::take(&options.directory)?);
    super::maintenance::end_interrupted(&options.directory)?;
    let format = prepare(options)?;
    // One of a format without salts has none until it is begun: the version before may still have to read what is written.
    let salt = salt::Current::of(format.salt());
    let surroundings = options.surroundings();
    let dedupe = Arc::clone(&surroundings.dedupe);
    let synced = Arc::clone(&surroundings.synced);
    let mut left = Left::new(options, format.begun, salt.clone());
    let (index, end, found) = match caught_up(options, &surroundings) {
        Ok((index, end)) => {
            let (found, interrupted) = scheduler(options, &index, end)?;
            left.take_up(interrupted);
            (index, end, found)
        }
        Err(error) => {
            left.waits_for_room(&error)?;
            let end = journal_end(options)?;
            (Index::unopened(&options.directory.join("index"), options.cache_bytes), end, Scheduler::default())
        }
    };
    let (index, scheduler) = (Arc::new(index), Arc::new(Mutex::new(found)));
    let wake = Arc::new(watch::Sender::new(0));
    let records = Arc::new(Records::open(options.journal("records", &salt), Arc::clone(&lock))?);
    let audit = Arc::new(AuditLog::open(options.journal("audit", &salt), Arc::clone(&lock))?);
    let (applier, feed) = Applier::start(Arc::clone(&index), surroundings, Arc::clone(&lock) as _)
        .map_err(|error| unavailable(&options.directory, &error))?;
    let sink = sink(Arc::clone(&scheduler), Arc::clone(&wake), feed);
    let journal = JournalOptions { synced, ..options.journal("events", &salt) };
    Ok(Arc::new(Embedded {
        directory: options.directory.clone(),
        disk: Arc::clone(&options.disk),
        clock: Arc::clone(&options.clock),
        events: Journal::open(journal, end, sink, Arc::clone(&lock) as _)?,
        scheduler,
        applier,
        index,
        dedupe,
        wake,
        records,
        audit,
        retention: options.retention,
        retiring: tokio::sync::Mutex::new(()),
        beginning: Arc::new(Beginning::with(left)),
        lock,
    }))
}

/// Where the events journal ends, of which no frame but those of the newest segment is read.
fn journal_end(options: &Options) -> Result<End, StoreError> {
    segment::walk(&*options.disk, &options.directory.join("events"), u64::MAX, &mut |_, _, _| {
        Ok(ControlFlow::Continue(()))
    })
}

/// What written operations are told to: the scheduler, whoever waits for work, and the index.
fn sink(scheduler: Arc<Mutex<Scheduler>>, wake: Arc<watch::Sender<u64>>, feed: applier::Feed) -> journal::Sink<Entry> {
    Box::new(move |mut written| {
        let mut state = scheduler.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, entry) in &mut written {
            state.apply(&entry.op);
            if let Some((item, revived)) = entry.replay.take() {
                state.uncount_dead(revived);
                state.insert(item);
            }
        }
        drop(state);
        let (mut work, mut ops) = (false, Vec::with_capacity(written.len()));
        for (appended, Entry { op, delivery_id, settling, replay: _ }) in written {
            delivery_id.into_iter().for_each(super::dedupe::Claim::written);
            settling.into_iter().for_each(super::work::Settling::written);
            work |= !matches!(op, Op::Claimed { .. });
            ops.push((appended, op));
        }
        feed.push(ops);
        if work {
            wake.send_modify(|count| *count = count.wrapping_add(1));
        }
    })
}

/// What the format file says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Format {
    #[serde(rename = "format")]
    version: u32,
    /// What hides the numbers of entries. It stands here and in each segment, so that damage of one of them leaves the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    salt: Option<u64>,
    /// Whether this version has begun to use the store. Then each journal has a mark, and one without was emptied.
    #[serde(default)]
    begun: bool,
}

impl Format {
    /// Of a store that is made or taken over by this version.
    pub fn new(salt: Salt, begun: bool) -> Self {
        Self { version: FORMAT, salt: Some(salt.stored()), begun }
    }

    /// The salt, or none.
    pub fn salt(&self) -> Salt {
        self.salt.map(Salt::from_stored).unwrap_or_default()
    }
}

/// Makes the layout, or checks that all of it is there.
fn prepare(options: &Options) -> Result<Format, StoreError> {
    let (directory, disk) = (&options.directory, &options.disk);
    let io = |error: std::io::Error| unavailable(directory, &error);
    let format = directory.join("format");
    if directory.join(RESTORING).exists() {
        return Err(StoreError::Damaged {
            what: "a restore into this directory did not end".to_owned(),
            place: directory.display().to_string(),
            help: "empty the directory, and restore the backup again".to_owned(),
        });
    }
    let parts = JOURNALS.map(|part| directory.join(part));
    match fs::read(&format) {
        Ok(bytes) => {
            let found = read_format(&bytes, &format)?;
            let missing = parts.iter().find(|part| !part.is_dir());
            if let Some(part) = missing {
                return Err(segment::damaged("a directory of the store is missing", part, 0));
            }
            parts.iter().try_for_each(|part| own_directory(part)).map_err(io)?;
            emptied(options).map_or(Ok(found), |part| Err(emptied_error(&part)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // The format is written last, before anything is in the journals.
            for part in parts.iter().filter(|part| part.exists()) {
                if fs::read_dir(part).map_err(io)?.next().is_some() {
                    return Err(segment::damaged("the format file is missing, but the store is not empty", &format, 0));
                }
            }
            parts.iter().try_for_each(|part| own_directory(part)).map_err(io)?;
            let format = Format::new(new_salt()?, false);
            write_format(&**disk, directory, &format).map_err(io)?;
            // A relative path of one name has an empty parent, which stands for the working directory.
            let parent =
                directory.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
            parent.map_or(Ok(()), |parent| disk.sync_directory(parent)).map_err(io)?;
            Ok(format)
        }
        Err(error) => Err(io(error)),
    }
}

/// The journal that has nothing in it although the store was begun, or another has entries: all of them are begun before
/// anything is written.
pub(super) fn emptied(options: &Options) -> Option<PathBuf> {
    let parts = JOURNALS.map(|part| options.directory.join(part));
    // One whose mark does not read is not empty, and is told of where it is read.
    let bounds = parts.each_ref().map(|part| mark::read(&*options.disk, part));
    let is_used = bounds.iter().any(|bounds| matches!(bounds, Ok(Some(bounds)) if bounds.durable > 0));
    let is_bare = bounds.iter().all(|bounds| matches!(bounds, Ok(None)));
    let is_begun = || format_of(&options.directory).is_some_and(|format| format.begun);
    let empty = parts.into_iter().zip(bounds).find(|(_, bounds)| matches!(bounds, Ok(None)));
    empty.filter(|_| is_used || is_begun() || is_bare && is_indexed(options)).map(|(part, _)| part)
}

/// Whether there is an index that has been given entries, as in a store of an older format. One that does not open tells
/// nothing.
fn is_indexed(options: &Options) -> bool {
    let index = options.directory.join("index");
    index.is_dir() && Index::open(&index, options.cache_bytes).is_ok_and(|index| index.applied() > 0)
}

/// What is told of such a journal.
pub(super) fn emptied_error(part: &Path) -> StoreError {
    segment::damaged("a journal is gone: the store has been in use, and this one has not even a beginning", part, 0)
}

/// What the format file of a store says, if it reads.
pub(super) fn format_of(directory: &Path) -> Option<Format> {
    serde_json::from_slice(&fs::read(directory.join("format")).ok()?).ok()
}

pub(super) fn read_format(bytes: &[u8], path: &Path) -> Result<Format, StoreError> {
    let unread = |_| segment::damaged("the format file does not read", path, 0);
    let told: serde_json::Value = serde_json::from_slice(bytes).map_err(unread)?;
    refuse_newer(told.get("format"), path.parent().unwrap_or(path))?;
    let read: Format = serde_json::from_value(told).map_err(unread)?;
    match read.version {
        2..=FORMAT => Ok(read),
        other => Err(segment::damaged(&format!("the format file says {other}, which never was one"), path, 0)),
    }
}

/// Refuses what a newer version wrote, before its other fields are read, of which this version may not know all.
pub(super) fn refuse_newer(format: Option<&serde_json::Value>, directory: &Path) -> Result<(), StoreError> {
    let version = format.and_then(serde_json::Value::as_u64).and_then(|told| u32::try_from(told).ok());
    version.filter(|version| *version > FORMAT).map_or(Ok(()), |found| {
        Err(StoreError::NewerFormat { path: directory.display().to_string(), found, supported: FORMAT })
    })
}

/// Writes the format file so that it is whole or as it was, and durable.
pub(super) fn write_format(disk: &dyn Disk, directory: &Path, format: &Format) -> std::io::Result<()> {
    let new = directory.join("format.new");
    drop(disk.remove(&new));
    let mut file = disk.create(&new)?;
    file.write_all(&serde_json::to_vec(format)?)?;
    file.sync_data()?;
    disk.rename(&new, &directory.join("format"))?;
    disk.sync_directory(directory)
}

/// The index, brought up to the journal's end; made anew when it is damaged.
pub(super) fn caught_up(options: &Options, from: &Surroundings) -> Result<(Index, End), StoreError> {
    let path = options.directory.join("index");
    // The index is no longer needed where the journal itself is damaged, nor would it be whole.
    let whole = |index: Index| {
        let end = applier::catch_up(from, &index, u64::MAX)?;
        if end.sequence < index.applied() {
            // Power loss took operations that were written but not synced, and which the index has.
            // Their numbers will be used again for others.
            return Err(index.damaged("it is ahead of the journal"));
        }
        Ok((index, end))
    };
    match Index::open(&path, options.cache_bytes).and_then(whole) {
        Err(error @ StoreError::Damaged { .. }) if is_about(&error, &path) => {
            tracing::warn!(error = %error, "the index is made anew from the journal");
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(&path, &error)),
                _ => Index::open(&path, options.cache_bytes).and_then(whole),
            }
        }
        other => other,
    }
}

pub(super) fn is_about(error: &StoreError, path: &Path) -> bool {
    matches!(error, StoreError::Damaged { place, .. } if place.starts_with(&*path.to_string_lossy()))
}

/// The scheduler as the index tells it, and what was held when the last process ended, with how many
/// before it had.
pub(super) fn scheduler(
    options: &Options,
    index: &Index,
    end: End,
) -> Result<(Scheduler, Vec<(ItemKey, u8)>), StoreError> {
    let now = options.clock.now();
    let (mut scheduler, mut interrupted) = (Scheduler::beginning_at(end.sequence), Vec::new());
    for key in index.items(ItemKind::Active)? {
        let key = key?;
        let (item, tries) = active_item(index, key, now)?;
        if tries.claimed {
            interrupted.push((key, tries.deaths));
        }
        scheduler.insert(item);
    }
    for key in index.items(ItemKind::Dead)? {
        key?;
        scheduler.count_dead();
    }
    Ok((scheduler, interrupted))
}

fn active_item(index: &Index, key: ItemKey, now: Timestamp) -> Result<(NewItem, Tries), StoreError> {
    let missing = || index.damaged("a work item has no row");
    let suspect = |tries: Tries| tries.claimed || tries.deaths > 0;
    let deaths = |tries: Tries| tries.deaths.saturating_add(u8::from(tries.claimed));
    let calm = |tries, due: Timestamp| if deaths(tries) + 1 >= DEATHS { due.max(now.after(CALM)) } else { due };
    let event = index.event(key.0)?.ok_or_else(missing)?;
    if key.1 == MATCH {
        let (tries, lane) = (event.tries, Lane::matching_of(event.head.endpoint.as_deref()));
        let due = calm(tries, event.head.received_at.min(now));
        let rule = Arc::from("");
        return Ok((
            NewItem {
                key,
                lane,
                rule,
                action: event.deliveries,
                attempts: tries.begun,
                due,
                since: None,
                suspect: suspect(tries),
            },
            tries,
        ));
    }
    let row = index.delivery(key)?.ok_or_else(missing)?;
    let due = match row.stand {
        // Where the clock was set back since it was planned, it waits as long as was meant then.
        Stand::Ready(due) => {
            due.before(Some(planned(&row, due).since(now)).filter(|step| *step >= STEP).unwrap_or_default())
        }
        Stand::Done | Stand::Dead | Stand::Withdrawn => now,
    };
    let (rule, tries, since) = (Arc::from(row.rule.as_str()), row.tries, Some(due));
    let (due, suspect, attempts) = (calm(tries, due), suspect(tries), tries.begun);
    let item = NewItem { key, lane: row.lane, rule, action: row.action, attempts, due, since, suspect };
    Ok((item, tries))
}

/// The least that the clock was set back by to count.
const STEP: Duration = Duration::from_secs(2);

/// The moment at which it was said when a delivery is due, by the clock of then.
fn planned(row: &DeliveryRow, due: Timestamp) -> Timestamp {
    let ended = |attempt: &Attempt| attempt.started_at.after(Duration::from_millis(attempt.duration_ms));
    row.attempts.last().map_or(due, ended)
}

/// Bytes of the segments and marks of all journals, by a listing of their few directories.
pub(super) fn bytes_of_journals(directory: &Path) -> u64 {
    let journals = JOURNALS.map(|part| directory.join(part));
    let files = journals.iter().filter_map(|journal| fs::read_dir(journal).ok()).flatten().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Whether no journal has anything in it, not even a beginning.
pub(super) fn holds_nothing(directory: &Path) -> bool {
    let holds_something = |part: &&str| fs::read_dir(directory.join(part)).is_ok_and(|entries| entries.count() > 0);
    !JOURNALS.iter().any(holds_something)
}

/// What is told where a store should be and is not.
pub(super) fn no_store(directory: &Path) -> StoreError {
    if directory.is_file() {
        return unavailable(directory, &ErrorKind::NotADirectory.into());
    }
    StoreError::NotFound(format!("there is no store at {}: the first start of a gateway makes it", directory.display()))
}

pub(super) fn unavailable(path: &Path, error: &std::io::Error) -> StoreError {
    if error.kind() == ErrorKind::StorageFull {
        return StoreError::NoRoom { path: path.display().to_string() };
    }
    if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) && !path.is_dir() {
        return StoreError::NotFound(format!("{} is no directory: it, or what it is in, is a file", path.display()));
    }
    StoreError::Unavailable(Arc::from(format!("{}: {error}", path.display())))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::clock::{SystemClock, Timestamp};
    use crate::base::id::EventId;
    use crate::store::model::{Accepted, Attempt, Claim, EventState, Item, NewEvent, PlannedDelivery};
    use crate::store::{Events, Work};
    use bytes::Bytes;

    pub fn options(directory: &Path) -> Options {
        Options { min_free: Reserve::Bytes(0), ..Options::new(directory, Arc::new(SystemClock::new())) }
    }

    /// An event of 1,000 bytes.
    pub fn event(number: u128) -> NewEvent {
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
        let claim =
            Claim { now, until: now.after(Duration::from_mins(1)), max: 10, busy: &[], per_lane: 10, matching: 10 };
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

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_of_an_older_format_is_left_to_that_version_until_it_is_used() {
        let directory = tempfile::tempdir().expect("a directory");
        open(&options(directory.path())).expect("opens").close().await;
        let format = directory.path().join("format");
        let older = r#"{"format":2}"#;
        fs::write(&format, older).expect("writes");
        let store = look_into(&options(directory.path())).expect("opens");
        assert!(matches!(store.accept(event(1)).await, Err(StoreError::Unavailable(_))), "it is not in use yet");
        store.close().await;
        drop(store);
        assert_eq!(fs::read_to_string(&format).expect("reads"), older, "a refused start leaves it as it was");
        let store = open(&options(directory.path())).expect("opens");
        assert_eq!(store.accept(event(1)).await.expect("accepts"), Accepted::New);
        let format = format_of(directory.path()).expect("is one");
        assert!(format.version == FORMAT && format.begun && format.salt() != Salt::NONE);
        store.close().await;
    }
}
