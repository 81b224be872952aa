//! `/api/integrations/test`, `/api/integrations/save` and removal: connections that are entered by hand.
//!
//! A test keeps nothing. What is saved has been tried before, unless the definition has no test or it is
//! said that none is wanted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::Shared;
use super::config::entry;
use super::query::{Named, Sent};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::ConnectionId;
use crate::base::secret::Secret;
use crate::connection::connect::Revocation;
use crate::connection::{ConnectionError, Content, Credential, DEFAULT, Origin};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::outbound::{Cause, Diagnosis, try_out};
use crate::respond::Refusal;

/// A connection as it is entered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectionDraft)]
pub struct Draft {
    /// The integration.
    pub integration: String,
    /// The connection's name. Default `default`.
    pub connection: Option<String>,
    /// The inputs.
    #[serde(default)]
    pub inputs: Map<String, Value>,
    /// What it signs in with: one of `api_key`, `basic`, `access_key`, `none`.
    pub credential: Entered,
    /// Whether it is saved without being tried first. Default: it is tried.
    #[serde(default)]
    pub untested: bool,
}

/// What a connection signs in with, as it is entered.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EnteredCredential)]
pub enum Entered {
    /// An API key.
    ApiKey(String),
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        #[serde(default)]
        password: String,
    },
    /// An access key of AWS, for `sigv4`.
    AccessKey {
        /// Its id.
        id: String,
        /// Its secret.
        secret: String,
        /// The session token of a temporary one.
        session: Option<String>,
    },
    /// None is needed.
    None,
}

impl From<Entered> for Credential {
    fn from(entered: Entered) -> Self {
        match entered {
            Entered::ApiKey(key) => Self::ApiKey(Secret::new(key)),
            Entered::Basic { username, password } => {
                Self::Basic { username: Secret::new(username), password: Secret::new(password) }
            }
            Entered::AccessKey { id, secret, session } => {
                Self::AccessKey { id: Secret::new(id), secret: Secret::new(secret), session: session.map(Secret::new) }
            }
            Entered::None => Self::None,
        }
    }
}

/// What came of trying a connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Tried {
    /// Whether it works.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// A connection that was kept.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = SavedConnection)]
pub struct Saved {
    /// Its id.
    pub id: ConnectionId,
    /// The integration.
    pub integration: Arc<str>,
    /// Its name.
    pub connection: String,
}

/// A connection that was removed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = RemovedConnection)]
pub struct Removed {
    /// Its id.
    pub removed: ConnectionId,
    /// What becomes of its credential at the service.
    pub revocation: Revocation,
    /// How many webhook endpoints were deleted with it.
    pub webhooks: usize,
}

/// Tries a connection and keeps nothing. Answers 200 whether it works or not: `ok` says which.
#[utoipa::path(post, path = "/api/integrations/test", operation_id = "test_draft", tag = "connections", request_body = Draft,
    responses((status = 200, body = Tried), (status = 404, description = "not_found")))]
pub async fn test(State(parts): Shared, By(by): By, Sent(draft): Sent<Draft>) -> Result<Json<Tried>, Refused> {
    try_draft(&parts, &by, draft).await.map(Json)
}

/// Tries a connection and says what came of it. The audit log has it first: whoever found a key could see here whose it
/// is.
pub async fn try_draft(parts: &Parts, by: &str, draft: Draft) -> Result<Tried, Refused> {
    let (generation, integration) = find(parts, &draft.integration)?;
    note(parts, by, &integration).await?;
    let Draft { connection, inputs, credential, .. } = draft;
    let content = Content { credential: credential.into(), inputs, saved: Map::new() };
    let tried = tried(parts, (&generation, &integration), connection.as_deref(), content).await;
    Ok(Tried { ok: tried.is_ok(), diagnosis: tried.err() })
}

/// Tries a connection and, if it works, keeps it in place of one of the same name.
#[utoipa::path(post, path = "/api/integrations/save", tag = "connections", request_body = Draft,
    responses((status = 201, body = Saved), (status = 404, description = "not_found connection_unknown"),
        (status = 503, description = "connection_unusable connection_needs_reconnect connection_paused")))]
pub async fn save(
    State(parts): Shared,
    By(by): By,
    Sent(draft): Sent<Draft>,
) -> Result<(StatusCode, Json<Saved>), Refused> {
    Ok((StatusCode::CREATED, Json(keep(&parts, &by, draft).await?)))
}

/// Tries a connection and, if it works, keeps it.
pub async fn keep(parts: &Parts, by: &str, draft: Draft) -> Result<Saved, Refused> {
    let (generation, integration) = find(parts, &draft.integration)?;
    let Draft { connection, inputs, credential, untested, .. } = draft;
    let name = connection.unwrap_or_else(|| DEFAULT.to_owned());
    let content = Content { credential: credential.into(), inputs, saved: Map::new() };
    if !untested {
        note(parts, by, &integration).await?;
        let (credential, inputs) = (content.credential.copy(), content.inputs.clone());
        let copy = Content { credential, inputs, saved: Map::new() };
        let tried = tried(parts, (&generation, &integration), Some(&name), copy).await;
        // A definition without a test is no reason to refuse what cannot be tried.
        if let Err(diagnosis) = tried.or_else(|found| if found.cause == Cause::NoTest { Ok(()) } else { Err(found) }) {
            let refusal =
                if diagnosis.cause == Cause::Invalid { Refusal::InvalidInput } else { Refusal::ConnectionUnusable };
            return Err(Refused::with_help(refusal, &diagnosis.detail, diagnosis.step));
        }
    }
    let saved = parts.connections.put(by, &integration, &name, content).await;
    let id = saved.map_err(|error| {
        // What does not fit was entered just now.
        let entered = matches!(error, ConnectionError::Invalid { .. });
        Refused::new(if entered { Refusal::InvalidInput } else { error.refusal() }, &error.to_string())
    })?;
    Ok(Saved { id, integration: Arc::clone(&integration.id), connection: name })
}

/// Removes a stored connection by its id, and has its service told.
#[utoipa::path(delete, path = "/api/integrations/connections/{id}", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection")),
    responses((status = 202, body = Removed), (status = 404, description = "connection_unknown not_found"),
        (status = 409, description = "conflict"),
        (status = 503, description = "connection_unusable")))]
pub async fn remove(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<ConnectionId>,
) -> Result<(StatusCode, Json<Removed>), Refused> {
    Ok((StatusCode::ACCEPTED, Json(take_away(&parts, &by, id).await?)))
}

/// Removes a stored connection, and says what becomes of its credential at the service.
pub async fn take_away(parts: &Parts, by: &str, id: ConnectionId) -> Result<Removed, Refused> {
    let listed = parts.connections.list(&parts.live.load()).await;
    let listed = listed.map_err(|error| Refused::new(error.refusal(), &error.to_string()))?;
    let gone = || Refused::new(Refusal::ConnectionUnknown, &format!("there is no connection {id}"));
    let head = listed.into_iter().find(|head| head.id == id).ok_or_else(gone)?;
    if head.origin == Origin::Declared {
        let detail = format!("a file declares `{}/{}`: remove it there", head.integration, head.name);
        return Err(Refused::new(Refusal::Conflict, &detail));
    }
    // While the account can still sign in at its service.
    let webhooks = parts.webhooks.delete_all_of(by, (&head.integration, &head.name)).await?;
    let removed = parts.connect.remove(by, &head.integration, &head.name).await;
    match removed {
        Ok(Some(revocation)) => Ok(Removed { removed: id, revocation, webhooks }),
        Ok(None) => Err(gone()),
        Err(error) => Err(Refused::new(Refusal::StoreUnavailable, &error.to_string())),
    }
}

/// What services were told, and have yet to be told, of removed connections: those of the last week.
#[utoipa::path(get, path = "/api/integrations/revocations", tag = "connections",
    responses((status = 200, body = [Revocation]), (status = 404, description = "not_found"),
        (status = 503, description = "connection_unusable")))]
pub async fn revocations(State(parts): Shared) -> Result<Json<Vec<Revocation>>, Refused> {
    let all = parts.connect.revocations().await;
    all.map(Json).map_err(|error| Refused::new(error.refusal(), &error.to_string()))
}

fn find(parts: &Parts, id: &str) -> Result<(Arc<Generation>, Arc<Integration>), Refused> {
    let generation = parts.live.load();
    let integration = generation.integration(id).cloned();
    let integration =
        integration.ok_or_else(|| Refused::new(Refusal::NotFound, &format!("there is no integration `{id}`")))?;
    Ok((generation, integration))
}

/// Writes down that someone tries what they entered.
async fn note(parts: &Parts, by: &str, integration: &Integration) -> Result<(), Refused> {
    let (target, detail) = (format!("integration:{}", integration.id), json!({ "cause": "entered" }));
    parts.store.append(entry(parts, by, "connection.test", target, detail)).await?;
    Ok(())
}

async fn tried(
    parts: &Parts,
    (generation, integration): (&Generation, &Arc<Integration>),
    name: Option<&str>,
    content: Content,
) -> Result<(), Diagnosis> {
    let tried = try_out(&parts.outbound, (generation, integration), name.unwrap_or(DEFAULT), content).await;
    tried.map(drop).map_err(|error| Diagnosis::of(&error))
}
