//! The memory for bodies that are read whole: what all of a door's requests together may hold.
//!
//! Each body has a bound of its own, and a connection has one body; but ten thousand senders that never end theirs would
//! hold ten thousand times that. Called by [`super::intake`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::respond::{Answer, Refusal};
use crate::telemetry::metrics::Metrics;

/// What of each body is not counted: as much as a connection takes anyhow.
const UNCOUNTED: usize = 16 << 10;

/// What the bodies at one door hold.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    metrics: Arc<Metrics>,
    door: &'static str,
}

impl Room {
    /// The room of a door, with nothing in it.
    pub fn new(door: &'static str, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), metrics, door })
    }

    fn show(&self) {
        let bytes = i64::try_from(self.used.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        self.metrics.whole_body_bytes.with_label_values(&[self.door]).set(bytes);
    }
}

/// One body's part of a room of `most` bytes.
#[derive(Debug)]
pub struct Part {
    room: Arc<Room>,
    most: usize,
    taken: usize,
}

impl Part {
    /// Nothing yet.
    pub fn of(room: &Arc<Room>, most: usize) -> Self {
        Self { room: Arc::clone(room), most, taken: 0 }
    }

    /// Takes what a body of `length` bytes needs.
    ///
    /// # Errors
    /// 503 when there is no room for it.
    pub fn reach(&mut self, length: usize) -> Result<(), Answer> {
        let more = length.saturating_sub(UNCOUNTED).saturating_sub(self.taken);
        if more == 0 {
            return Ok(());
        }
        let used = &self.room.used;
        let room = |used: usize| used.checked_add(more).filter(|used| *used <= self.most);
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            self.room.metrics.whole_bodies_refused.with_label_values(&[self.room.door]).inc();
            let words = "the bodies that are being read take all the memory there is for them (`limits.whole_bytes`)";
            return Err(Refusal::Unavailable.answer_after(words, Duration::from_secs(1)).closing());
        }
        self.taken += more;
        self.room.show();
        Ok(())
    }

    /// The body, which holds its part as long as anything of it is there.
    pub fn hold(self, body: Bytes) -> Bytes {
        if self.taken == 0 { body } else { Bytes::from_owner(Held { body, _part: self }) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.room.used.fetch_sub(self.taken, Ordering::Relaxed);
            self.room.show();
        }
    }
}

struct Held {
    body: Bytes,
    _part: Part,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bodies_hold_has_a_bound_and_comes_back() {
        let room = Room::new("proxy", Arc::new(Metrics::new().expect("unique names")));
        let most = 100_000;
        let body = |length: usize| {
            let mut part = Part::of(&room, most);
            part.reach(length / 2)?;
            part.reach(length).map(|()| part.hold(Bytes::from(vec![0; length])))
        };
        let first = body(UNCOUNTED + 60_000).expect("room");
        assert!(body(UNCOUNTED + 60_000).is_err_and(|answer| answer.status == 503));
        assert!(body(UNCOUNTED).is_ok(), "a small one is no matter");
        let part = first.slice(..10);
        drop(first);
        assert!(body(UNCOUNTED + 60_000).is_err(), "a part of it holds it all");
        drop(part);
        assert!(body(UNCOUNTED + 60_000).is_ok());
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }
}
