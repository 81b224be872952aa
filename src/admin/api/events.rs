//! `/api/events`: verified webhooks and what became of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use super::query::{Asked, EventQuery, Named, next_page};
use super::search::{Found, find};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{DeliveryId, EventId, WebhookId};
use crate::base::json;
use crate::respond::Refusal;
use crate::store::model::{Attempt, Delivery, DeliveryState, Event, EventHead, EventState};

/// The header of an answer that says that a search ended at its bound.
const SEARCH: HeaderName = HeaderName::from_static("trunkline-search");

/// What lists show of an event.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EventRow)]
pub struct Row {
    /// Its id.
    pub id: EventId,
    /// The integration it came to.
    pub integration: Arc<str>,
    /// The managed endpoint it came to, where it was one.
    pub webhook: Option<WebhookId>,
    /// The connection whose endpoint it came to, where it was one.
    pub connection: Option<String>,
    /// What kind of event it is.
    pub r#type: String,
    /// The sender's id of it.
    pub delivery_id: Option<String>,
    /// When it arrived.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// Size of its body in bytes.
    pub body_bytes: u64,
    /// Where it stands.
    pub state: EventState,
}

/// An event with its content and what became of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct Whole {
    /// What lists show.
    #[serde(flatten)]
    pub row: Row,
    /// The request's query, without the question mark.
    pub query: String,
    /// The request's headers in order of arrival.
    pub headers: Vec<Header>,
    /// Its body.
    pub body: Body,
    /// What was done for it.
    pub deliveries: Vec<DeliveryShown>,
}

/// A header of an event's request.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EventHeader)]
pub struct Header {
    /// Its name, in lower case.
    pub name: String,
    /// Its value; what is not UTF-8 in it is replaced.
    pub value: String,
}

/// The body of an event.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EventBody)]
pub enum Body {
    /// It is JSON.
    Json(Value),
    /// It is another text.
    Text(String),
    /// It is no text: base 64 (RFC 4648 §4).
    Base64(String),
}

/// A delivery with its attempts.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryShown {
    /// Its id.
    pub id: DeliveryId,
    /// The event it is of.
    pub event: EventId,
    /// The rule that asked for it.
    pub rule: String,
    /// The action's position in the rule's `do` list, from zero.
    pub action: u16,
    /// The action in words.
    pub summary: String,
    /// `ready`, `leased`, `done`, `dead`, or `withdrawn`: given up, and then the event was replayed, whose rules no longer
    /// ask for it.
    pub state: &'static str,
    /// When it is due, or its lease ends.
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// Attempts so far, oldest first; the newest 20 are kept.
    pub attempts: Vec<AttemptShown>,
}

/// An attempt of a delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptShown {
    /// From one, counted since the last replay.
    pub number: u32,
    /// When it began.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The other side's status, where it answered.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

/// An event whose rules are run anew.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventReplayed {
    /// Its id.
    pub replayed: EventId,
}

/// Heads of events, newest first. Filters: `integration`, `connection`, `webhook`, `state`, `type` (with `*`),
/// `delivery_id`, `since`, `until`, `q`; pages: `limit`, `after`. A search that ended at its bound says so in
/// `Trunkline-Search: partial`, and goes on at the next page.
#[utoipa::path(get, path = "/api/events", tag = "events", params(EventQuery), responses((status = 200, body = [Row])))]
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(query): Asked<EventQuery>,
) -> Result<(HeaderMap, Json<Vec<Row>>), Refused> {
    let page = page(&parts, &query).await?;
    Ok((page.headers(&uri), Json(page.rows)))
}

/// A page of a list of events, or of what is listed by event.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where to go on.
    pub next: Option<EventId>,
    /// Whether a search ended before it had looked through all.
    pub ended_early: bool,
}

impl<T> Page<T> {
    /// What the answer says of it beside its rows.
    pub fn headers(&self, uri: &Uri) -> HeaderMap {
        let mut headers = next_page(uri, self.next);
        if self.ended_early {
            headers.insert(SEARCH, HeaderValue::from_static("partial"));
        }
        headers
    }
}

/// Heads of the events that a query means, and where to go on.
pub async fn page(parts: &Parts, query: &EventQuery) -> Result<Page<Row>, Refused> {
    let Found { heads, next, ended_early } = find(parts, query).await?;
    Ok(Page { rows: heads.iter().map(row).collect(), next, ended_early })
}

/// One event with its content and its deliveries.
#[utoipa::path(get, path = "/api/events/{id}", tag = "events",
    params(("id" = EventId, Path, description = "The event")),
    responses((status = 200, body = Whole), (status = 404, description = "not_found")))]
pub async fn show(State(parts): Shared, Named(id): Named<EventId>) -> Result<Json<Whole>, Refused> {
    one(&parts, id).await.map(Json)
}

/// What is shown of one event.
pub async fn one(parts: &Parts, id: EventId) -> Result<Whole, Refused> {
    let event = parts.store.event(id).await?;
    let event = event.ok_or_else(|| Refused::new(Refusal::NotFound, &format!("{id} is not in the store")))?;
    let deliveries = parts.store.deliveries(id).await?;
    Ok(whole(&event, &deliveries))
}

/// The body of an event, byte for byte as it came.
#[utoipa::path(get, path = "/api/events/{id}/body", tag = "events",
    params(("id" = EventId, Path, description = "The event")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, description = "not_found")))]
pub async fn raw(State(parts): Shared, Named(id): Named<EventId>) -> Result<Response, Refused> {
    let event = parts.store.event(id).await?;
    let event = event.ok_or_else(|| Refused::new(Refusal::NotFound, &format!("{id} is not in the store")))?;
    // Whatever it is, no browser shows it.
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.body\"")),
    ];
    Ok((head, event.body.clone()).into_response())
}

/// Runs an event's rules anew.
#[utoipa::path(post, path = "/api/events/{id}/replay", tag = "events",
    params(("id" = EventId, Path, description = "The event")),
    responses((status = 202, body = EventReplayed), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn replay(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<EventId>,
) -> Result<(StatusCode, Json<EventReplayed>), Refused> {
    again(&parts, &by, id).await?;
    Ok((StatusCode::ACCEPTED, Json(EventReplayed { replayed: id })))
}

/// Runs an event's rules anew.
pub async fn again(parts: &Parts, by: &str, id: EventId) -> Result<(), Refused> {
    if parts.store.event(id).await?.is_none() {
        return Err(Refused::new(Refusal::NotFound, &format!("{id} is not in the store")));
    }
    parts.store.append(entry(parts, by, "event.replay", format!("event:{id}"), Value::Null)).await?;
    parts.store.replay_event(id, parts.clock.now()).await?;
    Ok(())
}

fn row(head: &EventHead) -> Row {
    Row {
        id: head.id,
        integration: Arc::clone(&head.integration),
        webhook: head.webhook(),
        connection: head.connection().map(str::to_owned),
        r#type: head.event_type.clone(),
        delivery_id: head.delivery_id.clone(),
        received_at: head.received_at.to_string(),
        body_bytes: head.body_bytes,
        state: head.state,
    }
}

fn whole(event: &Event, deliveries: &[Delivery]) -> Whole {
    let header = |(name, value): &(String, bytes::Bytes)| Header {
        name: name.clone(),
        value: String::from_utf8_lossy(value).into_owned(),
    };
    Whole {
        row: row(&event.head),
        query: event.query.clone(),
        headers: event.headers.iter().map(header).collect(),
        body: body(&event.body),
        deliveries: deliveries.iter().map(delivery).collect(),
    }
}

fn body(bytes: &[u8]) -> Body {
    // Numbers that a reader would round are shown as texts, so that no id is another one.
    let unmarked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let exact = json::exact(unmarked, true);
    match (serde_json::from_slice::<Value>(&exact), std::str::from_utf8(bytes)) {
        (Ok(value), _) => Body::Json(value),
        (Err(_), Ok(text)) => Body::Text(text.to_owned()),
        (Err(_), Err(_)) => Body::Base64(STANDARD.encode(bytes)),
    }
}

/// A delivery with its attempts.
pub fn delivery(delivery: &Delivery) -> DeliveryShown {
    let (state, at) = match delivery.state {
        DeliveryState::Ready { due } => ("ready", Some(due)),
        DeliveryState::Leased { until } => ("leased", Some(until)),
        DeliveryState::Done => ("done", None),
        DeliveryState::Dead => ("dead", None),
        DeliveryState::Withdrawn => ("withdrawn", None),
    };
    let attempt = |attempt: &Attempt| AttemptShown {
        number: attempt.number,
        started_at: attempt.started_at.to_string(),
        duration_ms: attempt.duration_ms,
        status: attempt.status,
        error: attempt.error.clone(),
    };
    DeliveryShown {
        id: delivery.id,
        event: delivery.id.event,
        rule: delivery.rule.clone(),
        action: delivery.action,
        summary: delivery.summary.clone(),
        state,
        at: at.map(|at| at.to_string()),
        attempts: delivery.attempts.iter().map(attempt).collect(),
    }
}
