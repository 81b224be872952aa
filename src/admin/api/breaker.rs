//! `/api/integrations/{id}/breaker`: whether calls to a service are held back, and holding them back by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::config::entry;
use super::query::Named;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::outbound::breaker::{Breakers, Shown};
use crate::respond::Refusal;

/// The circuits of an integration that are not closed.
pub async fn show(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    conditions(&parts, &id).map(Json)
}

/// Whether calls of an integration are held back, and its circuits that are not closed.
pub fn conditions(parts: &Parts, id: &str) -> Result<Value, Refused> {
    let breakers = find(parts, id)?;
    Ok(described(&breakers))
}

/// Holds all calls of an integration back until they are let go.
pub async fn open(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    hold(&parts, &by, &id).await.map(Json)
}

/// Closes all circuits of an integration, whatever opened them.
pub async fn close(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    release(&parts, &by, &id).await.map(Json)
}

/// Holds all calls of an integration back, and says how its circuits are then.
pub async fn hold(parts: &Parts, by: &str, id: &str) -> Result<Value, Refused> {
    let breakers = find(parts, id)?;
    note(parts, by, "breaker.open", id).await?;
    breakers.hold();
    Ok(described(&breakers))
}

/// Lets calls of an integration go again, and says how its circuits are then.
pub async fn release(parts: &Parts, by: &str, id: &str) -> Result<Value, Refused> {
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

fn described(breakers: &Breakers) -> Value {
    let (held, circuits) = breakers.conditions();
    let circuit =
        |shown: &Shown| json!({ "place": shown.place, "group": shown.group, "state": shown.condition.word() });
    json!({ "held": held, "circuits": circuits.iter().map(circuit).collect::<Vec<_>>() })
}
