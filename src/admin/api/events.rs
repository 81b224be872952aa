//! `/api/events`: verified webhooks and what became of them.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::Shared;
use super::config::entry;
use super::query::{Asked, EventQuery, Named, next_page};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::EventId;
use crate::respond::Refusal;
use crate::store::model::{Delivery, DeliveryState, Event, EventHead};

/// Heads of events, newest first. Filters: `integration`, `state`, `type` (with `*`), `delivery_id`,
/// `since`, `until`; pages: `limit`, `after`.
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(query): Asked<EventQuery>,
) -> Result<impl IntoResponse, Refused> {
    let (rows, next) = page(&parts, &query).await?;
    Ok((next_page(&uri, next), Json(rows)))
}

/// Heads of the events that a query means, and where to go on.
pub async fn page(parts: &Parts, query: &EventQuery) -> Result<(Vec<Value>, Option<EventId>), Refused> {
    let page = parts.store.list(&query.filter(parts.clock.now())?, query.page()?).await?;
    Ok((page.rows.iter().map(head).collect(), page.next))
}

/// One event with its content and its deliveries.
pub async fn show(State(parts): Shared, Named(id): Named<EventId>) -> Result<Json<Value>, Refused> {
    one(&parts, id).await.map(Json)
}

/// What is shown of one event.
pub async fn one(parts: &Parts, id: EventId) -> Result<Value, Refused> {
    let event = parts.store.event(id).await?;
    let event = event.ok_or_else(|| Refused::new(Refusal::NotFound, &format!("{id} is not in the store")))?;
    let deliveries = parts.store.deliveries(id).await?;
    Ok(whole(&event, &deliveries))
}

/// Runs an event's rules anew.
pub async fn replay(State(parts): Shared, By(by): By, Named(id): Named<EventId>) -> Result<impl IntoResponse, Refused> {
    again(&parts, &by, id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "replayed": id }))))
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

fn head(head: &EventHead) -> Value {
    json!({
        "id": head.id,
        "integration": head.integration,
        "webhook": head.webhook(),
        "connection": head.connection(),
        "type": head.event_type,
        "delivery_id": head.delivery_id,
        "received_at": head.received_at.to_string(),
        "body_bytes": head.body_bytes,
        "state": head.state,
    })
}

fn whole(event: &Event, deliveries: &[Delivery]) -> Value {
    let mut shown = head(&event.head);
    let Some(map) = shown.as_object_mut() else { return shown };
    let headers: Vec<_> = event
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": String::from_utf8_lossy(value) }))
        .collect();
    map.insert("query".to_owned(), Value::from(event.query.as_str()));
    map.insert("headers".to_owned(), Value::from(headers));
    insert_body(map, &event.body);
    map.insert("deliveries".to_owned(), deliveries.iter().map(delivery).collect());
    shown
}

/// A JSON body as JSON, another text as text, anything else in base 64.
fn insert_body(map: &mut Map<String, Value>, body: &[u8]) {
    let (name, value) = match (serde_json::from_slice::<Value>(body), std::str::from_utf8(body)) {
        (Ok(value), _) => ("json", value),
        (Err(_), Ok(text)) => ("text", Value::from(text)),
        (Err(_), Err(_)) => ("base64", Value::from(STANDARD.encode(body))),
    };
    map.insert("body".to_owned(), json!({ name: value }));
}

/// A delivery with its attempts.
pub fn delivery(delivery: &Delivery) -> Value {
    let (state, at) = match delivery.state {
        DeliveryState::Ready { due } => ("ready", Some(due)),
        DeliveryState::Leased { until } => ("leased", Some(until)),
        DeliveryState::Done => ("done", None),
        DeliveryState::Dead => ("dead", None),
    };
    let attempts: Vec<_> = delivery
        .attempts
        .iter()
        .map(|attempt| {
            json!({
                "number": attempt.number,
                "started_at": attempt.started_at.to_string(),
                "duration_ms": attempt.duration_ms,
                "status": attempt.status,
                "error": attempt.error,
            })
        })
        .collect();
    json!({
        "id": delivery.id,
        "event": delivery.id.event,
        "rule": delivery.rule,
        "action": delivery.action,
        "summary": delivery.summary,
        "state": state,
        "at": at.map(|at| at.to_string()),
        "attempts": attempts,
    })
}
