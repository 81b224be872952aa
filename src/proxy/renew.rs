//! A token that the service refused, renewed once while the call waits.

use pingora::proxy::Session;

use super::context::{Context, Renewed, is_websocket};
use super::underway::watch;
use super::{ProxyDoor, depart};
use crate::connection::refresh::LEASE;

/// Renews the token that the service refused. Answers whether the call may be made once more with the
/// new one: its method allows it, and its body is still held.
pub async fn renew(door: &ProxyDoor, session: &mut Session, context: &mut Context) -> bool {
    let Some(call) = context.call.as_deref().filter(|_| context.renewed == Renewed::No) else { return false };
    // The service has answered; what is waited for now is the token call, which has a limit of its own.
    if let Some(watch) = watch(session) {
        watch.expect_service(door.parts.clock.monotonic(), LEASE);
    }
    let renewed = door.again(call).await;
    context.renewed = Renewed::Done;
    let held = session.is_body_done() && !session.as_ref().retry_buffer_truncated();
    if !held || !session.req_header().method.is_idempotent() || is_websocket(session) {
        return false;
    }
    let Some(mut call) = renewed else { return false };
    if let Some(refused) = context.call.take() {
        call.kept = refused.kept;
    }
    context.call = Some(Box::new(call));
    if depart::depart(door, session, context).await.is_err() {
        // The service's refusal stands; the call that it was an answer to is over.
        return false;
    }
    if let Some(call) = &context.call {
        door.parts.outbound.note_retry(&call.ready.integration, &call.ready.common.connection.id);
    }
    context.tries = 0;
    context.renewed = Renewed::Again;
    true
}
