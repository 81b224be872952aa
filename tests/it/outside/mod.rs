//! What fault tests share: how long they run, and chance that can be repeated.
#![expect(clippy::print_stdout, reason = "a failing run must tell its seed")]

pub mod http;

use std::time::Duration;

use trunkline::base::clock::{Clock, SystemClock};
use trunkline::base::random::{Random, SeededRandom};

/// How many rounds a test makes: the number in this environment variable, else `default`.
pub fn rounds(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A seeded source of chance whose seed is the one in `TRUNKLINE_CHAOS_SEED`, or new; it is printed with
/// a failing test's output.
pub fn chance(test: &str) -> SeededRandom {
    let given = std::env::var("TRUNKLINE_CHAOS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| SystemClock::new().now().millis());
    println!("{test}: TRUNKLINE_CHAOS_SEED={seed}");
    SeededRandom::new(seed)
}

/// A duration spread evenly from nothing to `most`.
pub fn up_to(most: Duration, random: &dyn Random) -> Duration {
    most.mul_f64(random.unit())
}
