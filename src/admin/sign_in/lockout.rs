//! Guessing made slow: after a few wrong passwords or tokens each further one costs a longer wait.
//!
//! Passwords are counted by source (an IPv6 one by its /64 network, which one person has whole) and by account, tokens by
//! source, apart from passwords. A browser that the account has signed in from ([`super::device`]) is counted by itself, so
//! that someone who guesses an account's name does not keep its owner out, wherever the guesses come from. For all others
//! an account's wait stays short. A name that nobody has is counted like
//! an account, so that its wait does not tell it from one. Memory is bounded: what was seen longest ago is forgotten first,
//! and names that nobody has push nothing else out.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use sha2::{Digest as _, Sha256};

use crate::base::clock::Timestamp;

/// How many wrong ones cost nothing.
const FREE: u32 = 3;
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of a source or a browser.
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
    /// A name that nobody has, as its digest: it may be a password in the wrong field.
    Nobody([u8; 32]),
    /// Where wrong tokens come from.
    Tokens(IpAddr),
    /// The browser they come from, where the account has signed in from it: its cookie's digest.
    Device([u8; 32]),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    last: Timestamp,
    until: Timestamp,
}

/// Wrong passwords and tokens by place.
#[derive(Debug, Default)]
pub struct Lockout(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    places: LruCache<Place, Count>,
    nobodies: LruCache<Place, Count>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { places: LruCache::new(PLACES), nobodies: LruCache::new(PLACES) }
    }
}

impl Counts {
    fn of(&mut self, place: &Place) -> &mut LruCache<Place, Count> {
        if matches!(place, Place::Nobody(_)) { &mut self.nobodies } else { &mut self.places }
    }
}

/// What an attempt is counted by: `name` is what was typed, `account` the one that has it.
pub fn places(source: Option<IpAddr>, name: &str, account: Option<&str>) -> Vec<Place> {
    let source = source.map(|source| Place::Source(network(source)));
    let named = account
        .map_or_else(|| Place::Nobody(Sha256::digest(name).into()), |account| Place::Account(account.to_owned()));
    source.into_iter().chain([named]).collect()
}

/// What an attempt from a browser that the account has signed in from is counted by.
pub fn place_of_device(cookie: &str) -> Vec<Place> {
    vec![Place::Device(Sha256::digest(cookie).into())]
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
    /// Begins an attempt, which counts as a wrong password until [`Self::succeed`] takes it back: whatever is tried
    /// at the same time, or left before its answer, costs its wait. Returns how long nothing is compared from now on.
    ///
    /// # Errors
    /// How long to wait, when nothing is compared now.
    pub fn attempt(&self, places: &[Place], now: Timestamp) -> Result<Option<Duration>, Duration> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match longest(&mut counts, places, now) {
            Some(wait) => Err(wait),
            None => Ok(count(&mut counts, places, now)),
        }
    }

    /// An attempt whose comparison takes no time, such as a token's: judged, compared and counted in one, so that
    /// guesses at the same time are one after the other, and so are right ones.
    ///
    /// # Errors
    /// [`Wrong::Early`] when nothing is compared now, [`Wrong::Token`] when it is nobody's.
    pub fn judge<T>(&self, places: &[Place], now: Timestamp, compare: impl FnOnce() -> Option<T>) -> Result<T, Wrong> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = longest(&mut counts, places, now) {
            return Err(Wrong::Early(wait));
        }
        let Some(found) = compare() else { return Err(Wrong::Token(count(&mut counts, places, now))) };
        forget(&mut counts, places);
        Ok(found)
    }

    /// The right one.
    pub fn succeed(&self, places: &[Place]) {
        forget(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), places);
    }
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It was not compared, and will not be for so long.
    Early(Duration),
    /// It is nobody's; how long nothing is compared from now on.
    Token(Option<Duration>),
}

fn forget(counts: &mut Counts, places: &[Place]) {
    for place in places {
        counts.of(place).pop(place);
    }
}

/// Counts a wrong one. Returns how long nothing is compared from now on.
fn count(counts: &mut Counts, places: &[Place], now: Timestamp) -> Option<Duration> {
    for place in places {
        let before = counts.of(place).get(place).filter(|count| now.since(count.last) < FORGOTTEN);
        let wrong = before.map_or(0, |count| count.wrong).saturating_add(1);
        let most = if matches!(place, Place::Account(_) | Place::Nobody(_)) { ACCOUNT } else { SOURCE };
        let until = match wrong.checked_sub(FREE) {
            None | Some(0) => now,
            Some(doublings) => now.after(FIRST.saturating_mul(1 << (doublings - 1).min(16)).min(most)),
        };
        counts.of(place).put(place.clone(), Count { wrong, last: now, until });
    }
    longest(counts, places, now)
}

/// How long the longest wait of these places still is; `None` when it is over.
fn longest(counts: &mut Counts, places: &[Place], now: Timestamp) -> Option<Duration> {
    let waits = places.iter().filter_map(|place| counts.of(place).peek(place).map(|count| count.until.since(now)));
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
        let (lockout, places) = (Lockout::default(), places(Some(IpAddr::from([192, 0, 2, 1])), "x", None));
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
        let source = |text: &str| places(text.parse().ok(), "ada", Some("ada"));
        let mut longest = Duration::ZERO;
        for guess in 0..40_u16 {
            let wait = lockout.attempt(&source(&format!("2001:db8:0:{guess:x}::1")), at(u64::from(guess) * 30));
            longest = wait.expect("another source").unwrap_or_default();
        }
        assert_eq!(longest, ACCOUNT);
        assert_eq!(lockout.attempt(&source("192.0.2.9"), at(39 * 30)), Err(ACCOUNT));
        let one = places("2001:db8::1".parse().ok(), "one", None);
        let lockout = Lockout::default();
        for _ in 0..4 {
            lockout.attempt(&one, at(0)).expect("nothing to wait for");
        }
        assert!(lockout.attempt(&places("2001:db8::ffff".parse().ok(), "two", None), at(0)).is_err());
        assert!(lockout.attempt(&places("2001:db8:0:1::1".parse().ok(), "two", None), at(0)).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let lockout = Lockout::default();
        for source in 0..20_000_u32 {
            let source = places(Some(IpAddr::from(source.to_be_bytes())), &source.to_string(), None);
            lockout.attempt(&source, at(0)).expect("its first");
        }
        let counts = lockout.0.lock().expect("unpoisoned");
        assert_eq!((counts.places.len(), counts.nobodies.len()), (PLACES.get(), PLACES.get()));
    }

    #[test]
    fn a_name_that_nobody_has_waits_like_one_that_somebody_has() {
        let lockout = Lockout::default();
        let guess = |network: u8, name: &str, account: Option<&str>| {
            let source = IpAddr::from([10, 0, network, 1]);
            lockout.attempt(&places(Some(source), name, account), at(0))
        };
        for network in 0..8 {
            let known = guess(network, "ada", Some("ada"));
            assert_eq!(known, guess(network + 100, "nobody", None), "{network}");
        }
    }

    #[test]
    fn tokens_are_compared_one_after_the_other() {
        let (lockout, places) = (Lockout::default(), places_of_tokens(Some(IpAddr::from([192, 0, 2, 1]))));
        let compared = std::sync::atomic::AtomicU32::new(0);
        let guess = || {
            lockout.judge(&places, at(0), || {
                compared.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                None::<()>
            })
        };
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(guess);
            }
        });
        assert_eq!(compared.into_inner(), FREE + 1, "more at once are no more guesses");
        assert_eq!(lockout.judge(&places, at(60), || Some("ada")), Ok("ada"));
        assert_eq!(lockout.judge(&places, at(60), || None::<()>), Err(Wrong::Token(None)), "counted anew");
    }
}
