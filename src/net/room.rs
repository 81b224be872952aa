//! The memory for answers that are read whole: what those of all calls together may hold (`limits.whole_answer_bytes`).
//!
//! What is made of an answer counts likewise, when it is unpacked or changed and waits for whoever asked.
//!
//! Each answer has a bound of its own, but sixty calls at once for eight megabytes each hold half a gigabyte. What is
//! streamed is not counted, and of each answer the beginning is not: token answers and the like always find room.
//! Called by [`super::client`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::failure::Reason;
use crate::definition::live::Live;
use crate::telemetry::metrics::Metrics;

/// What of each answer is not counted.
const UNCOUNTED: usize = 16 << 10;

/// What answers hold.
#[derive(Debug, Default)]
pub(super) struct Answers {
    held: AtomicUsize,
    bound: Option<Bound>,
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
        Self { held: AtomicUsize::new(0), bound: Some(bound) }
    }

    /// Whether there is room for an answer of at most so many bytes, or a quarter of all where that is less: asked before a
    /// call goes, so that one that would be made for nothing is not made.
    pub fn has_room(&self, bytes: usize) -> bool {
        let Some(Bound { live, metrics }) = &self.bound else { return true };
        let most = live.load().gateway.limits.whole_answer_bytes;
        let has_room = self.held.load(Ordering::Relaxed).saturating_add(bytes.min(most / 4)) <= most;
        if !has_room {
            metrics.whole_answers_refused.with_label_values::<&str>(&[]).inc();
        }
        has_room
    }

    fn take(&self, more: usize) -> bool {
        let Some(Bound { live, metrics }) = &self.bound else { return true };
        let most = live.load().gateway.limits.whole_answer_bytes;
        let fits = |held: usize| held.checked_add(more).filter(|held| *held <= most);
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        match taken {
            Ok(before) => self.show(before + more),
            Err(_) => metrics.whole_answers_refused.with_label_values::<&str>(&[]).inc(),
        }
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        if self.bound.is_some() {
            let before = self.held.fetch_sub(bytes, Ordering::Relaxed);
            self.show(before.saturating_sub(bytes));
        }
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
    taken: usize,
}

impl Part {
    /// Nothing yet.
    pub fn of(answers: &Arc<Answers>) -> Self {
        Self { answers: Arc::clone(answers), taken: 0 }
    }

    /// Takes what an answer of `length` bytes needs.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn reach(&mut self, length: usize, status: u16) -> Result<(), Reason> {
        let more = length.saturating_sub(UNCOUNTED).saturating_sub(self.taken);
        if more > 0 && !self.answers.take(more) {
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
            self.answers.give_back(self.taken);
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
