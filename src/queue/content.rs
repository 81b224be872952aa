//! What the expressions of rules and actions see of a stored event.

use std::str;
use std::sync::Arc;

use minijinja::value::Value;

use crate::store::model::{Event, EventHead};
use crate::template::Context;
use crate::template::payload::{self, Wanted};

/// `event`, `body`, `headers`, `query`. The body is read when it is first asked for, as far as `wanted` says;
/// one that cannot be read is missing.
pub fn context(event: &Arc<Event>, wanted: Wanted) -> Context {
    let headers = event.headers.iter().filter_map(|(name, value)| Some((name.as_str(), str::from_utf8(value).ok()?)));
    let with_body = Arc::clone(event);
    Context::new()
        .with("event", head_value(&event.head))
        .with("query", query_map(&event.query))
        .with_headers("headers", headers)
        .with_lazy("body", move || {
            let media = with_body.headers.iter().find(|(name, _)| name == "content-type");
            let media = media.and_then(|(_, value)| str::from_utf8(value).ok());
            payload::read(media, &with_body.body, &wanted).unwrap_or(Value::UNDEFINED)
        })
}

fn head_value(head: &EventHead) -> Value {
    Value::from_pairs([
        ("id", Value::from(head.id.to_string())),
        ("type", Value::from(head.event_type.as_str())),
        ("integration", Value::from(&*head.integration)),
        ("connection", head.connection().map_or(Value::from(()), Value::from)),
        ("delivery_id", head.delivery_id.as_deref().map_or(Value::from(()), Value::from)),
        ("received_at", Value::from(head.received_at.to_string())),
    ])
}

/// A query string as a map; of several with one name the first is seen, as with headers.
pub fn query_map(query: &str) -> Value {
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if seen.iter().all(|(known, _)| *known != name) {
            seen.push((name.into_owned(), value.into_owned()));
        }
    }
    Value::from_pairs(seen)
}
