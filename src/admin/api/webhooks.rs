//! `/api/webhooks`: the managed endpoints of connections; and what could not be verified lately, to find a wrong secret
//! or clock. Secrets are shown once when they are made, and afterwards to those who ask for one, by name, in the audit
//! log.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::query::{Asked, Named, Sent, rows};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{ConnectionId, WebhookId};
use crate::base::secret::Secret;
use crate::base::units::parse_duration;
use crate::connection::endpoints::{Endpoint, EndpointError, Subscription};
use crate::definition::plan::rule::Glob;
use crate::respond::Refusal;
use crate::webhook::managed::{Change, ManagedError, OVERLAP, Wanted as WantedEndpoint};
use crate::webhook::refused;

/// What stands in for a secret.
const MASK: &str = "••••••••";

/// Which refusals.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedRefused {
    integration: Option<String>,
    limit: Option<usize>,
}

/// Which endpoints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only those of connections of this name.
    pub connection: Option<String>,
}

/// An endpoint that is wanted for a connection.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
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
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Changes {
    /// Whether what arrives is worked on.
    pub enabled: Option<bool>,
    /// The types that are taken.
    pub event_types: Option<Vec<String>>,
}

/// How a secret is replaced.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// The new one; without it one is made.
    pub secret: Option<String>,
    /// How long the former ones count, as in `24h`.
    pub overlap: Option<String>,
}

/// What sample is sent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Its type; without it the first that the endpoint takes.
    pub event: Option<String>,
}

/// The endpoints that fit the filter, oldest first.
pub async fn list(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Json<Vec<Value>> {
    Json(all(&parts, &wanted))
}

/// What lists show of endpoints.
pub fn all(parts: &Parts, wanted: &Wanted) -> Vec<Value> {
    let all = parts.webhooks.endpoints().all();
    let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
    let shown = all
        .iter()
        .filter(|one| fits(&wanted.integration, &one.integration) && fits(&wanted.connection, &one.connection));
    shown.map(|endpoint| described(parts, endpoint)).collect()
}

/// The endpoints of one connection.
pub async fn of_connection(State(parts): Shared, Named(id): Named<ConnectionId>) -> Result<Json<Vec<Value>>, Refused> {
    let (integration, connection) = named(&parts, id).await?;
    Ok(Json(all(&parts, &Wanted { integration: Some(integration), connection: Some(connection) })))
}

/// Makes an endpoint for a connection; its answer is the one that has the secret.
pub async fn create(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<ConnectionId>,
    Sent(new): Sent<New>,
) -> Result<impl IntoResponse, Refused> {
    Ok((StatusCode::CREATED, Json(make(&parts, &by, id, new).await?)))
}

/// Makes an endpoint for a connection.
pub async fn make(parts: &Parts, by: &str, id: ConnectionId, new: New) -> Result<Value, Refused> {
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
pub async fn show(State(parts): Shared, Named(id): Named<WebhookId>) -> Result<Json<Value>, Refused> {
    one(&parts, id).map(Json)
}

/// What is shown of one endpoint.
pub fn one(parts: &Parts, id: WebhookId) -> Result<Value, Refused> {
    let endpoint = parts.webhooks.endpoints().get(id).map_err(ManagedError::from)?;
    Ok(described(parts, &endpoint))
}

/// Enables or disables an endpoint, or changes the types it takes.
pub async fn change(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
    Sent(changes): Sent<Changes>,
) -> Result<Json<Value>, Refused> {
    set(&parts, &by, id, changes).await.map(Json)
}

/// Enables or disables an endpoint, or changes the types it takes.
pub async fn set(parts: &Parts, by: &str, id: WebhookId, changes: Changes) -> Result<Value, Refused> {
    let wanted = Change { enabled: changes.enabled, event_types: changes.event_types };
    let endpoint = parts.webhooks.set(by, id, wanted).await?;
    Ok(described(parts, &endpoint))
}

/// Replaces an endpoint's secret; the answer has the new one.
pub async fn rotate(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
    Sent(rotate): Sent<Rotate>,
) -> Result<Json<Value>, Refused> {
    replace(&parts, &by, id, rotate).await.map(Json)
}

/// Replaces an endpoint's secret.
pub async fn replace(parts: &Parts, by: &str, id: WebhookId, rotate: Rotate) -> Result<Value, Refused> {
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
pub async fn reveal(State(parts): Shared, By(by): By, Named(id): Named<WebhookId>) -> Result<Json<Value>, Refused> {
    look(&parts, &by, id).await.map(Json)
}

/// Shows an endpoint's secret once more.
pub async fn look(parts: &Parts, by: &str, id: WebhookId) -> Result<Value, Refused> {
    let endpoint = parts.webhooks.reveal(by, id).await?;
    Ok(with_secret(parts, &endpoint))
}

/// Deletes an endpoint; its service is told where the definition says how.
pub async fn delete(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
) -> Result<impl IntoResponse, Refused> {
    let left = remove(&parts, &by, id).await?;
    let status = if left.is_null() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(json!({ "deleted": id, "subscription": left }))))
}

/// Deletes an endpoint. Gives what its service has yet to be told; null when that is nothing.
pub async fn remove(parts: &Parts, by: &str, id: WebhookId) -> Result<Value, Refused> {
    let left = parts.webhooks.delete(by, id).await?;
    Ok(left.map_or(Value::Null, |endpoint| subscription(&endpoint)))
}

/// Sends a sample event through the public door, signed as the definition says.
pub async fn test(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<WebhookId>,
    Sent(test): Sent<Test>,
) -> Result<Json<Value>, Refused> {
    try_out(&parts, &by, id, test).await.map(Json)
}

/// Sends a sample event through the public door.
pub async fn try_out(parts: &Parts, by: &str, id: WebhookId, test: Test) -> Result<Value, Refused> {
    let endpoint = parts.webhooks.endpoints().get(id).map_err(ManagedError::from)?;
    if endpoint.subscription.is_gone() {
        return Err(ManagedError::from(EndpointError::Unknown(id)).into());
    }
    parts.webhooks.note_test(by, &endpoint).await?;
    let sent = parts.samples.send(&endpoint, test.event.as_deref()).await;
    let sent = sent.map_err(|words| Refused::new(Refusal::Conflict, &words))?;
    Ok(json!({
        "webhook": id,
        "eventType": sent.event_type,
        "accepted": (200..300).contains(&sent.status),
        "status": sent.status,
        "answer": sent.answer,
        "tookMs": u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
    }))
}

/// The latest refusals, newest first.
pub async fn refused(State(parts): Shared, Asked(wanted): Asked<WantedRefused>) -> Result<Json<Value>, Refused> {
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

/// The names of a connection of this id.
async fn named(parts: &Parts, id: ConnectionId) -> Result<(String, String), Refused> {
    let listed = parts.connections.list(&parts.live.load()).await.map_err(ManagedError::from)?;
    let found = listed.into_iter().find(|head| head.id == id).map(|head| (head.integration, head.name));
    found.ok_or_else(|| Refused::new(Refusal::ConnectionUnknown, &format!("there is no connection `{id}`")))
}

fn described(parts: &Parts, endpoint: &Arc<Endpoint>) -> Value {
    let now = parts.clock.now();
    let day = parts.webhooks.tallies().day(endpoint.id, now);
    let gone = endpoint.subscription.is_gone();
    json!({
        "id": endpoint.id,
        "integration": endpoint.integration,
        "connection": endpoint.connection,
        "connectionId": ConnectionId::of(&endpoint.integration, &endpoint.connection),
        "url": (!gone).then(|| parts.webhooks.url(endpoint)),
        "secret": MASK,
        "formerSecretsUntil": endpoint.overlap_ends(now).map(|end| end.to_string()),
        "enabled": endpoint.enabled && !gone,
        "eventTypes": endpoint.event_types.iter().map(Glob::as_str).collect::<Vec<_>>(),
        "createdAt": endpoint.created_at.to_string(),
        "rotatedAt": endpoint.rotated_at.map(|at| at.to_string()),
        "deliveriesLast24h": day.came(),
        "successRate": day.success_rate(),
        "lastDelivery": day.last.map(|at| at.to_string()),
        "hours": day.hours.iter().map(|(taken, refused)| json!([taken, refused])).collect::<Vec<_>>(),
        "subscription": subscription(endpoint),
    })
}

fn with_secret(parts: &Parts, endpoint: &Arc<Endpoint>) -> Value {
    let mut shown = described(parts, endpoint);
    if let (Some(place), Some(newest)) = (shown.get_mut("secret"), endpoint.secrets.first()) {
        *place = Value::from(newest.secret.expose().as_str());
    }
    shown
}

/// What the service knows of an endpoint.
fn subscription(endpoint: &Endpoint) -> Value {
    let id = endpoint.saved.get("id");
    match &endpoint.subscription {
        Subscription::ByHand => json!({ "state": "by_hand" }),
        Subscription::Asked { at } => json!({ "state": "asked", "since": at.to_string() }),
        Subscription::Registered { at } => json!({ "state": "registered", "since": at.to_string(), "id": id }),
        Subscription::Unknown { error } => json!({ "state": "unknown", "error": error }),
        Subscription::Leaving { at, attempts, next, error } => json!({
            "state": "leaving",
            "since": at.to_string(),
            "attempts": attempts,
            "next": next.to_string(),
            "error": error,
        }),
        Subscription::Left { at, error } => {
            json!({ "state": "left", "since": at.to_string(), "error": error, "id": id })
        }
    }
}

impl From<ManagedError> for Refused {
    fn from(error: ManagedError) -> Self {
        let detail = error.to_string();
        match error {
            ManagedError::Endpoint(EndpointError::Store(error)) => error.into(),
            ManagedError::Endpoint(EndpointError::Unknown(_)) | ManagedError::NoWebhook(_) => {
                Self::new(Refusal::NotFound, &detail)
            }
            ManagedError::Endpoint(EndpointError::NoKey | EndpointError::TooMany) | ManagedError::Conflict(_) => {
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
