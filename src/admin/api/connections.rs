//! `/api/integrations/connections`: which connections there are and how they fare; never their credentials
//! or inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::document::CallsOut;
use super::query::{Asked, Named};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::ConnectionId;
use crate::connection::connect::account_of;
use crate::connection::{Connection, ConnectionError, ConnectionHead, Credential, Health, Origin, Status, Use};
use crate::outbound;
use crate::respond::Refusal;

/// A connection, and how it fares.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ConnectionRow)]
pub struct Row {
    /// Its id.
    pub id: ConnectionId,
    /// The integration.
    pub integration: String,
    /// Its name within the integration.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// How it fares.
    pub status: Status,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// When a call by it last succeeded.
    #[schema(format = DateTime)]
    pub last_success: Option<String>,
    /// Its last test.
    pub last_test: Option<LastTest>,
    /// When its token was last renewed.
    #[schema(format = DateTime)]
    pub last_refresh: Option<String>,
    /// When renewing is tried again.
    #[schema(format = DateTime)]
    pub next_try: Option<String>,
    /// What last went wrong.
    pub last_error: Option<Trouble>,
}

/// A test of a connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LastTest {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Whether it worked.
    pub passed: bool,
}

/// What went wrong with a connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Trouble {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// What.
    pub what: String,
    /// What to do.
    pub step: String,
}

/// A connection with whose account it is, and when its tokens end.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Connection)]
pub struct Detail {
    /// What lists show.
    #[serde(flatten)]
    pub row: Row,
    /// What the service calls the account, where it tells.
    pub account: Option<String>,
    /// Its tokens by name; null where it signs in otherwise, or cannot be used.
    pub tokens: Option<BTreeMap<String, TokenShown>>,
}

/// A token; nothing of the token itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenShown {
    /// When it was issued.
    #[schema(format = DateTime)]
    pub issued_at: String,
    /// When it ends; null where that is not told.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The scopes that were granted, where the service tells them.
    pub scopes: Option<Vec<String>>,
}

/// Every connection by integration and name: those that files declare, and those the store keeps.
#[utoipa::path(get, path = "/api/integrations/connections", tag = "connections", params(Wanted),
    responses((status = 200, body = [Row]), (status = 503, description = "connection_unusable")))]
pub async fn list(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Vec<Row>>, Refused> {
    rows(&parts, &wanted).await.map(Json)
}

/// Another name of `/api/integrations/connections`.
#[utoipa::path(get, path = "/api/connections", tag = "connections", params(Wanted),
    responses((status = 200, body = [Row]), (status = 503, description = "connection_unusable")))]
pub async fn all(state: Shared, wanted: Asked<Wanted>) -> Result<Json<Vec<Row>>, Refused> {
    list(state, wanted).await
}

/// Which connections.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
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
pub async fn rows(parts: &Parts, wanted: &Wanted) -> Result<Vec<Row>, Refused> {
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
#[utoipa::path(get, path = "/api/integrations/connections/{id}", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Detail), (status = 404, description = "connection_unknown"),
        (status = 503, description = "connection_unusable")))]
pub async fn show(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Detail>, Refused> {
    one(&parts, id).await.map(Json)
}

/// What is shown of one connection.
pub async fn one(parts: &Parts, id: ConnectionId) -> Result<Detail, Refused> {
    let head = find(parts, id).await?;
    let health = parts.connections.health(&head.integration, &head.name).await;
    let connection = resolved(parts, &head).await;
    let account = connection.as_ref().and_then(|connection| account_of(&connection.saved).map(str::to_owned));
    let tokens = connection.and_then(|connection| tokens(&connection));
    Ok(Detail { row: described(&head, &health), account, tokens })
}

/// Refuses calls of a connection until it is resumed.
#[utoipa::path(post, path = "/api/integrations/connections/{id}/pause", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Row), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"), (status = 503, description = "connection_unusable")))]
pub async fn pause(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Row>, Refused> {
    set_use(&parts, &by, id, Use::Paused).await.map(Json)
}

/// Lets a connection be used again.
#[utoipa::path(post, path = "/api/integrations/connections/{id}/resume", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Row), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"), (status = 503, description = "connection_unusable")))]
pub async fn resume(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Row>, Refused> {
    set_use(&parts, &by, id, Use::Resumed).await.map(Json)
}

/// Renews a connection's default token now, whatever came of it before.
#[utoipa::path(post, path = "/api/integrations/connections/{id}/refresh", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Row), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"),
        (status = 503, description = "connection_unusable connection_needs_reconnect")))]
pub async fn refresh(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Row>, Refused> {
    renew(&parts, id).await.map(Json)
}

/// Renews a connection's default token now, and shows how the connection fares after it.
pub async fn renew(parts: &Parts, id: ConnectionId) -> Result<Row, Refused> {
    let head = find(parts, id).await?;
    refuse_paused(parts, &head).await?;
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
#[utoipa::path(post, path = "/api/integrations/connections/{id}/test", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Row), CallsOut))]
pub async fn test(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Row>, Refused> {
    try_again(&parts, id).await.map(Json)
}

/// Makes the integration's test request with a connection.
pub async fn try_again(parts: &Parts, id: ConnectionId) -> Result<Row, Refused> {
    let head = find(parts, id).await?;
    refuse_paused(parts, &head).await?;
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration).ok_or_else(|| unknown(id))?;
    let tested = Box::pin(outbound::test(&parts.outbound, &generation, integration, &head.name)).await;
    if let Err(error) = tested {
        return Err(Refused::from(error.answer()));
    }
    let health = parts.connections.health(&head.integration, &head.name).await;
    Ok(described(&head, &health))
}

/// Who asks for something of a connection that is out of use has to resume it first; nothing is wrong with the service.
async fn refuse_paused(parts: &Parts, head: &ConnectionHead) -> Result<(), Refused> {
    if parts.connections.health(&head.integration, &head.name).await.status() != Status::Paused {
        return Ok(());
    }
    let detail = format!("`{}/{}` is paused", head.integration, head.name);
    Err(Refused::with_help(Refusal::Conflict, &detail, "resume it first"))
}

/// Pauses or resumes a connection.
pub async fn set_use(parts: &Parts, by: &str, id: ConnectionId, wanted: Use) -> Result<Row, Refused> {
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

fn described(head: &ConnectionHead, health: &Health) -> Row {
    let time = |at: Option<crate::base::clock::Timestamp>| at.map(|at| at.to_string());
    Row {
        id: head.id,
        integration: head.integration.clone(),
        name: head.name.clone(),
        origin: head.origin,
        status: health.status(),
        since: time(health.since),
        last_success: time(health.last_success),
        last_test: health.last_test.map(|test| LastTest { at: test.at.to_string(), passed: test.passed }),
        last_refresh: time(health.last_refresh),
        next_try: time(health.next_try),
        last_error: health.last_error.as_ref().map(|trouble| Trouble {
            at: trouble.at.to_string(),
            what: trouble.what.clone(),
            step: trouble.step.clone(),
        }),
    }
}

/// A connection that can be used as it is.
async fn resolved(parts: &Parts, head: &ConnectionHead) -> Option<Arc<Connection>> {
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration)?;
    parts.connections.resolve(&generation, integration, &head.name).await.ok()
}

/// When a connection's tokens were issued and end, by name; nothing of the tokens themselves.
fn tokens(connection: &Connection) -> Option<BTreeMap<String, TokenShown>> {
    let Credential::Tokens(tokens) = &connection.credential else { return None };
    let described = tokens.0.iter().map(|(name, issued)| {
        let shown = TokenShown {
            issued_at: issued.issued_at.to_string(),
            expires_at: issued.expires_at.map(|end| end.to_string()),
            renewable: issued.refresh.is_some(),
            scopes: issued.scopes.clone(),
        };
        (name.to_string(), shown)
    });
    Some(described.collect())
}
