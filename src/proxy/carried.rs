//! What a call through the door carries, gathered for the activity as it passes.
//!
//! Nothing is copied of a call that ends well unless the settings want that of all; then, and of bodies before it is
//! known how a call ends, it is the beginning alone. Called by `forward`, `carry`, `pages` and `durable`.

use bytes::Bytes;
use http::HeaderMap;
use pingora::http::ResponseHeader;

use super::ProxyDoor;
use super::context::Context;
use crate::activity::content::{Beginning, Content, Message};
use crate::queue::apart;
use crate::respond::{Answer, Refusal};

/// What a call carries.
#[derive(Default)]
pub struct Carried {
    request: Option<Beginning>,
    response: Option<(HeaderMap, Beginning)>,
    /// What is kept of a call that was made whole.
    whole: Option<Box<Content>>,
}

impl Carried {
    /// Another try begins.
    pub fn begin_again(&mut self) {
        *self = Self::default();
    }

    /// A piece of the answer passes.
    pub fn hears(&mut self, piece: &[u8]) {
        if let Some((_, body)) = &mut self.response {
            body.add(piece);
        }
    }
}

/// A piece of a request's body passes.
pub fn sends(door: &ProxyDoor, context: &mut Context, piece: &[u8]) {
    if let Some(guard) = &context.guard {
        guard.passes(piece);
    }
    let most = door.parts.outbound.activity().content_bytes();
    if most > 0 {
        let carried = context.carried.get_or_insert_default();
        carried.request.get_or_insert_with(|| Beginning::new(most)).add(piece);
    }
}

/// The answer that the caller gets begins. What comes after a switch of protocols is no body.
pub fn answered(door: &ProxyDoor, context: &mut Context, response: &ResponseHeader) {
    let activity = door.parts.outbound.activity();
    if activity.wants_content(response.status.as_u16() >= 400) && !response.status.is_informational() {
        let body = Beginning::new(activity.content_bytes());
        context.carried.get_or_insert_default().response = Some((response.headers.clone(), body));
    }
}

/// The caller gets what is kept in the place of an answer that says that it still holds.
pub fn given(door: &ProxyDoor, context: &mut Context, kept: &Answer) {
    let activity = door.parts.outbound.activity();
    if activity.wants_content(kept.status.as_u16() >= 400) {
        let body = Beginning::of(&kept.body, activity.content_bytes());
        context.carried.get_or_insert_default().response = Some((kept.headers.iter().cloned().collect(), body));
    }
}

/// What is kept of a call that was made whole, with what takes its secrets out of texts.
pub fn whole(
    door: &ProxyDoor,
    (from, body): (&HeaderMap, &Bytes),
    answer: Option<&Answer>,
    plain: &dyn Fn(&str) -> String,
) -> Option<Box<Content>> {
    let activity = door.parts.outbound.activity();
    let has_failed = answer.is_none_or(|answer| answer.status.as_u16() >= 400);
    if !activity.keeps_content(has_failed) {
        return None;
    }
    let most = activity.content_bytes();
    // An answer of ours is no service's.
    let response = answer.filter(|answer| Refusal::of(answer).is_none()).map(|answer| {
        let headers = answer.headers.iter().cloned().collect();
        apart(|| Message::of(&headers, &Beginning::of(&answer.body, most), plain))
    });
    Some(Box::new(Content { request: apart(|| Message::of(from, &Beginning::of(body, most), plain)), response }))
}

/// Notes what is kept of a call that was made whole.
pub fn note(context: &mut Context, whole: Option<Box<Content>>) {
    if whole.is_some() {
        context.carried.get_or_insert_default().whole = whole;
    }
}

/// What is kept of a call that has ended; `from` are the headers that its caller sent.
pub fn content(door: &ProxyDoor, from: &HeaderMap, context: &mut Context) -> Option<Box<Content>> {
    let carried = context.carried.take();
    let Some(call) = &context.call else { return carried?.whole };
    let has_failed = context.error.is_some() || context.service.is_some_and(|(_, status)| status >= 400);
    if !door.parts.outbound.activity().keeps_content(has_failed) {
        return None;
    }
    let Carried { request, response, .. } = carried.map(|carried| *carried).unwrap_or_default();
    let plain = |text: &str| call.ready.common.redact(text);
    // What others wrote may take a while to be looked through: nobody waits for it.
    Some(apart(|| {
        let request = Message::of(from, &request.unwrap_or_default(), &plain);
        let response = response.map(|(headers, body)| Message::of(&headers, &body, &plain));
        Box::new(Content { request, response })
    }))
}
