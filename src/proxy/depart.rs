//! The last of what a streamed call meets before a byte of it goes out: its turn, and where it is dialled.

use std::time::Duration;

use http::HeaderMap;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::{Context, gone};
use super::{Call, ProxyDoor, Way};
use crate::outbound::policy::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::outbound::{Ask, Held, Lane, Pass};
use crate::respond::{Answer, Refusal};

/// Why a call does not go.
pub enum Stopped {
    /// It is answered so.
    Refused(Answer),
    /// There is nobody to answer: the caller went away while the call waited for its turn.
    Gone,
}

/// Lets the call go, when it is its turn.
///
/// # Errors
/// When it does not.
pub async fn depart(door: &ProxyDoor, session: &Session, context: &mut Context) -> Result<(), Stopped> {
    let began = context.began;
    let Some(call) = context.call.as_deref_mut() else {
        return Err(Stopped::Refused(Refusal::Internal.answer("the call was not admitted")));
    };
    let pass = tokio::select! {
        biased;
        admitted = admit(session, call, began) => admitted,
        () = gone(session) => return Err(Stopped::Gone),
    };
    let pass = match pass {
        Ok(pass) => pass,
        Err(held) => {
            context.course.waited += held.waited();
            return Err(Stopped::Refused(held.answer(&call.ready.integration.id)));
        }
    };
    context.course.waited += pass.waited();
    context.course.attempts += 1;
    let connect_by = door.parts.clock.monotonic().saturating_add(call.ready.timeouts.connect);
    match door.resolve(&call.ready).await {
        Ok(route) => {
            call.way = Some(Way { route, connect_by });
            context.limits = pass.fields();
            context.pass = Some(pass);
            Ok(())
        }
        Err((refused, is_unresolved)) => {
            if is_unresolved {
                pass.unreachable();
            } else {
                pass.unsent();
            }
            Err(Stopped::Refused(refused))
        }
    }
}

/// Waits for the call's turn, at most until the time for all its tries is over.
async fn admit(session: &Session, call: &Call, began: Duration) -> Result<Pass, Held> {
    let common = &call.ready.common;
    let ask = Ask {
        connection: &common.connection.id,
        caller: Some(&call.caller),
        endpoint: call.endpoint.as_ref(),
        method: &session.req_header().method,
        path: call.below(),
        place: &common.place,
        until: Some(began.saturating_add(call.ready.timeouts.total)),
        lane: Lane::Turn,
    };
    common.policy.admit(ask, common.waiting_calls()).await
}

/// Tells the policy how the service answered. Answers how long the service asks to wait.
pub fn answered(context: &mut Context, response: &ResponseHeader) -> Option<Duration> {
    let pass = context.pass.take()?;
    let endpoint = context.call.as_ref().and_then(|call| call.endpoint.as_deref());
    pass.answered((response.status, &response.headers), endpoint)
}

/// Puts how the limits stand on an answer. Where the service has fields of these names, its own pass as they
/// came and ours stay away: both are lists, and a reader could not tell whose is whose.
pub fn tell_limits(context: &mut Context, response: &mut ResponseHeader) -> pingora::Result<()> {
    let Some((policy, left)) = context.limits.take() else { return Ok(()) };
    if tells_limits(&response.headers) {
        return Ok(());
    }
    response.insert_header(RATE_LIMIT_POLICY, policy)?;
    response.insert_header(RATE_LIMIT, left)
}

/// Whether an answer tells of limits already.
pub fn tells_limits(headers: &HeaderMap) -> bool {
    headers.contains_key(RATE_LIMIT) || headers.contains_key(RATE_LIMIT_POLICY)
}
