//! Entries of the activity as they are shown, by the names that logs of integrations usually have.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::Outcome;
use crate::activity::Asker;
use crate::activity::content::Message;
use crate::activity::entry::{Direction, Entry, Kind};
use crate::base::id::ActivityId;

/// Something that happened.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ActivityEntry)]
pub struct EntryShown {
    /// Its id, which is also its place among all.
    pub id: ActivityId,
    /// When it began.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// What it is about.
    #[serde(rename = "eventType")]
    pub event_type: Kind,
    /// How it ended.
    pub status: Outcome,
    /// How long it took, in milliseconds.
    pub duration: u64,
    /// What happened, in a line.
    pub summary: String,
    /// What was sent.
    pub request: RequestShown,
    /// What was answered; null when nothing was.
    pub response: Option<ResponseShown>,
    /// What went wrong.
    #[serde(rename = "errorMessage")]
    pub error_message: Option<String>,
    /// What led to that, the nearest first.
    #[serde(rename = "errorStack")]
    pub error_stack: Vec<String>,
    /// Which way it went.
    pub direction: Direction,
    /// The integration.
    pub integration: Arc<str>,
    /// The connection's name; empty for a webhook.
    pub connection: Arc<str>,
    /// The endpoint, where it was one.
    pub endpoint: Option<Arc<str>>,
    /// Who asked for it.
    pub asker: Asker,
    /// The event that it is about.
    pub event: Option<String>,
    /// The gateway's error code, when it did not succeed.
    pub error: Option<Arc<str>>,
    /// How often it was tried; zero for what was answered or refused here.
    pub attempts: u32,
    /// How long it waited for its turns and between tries, in milliseconds.
    pub waited_ms: u64,
    /// What the cache made of it.
    pub cache: Option<Arc<str>>,
    /// The trace that it is part of, where it is of one.
    pub trace: Option<String>,
    /// The generation it belonged to.
    pub generation: u64,
}

/// What was sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ActivityRequest)]
pub struct RequestShown {
    /// The method.
    pub method: String,
    /// Scheme, host and port; empty where nothing was called.
    pub origin: Arc<str>,
    /// The path, without the query.
    pub path: String,
    /// Bytes of the body.
    pub bytes: u64,
    /// Its id at the proxy door, where it came by it.
    pub id: Option<String>,
    /// What was sent, where one entry is asked for and that is kept of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<MessageShown>,
}

/// What was answered.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ActivityResponse)]
pub struct ResponseShown {
    /// The status.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// What was answered, where one entry is asked for and that is kept of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<MessageShown>,
}

/// Headers and the beginning of a body, without what is known or named as a secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ActivityContent)]
pub struct MessageShown {
    /// The headers, in order.
    pub headers: Vec<FieldShown>,
    /// The beginning of the body; null where there is none, or where it is no text.
    pub body: Option<String>,
    /// Whether the body is longer.
    pub cut: bool,
}

/// A header.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ActivityHeader)]
pub struct FieldShown {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl From<&Message> for MessageShown {
    fn from(message: &Message) -> Self {
        let headers = message.headers.iter();
        let headers = headers.map(|(name, value)| FieldShown { name: name.to_string(), value: value.to_string() });
        Self { headers: headers.collect(), body: message.body.as_deref().map(str::to_owned), cut: message.cut }
    }
}

/// An entry as it is shown by itself: with what is kept of what it carried.
pub fn describe_whole(entry: &Entry) -> EntryShown {
    let mut shown = describe(entry);
    if let Some(content) = entry.content.get() {
        shown.request.content = Some((&content.request).into());
        if let Some(response) = &mut shown.response {
            response.content = content.response.as_ref().map(Into::into);
        }
    }
    shown
}

/// An entry as it is shown.
pub fn describe(entry: &Entry) -> EntryShown {
    let message = entry.error_message();
    let stack = match (&message, entry.causes.as_slice()) {
        (Some(message), []) => vec![message.clone()],
        (_, causes) => causes.to_vec(),
    };
    EntryShown {
        id: entry.id,
        timestamp: entry.at.to_string(),
        event_type: entry.kind(),
        status: if entry.has_failed() { Outcome::Error } else { Outcome::Success },
        duration: entry.duration_ms,
        summary: entry.summary(),
        request: RequestShown {
            method: entry.method.to_string(),
            origin: Arc::clone(&entry.origin),
            path: entry.path.clone(),
            bytes: entry.sent_bytes,
            id: entry.request_id.as_deref().map(str::to_owned),
            content: None,
        },
        response: entry.status.map(|status| ResponseShown { status, bytes: entry.received_bytes, content: None }),
        error_message: message,
        error_stack: stack,
        direction: entry.direction(),
        integration: Arc::clone(&entry.integration),
        connection: Arc::clone(&entry.connection),
        endpoint: entry.endpoint.clone(),
        asker: entry.asker.clone(),
        event: entry.event().map(str::to_owned),
        error: entry.error.clone(),
        attempts: entry.attempts,
        waited_ms: entry.waited_ms,
        cache: entry.cache.clone(),
        trace: entry.trace.as_deref().map(str::to_owned),
        generation: entry.generation,
    }
}
