//! The real binary, driven from outside: processes, sockets, signals, disks.
//!
//! Nothing here looks into the program. [`gateway`] starts and kills it, [`sender`] plays the service
//! and keeps the ledger of what was acknowledged, [`sink`] plays the destination and keeps what was
//! delivered. The two ledgers together are the judge of every fault test. [`service`] answers as a test wants
//! it, and [`rotating`] is such a service that renews tokens and keeps the ledger of them.
#![expect(clippy::print_stdout, reason = "a failing run must tell its seed")]

pub mod gateway;
pub mod http;
pub mod rotating;
pub mod sender;
pub mod service;
pub mod sink;

use std::time::Duration;

use trunkline::base::clock::{Clock, SystemClock};
use trunkline::base::random::{Random, SeededRandom};

/// Waits until `holds`, asking often; false when it did not within `limit`.
pub fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let clock = SystemClock::new();
    loop {
        if holds() {
            return true;
        }
        if clock.monotonic() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

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
