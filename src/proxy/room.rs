//! The memory for bodies that are read whole: what all of a door's requests together may hold.
//!
//! Each body has a bound of its own, and a connection has one body; but ten thousand senders that never end theirs would
//! hold ten thousand times that. Where anybody may send, one address has a part of the room, and large bodies together
//! half of it, so that nobody keeps the others out. Called by [`super::intake`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::base::budgets;
use crate::respond::{Answer, Refusal};
use crate::telemetry::metrics::Metrics;

/// What of each body is not counted: as much as a connection takes anyhow.
const UNCOUNTED: usize = 16 << 10;

/// What a stranger's body holds at most before it counts as large.
const LARGE: usize = 256 << 10;
/// The part of a room that the bodies of one address may take, and that of all large ones of strangers.
const OF_ADDRESS: usize = 8;
const OF_LARGE: usize = 2;

/// What the bodies at one door hold.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    /// What those of strangers hold, by address.
    addresses: Mutex<HashMap<IpAddr, usize>>,
    metrics: Arc<Metrics>,
    door: &'static str,
}

impl Room {
    /// The room of a door, with nothing in it.
    pub fn new(door: &'static str, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), addresses: Mutex::default(), metrics, door })
    }

    /// Takes so much for an address, as far as its part goes.
    fn take_for(&self, address: IpAddr, more: usize, most: usize) -> bool {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let held = addresses.entry(address).or_default();
        let fits = held.saturating_add(more) <= most;
        if fits {
            *held += more;
        } else if *held == 0 {
            addresses.remove(&address);
        }
        fits
    }

    fn give_back_for(&self, address: IpAddr, bytes: usize) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut held) = addresses.entry(address) {
            *held.get_mut() = held.get().saturating_sub(bytes);
            if *held.get() == 0 {
                held.remove();
            }
        }
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
    /// The address of a stranger.
    address: Option<IpAddr>,
    /// What the body may have: that much is its part at least.
    alone: usize,
}

impl Part {
    /// Nothing yet, for somebody who is known.
    pub fn of(room: &Arc<Room>, most: usize) -> Self {
        Self { room: Arc::clone(room), most, taken: 0, address: None, alone: 0 }
    }

    /// Nothing yet, for somebody of whom nothing is known but an address, and whose body may have `bytes` at most.
    pub fn of_stranger(room: &Arc<Room>, most: usize, (address, bytes): (Option<IpAddr>, u64)) -> Self {
        let alone = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { room: Arc::clone(room), most, taken: 0, address: address.map(budgets::source), alone }
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
        if !self.take(more) {
            self.room.metrics.whole_bodies_refused.with_label_values(&[self.room.door]).inc();
            let words = "the bodies that are being read take all the memory there is for them (`limits.whole_bytes`)";
            return Err(Refusal::Unavailable.answer_after(words, Duration::from_secs(1)).closing());
        }
        self.taken += more;
        self.room.show();
        Ok(())
    }

    fn take(&self, more: usize) -> bool {
        let part = |of: usize| (self.most / of).max(self.alone);
        if self.address.is_some_and(|address| !self.room.take_for(address, more, part(OF_ADDRESS))) {
            return false;
        }
        let is_large = self.address.is_some() && self.taken + more > LARGE;
        let most = if is_large { part(OF_LARGE).min(self.most) } else { self.most };
        let room = |used: usize| used.checked_add(more).filter(|used| *used <= most);
        let has = self.room.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if let (false, Some(address)) = (has, self.address) {
            self.room.give_back_for(address, more);
        }
        has
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
            if let Some(address) = self.address {
                self.room.give_back_for(address, self.taken);
            }
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
    fn no_stranger_takes_the_room_of_the_others() {
        let room = Room::new("public", Arc::new(Metrics::new().expect("unique names")));
        let most = 64 << 20;
        let of = |host: u8| Part::of_stranger(&room, most, (Some(IpAddr::from([192, 0, 2, host])), 8 << 20));
        let held: Vec<_> = (0..8).map(|host| (of(host), of(host))).collect();
        let large: Vec<_> = held
            .into_iter()
            .map(|(mut one, mut other)| (one.reach(7 << 20).is_ok(), other.reach(2 << 20).is_ok(), one, other))
            .collect();
        assert!(large.iter().all(|(one, other, ..)| !one || !other), "one address has an eighth");
        assert_eq!(large.iter().filter(|(one, ..)| *one).count(), 4, "large ones have half");
        let mut good = of(9);
        assert!(good.reach(LARGE).is_ok(), "the others have the other half");
        drop(large);
        drop(good);
        assert!(of(1).reach(8 << 20).is_ok());
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
        assert!(room.addresses.lock().expect("whole").is_empty());
    }

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
