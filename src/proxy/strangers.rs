//! The bodies of strangers: which one is given up when all of them together need more than there is.
//!
//! An address says little of who sends: one sender has many, and many share one. What tells a body that keeps others out
//! from one that will soon be done is how much memory it has held for how long. So where there is no room, the body that
//! has held the most for the longest goes, unless it is the one that asks. Called by [`super::room`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// A body is not given up before it has had this long.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// What strangers' bodies hold.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    bodies: HashMap<u64, Body>,
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Body {
    bytes: usize,
    since: Duration,
    /// Tells its reader that it is given up.
    given_up: Arc<Notify>,
    /// Whether it is still being read: one that is there whole is soon done with.
    read: bool,
}

impl Body {
    /// Bytes it has held, times milliseconds.
    fn cost(&self, now: Duration) -> u128 {
        self.bytes as u128 * now.saturating_sub(self.since).as_millis()
    }
}

impl Strangers {
    /// What all of them hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A body that begins to be read, and its number. `given_up` is told once it is given up.
    pub(super) fn enter(&mut self, given_up: Arc<Notify>, now: Duration) -> u64 {
        self.last += 1;
        self.bodies.insert(self.last, Body { bytes: 0, since: now, given_up, read: false });
        self.last
    }

    /// Takes `more` bytes for a body, of `most` for all. Whether there is room for them; none if it was given up.
    pub(super) fn take(&mut self, number: u64, more: usize, (most, now): (usize, Duration)) -> bool {
        let Some(cost) = self.bodies.get(&number).map(|body| body.cost(now)) else {
            return false;
        };
        let lacking = self.bytes.saturating_add(more).saturating_sub(most);
        if lacking > 0 && !self.make_room(lacking, cost, now) {
            return false;
        }
        if let Some(body) = self.bodies.get_mut(&number) {
            body.bytes += more;
            self.bytes += more;
        }
        true
    }

    /// Gives up those that cost more than `cost`, the costliest first, until `lacking` bytes are free; none if all of them
    /// together do not hold as much.
    fn make_room(&mut self, lacking: usize, cost: u128, now: Duration) -> bool {
        let held_long = |body: &Body| now.saturating_sub(body.since) >= UNDISTURBED;
        let mut costly: Vec<_> = self
            .bodies
            .iter()
            .filter(|(_, body)| !body.read && held_long(body) && body.cost(now) > cost)
            .map(|(&number, body)| (body.cost(now), number, body.bytes))
            .collect();
        costly.sort_unstable_by(|one, other| other.cmp(one));
        let mut free = 0;
        let enough = costly.iter().position(|&(_, _, bytes)| {
            free += bytes;
            free >= lacking
        });
        let Some(last) = enough else {
            return false;
        };
        for &(_, number, _) in costly.iter().take(last + 1) {
            if let Some(body) = self.bodies.get(&number) {
                body.given_up.notify_one();
            }
            self.leave(number);
        }
        true
    }

    /// A body has been read whole.
    pub(super) fn was_read(&mut self, number: u64) {
        if let Some(body) = self.bodies.get_mut(&number) {
            body.read = true;
        }
    }

    /// A body is gone, and what it held with it.
    pub(super) fn leave(&mut self, number: u64) {
        if let Some(body) = self.bodies.remove(&number) {
            self.bytes = self.bytes.saturating_sub(body.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;

    fn at(millis: u64) -> (usize, Duration) {
        (MOST, Duration::from_millis(millis))
    }

    fn enter(strangers: &mut Strangers, millis: u64) -> (u64, Arc<Notify>) {
        let given_up = Arc::new(Notify::new());
        (strangers.enter(Arc::clone(&given_up), Duration::from_millis(millis)), given_up)
    }

    #[tokio::test]
    async fn who_has_held_the_most_for_the_longest_is_given_up_for_who_comes_now() {
        let mut all = Strangers::default();
        let (small, _) = enter(&mut all, 0);
        let (large, told) = enter(&mut all, 0);
        assert!(all.take(small, 100, at(0)) && all.take(large, 900, at(0)));
        let (late, _) = enter(&mut all, 900);
        assert!(!all.take(late, 10, at(900)), "nobody has had a second yet");
        assert!(all.take(late, 10, at(1100)), "the large one is given up");
        told.notified().await;
        assert_eq!(all.bytes(), 110);
        assert!(!all.take(large, 1, at(1100)), "what is given up gets nothing more");
        for number in [large, small, late] {
            all.leave(number);
        }
        assert_eq!((all.bytes(), all.bodies.len()), (0, 0));
    }

    #[test]
    fn who_would_be_given_up_itself_is_refused_and_gives_up_nobody() {
        let mut all = Strangers::default();
        let (slow, _) = enter(&mut all, 0);
        let (quick, _) = enter(&mut all, 4000);
        assert!(all.take(slow, 500, at(0)) && all.take(quick, 400, at(4000)));
        assert!(!all.take(slow, 200, at(5000)), "the slow one costs the most");
        assert!(!all.take(quick, 700, at(5000)), "not even without the slow one there is room");
        assert_eq!(all.bytes(), 900, "so it is not given up");
        assert!(all.take(quick, 200, at(5000)));
        assert_eq!(all.bytes(), 600);
    }

    #[test]
    fn a_body_that_is_there_whole_is_not_given_up() {
        let mut all = Strangers::default();
        let (whole, _) = enter(&mut all, 0);
        assert!(all.take(whole, MOST, at(0)));
        all.was_read(whole);
        let (late, _) = enter(&mut all, 9000);
        assert!(!all.take(late, 1, at(9000)));
    }
}
