//! `/api/webhooks`: the managed endpoints of connections; and what could not be verified lately, to find a wrong secret
//! or clock. Secrets are shown once when they are made, and afterwards to those who ask for one, by name, in the audit
//! log.

mod shown;
mod tried;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::document::CallsOut;
use super::query::{Asked, MaySend, Named, Sent, link_next, part, rows};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{ConnectionId, WebhookId};
use crate::base::secret::Secret;
use crate::base::units::parse_duration;
use crate::connection::endpoints::{Endpoint, EndpointError, Subscription};
use crate::respond::Refusal;
use crate::webhook::managed::{Change, ManagedError, OVERLAP, Wanted as WantedEndpoint};
use crate::webhook::refused;
pub use shown::{Deleted, Shown, SubscriptionShown, Tested};
use shown::{described, subscription, with_secret};
pub use tried::Tried;

/// Which refusals.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WantedRefused {
    /// Only this integration's.
    integration: Option<String>,
    /// At most so many: 1 to 1,000, or 50 when nobody says.
    limit: Option<usize>,
}

/// Which endpoints, and how many of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only those of connections of this name.
    pub connection: Option<String>,
    /// At most so many: 1 to 1,000, or all when nobody says.
    pub limit: Option<usize>,
    /// Only those beyond this place, as `Link` names it.
    pub after: Option<String>,
}

/// A page of endpoints.
#[derive(Debug)]
pub struct Page {
    /// The endpoints, oldest first.
    pub rows: Vec<Shown>,
    /// The place to go on from, where there are more.
    pub next: Option<String>,
    /// How many fit the filter, on all pages.
    pub all: usize,
}

/// An endpoint that is wanted for a connection.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = NewWebhook)]
pub struct New {
    /// The types that are taken; all when it is empty.
    #[serde(default)]
    pub event_types: Vec<String>,
    /// What `register` and `unregister` see as `input`.
    #[serde(default)]
    pub input: Map<String, Value>,
    /// Its secret; without it one is made.
    pub secret: Option<String>,
    /// Whether the service is told; without it, where the definition says how.
    pub register: Option<bool>,
}

/// What is changed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = WebhookChanges)]
pub struct Changes {
    /// Whether what arrives is worked on.
    pub enabled: Option<bool>,
    /// The types that are taken.
    pub event_types: Option<Vec<String>>,
}

/// How a secret is replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookRotation)]
pub struct Rotate {
    /// The new one; without it one is made.
    pub secret: Option<String>,
    /// How long the former ones count, as in `24h`.
    pub overlap: Option<String>,
}

/// What sample is sent.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookTest)]
pub struct Test {
    /// Its type; without it the first that the endpoint takes.
    pub event: Option<String>,
}

/// The endpoints that fit the filter, oldest first.
#[utoipa::path(get, path = "/api/webhooks", tag = "webhooks", params(Listed), responses((status = 200, body = [Shown])))]
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(listed): Asked<Listed>,
) -> Result<(HeaderMap, Json<Vec<Shown>>), Refused> {
    let page = page(&parts, &listed)?;
    Ok((link_next(&uri, "after", page.next), Json(page.rows)))
}

/// The endpoints that are wanted, oldest first.
///
/// # Errors
/// When the limit is out of bounds.
pub fn page(parts: &Parts, listed: &Listed) -> Result<Page, Refused> {
    let fitting = fitting(parts, (listed.integration.as_deref(), listed.connection.as_deref()));
    let all = fitting.len();
    let place = |one: &Arc<Endpoint>| format!("{:015} {}", one.created_at.millis(), one.id);
    let (rows, next) = part(fitting, (listed.after.as_deref(), listed.limit), place)?;
    Ok(Page { rows: rows.iter().map(|endpoint| described(parts, endpoint)).collect(), next, all })
}

fn fitting(parts: &Parts, (integration, connection): (Option<&str>, Option<&str>)) -> Vec<Arc<Endpoint>> {
    let fits = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted == is);
    let mut all = parts.webhooks.endpoints().all();
    all.retain(|one| fits(integration, &one.integration) && fits(connection, &one.connection));
    all
}

/// Endpoints of which a person has to see to their service.
pub fn troubled(parts: &Parts) -> Vec<Arc<Endpoint>> {
    let mut all = parts.webhooks.endpoints().all();
    all.retain(|one| matches!(one.subscription, Subscription::Unknown { .. } | Subscription::Left { .. }));
    all
}

/// The endpoints of one connection, by its id.
#[utoipa::path(get, path = "/api/integrations/{id}/webhooks", tag = "webhooks",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 200, body = [Shown]), (status = 404, description = "connection_unknown"),
        (status = 503, description = "connection_unusable")))]
pub async fn of_connection(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Vec<Shown>>, Refused> {
    let (integration, connection) = named(&parts, id).await?;
    let all = fitting(&parts, (Some(&integration), Some(&connection)));
    Ok(Json(all.iter().map(|endpoint| described(&parts, endpoint)).collect()))
}

/// Makes an endpoint for a connection; its answer is the one that has the secret.
#[utoipa::path(post, path = "/api/integrations/{id}/webhooks", tag = "webhooks",
    params(("id" = ConnectionId, Path, description = "The connection")), request_body = Option<New>,
    responses((status = 201, body = Shown), CallsOut))]
pub async fn create(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<ConnectionId>,
    MaySend(new): MaySend<New>,
) -> Result<(StatusCode, Json<Shown>), Refused> {
    Ok((StatusCode::CREATED, Json(make(&parts, &by, id, new).await?)))
}

/// Makes an endpoint for a connection.
pub async fn make(parts: &Parts, by: &str, id: ConnectionId, new: New) -> Result<Shown, Refused> {
    let (integration, connection) = named(parts, id).await?;
    let wanted = WantedEndpoint {
        integration,
        connection,
        event_types: new.event_types,
        input: new.input,
        secret: new.secret.map(Secret::new),
        register: new.register,
    };
    let made = parts.webhooks.create(by, wanted).await?;
    Ok(with_secret(parts, &made))
}

/// One endpoint.
#[utoipa::path(get, path = "/api/webhooks/{id}", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The endpoint")),
    responses((status = 200, body = Shown), (status = 404, description = "not_found")))]
pub async fn show(State(parts): Shared, Named(id): Named<WebhookId>) -> Result<Json<Shown>, Refused> {
    one(&parts, id).map(Json)
}

/// What is shown of one endpoint.
pub fn one(parts: &Parts, id: WebhookId) -> Result<Shown, Refused> {
    let endpoint = parts.webhooks.endpoints().get(id).map_err(ManagedError::from)?;
    Ok(described(parts, &endpoint))
}

/// Enables or disables an endpoint, or changes the types it takes.
#[utoipa::path(patch, path = "/api/webhooks/{id}", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The endpoint")), request_body = Changes,
    responses((status = 200, body = Shown), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn change(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
    Sent(changes): Sent<Changes>,
) -> Result<Json<Shown>, Refused> {
    set(&parts, &by, id, changes).await.map(Json)
}

/// Enables or disables an endpoint, or changes the types it takes.
pub async fn set(parts: &Parts, by: &str, id: WebhookId, changes: Changes) -> Result<Shown, Refused> {
    let wanted = Change { enabled: changes.enabled, event_types: changes.event_types };
    let endpoint = parts.webhooks.set(by, id, wanted).await?;
    Ok(described(parts, &endpoint))
}

/// Replaces an endpoint's secret; the answer has the new one.
#[utoipa::path(post, path = "/api/webhooks/{id}/rotate", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The endpoint")), request_body = Option<Rotate>,
    responses((status = 200, body = Shown), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn rotate(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
    MaySend(rotate): MaySend<Rotate>,
) -> Result<Json<Shown>, Refused> {
    replace(&parts, &by, id, rotate).await.map(Json)
}

/// Replaces an endpoint's secret.
pub async fn replace(parts: &Parts, by: &str, id: WebhookId, rotate: Rotate) -> Result<Shown, Refused> {
    let overlap: Option<Duration> = rotate
        .overlap
        .as_deref()
        .map(parse_duration)
        .transpose()
        .map_err(|error| Refused::new(Refusal::InvalidInput, &format!("overlap: {error}")))?;
    let given = rotate.secret.map(Secret::new);
    let rotated = parts.webhooks.rotate(by, id, (given, overlap.unwrap_or(OVERLAP))).await?;
    Ok(with_secret(parts, &rotated))
}

/// Shows an endpoint's secret once more; the audit log has it first.
#[utoipa::path(post, path = "/api/webhooks/{id}/reveal", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The endpoint")),
    responses((status = 200, body = Shown), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn reveal(State(parts): Shared, By(by): By, Named(id): Named<WebhookId>) -> Result<Json<Shown>, Refused> {
    look(&parts, &by, id).await.map(Json)
}

/// Shows an endpoint's secret once more.
pub async fn look(parts: &Parts, by: &str, id: WebhookId) -> Result<Shown, Refused> {
    let endpoint = parts.webhooks.reveal(by, id).await?;
    Ok(with_secret(parts, &endpoint))
}

/// Deletes an endpoint; its service is told where the definition says how.
#[utoipa::path(delete, path = "/api/webhooks/{id}", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The endpoint")),
    responses((status = 200, body = Deleted, description = "Deleted; there is nothing to tell its service"),
        (status = 202, body = Deleted, description = "Deleted here; its service has yet to be told"), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn delete(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
) -> Result<(StatusCode, Json<Deleted>), Refused> {
    let subscription = remove(&parts, &by, id).await?;
    let status = if subscription.is_none() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Deleted { deleted: id, subscription })))
}

/// Deletes an endpoint. Gives what its service has yet to be told; `None` when that is nothing.
pub async fn remove(parts: &Parts, by: &str, id: WebhookId) -> Result<Option<SubscriptionShown>, Refused> {
    let left = parts.webhooks.delete(by, id).await?;
    Ok(left.map(|endpoint| subscription(&endpoint)))
}

/// Sends a sample event through the public door, signed as the definition says.
#[utoipa::path(post, path = "/api/webhooks/{id}/test", tag = "webhooks",
    params(("id" = WebhookId, Path, description = "The endpoint")), request_body = Option<Test>,
    responses((status = 200, body = Tested), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn test(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
    MaySend(test): MaySend<Test>,
) -> Result<Json<Tested>, Refused> {
    try_out(&parts, &by, id, test).await.map(Json)
}

/// Sends a sample event through the public door. What became of it is remembered for a while.
pub async fn try_out(parts: &Parts, by: &str, id: WebhookId, test: Test) -> Result<Tested, Refused> {
    let endpoint = parts.webhooks.endpoints().get(id).map_err(ManagedError::from)?;
    if endpoint.subscription.is_gone() {
        return Err(ManagedError::from(EndpointError::Unknown(id)).into());
    }
    parts.webhooks.note_test(by, &endpoint).await?;
    let sent = parts.samples.send(&endpoint, test.event.as_deref()).await;
    let sent = sent.map_err(|words| Refused::new(Refusal::Conflict, &words))?;
    let tested = Tested {
        webhook: id,
        event_type: sent.event_type,
        accepted: (200..300).contains(&sent.status),
        status: sent.status,
        answer: sent.answer,
        took_ms: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
    };
    parts.tried.remember(parts.clock.now(), &tested);
    Ok(tested)
}

/// The latest webhooks that could not be verified, newest first.
#[utoipa::path(get, path = "/api/webhooks/refused", tag = "webhooks", params(WantedRefused),
    responses((status = 200, body = [refused::Refused])))]
pub async fn refused(
    State(parts): Shared,
    Asked(wanted): Asked<WantedRefused>,
) -> Result<Json<Vec<refused::Refused>>, Refused> {
    let limit = rows(wanted.limit)?;
    let mut latest = parts.refused.latest(wanted.integration.as_deref());
    latest.truncate(limit);
    Ok(Json(latest))
}

/// The names of a connection of this id.
async fn named(parts: &Parts, id: ConnectionId) -> Result<(String, String), Refused> {
    let listed = parts.connections.list(&parts.live.load()).await.map_err(ManagedError::from)?;
    let found = listed.into_iter().find(|head| head.id == id).map(|head| (head.integration, head.name));
    found.ok_or_else(|| Refused::new(Refusal::ConnectionUnknown, &format!("there is no connection `{id}`")))
}

impl From<ManagedError> for Refused {
    fn from(error: ManagedError) -> Self {
        let detail = error.to_string();
        match error {
            ManagedError::Endpoint(EndpointError::Store(error)) => error.into(),
            ManagedError::Endpoint(EndpointError::Unknown(_)) | ManagedError::NoWebhook(_) => {
                Self::new(Refusal::NotFound, &detail)
            }
            ManagedError::Endpoint(EndpointError::NoKey | EndpointError::TooMany(_)) | ManagedError::Conflict(_) => {
                Self::new(Refusal::Conflict, &detail)
            }
            ManagedError::Endpoint(EndpointError::Open(_) | EndpointError::Form | EndpointError::Random(_)) => {
                Self::new(Refusal::Internal, &detail)
            }
            ManagedError::Connection(error) => Self::new(error.refusal(), &detail),
            ManagedError::NoConnection(..) => Self::new(Refusal::ConnectionUnknown, &detail),
            ManagedError::NotYet(_) => Self::new(Refusal::NotYetRun, &detail),
            ManagedError::Invalid(_) => Self::new(Refusal::InvalidInput, &detail),
            ManagedError::Service(told) => {
                let kept = told.endpoint.map(|id| format!(" ({id})")).unwrap_or_default();
                Self::with_help(told.refusal, &detail, &format!("{}{kept}", told.help))
            }
        }
    }
}
