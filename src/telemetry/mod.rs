//! What the program tells about itself: metrics and log lines. Called by every room above `base`.

pub mod log;
pub mod metrics;
