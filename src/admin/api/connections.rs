//! `/api/connections`: which connections there are; never their credentials or inputs.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use crate::base::id::ConnectionId;
use crate::definition::plan::DeclaredCredential;

/// Every connection that files declare, by integration and name.
pub async fn list(State(parts): Shared) -> Json<Value> {
    let generation = parts.live.load();
    let mut integrations: Vec<_> = generation.integrations.values().collect();
    integrations.sort_by(|a, b| a.id.cmp(&b.id));
    let of = |connection: &crate::definition::plan::DeclaredConnection, integration: &str| {
        let credential = match connection.credential {
            DeclaredCredential::None => "none",
            DeclaredCredential::ApiKey(_) => "api_key",
            DeclaredCredential::Basic { .. } => "basic",
        };
        json!({
            "id": ConnectionId::of(integration, &connection.id),
            "integration": integration,
            "connection": connection.id,
            "source": "file",
            "credential": credential,
        })
    };
    let all = integrations.iter().flat_map(|i| i.connections.iter().map(|c| of(c, &i.id)));
    Json(all.collect())
}
