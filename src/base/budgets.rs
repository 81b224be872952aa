//! Budgets by key, bounded in number: whoever is not known yet when there is no more room shares one.
//!
//! The state is kept by key and not by rate, so that a changed rate takes effect on what is left. Called by the parts
//! of the public door.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::bucket::{Bucket, Shape};
use super::units::Rate;

/// Budgets by key; one that is full is the same as none.
#[derive(Debug)]
pub struct Budgets<K> {
    kept: HashMap<K, Bucket>,
    most: usize,
}

impl<K: Hash + Eq> Budgets<K> {
    /// Room for this many keys.
    pub fn new(most: usize) -> Self {
        Self { kept: HashMap::new(), most }
    }

    /// Takes one from the budget of a key, which holds `rate.count` and refills over `rate.period`. Where there is no
    /// room for another key, it is `others` whose budget counts.
    ///
    /// # Errors
    /// How long until there is one.
    pub fn take(&mut self, key: K, others: K, rate: Rate, now: Duration) -> Result<(), Duration> {
        if self.kept.len() >= self.most {
            self.kept.retain(|_, bucket| !bucket.full_in(now).is_zero());
        }
        let key = if self.kept.len() < self.most || self.kept.contains_key(&key) { key } else { others };
        take(self.kept.entry(key).or_default(), rate, now)
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

fn take(bucket: &mut Bucket, rate: Rate, now: Duration) -> Result<(), Duration> {
    let shape = Shape::new(rate, rate.count);
    let wait = bucket.ready_at(shape, now).saturating_sub(now);
    if !wait.is_zero() {
        return Err(wait);
    }
    bucket.take(shape, now);
    Ok(())
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 subscriber usually has.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}
