//! Counts the HTTP/2 frames of a connection that ask for work and carry nothing.
//!
//! The HTTP/2 library bounds what it keeps, not what it does: a client that opens and resets streams without
//! end (CVE-2023-44487), or sends settings, pings, empty data or continuations, makes work that no limit of
//! its own counts. So do frames of kinds that nobody knows. Here such frames cost a token each, which come back slowly; one too many ends the
//! connection. Only frame heads are read, whatever pieces they come in. Called by [`super::stream`].

use std::time::Duration;

/// The preface of a client (RFC 9113 section 3.4), which is not a frame.
const PREFACE: usize = 24;
/// The bytes of a frame's head.
const HEAD: usize = 9;
/// What comes back each second, as a part of the whole.
const REFILL: f64 = 0.1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
/// The flag of a frame that ends in bytes that mean nothing.
const PADDED: u8 = 8;
/// What a padded frame may have and carry nothing.
const ALL_PADDING: usize = 256;

/// The budget of one connection.
#[derive(Debug)]
pub struct FrameBudget {
    most: f64,
    left: f64,
    since: Duration,
    /// Bytes of the preface or of a payload that are passed over.
    skip: usize,
    head: [u8; HEAD],
    read: usize,
}

impl FrameBudget {
    /// A budget of `most` such frames, from a client's first byte on.
    pub fn new(most: u32, now: Duration) -> Self {
        Self { most: most.into(), left: most.into(), since: now, skip: PREFACE, head: [0; HEAD], read: 0 }
    }

    /// Reads what came. Answers whether the budget still lasts.
    pub fn read(&mut self, mut bytes: &[u8], now: Duration) -> bool {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else { return true };
            if let Some(place) = self.head.get_mut(self.read) {
                *place = *first;
            }
            (bytes, self.read) = (rest, self.read + 1);
            if self.read == HEAD && !self.count(now) {
                return false;
            }
        }
    }

    fn count(&mut self, now: Duration) -> bool {
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.read = 0;
        let costs = match kind {
            DATA => self.skip == 0 || flags & PADDED != 0 && self.skip <= ALL_PADDING,
            // A request, and the room for an answer, are bounded by what they are for.
            HEADERS | WINDOW_UPDATE => false,
            // RST_STREAM, PING, SETTINGS, PRIORITY and CONTINUATION; what no client may send, or nobody knows.
            _ => true,
        };
        if !costs {
            return true;
        }
        let back = now.saturating_sub(self.since).as_secs_f64() * self.most * REFILL;
        self.since = now;
        self.left = (self.left + back).min(self.most) - 1.0;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, u8::try_from(length >> 8).expect("short"), u8::try_from(length & 255).expect("a byte")];
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.extend(vec![7; length]);
        frame
    }

    fn second(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn resets_use_the_budget_up_and_time_gives_it_back() {
        let mut budget = FrameBudget::new(20, second(0));
        assert!(budget.read(&[0; PREFACE], second(0)));
        for _ in 0..20 {
            assert!(budget.read(&frame(1, 40), second(0)) && budget.read(&frame(RST_STREAM, 4), second(0)));
        }
        assert!(budget.read(&frame(RST_STREAM, 4), second(1)), "two came back");
        assert!(!budget.read(&[frame(PING, 8), frame(SETTINGS, 0)].concat(), second(1)));
    }

    #[test]
    fn data_costs_only_when_it_is_empty() {
        let mut budget = FrameBudget::new(20, second(0));
        budget.read(&[0; PREFACE], second(0));
        assert!(budget.read(&frame(DATA, 5).repeat(1_000), second(0)));
        assert!(!budget.read(&frame(DATA, 0).repeat(21), second(0)));
    }

    #[test]
    fn frames_of_no_known_kind_cost_and_padding_is_nothing() {
        let lasts =
            |frames: Vec<u8>| FrameBudget::new(20, second(0)).read(&[vec![0; PREFACE], frames].concat(), second(0));
        let padded = |length| {
            let mut frame = frame(DATA, length);
            frame[4] = PADDED;
            frame
        };
        assert!(!lasts(frame(0x42, 100).repeat(21)), "of no known kind");
        assert!(!lasts(padded(256).repeat(21)), "nothing but padding");
        assert!(lasts(padded(257).repeat(1_000)), "a part of it carries something");
        assert!(lasts(frame(WINDOW_UPDATE, 4).repeat(1_000)));
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(kinds in prop::collection::vec((0_u8..11, 0_usize..30), 0..60), cut in 1_usize..40) {
            let mut bytes = vec![0; PREFACE];
            bytes.extend(kinds.iter().flat_map(|(kind, length)| frame(*kind, *length)));
            let whole = FrameBudget::new(20, second(0)).read(&bytes, second(0));
            let mut budget = FrameBudget::new(20, second(0));
            let pieces = bytes.chunks(cut).all(|piece| budget.read(piece, second(0)));
            prop_assert_eq!(whole, pieces);
        }
    }
}
