//! What is whole of a segment that is damaged.
//!
//! The length of a damaged frame is looked at first: where the next frame stands behind it, one frame is lost. Else the
//! length may be what is damaged, and frames are looked for. A payload may hold what looks like frames, put there by
//! whoever sent it, so only frames count that stand one behind the other, with numbers that go up by one, up to the end of
//! the segment. What a sender put into the payload that is damaged does not lead there: behind it stands a frame with the
//! number after the damaged one's, or text. Between two places at which a frame's length is lost nothing can tell true
//! frames from others, and all is given up there. It is kept where several frames in a row are lost and the last payload
//! of them ends in a frame with its own number, which its sender would have to know beforehand.

use std::collections::HashMap;

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

/// What is known of the sequence number behind a segment's last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Another segment begins with it.
    Exactly(u64),
    /// The segment is the newest: all before it is durable. There may be more, and what of that is not whole never
    /// counted.
    AtLeast(u64),
    /// The segment is the newest, and the mark cannot be read.
    Unknown,
}

/// A segment that is read as far as it goes.
#[derive(Debug, Clone, Copy)]
pub struct Damaged<'a> {
    /// Its bytes; zeros where they cannot be read.
    pub bytes: &'a [u8],
    /// Its first sequence number.
    pub first: u64,
    /// Where it ends.
    pub until: Until,
}

impl Damaged<'_> {
    /// Tells each of its entries in order, `None` in the place of one that is lost. Answers what is lost, and the
    /// sequence number behind the last. Where nothing tells how many are lost at the end, it is told as one.
    pub fn walk(&self, mut told: impl FnMut(u64, Option<&[u8]>)) -> (Vec<Lost>, u64) {
        let (mut at, mut next, mut lost) = (HEADER_BYTES.min(self.bytes.len()), self.first, Vec::new());
        let mut give_up = |at: usize, from: u64, to: u64, told: &mut dyn FnMut(u64, Option<&[u8]>)| {
            if from < to {
                lost.push(Lost { offset: at as u64, records: to - from });
                (from..to).for_each(|sequence| told(sequence, None));
            }
        };
        let mut to_the_end = None;
        loop {
            if let Some(payload) = self.frame_at(at, next) {
                told(next, Some(payload));
                (at, next) = (at + frame::HEADER + payload.len(), next + 1);
                continue;
            }
            let until = match self.until {
                Until::Exactly(until) | Until::AtLeast(until) => until,
                Until::Unknown => next + u64::from(at < self.bytes.len()),
            };
            let found = if next < until {
                self.behind(at, next, to_the_end.get_or_insert_with(|| self.chained_to_the_end()))
            } else {
                None
            };
            let Some((place, sequence)) = found else {
                give_up(at, next, until, &mut told);
                return (lost, next.max(until));
            };
            give_up(at, next, sequence, &mut told);
            (at, next) = (place, sequence);
        }
    }

    /// The payload of the whole frame that stands at a place with this number.
    fn frame_at(&self, at: usize, number: u64) -> Option<&[u8]> {
        match frame::decode(self.bytes.get(at..)?) {
            Read::Frame(frame, _) if frame.sequence == number => Some(frame.payload),
            Read::Frame(..) | Read::End | Read::Bad(_) => None,
        }
    }

    /// The number that a header at a place has, whole or not, and where its frame ends.
    fn header_at(&self, at: usize) -> Option<(u64, usize)> {
        let sequence = frame::u64_at(self.bytes, at + 8)?;
        // Most places are ruled out by the number alone.
        let is_possible = sequence >= self.first && sequence - self.first <= (self.bytes.len() / frame::HEADER) as u64;
        let length = frame::u32_at(self.bytes, at).filter(|_| is_possible)? as usize;
        (length <= frame::MAX_PAYLOAD).then_some((sequence, at + frame::HEADER + length))
    }

    /// The next frame behind the one that is damaged, and its number.
    fn behind(&self, at: usize, damaged: u64, to_the_end: &[(usize, u64)]) -> Option<(usize, u64)> {
        let own = match self.by_lengths(at, damaged) {
            Led::ToTheEnd => return None,
            Led::To(place, sequence) => Some((place, sequence)),
            Led::Nowhere => None,
        };
        let fits = |(place, sequence): &&(usize, u64)| *place > at && *sequence > damaged;
        let found = to_the_end.iter().find(fits).copied().filter(|(_, sequence)| match self.until {
            // A payload may end with the bytes, and what seems to stand behind the last durable frame is in it.
            Until::AtLeast(until) => *sequence < until,
            Until::Exactly(_) | Until::Unknown => true,
        });
        // A length that is damaged may lead to what a sender wrote: of two with one number the one is true that leads on.
        own.filter(|(_, sequence)| found.is_none_or(|(_, other)| other != *sequence)).or(found)
    }

    /// Where the length of a damaged frame leads, and those of the frames behind it as long as they are damaged as well.
    fn by_lengths(&self, at: usize, damaged: u64) -> Led {
        let Some(length) = frame::u32_at(self.bytes, at) else { return Led::Nowhere };
        let (mut place, mut next) = (at + frame::HEADER + length as usize, damaged + 1);
        loop {
            if self.frame_at(place, next).is_some() {
                return Led::To(place, next);
            }
            let is_end = place == self.bytes.len() && self.may_be_last(next - 1);
            match self.header_at(place) {
                _ if is_end => return Led::ToTheEnd,
                Some((sequence, behind)) if sequence == next => (place, next) = (behind, next + 1),
                _ => return Led::Nowhere,
            }
        }
    }

    /// The frames from which on all are whole up to the end, by their places.
    fn chained_to_the_end(&self) -> Vec<(usize, u64)> {
        let found = self.chained_to(self.bytes.len());
        if !found.is_empty() {
            return found;
        }
        self.torn_end().map(|end| self.chained_to(end)).unwrap_or_default()
    }

    /// The frames from which on all are whole up to a place at which the last one ends.
    fn chained_to(&self, end: usize) -> Vec<(usize, u64)> {
        let (mut chained, mut found) = (HashMap::new(), Vec::new());
        for place in (HEADER_BYTES..end).rev() {
            let Some((sequence, behind)) = self.header_at(place) else { continue };
            let goes_on =
                if behind == end { self.may_be_last(sequence) } else { chained.get(&behind) == Some(&(sequence + 1)) };
            if goes_on && self.frame_at(place, sequence).is_some() {
                chained.insert(place, sequence);
                found.push((place, sequence));
            }
        }
        found.reverse();
        found
    }

    fn may_be_last(&self, sequence: u64) -> bool {
        match self.until {
            Until::Exactly(until) => sequence + 1 == until,
            Until::AtLeast(until) => sequence + 1 >= until,
            Until::Unknown => true,
        }
    }

    /// Where the last whole frame ends before one that was being written, in a segment that nothing follows. None where
    /// more than one place looks like that: one of them is in a payload.
    fn torn_end(&self) -> Option<usize> {
        let Until::AtLeast(_) = self.until else { return None };
        let zeros = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut ends = (HEADER_BYTES..self.bytes.len()).filter_map(|place| {
            let (sequence, behind) = self.header_at(place).filter(|(sequence, _)| self.may_be_last(*sequence))?;
            let is_torn = behind >= zeros || self.is_cut(behind, sequence + 1);
            let is_last = is_torn && self.frame_at(place, sequence).is_some();
            is_last.then_some(behind)
        });
        let end = ends.next()?;
        ends.all(|other| other == end).then_some(end)
    }

    /// Whether at a place only the beginning stands of the frame with this number.
    fn is_cut(&self, at: usize, number: u64) -> bool {
        let is_whole_header = at + frame::HEADER <= self.bytes.len();
        !is_whole_header || self.header_at(at).is_some_and(|(found, end)| found == number && end > self.bytes.len())
    }
}

/// Where the length of a damaged frame leads.
enum Led {
    /// To a whole frame with the number that is due.
    To(usize, u64),
    /// To the end of the bytes.
    ToTheEnd,
    /// To what is none.
    Nowhere,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMAGED: usize = 1;

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut places) = (vec![0; HEADER_BYTES], Vec::new());
        for (sequence, payload) in (1..).zip(payloads) {
            places.push(bytes.len());
            frame::encode(sequence, payload, &mut bytes);
        }
        (bytes, places)
    }

    fn read(bytes: &[u8], until: Until) -> (Vec<Option<Vec<u8>>>, Vec<Lost>, u64) {
        let mut told = Vec::new();
        let damaged = Damaged { bytes, first: 1, until };
        let (lost, next) = damaged.walk(|sequence, payload| {
            assert_eq!(sequence, told.len() as u64 + 1);
            told.push(payload.map(<[u8]>::to_vec));
        });
        (told, lost, next)
    }

    fn forged(numbers: std::ops::Range<u64>, before: &[u8], behind: &[u8]) -> Vec<u8> {
        let mut body = before.to_vec();
        numbers.for_each(|number| frame::encode(number, b"forged", &mut body));
        body.extend_from_slice(behind);
        body
    }

    #[test]
    fn all_but_the_damaged_is_told() {
        let (whole, places) = segment(&[b"one", b"two", b"three", b"four"]);
        for byte in 0..frame::HEADER + 3 {
            for until in [Until::Exactly(5), Until::AtLeast(5), Until::AtLeast(4), Until::Unknown] {
                let mut bytes = whole.clone();
                bytes[places[1] + byte] ^= 0x40;
                let (told, lost, next) = read(&bytes, until);
                let texts: Vec<_> = told.iter().map(Option::as_deref).collect();
                assert_eq!(texts, [Some(&b"one"[..]), None, Some(b"three"), Some(b"four")], "byte {byte}, {until:?}");
                assert_eq!(lost, [Lost { offset: places[1] as u64, records: 1 }]);
                assert_eq!(next, 5);
            }
        }
    }

    #[test]
    fn each_payload_that_is_damaged_is_one_entry() {
        let (mut bytes, places) = segment(&[b"one", b"two", b"three", b"four", b"five", b"six"]);
        for damaged in [1, 2, 4] {
            bytes[places[damaged] + frame::HEADER] ^= 1;
        }
        let (told, lost, _) = read(&bytes, Until::Exactly(7));
        let texts: Vec<_> = told.iter().map(Option::as_deref).collect();
        assert_eq!(texts, [Some(&b"one"[..]), None, None, Some(b"four"), None, Some(b"six")]);
        let lost: Vec<_> = lost.iter().map(|lost| lost.records).collect();
        assert_eq!(lost, [2, 1]);
    }

    #[test]
    fn an_end_that_is_missing_is_lost_and_a_torn_one_never_was() {
        let (whole, places) = segment(&[b"one", b"two", b"three"]);
        let cut = &whole[..places[2] + 5];
        let at = places[2] as u64;
        assert_eq!(read(cut, Until::Exactly(6)).1, [Lost { offset: at, records: 3 }]);
        assert_eq!(read(cut, Until::AtLeast(4)).1, [Lost { offset: at, records: 1 }]);
        assert_eq!((read(cut, Until::AtLeast(3)).1, read(cut, Until::AtLeast(3)).2), (vec![], 3));
        assert_eq!(read(&[], Until::Exactly(3)).1, [Lost { offset: 0, records: 2 }]);
    }

    #[test]
    fn without_a_mark_what_is_behind_the_damaged_counts() {
        let (mut bytes, places) = segment(&[b"one", b"two", b"three", b"four"]);
        bytes[places[1] + frame::HEADER] ^= 1;
        bytes.extend_from_slice(b"torn");
        let (told, lost, next) = read(&bytes, Until::Unknown);
        assert_eq!((told.iter().flatten().count(), next), (3, 6));
        let records: Vec<_> = lost.iter().map(|lost| lost.records).collect();
        assert_eq!(records, [1, 1], "what is behind the last is told as one");
        assert_eq!(read(&[], Until::Unknown).2, 1);
    }

    #[test]
    fn a_torn_end_does_not_hide_what_is_between() {
        let payloads: [&[u8]; 6] = [b"one", b"two", b"three", b"four", b"five", b"a torn one"];
        let (whole, places) = segment(&payloads);
        for torn in [3, 12, frame::HEADER, frame::HEADER + 4] {
            for zeros in [false, true] {
                let mut bytes = whole[..places[5] + torn].to_vec();
                if zeros {
                    bytes[places[5]..].fill(0);
                }
                bytes[places[1]] ^= 1;
                let (told, lost, next) = read(&bytes, Until::AtLeast(6));
                assert_eq!((told.iter().flatten().count(), next), (4, 6), "{torn}, zeros: {zeros}");
                assert_eq!(lost, [Lost { offset: places[1] as u64, records: 1 }]);
            }
        }
    }

    #[test]
    fn what_a_sender_put_into_a_payload_is_no_frame() {
        for (from, to) in [(1, 2), (2, 3), (3, 4), (3, 5), (2, 6), (4, 6), (5, 6), (1, 9)] {
            for behind in [&b""[..], b"x", b" trailing text"] {
                let body = forged(from..to, b"a body ", behind);
                let (whole, places) = segment(&[b"one", &body, b"three", b"four"]);
                for byte in 0..frame::HEADER + 3 {
                    for until in [Until::Exactly(5), Until::AtLeast(5), Until::AtLeast(4), Until::Unknown] {
                        let mut bytes = whole.clone();
                        bytes[places[DAMAGED] + byte] ^= 1;
                        let (told, _, next) = read(&bytes, until);
                        let texts: Vec<_> = told.iter().map(Option::as_deref).collect();
                        let case = format!("{from}..{to}, {behind:?}, byte {byte}, {until:?}");
                        assert_eq!(texts, [Some(&b"one"[..]), None, Some(b"three"), Some(b"four")], "{case}");
                        assert_eq!(next, 5, "{case}");
                    }
                }
            }
        }
    }

    /// By the square of their number they take minutes.
    #[test]
    fn many_frames_in_a_payload_are_ruled_out_in_one_pass() {
        let mut body = Vec::new();
        (3..60_003).for_each(|number| frame::encode(number, b"", &mut body));
        body.extend_from_slice(b" trailing text");
        for until in [Until::Exactly(100_000), Until::AtLeast(4), Until::Unknown] {
            let (mut bytes, places) = segment(&[b"one", &body, b"three"]);
            bytes[places[DAMAGED]] ^= 1;
            let (told, _, _) = read(&bytes, until);
            assert!(told.iter().flatten().all(|payload| !payload.is_empty()), "{until:?}");
        }
    }

    #[test]
    fn what_is_in_the_last_payload_is_no_frame() {
        for behind in [&b""[..], b" trailing text"] {
            let body = forged(3..6, b"a body ", behind);
            let (mut bytes, places) = segment(&[b"one", &body]);
            bytes[places[DAMAGED] + frame::HEADER] ^= 1;
            for until in [Until::Exactly(3), Until::AtLeast(3), Until::Unknown] {
                let (told, lost, next) = read(&bytes, until);
                assert_eq!(told, [Some(b"one".to_vec()), None], "{until:?}");
                assert_eq!((lost.len(), next), (1, 3), "{until:?}");
            }
        }
    }

    #[test]
    fn a_length_that_leads_into_the_payload_is_not_believed() {
        let body = forged(3..4, b"a body of some bytes ", b" trailing text");
        let (mut bytes, places) = segment(&[b"one", &body, b"three", b"four"]);
        let inside = u32::try_from(b"a body of some bytes ".len()).expect("a length");
        bytes[places[DAMAGED]..places[DAMAGED] + 4].copy_from_slice(&inside.to_le_bytes());
        let (told, _, _) = read(&bytes, Until::Exactly(5));
        assert_eq!(told[2].as_deref(), Some(&b"three"[..]));
        // Where no length leads on, and the last is damaged as well, nothing leads to the end.
        bytes[places[DAMAGED]] ^= 0xff;
        bytes[places[3]] ^= 1;
        let (told, lost, _) = read(&bytes, Until::Exactly(5));
        assert_eq!(told, [Some(b"one".to_vec()), None, None, None]);
        assert_eq!(lost, [Lost { offset: places[DAMAGED] as u64, records: 3 }]);
    }
}
