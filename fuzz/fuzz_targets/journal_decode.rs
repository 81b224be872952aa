//! Any bytes are read as frames without a panic, and what is taken for a frame is exactly one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline::store::journal::frame::{self, Read};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Read::Frame(read, taken) = frame::decode(rest) {
        let mut again = Vec::new();
        frame::encode(read.sequence, read.payload, &mut again);
        assert_eq!(again, rest[..taken]);
        rest = &rest[taken..];
    }
});
