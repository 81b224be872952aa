//! A call that the service refused for its token or for the time in its signature, made once more.

use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::{Context, Renewed, is_websocket};
use super::underway::watch;
use super::{Call, ProxyDoor, depart};
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
    if !may_repeat(session) {
        return false;
    }
    let Some(call) = renewed else { return false };
    go_again(door, session, context, call).await
}

/// Signs a call once more where the service's clock is not the one that it was signed by. Answers whether it is
/// made again.
pub async fn sign_again(
    door: &ProxyDoor,
    session: &mut Session,
    context: &mut Context,
    response: &ResponseHeader,
) -> bool {
    let Some(call) = context.call.as_deref() else { return false };
    let answer = (response.status.as_u16(), &response.headers);
    // What an answer says is heard whether the call may be repeated or not.
    let learned = door.parts.outbound.hear_clock(&call.ready.integration, &call.ready.common, answer);
    if !learned || context.renewed != Renewed::No || !may_repeat(session) {
        return false;
    }
    context.renewed = Renewed::Done;
    let Some(call) = door.once_more(call).await else { return false };
    go_again(door, session, context, call).await
}

/// Whether a call may be made twice, and its body is still held.
fn may_repeat(session: &mut Session) -> bool {
    let held = session.is_body_done() && !session.as_ref().retry_buffer_truncated();
    held && session.req_header().method.is_idempotent() && !is_websocket(session)
}

async fn go_again(door: &ProxyDoor, session: &mut Session, context: &mut Context, mut call: Call) -> bool {
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
