//! `/api/integrations/{id}/breaker`: whether calls to a service are held back, and holding them back by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use super::query::Named;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::outbound::breaker::{Breakers, Shown};
use crate::respond::Refusal;
use crate::store::model::AuditEntry;

/// The circuits of an integration that are not closed.
pub async fn show(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    let breakers = find(&parts, &id)?;
    Ok(Json(described(&breakers)))
}

/// Holds all calls of an integration back until they are let go.
pub async fn open(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    let breakers = find(&parts, &id)?;
    note(&parts, "breaker.open", &id).await?;
    breakers.hold();
    Ok(Json(described(&breakers)))
}

/// Closes all circuits of an integration, whatever opened them.
pub async fn close(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    let breakers = find(&parts, &id)?;
    note(&parts, "breaker.close", &id).await?;
    breakers.release();
    Ok(Json(described(&breakers)))
}

/// The audit log has it before it takes effect.
async fn note(parts: &Parts, action: &str, id: &str) -> Result<(), Refused> {
    let entry = AuditEntry {
        at: parts.clock.now(),
        actor: "operator".to_owned(),
        action: action.to_owned(),
        target: format!("integration:{id}"),
        detail: json!({}),
    };
    parts.store.append(entry).await?;
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
