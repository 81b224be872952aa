//! Facts on disk, behind traits by purpose.
//!
//! The contract every engine keeps is written on the traits and checked by one suite
//! (`tests/it/store_contract.rs`). An engine knows nothing of definitions, HTTP or keys: bodies and
//! sealed records are bytes to it. Called by `connection`, `queue`, `webhook` and `admin`.

pub mod chain;
pub mod disk;
pub mod embedded;
pub mod journal;
pub mod model;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use model::{
    Accepted, Attempt, AuditEntry, AuditRecord, Claim, Delivery, Event, EventFilter, EventHead, Lane, Lease, Leased,
    NewEvent, Page, PageRequest, Plan, PlannedDelivery, QueueDepth, RecordKey, Verdict,
};

/// Everything an engine offers. Held as `Arc<dyn Store>` by the composition root only; rooms take
/// the narrowest trait that serves them.
pub trait Store: Events + Work + Records + Audit {
    /// Whether new facts can be made durable right now; `Err` says why not (a failed sync, a full
    /// disk). While it is an error every write below answers [`StoreError::Unavailable`] or
    /// [`StoreError::Full`], and reads go on.
    fn writable(&self) -> Result<(), StoreError>;

    /// Bytes the store takes on disk: a listing of its files, for whom looks now and then.
    fn bytes_on_disk(&self) -> u64;

    /// Bytes that are free on the file system of the store; `None` when it cannot be asked.
    fn bytes_free(&self) -> Option<u64>;
}

/// Events: verified webhooks, stored before they are acknowledged.
#[async_trait]
pub trait Events: Send + Sync + 'static {
    /// Stores an event, its dedupe mark and its work item as one durable unit.
    ///
    /// When this returns [`Accepted::New`] the event survives kill -9 and power loss, and is
    /// claimable by [`Work::claim`]. When an event of the same integration, endpoint and delivery
    /// id was accepted within `event.dedupe_window`, nothing is stored and the first one's id is
    /// returned; two concurrent calls with one delivery id store exactly one event.
    async fn accept(&self, event: NewEvent) -> Result<Accepted, StoreError>;

    /// An event with its headers and body; `None` when it was never stored or has been retired.
    async fn event(&self, id: EventId) -> Result<Option<Event>, StoreError>;

    /// What lists show of an event, without reading its content; `None` as with [`Self::event`].
    async fn head(&self, id: EventId) -> Result<Option<EventHead>, StoreError>;

    /// Event heads, newest first, after `page.after` where given.
    async fn list(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<EventHead>, StoreError>;

    /// The deliveries of an event in plan order, each with its attempts so far.
    async fn deliveries(&self, id: EventId) -> Result<Vec<Delivery>, StoreError>;
}

/// Work: what still has to happen because of events.
///
/// An accepted event is one *match* item: a worker claims it and either plans deliveries from its
/// rules or discards it. Each planned delivery is then an item of its own. An item is ready (due at
/// a time), leased, or terminal. A lease carries a fence that grows with each claim: an operation
/// with an outdated fence answers [`StoreError::LeaseLost`] and changes nothing. An expired lease
/// makes the item ready again, so work of a crashed process is done by the next.
#[async_trait]
pub trait Work: Backlog {
    /// Leases up to `claim.max` due items, oldest due first within a lane, from lanes that are not
    /// in `claim.busy`, and besides them up to `claim.matching` of the lanes of matching. The attempt is counted before this returns, so that an item which kills its
    /// worker is seen to have been tried.
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Leased>, StoreError>;

    /// Ends a match item with the deliveries its rules ask for; empty means *discarded by rule*.
    async fn plan(&self, lease: Lease, deliveries: Vec<PlannedDelivery>) -> Result<(), StoreError> {
        let plan = Plan { lease, deliveries };
        self.plan_all(vec![plan]).await.pop().unwrap_or(Err(StoreError::LeaseLost))
    }

    /// As [`Self::plan`] for several match items with one write. Answers for each in their order; one that is
    /// refused does not hold up the others.
    async fn plan_all(&self, plans: Vec<Plan>) -> Vec<Result<(), StoreError>>;

    /// Records an attempt at a delivery and what follows from it. When the last delivery of an event
    /// becomes terminal the event is done, or dead if any of its deliveries is dead.
    async fn finish(&self, lease: Lease, attempt: Attempt, verdict: Verdict) -> Result<(), StoreError>;

    /// Lengthens a lease that is still held.
    async fn extend(&self, lease: Lease, until: Timestamp) -> Result<(), StoreError>;

    /// Gives an item back unfinished, due at once and without counting the attempt; for shutdown.
    async fn release(&self, lease: Lease) -> Result<(), StoreError>;

    /// Makes a dead or done delivery ready again at `now` with a fresh count of attempts; durable
    /// when this returns. Answers [`StoreError::NotFound`] for an unknown one, and
    /// [`StoreError::Conflict`] for one that is still being worked on.
    async fn replay_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<(), StoreError>;

    /// Runs an event's rules anew: its previous deliveries are forgotten but for their attempts'
    /// record, those that were given up are withdrawn until the rules ask for them again, and the event is a match item
    /// again; durable when this returns. Answers as
    /// [`Self::replay_delivery`] does.
    async fn replay_event(&self, id: EventId, now: Timestamp) -> Result<(), StoreError>;

    /// The wall clock was set back by so much, and is `now`: what waits to be tried again waits as long as was meant. In
    /// memory alone; a start looks by itself for what was planned in a time that has not come yet.
    async fn step_back(&self, step: Duration, now: Timestamp);

    /// The wall clock was set forward by so much: leases last as long as was meant.
    async fn step_forward(&self, step: Duration);

    /// Changes whenever an item may have become due sooner than was known; a worker that waits on it
    /// and on [`Self::next_due`] misses nothing.
    fn wake(&self) -> watch::Receiver<u64>;

    /// When the next ready item of a lane outside `busy` falls due; `None` when there is none.
    async fn next_due(&self, busy: &[Lane]) -> Result<Option<Timestamp>, StoreError>;
}

/// How much work there is.
pub trait Backlog: Send + Sync + 'static {
    /// Counts per state, kept as work changes; never a scan.
    fn depth(&self) -> QueueDepth;
}

/// Small named records with history-free contents: sealed credentials, key checks, caller state.
/// A record holds at most 256 KiB.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// Stores a record under a key, replacing what was there; durable when this returns. With
    /// `expected` the write happens only if the stored version is that one (`0`: absent), else
    /// [`StoreError::Conflict`]. Returns the new version.
    async fn put(&self, key: &RecordKey, value: Bytes, expected: Option<u64>) -> Result<u64, StoreError>;

    /// A record and its version.
    async fn get(&self, key: &RecordKey) -> Result<Option<(Bytes, u64)>, StoreError>;

    /// Removes a record; durable when this returns. Removing what is absent is not an error.
    async fn remove(&self, key: &RecordKey) -> Result<(), StoreError>;

    /// Removes a record and returns what it held; durable when this returns. Of concurrent calls one
    /// gets the value and every other `None`, and so it stays after a crash: for what counts once.
    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError>;

    /// All keys of a collection, in order.
    async fn keys(&self, collection: &str) -> Result<Vec<RecordKey>, StoreError>;
}

/// The audit log: append-only, in order, chained by SHA-256.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Appends an entry and returns it as recorded, with sequence number and chain hash; durable
    /// when this returns. Call it before the effect it describes.
    async fn append(&self, entry: AuditEntry) -> Result<AuditRecord, StoreError>;

    /// Entries from sequence number `from`, oldest first, at most `max`.
    async fn read(&self, from: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError>;

    /// The sequence number of the newest entry; zero while there is none.
    async fn newest(&self) -> u64;
}

/// How long a dedupe mark lives where a definition does not say: three days, Stripe's retry span.
pub const DEDUPE_WINDOW: Duration = Duration::from_hours(72);

/// Why the store refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The data directory belongs to another running process.
    #[error(
        "the store at {path} is in use by another process {holder}: stop it, or give this one another `state` path"
    )]
    InUse {
        /// The store's directory.
        path: String,
        /// Which process has it, in words that follow "process".
        holder: String,
    },
    /// The store was written by a newer version.
    #[error(
        "the store at {path} has format {found}, newer than {supported} which this version reads: upgrade trunkline, or restore a backup"
    )]
    NewerFormat {
        /// The store's directory.
        path: String,
        /// Format version found.
        found: u32,
        /// Newest format this program reads.
        supported: u32,
    },
    /// Stored data is not what was written; `help` says what to run.
    #[error("the store is damaged: {what} ({place}); {help}")]
    Damaged {
        /// What was found.
        what: String,
        /// File and offset.
        place: String,
        /// The command that helps.
        help: String,
    },
    /// Nothing can be made durable until the disk has space again; retried by itself.
    #[error("the disk that holds the store is full: {free} bytes free, {needed} needed")]
    Full {
        /// Bytes free on the file system.
        free: u64,
        /// Bytes below which nothing new is accepted.
        needed: u64,
    },
    /// Something that cannot do without a write, such as the first start, has no room for it.
    #[error("the disk that holds {path} is full, and this needs a write: make room there, or use another disk")]
    NoRoom {
        /// What was to be written.
        path: String,
    },
    /// A write or sync failed; nothing is acknowledged until the store has been reopened and checked.
    #[error("the store takes no writes: {0}")]
    Unavailable(Arc<str>),
    /// A value is larger than the store accepts.
    #[error("{what} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// Someone else claimed the item since; the caller's result is not recorded.
    #[error("the lease was lost: the item has been claimed again")]
    LeaseLost,
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// The thing is not in the state the call needs.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Reading failed.
    #[error("reading the store failed: {0}")]
    Read(Arc<str>),
}
