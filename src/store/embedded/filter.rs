//! Which delivery ids the index surely does not have: a Bloom filter over the hashes of its marks.
//!
//! Nearly every delivery id is new, and looking up what is not there costs as much as finding it: a walk
//! through sled's tree, which besides waits while a batch is written. The filter knows nothing until all marks
//! of the index have been read once, and answers more and more often "perhaps" as they grow beyond a
//! million; the index is asked then, as it would be without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// Bits, as a power of two: 1 MiB, of which the system gives what is written to.
const BITS: u32 = 23;
/// Bits of a hash that one probe takes; four probes fit into the 16 bytes.
const PROBE: usize = 4;

/// The filter.
#[derive(Debug)]
pub struct Filter {
    words: RwLock<Vec<u64>>,
    complete: AtomicBool,
}

impl Filter {
    /// A filter that knows nothing yet.
    pub fn new() -> Self {
        Self { words: RwLock::new(vec![0; 1 << (BITS - 6)]), complete: AtomicBool::new(false) }
    }

    /// Takes hashes in.
    pub fn add<'a>(&self, hashes: impl Iterator<Item = &'a [u8]>) {
        let mut words = self.words.write().unwrap_or_else(PoisonError::into_inner);
        for (word, bit) in hashes.flat_map(places) {
            if let Some(word) = words.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// All that the index has was taken in.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether the index surely does not have a hash.
    pub fn lacks(&self, hash: &[u8]) -> bool {
        let words = self.words.read().unwrap_or_else(PoisonError::into_inner);
        let is_set = |(word, bit): (usize, u64)| words.get(word).is_none_or(|word| word & bit != 0);
        self.complete.load(Ordering::Acquire) && !places(hash).all(is_set)
    }
}

/// The words and bits that stand for a hash, which is spread evenly already.
fn places(hash: &[u8]) -> impl Iterator<Item = (usize, u64)> + '_ {
    hash.as_chunks::<PROBE>().0.iter().map(|bytes| {
        let place = u32::from_le_bytes(*bytes) & ((1 << BITS) - 1);
        ((place >> 6) as usize, 1 << (place & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    fn hash(number: u32) -> [u8; 16] {
        *Sha256::digest(number.to_le_bytes()).first_chunk().expect("32 bytes")
    }

    #[test]
    fn what_was_taken_in_is_never_lacking_and_little_else_is_not() {
        let filter = Filter::new();
        (0..100_000).for_each(|number| filter.add(std::iter::once(&hash(number)[..])));
        assert!(!filter.lacks(&hash(1_000_000)), "an incomplete filter knows nothing");
        filter.complete();
        assert!((0..100_000).all(|number| !filter.lacks(&hash(number))));
        let perhaps = (200_000..210_000).filter(|number| !filter.lacks(&hash(*number))).count();
        assert!(perhaps < 10, "{perhaps} of 10,000");
    }
}
