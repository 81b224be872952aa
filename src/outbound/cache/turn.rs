//! A request's turn at the service: what it sends besides, and what becomes of its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use super::directives::Directives;
use super::key::{Chosen, Key};
use super::store::Room;
use super::stored::{Freshness, Head, Stored, lasting};
use super::{Asked, CACHE_STATUS, Cache, Lead, answer};
use crate::definition::plan::api::Cache as Rule;
use crate::net::Received;
use crate::respond::Answer;

/// What is set aside for a body whose length is not told.
const FIRST: usize = 4 << 10;

/// A request's turn. When it is dropped, somebody else's comes.
#[derive(Debug)]
pub struct Turn {
    cache: Arc<Cache>,
    rule: Rule,
    key: Key,
    method: Method,
    headers: HeaderMap,
    entry: Option<Arc<Stored>>,
    lead: Option<Lead>,
    asked_at: Duration,
    most: usize,
    /// Whether the answer may be kept.
    keeps: bool,
    /// Whether a stale answer may be given when the service fails.
    lenient: bool,
    why: &'static str,
    permit: Option<OwnedSemaphorePermit>,
}

/// What becomes of an answer whose head has come.
#[derive(Debug)]
pub enum Next {
    /// It passes; with this in `Cache-Status`.
    Pass(HeaderValue),
    /// It passes, and is kept when all of it has come.
    Keep(Box<Recording>, HeaderValue),
    /// The caller gets this instead: the service said that it still holds.
    Unchanged(Box<Answer>),
    /// The caller gets this instead: the service failed.
    Stale(Box<Answer>),
}

/// An answer that is being kept while it passes.
#[derive(Debug)]
pub struct Recording {
    cache: Arc<Cache>,
    key: Key,
    status: StatusCode,
    headers: HeaderMap,
    chosen: Chosen,
    freshness: Freshness,
    body: BytesMut,
    room: Room,
    lead: Option<Lead>,
    asked_at: Duration,
    most: usize,
    max_body: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    pub(super) fn new(
        cache: &Arc<Cache>,
        asked: &Asked<'_>,
        said: &Directives,
        (entry, lead): (Option<Arc<Stored>>, Option<Lead>),
        why: &'static str,
    ) -> Self {
        Self {
            cache: Arc::clone(cache),
            rule: asked.rule,
            key: asked.key.clone(),
            method: asked.method.clone(),
            headers: asked.headers.clone(),
            entry: entry.filter(|_| !said.no_store),
            lead,
            asked_at: cache.clock.monotonic(),
            most: asked.most,
            keeps: !said.no_store && *asked.method == Method::GET,
            lenient: !said.no_cache && said.max_age.is_none() && said.min_fresh.is_none(),
            why: if said.no_store { "request" } else { why },
            permit: None,
        }
    }

    pub(super) fn behind(self, permit: OwnedSemaphorePermit) -> Self {
        Self { method: Method::GET, headers: without_conditions(self.headers.clone()), permit: Some(permit), ..self }
    }

    /// Whether there is something to ask about.
    pub fn renews(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.etag().is_some() || entry.last_modified().is_some())
    }

    /// Makes a request ask whether what is kept still holds, where something is. The caller's own conditions
    /// give way to those: they are met when the answer is known.
    pub fn ask(&self, request: &mut HeaderMap) {
        let Some(entry) = self.entry.as_ref().filter(|_| self.renews()) else { return };
        let (etag, modified) = (entry.etag(), entry.last_modified());
        for name in [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_RANGE, header::RANGE] {
            request.remove(name);
        }
        for (name, value) in [(header::IF_NONE_MATCH, etag), (header::IF_MODIFIED_SINCE, modified)] {
            match value {
                Some(value) => drop(request.insert(name, value.clone())),
                None => drop(request.remove(name)),
            }
        }
    }

    /// The names that [`Self::ask`] sets or takes out.
    pub const CONDITIONS: [header::HeaderName; 6] = [
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
    ];

    /// What becomes of an answer, told from its head. `framed` says whether its end can be told from a
    /// connection that broke off; an answer without that is not kept.
    pub fn head(&mut self, status: StatusCode, headers: &HeaderMap, framed: bool) -> Next {
        let head = Head { status, headers, asked_at: self.asked_at, came_at: self.cache.now() };
        if status == StatusCode::NOT_MODIFIED
            && let Some(entry) = self.entry.take()
        {
            return Next::Unchanged(Box::new(self.unchanged(entry.renewed(&head, &self.rule))));
        }
        if matches!(status.as_u16(), 500 | 502 | 503 | 504)
            && let Some(answer) = self.stale(&format!("fwd=stale; fwd-status={}", status.as_u16()))
        {
            return Next::Stale(Box::new(answer));
        }
        self.cache.count(&self.key, self.verdict());
        let Some(recording) = self.recording(&head, framed) else {
            self.unkept(status);
            return Next::Pass(self.told(status, ""));
        };
        let told = self.told(status, "; stored");
        Next::Keep(Box::new(recording), told)
    }

    /// What came of the request, where the service's answer passes.
    pub fn verdict(&self) -> &'static str {
        if self.keeps { "miss" } else { "bypass" }
    }

    fn told(&self, status: StatusCode, kept: &str) -> HeaderValue {
        let text = format!("trunkline; fwd={}; fwd-status={}{kept}", self.why, status.as_u16());
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("trunkline"))
    }

    fn unchanged(&mut self, renewed: Stored) -> Answer {
        let now = self.cache.clock.monotonic();
        self.cache.count(&self.key, "revalidated");
        self.cache.save(&self.key, "not_modified");
        let told = format!("trunkline; fwd={}; fwd-status=304; stored", self.why);
        let given = answer(&renewed, (&self.method, &self.headers), now, &told);
        self.cache.store.keep(&self.key, renewed, self.asked_at, self.most);
        self.lead.take().into_iter().for_each(Lead::ends);
        given
    }

    fn recording(&mut self, head: &Head<'_>, framed: bool) -> Option<Recording> {
        if !self.keeps || !framed {
            return None;
        }
        let chosen = Chosen::of(head.headers, &self.headers)?;
        let freshness = Freshness::of(head, &self.rule)?;
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: usize| length > self.rule.max_body) {
            self.cache.metrics.cache_not_kept.with_label_values(&["too_large"]).inc();
            return None;
        }
        let first = length.unwrap_or(FIRST).min(self.rule.max_body);
        let Some(room) = self.cache.store.hold(first, self.most) else {
            self.cache.metrics.cache_not_kept.with_label_values(&["no_room"]).inc();
            return None;
        };
        Some(Recording {
            cache: Arc::clone(&self.cache),
            key: self.key.clone(),
            status: head.status,
            headers: lasting(head.headers),
            chosen,
            freshness,
            body: BytesMut::with_capacity(first),
            room,
            lead: self.lead.take(),
            asked_at: self.asked_at,
            most: self.most,
            max_body: self.rule.max_body,
            _permit: self.permit.take(),
        })
    }

    /// The answer passes without being kept. What it says anew ends what was kept before.
    fn unkept(&mut self, status: StatusCode) {
        let now = self.cache.clock.monotonic();
        let current =
            status.is_success() && status != StatusCode::PARTIAL_CONTENT || matches!(status.as_u16(), 404 | 410);
        if self.keeps && current {
            if self.entry.is_some() {
                self.cache.store.invalidate(&self.key, now);
            }
            self.cache.store.note_unkept(&self.key, now);
        }
        self.lead.take().into_iter().for_each(Lead::ends);
    }

    /// The service could not be asked, or failed: a stale answer, where the file allows it and one is there.
    /// Those who wait for this turn go on.
    pub fn failed(&mut self) -> Option<Answer> {
        let answer = self.stale("fwd=stale; detail=stale-if-error");
        self.lead.take().into_iter().for_each(Lead::ends);
        answer
    }

    fn stale(&mut self, how: &str) -> Option<Answer> {
        let entry = self.entry.as_ref().filter(|_| self.lenient)?;
        let now = self.cache.clock.monotonic();
        let fresh = &entry.freshness;
        if fresh.never_stale || fresh.must_ask || fresh.stale_for(now) >= self.rule.stale_if_error {
            return None;
        }
        self.cache.count(&self.key, "stale");
        let told = format!("trunkline; {how}");
        Some(answer(entry, (&self.method, &self.headers), now, &told))
    }

    /// What becomes of an answer that was read whole: what its caller gets, and what came of the request.
    pub fn settle(mut self, received: Received) -> (Received, &'static str) {
        let (status, mut headers, framed) = (received.status, received.headers, received.framed);
        let passes = self.verdict();
        match self.head(status, &headers, framed) {
            Next::Unchanged(answer) => (of_answer(*answer), "revalidated"),
            Next::Stale(answer) => (of_answer(*answer), "stale"),
            Next::Pass(told) => {
                headers.append(CACHE_STATUS, told);
                (Received { status, headers, body: received.body, framed, led: false }, passes)
            }
            Next::Keep(mut recording, told) => {
                headers.append(CACHE_STATUS, told);
                if recording.push(&received.body) {
                    recording.finish();
                }
                (Received { status, headers, body: received.body, framed, led: false }, passes)
            }
        }
    }
}

/// A kept answer as one that was read whole.
pub fn of_answer(answer: Answer) -> Received {
    let headers = answer.headers.into_iter().collect();
    Received { status: answer.status, headers, body: answer.body, framed: true, led: false }
}

fn without_conditions(mut headers: HeaderMap) -> HeaderMap {
    for name in Turn::CONDITIONS {
        headers.remove(name);
    }
    headers
}

impl Recording {
    /// Keeps a piece of the body; `false` when it is too much, and then the recording is over: whoever has
    /// it drops it.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let length = self.body.len() + piece.len();
        if let Some(lead) = self.lead.as_ref().filter(|_| !piece.is_empty()) {
            lead.has_read(length);
        }
        let reason = if length > self.max_body {
            "too_large"
        } else if length > self.body.capacity() {
            let wanted = length.next_power_of_two().min(self.max_body);
            if self.room.grow(wanted - self.body.capacity(), self.most) {
                self.body.reserve(wanted - self.body.len());
                self.body.extend_from_slice(piece);
                return true;
            }
            "no_room"
        } else {
            self.body.extend_from_slice(piece);
            return true;
        };
        self.cache.metrics.cache_not_kept.with_label_values(&[reason]).inc();
        self.cache.store.note_unkept(&self.key, self.cache.clock.monotonic());
        self.lead.take().into_iter().for_each(Lead::ends);
        false
    }

    /// All of it has come: it is kept.
    pub fn finish(self) {
        let Self { cache, key, status, headers, chosen, freshness, body, room, lead, asked_at, most, .. } = self;
        // A copy of the right size, where room was set aside for more.
        let body = if body.capacity() > body.len() + body.len() / 8 {
            bytes::Bytes::copy_from_slice(&body)
        } else {
            body.freeze()
        };
        drop(room);
        cache.store.keep(&key, Stored { status, headers, body, chosen, freshness }, asked_at, most);
        lead.into_iter().for_each(Lead::ends);
    }
}
