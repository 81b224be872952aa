//! `/api/keys`: which master keys there are and what they seal, their rotation, and whether everything opens.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};

use super::Shared;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::connection::Keys;
use crate::connection::keys::{Checked, RotateError};
use crate::respond::Refusal;

/// The keys, the newest first, and how far the last rotation came.
pub async fn show(State(parts): Shared) -> Result<Json<Value>, Refused> {
    let keys = keys(&parts)?;
    Ok(Json(json!({ "keys": keys.list().await?, "rotation": keys.progress() })))
}

/// Rotates, and answers 202 while records are sealed anew in the background.
pub async fn rotate(State(parts): Shared, By(by): By) -> Result<(StatusCode, Json<Value>), Refused> {
    let progress = keys(&parts)?.rotate(&by).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "rotation": progress }))))
}

/// Opens every sealed record.
pub async fn check(State(parts): Shared) -> Result<Json<Checked>, Refused> {
    Ok(Json(keys(&parts)?.check().await?))
}

fn keys(parts: &Parts) -> Result<&Keys, Refused> {
    let help = "make a key with `trunkline keys generate`, and name it under `secrets.key`";
    let missing = || Refused::with_help(Refusal::Conflict, "this deployment has no master key", help);
    parts.connections.keys().map(|keys| &**keys).ok_or_else(missing)
}

impl From<RotateError> for Refused {
    fn from(error: RotateError) -> Self {
        match error {
            RotateError::Store(error) => error.into(),
            error @ (RotateError::Key(_) | RotateError::Dropped(..)) => {
                Self::new(Refusal::Conflict, &error.to_string())
            }
        }
    }
}
