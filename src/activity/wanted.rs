//! Of which calls the content is kept, and how much: by the settings, and within so many a second.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::definition::plan::gateway::{Content as Settings, ContentOf};

/// What is wanted now, and how much more of it in this second.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// A [`ContentOf`].
    of: AtomicU8,
    bytes: AtomicUsize,
    memory: AtomicUsize,
    /// How many a second, and how many more in this one.
    rate: AtomicU32,
    left: AtomicU32,
    /// Those that were too many.
    dropped: AtomicU64,
}

impl Wanted {
    /// Takes settings over.
    pub(super) fn apply(&self, settings: Settings) {
        self.of.store(settings.of as u8, Ordering::Relaxed);
        self.bytes.store(settings.bytes, Ordering::Relaxed);
        // Where none is wanted, none that there was is shown either.
        let memory = if settings.of == ContentOf::None { 0 } else { settings.memory };
        self.memory.store(memory, Ordering::Relaxed);
        self.rate.store(settings.rate, Ordering::Relaxed);
    }

    /// Bytes of one body.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all that is kept in memory.
    pub(super) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Whether that of calls which end so is kept.
    pub(super) fn of(&self, has_failed: bool) -> bool {
        let of = self.of.load(Ordering::Relaxed);
        of == ContentOf::All as u8 || has_failed && of == ContentOf::Errors as u8
    }

    /// Takes one of this second's, where there is one for a call that ended so; one that there is not is counted.
    pub(super) fn take(&self, has_failed: bool) -> bool {
        // What succeeds leaves half of the second's to what fails.
        let spared = if has_failed { 0 } else { self.rate.load(Ordering::Relaxed) / 2 };
        let one = |left: u32| left.checked_sub(1).filter(|after| *after >= spared);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok();
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Another second has begun.
    pub(super) fn begin_second(&self) {
        self.left.store(self.rate.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many were too many since this was last asked.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}
