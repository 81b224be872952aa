//! Events as people see them: lists and details, for the command line and the API.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::store::model::{Attempt, Delivery, DeliveryState, Event, EventFilter, EventHead, EventState, PageRequest};
use crate::store::{Events, StoreError};

/// A page of events.
#[derive(Debug, Clone, Serialize)]
pub struct EventPage {
    /// The events, newest first.
    pub events: Vec<EventRow>,
    /// What to ask for as `after` to see the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<EventId>,
}

/// An event in a list.
#[derive(Debug, Clone, Serialize)]
pub struct EventRow {
    /// Its id.
    pub id: EventId,
    /// The integration it came to.
    pub integration: Arc<str>,
    /// Its type.
    pub r#type: String,
    /// The sender's id of this delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
    /// When it arrived, by RFC 3339.
    pub received_at: String,
    /// Size of its body in bytes.
    pub body_bytes: u64,
    /// Where it stands.
    pub state: EventState,
}

/// An event with all there is to know of it.
#[derive(Debug, Clone, Serialize)]
pub struct EventDetail {
    /// What lists show.
    #[serde(flatten)]
    pub row: EventRow,
    /// The query string it came with.
    pub query: String,
    /// Its headers without credentials.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Body,
    /// What its rules asked for.
    pub deliveries: Vec<DeliveryRow>,
}

/// A body in a form that JSON can carry.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// It is text.
    Text(String),
    /// It is not: in base 64.
    Base64(String),
}

/// A delivery of an event.
#[derive(Debug, Clone, Serialize)]
pub struct DeliveryRow {
    /// Its id.
    pub id: DeliveryId,
    /// The rule that asked for it.
    pub rule: String,
    /// The action in words.
    pub action: String,
    /// Where it stands: `ready`, `leased`, `done`, `dead`.
    pub state: &'static str,
    /// When it is tried next, by RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// A try at a delivery.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRow {
    /// From one, counted since the last replay.
    pub number: u32,
    /// When it began, by RFC 3339.
    pub started_at: String,
    /// How long it took.
    pub duration_ms: u64,
    /// The other side's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A page of events that a filter leaves, newest first.
///
/// # Errors
/// When the store cannot be read.
pub async fn list(events: &dyn Events, filter: &EventFilter, page: PageRequest) -> Result<EventPage, StoreError> {
    let page = events.list(filter, page).await?;
    Ok(EventPage { events: page.rows.into_iter().map(row).collect(), next: page.next })
}

/// An event in full.
///
/// # Errors
/// [`StoreError::NotFound`] for one that is not there or no longer.
pub async fn show(events: &dyn Events, id: EventId) -> Result<EventDetail, StoreError> {
    let event = events.event(id).await?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
    let deliveries = events.deliveries(id).await?;
    let Event { head, query, headers, body } = event;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let body = match String::from_utf8(body.to_vec()) {
        Ok(text) => Body::Text(text),
        Err(not_text) => Body::Base64(STANDARD.encode(not_text.as_bytes())),
    };
    Ok(EventDetail {
        row: row(head),
        query,
        headers: headers.into_iter().map(|(name, value)| (name, text(&value))).collect(),
        body,
        deliveries: deliveries.into_iter().map(delivery).collect(),
    })
}

fn row(head: EventHead) -> EventRow {
    EventRow {
        id: head.id,
        integration: head.integration,
        r#type: head.event_type,
        delivery_id: head.delivery_id,
        received_at: head.received_at.to_string(),
        body_bytes: head.body_bytes,
        state: head.state,
    }
}

fn delivery(delivery: Delivery) -> DeliveryRow {
    let (state, due) = match delivery.state {
        DeliveryState::Ready { due } => ("ready", Some(due)),
        DeliveryState::Leased { .. } => ("leased", None),
        DeliveryState::Done => ("done", None),
        DeliveryState::Dead => ("dead", None),
    };
    DeliveryRow {
        id: delivery.id,
        rule: delivery.rule,
        action: delivery.summary,
        state,
        due: due.as_ref().map(Timestamp::to_string),
        attempts: delivery.attempts.into_iter().map(attempt).collect(),
    }
}

fn attempt(attempt: Attempt) -> AttemptRow {
    AttemptRow {
        number: attempt.number,
        started_at: attempt.started_at.to_string(),
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error,
    }
}
