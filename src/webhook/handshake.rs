//! Requests that are answered on the spot and not stored: a service's question whether we are there.
//!
//! What a reply echoes is bounded to 1 KiB of printable ASCII and never sniffed, so that a challenge cannot
//! be used to reflect a script. Called by `receive`.

use std::cell::Cell;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use crate::definition::plan::webhook::{Handshake, Reply, ReplyBody, Webhook};
use crate::respond::{Answer, Refusal};
use crate::template::{Context, TemplateError, Text};

/// The most bytes that one echoed value, and that a whole JSON reply, may have.
const LONGEST: usize = 1 << 10;

/// Whether a request with this method may be answered before it has been verified.
pub fn may_be_unverified(webhook: &Webhook, method: &Method) -> bool {
    webhook.handshakes.iter().any(|handshake| !handshake.verified && handshake.method == *method)
}

/// Whether any request with this method is wanted: events come by POST.
pub fn takes(webhook: &Webhook, method: &Method) -> bool {
    *method == Method::POST || webhook.handshakes.iter().any(|handshake| handshake.method == *method)
}

/// The handshake that a request is, if it is one of those that are answered `verified` or not.
pub fn find<'a>(webhook: &'a Webhook, method: &Method, context: &Context, verified: bool) -> Option<&'a Handshake> {
    let meant = |handshake: &&Handshake| {
        handshake.verified == verified && handshake.method == *method && holds(handshake, context)
    };
    webhook.handshakes.iter().find(meant)
}

fn holds(handshake: &Handshake, context: &Context) -> bool {
    // A condition that cannot be decided, as with a body of another shape, does not hold.
    handshake.condition.as_ref().is_none_or(|condition| condition.holds(context).unwrap_or(false))
}

/// The answer to a handshake.
pub fn answer(reply: &Reply, context: &Context) -> Answer {
    match render(reply, context) {
        Ok(answer) => answer,
        Err(Unfit::Value) => {
            Refusal::InvalidInput.answer("a value that would be echoed is not at most 1 KiB of printable ASCII")
        }
        Err(Unfit::Template(error)) => {
            Refusal::InvalidInput.answer(&format!("the handshake's reply cannot be made: {error}"))
        }
    }
}

enum Unfit {
    Value,
    Template(TemplateError),
}

impl From<TemplateError> for Unfit {
    fn from(error: TemplateError) -> Self {
        Self::Template(error)
    }
}

fn render(reply: &Reply, context: &Context) -> Result<Answer, Unfit> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let (body, content_type) = match &reply.body {
        ReplyBody::Empty => (Bytes::new(), None),
        ReplyBody::Text(text) => {
            (Bytes::from(text_of(text, &reply.content_type, context)?), Some(reply.content_type.as_str()))
        }
        ReplyBody::Json(tree) => {
            let json = tree.render(context)?.to_string();
            // Control characters are escaped in JSON, so what is left to refuse is what is not ASCII.
            (Bytes::from(printable(json, "application/json")?), Some("application/json"))
        }
    };
    let mut answer = Answer { body, ..Answer::empty(status) };
    if let Some(value) = content_type.and_then(|text| HeaderValue::from_str(text).ok()) {
        answer = answer.with(header::CONTENT_TYPE, value);
    }
    for (name, text) in &reply.headers {
        let value = printable(text_of(text, "text/plain", context)?, "text/plain")?;
        answer = answer.with(name.clone(), HeaderValue::from_str(&value).map_err(|_| Unfit::Value)?);
    }
    Ok(answer
        .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
        .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

fn text_of(text: &Text, content_type: &str, context: &Context) -> Result<String, Unfit> {
    let fit = Cell::new(true);
    let rendered = text.render_encoded(context, |value, out| {
        fit.set(fit.get() && is_printable(value, content_type));
        out.push_str(value);
    })?;
    if fit.get() { Ok(rendered) } else { Err(Unfit::Value) }
}

fn printable(text: String, content_type: &str) -> Result<String, Unfit> {
    if is_printable(&text, content_type) { Ok(text) } else { Err(Unfit::Value) }
}

/// Texts that nobody renders may have every printable character; in any other type an echoed value may
/// not open a tag, an attribute or an entity.
fn is_printable(text: &str, content_type: &str) -> bool {
    let inert = content_type.starts_with("text/plain") || content_type.starts_with("application/json");
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') && (inert || !b"<>&\"'`".contains(&byte));
    text.len() <= LONGEST && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(content_type: &str, value: &str) -> (u16, String) {
        let reply = Reply {
            status: 200,
            content_type: content_type.to_owned(),
            headers: Vec::new(),
            body: ReplyBody::Text(Text::compile("{{ query.challenge }}").expect("compiles")),
        };
        let query = serde_json::json!({ "challenge": value });
        let answer = answer(&reply, &Context::new().with_json("query", &query));
        let sniffed = answer.headers.iter().any(|(name, _)| name == header::X_CONTENT_TYPE_OPTIONS);
        assert!(sniffed || !answer.status.is_success());
        (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
    }

    #[test]
    fn a_challenge_comes_back_as_it_was() {
        assert_eq!(echo("text/plain", "1158201444"), (200, "1158201444".to_owned()));
        assert_eq!(echo("text/plain", "Request-Id: 1 <b>&").0, 200);
    }

    #[test]
    fn a_script_is_never_reflected() {
        assert_eq!(echo("text/html", "<script>").0, 400);
        for value in ["a\r\nSet-Cookie: x", "\u{0}", "\u{e9}", &"x".repeat(1_025)] {
            assert_eq!(echo("text/plain", value).0, 400, "{value:?}");
        }
    }
}
