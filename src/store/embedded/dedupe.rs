//! Delivery ids that are being accepted, or that the index does not have yet.
//!
//! Whoever accepts an event holds its delivery id until the journal has answered, also when the caller
//! goes away meanwhile: the claim travels with the entry into the journal's queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::row::{Head, Mark};

/// The ids in memory.
#[derive(Debug, Default)]
pub struct Dedupe(Mutex<HashMap<[u8; 16], Entry>>);

#[derive(Debug, Clone)]
enum Entry {
    /// Being written: wait, and look again.
    Writing(watch::Receiver<()>),
    /// Written.
    Written(Mark),
}

/// A delivery id that is held while its event is written. Dropped without [`Claim::written`], it is
/// free again.
#[derive(Debug)]
pub struct Claim {
    dedupe: Arc<Dedupe>,
    hash: [u8; 16],
    mark: Mark,
    written: bool,
    _done: watch::Sender<()>,
}

/// What is known of a delivery id.
pub enum Known {
    /// It is the caller's now.
    Claimed(Claim),
    /// It is written, as this event.
    Written(Mark),
    /// Someone else is writing it: wait until this changes or ends, and ask again.
    Writing(watch::Receiver<()>),
}

impl Dedupe {
    /// Claims a delivery id that is not known, or whose mark has run out by the time `mark` begins.
    pub fn claim(self: &Arc<Self>, head: &Head, hash: [u8; 16], mark: Mark) -> Known {
        let mut entries = self.lock();
        match entries.get(&hash) {
            Some(Entry::Writing(done)) => Known::Writing(done.clone()),
            Some(Entry::Written(first)) if first.until > head.received_at => Known::Written(*first),
            Some(Entry::Written(_)) | None => {
                let (done, waiter) = watch::channel(());
                entries.insert(hash, Entry::Writing(waiter));
                Known::Claimed(Claim { dedupe: Arc::clone(self), hash, mark, written: false, _done: done })
            }
        }
    }

    /// Forgets ids of events that the index has by now.
    pub fn forget<'a>(&self, heads: impl Iterator<Item = &'a Head>) {
        let marks: Vec<_> = heads.filter_map(Head::mark).collect();
        let mut entries = self.lock();
        for (hash, mark) in marks {
            if matches!(entries.get(&hash), Some(Entry::Written(known)) if *known == mark) {
                entries.remove(&hash);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 16], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The event is in the journal.
    pub fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut entries = self.dedupe.lock();
        if self.written {
            entries.insert(self.hash, Entry::Written(self.mark));
        } else {
            entries.remove(&self.hash);
        }
    }
}
