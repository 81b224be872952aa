//! The journal: append-only segment files, the truth of the store.
//!
//! A segment is a header and frames. A frame is a length, a CRC32C, a sequence number and a payload;
//! the payload is bytes to this room. One [`Committer`](committer) thread per journal groups what
//! many callers append into one write and one `fdatasync`, and answers them only then. After a failed
//! write or sync nothing is acknowledged until a new segment has been begun; the failed descriptor is
//! never synced again, because a second sync may succeed without having written what the first lost.
//!
//! The last durable sequence number is also kept in a [`mark`] beside the segments. A journal that
//! ends before its mark has lost acknowledged facts, and is refused; a torn tail after the mark is the
//! ordinary end of a crash, and is cut off. Called by the embedded engine.

pub mod committer;
pub mod frame;
pub mod mark;
pub mod segment;

pub use committer::{Appended, Durability, Journal, JournalOptions};

/// Where a payload stands: enough to read it back without a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pointer {
    /// The first sequence number of its segment, which names the file.
    pub segment: u64,
    /// Where its frame begins in the file.
    pub offset: u64,
    /// Bytes of its payload.
    pub length: u32,
}
