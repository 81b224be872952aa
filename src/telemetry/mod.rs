//! What the program tells about itself: metrics, log lines, notices and traces. Called by every room above `base`.

pub mod log;
pub mod metrics;
pub mod notice;
pub mod trace;
