//! What is written down of a request when it has ended: metrics, activity and a line in the log.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};

use super::traced::{self, Traced};
use super::{ProxyDoor, Subject};
use crate::activity::content::Content;
use crate::activity::{Asker, CallRecord, Course, Told};
use crate::base::clock::Timestamp;

/// What metrics call a request that is for no known integration.
const OTHER: &str = "other";
/// Characters of a path that are kept.
const PATH: usize = 256;

/// A request that has ended.
pub struct Ended {
    /// When it began.
    pub at: Timestamp,
    /// Its id.
    pub id: HeaderValue,
    /// Whose call it was, where that was found out.
    pub subject: Option<Subject>,
    /// Where it went, where this door called: origin and path.
    pub place: Option<(Arc<str>, String)>,
    /// The method.
    pub method: Method,
    /// The status the caller got; zero when none.
    pub status: u16,
    /// Our error code, where the answer was ours.
    pub error: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
    /// How long the service took to its answer's head, where there was one, and the answer's status.
    pub service: Option<(Duration, u16)>,
    /// How long it took until it was sent; zero where it was not.
    pub sent: Duration,
    /// How it went.
    pub course: Course,
    /// Bytes of both bodies.
    pub bytes: (u64, u64),
    /// Its trace, where traces are on.
    pub traced: Option<Box<Traced>>,
    /// What it carried, where that is kept.
    pub content: Option<Box<Content>>,
}

/// Writes a request down.
pub fn record(door: &ProxyDoor, mut ended: Ended) {
    let trace = ended.traced.take().map(|traced| traced::ended(door, *traced, &ended));
    let integration = ended.subject.as_ref().map_or(OTHER, |subject| &*subject.integration);
    count(door, integration, &ended);
    tracing::debug!(
        integration,
        request.id = ended.id.to_str().unwrap_or_default(),
        http.status = ended.status,
        error = ended.error,
        trace_id = trace.map(tracing::field::display),
        took_ms = u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
        "{} {integration}: {}",
        ended.method,
        ended.status
    );
    // Endpoints by name are recorded where they are run.
    let Some((subject, (origin, mut path))) = ended.subject.zip(ended.place) else { return };
    // Checked paths are ASCII.
    path.truncate(PATH);
    // The status of what is kept is what the service answered once.
    let kept = (ended.course.cache.is_some() && ended.error.is_none()).then_some(ended.status);
    door.parts.outbound.activity().record(CallRecord {
        at: ended.at,
        generation: subject.generation,
        integration: subject.integration,
        connection: subject.connection,
        asker: Asker::Caller(subject.caller),
        endpoint: None,
        method: ended.method,
        origin,
        path,
        status: ended.service.map(|(_, status)| status).or(kept),
        error: ended.error,
        duration_ms: u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX),
        sent_bytes: ended.bytes.0,
        received_bytes: ended.bytes.1,
        course: ended.course,
        told: Told {
            request_id: ended.id.to_str().ok().map(Box::from),
            causes: Vec::new(),
            trace,
            content: ended.content,
        },
    });
}

/// Writes a call down for which no request was made at the door: a try of a durable call, a refresh of a kept answer.
pub fn apart(door: &ProxyDoor, call: CallRecord) {
    if let Some(status) = call.status {
        of_service(door, &call.integration, (Duration::from_millis(call.duration_ms), status));
    }
    door.parts.outbound.activity().record(call);
}

fn of_service(door: &ProxyDoor, integration: &str, (took, status): (Duration, u16)) {
    let metrics = &door.parts.metrics;
    metrics.upstream_requests.with_label_values(&[integration, Code::new(status).as_str()]).inc();
    metrics.upstream_request_duration.with_label_values(&[integration]).observe(took.as_secs_f64());
}

fn count(door: &ProxyDoor, integration: &str, ended: &Ended) {
    let metrics = &door.parts.metrics;
    let code = Code::new(ended.status);
    metrics.http_requests.with_label_values(&["proxy", integration, code.as_str()]).inc();
    let took = ended.took.as_secs_f64();
    metrics.http_request_duration.with_label_values(&["proxy", integration]).observe(took);
    if let Some(error) = ended.error {
        metrics.http_refusals.with_label_values(&["proxy", error]).inc();
    }
    if ended.course.attempts == 1 && !ended.sent.is_zero() {
        let added = ended.sent.saturating_sub(ended.course.waited).as_secs_f64();
        metrics.added.with_label_values(&[integration]).observe(added);
    }
    if let Some(service) = ended.service {
        of_service(door, integration, service);
    }
}

/// A status as a label, without allocating.
struct Code(http::StatusCode);

impl Code {
    fn new(status: u16) -> Option<Self> {
        http::StatusCode::from_u16(status).ok().map(Self)
    }
}

trait Label {
    fn as_str(&self) -> &str;
}

impl Label for Option<Code> {
    fn as_str(&self) -> &str {
        self.as_ref().map_or("none", |code| code.0.as_str())
    }
}
