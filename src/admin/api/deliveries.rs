//! `/api/deliveries`: the dead-letter list, and trying again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::Shared;
use super::config::entry;
use super::events::delivery;
use super::query::{Asked, EventQuery, Named, next_page};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{DeliveryId, EventId};
use crate::queue::matching::NO_RULE;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::store::model::{Delivery, DeliveryState, EventState};

/// Deliveries that were given up, by event, newest first. `state=dead` must be said: other states are
/// those of their events. `limit` counts events.
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(query): Asked<EventQuery>,
) -> Result<impl IntoResponse, Refused> {
    let (rows, next) = dead_rows(&parts, &query).await?;
    Ok((next_page(&uri, next), Json(rows)))
}

/// What lists show of the dead deliveries that a query means, and where to go on.
pub async fn dead_rows(parts: &Parts, query: &EventQuery) -> Result<(Vec<Value>, Option<EventId>), Refused> {
    let (dead, next) = dead(parts, query).await?;
    Ok((dead.iter().map(|(event, row)| with_event(event, delivery(row))).collect(), next))
}

/// Tries one delivery again.
pub async fn replay(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<DeliveryId>,
) -> Result<impl IntoResponse, Refused> {
    again(&parts, &by, id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "replayed": id }))))
}

/// Tries one delivery again.
pub async fn again(parts: &Parts, by: &str, id: DeliveryId) -> Result<(), Refused> {
    let known = parts.store.deliveries(id.event).await?;
    let Some(delivery) = known.iter().find(|delivery| delivery.id == id) else {
        return Err(Refused::new(Refusal::NotFound, &format!("{id} is not in the store")));
    };
    parts.store.append(entry(parts, by, "delivery.replay", format!("delivery:{id}"), Value::Null)).await?;
    Ok(anew(parts, delivery).await?)
}

/// Tries all dead deliveries of the events that a filter selects again; at most `limit` events at once.
pub async fn replay_all(
    State(parts): Shared,
    By(by): By,
    uri: Uri,
    Asked(query): Asked<EventQuery>,
) -> Result<impl IntoResponse, Refused> {
    let (replayed, next) = all_again(&parts, &by, &query).await?;
    Ok((StatusCode::ACCEPTED, next_page(&uri, next), Json(json!({ "replayed": replayed }))))
}

/// Tries a page of dead deliveries again. Returns which were, and where to go on.
pub async fn all_again(
    parts: &Parts,
    by: &str,
    query: &EventQuery,
) -> Result<(Vec<DeliveryId>, Option<EventId>), Refused> {
    let (dead, next) = dead(parts, query).await?;
    let ids: Vec<_> = dead.iter().map(|(_, row)| row.id).collect();
    let detail = json!({ "deliveries": ids });
    parts.store.append(entry(parts, by, "delivery.replay", "deliveries:dead".to_owned(), detail)).await?;
    let mut replayed = Vec::new();
    for (_, delivery) in &dead {
        match anew(parts, delivery).await {
            Ok(()) => replayed.push(delivery.id),
            // Someone else was quicker, or retention was: either way it is not dead any more.
            Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((replayed, next))
}

/// Tries a delivery again. Of one that only tells that the rules could not be matched, they are matched again.
pub(super) async fn anew(parts: &Parts, delivery: &Delivery) -> Result<(), StoreError> {
    let now = parts.clock.now();
    if delivery.rule == NO_RULE {
        return parts.store.replay_event(delivery.id.event, now).await;
    }
    parts.store.replay_delivery(delivery.id, now).await
}

/// A dead delivery, with the integration of its event.
pub(super) type Dead = (Arc<str>, Delivery);

/// The dead deliveries of a page of events, and where to go on.
pub(super) async fn dead(parts: &Parts, query: &EventQuery) -> Result<(Vec<Dead>, Option<EventId>), Refused> {
    if query.state() != Some(EventState::Dead) {
        return Err(Refused::new(Refusal::InvalidInput, "say `state=dead`: other deliveries are listed by event"));
    }
    let page = parts.store.list(&query.filter(parts.clock.now())?, query.page()?).await?;
    let mut found = Vec::new();
    for head in page.rows {
        let deliveries = parts.store.deliveries(head.id).await?;
        let given_up = deliveries.into_iter().filter(|delivery| delivery.state == DeliveryState::Dead);
        found.extend(given_up.map(|delivery| (Arc::clone(&head.integration), delivery)));
    }
    Ok((found, page.next))
}

fn with_event(integration: &Arc<str>, mut row: Value) -> Value {
    if let Some(map) = row.as_object_mut() {
        map.insert("integration".to_owned(), Value::from(&**integration));
    }
    row
}
