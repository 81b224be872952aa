//! The thread that writes entries into the files, some at once, so that no call waits for a disk, and counts them for
//! [`crate::usage`].
//!
//! What waits for it is bounded; what finds no room, or cannot be written, is counted, and is in memory alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::entry::{Direction, Entry};
use super::files::{Bounds, Files};
use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;
use crate::usage::Usage;
use crate::usage::slot::{Sample, Series};

/// Entries that may wait.
const WAITING: usize = 16_384;
/// The most entries of one write.
const BATCH: usize = 2_048;
/// How long the thread sleeps between writes, and so the longest that an entry waits for others. Long enough that calls
/// under load wake nobody; short enough that what has gathered is written before a call that waits for the processor
/// would notice.
const PATIENCE: Duration = Duration::from_millis(10);

/// What the thread is asked.
enum Job {
    Write(Arc<Entry>),
    Count(Box<Entry>),
    Tidy(Settled),
}

/// What holds when the files are looked through.
#[derive(Debug, Clone, Copy)]
pub struct Settled {
    /// What may be kept.
    pub bounds: Bounds,
    /// The newest entry that nobody wants any more.
    pub gone: ActivityId,
    /// The time.
    pub now: Timestamp,
}

/// What the thread tells.
#[derive(Debug, Default)]
pub struct Standing {
    /// Entries that are in no file and should be, since this was last taken.
    dropped: AtomicU64,
    /// Calls that are not in the usage, since this was last taken.
    uncounted: AtomicU64,
    /// Bytes of all files.
    pub bytes: AtomicU64,
    /// The newest entry that was removed with its file.
    pub lost: AtomicU64,
}

/// The way to the thread.
#[derive(Debug)]
pub struct Writer {
    jobs: SyncSender<Job>,
    standing: Arc<Standing>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(files: Files, usage: Arc<Usage>, settled: Settled) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING);
        let standing = Arc::new(Standing::default());
        standing.bytes.store(files.bytes(), Ordering::Relaxed);
        let mut work = Work { files, usage, settled, standing: Arc::clone(&standing), failing: false };
        let thread = std::thread::Builder::new().name("activity".to_owned()).spawn(move || work.run(&waiting))?;
        Ok(Self { jobs, standing, thread })
    }

    /// Has an entry written. Never waits.
    pub fn write(&self, entry: Arc<Entry>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Write(entry)) {
            self.standing.dropped.fetch_add(1, Ordering::Relaxed);
            self.standing.uncounted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has an entry that is not kept counted. Never waits.
    pub fn count(&self, entry: Box<Entry>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Count(entry)) {
            self.standing.uncounted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the files looked through. Never waits; where there is no room, the next time will do.
    pub fn tidy(&self, settled: Settled) {
        drop(self.jobs.try_send(Job::Tidy(settled)));
    }

    /// What the thread tells.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Writes what waits, and ends the thread.
    pub fn close(self) {
        drop(self.jobs);
        // A panic of it has been reported by the process's hook.
        drop(self.thread.join());
    }
}

impl Standing {
    /// Takes the count of what was dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Takes the count of calls that are not in the usage.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.swap(0, Ordering::Relaxed)
    }
}

/// Counts a call to a service; what came in is no use of one.
pub fn count(usage: &Usage, entry: &Entry) {
    if entry.direction() == Direction::In {
        return;
    }
    usage.count(&Sample {
        at: entry.at,
        series: Series { integration: Arc::clone(&entry.integration), endpoint: entry.endpoint.clone() },
        failed: entry.has_failed(),
        attempts: entry.attempts,
        cache: entry.cache.clone(),
        duration_ms: entry.duration_ms,
        bytes: (entry.sent_bytes, entry.received_bytes),
    });
}

struct Work {
    files: Files,
    usage: Arc<Usage>,
    settled: Settled,
    standing: Arc<Standing>,
    failing: bool,
}

impl Work {
    /// Takes what waits, all at once. While it sleeps nobody has to wake it, which would cost each call more than the
    /// writing does.
    fn run(&mut self, waiting: &Receiver<Job>) {
        let mut batch = Vec::new();
        while let Ok(first) = waiting.recv() {
            self.take(first, &mut batch);
            std::thread::sleep(PATIENCE);
            while let Ok(job) = waiting.try_recv() {
                self.take(job, &mut batch);
            }
            self.write(&mut batch);
        }
        self.usage.close(self.settled.now);
    }

    fn take(&mut self, job: Job, batch: &mut Vec<Arc<Entry>>) {
        match job {
            Job::Write(entry) => {
                count(&self.usage, &entry);
                batch.push(entry);
            }
            Job::Count(entry) => count(&self.usage, &entry),
            Job::Tidy(settled) => {
                self.settled = settled;
                self.write(batch);
                self.tidy();
                self.usage.tidy(settled.now);
            }
        }
        if batch.len() >= BATCH {
            self.write(batch);
        }
    }

    fn write(&mut self, batch: &mut Vec<Arc<Entry>>) {
        match self.files.write(batch, (self.settled.bounds, self.settled.now)) {
            Ok(()) => self.failing &= batch.is_empty(),
            Err(error) => {
                self.standing.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
                // Once for a row of failures: the metric counts.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("the activity cannot be written, and is in memory alone: {error}");
                }
            }
        }
        batch.clear();
        self.standing.bytes.store(self.files.bytes(), Ordering::Relaxed);
    }

    fn tidy(&mut self) {
        let lost = self.files.tidy(self.settled.gone, (self.settled.bounds, self.settled.now));
        self.standing.lost.fetch_max(lost.to_u64(), Ordering::Relaxed);
        self.standing.bytes.store(self.files.bytes(), Ordering::Relaxed);
    }
}
