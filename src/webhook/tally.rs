//! How many requests came to each managed endpoint in the last 24 hours, and when the last one was taken.
//!
//! Counted in memory, in quarters of an hour, and written now and then: a crash loses the counts of at most the last
//! minute, and never an event. Counted by `receive`; shown by `admin`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::WebhookId;
use crate::store::model::RecordKey;
use crate::store::{Records, StoreError};

const COLLECTION: &str = "webhook_tallies";
/// A quarter of an hour, in seconds.
const QUARTER: u64 = 15 * 60;
/// How many of them make a day.
const DAY: u64 = 24 * 60 * 60 / QUARTER;

/// What became of a request at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It verified and was acknowledged.
    Taken,
    /// It was refused.
    Refused,
}

/// The last 24 hours of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// Requests that were taken.
    pub taken: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// When the last one was taken, also before the 24 hours.
    pub last: Option<Timestamp>,
    /// Both by hour, oldest first; the last is the hour that ends now.
    pub hours: Vec<(u64, u64)>,
}

impl Day {
    /// Requests that came.
    pub const fn came(&self) -> u64 {
        self.taken + self.refused
    }

    /// The share that was taken, from 0 to 1; `None` when none came.
    pub fn success_rate(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts of a day are far below 2^53")]
        let share = || self.taken as f64 / self.came() as f64;
        (self.came() > 0).then(share)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {
    last: Option<Timestamp>,
    /// By quarter, oldest first; one in which nothing came has none.
    quarters: VecDeque<Quarter>,
    #[serde(skip)]
    unwritten: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Quarter {
    at: u64,
    taken: u64,
    refused: u64,
}

impl Tally {
    fn count(&mut self, came: Came, now: Timestamp) {
        let at = now.seconds() / QUARTER;
        // A clock that was set back counts into the newest quarter.
        if self.quarters.back().is_none_or(|newest| newest.at < at) {
            self.quarters.push_back(Quarter { at, taken: 0, refused: 0 });
        }
        while self.quarters.front().is_some_and(|oldest| oldest.at + DAY <= at) {
            self.quarters.pop_front();
        }
        if let Some(newest) = self.quarters.back_mut() {
            match came {
                Came::Taken => newest.taken += 1,
                Came::Refused => newest.refused += 1,
            }
        }
        if came == Came::Taken {
            self.last = Some(now);
        }
        self.unwritten = true;
    }

    fn day(&self, now: Timestamp) -> Day {
        let newest = now.seconds() / QUARTER;
        let mut day = Day { last: self.last, hours: vec![(0, 0); 24], ..Day::default() };
        for quarter in self.quarters.iter().filter(|quarter| quarter.at + DAY > newest) {
            day.taken += quarter.taken;
            day.refused += quarter.refused;
            let back = usize::try_from(newest.saturating_sub(quarter.at) / 4).unwrap_or(usize::MAX);
            if let Some(hour) = 23_usize.checked_sub(back).and_then(|place| day.hours.get_mut(place)) {
                hour.0 += quarter.taken;
                hour.1 += quarter.refused;
            }
        }
        day
    }
}

/// The tallies of all endpoints.
pub struct Tallies {
    records: Arc<dyn Records>,
    all: Mutex<HashMap<WebhookId, Tally>>,
}

impl fmt::Debug for Tallies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tallies").field("count", &self.held().len()).finish_non_exhaustive()
    }
}

impl Tallies {
    /// Nothing is counted yet: see [`Self::load`].
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records, all: Mutex::default() }
    }

    /// Reads what was written. What cannot be read begins anew.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(&self) -> Result<(), StoreError> {
        for key in self.records.keys(COLLECTION).await? {
            let Ok(id) = key.key.parse::<WebhookId>() else { continue };
            let Some((written, _)) = self.records.get(&key).await? else { continue };
            if let Ok(tally) = serde_json::from_slice(&written) {
                self.held().insert(id, tally);
            }
        }
        Ok(())
    }

    /// Counts a request.
    pub fn count(&self, id: WebhookId, came: Came, now: Timestamp) {
        self.held().entry(id).or_default().count(came, now);
    }

    /// The last 24 hours of an endpoint.
    pub fn day(&self, id: WebhookId, now: Timestamp) -> Day {
        self.held().entry(id).or_default().day(now)
    }

    /// Forgets an endpoint.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self, id: WebhookId) -> Result<(), StoreError> {
        self.held().remove(&id);
        self.records.remove(&key(id)).await
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// When the store fails; what is not written then is written the next time.
    pub async fn write(&self) -> Result<(), StoreError> {
        let changed: Vec<_> = {
            let mut all = self.held();
            let changed = all.iter_mut().filter(|(_, tally)| tally.unwritten);
            let written = changed.filter_map(|(id, tally)| {
                tally.unwritten = false;
                Some((*id, serde_json::to_vec(tally).ok()?))
            });
            written.collect()
        };
        for (place, (id, content)) in changed.iter().enumerate() {
            if let Err(error) = self.records.put(&key(*id), Bytes::from(content.clone()), None).await {
                let mut all = self.held();
                for (id, _) in changed.iter().skip(place) {
                    all.entry(*id).and_modify(|tally| tally.unwritten = true);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, HashMap<WebhookId, Tally>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(id: WebhookId) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(id.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(minutes: u64) -> Timestamp {
        Timestamp::from_seconds(1_769_853_600 + minutes * 60)
    }

    #[test]
    fn a_day_is_the_last_24_hours() {
        let mut tally = Tally::default();
        tally.count(Came::Refused, at(0));
        (0..3).for_each(|n| tally.count(Came::Taken, at(60 + n)));
        let day = tally.day(at(63));
        assert_eq!((day.taken, day.refused, day.success_rate()), (3, 1, Some(0.75)));
        assert_eq!((day.hours[22], day.hours[23]), ((0, 1), (3, 0)));
        let later = tally.day(at(24 * 60));
        assert_eq!((later.came(), later.last), (3, Some(at(62))));
        let much_later = tally.day(at(72 * 60));
        assert_eq!((much_later.came(), much_later.success_rate(), much_later.last), (0, None, Some(at(62))));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_clock_set_back_loses_nothing() {
        let mut tally = Tally::default();
        (0..10_000).for_each(|quarter| tally.count(Came::Taken, at(quarter * 15)));
        assert_eq!(tally.quarters.len(), 96);
        let now = at(10_000 * 15);
        let before = tally.day(now).came();
        tally.count(Came::Taken, at(0));
        assert_eq!(tally.day(now).came(), before + 1);
    }
}
