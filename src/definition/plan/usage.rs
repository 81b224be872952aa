//! What is counted of calls, and for how long it is kept.

use std::time::Duration;

/// What is counted of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// For how long. Default 62 d.
    pub retain: Duration,
    /// The most bytes of memory. Default 32 MiB.
    pub bytes: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { retain: Duration::from_hours(62 * 24), bytes: 32 << 20 }
    }
}
