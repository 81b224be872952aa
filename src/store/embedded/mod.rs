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
mod events;
mod index;
mod op;
mod open;
mod records;
mod scheduler;
mod work;

pub use open::{Options, open};

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::store::disk::Disk;
use crate::store::journal::Journal;
use crate::store::{Store, StoreError};
use applier::Applier;
use events::Dedupe;
use index::Index;
use op::Op;
use scheduler::Scheduler;

/// An open embedded store. Dropping it without [`Embedded::close`] is like a kill: nothing durable is
/// lost, and the next opening has more to read.
#[derive(Debug)]
pub struct Embedded {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    events: Journal<Op>,
    scheduler: Arc<Mutex<Scheduler>>,
    applier: Applier,
    index: Arc<Index>,
    dedupe: Dedupe,
    wake: Arc<watch::Sender<u64>>,
    records: records::Records,
    audit: audit::AuditLog,
    lock: open::Lock,
}

impl Embedded {
    /// Syncs everything and ends the store's threads. Calls after this are refused.
    pub async fn close(&self) {
        self.events.close().await;
        self.records.close().await;
        self.audit.close().await;
        self.applier.close().await;
        self.lock.release();
    }

    fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        // A panic while the lock was held leaves counts and sets as they were between two statements;
        // the lease that was being changed runs out and is claimed again.
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rouse(&self) {
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The directory the store is in.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }
}

impl Store for Embedded {
    fn writable(&self) -> Result<(), StoreError> {
        self.applier.state()?;
        self.events.state()?;
        self.records.state()
    }

    fn bytes_on_disk(&self) -> u64 {
        let journals = self.events.counts().bytes.load(Ordering::Relaxed);
        self.index.bytes_on_disk() + self.lock.bytes_at_open() + journals
    }
}
