//! Truths without dependencies: time, ids, secrets, places in files, spellings, units and schedules.
//!
//! Nothing here does I/O except the two system seams ([`clock::SystemClock`] and
//! [`random::SystemRandom`]), which everything above takes as parameters. Called by every room.

pub mod backoff;
pub mod bucket;
pub mod budgets;
pub mod clock;
pub mod escape;
pub mod id;
pub mod json;
pub mod map;
pub mod origin;
pub mod path;
pub mod plain;
pub mod random;
pub mod redact;
pub mod rsa_sha1;
pub mod scrub;
pub mod secret;
pub mod sensitive;
pub mod signing_key;
pub mod span;
pub mod units;
