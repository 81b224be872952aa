//! The memory for bodies that are read whole: what all of a door's requests together may hold.
//!
//! Each body has a bound of its own, and a connection has one body; but ten thousand senders that never end theirs would
//! hold ten thousand times that. Of what is left by the others one application has half. Where anybody may send, whoever
//! sends the slowest makes room for the others ([`strangers`](super::strangers)). Called by
//! [`super::intake`].

use std::collections::HashMap;
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::strangers::Strangers;
use crate::base::clock::Clock;
use crate::net::holding;
use crate::respond::{Answer, Refusal};
use crate::telemetry::metrics::Metrics;

/// What of each body is not counted: as much as a connection takes anyhow.
const UNCOUNTED: usize = 16 << 10;

/// The part of what the others leave that the bodies of one application may take.
const OF_CALLER: usize = 2;

/// What the bodies at one door hold.
#[derive(Debug)]
pub struct Room {
    held: Mutex<Taken>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    door: &'static str,
}

#[derive(Debug, Default)]
struct Taken {
    /// By those who are known.
    known: usize,
    /// The same of each application.
    callers: HashMap<Arc<str>, usize>,
    strangers: Strangers,
}

impl Room {
    /// The room of a door, with nothing in it.
    pub fn new(door: &'static str, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { held: Mutex::default(), metrics, clock, door })
    }

    fn held(&self) -> MutexGuard<'_, Taken> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, taken: &Taken) {
        let bytes = taken.known + taken.strangers.bytes();
        self.metrics.whole_body_bytes.with_label_values(&[self.door]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Taken {
    /// Takes for a body of an application what it needs.
    fn take_known(&mut self, caller: &Arc<str>, (need, taken): (usize, usize), most: usize) -> bool {
        let own = self.callers.get(caller).copied().unwrap_or_default();
        let left = most.saturating_sub(self.known - own);
        // One body where there is no other may be as large as it may be.
        let alone = if self.known == taken { most } else { 0 };
        let fits = own + need <= (left / OF_CALLER).max(alone) && self.known + need <= most;
        if fits {
            self.known += need;
            *self.callers.entry(Arc::clone(caller)).or_default() += need;
        }
        fits
    }

    fn give_back_known(&mut self, caller: &Arc<str>, bytes: usize) {
        self.known = self.known.saturating_sub(bytes);
        if let Some(own) = self.callers.get_mut(caller) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                self.callers.remove(caller);
            }
        }
    }
}

/// Whose body it is.
#[derive(Debug)]
enum Holder {
    /// An application's.
    Caller(Arc<str>),
    /// A stranger's: its number among them, and what is told once it is given up. None for one that needs nothing yet, as
    /// most never do.
    Stranger(Option<(u64, Arc<Notify>)>),
}

/// One body's part of a room of `most` bytes.
#[derive(Debug)]
pub struct Part {
    room: Arc<Room>,
    most: usize,
    taken: usize,
    holder: Holder,
    /// What of it is not counted.
    uncounted: usize,
}

impl Part {
    /// Nothing yet, for an application.
    pub fn of(room: &Arc<Room>, most: usize, caller: &Arc<str>) -> Self {
        Self::held_by(room, most, Holder::Caller(Arc::clone(caller)))
    }

    /// Nothing yet, for somebody of whom nothing is known.
    pub fn of_stranger(room: &Arc<Room>, most: usize) -> Self {
        Self::held_by(room, most, Holder::Stranger(None))
    }

    fn held_by(room: &Arc<Room>, most: usize, holder: Holder) -> Self {
        Self { room: Arc::clone(room), most, taken: 0, holder, uncounted: UNCOUNTED }
    }

    /// The same for a body that comes on a connection with others (HTTP/2): all of it counts.
    #[must_use]
    pub fn among_others(mut self, several: bool) -> Self {
        if several {
            self.uncounted = 0;
        }
        self
    }

    /// Takes what a body needs of which `came` bytes have come, and which takes `length` bytes of memory. Told of every piece:
    /// how fast a stranger's comes decides whether it stays. What is not counted takes no lock.
    ///
    /// # Errors
    /// 503 when there is no room for it.
    pub fn reach(&mut self, came: usize, length: usize) -> Result<(), Answer> {
        let more = length.saturating_sub(self.uncounted).saturating_sub(self.taken);
        if more == 0 {
            self.hear(came);
            return Ok(());
        }
        if !self.take(came, more) {
            return Err(self.refused("the bodies that are being read take all the memory there is for them"));
        }
        self.taken += more;
        Ok(())
    }

    /// Waits until the body is given up, so that others can be read.
    pub async fn given_up(&self) -> Answer {
        match &self.holder {
            Holder::Caller(_) | Holder::Stranger(None) => future::pending().await,
            Holder::Stranger(Some((_, given_up))) => given_up.notified().await,
        }
        self.refused("others need the memory that this body holds, which comes too slowly")
    }

    fn refused(&self, words: &str) -> Answer {
        self.room.metrics.whole_bodies_refused.with_label_values(&[self.room.door]).inc();
        Refusal::Unavailable.answer_after(&format!("{words} (`limits.whole_bytes`)"), Duration::from_secs(1)).closing()
    }

    fn hear(&self, came: usize) {
        if let Holder::Stranger(Some((number, _))) = &self.holder {
            self.room.held().strangers.hear(*number, came, self.room.clock.monotonic());
        }
    }

    fn take(&mut self, came: usize, more: usize) -> bool {
        let Self { room, most, taken, holder, .. } = self;
        let mut held = room.held();
        let fits = match holder {
            Holder::Caller(caller) => held.take_known(caller, (more, *taken), *most),
            Holder::Stranger(place) => {
                let now = room.clock.monotonic();
                let (number, _) = place.get_or_insert_with(|| held.strangers.enter(came, now));
                held.strangers.hear(*number, came, now);
                held.strangers.take(*number, more, (*most, now))
            }
        };
        room.show(&held);
        fits
    }

    /// The body, which holds its part as long as anything of it is there.
    pub fn hold(self, body: Bytes) -> Bytes {
        if let Holder::Stranger(Some((number, _))) = &self.holder {
            self.room.held().strangers.was_read(*number);
        }
        if self.taken == 0 { body } else { holding(body, self) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.taken == 0 && !matches!(self.holder, Holder::Stranger(Some(_))) {
            return;
        }
        let mut held = self.room.held();
        match &self.holder {
            Holder::Caller(caller) => held.give_back_known(caller, self.taken),
            Holder::Stranger(place) => {
                if let Some((number, _)) = place {
                    held.strangers.leave(*number);
                }
            }
        }
        self.room.show(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use futures_util::FutureExt as _;

    fn room(door: &'static str) -> (Arc<Room>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
        (Room::new(door, Arc::new(Metrics::new().expect("unique names")), Arc::clone(&clock) as Arc<dyn Clock>), clock)
    }

    #[tokio::test]
    async fn a_few_senders_that_do_not_end_keep_nobody_out() {
        let (room, clock) = room("public");
        let of = || Part::of_stranger(&room, 64 << 20);
        let mut held = Vec::new();
        loop {
            let mut part = of();
            if part.reach(25 << 20, 25 << 20).is_err() {
                break;
            }
            held.push(part);
        }
        assert_eq!(held.len(), 2, "there is no more room");
        clock.advance(Duration::from_secs(2));
        for size in [1 << 20, 25 << 20] {
            let mut part = of();
            assert!(part.reach(size, size).is_ok(), "{size}");
            part.hold(Bytes::from(vec![0; size]));
        }
        let answer = held[0].given_up().now_or_never().or_else(|| held[1].given_up().now_or_never());
        assert!(answer.is_some_and(|answer| answer.status == 503));
        drop(held);
        let empty = room.held();
        assert_eq!((empty.known, empty.strangers.bytes()), (0, 0));
    }

    #[test]
    fn a_body_that_comes_steadily_stays_between_the_steps_of_its_memory() {
        let (room, clock) = room("public");
        let of = || Part::of_stranger(&room, 8 << 20);
        let halts = || {
            let mut part = of();
            part.reach(100_000, 100_000).is_ok().then_some(part)
        };
        let mut halted: Vec<Part> = (0..98).filter_map(|_| halts()).collect();
        clock.advance(Duration::from_millis(1_500));
        let (mut good, mut memory) = (of(), 0);
        // A quarter of a megabyte a second, for four seconds, while others begin eight times as fast and come to a halt.
        for came in (12_500..=1_000_000).step_by(12_500) {
            memory = if came > memory { 2 * came } else { memory };
            assert!(good.reach(came, memory).is_ok(), "{came}");
            assert!(good.given_up().now_or_never().is_none(), "{came}");
            halted.extend(halts());
            clock.advance(Duration::from_millis(50));
        }
        assert!(halted.len() > 150, "there was room for those who begin: {}", halted.len());
    }

    #[test]
    fn what_comes_on_one_connection_counts_whole() {
        let (room, _) = room("public");
        let mut part = Part::of(&room, 1 << 20, &Arc::from("app")).among_others(true);
        assert!(part.reach(UNCOUNTED, UNCOUNTED).is_ok());
        assert_eq!(room.held().known, UNCOUNTED);
    }

    #[test]
    fn no_application_takes_the_room_of_the_others() {
        let (room, _) = room("proxy");
        let of = |caller: &str| Part::of(&room, 64 << 20, &Arc::from(caller));
        let mut held = Vec::new();
        loop {
            let mut part = of("greedy");
            if part.reach(4 << 20, 4 << 20).is_err() {
                break;
            }
            held.push(part);
        }
        assert_eq!(held.len(), 8, "half of what nobody else has");
        let mut other = of("other");
        assert!(other.reach(15 << 20, 15 << 20).is_ok() && of("third").reach(8 << 20, 8 << 20).is_ok());
        drop((held, other));
        assert!(of("greedy").reach(60 << 20, 60 << 20).is_ok(), "one body alone may have it all");
        assert!(room.held().callers.is_empty() && room.held().known == 0);
    }

    #[test]
    fn what_bodies_hold_has_a_bound_and_comes_back() {
        let (room, _) = room("proxy");
        let most = 100_000;
        let body = |length: usize| {
            let mut part = Part::of(&room, most, &Arc::from("app"));
            part.reach(length / 2, length / 2)?;
            part.reach(length, length).map(|()| part.hold(Bytes::from(vec![0; length])))
        };
        let first = body(UNCOUNTED + 60_000).expect("room");
        assert!(body(UNCOUNTED + 60_000).is_err_and(|answer| answer.status == 503));
        assert!(body(UNCOUNTED).is_ok(), "a small one is no matter");
        let part = first.slice(..10);
        drop(first);
        assert!(body(UNCOUNTED + 60_000).is_err(), "a part of it holds it all");
        drop(part);
        assert!(body(UNCOUNTED + 60_000).is_ok());
        assert_eq!(room.held().known, 0);
    }
}
