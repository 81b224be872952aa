//! Which traces are recorded and where they go, compiled.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

/// Traces that are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The collector's address, below which spans are sent.
    pub endpoint: Url,
    /// Headers of each request; their values are marked as secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long an answer may take. Default 10 s.
    pub timeout: Duration,
    /// Of a million traces that begin here, how many are recorded. Default 10,000.
    pub sample_millionths: u32,
}
