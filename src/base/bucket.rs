//! A budget that refills evenly: the generic cell rate algorithm, as pure arithmetic on one number.
//!
//! It can be looked at without being taken from, and what was taken can be given back; so a call that needs
//! several budgets takes from all of them or from none.

use std::time::Duration;

use crate::base::units::Rate;

/// How a budget refills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    interval: Duration,
    room: Duration,
}

impl Shape {
    /// One that refills by `rate` and holds `burst`, at least one.
    pub fn new(rate: Rate, burst: u32) -> Self {
        let interval = rate.period / rate.count.max(1);
        Self { interval, room: interval.saturating_mul(burst.max(1)) }
    }

    /// How long one takes to refill.
    pub const fn interval(self) -> Duration {
        self.interval
    }
}

/// A budget: the time at which it will be full again. One that is full is the same as a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// When there is one to take: `now`, or later.
    pub fn ready_at(self, shape: Shape, now: Duration) -> Duration {
        self.full_at.saturating_add(shape.interval).saturating_sub(shape.room).max(now)
    }

    /// Takes one, whether it is there or not; see [`Self::ready_at`].
    pub fn take(&mut self, shape: Shape, now: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(shape.interval);
    }

    /// Gives back one that was taken and not used.
    pub fn give_back(&mut self, shape: Shape) {
        self.full_at = self.full_at.saturating_sub(shape.interval);
    }

    /// How many there are.
    pub fn left(self, shape: Shape, now: Duration) -> u32 {
        let free = shape.room.saturating_sub(self.full_in(now));
        let left = free.as_nanos().checked_div(shape.interval.as_nanos()).unwrap_or(u128::MAX);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// How long until it is full; zero when it is.
    pub fn full_in(self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn shape(count: u32, burst: u32) -> Shape {
        Shape::new(Rate { count, period: SECOND }, burst)
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_evenly() {
        let (mut bucket, shape, now) = (Bucket::default(), shape(4, 2), SECOND);
        for _ in 0..2 {
            assert_eq!(bucket.ready_at(shape, now), now);
            bucket.take(shape, now);
        }
        assert_eq!((bucket.left(shape, now), bucket.ready_at(shape, now)), (0, now + SECOND / 4));
        assert_eq!(bucket.left(shape, now + SECOND / 4), 1);
        assert_eq!(bucket.full_in(now), SECOND / 2);
        bucket.give_back(shape);
        assert_eq!((bucket.left(shape, now), bucket.ready_at(shape, now)), (1, now));
    }

    proptest! {
        #[test]
        fn never_more_goes_than_the_burst_and_what_refilled(
            count in 1_u32..200, burst in 1_u32..50, steps in prop::collection::vec(0_u64..40, 1..300),
        ) {
            let (mut bucket, shape) = (Bucket::default(), shape(count, burst));
            let (mut now, mut taken) = (Duration::ZERO, 0_u128);
            for step in steps {
                now += Duration::from_millis(step);
                if bucket.ready_at(shape, now) == now {
                    bucket.take(shape, now);
                    taken += 1;
                }
                let refilled = now.as_nanos() / shape.interval().as_nanos();
                prop_assert!(taken <= u128::from(burst) + refilled);
            }
        }

        #[test]
        fn what_is_given_back_was_never_taken(
            count in 1_u32..200, burst in 1_u32..50, before in 0_u32..60, at in 0_u64..2_000,
        ) {
            let (mut bucket, shape) = (Bucket::default(), shape(count, burst));
            for _ in 0..before.min(burst) {
                bucket.take(shape, Duration::ZERO);
            }
            let now = Duration::from_millis(at);
            let (left, ready) = (bucket.left(shape, now), bucket.ready_at(shape, now));
            bucket.take(shape, now);
            bucket.give_back(shape);
            prop_assert_eq!((bucket.left(shape, now), bucket.ready_at(shape, now)), (left, ready));
        }
    }
}
