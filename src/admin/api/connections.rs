//! `/api/integrations/connections`: which connections there are and how they fare; never their credentials
//! or inputs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::Shared;
use super::query::Named;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::base::id::ConnectionId;
use crate::connection::connect::account_of;
use crate::connection::{Connection, ConnectionError, ConnectionHead, Credential, Health, Use};
use crate::outbound;
use crate::respond::Refusal;

/// Every connection by integration and name: those that files declare, and those the store keeps.
pub async fn list(State(parts): Shared) -> Result<Json<Vec<Value>>, Refused> {
    let mut rows = Vec::new();
    for head in parts.connections.list(&parts.live.load()).await.map_err(refused)? {
        let health = parts.connections.health(&head.integration, &head.name).await;
        rows.push(described(&head, &health));
    }
    Ok(Json(rows))
}

/// One connection, with whose account it is and when its tokens end.
pub async fn show(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    let head = find(&parts, id).await?;
    let health = parts.connections.health(&head.integration, &head.name).await;
    let mut shown = described(&head, &health);
    if let Some(shown) = shown.as_object_mut() {
        let connection = resolved(&parts, &head).await;
        let account = connection.as_ref().and_then(|connection| account_of(&connection.saved).map(str::to_owned));
        shown.insert("account".to_owned(), json!(account));
        shown.insert("tokens".to_owned(), connection.map_or(Value::Null, |connection| tokens(&connection)));
    }
    Ok(Json(shown))
}

/// Refuses calls of a connection until it is resumed.
pub async fn pause(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    set_use(&parts, id, Use::Paused).await
}

/// Lets a connection be used again.
pub async fn resume(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    set_use(&parts, id, Use::Resumed).await
}

/// Renews a connection's default token now, whatever came of it before.
pub async fn refresh(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    let head = find(&parts, id).await?;
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration).ok_or_else(|| unknown(id))?;
    let connection = parts.connections.resolve(&generation, integration, &head.name).await.map_err(refused)?;
    if !matches!(connection.credential, Credential::Tokens(_)) {
        let kind = connection.credential.kind();
        let detail = format!("`{}/{}` signs in with {kind}, which is not renewed", head.integration, head.name);
        return Err(Refused::new(Refusal::Conflict, &detail));
    }
    let Some(refresher) = parts.outbound.refresher() else {
        return Err(Refused::new(Refusal::Conflict, "nothing renews tokens in this deployment: it has no master key"));
    };
    refresher.renew_now(integration, &connection, None).await.map_err(refused)?;
    let health = parts.connections.health(&head.integration, &head.name).await;
    Ok(Json(described(&head, &health)))
}

/// Makes the integration's test request with a connection, and shows how the connection fares after it.
pub async fn test(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<(StatusCode, Json<Value>), Refused> {
    let head = find(&parts, id).await?;
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration).ok_or_else(|| unknown(id))?;
    let tested = Box::pin(outbound::test(&parts.outbound, &generation, integration, &head.name)).await;
    if let Err(error) = tested {
        return Err(Refused::from(error.answer()));
    }
    let health = parts.connections.health(&head.integration, &head.name).await;
    Ok((StatusCode::OK, Json(described(&head, &health))))
}

async fn set_use(parts: &Parts, id: ConnectionId, wanted: Use) -> Result<Json<Value>, Refused> {
    let head = find(parts, id).await?;
    let set = parts.connections.set_use("operator", &head.integration, &head.name, wanted).await;
    Ok(Json(described(&head, &set.map_err(refused)?)))
}

async fn find(parts: &Parts, id: ConnectionId) -> Result<ConnectionHead, Refused> {
    let listed = parts.connections.list(&parts.live.load()).await.map_err(refused)?;
    listed.into_iter().find(|head| head.id == id).ok_or_else(|| unknown(id))
}

fn unknown(id: ConnectionId) -> Refused {
    Refused::new(Refusal::ConnectionUnknown, &format!("there is no connection `{id}`"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn refused(error: ConnectionError) -> Refused {
    Refused::new(error.refusal(), &error.to_string())
}

fn described(head: &ConnectionHead, health: &Health) -> Value {
    let time = |at: Option<crate::base::clock::Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": head.id,
        "integration": head.integration,
        "name": head.name,
        "origin": head.origin,
        "status": health.status(),
        "since": time(health.since),
        "last_success": time(health.last_success),
        "last_test": health.last_test.map(|test| json!({ "at": test.at.to_string(), "passed": test.passed })),
        "last_refresh": time(health.last_refresh),
        "next_try": time(health.next_try),
        "last_error": health.last_error.as_ref().map(|trouble| {
            json!({ "at": trouble.at.to_string(), "what": trouble.what, "step": trouble.step })
        }),
    })
}

/// A connection that can be used as it is.
async fn resolved(parts: &Parts, head: &ConnectionHead) -> Option<Arc<Connection>> {
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration)?;
    parts.connections.resolve(&generation, integration, &head.name).await.ok()
}

/// When a connection's tokens were issued and end, by name; nothing of the tokens themselves.
fn tokens(connection: &Connection) -> Value {
    let Credential::Tokens(tokens) = &connection.credential else { return Value::Null };
    let described = tokens.0.iter().map(|(name, issued)| {
        let shown = json!({
            "issued_at": issued.issued_at.to_string(),
            "expires_at": issued.expires_at.map(|end| end.to_string()),
            "renewable": issued.refresh.is_some(),
            "scopes": issued.scopes,
        });
        (name.to_string(), shown)
    });
    Value::Object(described.collect())
}
