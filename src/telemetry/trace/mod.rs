//! Traces: what belongs together, over processes and over time.
//!
//! Off by default, and then it costs an atomic load where something could begin. [`Traces`] begins spans and keeps
//! those that ended until `otlp` takes them; it never waits, and what finds no room is counted. [`within`] says which
//! span the work below it belongs to, so that the client of the gateway's own calls can tell it to the next process.
//! Names and values of spans hold no secrets: no query, no header, no body.

pub mod context;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;

use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
pub use context::{SpanId, TraceContext, TraceId};

/// The most spans that wait to be sent.
const ROOM: usize = 8_192;
/// How many spans are worth a message of their own.
pub const BATCH: usize = 512;

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// Does work that belongs to a span; without one, to none. Box what is large.
pub async fn within<W: Future>(place: Option<TraceContext>, work: W) -> W::Output {
    match place {
        Some(place) => CURRENT.scope(place, work).await,
        None => work.await,
    }
}

/// The span that the present work belongs to.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The place of the present work as an event keeps it, beside the headers that it came with.
pub fn stored() -> Vec<(String, Bytes)> {
    let place = current().map(|place| (context::STORED.to_owned(), Bytes::copy_from_slice(place.header().as_bytes())));
    place.into_iter().collect()
}

/// What a span is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work inside the gateway.
    Internal,
    /// A request that came to the gateway.
    Server,
    /// A request that the gateway made.
    Client,
}

/// A value of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A piece of work with its beginning and, once it is over, its end.
#[derive(Debug, Clone)]
pub struct Span {
    /// Itself, as what is below it is told.
    pub context: TraceContext,
    /// The span that it is below.
    pub parent: Option<SpanId>,
    /// A place in another trace that it is because of.
    pub link: Option<(TraceId, SpanId)>,
    /// What it is to the others.
    pub kind: Kind,
    /// What it is called: few names for many spans.
    pub name: Cow<'static, str>,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What is known of it.
    pub values: Vec<(&'static str, Value)>,
    /// Why it failed, where it did: a code or a few words.
    pub error: Option<String>,
    began: Duration,
}

impl Span {
    /// Notes what is known of it, where it is recorded.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.context.sampled {
            self.values.push((name, value.into()));
        }
    }

    /// Notes what is known of it, where anything is.
    pub fn set_some(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Notes that it failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        if self.context.sampled {
            self.error = Some(why.into());
        }
    }
}

/// How traces are made.
#[derive(Debug)]
struct Making {
    /// A trace whose lowest 63 bits are below this is recorded.
    threshold: u64,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
}

/// Makes spans, and keeps those that ended.
#[derive(Debug, Default)]
pub struct Traces {
    making: OnceLock<Making>,
    ended: Mutex<VecDeque<Span>>,
    many: Notify,
    dropped: AtomicU64,
}

impl Traces {
    /// Begins to record this share of the traces that begin here, of a million. It cannot be ended.
    pub fn record(&self, millionths: u32, random: Arc<dyn Random>, clock: Arc<dyn Clock>) {
        let share = u128::from(millionths.min(1_000_000)) * (1 << 63) / 1_000_000;
        let threshold = u64::try_from(share).unwrap_or(u64::MAX);
        drop(self.making.set(Making { threshold, random, clock }));
    }

    /// Whether spans are made.
    pub fn are_on(&self) -> bool {
        self.making.get().is_some()
    }

    /// A request of someone who showed who they are: below the span that it came with, recorded where that one is; else
    /// a trace of its own.
    pub fn of_caller(&self, headers: &HeaderMap, name: impl FnOnce() -> String) -> Option<Span> {
        let making = self.making.get()?;
        match TraceContext::of(headers) {
            Some(parent) => making.below(&parent, Kind::Server, name().into()),
            None => making.root(Kind::Server, name().into()),
        }
    }

    /// A request of anyone: a trace of its own, so that nobody decides from outside what is recorded, with a link to
    /// the one that it came with.
    pub fn of_anyone(&self, headers: &HeaderMap, name: impl FnOnce() -> String) -> Option<Span> {
        let mut span = self.making.get()?.root(Kind::Server, name().into())?;
        span.link = TraceContext::of(headers).map(|from| (from.trace, from.span));
        Some(span)
    }

    /// Work below a span, or a trace of its own.
    pub fn begin(&self, parent: Option<&TraceContext>, kind: Kind, name: impl FnOnce() -> String) -> Option<Span> {
        let making = self.making.get()?;
        match parent {
            Some(parent) => making.below(parent, kind, name().into()),
            None => making.root(kind, name().into()),
        }
    }

    /// Work below the span that the present work belongs to; `None` where it belongs to none.
    pub fn below_current(&self, kind: Kind, name: impl FnOnce() -> String) -> Option<Span> {
        let making = self.making.get()?;
        making.below(&current()?, kind, name().into())
    }

    /// A span is over.
    pub fn end(&self, span: Option<Span>) {
        let Some((mut span, making)) = span.filter(|span| span.context.sampled).zip(self.making.get()) else { return };
        span.took = making.clock.monotonic().saturating_sub(span.began);
        let mut ended = self.lock();
        if ended.len() >= ROOM {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        ended.push_back(span);
        if ended.len() == BATCH {
            self.many.notify_one();
        }
    }

    /// Waits until there are enough spans for a message of their own.
    pub async fn many(&self) {
        self.many.notified().await;
    }

    /// Takes the oldest spans, at most [`BATCH`].
    pub fn take(&self) -> Vec<Span> {
        let mut ended = self.lock();
        let count = ended.len().min(BATCH);
        ended.drain(..count).collect()
    }

    /// How many spans found no room since this was last asked.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making {
    fn root(&self, kind: Kind, name: Cow<'static, str>) -> Option<Span> {
        let mut trace = [0; 16];
        self.random.fill(&mut trace).ok()?;
        let sampled = u64::from_be_bytes(*trace.last_chunk()?) >> 1 < self.threshold;
        let context = TraceContext { trace: TraceId(trace), span: self.id()?, sampled, state: None };
        (trace != [0; 16]).then(|| self.span(context, None, kind, name))
    }

    fn below(&self, parent: &TraceContext, kind: Kind, name: Cow<'static, str>) -> Option<Span> {
        let context = TraceContext { span: self.id()?, ..parent.clone() };
        Some(self.span(context, Some(parent.span), kind, name))
    }

    fn id(&self) -> Option<SpanId> {
        let mut id = [0; 8];
        self.random.fill(&mut id).ok()?;
        (id != [0; 8]).then_some(SpanId(id))
    }

    fn span(&self, context: TraceContext, parent: Option<SpanId>, kind: Kind, name: Cow<'static, str>) -> Span {
        let (at, began) = (self.clock.now(), self.clock.monotonic());
        let (values, took) = (Vec::new(), Duration::ZERO);
        Span { context, parent, link: None, kind, name, at, took, values, error: None, began }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::base::random::SeededRandom;

    fn traces(millionths: u32) -> Traces {
        let traces = Traces::default();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1)));
        traces.record(millionths, Arc::new(SeededRandom::new(7)), clock);
        traces
    }

    fn name() -> String {
        "work".to_owned()
    }

    fn headers(flags: &str) -> HeaderMap {
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        HeaderMap::from_iter([(context::TRACEPARENT, text.parse().expect("a header"))])
    }

    #[test]
    fn nothing_is_made_before_it_is_asked_for() {
        let traces = Traces::default();
        assert!(traces.of_caller(&headers("01"), || unreachable!("it is off")).is_none() && !traces.are_on());
    }

    #[test]
    fn a_share_of_traces_is_recorded() {
        let recorded = |share| {
            let traces = traces(share);
            let sampled = |_: &i32| traces.begin(None, Kind::Internal, name).is_some_and(|span| span.context.sampled);
            (0..2_000).filter(sampled).count()
        };
        assert_eq!((recorded(0), recorded(1_000_000)), (0, 2_000));
        assert!((850..1_150).contains(&recorded(500_000)), "{}", recorded(500_000));
    }

    #[test]
    fn a_caller_decides_what_is_recorded_and_a_stranger_does_not() {
        let (none, all) = (traces(0), traces(1_000_000));
        let of_caller = |traces: &Traces, flags| traces.of_caller(&headers(flags), name).expect("a span").context;
        assert!(of_caller(&none, "01").sampled && !of_caller(&all, "00").sampled);
        assert_eq!(of_caller(&none, "01").trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let stranger = none.of_anyone(&headers("01"), name).expect("a span");
        assert!(!stranger.context.sampled && stranger.parent.is_none());
        let (trace, span) = stranger.link.expect("a link");
        assert_eq!(span.to_string(), "00f067aa0ba902b7");
        assert_ne!(stranger.context.trace, trace);
    }

    #[test]
    fn what_ended_is_taken_and_what_finds_no_room_is_counted() {
        let traces = traces(1_000_000);
        (0..ROOM + 2).for_each(|_| traces.end(traces.begin(None, Kind::Internal, name)));
        traces.end(None);
        assert_eq!((traces.take().len(), traces.take_dropped(), traces.take_dropped()), (BATCH, 2, 0));
    }

    #[tokio::test]
    async fn work_knows_what_it_belongs_to() {
        let traces = traces(1_000_000);
        let span = traces.begin(None, Kind::Internal, name);
        let place = span.as_ref().map(|span| span.context.clone());
        let below = within(place, async { traces.below_current(Kind::Client, name) }).await.expect("a span");
        assert_eq!(below.parent, span.as_ref().map(|span| span.context.span));
        assert!(traces.below_current(Kind::Client, name).is_none() && current().is_none());
    }
}
