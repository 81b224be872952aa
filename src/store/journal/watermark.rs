//! Whether the disk has room for new facts, asked of it twice a second at most.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::units::Reserve;
use crate::store::StoreError;
use crate::store::disk::{Disk, Space};

/// How old the knowledge of free space may be.
const AGE: Duration = Duration::from_millis(500);
/// How much may be written on that knowledge.
const WRITTEN: u64 = 16 << 20;

/// The free space below which nothing new is accepted.
#[derive(Debug)]
pub struct Watermark {
    directory: PathBuf,
    min_free: Reserve,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(Duration, Option<StoreError>)>>,
    written: AtomicU64,
}

impl Watermark {
    /// A watermark for the file system that holds `directory`.
    pub fn new(directory: PathBuf, min_free: Reserve, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Self {
        Self { directory, min_free, disk, clock, last: Mutex::new(None), written: AtomicU64::new(0) }
    }

    /// Takes note of what was written since the disk was last asked.
    pub fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// [`StoreError::Full`] while too little is free.
    pub fn check(&self) -> Result<(), StoreError> {
        let now = self.clock.monotonic();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, shortage)) = &*last
            && now.saturating_sub(*at) < AGE
            && self.written.load(Ordering::Relaxed) < WRITTEN
        {
            return shortage.clone().map_or(Ok(()), Err);
        }
        // A file system that cannot be asked is taken to have room: the write itself will tell.
        let Ok(space) = self.disk.space(&self.directory) else { return Ok(()) };
        let needed = self.min_free.of(space.total);
        let shortage = (space.free < needed).then_some(StoreError::Full { free: space.free, needed });
        self.written.store(0, Ordering::Relaxed);
        *last = Some((now, shortage.clone()));
        shortage.map_or(Ok(()), Err)
    }

    /// What to tell of a failed write: that the disk is full, where that is why.
    pub fn explain(&self, error: &std::io::Error) -> StoreError {
        if error.kind() == std::io::ErrorKind::StorageFull {
            let space = self.disk.space(&self.directory).unwrap_or(Space { free: 0, total: 0 });
            return StoreError::Full { free: space.free, needed: self.min_free.of(space.total).max(space.free + 1) };
        }
        StoreError::Unavailable(Arc::from(format!("writing to {} failed: {error}", self.directory.display())))
    }
}
