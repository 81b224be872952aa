//! Services whose HTTP/2 was at fault: for a while they are spoken to in HTTP/1.1, and then HTTP/2 is tried again.
//!
//! Pingora remembers such a service itself, by the number of the pool of its connections and for as long as the process
//! lives. So that number changes with each fault, and once more when the time is over. Called by `forward`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// How long HTTP/2 is not tried after a fault.
pub const LASTS: Duration = Duration::from_mins(10);
/// The most pools of which it is known; of one more what Pingora remembers stands.
const MOST: usize = 4_096;

/// The faults that are remembered, by the number of the pool.
#[derive(Debug, Default)]
pub struct Distrust {
    faults: RwLock<HashMap<u64, Fault>>,
    /// Whether there is any: usually there is none, and then every call learns so without a lock.
    any: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    /// How many there were.
    count: u64,
    /// When HTTP/2 is tried again.
    until: Duration,
}

impl Distrust {
    /// The number of the pool for a call that comes now, and whether it speaks HTTP/1.1.
    pub fn pool(&self, pool: u64, now: Duration) -> (u64, bool) {
        if !self.any.load(Ordering::Relaxed) {
            return (pool, false);
        }
        let faults = self.faults.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Fault { count, until }) = faults.get(&pool).copied() else { return (pool, false) };
        let lasts = now < until;
        let turn = count * 2 - u64::from(lasts);
        // Two pools that differ in little stay apart: their numbers are hashes, and this is no small number.
        (pool ^ turn.wrapping_mul(0x9E37_79B9_7F4A_7C15), lasts)
    }

    /// HTTP/2 of the service was at fault. Whether that is news: those who were under way meet the same fault.
    pub fn note(&self, pool: u64, now: Duration) -> bool {
        let mut faults = self.faults.write().unwrap_or_else(PoisonError::into_inner);
        if faults.len() >= MOST && !faults.contains_key(&pool) {
            return false;
        }
        let fault = faults.entry(pool).or_insert(Fault { count: 0, until: Duration::ZERO });
        if fault.count > 0 && now < fault.until {
            return false;
        }
        *fault = Fault { count: fault.count + 1, until: now.saturating_add(LASTS) };
        self.any.store(true, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_2_is_tried_again_and_never_in_a_pool_that_pingora_remembers() {
        let (distrust, begun) = (Distrust::default(), Duration::from_secs(100));
        let mut pools = vec![distrust.pool(7, begun)];
        assert_eq!(pools, [(7, false)]);
        let mut now = begun;
        for _ in 0..3 {
            assert!(distrust.note(7, now) && !distrust.note(7, now + LASTS / 2), "one fault");
            pools.push(distrust.pool(7, now + LASTS / 2));
            now += LASTS;
            pools.push(distrust.pool(7, now));
        }
        let spoken: Vec<bool> = pools.iter().map(|(_, http_one)| *http_one).collect();
        assert_eq!(spoken, [false, true, false, true, false, true, false]);
        let numbers: std::collections::HashSet<u64> = pools.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), pools.len());
        assert_eq!(distrust.pool(8, now), (8, false), "another service is trusted");
    }
}
