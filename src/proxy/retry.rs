//! Further tries of a call that streams, as `outbound::retry` decides on them.
//!
//! Only what is still held can be sent again: a body that was read to its end and fits Pingora's buffer of 64 KiB.
//! The decision falls before the failed try is let go of; the pause, and the call's next turn under the policy, come
//! where Pingora asks for the next peer. A service that stays silent until its time is over ends the wait for the
//! caller, where that time is kept; for a next try the wait begins anew.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::ProxyDoor;
use super::context::{Context, gone, is_websocket};
use super::depart::{self, Stopped};
use super::underway::watch;
use super::watch::{Overdue, Watch};
use crate::connection::refresh::LEASE;
use crate::outbound::retry::{Between, Fault, Spent, fresh_key, key_header};

/// How often Pingora may dial for one call in all: every address of every try.
pub const DIALS: usize = 64;
/// The name of the error when the next try may not go.
pub const HELD: &str = "held back";

/// Another try that is due.
#[derive(Debug)]
pub struct Again {
    pause: std::time::Duration,
    /// What it takes of the budget of retries; nothing where no policy asks for it.
    spent: Option<Spent>,
}

/// One more try at once, on a connection of its own: the kept one that the call went out on was closed before anything
/// of an answer came. True when there was none before; where another fault follows, it is a fault like any other.
pub fn after_closed(context: &mut Context) -> bool {
    if context.closed {
        return false;
    }
    context.closed = true;
    context.again = Some(Again { pause: std::time::Duration::ZERO, spent: None });
    true
}

/// Whether a call is tried again after this answer, which then goes nowhere.
pub fn after_answer(
    door: &ProxyDoor,
    session: &mut Session,
    context: &mut Context,
    (response, asked): (&ResponseHeader, Option<std::time::Duration>),
) -> bool {
    let status = response.status.as_u16();
    status >= 400 && after(door, session, context, Fault::Status(status, asked))
}

/// Whether a call is tried again after a fault. What the policy let through is told of it by whoever knows more.
pub fn after(door: &ProxyDoor, session: &mut Session, context: &mut Context, fault: Fault) -> bool {
    let Some(call) = context.call.as_deref() else { return false };
    let Some(plan) = call.ready.integration.api.as_ref().and_then(|api| api.retry(call.endpoint.as_deref())) else {
        return false;
    };
    let addresses = call.way.as_ref().map_or(0, |way| way.route.addresses().count());
    if is_websocket(session) || context.dials + addresses >= DIALS {
        return false;
    }
    let held = is_held(session, fault);
    let request = session.req_header();
    let keyed = plan.idempotency_key.as_ref().is_some_and(|name| {
        // A key of ours is on every try that could need it, the first among them.
        context.key.is_some() || has_key(&request.headers, name)
    });
    let repeatable = request.method.is_idempotent() || keyed;
    let ends = context.began.saturating_add(call.ready.timeouts.total);
    let left = ends.saturating_sub(door.parts.clock.monotonic());
    let policy = std::sync::Arc::clone(&call.ready.common.policy);
    let between = Between { plan, tries: context.attempts, repeatable, left };
    if !held {
        // Counted only where the body is what stands in the way.
        if matches!(between.next(fault, &**door.parts.outbound.moment().1), crate::outbound::retry::Next::After(_)) {
            policy.count_retry("body");
        }
        return false;
    }
    let Some((pause, spent)) = policy.again(&between, fault, &**door.parts.outbound.moment().1) else { return false };
    context.again = Some(Again { pause, spent: Some(spent) });
    true
}

/// Whether the service stayed silent until its time was over, and the caller is still there to be answered otherwise.
pub fn met_silence(session: &Session, context: &Context) -> bool {
    let overdue = watch(session).and_then(Watch::overdue);
    overdue == Some(Overdue::Service) && context.service.is_none()
}

/// Whether a call is tried again after the service was silent; the wait for it then begins anew.
pub fn after_silence(door: &ProxyDoor, session: &mut Session, context: &mut Context) -> bool {
    if !after(door, session, context, Fault::Broken) {
        return false;
    }
    if let Some(watch) = watch(session) {
        watch.forgive();
    }
    true
}

/// Whether all of the request can be sent again.
fn is_held(session: &mut Session, fault: Fault) -> bool {
    !session.as_ref().retry_buffer_truncated() && (fault == Fault::Unsent || session.is_body_done())
}

/// Waits for the next try that is due, if one is, and for its turn.
///
/// # Errors
/// When it does not go: with [`HELD`] the answer is in the context, else there is nobody to answer.
pub async fn resume(door: &ProxyDoor, session: &Session, context: &mut Context) -> pingora::Result<()> {
    let Some(Again { pause, spent }) = context.again.take() else { return Ok(()) };
    // What is waited for now is no silence of the service.
    if let Some(watch) = watch(session) {
        watch.expect_service(door.parts.clock.monotonic(), pause.saturating_add(LEASE));
    }
    tokio::select! {
        biased;
        () = tokio::time::sleep(pause) => {}
        () = gone(session) => return left(),
    }
    context.course.waited += pause;
    (context.tries, context.attempts) = (0, context.attempts + u32::from(spent.is_some()));
    if let Some(spent) = spent {
        spent.goes();
    }
    match depart::depart(door, session, context).await {
        Ok(()) => Ok(()),
        Err(Stopped::Gone) => left(),
        Err(Stopped::Refused(answer)) => {
            context.refused = Some(answer);
            Err(Error::explain(ErrorType::Custom(HELD), "the next try may not go"))
        }
    }
}

/// Whether a call has an idempotency key of its caller's: one that says nothing is none.
pub fn has_key(headers: &HeaderMap, name: &HeaderName) -> bool {
    let says = |value: &HeaderValue| value.as_bytes().iter().any(|byte| !matches!(byte, b' ' | b'\t' | b',' | b'"'));
    headers.get_all(name).iter().any(says)
}

/// Gives a call that needs one a key, the same at each try; a caller's own is kept.
pub fn put_key(door: &ProxyDoor, request: &mut RequestHeader, context: &mut Context) -> pingora::Result<()> {
    let call = context.call()?;
    let plan = call.ready.integration.api.as_ref().and_then(|api| api.retry(call.endpoint.as_deref()));
    let method: &Method = &request.method;
    let Some(name) = key_header(plan, method).filter(|name| !has_key(&request.headers, name)).cloned() else {
        return Ok(());
    };
    if context.key.is_none() {
        context.key = fresh_key(&**door.parts.outbound.moment().1).ok();
    }
    match &context.key {
        Some(key) => request.insert_header(name, key.clone()),
        None => Ok(()),
    }
}

/// The caller went away.
pub fn left<T>() -> pingora::Result<T> {
    Err(Error::explain(ErrorType::ConnectionClosed, "the caller went away").into_down())
}
