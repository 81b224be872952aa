//! What is told of a call: metrics of each try, and one entry of the activity for all of them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::Parts;
use super::call::Call;
use super::error::OutboundError;
use super::prepare::Prepared;
use crate::activity::content::{Beginning, Content, Message};
use crate::activity::{Asker, CallRecord, Course, Told};
use crate::base::clock::Timestamp;
use crate::connection::Connection;
use crate::net::{Failure, Outgoing, Received, heard, is_unsent};
use crate::request::Outcome;
use crate::respond::Refusal;
use crate::telemetry::trace::{Kind, Span};

/// A call from its beginning to its end, its further tries among it.
pub(super) struct Journey {
    at: Timestamp,
    began: Duration,
    place: Option<Place>,
    carried: Option<Carried>,
    /// Bytes that were read of the body that its last try was answered with.
    heard: u64,
    /// How it goes.
    pub course: Course,
}

/// What its last try carried.
struct Carried {
    prepared: Arc<Prepared>,
    request: (HeaderMap, Beginning),
    response: Option<(HeaderMap, Beginning)>,
}

/// Where it leads: origin and path, and how many bytes go there.
struct Place {
    origin: Arc<str>,
    path: String,
    bytes: usize,
}

impl Journey {
    /// One that begins now.
    pub fn begin(parts: &Parts) -> Self {
        Self {
            at: parts.clock.now(),
            began: parts.clock.monotonic(),
            place: None,
            carried: None,
            heard: 0,
            course: Course::default(),
        }
    }

    /// It is known where it leads.
    pub fn leads(&mut self, outgoing: &Outgoing) {
        let (origin, bytes) = (Arc::from(outgoing.origin.to_string()), outgoing.body.len());
        self.place = Some(Place { origin, path: outgoing.path.clone(), bytes });
    }

    /// What another try carries, where that may be kept: not of calls that set webhooks up, which carry a new secret.
    pub fn carries(&mut self, parts: &Parts, asker: &Asker, (prepared, outgoing): (&Arc<Prepared>, &Outgoing)) {
        let most = parts.activity.content_bytes();
        if most > 0 && matches!(asker, Asker::Caller(_) | Asker::Delivery(_) | Asker::Test) {
            let request = (outgoing.headers.clone(), Beginning::of(&outgoing.body, most));
            self.carried = Some(Carried { prepared: Arc::clone(prepared), request, response: None });
        }
    }

    /// What that try was answered.
    pub fn hears(&mut self, parts: &Parts, answer: &Received) {
        self.heard = answer.body.len() as u64;
        if let Some(carried) = &mut self.carried {
            let body = Beginning::of(&answer.body, parts.activity.content_bytes());
            carried.response = Some((answer.headers.clone(), body));
        }
    }

    /// What is kept of it.
    fn content(&mut self, parts: &Parts, has_failed: bool) -> Option<Box<Content>> {
        let Carried { prepared, request, response } = self.carried.take()?;
        let kept = parts.activity.keeps_content(has_failed);
        let message = |(headers, body)| Message::of(&headers, &body, &|text| prepared.redact(text));
        kept.then(|| Box::new(Content { request: message(request), response: response.map(message) }))
    }

    /// A try that was sent, or was to be, has come to this.
    pub fn comes_to(&mut self, sent: &Result<Received, Failure>) {
        self.heard = heard(sent);
        self.course.unsent += u32::from(is_unsent(sent));
    }

    /// Another try goes, after it waited for its turn.
    pub fn tries(&mut self, waited: Duration) {
        self.course.attempts += 1;
        self.waits(waited);
    }

    /// It waited.
    pub fn waits(&mut self, time: Duration) {
        self.course.waited = self.course.waited.saturating_add(time);
    }

    /// A try did not go.
    pub fn held(&mut self, instead: &Result<Outcome, OutboundError>) {
        match instead {
            Ok(_) => self.course.cache = Some("stale"),
            Err(OutboundError::Held { reason, .. }) => self.waits(reason.waited()),
            Err(_) => {}
        }
    }
}

/// The span of a call with all its tries, below what asks for it.
pub(super) fn span(parts: &Parts, call: &Call<'_>) -> Option<Span> {
    let name = || match &call.endpoint {
        Some(endpoint) => format!("call {}.{endpoint}", call.integration.id),
        None => format!("call {}", call.integration.id),
    };
    parts.metrics.traces.below_current(Kind::Internal, name)
}

/// Notes in its span how a call went.
pub(super) fn describe(
    span: Option<&mut Span>,
    call: &Call<'_>,
    course: Course,
    result: &Result<Outcome, OutboundError>,
) {
    let Some(span) = span else { return };
    span.set("trunkline.integration", &*call.integration.id);
    span.set("trunkline.connection", call.connection);
    span.set("trunkline.attempts", course.attempts);
    span.set("trunkline.waited_ms", u64::try_from(course.waited.as_millis()).unwrap_or(u64::MAX));
    span.set_some("trunkline.cache", course.cache);
    if let Err(error) = result {
        let code = error.refusal().code();
        span.set("error.type", code);
        span.fail(code);
    }
}

/// Remembers a call that has ended.
pub(super) fn ended(parts: &Parts, call: &Call<'_>, mut journey: Journey, result: &Result<Outcome, OutboundError>) {
    let took = parts.clock.monotonic().saturating_sub(journey.began);
    let content = journey.content(parts, result.is_err());
    let place = journey.place.unwrap_or_else(|| Place { origin: Arc::from(""), path: String::new(), bytes: 0 });
    let status = match result {
        Ok(outcome) => Some(outcome.status.as_u16()),
        Err(error) => error.status(),
    };
    parts.activity.record(CallRecord {
        at: journey.at,
        generation: call.generation.number,
        integration: call.integration.id.clone(),
        connection: Arc::from(call.connection),
        asker: call.asker.clone(),
        endpoint: call.endpoint.clone(),
        method: call.request.method.clone(),
        origin: place.origin,
        path: place.path,
        status,
        error: result.as_ref().err().map(|error| error.refusal().code()),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        sent_bytes: journey.course.sent_of(place.bytes as u64),
        // What was answered was received, also where it is an error.
        received_bytes: result.as_ref().map_or(journey.heard, |outcome| outcome.body.len() as u64),
        course: journey.course,
        told: Told { content, ..result.as_ref().err().map(|error| Told::of_error(error)).unwrap_or_default().traced() },
    });
}

/// Remembers a call that brought a kept answer up to date.
pub(super) fn refreshed(
    parts: &Parts,
    (connection, generation): (&Connection, u64),
    (method, endpoint): (Method, Option<Arc<str>>),
    journey: Journey,
    sent: &Result<Received, Refusal>,
) {
    let took = parts.clock.monotonic().saturating_sub(journey.began);
    let place = journey.place.unwrap_or_else(|| Place { origin: Arc::from(""), path: String::new(), bytes: 0 });
    parts.activity.record(CallRecord {
        at: journey.at,
        generation,
        integration: Arc::clone(&connection.integration),
        connection: Arc::clone(&connection.id),
        asker: Asker::Cache,
        endpoint,
        method,
        origin: place.origin,
        path: place.path,
        status: sent.as_ref().ok().map(|received| received.status.as_u16()),
        error: sent.as_ref().err().map(|refusal| refusal.code()),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        sent_bytes: journey.course.sent_of(place.bytes as u64),
        received_bytes: journey.heard,
        course: journey.course,
        told: Told::default(),
    });
}

/// Counts a try that was sent.
pub(super) fn tried(parts: &Parts, integration: &str, (began, sent): (Duration, &Result<Received, Failure>)) {
    let (metrics, id) = (&parts.metrics, integration);
    let took = parts.clock.monotonic().saturating_sub(began);
    match sent {
        Ok(received) => {
            metrics.upstream_requests.with_label_values(&[id, received.status.as_str()]).inc();
            metrics.upstream_request_duration.with_label_values(&[id]).observe(took.as_secs_f64());
        }
        Err(failure) => {
            metrics.upstream_requests.with_label_values(&[id, "error"]).inc();
            metrics.upstream_errors.with_label_values(&[id, failure.reason.word()]).inc();
        }
    }
}
