//! What the expressions of rules and actions see of a stored event.

use std::str;
use std::sync::{Arc, OnceLock};

use minijinja::value::Value;

use crate::store::model::{Event, EventHead};
use crate::template::payload::{self, Numbers, PayloadError, Wanted};
use crate::template::{Context, TemplateError};

/// What templates see of an event, and why its body could not be read where one of them asked for it.
#[derive(Debug)]
pub struct Seen {
    /// `event`, `body`, `headers`, `query`.
    pub context: Context,
    unread: Arc<OnceLock<PayloadError>>,
}

impl Seen {
    /// An event as these names ask for it.
    pub fn of<S: AsRef<str>>(event: &Arc<Event>, names: impl IntoIterator<Item = S>) -> Self {
        Self::reading(event, names, Numbers::Values)
    }

    /// The same with numbers read so.
    pub fn reading<S: AsRef<str>>(event: &Arc<Event>, names: impl IntoIterator<Item = S>, numbers: Numbers) -> Self {
        let unread = Arc::default();
        let wanted = Wanted::of(names).get("body").cloned().unwrap_or_default().reading(numbers);
        Self { context: noting(event, wanted, Arc::clone(&unread)), unread }
    }

    /// Why the body could not be read, where it was asked for and could not.
    pub fn unread(&self) -> Option<&PayloadError> {
        self.unread.get()
    }

    /// An error of a template in words: where what it says is missing could not be read, that is why.
    pub fn explain(&self, error: &TemplateError) -> String {
        match self.unread.get() {
            Some(unread) => format!("{error} ({unread})"),
            None => error.to_string(),
        }
    }
}

/// `event`, `body`, `headers`, `query`. The body is read when it is first asked for, as far as `wanted` says; one that
/// cannot be read is missing, and `unread` says why.
fn noting(event: &Arc<Event>, wanted: Wanted, unread: Arc<OnceLock<PayloadError>>) -> Context {
    let headers = event.headers.iter().filter_map(|(name, value)| Some((name.as_str(), str::from_utf8(value).ok()?)));
    let with_body = Arc::clone(event);
    Context::new()
        .with("event", head_value(&event.head))
        .with("query", query_map(&event.query))
        .with_headers("headers", headers)
        .with_lazy("body", move || {
            let media = with_body.headers.iter().find(|(name, _)| name == "content-type");
            let media = media.and_then(|(_, value)| str::from_utf8(value).ok());
            payload::read(media, &with_body.body, &wanted).unwrap_or_else(|error| {
                unread.get_or_init(|| error);
                Value::UNDEFINED
            })
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
