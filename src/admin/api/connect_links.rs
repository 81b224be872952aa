//! `/api/connect-links`: links that let one person connect one account, and how that ended.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::query::{Named, Sent};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::connection::connect::{Shown, Wanted};
use crate::respond::Refusal;

/// What a link is wanted for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// Makes a link.
pub async fn make(State(parts): Shared, By(by): By, Sent(new): Sent<NewLink>) -> Result<impl IntoResponse, Refused> {
    Ok((StatusCode::CREATED, Json(link(&parts, &by, new).await?)))
}

/// Makes a link.
pub async fn link(parts: &Parts, by: &str, new: NewLink) -> Result<Value, Refused> {
    let NewLink { integration, connection, return_to, origin, scopes, optional } = new;
    let connection = connection.unwrap_or_else(|| crate::connection::DEFAULT.to_owned());
    let wanted = Wanted { integration, connection, return_to, origin, scopes, optional };
    let made = parts.connect.link(by, wanted).await;
    let made = made.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    Ok(json!({
        "url": made.url,
        "result": made.result,
        "integration": made.link.integration,
        "connection": made.link.connection,
        "expires_at": made.link.expires_at().to_string(),
    }))
}

/// What a code for another device is wanted for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
pub async fn device(
    State(parts): Shared,
    By(by): By,
    Sent(new): Sent<NewDevice>,
) -> Result<impl IntoResponse, Refused> {
    let NewDevice { integration, connection, scopes, inputs } = new;
    let connection = connection.unwrap_or_else(|| crate::connection::DEFAULT.to_owned());
    let wanted = Wanted { integration, connection, scopes, ..Wanted::default() };
    let shown = parts.connect.start_device(&by, wanted, inputs).await;
    let shown = shown.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// How a link ended, or where it stands.
pub async fn show(State(parts): Shared, Named(result): Named<String>) -> Result<Json<Shown>, Refused> {
    outcome(&parts, &result).await.map(Json)
}

/// How a link ended, or where it stands.
pub async fn outcome(parts: &Parts, result: &str) -> Result<Shown, Refused> {
    let shown = parts.connect.outcome(result).await;
    let shown = shown.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    shown.ok_or_else(|| Refused::new(Refusal::NotFound, "this gateway gave out no such result id"))
}
