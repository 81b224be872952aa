//! Events and dead letters: what came in, what became of it, and trying it again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::activity::integrations;
use super::shell::Shell;
use crate::admin::api::query::{Asked, EventQuery, Named};
use crate::admin::api::{deliveries, events, replays};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{DeliveryId, EventId};

type Shared = State<Arc<Parts>>;

/// How many events are looked through to tell what a replay would do.
const REPLAYED: usize = 1_000;

/// The events that fit the filters.
pub async fn list(State(parts): Shared, shell: Shell, Asked(query): Asked<EventQuery>) -> Result<Response, Refused> {
    let page = events::page(&parts, &query).await?;
    let view = json!({ "rows": page.rows, "next": page.next, "partial": page.ended_early, "integrations": integrations(&parts) });
    shell.page("events.html", "Events", view).await
}

/// One event with its content, its deliveries and their attempts.
pub async fn show(State(parts): Shared, shell: Shell, Named(id): Named<EventId>) -> Result<Response, Refused> {
    let event = events::one(&parts, id).await?;
    let title = format!("{} from {}", event.row.r#type, event.row.integration);
    shell.page("event.html", &title, json!({ "event": event })).await
}

/// Runs an event's rules anew.
pub async fn replay(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<EventId>,
) -> Result<Response, Refused> {
    events::again(&parts, &by, id).await?;
    Ok(shell.done(&format!("/events/{id}"), "replayed"))
}

/// The deliveries that were given up.
pub async fn dead(State(parts): Shared, shell: Shell, Asked(query): Asked<EventQuery>) -> Result<Response, Refused> {
    let page = deliveries::dead_rows(&parts, &query.of_the_dead()).await?;
    let view = json!({ "rows": page.rows, "next": page.next, "partial": page.ended_early, "integrations": integrations(&parts) });
    shell.page("dead_letters.html", "Dead letters", view).await
}

/// Tries one delivery again.
pub async fn replay_delivery(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<DeliveryId>,
) -> Result<Response, Refused> {
    deliveries::again(&parts, &by, id).await?;
    Ok(shell.done(&format!("/events/{}", id.event), "replayed"))
}

/// What trying all of them again would do.
pub async fn plan(State(parts): Shared, shell: Shell, Asked(query): Asked<EventQuery>) -> Result<Response, Refused> {
    let query = query.of_the_dead().limited(REPLAYED);
    let page = deliveries::dead_rows(&parts, &query).await?;
    let actions = page.rows.iter().fold(std::collections::BTreeMap::<String, usize>::new(), |mut counts, row| {
        *counts.entry(row.delivery.summary.clone()).or_default() += 1;
        counts
    });
    let most = parts.live.load().gateway.limits.replay_deliveries;
    let view = json!({ "count": page.rows.len(), "more": page.next.is_some(), "most": most, "actions": actions });
    shell.page("replay.html", "Replay dead letters", view).await
}

/// Tries all of them again, and shows how far that is.
pub async fn replay_all(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, Refused> {
    let id = replays::make(&parts, &by, query).await?;
    replays::start(&parts, &by, id).await?;
    Ok(shell.done(&format!("/replays/{id}"), "replay_begun"))
}

/// What was tried again, many at once.
pub async fn replays(State(parts): Shared, shell: Shell) -> Result<Response, Refused> {
    shell.page("replays.html", "Replays", json!({ "rows": replays::rows(&parts) })).await
}

/// How far one of them is.
pub async fn progress(State(parts): Shared, shell: Shell, Named(id): Named<u64>) -> Result<Response, Refused> {
    shell.page("replay_progress.html", "Replay of dead letters", json!({ "replay": replays::one(&parts, id)? })).await
}

/// Stops one of them.
pub async fn cancel(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<u64>,
) -> Result<Response, Refused> {
    replays::stop(&parts, &by, id).await?;
    Ok(shell.done(&format!("/replays/{id}"), "replay_cancelled"))
}
