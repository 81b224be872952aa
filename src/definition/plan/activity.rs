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
    /// What is kept of headers and bodies.
    pub content: Content,
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
            content: Content::default(),
            audit_every: Duration::from_secs(10),
            viewers: 100,
            viewer_timeout: Duration::from_secs(10),
        }
    }
}

/// What is kept of what calls carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Of which calls. Default those that failed.
    pub of: ContentOf,
    /// The most bytes of each body. Default 4 KiB.
    pub bytes: usize,
    /// The most bytes of memory for all. Default 16 MiB.
    pub memory: usize,
    /// Of how many calls a second. Default 100.
    pub rate: u32,
}

/// Of which calls headers and bodies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentOf {
    /// Of none.
    None,
    /// Of those that failed.
    Errors,
    /// Of all.
    All,
}

impl Default for Content {
    fn default() -> Self {
        Self { of: ContentOf::Errors, bytes: 4 << 10, memory: 16 << 20, rate: 100 }
    }
}
