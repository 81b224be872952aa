//! `/api/webhooks/refused`: what could not be verified lately, to find a wrong secret or clock.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::Shared;
use super::query::{Asked, rows};
use crate::admin::refusal::Refused;
use crate::respond::Refusal;
use crate::webhook::refused;

/// Which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    integration: Option<String>,
    limit: Option<usize>,
}

/// The latest refusals, newest first.
pub async fn refused(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Value>, Refused> {
    let limit = rows(wanted.limit)?;
    let latest = parts.refused.latest(wanted.integration.as_deref());
    latest.iter().take(limit).map(describe).collect::<Result<_, _>>().map(Json).map_err(|error| {
        tracing::error!("refused webhooks could not be shown: {error}");
        Refused::new(Refusal::Internal, "a record could not be shown")
    })
}

fn describe(refused: &refused::Refused) -> serde_json::Result<Value> {
    let mut shown = serde_json::to_value(refused)?;
    if let Some(at) = shown.get_mut("at") {
        *at = Value::from(refused.at.to_string());
    }
    Ok(shown)
}
