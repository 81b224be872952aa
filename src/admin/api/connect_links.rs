//! `/api/connect-links`: links that let one person connect one account, and how that ended.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::{Named, Sent};
use crate::admin::refusal::Refused;
use crate::connection::connect::{Shown, Wanted};
use crate::respond::Refusal;

/// What a link is wanted for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    /// The integration.
    integration: String,
    /// The connection's name. Default `default`. One that is there is connected anew.
    connection: Option<String>,
    /// Where the person goes afterwards: a path, or an address below one of `connect.origins`.
    return_to: Option<String>,
    /// The origin of the page that opens the link. Default: that of `return_to`.
    origin: Option<String>,
    /// The scopes that are asked for in any case. Default: the definition's default ones.
    scopes: Option<Vec<String>>,
    /// The scopes that the person may add. Default: none when `scopes` is there, else all others.
    optional: Option<Vec<String>>,
}

/// Makes a link.
pub async fn make(State(parts): Shared, Sent(new): Sent<NewLink>) -> Result<impl IntoResponse, Refused> {
    let NewLink { integration, connection, return_to, origin, scopes, optional } = new;
    let connection = connection.unwrap_or_else(|| crate::connection::DEFAULT.to_owned());
    let wanted = Wanted { integration, connection, return_to, origin, scopes, optional };
    let made = parts.connect.link("operator", wanted).await;
    let made = made.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    let told = json!({
        "url": made.url,
        "result": made.result,
        "integration": made.link.integration,
        "connection": made.link.connection,
        "expires_at": made.link.expires_at().to_string(),
    });
    Ok((StatusCode::CREATED, Json::<Value>(told)))
}

/// How a link ended, or where it stands.
pub async fn show(State(parts): Shared, Named(result): Named<String>) -> Result<Json<Shown>, Refused> {
    let shown = parts.connect.outcome(&result).await;
    let shown = shown.map_err(|refused| Refused::new(refused.refusal(), &refused.to_string()))?;
    shown.map(Json).ok_or_else(|| Refused::new(Refusal::NotFound, "this gateway gave out no such result id"))
}
