//! What the program tells about itself: metrics, log lines and notices. Called by every room above `base`.

pub mod log;
pub mod metrics;
pub mod notice;
