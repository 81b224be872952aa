//! What happened, for people: the newest calls, bounded and never in a call's way.
//!
//! Holds no bodies, no header values, no query strings. Written by `outbound` and `proxy`, read by
//! `admin`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use serde::Serialize;

use crate::base::clock::Timestamp;

/// How many calls are remembered.
pub const CAPACITY: usize = 1_000;

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
    /// The gateway itself, to get, renew or give back a token.
    SignIn,
}

fn as_text<S: serde::Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

/// The newest calls.
#[derive(Debug, Default)]
pub struct Activity {
    newest: Mutex<VecDeque<Arc<CallRecord>>>,
}

impl Activity {
    /// Remembers a call, and lets go of the oldest when there are too many.
    pub fn record(&self, call: CallRecord) {
        let call = Arc::new(call);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = if newest.len() >= CAPACITY { newest.pop_front() } else { None };
        newest.push_back(call);
        drop(newest);
        // The record is freed here, outside the lock.
        drop(gone);
    }

    /// The newest calls that fit, newest first, at most `max`.
    pub fn newest(&self, max: usize, fits: impl Fn(&CallRecord) -> bool) -> Vec<Arc<CallRecord>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().rev().filter(|call| fits(call)).take(max).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64) -> CallRecord {
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
        }
    }

    #[test]
    fn the_newest_are_kept_and_the_oldest_let_go() {
        let activity = Activity::default();
        (0..CAPACITY as u64 + 5).for_each(|number| activity.record(call(number)));
        let kept = activity.newest(CAPACITY * 2, |_| true);
        assert_eq!(kept.len(), CAPACITY);
        assert_eq!(kept[0].at.seconds(), CAPACITY as u64 + 4);
        assert_eq!(activity.newest(1, |call| call.at.seconds() == 3).len(), 0);
        assert_eq!(serde_json::to_value(&*kept[0]).expect("JSON")["asker"]["is"], "test");
    }
}
