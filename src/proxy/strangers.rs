//! The bodies of strangers: which one is given up when all of them together need more than there is.
//!
//! An address says little of who sends: one sender has many, and many share one. What tells a body that keeps others out
//! from one that will soon be done is how fast it comes. So where there is no room, the body that comes the slowest goes,
//! unless it is the one that asks. Called by [`super::room`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// A body is not given up before it has had this long; and one of which nothing came for so long has come to a halt.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// What strangers' bodies hold.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    bodies: HashMap<u64, Body>,
    last: u64,
    bytes: usize,
}

/// A moment, and how much of a body had come then.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Duration,
    came: usize,
}

#[derive(Debug)]
struct Body {
    /// The memory that it holds, which grows by steps; how fast it comes is told by what has come of it.
    bytes: usize,
    came: usize,
    since: Duration,
    /// When the last of it came.
    heard: Duration,
    /// Two moments, a second or more apart: how fast it comes is measured from the first of them.
    marks: [Mark; 2],
    /// Tells its reader that it is given up.
    given_up: Arc<Notify>,
    /// Whether it is still being read: one that is there whole is soon done with.
    read: bool,
}

impl Body {
    fn hear(&mut self, came: usize, now: Duration) {
        if now.saturating_sub(self.marks[1].at) >= UNDISTURBED {
            self.marks = [self.marks[1], Mark { at: now, came: self.came }];
        }
        self.came = came;
        self.heard = now;
    }

    /// Bytes a second in the last one or two; `u128::MAX` of one that has just begun.
    fn pace(&self, now: Duration) -> u128 {
        let [first, _] = self.marks;
        match now.saturating_sub(self.since) {
            age if age < UNDISTURBED => u128::MAX,
            _ if now.saturating_sub(self.heard) >= UNDISTURBED => 0,
            _ => self.came.saturating_sub(first.came) as u128 * 1_000 / now.saturating_sub(first.at).as_millis().max(1),
        }
    }
}

impl Strangers {
    /// What all of them hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A body that needs something for the first time, once `came` bytes of it have come: its number, and what is told once
    /// it is given up.
    pub(super) fn enter(&mut self, came: usize, now: Duration) -> (u64, Arc<Notify>) {
        self.last += 1;
        let (marks, given_up) = ([Mark { at: now, came }; 2], Arc::new(Notify::new()));
        let told = Arc::clone(&given_up);
        let body = Body { bytes: 0, came, since: now, heard: now, marks, given_up, read: false };
        self.bodies.insert(self.last, body);
        (self.last, told)
    }

    /// More of a body has come, `came` bytes in all.
    pub(super) fn hear(&mut self, number: u64, came: usize, now: Duration) {
        if let Some(body) = self.bodies.get_mut(&number) {
            body.hear(came, now);
        }
    }

    /// Takes `more` bytes that a body needs, of `most` for all. Whether there is room for them; none if it was given up.
    pub(super) fn take(&mut self, number: u64, more: usize, (most, now): (usize, Duration)) -> bool {
        let Some(body) = self.bodies.get_mut(&number) else {
            return false;
        };
        body.bytes += more;
        let pace = body.pace(now);
        self.bytes += more;
        let lacking = self.bytes.saturating_sub(most);
        let fits = lacking == 0 || self.make_room(lacking, pace, now);
        if !fits {
            self.leave(number);
        }
        fits
    }

    /// Gives up those that come slower than `pace`, the slowest and of those the largest first, until `lacking` bytes are
    /// free; none if all of them together do not hold as much.
    fn make_room(&mut self, lacking: usize, pace: u128, now: Duration) -> bool {
        let mut slow: Vec<_> = self
            .bodies
            .iter()
            .filter(|(_, body)| !body.read && body.bytes > 0)
            .map(|(&number, body)| (body.pace(now), usize::MAX - body.bytes, number))
            .filter(|(other, ..)| *other < pace)
            .collect();
        slow.sort_unstable();
        let mut free = 0;
        let enough = slow.iter().position(|&(_, rest, _)| {
            free += usize::MAX - rest;
            free >= lacking
        });
        let Some(last) = enough else {
            return false;
        };
        for &(_, _, number) in slow.iter().take(last + 1) {
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
        strangers.enter(0, Duration::from_millis(millis))
    }

    /// So many bytes come of a body, which needs as many.
    fn comes(strangers: &mut Strangers, number: u64, more: usize, at: (usize, Duration)) -> bool {
        let came = strangers.bodies.get(&number).map_or(0, |body| body.came);
        strangers.hear(number, came + more, at.1);
        strangers.take(number, more, at)
    }

    #[tokio::test]
    async fn what_has_come_to_a_halt_is_given_up_the_largest_first() {
        let mut all = Strangers::default();
        let (small, _) = enter(&mut all, 0);
        let (large, told) = enter(&mut all, 0);
        assert!(comes(&mut all, small, 100, at(0)) && comes(&mut all, large, 900, at(0)));
        let (early, _) = enter(&mut all, 900);
        assert!(!comes(&mut all, early, 10, at(900)), "nobody has had a second yet");
        let (late, _) = enter(&mut all, 1000);
        assert!(comes(&mut all, late, 10, at(1100)), "the large one is given up");
        told.notified().await;
        assert_eq!(all.bytes(), 110);
        assert!(!comes(&mut all, large, 1, at(1100)), "what is given up gets nothing more");
        for number in [large, small, late] {
            all.leave(number);
        }
        assert_eq!((all.bytes(), all.bodies.len()), (0, 0));
    }

    #[test]
    fn who_makes_progress_stays_whatever_it_holds() {
        let mut all = Strangers::default();
        let (good, _) = enter(&mut all, 0);
        for piece in 0..60_u64 {
            assert!(comes(&mut all, good, 10, at(piece * 100)), "100 bytes a second, at {piece}");
            // Again and again somebody sends more at once, and then nothing more.
            let (burst, _) = enter(&mut all, piece * 100);
            comes(&mut all, burst, 40, at(piece * 100));
        }
        assert!(all.bodies.contains_key(&good) && all.bytes() <= MOST);
    }

    #[test]
    fn a_body_is_as_fast_as_it_comes_whatever_it_takes_at_once() {
        let mut all = Strangers::default();
        let (slow, _) = enter(&mut all, 0);
        let (good, _) = enter(&mut all, 0);
        for piece in 1..=30_u64 {
            let now = Duration::from_millis(piece * 100);
            all.hear(slow, 10 * usize::try_from(piece).expect("few"), now);
            all.hear(good, 20 * usize::try_from(piece).expect("few"), now);
        }
        assert!(all.take(good, 400, at(3_000)) && all.take(slow, 600, at(3_000)), "there is room for both");
        assert!(all.take(good, 200, at(3_100)), "the slow one has just taken more, and comes slower all the same");
        assert_eq!((all.bytes(), all.bodies.contains_key(&slow)), (600, false));
    }

    #[test]
    fn who_comes_slower_than_the_others_is_refused_and_gives_up_nobody() {
        let mut all = Strangers::default();
        let (slow, _) = enter(&mut all, 0);
        let (quick, _) = enter(&mut all, 0);
        for second in 0..4 {
            assert!(comes(&mut all, slow, 50, at(second * 900)) && comes(&mut all, quick, 180, at(second * 900)));
        }
        assert!(!comes(&mut all, slow, 200, at(3_600)));
        assert_eq!(all.bytes(), 720, "what the slow one held is free");
        let (late, _) = enter(&mut all, 3_600);
        assert!(!comes(&mut all, late, MOST + 1, at(3_600)), "not even without the others there is room");
        assert_eq!(all.bytes(), 720, "so none is given up");
    }

    #[test]
    fn a_body_that_is_there_whole_is_not_given_up() {
        let mut all = Strangers::default();
        let (whole, _) = enter(&mut all, 0);
        assert!(comes(&mut all, whole, MOST, at(0)));
        all.was_read(whole);
        let (late, _) = enter(&mut all, 9000);
        assert!(!comes(&mut all, late, 1, at(9000)));
    }
}
