//! Services' clocks, where they differ from ours and calls are signed with the time.
//!
//! A `Date` is believed only once a service has refused what was signed by our own clock, because what answers
//! may have another clock than what checks signatures; and what is believed is let go of when it does not help.
//! What is more than a day off is a fault and says nothing. Called by `connection::flow` and `outbound`.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;

use super::moment::Skew;
use crate::base::clock::Timestamp;

/// How far a service's clock must be off before that is taken for the reason of a refused assertion: as much
/// as services let pass.
pub const ASSERTION: Duration = Duration::from_secs(30);
/// The same of a signed call: AWS refuses what is five minutes off, and its own clients look from four.
pub const SIGNATURE: Duration = Duration::from_mins(4);
/// Accounts whose service's clock is remembered; when there are more all are forgotten.
const CAPACITY: usize = 4_096;

/// What is believed of services' clocks, by integration and connection.
#[derive(Debug, Default)]
pub struct Skews(RwLock<HashMap<String, Belief>>);

#[derive(Debug, Clone, Copy)]
struct Belief {
    skew: Skew,
    /// Whether something that was signed by it was taken.
    proven: bool,
}

impl Skews {
    /// Our moment on the clock of an account's service.
    pub fn theirs(&self, account: (&str, &str), now: Timestamp) -> Timestamp {
        self.of(account).map_or(now, |skew| skew.theirs(now))
    }

    /// What is believed.
    pub fn of(&self, account: (&str, &str)) -> Option<Skew> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() { None } else { all.get(&key(account)).map(|belief| belief.skew) }
    }

    /// After something signed was refused: believes what the answer tells of the service's clock, if that is
    /// `least` or more away from what was believed. Answers whether it is, so that signing again may help.
    pub fn learn(&self, account: (&str, &str), now: Timestamp, headers: &HeaderMap, least: Duration) -> bool {
        let Some(told) = Skew::of_answer(now, headers) else { return false };
        let (new, old) = (told.theirs(now), self.theirs(account, now));
        let differs = new.since(old).max(old.since(new)) >= least;
        if differs {
            let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= CAPACITY {
                all.clear();
            }
            all.insert(key(account), Belief { skew: told, proven: false });
        }
        differs
    }

    /// Something signed by what is believed was taken.
    pub fn confirm(&self, account: (&str, &str)) {
        let proven = |all: &HashMap<String, Belief>| all.get(&key(account)).is_none_or(|belief| belief.proven);
        if proven(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        if let Some(belief) = self.0.write().unwrap_or_else(PoisonError::into_inner).get_mut(&key(account)) {
            belief.proven = true;
        }
    }

    /// Something signed by what is believed was refused all the same: unless it has helped before, it is let go
    /// of. Answers whether it is.
    pub fn doubt(&self, account: (&str, &str)) -> bool {
        if self.of(account).is_none() {
            return false;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let unproven = all.get(&key(account)).is_some_and(|belief| !belief.proven);
        unproven && all.remove(&key(account)).is_some()
    }
}

fn key((integration, connection): (&str, &str)) -> String {
    format!("{integration}/{connection}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_790_000_000);

    fn date(seconds: u64) -> HeaderMap {
        let at = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        [(http::header::DATE, httpdate::fmt_http_date(at).parse().expect("a value"))].into_iter().collect()
    }

    #[test]
    fn what_is_a_little_or_absurdly_off_is_not_believed_and_the_rest_is() {
        let (skews, account) = (Skews::default(), ("a", "x"));
        for seconds in [1_790_000_000, 1_790_000_029, 1_789_999_971, 1_790_086_401, 1_789_913_599] {
            assert!(!skews.learn(account, NOW, &date(seconds), ASSERTION), "{seconds}");
        }
        assert!(!skews.learn(account, NOW, &HeaderMap::new(), ASSERTION));
        for seconds in [1_790_000_060, 1_789_999_940, 1_790_086_400, 1_789_913_600] {
            assert!(skews.learn(account, NOW, &date(seconds), ASSERTION), "{seconds}");
            assert_eq!(skews.theirs(account, NOW).seconds(), seconds);
            assert!(!skews.learn(account, NOW, &date(seconds), ASSERTION), "it is known");
        }
        assert_eq!(skews.theirs(("a", "y"), NOW), NOW);
        assert!(skews.learn(account, NOW, &date(1_790_000_000), ASSERTION), "their clock was set right");
        assert_eq!(skews.theirs(account, NOW), NOW);
    }

    #[test]
    fn what_does_not_help_is_let_go_of_and_what_helped_stays() {
        let (skews, account) = (Skews::default(), ("a", "x"));
        assert!(!skews.doubt(account));
        assert!(skews.learn(account, NOW, &date(1_790_000_600), SIGNATURE));
        assert!(skews.doubt(account) && skews.of(account).is_none());
        assert!(skews.learn(account, NOW, &date(1_790_000_600), SIGNATURE));
        skews.confirm(account);
        assert!(!skews.doubt(account) && skews.of(account).is_some());
    }
}
