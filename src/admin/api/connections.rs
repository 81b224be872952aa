//! `/api/connections`: which connections there are; never their credentials or inputs.

use axum::Json;
use axum::extract::State;

use super::Shared;
use crate::admin::refusal::Refused;
use crate::connection::ConnectionHead;

/// Every connection by integration and name: those that files declare, and those the store keeps.
pub async fn list(State(parts): Shared) -> Result<Json<Vec<ConnectionHead>>, Refused> {
    let listed = parts.connections.list(&parts.live.load()).await;
    listed.map(Json).map_err(|error| Refused::new(error.refusal(), &error.to_string()))
}
