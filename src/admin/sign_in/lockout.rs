//! Guessing made slow: after a few wrong passwords or tokens each further one costs a longer wait.
//!
//! Passwords are counted by source (an IPv6 one by its /64 network, which one person has whole) and by account, tokens by
//! source, apart from passwords. An account's wait
//! stays short, so that someone who guesses its name cannot keep its owner out. Memory is bounded: names that nobody
//! has are not counted, and the source that was seen longest ago is forgotten first.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;

use crate::base::clock::Timestamp;

/// How many wrong ones cost nothing.
const FREE: u32 = 3;
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of a source.
const SOURCE: Duration = Duration::from_mins(15);
/// The longest wait of an account.
const ACCOUNT: Duration = Duration::from_secs(30);
/// After this long without a wrong one, the count begins anew.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// How many places are remembered.
const PLACES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);

/// What wrong passwords and tokens are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// Where they come from.
    Source(IpAddr),
    /// Whom they are for.
    Account(String),
    /// Where wrong tokens come from.
    Tokens(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    last: Timestamp,
    until: Timestamp,
}

/// Wrong passwords and tokens by place.
#[derive(Debug)]
pub struct Lockout(Mutex<LruCache<Place, Count>>);

impl Default for Lockout {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(PLACES)))
    }
}

/// What an attempt is counted by.
pub fn places(source: Option<IpAddr>, account: Option<&str>) -> Vec<Place> {
    let source = source.map(|source| Place::Source(network(source)));
    source.into_iter().chain(account.map(|name| Place::Account(name.to_owned()))).collect()
}

/// What a token is counted by; what comes from nowhere, as by a Unix socket, was let in by its permissions.
pub fn places_of_tokens(source: Option<IpAddr>) -> Vec<Place> {
    source.map(|source| Place::Tokens(network(source))).into_iter().collect()
}

fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Lockout {
    /// How long nothing is compared; `None` when it is.
    pub fn wait(&self, places: &[Place], now: Timestamp) -> Option<Duration> {
        longest(&self.0.lock().unwrap_or_else(PoisonError::into_inner), places, now)
    }

    /// Begins an attempt, which counts as a wrong password until [`Self::succeed`] takes it back: whatever is tried
    /// at the same time, or left before its answer, costs its wait. Returns how long nothing is compared from now on.
    ///
    /// # Errors
    /// How long to wait, when nothing is compared now.
    pub fn attempt(&self, places: &[Place], now: Timestamp) -> Result<Option<Duration>, Duration> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match longest(&counts, places, now) {
            Some(wait) => Err(wait),
            None => Ok(count(&mut counts, places, now)),
        }
    }

    /// A wrong token. Returns how long nothing is compared from now on.
    pub fn fail(&self, places: &[Place], now: Timestamp) -> Option<Duration> {
        count(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), places, now)
    }

    /// The right one.
    pub fn succeed(&self, places: &[Place]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            counts.pop(place);
        }
    }
}

/// Counts a wrong one. Returns how long nothing is compared from now on.
fn count(counts: &mut LruCache<Place, Count>, places: &[Place], now: Timestamp) -> Option<Duration> {
    for place in places {
        let before = counts.get(place).filter(|count| now.since(count.last) < FORGOTTEN);
        let wrong = before.map_or(0, |count| count.wrong).saturating_add(1);
        let most = if matches!(place, Place::Account(_)) { ACCOUNT } else { SOURCE };
        let until = match wrong.checked_sub(FREE) {
            None | Some(0) => now,
            Some(doublings) => now.after(FIRST.saturating_mul(1 << (doublings - 1).min(16)).min(most)),
        };
        counts.put(place.clone(), Count { wrong, last: now, until });
    }
    longest(counts, places, now)
}

/// How long the longest wait of these places still is; `None` when it is over.
fn longest(counts: &LruCache<Place, Count>, places: &[Place], now: Timestamp) -> Option<Duration> {
    let waits = places.iter().filter_map(|place| counts.peek(place)).map(|count| count.until.since(now));
    waits.max().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    #[test]
    fn each_guess_after_the_third_costs_twice_the_wait() {
        let (lockout, places) = (Lockout::default(), places(Some(IpAddr::from([192, 0, 2, 1])), None));
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..16 {
            let wait = lockout.attempt(&places, now).expect("the wait is over").unwrap_or_default();
            if !wait.is_zero() {
                assert_eq!(lockout.attempt(&places, now), Err(wait), "{waits:?}");
            }
            waits.push(wait.as_secs());
            now = now.after(wait);
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        lockout.succeed(&places);
        assert_eq!(lockout.attempt(&places, now), Ok(None));
    }

    #[test]
    fn an_owner_waits_half_a_minute_at_most_and_sources_are_networks() {
        let lockout = Lockout::default();
        let source = |text: &str| places(text.parse().ok(), Some("ada"));
        let mut longest = Duration::ZERO;
        for guess in 0..40_u16 {
            let wait = lockout.attempt(&source(&format!("2001:db8:0:{guess:x}::1")), at(u64::from(guess) * 30));
            longest = wait.expect("another source").unwrap_or_default();
        }
        assert_eq!(longest, ACCOUNT);
        assert_eq!(lockout.attempt(&source("192.0.2.9"), at(39 * 30)), Err(ACCOUNT));
        let one = places("2001:db8::1".parse().ok(), None);
        let lockout = Lockout::default();
        for _ in 0..4 {
            lockout.attempt(&one, at(0)).expect("nothing to wait for");
        }
        assert!(lockout.attempt(&places("2001:db8::ffff".parse().ok(), None), at(0)).is_err());
        assert!(lockout.attempt(&places("2001:db8:0:1::1".parse().ok(), None), at(0)).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let lockout = Lockout::default();
        for source in 0..20_000_u32 {
            let source = places(Some(IpAddr::from(source.to_be_bytes())), None);
            lockout.attempt(&source, at(0)).expect("its first");
        }
        assert_eq!(lockout.0.lock().expect("unpoisoned").len(), PLACES.get());
    }
}
