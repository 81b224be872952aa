//! The trace of a call at the door: its own span, and one for each try at the service.
//!
//! Where traces are off, a well-formed `traceparent` of the caller's passes as it came, and a malformed one is dropped
//! with its `tracestate`. Called by [`super::forward`] and [`super::record`].

use http::Method;
use pingora::http::RequestHeader;

use super::ProxyDoor;
use super::context::Context;
use super::record::Ended;
use crate::telemetry::trace::context::{TRACEPARENT, TRACESTATE};
use crate::telemetry::trace::{Kind, Span, TraceContext, TraceId};

/// The spans of a call under way.
pub struct Traced {
    /// From its head to the end of its answer.
    pub whole: Span,
    /// The try under way.
    attempt: Option<Span>,
    tries: u32,
}

impl Traced {
    /// Begins with a request; `None` where traces are off.
    pub fn begin(door: &ProxyDoor, request: &RequestHeader) -> Option<Box<Self>> {
        let whole = door.parts.metrics.traces.of_caller(&request.headers, || request.method.to_string())?;
        Some(Box::new(Self { whole, attempt: None, tries: 0 }))
    }
}

/// A try goes out: it tells the service which span it is.
pub fn ask(door: &ProxyDoor, request: &mut RequestHeader, context: &mut Context) -> pingora::Result<()> {
    let Some(traced) = context.traced.as_deref_mut() else {
        drop_malformed(request);
        return Ok(());
    };
    end(door, traced, Some("no answer"));
    let method = request.method.clone();
    let below = Some(&traced.whole.context);
    let attempt = door.parts.metrics.traces.begin(below, Kind::Client, || method.to_string());
    let Some(mut attempt) = attempt else { return Ok(()) };
    request.insert_header(TRACEPARENT, attempt.context.header())?;
    request.remove_header(&TRACESTATE);
    if let Some(state) = &attempt.context.state {
        request.insert_header(TRACESTATE, state.clone())?;
    }
    if let Some(call) = context.call.as_deref().filter(|_| attempt.context.sampled) {
        let origin = &call.ready.common.base.origin;
        attempt.set("http.request.method", method.as_str());
        attempt.set("server.address", &*origin.host);
        attempt.set("server.port", origin.port);
        attempt.set("trunkline.integration", &*call.ready.integration.id);
    }
    attempt.set_some("http.request.resend_count", Some(traced.tries).filter(|tries| *tries > 0));
    traced.tries += 1;
    traced.attempt = Some(attempt);
    Ok(())
}

fn drop_malformed(request: &mut RequestHeader) {
    if request.headers.contains_key(TRACEPARENT) && TraceContext::of(&request.headers).is_none() {
        request.remove_header(&TRACEPARENT);
        request.remove_header(&TRACESTATE);
    }
}

/// The service answered a try.
pub fn answered(door: &ProxyDoor, context: &mut Context, status: u16) {
    let Some(traced) = context.traced.as_deref_mut() else { return };
    if let Some(attempt) = &mut traced.attempt {
        attempt.set("http.response.status_code", status);
    }
    end(door, traced, (status >= 400).then_some(&*status.to_string()));
}

fn end(door: &ProxyDoor, traced: &mut Traced, error: Option<&str>) {
    let Some(mut attempt) = traced.attempt.take() else { return };
    if let Some(error) = error {
        attempt.set("error.type", error);
        attempt.fail(error);
    }
    door.parts.metrics.traces.end(Some(attempt));
}

/// A request has ended. Answers its trace.
pub fn ended(door: &ProxyDoor, mut traced: Traced, ended: &Ended) -> TraceId {
    end(door, &mut traced, Some(ended.error.unwrap_or("no answer")));
    let mut whole = traced.whole;
    let trace = whole.context.trace;
    if whole.context.sampled {
        describe(&mut whole, ended);
    }
    door.parts.metrics.traces.end(Some(whole));
    trace
}

fn describe(whole: &mut Span, ended: &Ended) {
    name(whole, &ended.method, ended.subject.as_ref().map(|subject| &*subject.integration));
    whole.set("http.request.method", ended.method.as_str());
    whole.set("http.response.status_code", ended.status);
    whole.set_some("trunkline.request_id", ended.id.to_str().ok());
    if let Some(subject) = &ended.subject {
        whole.set("trunkline.integration", &*subject.integration);
        whole.set("trunkline.connection", &*subject.connection);
        whole.set("trunkline.caller", &*subject.caller);
    }
    whole.set_some("url.path", ended.place.as_ref().map(|(_, path)| &**path));
    whole.set("trunkline.attempts", ended.course.attempts);
    whole.set("trunkline.waited_ms", u64::try_from(ended.course.waited.as_millis()).unwrap_or(u64::MAX));
    whole.set_some("trunkline.cache", ended.course.cache);
    if let Some(code) = ended.error {
        whole.set("error.type", code);
        whole.fail(code);
    } else if ended.status >= 500 {
        whole.fail(ended.status.to_string());
    }
}

fn name(whole: &mut Span, method: &Method, integration: Option<&str>) {
    if let Some(integration) = integration {
        whole.name = format!("{method} /{integration}").into();
    }
}
