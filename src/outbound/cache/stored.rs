//! An answer that is kept: whether it may be, how long it is fresh, and how it is brought up to date.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::directives::{self, Directives, date};
use super::given::CACHE_STATUS;
use super::key::Chosen;
use crate::base::clock::Timestamp;
use crate::definition::plan::api::Cache as Rule;
use crate::outbound::visible::is_not_for_the_caller;

/// What a kept answer costs besides its bytes.
const OVERHEAD: usize = 512;

/// A moment, both ways: dates of the service are compared with wall time, the rest is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// Monotonic time.
    pub monotonic: Duration,
}

/// The head of an answer and when it came.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The status.
    pub status: StatusCode,
    /// The headers that a caller may see.
    pub headers: &'a HeaderMap,
    /// When the request was sent, monotonic.
    pub asked_at: Duration,
    /// When the head came.
    pub came_at: Now,
}

/// How long an answer may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// When it came, monotonic.
    pub came_at: Duration,
    /// How old it was then (RFC 9111 §4.2.3).
    pub age: Duration,
    /// How long it is fresh from then on.
    pub fresh_for: Duration,
    /// Whether it may be used without asking while it is fresh.
    pub must_ask: bool,
    /// Whether it must not be used when it is stale.
    pub never_stale: bool,
}

/// An answer that is kept.
#[derive(Debug)]
pub struct Stored {
    /// The status.
    pub status: StatusCode,
    /// The headers, without those of one connection or one delivery.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// What chose it.
    pub chosen: Chosen,
    /// How long it may be used.
    pub freshness: Freshness,
}

/// Statuses whose meaning this cache knows.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300..=303 | 307 | 308 | 400 | 403..=406 | 409 | 410 | 414 | 421 | 422 | 451 | 500..=504)
}

/// Answers that speak of the thing asked for as it is, so that they may be kept though the service does not
/// say for how long.
fn is_lasting(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410)
}

/// Answers that `ttl` is for: those that are an answer to what was asked.
fn takes_ttl(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308)
}

/// Answers that are never kept: parts, news about something kept, and what is about this very call.
fn is_passing(status: StatusCode) -> bool {
    status.is_informational() || matches!(status.as_u16(), 206 | 304 | 401 | 407 | 408 | 425 | 429)
}

impl Freshness {
    /// How long an answer may be used; `None` where it must not be kept.
    pub fn of(head: &Head<'_>, rule: &Rule) -> Option<Self> {
        let said = Directives::of_answer(head.headers);
        let understood = said.must_understand && is_understood(head.status);
        let refused = said.no_store && !understood && !(rule.ttl.is_some() && rule.ignore_no_store);
        if is_passing(head.status) || refused || said.must_understand && !understood {
            return None;
        }
        let date = date(head.headers, header::DATE);
        // A date has whole seconds only.
        let came_in = Timestamp::from_seconds(head.came_at.wall.seconds());
        let apparent = date.map_or(Duration::ZERO, |date| came_in.since(date));
        let delay = head.came_at.monotonic.saturating_sub(head.asked_at);
        let age = apparent.max(directives::age(head.headers).saturating_add(delay));
        let came_at = head.came_at.monotonic;
        if let Some(ttl) = rule.ttl.filter(|_| takes_ttl(head.status)) {
            return Some(Self { came_at, age, fresh_for: ttl, must_ask: false, never_stale: false });
        }
        let lifetime = lifetime(&said, head, date);
        if lifetime.is_none() && !is_lasting(head.status) {
            return None;
        }
        let fresh_for = lifetime.unwrap_or_default().saturating_sub(age);
        let validates = head.headers.contains_key(header::ETAG) || head.headers.contains_key(header::LAST_MODIFIED);
        let never_used = fresh_for.is_zero() || said.no_cache;
        if never_used && !validates {
            return None;
        }
        let must_ask = said.no_cache;
        Some(Self { came_at, age, fresh_for, must_ask, never_stale: said.must_revalidate || must_ask })
    }

    /// How old the answer is.
    pub fn age(&self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.came_at))
    }

    /// What is left of its freshness; zero when it is stale.
    pub fn left(&self, now: Duration) -> Duration {
        self.fresh_for.saturating_sub(now.saturating_sub(self.came_at))
    }

    /// For how long it has been stale.
    pub fn stale_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.came_at).saturating_sub(self.fresh_for)
    }
}

/// The lifetime that the service gives its answer. Nothing is guessed from `Last-Modified`.
fn lifetime(said: &Directives, head: &Head<'_>, sent: Option<Timestamp>) -> Option<Duration> {
    let declared = said.s_maxage.or(said.max_age);
    let mut expiries = head.headers.get_all(header::EXPIRES).iter();
    let by_date = || {
        expiries.next()?;
        // Two that differ, or one that is no date, count as past.
        let only = expiries.next().is_none();
        let end = date(head.headers, header::EXPIRES).filter(|_| only);
        Some(end.map_or(Duration::ZERO, |end| end.since(sent.unwrap_or(head.came_at.wall))))
    };
    declared.or_else(by_date)
}

/// Takes out what belongs to one connection or one delivery, and what is not for callers.
pub fn lasting(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = directives::texts(headers, header::CONNECTION)
        .flat_map(|text| text.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let passes = |name: &HeaderName| {
        matches!(
            *name,
            header::CONNECTION
                | header::TRANSFER_ENCODING
                | header::CONTENT_LENGTH
                | header::TE
                | header::TRAILER
                | header::UPGRADE
                | header::AGE
        ) || is_not_for_the_caller(name)
            || *name == CACHE_STATUS
            || named.contains(name)
    };
    headers.iter().filter(|(name, _)| !passes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What a 304 must not change: it tells which body is kept, and how to read it.
fn describes_body(name: &HeaderName) -> bool {
    let named = [header::CONTENT_ENCODING, header::CONTENT_RANGE, header::CONTENT_LENGTH, header::ETAG];
    named.contains(name) || *name == "content-md5"
}

impl Stored {
    /// The same answer after the service said that it still holds.
    pub fn renewed(&self, head: &Head<'_>, rule: &Rule) -> Self {
        let fresh = lasting(head.headers);
        let mut headers = self.headers.clone();
        for name in fresh.keys().filter(|name| !describes_body(name)) {
            headers.remove(name);
            for value in fresh.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        // `Age` is of the delivery that was just made.
        let mut told = headers.clone();
        told.extend(head.headers.get(header::AGE).map(|age| (header::AGE, age.clone())));
        let renewed = Head { status: self.status, headers: &told, ..*head };
        let freshness = Freshness::of(&renewed, rule).unwrap_or(Freshness {
            came_at: head.came_at.monotonic,
            age: Duration::ZERO,
            fresh_for: Duration::ZERO,
            must_ask: true,
            never_stale: true,
        });
        let (status, body, chosen) = (self.status, self.body.clone(), self.chosen.clone());
        Self { status, headers, body, chosen, freshness }
    }

    /// Its entity tag.
    pub fn etag(&self) -> Option<&HeaderValue> {
        self.headers.get(header::ETAG)
    }

    /// When it was last changed, as the service wrote it.
    pub fn last_modified(&self) -> Option<&HeaderValue> {
        self.headers.get(header::LAST_MODIFIED)
    }

    /// What it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 48).sum();
        self.body.len() + headers + self.chosen.bytes() + OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(ttl: Option<u64>) -> Rule {
        Rule { ttl: ttl.map(Duration::from_secs), ..Rule::default() }
    }

    fn of(status: u16, pairs: &[(&'static str, &'static str)], rule: &Rule) -> Option<(u64, bool)> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = pairs.iter().map(pair).collect();
        let wall = Timestamp::from_seconds(1_000_000_000);
        let came_at = Now { wall, monotonic: Duration::from_secs(100) };
        let status = StatusCode::from_u16(status).expect("a status");
        let head = Head { status, headers: &headers, asked_at: Duration::from_secs(100), came_at };
        Freshness::of(&head, rule).map(|fresh| (fresh.fresh_for.as_secs(), fresh.must_ask))
    }

    #[test]
    fn the_service_says_how_long_unless_the_file_does() {
        let says = |pairs| of(200, pairs, &rule(None));
        assert_eq!(says(&[("cache-control", "max-age=60")]), Some((60, false)));
        assert_eq!(says(&[("cache-control", "private, max-age=60"), ("age", "20")]), Some((40, false)));
        assert_eq!(says(&[("cache-control", "max-age=60, s-maxage=5")]), Some((5, false)));
        assert_eq!(says(&[("expires", "Sun, 09 Sep 2001 01:47:00 GMT")]), Some((20, false)));
        assert_eq!(says(&[("expires", "0")]), None, "no date is the past, and there is nothing to ask by");
        assert_eq!(says(&[("last-modified", "Sun, 09 Sep 2001 01:46:00 GMT")]), Some((0, false)), "nothing is guessed");
        assert_eq!(says(&[("cache-control", "no-cache"), ("etag", "\"a\"")]), Some((0, true)));
        assert_eq!(says(&[("cache-control", "no-store, max-age=60")]), None);
        assert_eq!(says(&[]), None);
        let file = |pairs| of(200, pairs, &rule(Some(300)));
        assert_eq!(file(&[]), Some((300, false)));
        assert_eq!(file(&[("cache-control", "no-cache, max-age=0")]), Some((300, false)));
        assert_eq!(file(&[("cache-control", "no-store")]), None);
        assert_eq!(
            of(200, &[("cache-control", "no-store")], &Rule { ignore_no_store: true, ..rule(Some(9)) }),
            Some((9, false))
        );
    }

    #[test]
    fn what_is_about_the_call_and_not_about_the_thing_is_not_kept() {
        let hour = [("cache-control", "max-age=3600")];
        for status in [206, 304, 401, 407, 429] {
            assert_eq!(of(status, &hour, &rule(Some(60))), None, "{status}");
        }
        assert_eq!(of(404, &hour, &rule(Some(60))), Some((3_600, false)), "`ttl` is not for errors");
        for status in [404, 500, 503] {
            assert_eq!(of(status, &[], &rule(Some(60))), None, "{status}");
        }
    }
}
