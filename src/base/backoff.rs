//! When to try again: exponential growth with full jitter, as pure arithmetic.

use std::time::Duration;

use crate::base::random::Random;

/// An exponential schedule. The pause before retry `n` (from one) is drawn evenly from zero to
/// `base × 2^(n−1)`, never above `cap`: full jitter, which spreads a crowd of failed callers best
/// (AWS Architecture Blog, "Exponential Backoff And Jitter").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The widest pause before the first retry.
    pub base: Duration,
    /// The widest pause before any retry.
    pub cap: Duration,
}

impl Backoff {
    /// The widest pause before retry `retry`, counted from one.
    pub fn ceiling(&self, retry: u32) -> Duration {
        let doublings = retry.saturating_sub(1).min(31);
        self.base.saturating_mul(1_u32 << doublings).min(self.cap)
    }

    /// A drawn pause before retry `retry`, counted from one.
    pub fn pause(&self, retry: u32, random: &dyn Random) -> Duration {
        self.ceiling(retry).mul_f64(random.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn ceilings_double_up_to_the_cap() {
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(15) };
        let seconds: Vec<_> = (1..6).map(|retry| backoff.ceiling(retry).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 15, 15]);
        assert_eq!(backoff.ceiling(u32::MAX).as_secs(), 15);
    }

    #[test]
    fn pauses_stay_below_their_ceiling_and_differ() {
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_mins(1) };
        let random = SeededRandom::new(3);
        let drawn: Vec<_> = (0..100).map(|_| backoff.pause(3, &random)).collect();
        assert!(drawn.iter().all(|pause| *pause < Duration::from_secs(8)));
        assert!(drawn.iter().max() > drawn.iter().min());
    }
}
