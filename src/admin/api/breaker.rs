//! `/api/integrations/{id}/breaker`: whether calls to a service are held back, and holding them back by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use super::query::Named;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::outbound::breaker::{Breakers, Shown};
use crate::respond::Refusal;

/// Whether calls of an integration are held back.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Circuits {
    /// Whether a person holds them back.
    pub held: bool,
    /// The circuits that are not closed.
    pub circuits: Vec<Circuit>,
}

/// A circuit that is not closed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Circuit {
    /// The place that is called: scheme, host and port.
    pub place: Arc<str>,
    /// The group of calls, where the definition names it.
    pub group: Option<Arc<str>>,
    /// `open` (no call goes) or `half_open` (a few go, to see).
    pub state: &'static str,
}

/// The circuits of an integration that are not closed.
#[utoipa::path(get, path = "/api/integrations/{id}/breaker", tag = "breakers",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Circuits), (status = 404, description = "not_found")))]
pub async fn show(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Circuits>, Refused> {
    conditions(&parts, &id).map(Json)
}

/// Whether calls of an integration are held back, and its circuits that are not closed.
pub fn conditions(parts: &Parts, id: &str) -> Result<Circuits, Refused> {
    let breakers = find(parts, id)?;
    Ok(described(&breakers))
}

/// Holds all calls of an integration back until they are let go.
#[utoipa::path(post, path = "/api/integrations/{id}/breaker/open", tag = "breakers",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Circuits), (status = 404, description = "not_found")))]
pub async fn open(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Circuits>, Refused> {
    hold(&parts, &by, &id).await.map(Json)
}

/// Closes all circuits of an integration, whatever opened them.
#[utoipa::path(post, path = "/api/integrations/{id}/breaker/close", tag = "breakers",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Circuits), (status = 404, description = "not_found")))]
pub async fn close(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Circuits>, Refused> {
    release(&parts, &by, &id).await.map(Json)
}

/// Holds all calls of an integration back, and says how its circuits are then.
pub async fn hold(parts: &Parts, by: &str, id: &str) -> Result<Circuits, Refused> {
    let breakers = find(parts, id)?;
    note(parts, by, "breaker.open", id).await?;
    breakers.hold();
    Ok(described(&breakers))
}

/// Lets calls of an integration go again, and says how its circuits are then.
pub async fn release(parts: &Parts, by: &str, id: &str) -> Result<Circuits, Refused> {
    let breakers = find(parts, id)?;
    note(parts, by, "breaker.close", id).await?;
    breakers.release();
    Ok(described(&breakers))
}

/// The audit log has it before it takes effect.
async fn note(parts: &Parts, by: &str, action: &str, id: &str) -> Result<(), Refused> {
    parts.store.append(entry(parts, by, action, format!("integration:{id}"), json!({}))).await?;
    Ok(())
}

fn find(parts: &Parts, id: &str) -> Result<Arc<Breakers>, Refused> {
    let generation = parts.live.load();
    let unknown = || Refused::new(Refusal::NotFound, &format!("there is no integration `{id}` with an API"));
    let integration = generation.integration(id).filter(|integration| integration.api.is_some()).ok_or_else(unknown)?;
    Ok(Arc::clone(parts.outbound.policy(&generation, integration).breakers()))
}

fn described(breakers: &Breakers) -> Circuits {
    let (held, circuits) = breakers.conditions();
    let circuit = |shown: Shown| Circuit { place: shown.place, group: shown.group, state: shown.condition.word() };
    Circuits { held, circuits: circuits.into_iter().map(circuit).collect() }
}
