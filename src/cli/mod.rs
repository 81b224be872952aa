//! Commands: one file each. Arguments in, an exit code out; output goes to a writer that is passed in.

pub mod mock;
pub mod trigger;
