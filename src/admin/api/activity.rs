//! `/api/activity`: the newest calls to services.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use super::Shared;
use super::query::{Asked, rows};
use crate::activity::CallRecord;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::respond::Refusal;

/// Which.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only this connection's, by its name.
    pub connection: Option<String>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The service answered, and not with an error.
    Success,
    /// It answered with an error, or not at all.
    Error,
}

impl Wanted {
    fn fits(&self, call: &CallRecord) -> bool {
        self.integration.as_ref().is_none_or(|id| **id == *call.integration)
            && self.connection.as_ref().is_none_or(|name| **name == *call.connection)
            && self.outcome.is_none_or(|outcome| (outcome == Outcome::Error) == call.has_failed())
    }
}

/// The newest calls, newest first.
pub async fn list(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Value>, Refused> {
    newest(&parts, &wanted).map(Value::from).map(Json)
}

/// The newest calls that are wanted, newest first.
pub fn newest(parts: &Parts, wanted: &Wanted) -> Result<Vec<Value>, Refused> {
    let calls = parts.activity.newest(rows(wanted.limit)?, |call| wanted.fits(call));
    calls.iter().map(|call| describe(call)).collect::<Result<_, _>>().map_err(|error| {
        tracing::error!("activity could not be shown: {error}");
        Refused::new(Refusal::Internal, "a record could not be shown")
    })
}

/// How many of the calls that are kept are wanted.
pub fn count(parts: &Parts, wanted: &Wanted) -> usize {
    parts.activity.count(|call| wanted.fits(call))
}

fn describe(call: &CallRecord) -> serde_json::Result<Value> {
    let mut shown = serde_json::to_value(call)?;
    if let Some(at) = shown.get_mut("at") {
        *at = Value::from(call.at.to_string());
    }
    Ok(shown)
}
