//! `/api/integrations/connections`: which connections there are and how they fare; never their credentials
//! or inputs.

mod shown;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::Shared;
use super::config::entry;
use super::document::CallsOut;
use super::query::{Asked, Named, link_next, part};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::ConnectionId;
use crate::connection::connect::account_of;
use crate::connection::{ConnectionError, ConnectionHead, Credential, Status, Use};
use crate::outbound;
use crate::respond::Refusal;
pub use shown::{Detail, Row, Shown, ShownAlone};
use shown::{described, resolved, shown, tokens};

/// Every connection by integration and name: those that files declare, and those the store keeps.
#[utoipa::path(get, path = "/api/integrations/connections", tag = "connections", params(Listed),
    responses((status = 200, body = [Shown]), (status = 503, description = "connection_unusable")))]
pub async fn list(State(parts): Shared, uri: Uri, Asked(listed): Asked<Listed>) -> Result<Answered, Refused> {
    let Listed { integration, status, q, limit, after } = listed;
    let all = rows(&parts, &Wanted { integration, status, q }).await?;
    // No id of an integration has a character before the space, so that this text orders as the two names do.
    let place = |row: &Row| format!("{} {}", row.integration, row.name);
    let (rows, next) = part(all, (after.as_deref(), limit), place)?;
    Ok((link_next(&uri, "after", next), Json(shown(&parts, rows).await?)))
}

/// Another name of `/api/integrations/connections`.
#[utoipa::path(get, path = "/api/connections", tag = "connections", params(Listed),
    responses((status = 200, body = [Shown]), (status = 503, description = "connection_unusable")))]
pub async fn all(state: Shared, uri: Uri, listed: Asked<Listed>) -> Result<Answered, Refused> {
    list(state, uri, listed).await
}

type Answered = (HeaderMap, Json<Vec<Shown>>);

/// Which connections, and how many of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only those that fare so.
    pub status: Option<Status>,
    /// Only those with this in their name; case does not count.
    pub q: Option<String>,
    /// At most so many: 1 to 1,000, or all when nobody says.
    pub limit: Option<usize>,
    /// Only those beyond this place, as `Link` names it.
    pub after: Option<String>,
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
    responses((status = 200, body = ShownAlone), (status = 404, description = "connection_unknown"),
        (status = 503, description = "connection_unusable")))]
pub async fn show(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<ShownAlone>, Refused> {
    let Detail { row, account, tokens } = one(&parts, id).await?;
    Ok(Json(ShownAlone { shown: alone(&parts, row).await?.0, account, tokens }))
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
    responses((status = 200, body = Shown), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"), (status = 503, description = "connection_unusable")))]
pub async fn pause(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Shown>, Refused> {
    alone(&parts, set_use(&parts, &by, id, Use::Paused).await?).await
}

/// Lets a connection be used again.
#[utoipa::path(post, path = "/api/integrations/connections/{id}/resume", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Shown), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"), (status = 503, description = "connection_unusable")))]
pub async fn resume(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Shown>, Refused> {
    alone(&parts, set_use(&parts, &by, id, Use::Resumed).await?).await
}

/// Renews a connection's default token now, whatever came of it before.
#[utoipa::path(post, path = "/api/integrations/connections/{id}/refresh", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Shown), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"),
        (status = 503, description = "connection_unusable connection_needs_reconnect")))]
pub async fn refresh(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Shown>, Refused> {
    alone(&parts, renew(&parts, &by, id).await?).await
}

/// Renews a connection's default token now, and shows how the connection fares after it. The audit log has first who
/// asked.
pub async fn renew(parts: &Parts, by: &str, id: ConnectionId) -> Result<Row, Refused> {
    let head = find(parts, id).await?;
    refuse_paused(parts, &head).await?;
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration).ok_or_else(|| not_in_force(&head))?;
    let connection = parts.connections.resolve(&generation, integration, &head.name).await.map_err(refused)?;
    if !matches!(connection.credential, Credential::Tokens(_)) {
        let kind = connection.credential.kind();
        let detail = format!("`{}/{}` signs in with {kind}, which is not renewed", head.integration, head.name);
        return Err(Refused::new(Refusal::Conflict, &detail));
    }
    let Some(refresher) = parts.outbound.refresher() else {
        return Err(Refused::new(Refusal::Conflict, "nothing renews tokens in this deployment: it has no master key"));
    };
    note(parts, by, "connection.refresh", &head).await?;
    refresher.renew_now(integration, &connection, None).await.map_err(refused)?;
    // It may have been removed while the service was asked.
    let head = find(parts, id).await?;
    let health = parts.connections.health(&head.integration, &head.name).await;
    Ok(described(&head, &health))
}

/// Writes down who has a connection used.
async fn note(parts: &Parts, by: &str, action: &str, head: &ConnectionHead) -> Result<(), Refused> {
    let target = format!("connection:{}/{}", head.integration, head.name);
    parts.store.append(entry(parts, by, action, target, json!({ "cause": "asked" }))).await?;
    Ok(())
}

/// Makes the integration's test request with a connection, and shows how the connection fares after it.
#[utoipa::path(post, path = "/api/integrations/connections/{id}/test", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = Shown), CallsOut))]
pub async fn test(State(parts): Shared, By(by): By, Named(id): Named<ConnectionId>) -> Result<Json<Shown>, Refused> {
    alone(&parts, try_again(&parts, &by, id).await?).await
}

/// Makes the integration's test request with a connection. The audit log has it first.
pub async fn try_again(parts: &Parts, by: &str, id: ConnectionId) -> Result<Row, Refused> {
    let head = find(parts, id).await?;
    refuse_paused(parts, &head).await?;
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration).ok_or_else(|| not_in_force(&head))?;
    note(parts, by, "connection.test", &head).await?;
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

/// One row as the API shows it.
async fn alone(parts: &Parts, row: Row) -> Result<Json<Shown>, Refused> {
    let gone = || Refused::new(Refusal::Internal, "the connection could not be shown");
    shown(parts, vec![row]).await?.pop().map(Json).ok_or_else(gone)
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

fn not_in_force(head: &ConnectionHead) -> Refused {
    let detail =
        format!("the integration `{}` is not in force: nothing can be called by this connection", head.integration);
    Refused::new(Refusal::Conflict, &detail)
}

fn unknown(id: ConnectionId) -> Refused {
    Refused::new(Refusal::ConnectionUnknown, &format!("there is no connection `{id}`"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn refused(error: ConnectionError) -> Refused {
    Refused::new(error.refusal(), &error.to_string())
}
