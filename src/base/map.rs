//! A map for keys that are names out of files and settings, on the way of every call.
//!
//! Its hash is fast and seeded, but not made against whoever chooses keys in order to make them collide: what callers
//! choose belongs into a map of the standard library.

use std::collections::HashMap;

/// The map.
pub type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
