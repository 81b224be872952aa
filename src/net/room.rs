//! The memory for answers that are read whole: what those of all calls together may hold (`limits.whole_answer_bytes`).
//!
//! What is made of an answer counts likewise, when it is unpacked or changed and waits for whoever asked.
//!
//! Each answer has a bound of its own, but sixty calls at once for eight megabytes each hold half a gigabyte. Beyond its
//! first answer an integration, or a destination, has half of what the others leave, so that none takes it all. What is
//! streamed is not counted, and of each answer the beginning is not: token answers and the like always find room.
//! Called by [`super::client`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::failure::Reason;
use crate::definition::live::Live;
use crate::telemetry::metrics::Metrics;

/// What of each answer is not counted.
const UNCOUNTED: usize = 16 << 10;

/// What answers hold.
#[derive(Debug, Default)]
pub(super) struct Answers {
    held: Mutex<Held>,
    bound: Option<Bound>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// The same by whom the answers are of.
    owners: HashMap<Arc<str>, usize>,
}

impl Held {
    /// Whether there is room for `more` bytes of an owner, of which `first` are of this very answer.
    fn fits(&self, owner: &str, (more, first): (usize, usize), most: usize) -> bool {
        let own = self.owners.get(owner).copied().unwrap_or_default();
        let left = most.saturating_sub(self.all.saturating_sub(own));
        let share = if own == first { left } else { left / 2 };
        own.saturating_add(more) <= share
    }
}

/// Where the bound stands, and what is counted.
#[derive(Debug)]
struct Bound {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// Nothing yet, within the bound of the settings in force.
    pub fn within(live: &Arc<Live>, metrics: &Arc<Metrics>) -> Self {
        let bound = Bound { live: Arc::clone(live), metrics: Arc::clone(metrics) };
        Self { held: Mutex::default(), bound: Some(bound) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for an answer of at most so many bytes, or a quarter of all where that is less: asked before a
    /// call goes, so that one that would be made for nothing is not made.
    pub fn has_room(&self, owner: &str, bytes: usize) -> bool {
        let Some(Bound { live, metrics }) = &self.bound else { return true };
        let most = live.load().gateway.limits.whole_answer_bytes;
        let has_room = self.held().fits(owner, (bytes.min(most / 4), 0), most);
        if !has_room {
            metrics.whole_answers_refused.with_label_values::<&str>(&[]).inc();
        }
        has_room
    }

    fn take(&self, owner: &Arc<str>, (more, first): (usize, usize)) -> bool {
        let Some(Bound { live, metrics }) = &self.bound else { return true };
        let most = live.load().gateway.limits.whole_answer_bytes;
        let mut held = self.held();
        let fits = held.fits(owner, (more, first), most);
        if fits {
            held.all += more;
            *held.owners.entry(Arc::clone(owner)).or_default() += more;
            self.show(held.all);
        } else {
            metrics.whole_answers_refused.with_label_values::<&str>(&[]).inc();
        }
        fits
    }

    fn give_back(&self, owner: &Arc<str>, bytes: usize) {
        if self.bound.is_none() {
            return;
        }
        let mut held = self.held();
        held.all = held.all.saturating_sub(bytes);
        if let Some(own) = held.owners.get_mut(owner) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                held.owners.remove(owner);
            }
        }
        self.show(held.all);
    }

    fn show(&self, bytes: usize) {
        if let Some(Bound { metrics, .. }) = &self.bound {
            let gauge = metrics.whole_answer_bytes.with_label_values::<&str>(&[]);
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

/// One answer's part.
#[derive(Debug)]
pub(super) struct Part {
    answers: Arc<Answers>,
    owner: Arc<str>,
    taken: usize,
}

impl Part {
    /// Nothing yet, of an answer of this integration or destination.
    pub fn of(answers: &Arc<Answers>, owner: &Arc<str>) -> Self {
        Self { answers: Arc::clone(answers), owner: Arc::clone(owner), taken: 0 }
    }

    /// Takes what an answer of `length` bytes needs.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn reach(&mut self, length: usize, status: u16) -> Result<(), Reason> {
        let more = length.saturating_sub(UNCOUNTED).saturating_sub(self.taken);
        if more > 0 && !self.answers.take(&self.owner, (more, self.taken)) {
            return Err(Reason::Unread { status });
        }
        self.taken += more;
        Ok(())
    }

    /// The body, which holds its part as long as anything of it is there.
    pub fn hold(self, body: Bytes) -> Bytes {
        if self.taken == 0 { body } else { holding(body, self) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.answers.give_back(&self.owner, self.taken);
        }
    }
}

/// A body that holds something for as long as anything of it is there.
pub fn holding<T: Send + 'static>(body: Bytes, held: T) -> Bytes {
    Bytes::from_owner(Holding { body, _held: held })
}

struct Holding<T> {
    body: Bytes,
    _held: T,
}

impl<T> AsRef<[u8]> for Holding<T> {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_its_first_answer_nobody_has_more_than_half_of_what_the_others_leave() {
        let mut held = Held::default();
        let mut take = |owner: &str, more: usize| {
            let fits = held.fits(owner, (more, 0), 1_000);
            if fits {
                held.all += more;
                *held.owners.entry(Arc::from(owner)).or_default() += more;
            }
            fits
        };
        assert!((0..5).all(|_| take("greedy", 100)) && !take("greedy", 100), "half of all");
        assert!(take("first", 300) && !take("first", 1), "one answer may take more than half of what is left");
        assert!(take("second", 100) && take("third", 100) && !take("third", 1));
        assert!(held.fits("first", (100, 300), 1_100), "an answer that is alone grows");
    }
}
