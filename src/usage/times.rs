//! How long calls took: counted in buckets, so that any number of calls takes little room and many counts add up to one.
//!
//! Durations are whole milliseconds. Below 256 ms each has a bucket of its own; above, a bucket is at most 1/128 of its
//! beginning wide, so that what a quantile tells is never less than the true one and at most 0.8 % more. The buckets are
//! those of an HDR histogram; one of its libraries' would take kilobytes for each minute and endpoint, most of them zeros.

use serde::{Deserialize, Serialize};

/// Below this each duration has a bucket of its own.
const EXACT_BITS: u32 = 8;
/// Buckets for each doubling above that.
const PER_DOUBLING: u32 = 128;

/// Counts by bucket, only of buckets that have any, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Times(Vec<(u16, u32)>);

impl Times {
    /// Counts one.
    pub fn count(&mut self, millis: u64) {
        self.add((bucket(millis), 1));
    }

    /// Counts all of another.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|counted| self.add(*counted));
    }

    /// Bytes of memory behind it.
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u16, u32)>()
    }

    fn add(&mut self, (bucket, count): (u16, u32)) {
        match self.0.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(place) => {
                if let Some((_, known)) = self.0.get_mut(place) {
                    *known = known.saturating_add(count);
                }
            }
            Err(place) => self.0.insert(place, (bucket, count)),
        }
    }
}

/// Several [`Times`] together, to be asked for quantiles.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    counts: Vec<u64>,
    all: u64,
}

impl Sum {
    /// Adds some.
    pub fn add(&mut self, times: &Times) {
        for &(bucket, count) in &times.0 {
            let place = usize::from(bucket);
            if self.counts.len() <= place {
                self.counts.resize(place + 1, 0);
            }
            if let Some(known) = self.counts.get_mut(place) {
                *known += u64::from(count);
            }
            self.all += u64::from(count);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.all
    }

    /// The duration, in milliseconds, that at least this many of a hundred took at most. `None` where not one call of
    /// so few would have to have taken longer: then it would be no more than the longest.
    pub fn quantile(&self, percent: u64) -> Option<u64> {
        if self.all * (100 - percent.min(100)) < 100 {
            return None;
        }
        let rank = (self.all * percent).div_ceil(100).max(1);
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        found.map(|place| longest(u32::try_from(place).unwrap_or(u32::MAX)))
    }
}

/// The bucket of a duration; those of more than 49 days are one.
fn bucket(millis: u64) -> u16 {
    let millis = u32::try_from(millis).unwrap_or(u32::MAX);
    let doublings = (u32::BITS - millis.leading_zeros()).saturating_sub(EXACT_BITS);
    u16::try_from(doublings * PER_DOUBLING + (millis >> doublings)).unwrap_or(u16::MAX)
}

/// The longest duration of a bucket.
fn longest(bucket: u32) -> u64 {
    let doublings = (bucket / PER_DOUBLING).saturating_sub(1);
    let within = u64::from(bucket - doublings * PER_DOUBLING);
    ((within + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(durations: &[u64]) -> Sum {
        let mut times = Times::default();
        for millis in durations {
            times.count(*millis);
        }
        let mut sum = Sum::default();
        sum.add(&times);
        sum
    }

    #[test]
    fn a_bucket_has_its_duration_and_is_narrow() {
        for millis in (0..70_000).chain([1 << 20, (1 << 31) + 12_345, u64::from(u32::MAX)]) {
            let told = longest(u32::from(bucket(millis)));
            assert!(told >= millis && told - millis <= millis / 128, "{millis} is told as {told}");
        }
        assert_eq!(bucket(u64::MAX), bucket(u64::from(u32::MAX)));
    }

    #[test]
    fn few_calls_have_no_quantile_that_would_be_their_longest() {
        let of = |count: u64| {
            let sum = sum(&vec![7; usize::try_from(count).expect("small")]);
            [50, 95, 99].map(|percent| sum.quantile(percent))
        };
        assert_eq!(of(1), [None, None, None]);
        assert_eq!(of(19), [Some(7), None, None]);
        assert_eq!(of(99), [Some(7), Some(7), None]);
        assert_eq!(of(100), [Some(7), Some(7), Some(7)]);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_an_exact_sort_within_the_stated_error(
            durations in proptest::collection::vec(prop_oneof![0_u64..400, 0_u64..60_000, any::<u32>().prop_map(u64::from)], 100..600),
            cut in 0_usize..100,
        ) {
            let mut exact = durations.clone();
            exact.sort_unstable();
            // Two halves together are the whole.
            let (one, other) = durations.split_at(cut);
            let (mut first, mut second) = (Times::default(), Times::default());
            for millis in one {
                first.count(*millis);
            }
            for millis in other {
                second.count(*millis);
            }
            first.merge(&second);
            let mut sum = Sum::default();
            sum.add(&first);
            prop_assert_eq!(sum.count(), durations.len() as u64);
            for percent in [50, 95, 99] {
                let rank = (exact.len() * usize::try_from(percent).unwrap_or_default()).div_ceil(100);
                let (exact, told) = (exact[rank - 1], sum.quantile(percent).expect("enough"));
                prop_assert!(told >= exact && told - exact <= exact / 128, "P{} is {}, told {}", percent, exact, told);
            }
        }
    }
}
