//! `/api/export` and `/api/import`: connections carried to another deployment.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::query::{Asked, Sent};
use crate::admin::By;
use crate::admin::refusal::Refused;
use crate::connection::transfer::{Export, OnConflict, Plan, TransferError};
use crate::respond::Refusal;

/// Every stored connection, without its secrets.
#[utoipa::path(get, path = "/api/export", tag = "transfer",
    responses((status = 200, body = Export), (status = 503, description = "connection_unusable")))]
pub async fn export(State(parts): Shared, By(by): By) -> Result<Response, Refused> {
    let export = parts.connections.export(&by, &parts.live.load()).await?;
    Ok((unreadable(export.unreadable.len()), Json(export)).into_response())
}

/// How many connections do not open and were left out. Their names are in the export.
const UNREADABLE: HeaderName = HeaderName::from_static("trunkline-export-unreadable");

fn unreadable(count: usize) -> HeaderMap {
    let header = (count > 0).then(|| (UNREADABLE, HeaderValue::from(count)));
    header.into_iter().collect()
}

/// Who may read an export.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExportRecipients)]
pub struct Recipients {
    /// Public keys of age: `age1…`.
    recipients: Vec<String>,
}

/// Every stored connection with its secrets, encrypted to age recipients.
#[utoipa::path(post, path = "/api/export", tag = "transfer", request_body = Recipients,
    responses((status = 200, body = String, content_type = "application/age-encryption"),
        (status = 409, description = "conflict"), (status = 503, description = "connection_unusable")))]
pub async fn export_sealed(
    State(parts): Shared,
    By(by): By,
    Sent(asked): Sent<Recipients>,
) -> Result<Response, Refused> {
    let sealed = parts.connections.export_sealed(&by, &parts.live.load(), &asked.recipients).await?;
    let kind = HeaderValue::from_static("application/age-encryption; charset=us-ascii");
    Ok((unreadable(sealed.unreadable), [(header::CONTENT_TYPE, kind)], sealed.text).into_response())
}

/// How to import.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Anything: do it, instead of only telling what would be done.
    apply: Option<String>,
    /// Anything: replace those that are there and differ.
    replace: Option<String>,
    /// Anything: replace also those that are newer than what the export has.
    replace_newer: Option<String>,
    /// The digest of the plan that was shown.
    plan: Option<String>,
}

/// What an import does.
#[derive(Debug, Serialize, ToSchema)]
pub struct Imported {
    /// Whether it was done.
    pub applied: bool,
    /// What is done with each connection.
    pub plan: Plan,
}

/// What an import would do; with `apply` it is done.
#[utoipa::path(post, path = "/api/import", tag = "transfer", params(Wanted), request_body = Export,
    responses((status = 200, body = Imported), (status = 404, description = "connection_unknown"),
        (status = 409, description = "conflict"),
        (status = 503, description = "connection_unusable connection_needs_reconnect connection_paused")))]
pub async fn import(
    State(parts): Shared,
    By(by): By,
    Asked(wanted): Asked<Wanted>,
    Sent(export): Sent<Export>,
) -> Result<Json<Imported>, Refused> {
    let generation = parts.live.load();
    let on_conflict = match (&wanted.replace_newer, &wanted.replace) {
        (Some(_), _) => OnConflict::ReplaceNewer,
        (None, Some(_)) => OnConflict::Replace,
        (None, None) => OnConflict::Keep,
    };
    let applied = wanted.apply.is_some();
    let plan = if applied {
        let what = (&export, on_conflict);
        parts.connections.import(&by, &generation, what, wanted.plan.as_deref()).await?
    } else {
        parts.connections.plan_import(&generation, &export, on_conflict).await?
    };
    Ok(Json(Imported { applied, plan }))
}

impl From<TransferError> for Refused {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Store(error) => error.into(),
            TransferError::Connection(error) => Self::new(error.refusal(), &error.to_string()),
            TransferError::Changed | TransferError::NoKey => Self::new(Refusal::Conflict, &error.to_string()),
            TransferError::Encrypt(_) => Self::new(Refusal::Internal, &error.to_string()),
            TransferError::Recipient(_)
            | TransferError::NoRecipient
            | TransferError::Format(_)
            | TransferError::Twice(_)
            | TransferError::TooMany(_) => Self::new(Refusal::InvalidInput, &error.to_string()),
        }
    }
}
