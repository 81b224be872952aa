//! What is whole of a segment that is damaged.
//!
//! A payload may hold what looks like frames, put there by whoever sent it. No sender knows the segment's [`Salt`], so
//! that a whole frame whose number stands for a sequence number which is due is a true one, wherever it is found. In a
//! segment of a store format before 5, which has no salt, nothing tells the two apart: all behind the first damage is
//! given up there.

use std::collections::BTreeMap;
use std::ops::Range;

use super::frame::{self, Read};
use super::salt::Salt;
use super::segment;

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
    /// The segment is the newest: all before it is durable. There may be more, and an end of that which is not whole never
    /// counted.
    AtLeast(u64),
    /// The segment is the newest, and the mark cannot be read.
    Unknown,
}

/// A segment that is read as far as it goes.
#[derive(Clone, Copy)]
pub struct Damaged<'a> {
    /// Its bytes; zeros where they cannot be read.
    pub bytes: &'a [u8],
    /// Its first sequence number.
    pub first: u64,
    /// Where it ends.
    pub until: Until,
    /// Those of the store and of the journal's segments, one of which may be its own where its header is damaged.
    pub salts: &'a [Salt],
    /// Whether a payload is one of the journal's entries.
    pub reads: fn(&[u8]) -> bool,
}

impl Damaged<'_> {
    /// Tells each of its entries in order, `None` in the place of one that is lost. Answers what is lost, and the
    /// sequence number behind the last. Where nothing tells how many are lost at the end, it is told as one.
    pub fn walk(&self, mut told: impl FnMut(u64, Option<&[u8]>)) -> (Vec<Lost>, u64) {
        let salt = self.salt();
        let (mut at, mut next, mut lost) = (segment::header_length(salt).min(self.bytes.len()), self.first, Vec::new());
        let mut give_up = |at: usize, from: u64, to: u64, told: &mut dyn FnMut(u64, Option<&[u8]>)| {
            if from < to {
                lost.push(Lost { offset: at as u64, records: to - from });
                (from..to).for_each(|sequence| told(sequence, None));
            }
        };
        loop {
            if matches!(self.until, Until::Exactly(until) if until <= next) {
                return (lost, next);
            }
            if let Some(payload) = self.entry_at(at, next, salt) {
                told(next, Some(payload));
                (at, next) = (at + frame::HEADER + payload.len(), next + 1);
                continue;
            }
            let until = match self.until {
                Until::Exactly(until) | Until::AtLeast(until) => until,
                Until::Unknown => next + u64::from(at < self.bytes.len()),
            };
            let is_entry = |place, sequence| self.entry_at(place, sequence, salt).is_some();
            let Some((place, sequence)) = behind(self.bytes, at, self.due(next), salt, is_entry) else {
                give_up(at, next, until, &mut told);
                return (lost, next.max(until));
            };
            give_up(at, next, sequence, &mut told);
            (at, next) = (place, sequence);
        }
    }

    /// The sequence number behind the last whole entry, wherever the segment should have ended, or its first where none is
    /// whole; and how many are.
    pub fn reach(self) -> (u64, u64) {
        let mut whole = 0;
        let told = |_, payload: Option<&[u8]>| whole += u64::from(payload.is_some());
        let (_, reach) = Self { until: Until::AtLeast(self.first), ..self }.walk(told);
        (reach, whole)
    }

    fn entry_at(&self, at: usize, sequence: u64, salt: Salt) -> Option<&[u8]> {
        frame_at(self.bytes, at, sequence, salt).filter(|payload| (self.reads)(payload))
    }

    /// The segment's salt: as its header says, or one of those that are known, with which a frame is found. Not as its first
    /// frame has it, which may be what a sender wrote where the file was cut in front.
    fn salt(&self) -> Salt {
        if let Some(salt) = segment::salt_of(self.bytes, self.first) {
            return salt;
        }
        let due = self.due(self.first);
        // Above the bits that a number which is due may have, what is written of it is the salt's own: one look tells
        // whether any of them fits.
        let bits = u64::BITS - due.end.leading_zeros();
        let above = |number: u64| number.checked_shr(bits).unwrap_or_default();
        let mut salts = BTreeMap::<u64, Vec<Salt>>::new();
        for salt in self.salts.iter().filter(|salt| **salt != Salt::NONE) {
            salts.entry(above(salt.stored())).or_default().push(*salt);
        }
        let fits = |place: usize, salt: Salt| {
            let sequence = salt.show(frame::u64_at(self.bytes, place + 8)?);
            (due.contains(&sequence) && frame_at(self.bytes, place, sequence, salt).is_some()).then_some(salt)
        };
        let found = (segment::HEADER..self.bytes.len()).find_map(|place| {
            let near = salts.get(&above(frame::u64_at(self.bytes, place + 8)?))?;
            near.iter().find_map(|salt| fits(place, *salt))
        });
        found.unwrap_or_default()
    }

    /// The sequence numbers that may come, where `next` is the first.
    fn due(&self, next: u64) -> Range<u64> {
        let all = due_within(self.bytes, next);
        match self.until {
            Until::Exactly(until) => next..until.min(all.end),
            Until::AtLeast(_) | Until::Unknown => all,
        }
    }
}

/// How many entries are whole behind the place at which one of this sequence number should stand and does not.
pub fn whole_behind(bytes: &[u8], at: usize, sequence: u64, salt: Salt) -> u64 {
    let (mut at, mut next, mut count) = (at, sequence, 0);
    let is_whole = |place, sequence| frame_at(bytes, place, sequence, salt).is_some();
    while let Some((place, sequence)) = behind(bytes, at, due_within(bytes, next), salt, is_whole) {
        let length = frame_at(bytes, place, sequence, salt).map_or(0, <[u8]>::len);
        (at, next, count) = (place + frame::HEADER + length, sequence + 1, count + 1);
    }
    count
}

/// The sequence numbers from `next` on that so many bytes may hold.
fn due_within(bytes: &[u8], next: u64) -> Range<u64> {
    next..next.saturating_add((bytes.len() / frame::HEADER) as u64)
}

/// The payload of the whole frame that stands at a place and is of this sequence number.
fn frame_at(bytes: &[u8], at: usize, sequence: u64, salt: Salt) -> Option<&[u8]> {
    match frame::decode(bytes.get(at..)?) {
        Read::Frame(frame, _) if frame.number == salt.hide(sequence) => Some(frame.payload),
        Read::Frame(..) | Read::End | Read::Bad(_) => None,
    }
}

/// The next place from one on at which a frame stands whose sequence number is due and that counts, and that number.
fn behind(
    bytes: &[u8],
    at: usize,
    due: Range<u64>,
    salt: Salt,
    counts: impl Fn(usize, u64) -> bool,
) -> Option<(usize, u64)> {
    if salt == Salt::NONE || due.is_empty() {
        return None;
    }
    (at..bytes.len()).find_map(|place| {
        // Nearly all places are ruled out by the number, which costs no checksum.
        let sequence = salt.show(frame::u64_at(bytes, place + 8)?);
        (due.contains(&sequence) && counts(place, sequence)).then_some((place, sequence))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAMAGED: usize = 1;

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        salted(payloads, salt())
    }

    fn salt() -> Salt {
        Salt::from_stored(0x5a17_5a17_5a17_5a17)
    }

    fn salted(payloads: &[&[u8]], salt: Salt) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut places) = (segment::header_after(1, None, salt), Vec::new());
        for (sequence, payload) in (1..).zip(payloads) {
            places.push(bytes.len());
            frame::encode(salt.hide(sequence), payload, &mut bytes);
        }
        (bytes, places)
    }

    fn read(bytes: &[u8], until: Until) -> (Vec<Option<Vec<u8>>>, Vec<Lost>, u64) {
        let mut told = Vec::new();
        let damaged = Damaged { bytes, first: 1, until, salts: &[Salt::from_stored(7), salt()], reads: |_| true };
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
    fn what_the_next_segment_begins_with_is_not_told_of_this_one() {
        let (bytes, _) = segment(&[b"one", b"two", b"three", b"four"]);
        let (told, lost, next) = read(&bytes, Until::Exactly(3));
        assert_eq!((told.len(), lost, next), (2, vec![], 3));
        let damaged = Damaged { bytes: &bytes, first: 1, until: Until::Exactly(3), salts: &[], reads: |_| true };
        assert_eq!(damaged.reach(), (5, 4));
        assert_eq!(Damaged { bytes: b"stray", ..damaged }.reach(), (1, 0));
    }

    #[test]
    fn what_does_not_read_is_lost_though_it_is_as_it_was_written() {
        let (bytes, places) = segment(&[b"one", b"another", b"three", b"another"]);
        let reads = |payload: &[u8]| payload != b"another";
        let damaged = Damaged { bytes: &bytes, first: 1, until: Until::AtLeast(5), salts: &[], reads };
        let (lost, next) = damaged.walk(|sequence, payload| assert_eq!(payload.is_none(), sequence % 2 == 0));
        let of = |place: usize| Lost { offset: places[place] as u64, records: 1 };
        assert_eq!((lost, next, damaged.reach()), (vec![of(1), of(3)], 5, (4, 2)));
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
    fn what_is_whole_behind_a_hole_is_told_whatever_the_mark_says() {
        let (mut bytes, places) = segment(&[b"one", b"two", b"three", b"four", b"a torn one"]);
        bytes[places[DAMAGED] + frame::HEADER] ^= 1;
        bytes.truncate(bytes.len() - 3);
        for until in [Until::AtLeast(1), Until::AtLeast(2), Until::AtLeast(3)] {
            let (told, lost, next) = read(&bytes, until);
            assert_eq!((told.iter().flatten().count(), next), (3, 5), "{until:?}");
            assert_eq!(lost, [Lost { offset: places[DAMAGED] as u64, records: 1 }]);
        }
        assert_eq!(whole_behind(&bytes, places[DAMAGED], 2, salt()), 2);
        assert_eq!(whole_behind(&bytes, places[4], 5, salt()), 0);
        assert_eq!(whole_behind(&bytes, places[DAMAGED], 2, Salt::from_stored(9)), 0, "another store's");
    }

    #[test]
    fn what_a_sender_wrote_is_not_whole_behind_a_torn_end() {
        let body = forged(3..40, b"a body ", b" trailing text");
        let (bytes, places) = segment(&[b"one", &body]);
        for end in places[DAMAGED]..bytes.len() {
            assert_eq!(whole_behind(&bytes[..end], places[DAMAGED], 2, salt()), 0, "cut at {end}");
        }
    }

    /// By the length times the number of salts it takes minutes.
    #[test]
    fn many_salts_are_tried_in_one_pass() {
        let body = vec![0x5a; 1 << 20];
        let (mut bytes, _) = segment(&[&body, b"two"]);
        bytes[..60].fill(0);
        let mut salts: Vec<_> =
            (1..2_000_u64).map(|n| Salt::from_stored(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        salts.extend([Salt::NONE, salt()]);
        let damaged = Damaged { bytes: &bytes, first: 1, until: Until::Exactly(3), salts: &salts, reads: |_| true };
        let mut told = Vec::new();
        damaged.walk(|sequence, payload| told.push((sequence, payload.map(<[u8]>::len))));
        assert_eq!(told, [(1, None), (2, Some(3))]);
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
        let body = forged(1..6, b"a body of some bytes ", b" trailing text");
        let (mut bytes, places) = segment(&[b"one", &body, b"three", b"four"]);
        let inside = u32::try_from(b"a body of some bytes ".len() + 2 * (frame::HEADER + 6)).expect("a length");
        bytes[places[DAMAGED]..places[DAMAGED] + 4].copy_from_slice(&inside.to_le_bytes());
        bytes[places[3]] ^= 1;
        let (told, lost, _) = read(&bytes, Until::Exactly(5));
        assert_eq!(told, [Some(b"one".to_vec()), None, Some(b"three".to_vec()), None]);
        assert_eq!(lost.iter().map(|lost| lost.records).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_segment_that_is_cut_within_a_body_has_nothing_of_the_body() {
        let body = forged(1..40, b"a body ", b" trailing text");
        let (whole, places) = segment(&[b"one", &body, b"three", b"four"]);
        for end in places[DAMAGED]..places[2] {
            for until in [Until::Exactly(5), Until::AtLeast(5), Until::AtLeast(2), Until::Unknown] {
                let (told, _, _) = read(&whole[..end], until);
                assert_eq!(told.iter().flatten().count(), 1, "cut at {end}, {until:?}");
            }
        }
    }

    #[test]
    fn without_its_header_a_segment_is_read_by_a_salt_that_is_known() {
        let (whole, places) = segment(&[b"one", b"two", b"three"]);
        for (damaged, kept) in
            [(0..1, 3), (8..9, 3), (32..40, 3), (0..44, 3), (0..places[0] + 9, 2), (0..places[2] - 1, 1)]
        {
            let mut bytes = whole.clone();
            bytes[damaged.clone()].fill(0xee);
            let (told, _, next) = read(&bytes, Until::Exactly(4));
            assert_eq!((told.iter().flatten().count(), next), (kept, 4), "{damaged:?}");
        }
    }

    #[test]
    fn of_a_segment_without_a_salt_all_behind_the_first_damage_is_given_up() {
        let (mut bytes, places) = salted(&[b"one", b"two", b"three"], Salt::NONE);
        assert_eq!(read(&bytes, Until::Exactly(4)).0.iter().flatten().count(), 3);
        bytes[places[DAMAGED] + frame::HEADER] ^= 1;
        let (told, lost, next) = read(&bytes, Until::Exactly(4));
        assert_eq!((told.iter().flatten().count(), next), (1, 4));
        assert_eq!(lost, [Lost { offset: places[DAMAGED] as u64, records: 2 }]);
    }
}
