//! The `webhook` block, compiled.

use std::time::Duration;

use http::Method;

use super::place::{Fault, Place};
use super::{request, verify};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::base::units::Rate;
use crate::definition::not_yet;
use crate::definition::plan::NotYet;
use crate::definition::plan::request::Request;
use crate::definition::plan::webhook::{Address, Handshake, Reply, ReplyBody, Verify, Webhook, WebhookSecret};
use crate::definition::problem::Code;
use crate::definition::raw::form::{OneOrMany, ShortOr};
use crate::definition::raw::handshake as raw_handshake;
use crate::definition::raw::request::Request as RawRequest;
use crate::definition::raw::scalar::MomentText;
use crate::definition::raw::webhook as raw;

/// How long a delivery id is remembered.
const DEDUPE: Duration = Duration::from_hours(72);
/// The longest a delivery id may be remembered.
pub const DEDUPE_MOST: Duration = Duration::from_hours(30 * 24);
/// The largest body.
const BODY: u64 = 1 << 20;
/// The largest body that a definition may allow.
pub const BODY_MOST: u64 = 25 << 20;
const RATE: Rate = Rate { count: 1000, period: Duration::from_secs(1) };
const RATE_PER_SOURCE: Rate = Rate { count: 100, period: Duration::from_secs(1) };

pub(super) fn compile(webhook: &raw::Webhook, place: &Place<'_>) -> Result<Webhook, Fault> {
    let handshakes = place.at("handshake");
    let shake = |(index, raw): (usize, &_)| handshake(raw, &handshakes.item(index));
    let verify = match not_yet::first_refusal(&place.document().value, place.pointer()) {
        Some(part) => Verify::NotYet(NotYet { part }),
        None => verify::compile(&webhook.verify, &place.at("verify"))?,
    };
    Ok(Webhook {
        verify,
        secrets: secrets(&webhook.secrets.0, &place.at("secrets"))?,
        handshakes: webhook.handshake.iter().enumerate().map(shake).collect::<Result<_, _>>()?,
        event: place.at("event").expression(&webhook.event)?,
        delivery_id: place.optional("delivery_id", webhook.delivery_id.as_ref())?,
        events: webhook.events.clone(),
        dedupe_window: webhook.dedupe_window.map_or(DEDUPE, |time| time.0.min(DEDUPE_MOST)),
        silent_after: webhook.silent_after.map(|time| time.0),
        max_body: webhook.max_body.map_or(BODY, |size| size.0.min(BODY_MOST)),
        rate: webhook.rate.map_or(RATE, |rate| rate.0),
        rate_per_source: webhook.rate_per_source.map_or(RATE_PER_SOURCE, |rate| rate.0),
        address: match webhook.address {
            None | Some(raw::Address::Plain) => Address::Plain,
            Some(raw::Address::Unguessable) => Address::Unguessable,
        },
        register: requests(webhook.register.as_ref(), &place.at("register"))?,
        unregister: requests(webhook.unregister.as_ref(), &place.at("unregister"))?,
    })
}

fn requests(list: Option<&OneOrMany<ShortOr<RawRequest>>>, place: &Place<'_>) -> Result<Vec<Request>, Fault> {
    let Some(list) = list else { return Ok(Vec::new()) };
    super::listed(list, place, |raw, at| request::compile(raw.0.shape(), at))
}

fn secrets(list: &[ShortOr<raw::WebhookSecret>], place: &Place<'_>) -> Result<Vec<WebhookSecret>, Fault> {
    let secret = |(index, raw): (usize, &ShortOr<raw::WebhookSecret>)| {
        let expires = raw.0.expires_at.as_ref().map(|MomentText(text)| {
            let at = place.item(index).at("expires_at");
            Timestamp::parse_rfc3339(text)
                .ok_or_else(|| at.problem(Code::BadFormat, format!("`{text}` is not a moment of the calendar")))
        });
        Ok(WebhookSecret {
            id: raw.0.id.as_ref().map_or_else(|| (index + 1).to_string(), |id| id.0.clone()).into(),
            secret: Secret::new(raw.0.secret.0.expose().clone()),
            expires_at: expires.transpose()?,
        })
    };
    list.iter().enumerate().map(secret).collect()
}

fn handshake(raw: &raw_handshake::Handshake, place: &Place<'_>) -> Result<Handshake, Fault> {
    let method = raw.method.map_or(Method::POST, crate::definition::raw::scalar::Method::to_http);
    Ok(Handshake {
        condition: place.optional("if", raw.condition.as_ref())?,
        verified: raw.verify.unwrap_or(method == Method::POST),
        method,
        reply: reply(&raw.reply.0, &place.at("reply"))?,
    })
}

fn reply(raw: &raw_handshake::Reply, place: &Place<'_>) -> Result<Reply, Fault> {
    let short = place.document().value.pointer(place.pointer()).is_some_and(serde_json::Value::is_string);
    let text_at = if short { place.clone() } else { place.at("text") };
    let body = match (&raw.text, &raw.json) {
        (None, None) => ReplyBody::Empty,
        (Some(text), None) => ReplyBody::Text(text_at.text(text)?),
        (None, Some(json)) => ReplyBody::Json(place.at("json").tree(json)?),
        (Some(_), Some(_)) => return Err(place.problem(Code::Conflict, "a reply has one body: `text` or `json`")),
    };
    Ok(Reply {
        status: raw.status.unwrap_or(200),
        content_type: raw.content_type.clone().unwrap_or_else(|| "text/plain; charset=utf-8".to_owned()),
        headers: place.at("headers").headers(&raw.headers)?,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::{Value, json};

    fn webhook(more: &Value) -> Result<Webhook, Fault> {
        let mut webhook = json!({ "verify": { "token": { "header": "X-T" } }, "event": "body.type" });
        let entries = more.as_object().expect("a map").clone();
        webhook.as_object_mut().expect("a map").extend(entries);
        compiled(json!({ "trunkline": 1, "id": "a", "webhook": webhook }))
            .map(|integration| integration.webhook.expect("has one"))
    }

    #[test]
    fn secrets_are_named_by_their_place_unless_they_have_a_name() {
        let secrets = json!(["first", { "id": "new", "secret": "second", "expires_at": "2030-01-01T00:00:00Z" }]);
        let secrets = webhook(&json!({ "secrets": secrets })).expect("compiles").secrets;
        assert_eq!(secrets.iter().map(|secret| &*secret.id).collect::<Vec<_>>(), ["1", "new"]);
        assert!(secrets[0].expires_at.is_none() && secrets[1].expires_at.is_some());
    }

    #[test]
    fn bounds_have_defaults_and_an_upper_end() {
        let usual = webhook(&json!({})).expect("compiles");
        assert_eq!((usual.max_body, usual.rate.count, usual.rate_per_source.count), (1 << 20, 1000, 100));
        let wide = webhook(&json!({ "max_body": "1GiB", "dedupe_window": "90d" })).expect("compiles");
        assert_eq!((wide.max_body, wide.dedupe_window), (BODY_MOST, DEDUPE_MOST));
    }

    #[test]
    fn a_post_handshake_must_verify_and_a_get_need_not() {
        let handshakes = json!([{ "reply": "{{ body.challenge }}" }, { "method": "GET", "reply": { "json": {} } }]);
        let handshakes = webhook(&json!({ "handshake": handshakes })).expect("compiles").handshakes;
        assert_eq!(handshakes.iter().map(|shake| shake.verified).collect::<Vec<_>>(), [true, false]);
        assert!(matches!(handshakes[0].reply.body, ReplyBody::Text(_)));
    }

    #[test]
    fn a_webhook_with_a_part_to_come_refuses_instead_of_doing_without() {
        let webhook = webhook(&json!({ "sources": ["10.0.0.0/8"] })).expect("compiles");
        assert!(matches!(webhook.verify, Verify::NotYet(part) if part.part == "webhook.sources"));
    }
}
