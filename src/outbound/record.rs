//! What is told of a call: metrics and activity.

use std::sync::Arc;
use std::time::Duration;

use super::Parts;
use super::call::Underway;
use super::error::{OutboundError, Why};
use crate::activity::CallRecord;
use crate::base::clock::Timestamp;
use crate::net::Outgoing;
use crate::request::Outcome;

/// What is known of a call before it is sent.
pub(super) struct Started {
    at: Timestamp,
    monotonic: Duration,
    method: http::Method,
    origin: Arc<str>,
    path: String,
    bytes: usize,
}

impl Started {
    pub fn of(parts: &Parts, outgoing: &Outgoing) -> Self {
        Self {
            at: parts.clock.now(),
            monotonic: parts.clock.monotonic(),
            method: outgoing.method.clone(),
            origin: Arc::from(outgoing.origin.to_string()),
            path: outgoing.path.clone(),
            bytes: outgoing.body.len(),
        }
    }
}

/// Counts a call that has ended and remembers it.
pub(super) fn ended(parts: &Parts, underway: &Underway<'_>, started: Started, result: &Result<Outcome, OutboundError>) {
    let took = parts.clock.monotonic().saturating_sub(started.monotonic);
    let status = match result {
        Ok(outcome) => Some(outcome.status.as_u16()),
        Err(error) => error.status(),
    };
    count(parts, &underway.call.integration.id, status, took, result);
    parts.activity.record(CallRecord {
        at: started.at,
        generation: underway.call.generation.number,
        integration: underway.call.integration.id.clone(),
        connection: underway.prepared.connection.id.clone(),
        asker: underway.call.asker.clone(),
        endpoint: underway.call.endpoint.clone(),
        method: started.method,
        origin: started.origin,
        path: started.path,
        status,
        error: result.as_ref().err().map(|error| error.refusal().code()),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        sent_bytes: started.bytes as u64,
        received_bytes: result.as_ref().map_or(0, |outcome| outcome.body.len() as u64),
    });
}

fn count(
    parts: &Parts,
    integration: &str,
    status: Option<u16>,
    took: Duration,
    result: &Result<Outcome, OutboundError>,
) {
    let metrics = &parts.metrics;
    let code = status.map_or_else(|| "error".to_owned(), |status| status.to_string());
    metrics.upstream_requests.with_label_values(&[integration, &code]).inc();
    if status.is_some() {
        metrics.upstream_request_duration.with_label_values(&[integration]).observe(took.as_secs_f64());
    }
    if let Err(OutboundError::Tried(tried)) = result
        && let Why::Failure(failure) = &tried.reason
    {
        metrics.upstream_errors.with_label_values(&[integration, failure.reason.word()]).inc();
    }
}
