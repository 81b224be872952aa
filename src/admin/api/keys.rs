//! `/api/keys`: which master keys there are and what they seal, their rotation, and whether everything opens.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::connection::Keys;
use crate::connection::keys::{Checked, KeyState, RotateError};
use crate::connection::rotation::Progress;
use crate::respond::Refusal;

/// The master keys.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MasterKeys)]
pub struct Shown {
    /// The keys, the newest first.
    pub keys: Vec<KeyState>,
    /// How far the last rotation came.
    pub rotation: Progress,
}

/// A rotation that was begun.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RotationBegun)]
pub struct Begun {
    /// How far it is.
    pub rotation: Progress,
}

/// The keys, the newest first, and how far the last rotation came.
#[utoipa::path(get, path = "/api/keys", tag = "keys",
    responses((status = 200, body = Shown), (status = 409, description = "conflict")))]
pub async fn show(State(parts): Shared) -> Result<Json<Shown>, Refused> {
    let keys = keys(&parts)?;
    Ok(Json(Shown { keys: keys.list().await?, rotation: keys.progress() }))
}

/// Rotates, and answers 202 while records are sealed anew in the background.
#[utoipa::path(post, path = "/api/keys/rotate", tag = "keys",
    responses((status = 202, body = Begun), (status = 409, description = "conflict")))]
pub async fn rotate(State(parts): Shared, By(by): By) -> Result<(StatusCode, Json<Begun>), Refused> {
    let rotation = keys(&parts)?.rotate(&by).await?;
    Ok((StatusCode::ACCEPTED, Json(Begun { rotation })))
}

/// Opens every sealed record. The audit log has it first.
#[utoipa::path(post, path = "/api/keys/check", tag = "keys",
    responses((status = 200, body = Checked), (status = 409, description = "conflict")))]
pub async fn check(State(parts): Shared, By(by): By) -> Result<Json<Checked>, Refused> {
    let keys = keys(&parts)?;
    parts.store.append(entry(&parts, &by, "keys.check", "keys".to_owned(), json!({}))).await?;
    Ok(Json(keys.check().await?))
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
