//! The memory for bodies that are read whole: what all of a door's requests together may hold.
//!
//! Each body has a bound of its own, and a connection has one body; but ten thousand senders that never end theirs would
//! hold ten thousand times that. Of what is left by the others one application has half. Where anybody may send, small bodies have one half of the room and large ones the other,
//! and of what is left of a half one address has a quarter: the fuller it is, the less anybody gets, so that nobody keeps
//! the others out. Called by [`super::intake`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::base::budgets;
use crate::net::holding;
use crate::respond::{Answer, Refusal};
use crate::telemetry::metrics::Metrics;

/// What of each body is not counted: as much as a connection takes anyhow.
const UNCOUNTED: usize = 16 << 10;

/// What a stranger's body holds at most before it counts as large.
const LARGE: usize = 256 << 10;
/// The part of what is left of a half that the bodies of one address may take.
const OF_ADDRESS: usize = 4;
/// The part of what the others leave that the bodies of one application may take.
const OF_CALLER: usize = 2;

/// What the bodies at one door hold.
#[derive(Debug)]
pub struct Room {
    held: Mutex<Taken>,
    metrics: Arc<Metrics>,
    door: &'static str,
}

#[derive(Debug, Default)]
struct Taken {
    /// By those who are known.
    known: usize,
    /// The same of each application.
    callers: HashMap<Arc<str>, usize>,
    /// By strangers, in small bodies and in large ones.
    strangers: [usize; 2],
    /// The same of each address.
    addresses: HashMap<IpAddr, [usize; 2]>,
}

impl Room {
    /// The room of a door, with nothing in it.
    pub fn new(door: &'static str, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { held: Mutex::default(), metrics, door })
    }

    fn held(&self) -> MutexGuard<'_, Taken> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, taken: &Taken) {
        let bytes = taken.known + taken.strangers.iter().sum::<usize>();
        self.metrics.whole_body_bytes.with_label_values(&[self.door]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Taken {
    /// Takes for a body of an application what it needs.
    fn take_known(&mut self, part: &Part, caller: &Arc<str>, need: usize) -> bool {
        let own = self.callers.get(caller).copied().unwrap_or_default();
        let left = part.most.saturating_sub(self.known - own);
        // One body where there is no other may be as large as it may be.
        let alone = if self.known == part.taken { part.most } else { 0 };
        let fits = own + need <= (left / OF_CALLER).max(alone) && self.known + need <= part.most;
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

    /// Takes for a stranger's body what it needs in the half of its kind.
    fn take(&mut self, part: &Part, address: IpAddr, (kind, need): (usize, usize)) -> bool {
        let half = part.most / 2;
        let own = self.addresses.get(&address).copied().unwrap_or_default();
        let (used, mine) = (self.strangers[kind], own[kind]);
        let left = half.saturating_sub(used - mine);
        // All that it has there is this body, which may be as large as it may be where nobody else is; else two thirds of what
        // is left are for those who come after it.
        let alone = if mine == part.taken_in(kind) { part.alone(kind) } else { 0 };
        let alone = if used == mine { alone } else { alone.min(left / 3) };
        let fits = mine + need <= (left / OF_ADDRESS).max(alone) && used + need <= half.max(alone).min(part.most);
        if fits {
            self.strangers[kind] += need;
            self.addresses.entry(address).or_default()[kind] += need;
        }
        fits
    }

    fn give_back(&mut self, address: IpAddr, (kind, bytes): (usize, usize)) {
        self.strangers[kind] = self.strangers[kind].saturating_sub(bytes);
        if let Entry::Occupied(mut own) = self.addresses.entry(address) {
            own.get_mut()[kind] = own.get()[kind].saturating_sub(bytes);
            if *own.get() == [0, 0] {
                own.remove();
            }
        }
    }
}

/// Whose body it is.
#[derive(Debug)]
enum Holder {
    /// An application's.
    Caller(Arc<str>),
    /// A stranger's, at this address.
    Address(IpAddr),
    /// That of somebody who came by a Unix socket, of whom nothing is known.
    Local,
}

/// One body's part of a room of `most` bytes.
#[derive(Debug)]
pub struct Part {
    room: Arc<Room>,
    most: usize,
    taken: usize,
    holder: Holder,
    /// What the body may have.
    bound: usize,
    /// What of it is not counted.
    uncounted: usize,
    /// How long it says that it is.
    declared: usize,
}

impl Part {
    /// Nothing yet, for an application.
    pub fn of(room: &Arc<Room>, most: usize, caller: &Arc<str>) -> Self {
        let holder = Holder::Caller(Arc::clone(caller));
        Self { room: Arc::clone(room), most, taken: 0, holder, bound: 0, uncounted: UNCOUNTED, declared: 0 }
    }

    /// Nothing yet, for somebody of whom nothing is known but an address, and whose body may have `bytes` at most.
    pub fn of_stranger(room: &Arc<Room>, most: usize, (address, bytes): (Option<IpAddr>, u64)) -> Self {
        let bound = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            room: Arc::clone(room),
            most,
            taken: 0,
            holder: address.map_or(Holder::Local, |address| Holder::Address(budgets::source(address))),
            bound,
            uncounted: UNCOUNTED,
            declared: 0,
        }
    }

    /// The same for a body that comes on a connection with others (HTTP/2): all of it counts.
    #[must_use]
    pub fn among_others(mut self, several: bool) -> Self {
        if several {
            self.uncounted = 0;
        }
        self
    }

    /// The same for a body that says how long it is: by that it is a small or a large one from its beginning.
    #[must_use]
    pub fn of_length(mut self, declared: Option<u64>) -> Self {
        self.declared = usize::try_from(declared.unwrap_or_default()).unwrap_or(usize::MAX);
        self
    }

    /// Which half a body of so many bytes is in: that of the small ones, or of the large.
    fn kind(&self, taken: usize) -> usize {
        usize::from(taken.max(self.declared) > LARGE)
    }

    /// Takes what a body of `length` bytes needs.
    ///
    /// # Errors
    /// 503 when there is no room for it.
    pub fn reach(&mut self, length: usize) -> Result<(), Answer> {
        let more = length.saturating_sub(self.uncounted).saturating_sub(self.taken);
        if more == 0 {
            return Ok(());
        }
        if !self.take(more) {
            self.room.metrics.whole_bodies_refused.with_label_values(&[self.room.door]).inc();
            let words = "the bodies that are being read take all the memory there is for them (`limits.whole_bytes`)";
            return Err(Refusal::Unavailable.answer_after(words, Duration::from_secs(1)).closing());
        }
        self.taken += more;
        Ok(())
    }

    fn take(&self, more: usize) -> bool {
        let mut held = self.room.held();
        let fits = match &self.holder {
            Holder::Local => {
                let fits = held.known.checked_add(more).is_some_and(|known| known <= self.most);
                held.known += if fits { more } else { 0 };
                fits
            }
            Holder::Caller(caller) => held.take_known(self, caller, more),
            &Holder::Address(address) => {
                let (before, after) = (self.kind(self.taken), self.kind(self.taken + more));
                let need = if before == after { more } else { self.taken + more };
                let fits = held.take(self, address, (after, need));
                if fits && before != after {
                    held.give_back(address, (before, self.taken));
                }
                fits
            }
        };
        self.room.show(&held);
        fits
    }

    /// What it has taken in a half.
    fn taken_in(&self, half: usize) -> usize {
        if self.kind(self.taken) == half { self.taken } else { 0 }
    }

    /// What it may take in a half at most.
    fn alone(&self, half: usize) -> usize {
        if half == 0 { self.bound.min(LARGE) } else { self.bound }
    }

    /// The body, which holds its part as long as anything of it is there.
    pub fn hold(self, body: Bytes) -> Bytes {
        if self.taken == 0 { body } else { holding(body, self) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        let mut held = self.room.held();
        match &self.holder {
            Holder::Local => held.known = held.known.saturating_sub(self.taken),
            Holder::Caller(caller) => held.give_back_known(caller, self.taken),
            &Holder::Address(address) => held.give_back(address, (self.kind(self.taken), self.taken)),
        }
        self.room.show(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    #[test]
    fn no_stranger_takes_the_room_of_the_others() {
        let room = Room::new("public", Arc::new(Metrics::new().expect("unique names")));
        let of = |host: u8| Part::of_stranger(&room, 64 << 20, (Some(address(host)), 2 << 20));
        for size in [200 << 10, 2 << 20] {
            let mut held = Vec::new();
            for host in 0..6 {
                loop {
                    let mut part = of(host);
                    if part.reach(size).is_err() {
                        break;
                    }
                    held.push(part);
                }
            }
            let taken =
                held.iter().filter(|part| matches!(part.holder, Holder::Address(is) if is == address(0))).count()
                    * size;
            assert!((7 << 20..9 << 20).contains(&taken), "one address has a quarter of a half: {taken}");
            for host in 100..103 {
                let (mut large, mut small) = (of(host), of(host));
                assert!(large.reach(1 << 20).is_ok() && small.reach(LARGE).is_ok(), "{size}: the others have room");
                held.extend([large, small]);
            }
        }
        let empty = room.held();
        assert_eq!((empty.known, empty.strangers, empty.addresses.len()), (0, [0, 0], 0));
    }

    #[test]
    fn a_large_body_needs_no_room_among_the_small_ones() {
        let room = Room::new("public", Arc::new(Metrics::new().expect("unique names")));
        let of = |host: u8| Part::of_stranger(&room, 8 << 20, (Some(address(host)), 1 << 20));
        let mut held = Vec::new();
        for host in 0..60 {
            let mut part = of(host);
            part.reach(200 << 10).is_ok().then(|| held.push(part));
        }
        assert!(of(99).reach(200 << 10).is_err(), "the half for small ones is full");
        assert!(of(99).of_length(Some(300 << 10)).reach(60 << 10).is_ok());
    }

    #[test]
    fn a_few_addresses_with_one_large_body_each_leave_room_for_the_others() {
        let room = Room::new("public", Arc::new(Metrics::new().expect("unique names")));
        let of = |host: u8| Part::of_stranger(&room, 256 << 20, (Some(address(host)), 25 << 20));
        let held: Vec<_> = (0..8)
            .map(|host| {
                let mut part = of(host);
                while part.reach(part.taken + (64 << 10)).is_ok() {}
                part
            })
            .collect();
        for size in [300 << 10, 1 << 20] {
            assert!(
                of(99).reach(size).is_ok(),
                "{size} beside {} bytes",
                held.iter().map(|part| part.taken).sum::<usize>()
            );
        }
        drop(held);
        assert!(of(99).reach(25 << 20).is_ok());
    }

    #[test]
    fn what_comes_on_one_connection_counts_whole() {
        let room = Room::new("public", Arc::new(Metrics::new().expect("unique names")));
        let mut part = Part::of(&room, 1 << 20, &Arc::from("app")).among_others(true);
        assert!(part.reach(UNCOUNTED).is_ok());
        assert_eq!(room.held().known, UNCOUNTED);
    }

    #[test]
    fn a_body_that_may_be_larger_than_a_part_finds_room_when_it_is_alone() {
        let room = Room::new("public", Arc::new(Metrics::new().expect("unique names")));
        let of = |host: u8| Part::of_stranger(&room, 8 << 20, (Some(address(host)), 6 << 20));
        let mut first = of(1);
        assert!((1..7).all(|mib: usize| first.reach(mib << 20).is_ok()), "it grows to its bound");
        assert!(of(2).reach(3 << 20).is_err(), "and the next one waits");
        drop(first);
        assert!(of(2).reach(6 << 20).is_ok());
    }

    #[test]
    fn no_application_takes_the_room_of_the_others() {
        let room = Room::new("proxy", Arc::new(Metrics::new().expect("unique names")));
        let of = |caller: &str| Part::of(&room, 64 << 20, &Arc::from(caller));
        let mut held = Vec::new();
        loop {
            let mut part = of("greedy");
            if part.reach(4 << 20).is_err() {
                break;
            }
            held.push(part);
        }
        assert_eq!(held.len(), 8, "half of what nobody else has");
        let mut other = of("other");
        assert!(other.reach(15 << 20).is_ok() && of("third").reach(8 << 20).is_ok());
        drop((held, other));
        assert!(of("greedy").reach(60 << 20).is_ok(), "one body alone may have it all");
        assert!(room.held().callers.is_empty() && room.held().known == 0);
    }

    #[test]
    fn what_bodies_hold_has_a_bound_and_comes_back() {
        let room = Room::new("proxy", Arc::new(Metrics::new().expect("unique names")));
        let most = 100_000;
        let body = |length: usize| {
            let mut part = Part::of(&room, most, &Arc::from("app"));
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
        assert_eq!(room.held().known, 0);
    }
}
