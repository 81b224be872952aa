//! What is whole of a segment that is damaged.
//!
//! Behind a damaged frame the next whole one is looked for at each byte, since its length may be what is damaged. A
//! payload may hold what looks like frames, put there by whoever sent it: what is found counts only when it is not the
//! damaged frame itself, and the frames behind it go on from it until the segment ends or is damaged again.

use super::frame::{self, Read};
use super::segment::HEADER_BYTES;

/// What cannot be read at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The place in the segment.
    pub offset: u64,
    /// How many entries.
    pub records: u64,
}

/// A segment that is read as far as it goes.
#[derive(Debug, Clone, Copy)]
pub struct Damaged<'a> {
    /// Its bytes, as far as they can be read.
    pub bytes: &'a [u8],
    /// Its first sequence number.
    pub first: u64,
    /// The sequence number behind its last, as far as that is known.
    pub until: u64,
    /// Whether no other segment follows: then there may be more, and what is not whole behind `until` never counted.
    pub is_newest: bool,
}

impl Damaged<'_> {
    /// Tells each of its entries in order, `None` in the place of one that is lost. Answers what is lost, and the
    /// sequence number behind the last.
    pub fn walk(&self, mut told: impl FnMut(u64, Option<&[u8]>)) -> (Vec<Lost>, u64) {
        let (mut at, mut next, mut lost) = (HEADER_BYTES.min(self.bytes.len()), self.first, Vec::new());
        let mut lose = |at: usize, from: u64, to: u64, told: &mut dyn FnMut(u64, Option<&[u8]>)| {
            if from < to {
                lost.push(Lost { offset: at as u64, records: to - from });
                (from..to).for_each(|sequence| told(sequence, None));
            }
        };
        loop {
            match self.frame_at(at) {
                Some((sequence, payload)) if sequence == next => {
                    told(next, Some(payload));
                    (at, next) = (at + frame::HEADER + payload.len(), next + 1);
                }
                _ if self.is_newest && next >= self.until => return (lost, next),
                _ => {
                    let Some((place, sequence)) = self.search(at, next) else {
                        lose(at, next, self.until, &mut told);
                        return (lost, next.max(self.until));
                    };
                    lose(at, next, sequence, &mut told);
                    (at, next) = (place, sequence);
                }
            }
        }
    }

    fn frame_at(&self, at: usize) -> Option<(u64, &[u8])> {
        match frame::decode(self.bytes.get(at..)?) {
            Read::Frame(frame, _) => Some((frame.sequence, frame.payload)),
            Read::End | Read::Bad(_) => None,
        }
    }

    /// The next frame behind the one that is damaged, and its sequence number.
    fn search(&self, from: usize, damaged: u64) -> Option<(usize, u64)> {
        (from..self.bytes.len()).find_map(|place| {
            // Most places are ruled out by the number alone, before anything is summed up.
            let sequence = frame::u64_at(self.bytes, place + 8)?;
            let fits = sequence > damaged && sequence < self.until;
            (fits && self.goes_on(place, sequence)).then_some((place, sequence))
        })
    }

    /// Whether frames stand one behind the other from here on, until the bytes end or are no frame.
    fn goes_on(&self, mut place: usize, first: u64) -> bool {
        let mut next = first;
        while let Some((sequence, payload)) = self.frame_at(place) {
            if sequence != next {
                return false;
            }
            (place, next) = (place + frame::HEADER + payload.len(), next + 1);
        }
        next > first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut places) = (vec![0; HEADER_BYTES], Vec::new());
        for (sequence, payload) in (1..).zip(payloads) {
            places.push(bytes.len());
            frame::encode(sequence, payload, &mut bytes);
        }
        (bytes, places)
    }

    fn read(bytes: &[u8], until: u64, is_newest: bool) -> (Vec<Option<Vec<u8>>>, Vec<Lost>, u64) {
        let mut told = Vec::new();
        let damaged = Damaged { bytes, first: 1, until, is_newest };
        let (lost, next) = damaged.walk(|sequence, payload| {
            assert_eq!(sequence, told.len() as u64 + 1);
            told.push(payload.map(<[u8]>::to_vec));
        });
        (told, lost, next)
    }

    #[test]
    fn all_but_the_damaged_is_told() {
        let (whole, places) = segment(&[b"one", b"two", b"three", b"four"]);
        for byte in 0..frame::HEADER + 3 {
            let mut bytes = whole.clone();
            bytes[places[1] + byte] ^= 0x40;
            let (told, lost, next) = read(&bytes, 5, false);
            let texts: Vec<_> = told.iter().map(Option::as_deref).collect();
            assert_eq!(texts, [Some(&b"one"[..]), None, Some(b"three"), Some(b"four")], "byte {byte}");
            assert_eq!(lost, [Lost { offset: places[1] as u64, records: 1 }]);
            assert_eq!(next, 5);
        }
    }

    #[test]
    fn an_end_that_is_missing_is_lost_and_a_torn_one_never_was() {
        let (whole, places) = segment(&[b"one", b"two", b"three"]);
        let cut = &whole[..places[2] + 5];
        let at = places[2] as u64;
        assert_eq!(read(cut, 6, false).1, [Lost { offset: at, records: 3 }]);
        assert_eq!(read(cut, 4, true).1, [Lost { offset: at, records: 1 }]);
        assert_eq!((read(cut, 3, true).1, read(cut, 3, true).2), (vec![], 3));
        assert_eq!(read(&[], 3, false).1, [Lost { offset: 0, records: 2 }]);
    }

    #[test]
    fn what_a_sender_put_into_a_payload_is_no_frame() {
        for forged in 1..6 {
            let mut body = b"a body ".to_vec();
            frame::encode(forged, b"forged", &mut body);
            let (mut bytes, places) = segment(&[b"one", &body, b"three", b"four"]);
            bytes[places[1]] ^= 1;
            let (told, _, _) = read(&bytes, 5, false);
            assert!(told.iter().flatten().all(|payload| payload != b"forged"), "{forged}: {told:?}");
            assert_eq!(told[2].as_deref(), Some(&b"three"[..]), "{forged}");
        }
    }
}
