//! Frames: `length u32 | crc32c u32 | number u64 | payload`, little-endian. The number stands for the sequence number, as
//! the [`Salt`](super::salt::Salt) of its segment hides it. The CRC covers it and the payload, so a frame in the wrong place
//! does not pass.

/// Bytes before a payload.
pub const HEADER: usize = 16;

/// The most bytes of a payload: an event of 25 MiB with its headers.
pub const MAX_PAYLOAD: usize = 26 << 20;

/// A frame that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What stands for its sequence number.
    pub number: u64,
    /// Its payload.
    pub payload: &'a [u8],
}

/// What stands at a place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<'a> {
    /// A whole frame, and how many bytes it takes.
    Frame(Frame<'a>, usize),
    /// Nothing: the bytes end here.
    End,
    /// Something that is not a whole, undamaged frame.
    Bad(&'static str),
}

/// Appends a frame to a buffer.
pub fn encode(number: u64, payload: &[u8], out: &mut Vec<u8>) {
    encode_parts(number, [payload, &[]], out);
}

/// Appends a frame whose payload lies in two places.
pub fn encode_parts(number: u64, [head, body]: [&[u8]; 2], out: &mut Vec<u8>) {
    let length = u32::try_from(head.len() + body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c_append(checksum(number, head), body).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(head);
    out.extend_from_slice(body);
}

/// Reads the frame at the beginning of `bytes`.
pub fn decode(bytes: &[u8]) -> Read<'_> {
    if bytes.is_empty() {
        return Read::End;
    }
    let (Some(length), Some(crc), Some(number)) = (u32_at(bytes, 0), u32_at(bytes, 4), u64_at(bytes, 8)) else {
        return Read::Bad("a frame's header is cut short");
    };
    let length = length as usize;
    if length > MAX_PAYLOAD {
        return Read::Bad("a frame's length is impossible");
    }
    let Some(payload) = bytes.get(HEADER..HEADER + length) else {
        return Read::Bad("a frame is cut short");
    };
    if checksum(number, payload) != crc {
        return Read::Bad("a frame's checksum does not match");
    }
    Read::Frame(Frame { number, payload }, HEADER + length)
}

fn checksum(number: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), payload)
}

/// The little-endian number at a place.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// The little-endian number at a place.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_read_back(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8)) {
            let mut bytes = Vec::new();
            for (place, payload) in payloads.iter().enumerate() {
                encode(place as u64 + 7, payload, &mut bytes);
            }
            let (mut at, mut read) = (0, Vec::new());
            while let Read::Frame(frame, taken) = decode(&bytes[at..]) {
                prop_assert_eq!(frame.number, read.len() as u64 + 7);
                read.push(frame.payload.to_vec());
                at += taken;
            }
            prop_assert_eq!(read, payloads);
            prop_assert_eq!(decode(&bytes[at..]), Read::End);
        }

        #[test]
        fn no_cut_and_no_flipped_bit_passes(payload in proptest::collection::vec(any::<u8>(), 0..40), cut in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = Vec::new();
            encode(3, &payload, &mut bytes);
            let at = cut.index(bytes.len());
            if at > 0 {
                prop_assert!(matches!(decode(&bytes[..at]), Read::Bad(_)));
            }
            bytes[at] ^= 1 << bit;
            prop_assert!(matches!(decode(&bytes), Read::Bad(_)));
        }
    }
}
