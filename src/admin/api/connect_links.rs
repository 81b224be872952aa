//! `/api/connect-links`: links that let one person connect one account, and how that ended.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Shared;
use super::query::{Named, Sent};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::connection::connect::{DeviceShown, Shown, Wanted};
use crate::respond::Refusal;

/// What a link is wanted for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewConnectLink)]
pub struct NewLink {
    /// The integration.
    pub integration: String,
    /// The connection's name. Default `default`. One that is there is connected anew.
    pub connection: Option<String>,
    /// Where the person goes afterwards: a path, or an address below one of `connect.origins`.
    pub return_to: Option<String>,
    /// The origin of the page that opens the link. Default: that of `return_to`.
    pub origin: Option<String>,
    /// The scopes that are asked for in any case. Default: the definition's default ones.
    pub scopes: Option<Vec<String>>,
    /// The scopes that the person may add. Default: none when `scopes` is there, else all others.
    pub optional: Option<Vec<String>>,
}

/// A link that lets one person connect one account.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ConnectLink)]
pub struct Made {
    /// Its address: a secret.
    pub url: String,
    /// The id under which its outcome can be asked for.
    pub result: String,
    /// The integration.
    pub integration: String,
    /// The connection's name.
    pub connection: String,
    /// When it ends.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// Makes a link.
#[utoipa::path(post, path = "/api/connect-links", tag = "connect", request_body = NewLink,
    responses((status = 201, body = Made), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn make(
    State(parts): Shared,
    By(by): By,
    Sent(new): Sent<NewLink>,
) -> Result<(StatusCode, Json<Made>), Refused> {
    Ok((StatusCode::CREATED, Json(link(&parts, &by, new).await?)))
}

/// Makes a link.
pub async fn link(parts: &Parts, by: &str, new: NewLink) -> Result<Made, Refused> {
    let NewLink { integration, connection, return_to, origin, scopes, optional } = new;
    let connection = connection.unwrap_or_else(|| crate::connection::DEFAULT.to_owned());
    let wanted = Wanted { integration, connection, return_to, origin, scopes, optional };
    let made = parts.connect.link(by, wanted).await;
    let made = made.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    let expires_at = made.link.expires_at().to_string();
    let (integration, connection) = (made.link.integration, made.link.connection);
    Ok(Made { url: made.url, result: made.result, integration, connection, expires_at })
}

/// What a code for another device is wanted for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewConnectDevice)]
pub struct NewDevice {
    /// The integration: one of `grant: device_code`.
    integration: String,
    /// The connection's name. Default `default`. One that is there is connected anew.
    connection: Option<String>,
    /// The scopes that are asked for. Default: the definition's default ones.
    scopes: Option<Vec<String>>,
    /// The connection's inputs.
    #[serde(default)]
    inputs: Map<String, Value>,
}

/// Asks the service for a code that a person types on another device. Nothing more has to be done here: the
/// gateway asks the service until the person has decided.
#[utoipa::path(post, path = "/api/connect-devices", tag = "connect", request_body = NewDevice,
    responses((status = 201, body = DeviceShown), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn device(
    State(parts): Shared,
    By(by): By,
    Sent(new): Sent<NewDevice>,
) -> Result<(StatusCode, Json<DeviceShown>), Refused> {
    let NewDevice { integration, connection, scopes, inputs } = new;
    let connection = connection.unwrap_or_else(|| crate::connection::DEFAULT.to_owned());
    let wanted = Wanted { integration, connection, scopes, ..Wanted::default() };
    let shown = parts.connect.start_device(&by, wanted, inputs).await;
    let shown = shown.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// How a link ended, or where it stands.
#[utoipa::path(get, path = "/api/connect-links/{result}", tag = "connect",
    params(("result" = String, Path, description = "The `result` of the link")),
    responses((status = 200, body = Shown), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn show(State(parts): Shared, Named(result): Named<String>) -> Result<Json<Shown>, Refused> {
    outcome(&parts, &result).await.map(Json)
}

/// How a link ended, or where it stands.
pub async fn outcome(parts: &Parts, result: &str) -> Result<Shown, Refused> {
    let shown = parts.connect.outcome(result).await;
    let shown = shown.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    shown.ok_or_else(|| Refused::new(Refusal::NotFound, "this gateway gave out no such result id"))
}
