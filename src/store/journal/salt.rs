//! What hides the sequence numbers of a segment's frames.
//!
//! A body is kept as it was sent, and may hold what looks like frames. Where a segment is damaged and frames are looked for
//! in it, nothing but a number that a sender cannot know tells the true ones from those. Called by [`super::segment`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::random::{Random, RandomUnavailable};

/// A random number by which sequence numbers are changed where they are written; none in segments of store formats before 5.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    /// Sequence numbers as they are.
    pub const NONE: Self = Self(0);

    /// One that nobody knows.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0; 8];
        random.fill(&mut bytes)?;
        // One in 2^64 would be none.
        Ok(Self(u64::from_le_bytes(bytes).max(1)))
    }

    /// As it stands in a header.
    pub fn from_stored(stored: u64) -> Self {
        Self(stored)
    }

    /// What a header has of it.
    pub fn stored(self) -> u64 {
        self.0
    }

    /// What stands for a sequence number.
    pub fn hide(self, sequence: u64) -> u64 {
        sequence ^ self.0
    }

    /// The sequence number that a number stands for.
    pub fn show(self, number: u64) -> u64 {
        number ^ self.0
    }
}

/// Not the number: who has it can write frames.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::NONE { "Salt(none)" } else { "Salt(…)" })
    }
}

/// The salt of the segments that are begun, shared by a store's journals. It changes once, where a store of an older
/// format is taken over.
#[derive(Clone, Default)]
pub struct Current(Arc<AtomicU64>);

impl Current {
    /// This one from the beginning.
    pub fn of(salt: Salt) -> Self {
        let current = Self::default();
        current.set(salt);
        current
    }

    /// What it is now.
    pub fn get(&self) -> Salt {
        Salt(self.0.load(Ordering::Acquire))
    }

    /// From here on another.
    pub fn set(&self, salt: Salt) {
        self.0.store(salt.0, Ordering::Release);
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
