//! `/api/integrations/{id}/breaker`: whether calls to a service are held back, by its failures, by what it said of its
//! own counts or by hand; and letting them go.

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
use crate::outbound::breaker::Shown;
use crate::outbound::limit::Pause;
use crate::outbound::policy::Policy;
use crate::respond::Refusal;

/// The most pauses that are shown: there is one for each connection that the service counts apart.
const PAUSES: usize = 100;

/// Whether calls of an integration are held back.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Circuits {
    /// Whether a person holds them back.
    pub held: bool,
    /// The circuits that are not closed.
    pub circuits: Vec<Circuit>,
    /// The pauses that the service asked for, and counts of it that have run out.
    pub pauses: Vec<Paused>,
}

/// A count of the service that holds calls back.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Paused {
    /// The special limit that it is of, where it is of one.
    pub limit: Option<Box<str>>,
    /// The connection; absent where all of them share it.
    pub connection: Option<Arc<str>>,
    /// For how long still, in seconds.
    pub seconds: u64,
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
    Ok(described(&*find(parts, id)?))
}

/// Holds all calls of an integration back until they are let go.
#[utoipa::path(post, path = "/api/integrations/{id}/breaker/open", tag = "breakers",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Circuits), (status = 404, description = "not_found")))]
pub async fn open(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Circuits>, Refused> {
    hold(&parts, &by, &id).await.map(Json)
}

/// Closes all circuits of an integration, whatever opened them, and ends the pauses that its service asked for: one call
/// finds out what is left.
#[utoipa::path(post, path = "/api/integrations/{id}/breaker/close", tag = "breakers",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = Circuits), (status = 404, description = "not_found")))]
pub async fn close(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Circuits>, Refused> {
    release(&parts, &by, &id).await.map(Json)
}

/// Holds all calls of an integration back, and says how its circuits are then.
pub async fn hold(parts: &Parts, by: &str, id: &str) -> Result<Circuits, Refused> {
    let policy = find(parts, id)?;
    note(parts, by, "breaker.open", id).await?;
    policy.breakers().hold();
    Ok(described(&policy))
}

/// Lets calls of an integration go again, and says how its circuits are then.
pub async fn release(parts: &Parts, by: &str, id: &str) -> Result<Circuits, Refused> {
    let policy = find(parts, id)?;
    note(parts, by, "breaker.close", id).await?;
    policy.release();
    Ok(described(&policy))
}

/// The audit log has it before it takes effect.
async fn note(parts: &Parts, by: &str, action: &str, id: &str) -> Result<(), Refused> {
    parts.store.append(entry(parts, by, action, format!("integration:{id}"), json!({}))).await?;
    Ok(())
}

fn find(parts: &Parts, id: &str) -> Result<Arc<Policy>, Refused> {
    let generation = parts.live.load();
    let unknown = || Refused::new(Refusal::NotFound, &format!("there is no integration `{id}` with an API"));
    let integration = generation.integration(id).filter(|integration| integration.api.is_some()).ok_or_else(unknown)?;
    Ok(parts.outbound.policy(&generation, integration))
}

fn described(policy: &Policy) -> Circuits {
    let (held, circuits) = policy.breakers().conditions();
    let pause = |pause: Pause| Paused {
        limit: pause.limit,
        connection: Some(pause.connection).filter(|name| !name.is_empty()),
        seconds: u64::try_from(pause.wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX),
    };
    let pauses = policy.pauses().into_iter().take(PAUSES).map(pause).collect();
    let circuit = |shown: Shown| Circuit { place: shown.place, group: shown.group, state: shown.condition.word() };
    Circuits { held, circuits: circuits.into_iter().map(circuit).collect(), pauses }
}
