//! What happened, for people: the newest calls, bounded and never in a call's way.
//!
//! Holds no bodies, no header values, no query strings. Written by `outbound` and `proxy`, read by
//! `admin`. [`keep`] takes over settings, lets go of what is old, and writes into the audit log what [`tally`]
//! counted.

pub mod keep;
pub mod tally;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::definition::plan::gateway::Activity as Settings;
use tally::Tally;

/// The share that is all.
const WHOLE: u64 = 1_000_000;

/// A call to a service that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct CallRecord {
    /// When it began.
    pub at: Timestamp,
    /// The generation it belonged to.
    pub generation: u64,
    /// The integration.
    pub integration: Arc<str>,
    /// The connection.
    pub connection: Arc<str>,
    /// Who asked for it.
    pub asker: Asker,
    /// The endpoint, where it was one.
    pub endpoint: Option<Arc<str>>,
    /// The method.
    #[serde(serialize_with = "as_text")]
    pub method: Method,
    /// Scheme, host and port that were called.
    pub origin: Arc<str>,
    /// The path, without the query.
    pub path: String,
    /// The service's status; none when there was no answer.
    pub status: Option<u16>,
    /// The gateway's error code, when the call did not succeed.
    pub error: Option<&'static str>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of the body that were sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body that were received.
    pub received_bytes: u64,
    /// How it went on its way.
    #[serde(flatten)]
    pub course: Course,
}

/// How a call went on its way to the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Course {
    /// How often it was tried, tries of which nothing was sent among them; zero for a call that was answered or
    /// refused here.
    pub attempts: u32,
    /// How long it waited: for its turns under the limits, and between tries.
    #[serde(rename = "waited_ms", serialize_with = "as_millis")]
    pub waited: Duration,
    /// What the cache made of it, where its answer may be kept: a word of `trunkline_cache_requests_total`.
    pub cache: Option<&'static str>,
}

impl Course {
    /// Of a call that was tried once.
    pub const ONCE: Self = Self { attempts: 1, waited: Duration::ZERO, cache: None };
}

/// Who asked for a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "id")]
pub enum Asker {
    /// An application, at the proxy door.
    Caller(Arc<str>),
    /// A delivery.
    Delivery(String),
    /// A person who connects an account.
    Connect,
    /// A person or the gateway itself, to see whether a connection works.
    Test,
    /// A person, to have a service send its events to an endpoint, or the gateway itself, to have it stop.
    Webhook,
    /// The gateway itself, to get, renew or give back a token.
    SignIn,
}

fn as_text<S: serde::Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

fn as_millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl CallRecord {
    /// Whether it ended badly: with a refusal of ours, an error of the service, or without any answer. How a connect
    /// flow ended is no call, so that it has no status when all is well.
    pub fn has_failed(&self) -> bool {
        let unanswered = || !matches!(self.asker, Asker::Connect);
        self.error.is_some() || self.status.map_or_else(unanswered, |status| status >= 400)
    }
}

/// The newest calls, and the count of all since the last line in the audit log.
#[derive(Debug)]
pub struct Activity {
    newest: Mutex<VecDeque<Arc<CallRecord>>>,
    tally: Tally,
    keep: AtomicUsize,
    retain_millis: AtomicU64,
    /// Of a million calls that succeed, so many are remembered.
    sample: AtomicU64,
    succeeded: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        let activity = Self {
            newest: Mutex::default(),
            tally: Tally::default(),
            keep: AtomicUsize::new(0),
            retain_millis: AtomicU64::new(0),
            sample: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
        };
        activity.apply(Settings::default());
        activity
    }
}

impl Activity {
    /// Takes settings over. What is too much by them goes with the next call.
    pub fn apply(&self, settings: Settings) {
        self.keep.store(settings.keep, Ordering::Relaxed);
        let millis = u64::try_from(settings.retain.as_millis()).unwrap_or(u64::MAX);
        self.retain_millis.store(millis, Ordering::Relaxed);
        self.sample.store(u64::from(settings.sample_millionths), Ordering::Relaxed);
    }

    /// Counts a call, and remembers it: each that failed, and of the others the share that the settings want. Lets go
    /// of the oldest where there are too many.
    pub fn record(&self, call: CallRecord) {
        self.tally.count(&call);
        if !call.has_failed() && !self.is_sampled() {
            return;
        }
        let keep = self.keep.load(Ordering::Relaxed);
        let call = Arc::new(call);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.push_back(call);
        let over = newest.len().saturating_sub(keep);
        // Usually one: it is freed outside the lock, like the rest of them.
        let gone = if over > 1 { newest.drain(..over).collect() } else { Vec::new() };
        let one = if over == 1 { newest.pop_front() } else { None };
        drop(newest);
        drop((gone, one));
    }

    /// Whether the next call that succeeds is remembered: evenly spread, without chance.
    fn is_sampled(&self) -> bool {
        let share = self.sample.load(Ordering::Relaxed);
        if share >= WHOLE {
            return true;
        }
        let number = self.succeeded.fetch_add(1, Ordering::Relaxed);
        let until = |count: u64| u128::from(count) * u128::from(share) / u128::from(WHOLE);
        until(number.wrapping_add(1)) > until(number)
    }

    /// Lets go of what is older than the settings want.
    pub fn retire(&self, now: Timestamp) {
        let oldest = now.before(Duration::from_millis(self.retain_millis.load(Ordering::Relaxed)));
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls are put in when they end; a long one may stand behind shorter ones that began later.
        while newest.front().is_some_and(|call| call.at < oldest) {
            newest.pop_front();
        }
    }

    /// How many are kept at most.
    pub fn capacity(&self) -> usize {
        self.keep.load(Ordering::Relaxed)
    }

    /// How many of those kept fit.
    pub fn count(&self, fits: impl Fn(&CallRecord) -> bool) -> usize {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().filter(|call| fits(call)).count()
    }

    /// What is counted for the audit log.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The newest calls that fit, newest first, at most `max`.
    pub fn newest(&self, max: usize, fits: impl Fn(&CallRecord) -> bool) -> Vec<Arc<CallRecord>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().rev().filter(|call| fits(call)).take(max).cloned().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::activity) fn call(number: u64) -> CallRecord {
        CallRecord {
            at: Timestamp::from_seconds(number),
            generation: 1,
            integration: Arc::from("a"),
            connection: Arc::from("default"),
            asker: Asker::Test,
            endpoint: None,
            method: Method::GET,
            origin: Arc::from("https://a.example"),
            path: "/".to_owned(),
            status: Some(200),
            error: None,
            duration_ms: 1,
            sent_bytes: 0,
            received_bytes: 0,
            course: Course::ONCE,
        }
    }

    #[test]
    fn a_call_without_an_answer_failed_and_a_connect_flow_without_an_error_did_not() {
        let ended = |asker, status, error| CallRecord { asker, status, error, ..call(1) }.has_failed();
        assert!(ended(Asker::Test, None, None) && ended(Asker::Test, Some(404), None));
        assert!(ended(Asker::Test, Some(200), Some("internal")) && !ended(Asker::Test, Some(399), None));
        assert!(!ended(Asker::Connect, None, None) && ended(Asker::Connect, None, Some("denied")));
    }

    #[test]
    fn the_newest_are_kept_and_the_oldest_let_go() {
        let activity = Activity::default();
        activity.apply(Settings { keep: 20, ..Settings::default() });
        (0..25).for_each(|number| activity.record(call(number)));
        let kept = activity.newest(100, |_| true);
        assert_eq!((kept.len(), kept[0].at.seconds()), (20, 24));
        assert_eq!(activity.newest(1, |call| call.at.seconds() == 3).len(), 0);
        activity.apply(Settings { keep: 5, ..Settings::default() });
        activity.record(call(25));
        assert_eq!(activity.newest(100, |_| true).len(), 5);
        activity.apply(Settings { keep: 0, ..Settings::default() });
        activity.record(call(26));
        assert_eq!(activity.newest(100, |_| true).len(), 0);
    }

    #[test]
    fn a_share_of_what_succeeds_is_kept_and_all_that_fails() {
        let activity = Activity::default();
        activity.apply(Settings { sample_millionths: 100_000, ..Settings::default() });
        (0..100).for_each(|number| activity.record(call(number)));
        assert_eq!(activity.newest(100, |_| true).len(), 10);
        (0..5).for_each(|number| activity.record(CallRecord { status: Some(404), ..call(number) }));
        activity.record(CallRecord { error: Some("service_held"), status: None, ..call(1) });
        assert_eq!(activity.newest(100, |_| true).len(), 16);
        assert!(activity.tally().take().counted.is_empty(), "a test is no application");
    }

    #[test]
    fn what_is_old_is_let_go() {
        let activity = Activity::default();
        activity.apply(Settings { retain: Duration::from_mins(1), ..Settings::default() });
        (0..10).for_each(|number| activity.record(call(1_000 + number * 10)));
        activity.retire(Timestamp::from_seconds(1_100));
        let kept = activity.newest(100, |_| true);
        assert_eq!((kept.len(), kept[5].at.seconds()), (6, 1_040));
    }

    #[test]
    fn a_record_is_shown_in_full() {
        let activity = Activity::default();
        let course = Course { attempts: 2, waited: Duration::from_millis(30), cache: Some("miss") };
        activity.record(CallRecord { course, ..call(1) });
        let kept = activity.newest(1, |_| true);
        let shown = serde_json::to_value(&*kept[0]).expect("JSON");
        assert_eq!([&shown["attempts"], &shown["waited_ms"]], [2, 30]);
        assert_eq!(shown["cache"], "miss");
        assert_eq!(serde_json::to_value(&*kept[0]).expect("JSON")["asker"]["is"], "test");
    }
}
