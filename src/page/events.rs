//! Events and dead letters: what came in, what became of it, and trying it again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::activity::integrations;
use super::render;
use super::shell::Shell;
use crate::admin::api::query::{Asked, EventQuery, Named};
use crate::admin::api::{deliveries, events, replays};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{DeliveryId, EventId};

type Shared = State<Arc<Parts>>;

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
    let view = json!({ "rows": page.rows, "next": page.next, "partial": page.ended_early, "all": parts.store.depth().dead,
        "integrations": integrations(&parts) });
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

/// Plans to try all of them again, and shows what that would do. What is run is what is shown there.
pub async fn plan(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, Refused> {
    let id = replays::make(&parts, &by, query).await?;
    Ok(render::see_other(&shell.address(&format!("/replays/{id}"))))
}

/// Runs a plan, and shows how far it is.
pub async fn run(State(parts): Shared, By(by): By, shell: Shell, Named(id): Named<u64>) -> Result<Response, Refused> {
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
