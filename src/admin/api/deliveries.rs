//! `/api/deliveries`: the dead-letter list, and trying again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use super::events::{DeliveryShown, Page, delivery};
use super::query::{Asked, EventQuery, Named};
use super::search::{Found, find};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::DeliveryId;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::store::model::{Delivery, DeliveryState, EventState, NO_RULE};

/// A delivery that was given up.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeadDelivery {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: DeliveryShown,
    /// The integration whose event it is of.
    pub integration: Arc<str>,
}

/// A delivery that is tried again.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeliveryReplayed {
    /// Its id.
    pub replayed: DeliveryId,
}

/// Deliveries that are tried again.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeliveriesReplayed {
    /// Their ids.
    pub replayed: Vec<DeliveryId>,
}

/// Deliveries that were given up, by event, newest first. `state=dead` must be said: other states are
/// those of their events. `limit` counts events.
#[utoipa::path(get, path = "/api/deliveries", tag = "deliveries", params(EventQuery),
    responses((status = 200, body = [DeadDelivery])))]
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(query): Asked<EventQuery>,
) -> Result<(HeaderMap, Json<Vec<DeadDelivery>>), Refused> {
    let page = dead_rows(&parts, &query).await?;
    Ok((page.headers(&uri), Json(page.rows)))
}

/// What lists show of the dead deliveries that a query means, and where to go on.
pub async fn dead_rows(parts: &Parts, query: &EventQuery) -> Result<Page<DeadDelivery>, Refused> {
    let Page { rows, next, ended_early } = dead(parts, query).await?;
    let shown = |(integration, row): Dead| DeadDelivery { delivery: delivery(&row), integration };
    Ok(Page { rows: rows.into_iter().map(shown).collect(), next, ended_early })
}

/// Tries one delivery again.
#[utoipa::path(post, path = "/api/deliveries/{id}/replay", tag = "deliveries",
    params(("id" = DeliveryId, Path, description = "The delivery")),
    responses((status = 202, body = DeliveryReplayed), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn replay(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<DeliveryId>,
) -> Result<(StatusCode, Json<DeliveryReplayed>), Refused> {
    again(&parts, &by, id).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryReplayed { replayed: id })))
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
#[utoipa::path(post, path = "/api/deliveries/replay", tag = "deliveries", params(EventQuery),
    responses((status = 202, body = DeliveriesReplayed), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn replay_all(
    State(parts): Shared,
    By(by): By,
    uri: Uri,
    Asked(query): Asked<EventQuery>,
) -> Result<(StatusCode, HeaderMap, Json<DeliveriesReplayed>), Refused> {
    let page = all_again(&parts, &by, &query).await?;
    Ok((StatusCode::ACCEPTED, page.headers(&uri), Json(DeliveriesReplayed { replayed: page.rows })))
}

/// Tries a page of dead deliveries again. Returns which were, and where to go on.
pub async fn all_again(parts: &Parts, by: &str, query: &EventQuery) -> Result<Page<DeliveryId>, Refused> {
    let dead = dead(parts, query).await?;
    let ids: Vec<_> = dead.rows.iter().map(|(_, row)| row.id).collect();
    let detail = json!({ "deliveries": ids });
    parts.store.append(entry(parts, by, "delivery.replay", "deliveries:dead".to_owned(), detail)).await?;
    let mut replayed = Vec::new();
    for (_, delivery) in &dead.rows {
        match anew(parts, delivery).await {
            Ok(()) => replayed.push(delivery.id),
            // Someone else was quicker, or retention was: either way it is not dead any more.
            Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Page { rows: replayed, next: dead.next, ended_early: dead.ended_early })
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
pub(super) async fn dead(parts: &Parts, query: &EventQuery) -> Result<Page<Dead>, Refused> {
    if query.state() != Some(EventState::Dead) {
        return Err(Refused::new(Refusal::InvalidInput, "say `state=dead`: other deliveries are listed by event"));
    }
    let Found { heads, next, ended_early } = find(parts, query).await?;
    let mut rows = Vec::new();
    for head in heads {
        let deliveries = parts.store.deliveries(head.id).await?;
        let given_up = deliveries.into_iter().filter(|delivery| delivery.state == DeliveryState::Dead);
        rows.extend(given_up.map(|delivery| (Arc::clone(&head.integration), delivery)));
    }
    Ok(Page { rows, next, ended_early })
}
