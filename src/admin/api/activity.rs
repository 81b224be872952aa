//! `/api/activity`: the newest calls to services.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::Shared;
use super::query::{Asked, rows};
use crate::activity::CallRecord;
use crate::admin::refusal::Refused;
use crate::respond::Refusal;

/// Which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    integration: Option<String>,
    limit: Option<usize>,
}

/// The newest calls, newest first.
pub async fn list(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Value>, Refused> {
    let fits = |call: &CallRecord| wanted.integration.as_ref().is_none_or(|id| **id == *call.integration);
    let calls = parts.activity.newest(rows(wanted.limit)?, fits);
    calls.iter().map(|call| describe(call)).collect::<Result<_, _>>().map(Json).map_err(|error| {
        tracing::error!("activity could not be shown: {error}");
        Refused::new(Refusal::Internal, "a record could not be shown")
    })
}

fn describe(call: &CallRecord) -> serde_json::Result<Value> {
    let mut shown = serde_json::to_value(call)?;
    if let Some(at) = shown.get_mut("at") {
        *at = Value::from(call.at.to_string());
    }
    Ok(shown)
}
