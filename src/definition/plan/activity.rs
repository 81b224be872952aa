//! What is remembered of calls, compiled.

use std::time::Duration;

/// What is remembered of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// How many of the newest entries are remembered. Default 10,000.
    pub keep: usize,
    /// For how long. Default 7 d.
    pub retain: Duration,
    /// The most bytes of their files. Default 256 MiB.
    pub bytes: u64,
    /// Of a million calls that succeed, how many are remembered. Default all.
    pub sample_millionths: u32,
    /// How often the audit log gets a line about who called what. Default 10 s.
    pub audit_every: Duration,
    /// How many may look at the live stream at once. Default 100.
    pub viewers: usize,
    /// How long one of them may take nothing. Default 10 s.
    pub viewer_timeout: Duration,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            keep: 10_000,
            retain: Duration::from_hours(7 * 24),
            bytes: 256 << 20,
            sample_millionths: 1_000_000,
            audit_every: Duration::from_secs(10),
            viewers: 100,
            viewer_timeout: Duration::from_secs(10),
        }
    }
}
