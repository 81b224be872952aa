//! The embedded engine: journals are the truth, sled is an index that can be rebuilt from them.
//!
//! Three journals stand in the state directory: `events` (events and what becomes of them), `records`
//! (credentials and other small things) and `audit`. An operation on events is appended, then applied
//! to the [`scheduler`] in memory, then, in batches and behind everyone's back, to the [`index`]. So
//! an acknowledgement waits for one grouped sync and for nothing else. Opening brings the index up to
//! the journal's end and builds the scheduler from it.
//!
//! Layout: `lock`, `format`, `events/`, `records/`, `audit/`, `index/` (sled).

mod applier;
mod audit;
mod begin;
mod dedupe;
mod events;
mod filter;
mod fold;
mod index;
mod lock;
pub mod maintenance;
mod op;
mod open;
mod records;
mod retire;
mod row;
mod scheduler;
mod work;

pub use open::{Options, Retention, look_into, open};
pub use retire::Retired;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::store::disk::Disk;
use crate::store::journal::Journal;
use crate::store::{Store, StoreError};
use applier::Applier;
use dedupe::Dedupe;
use index::Index;
use op::Op;
use scheduler::{NewItem, Scheduler};

/// An open embedded store. Dropping it without [`Embedded::close`] is like a kill: nothing durable is
/// lost, and the next opening has more to read.
#[derive(Debug)]
pub struct Embedded {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    events: Journal<Entry>,
    scheduler: Arc<Mutex<Scheduler>>,
    applier: Applier,
    index: Arc<Index>,
    dedupe: Arc<Dedupe>,
    wake: Arc<watch::Sender<u64>>,
    records: Arc<records::Records>,
    audit: Arc<audit::AuditLog>,
    retention: open::Retention,
    /// Held while segments are retired.
    retiring: tokio::sync::Mutex<()>,
    beginning: Arc<begin::Beginning>,
    lock: Arc<lock::Lock>,
}

/// What goes into the events journal's queue beside the bytes.
#[derive(Debug)]
struct Entry {
    op: Op,
    /// The delivery id that is held meanwhile.
    delivery_id: Option<dedupe::Claim>,
    /// What is out of the race meanwhile.
    settling: Option<work::Settling>,
    /// What a replay makes ready, and the dead it takes off the count.
    replay: Option<(NewItem, u64)>,
}

impl Entry {
    fn of(op: Op) -> Self {
        Self { op, delivery_id: None, settling: None, replay: None }
    }
}

/// Figures of an open store, for metrics; reading them costs nothing that matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames written to the events journal since the opening.
    pub frames: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Syncs of the events journal.
    pub syncs: u64,
    /// Times any journal failed and was opened anew.
    pub failures: u64,
    /// Operations that are durable and not in the index yet.
    pub index_lag: u64,
}

impl Embedded {
    /// Syncs everything and ends the store's threads. Calls after this are refused.
    pub async fn close(&self) {
        let beginning = Arc::clone(&self.beginning);
        // A panic in it has been reported by the panic hook.
        drop(tokio::task::spawn_blocking(move || beginning.end()).await);
        // The journal ends only when the applier takes what it feeds it.
        self.applier.end_repairs();
        self.events.close().await;
        self.records.close().await;
        self.audit.close().await;
        self.applier.close().await;
        self.lock.release();
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let counts = self.events.counts();
        let failures = |counts: &crate::store::journal::Counts| counts.failures.load(Ordering::Relaxed);
        Stats {
            frames: counts.frames.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            syncs: counts.syncs.load(Ordering::Relaxed),
            failures: failures(counts) + failures(self.records.counts()) + failures(self.audit.counts()),
            index_lag: self.applier.lag(),
        }
    }

    /// The directory the store is in.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        // A panic while the lock was held leaves counts and sets as they were between two statements;
        // the lease that was being changed runs out and is claimed again.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the index has what was written before.
    async fn up_to_date(&self) -> Result<(), StoreError> {
        if self.applier.lag() > 0 {
            self.events.sync().await?;
        }
        self.applier.barrier().await
    }

    /// Waits until the index has what was written before; when it cannot, readers see what there is.
    async fn settled(&self) {
        if let Err(error) = self.up_to_date().await {
            tracing::debug!(error = %error, "reading from an index that lags");
        }
    }
}

impl Store for Embedded {
    fn writable(&self) -> Result<(), StoreError> {
        self.beginning.state()?;
        self.applier.state()?;
        self.events.state()?;
        self.records.state()?;
        self.audit.state()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.index.bytes_on_disk() + open::bytes_of_journals(&self.directory)
    }

    fn bytes_free(&self) -> Option<u64> {
        self.disk.space(&self.directory).ok().map(|space| space.free)
    }
}
