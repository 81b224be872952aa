//! `/api/integrations/connections`: which connections there are and how they fare; never their credentials
//! or inputs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::{Asked, Named};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::ConnectionId;
use crate::connection::connect::account_of;
use crate::connection::{Connection, ConnectionError, ConnectionHead, Credential, Health, Status, Use};
use crate::outbound;
use crate::respond::Refusal;

/// Every connection by integration and name: those that files declare, and those the store keeps.
pub async fn list(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Vec<Value>>, Refused> {
    rows(&parts, &wanted).await.map(Json)
}

/// Which connections.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only those that fare so.
    pub status: Option<Status>,
    /// Only those with this in their name; case does not count.
    pub q: Option<String>,
}

/// What lists show of connections.
pub async fn rows(parts: &Parts, wanted: &Wanted) -> Result<Vec<Value>, Refused> {
    let word = wanted.q.as_deref().unwrap_or_default().to_lowercase();
    let mut rows = Vec::new();
    for head in parts.connections.list(&parts.live.load()).await.map_err(refused)? {
        let named = wanted.integration.as_ref().is_none_or(|id| *id == head.integration);
        if !named || !head.name.to_lowercase().contains(&word) {
            continue;
        }
        let health = parts.connections.health(&head.integration, &head.name).await;
        if wanted.status.is_none_or(|status| status == health.status()) {
            rows.push(described(&head, &health));
        }
    }
    Ok(rows)
}

/// One connection, with whose account it is and when its tokens end.
pub async fn show(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    one(&parts, id).await.map(Json)
}

/// What is shown of one connection.
pub async fn one(parts: &Parts, id: ConnectionId) -> Result<Value, Refused> {
    let head = find(parts, id).await?;
    let health = parts.connections.health(&head.integration, &head.name).await;
    let mut shown = described(&head, &health);
    if let Some(shown) = shown.as_object_mut() {
        let connection = resolved(parts, &head).await;
        let account = connection.as_ref().and_then(|connection| account_of(&connection.saved).map(str::to_owned));
        shown.insert("account".to_owned(), json!(account));
        shown.insert("tokens".to_owned(), connection.map_or(Value::Null, |connection| tokens(&connection)));
    }
    Ok(shown)
}

/// Refuses calls of a connection until it is resumed.
pub async fn pause(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    set_use(&parts, &by, id, Use::Paused).await.map(Json)
}

/// Lets a connection be used again.
pub async fn resume(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    set_use(&parts, &by, id, Use::Resumed).await.map(Json)
}

/// Renews a connection's default token now, whatever came of it before.
pub async fn refresh(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    renew(&parts, id).await.map(Json)
}

/// Renews a connection's default token now, and shows how the connection fares after it.
pub async fn renew(parts: &Parts, id: ConnectionId) -> Result<Value, Refused> {
    let head = find(parts, id).await?;
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
    Ok(described(&head, &health))
}

/// Makes the integration's test request with a connection, and shows how the connection fares after it.
pub async fn test(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Value>, Refused> {
    try_again(&parts, id).await.map(Json)
}

/// Makes the integration's test request with a connection.
pub async fn try_again(parts: &Parts, id: ConnectionId) -> Result<Value, Refused> {
    let head = find(parts, id).await?;
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration).ok_or_else(|| unknown(id))?;
    let tested = Box::pin(outbound::test(&parts.outbound, &generation, integration, &head.name)).await;
    if let Err(error) = tested {
        return Err(Refused::from(error.answer()));
    }
    let health = parts.connections.health(&head.integration, &head.name).await;
    Ok(described(&head, &health))
}

/// Pauses or resumes a connection.
pub async fn set_use(parts: &Parts, by: &str, id: ConnectionId, wanted: Use) -> Result<Value, Refused> {
    let head = find(parts, id).await?;
    let set = parts.connections.set_use(by, &head.integration, &head.name, wanted).await;
    Ok(described(&head, &set.map_err(refused)?))
}

/// Which connection goes by this id.
///
/// # Errors
/// When there is none.
pub(super) async fn find(parts: &Parts, id: ConnectionId) -> Result<ConnectionHead, Refused> {
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
