//! Rate limits as the definition declares them, enforced per credential, and the headers that tell of
//! them. Called by `service`.
//!
//! Where the definition reads what is left (`quota.remaining`), a limit is a count that is full again with each
//! window, as services that tell it have it, and what is told is what is enforced. Where nothing is told, it is a
//! token bucket with the limit's burst.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::credential::Holder;
use super::paths::{Step, reads};
use crate::base::clock::Timestamp;
use crate::base::units::Rate;
use crate::definition::plan::rule::Glob;

/// Credentials that are counted at once; when more come, the counts of the longest idle one are dropped.
const HOLDERS: usize = 1_024;

/// The limits of one service.
#[derive(Debug)]
pub(super) struct Limits {
    rules: Vec<LimitRule>,
    quota: QuotaHeaders,
    counts: Mutex<HashMap<(Holder, usize), Count>>,
}

#[derive(Debug)]
struct LimitRule {
    rate: Rate,
    burst: u32,
    paths: Vec<Glob>,
}

/// How a limit is enforced.
#[derive(Debug, Clone, Copy)]
enum Way {
    Window,
    Bucket,
}

/// Where the service tells what is left.
#[derive(Debug, Default)]
struct QuotaHeaders {
    remaining: Option<HeaderName>,
    resets: Option<(HeaderName, ResetForm)>,
}

/// How the moment of the next window is written.
#[derive(Debug, Clone, Copy)]
enum ResetForm {
    AtSeconds,
    AtMillis,
    AtText,
    InSeconds,
    InMillis,
    InMinutes,
}

/// A token bucket, and a plain count for the window that headers tell of: one of the two is enforced.
#[derive(Debug, Clone, Copy)]
struct Count {
    tokens: f64,
    touched: Duration,
    window_ends: Duration,
    used: u32,
}

/// The two clocks' readings at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Wall time, for what is told.
    pub wall: Timestamp,
    /// Monotonic time, for what is counted.
    pub monotonic: Duration,
}

/// What the limits say to a call.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Headers to tell.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long to wait, when the call is refused; whole seconds.
    pub refused: Option<Duration>,
}

impl Limits {
    /// The limits in a resolved definition.
    pub fn new(resolved: &Value) -> Self {
        let rules = resolved.pointer("/api/limits").and_then(Value::as_array);
        let rules = rules.into_iter().flatten().filter_map(LimitRule::read).collect();
        let quota = resolved.pointer("/api/quota").map(QuotaHeaders::read).unwrap_or_default();
        Self { rules, quota, counts: Mutex::default() }
    }

    /// Counts a call.
    pub fn take(&self, holder: Holder, path: &str, now: Moment) -> Outcome {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Outcome { headers: Vec::new(), refused: None };
        for (place, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.is_for(path)) {
            make_room(&mut counts, (holder, place));
            let count = counts.entry((holder, place)).or_insert_with(|| rule.fresh(now.monotonic));
            if let Some(wait) = rule.take(count, now.monotonic, self.quota.way()) {
                outcome.refused = Some(outcome.refused.map_or(wait, |known| known.max(wait)));
            }
            if outcome.headers.is_empty() {
                outcome.headers = self.quota.tell(rule, count, now);
            }
        }
        outcome
    }
}

fn make_room(counts: &mut HashMap<(Holder, usize), Count>, key: (Holder, usize)) {
    if counts.len() < HOLDERS || counts.contains_key(&key) {
        return;
    }
    if let Some(idle) = counts.iter().min_by_key(|(_, count)| count.touched).map(|(key, _)| *key) {
        counts.remove(&idle);
    }
}

impl LimitRule {
    fn read(value: &Value) -> Option<Self> {
        let rate: Rate = value.get("rate")?.as_str()?.parse().ok()?;
        let burst = value.get("burst").and_then(Value::as_u64).and_then(|burst| u32::try_from(burst).ok());
        let paths = value.get("paths").and_then(Value::as_array);
        let paths = paths.into_iter().flatten().filter_map(Value::as_str).map(Glob::new).collect();
        Some(Self { rate, burst: burst.unwrap_or(rate.count.min(100)).max(1), paths })
    }

    fn is_for(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|glob| glob.matches(path))
    }

    fn fresh(&self, now: Duration) -> Count {
        Count { tokens: f64::from(self.burst), touched: now, window_ends: now + self.rate.period, used: 0 }
    }

    /// Takes one; how long to wait when there is none.
    fn take(&self, count: &mut Count, now: Duration, way: Way) -> Option<Duration> {
        match way {
            Way::Window => self.take_of_window(count, now),
            Way::Bucket => self.take_of_bucket(count, now),
        }
    }

    fn take_of_window(&self, count: &mut Count, now: Duration) -> Option<Duration> {
        count.touched = now;
        if now >= count.window_ends {
            (count.used, count.window_ends) = (0, now + self.rate.period);
        }
        if count.used < self.rate.count {
            count.used += 1;
            return None;
        }
        Some(Duration::from_secs(whole_seconds(count.window_ends.saturating_sub(now)).max(1)))
    }

    fn take_of_bucket(&self, count: &mut Count, now: Duration) -> Option<Duration> {
        let per_second = f64::from(self.rate.count) / self.rate.period.as_secs_f64();
        let gained = now.saturating_sub(count.touched).as_secs_f64() * per_second;
        count.tokens = (count.tokens + gained).min(f64::from(self.burst));
        count.touched = now;
        if count.tokens >= 1.0 {
            count.tokens -= 1.0;
            return None;
        }
        let seconds = ((1.0 - count.tokens) / per_second).ceil().max(1.0);
        Some(Duration::from_secs_f64(seconds))
    }
}

impl QuotaHeaders {
    fn way(&self) -> Way {
        if self.remaining.is_some() { Way::Window } else { Way::Bucket }
    }

    fn read(quota: &Value) -> Self {
        let remaining = quota.get("remaining").and_then(header_of);
        let name = |pointer: &str| quota.pointer(pointer).and_then(header_of);
        let form = match quota.pointer("/resets/unit").and_then(Value::as_str) {
            Some("epoch_millis") => ResetForm::AtMillis,
            Some("rfc3339") => ResetForm::AtText,
            Some("seconds") => ResetForm::InSeconds,
            Some("millis") => ResetForm::InMillis,
            Some("minutes") => ResetForm::InMinutes,
            _ => ResetForm::AtSeconds,
        };
        let resets = name("/resets/at").or_else(|| name("/resets/after")).map(|name| (name, form));
        Self { remaining, resets }
    }

    fn tell(&self, rule: &LimitRule, count: &Count, now: Moment) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(name) = &self.remaining {
            headers.push((name.clone(), HeaderValue::from(rule.rate.count.saturating_sub(count.used))));
        }
        if let Some((name, form)) = &self.resets {
            let left = count.window_ends.saturating_sub(now.monotonic);
            let at = now.wall.after(left);
            let text = match form {
                ResetForm::AtSeconds => at.millis().div_ceil(1_000).to_string(),
                ResetForm::AtMillis => at.millis().to_string(),
                ResetForm::AtText => at.to_string(),
                ResetForm::InSeconds => whole_seconds(left).to_string(),
                ResetForm::InMillis => left.as_micros().div_ceil(1_000).to_string(),
                ResetForm::InMinutes => whole_seconds(left).div_ceil(60).to_string(),
            };
            headers.extend(HeaderValue::from_str(&text).ok().map(|value| (name.clone(), value)));
        }
        headers
    }
}

/// A time in seconds, never less than it is: who comes back then does not come too early.
fn whole_seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// The header that an expression reads.
fn header_of(expression: &Value) -> Option<HeaderName> {
    reads(expression.as_str()?).into_iter().find_map(|read| match (read.root.as_str(), read.steps.as_slice()) {
        ("headers", [Step::Key(name)]) => HeaderName::from_bytes(name.as_bytes()).ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(millis: u64) -> Moment {
        Moment {
            wall: Timestamp::from_seconds(1_000).after(Duration::from_millis(millis)),
            monotonic: Duration::from_millis(millis),
        }
    }

    #[test]
    fn a_burst_is_taken_and_what_follows_waits_its_turn() {
        let limits = Limits::new(&json!({ "api": { "limits": [{ "rate": "1/s", "burst": 3 }] } }));
        let refused = |millis| limits.take(Holder(1), "/x", at(millis)).refused.is_some();
        assert_eq!([0, 0, 0, 0, 500, 1_000, 1_001].map(refused), [false, false, false, true, true, false, true]);
        assert!(limits.take(Holder(2), "/x", at(0)).refused.is_none(), "another credential has its own count");
    }

    #[test]
    fn headers_are_those_the_quota_names() {
        let quota = json!({ "remaining": "headers['x-left']", "resets": { "at": "headers['x-reset']", "unit": "epoch_seconds" } });
        let limits = Limits::new(&json!({ "api": { "limits": [{ "rate": "60/m", "burst": 5 }], "quota": quota } }));
        limits.take(Holder(1), "/x", at(0));
        let told = limits.take(Holder(1), "/x", at(0)).headers;
        let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(told, [("x-left", "58"), ("x-reset", "1060")]);
    }

    #[test]
    fn what_is_told_is_what_is_enforced() {
        let quota =
            json!({ "remaining": "headers['x-left']", "resets": { "after": "headers['x-reset']", "unit": "seconds" } });
        let limits = json!([{ "rate": "5/s", "burst": 2 }]);
        let limits = Limits::new(&json!({ "api": { "limits": limits, "quota": quota } }));
        let mut told = Vec::new();
        for millis in [0, 0, 100, 100, 200, 300, 1_000] {
            let outcome = limits.take(Holder(1), "/x", at(millis));
            let left = outcome.headers[0].1.to_str().expect("text").to_owned();
            told.push((left, outcome.headers[1].1.to_str().expect("text").to_owned(), outcome.refused.is_some()));
        }
        let left: Vec<_> = told.iter().map(|(left, _, refused)| (left.as_str(), *refused)).collect();
        let full = [("4", false), ("3", false), ("2", false), ("1", false), ("0", false), ("0", true), ("4", false)];
        assert_eq!(left, full, "none is refused while some are left, and none goes when none is");
        assert!(told.iter().all(|(_, resets, _)| resets == "1"), "{told:?}");
    }

    #[test]
    fn counts_are_bounded() {
        let limits = Limits::new(&json!({ "api": { "limits": [{ "rate": "1/s" }] } }));
        for holder in 0..5_000 {
            limits.take(Holder(holder), "/x", at(holder));
        }
        assert_eq!(limits.counts.lock().expect("unpoisoned").len(), HOLDERS);
    }
}
