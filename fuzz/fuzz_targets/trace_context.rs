//! See `properties::trace_context`.
#![no_main]
#![expect(dead_code, reason = "each target looks at one of the properties")]

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::trace_context(bytes));
