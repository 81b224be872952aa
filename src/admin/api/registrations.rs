//! `/api/registrations`: applications that registered themselves at services (RFC 7591), and forgetting that.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::query::{Asked, Named};
use crate::admin::By;
use crate::admin::refusal::Refused;
use crate::connection::StoredError;
use crate::connection::flow::{Force, Forgotten, RegistrationError, RegistrationShown};
use crate::connection::grant::TokenErrorKind;
use crate::respond::Refusal;

/// Every registration; never its secrets.
#[utoipa::path(get, path = "/api/registrations", tag = "registrations",
    responses((status = 200, body = [RegistrationShown]), (status = 503, description = "connection_unusable")))]
pub async fn list(State(parts): Shared) -> Result<Json<Vec<RegistrationShown>>, Refused> {
    Ok(Json(parts.tokens.registrations().await?))
}

/// Registers the application of an integration now, unless it is registered.
#[utoipa::path(post, path = "/api/integrations/{id}/registration", tag = "registrations",
    params(("id" = String, Path, description = "The integration")),
    responses((status = 200, body = [RegistrationShown]), (status = 404, description = "not_found"),
        (status = 409, description = "conflict"),
        (status = 502, description = "definition_failed service_unreachable"),
        (status = 503, description = "connection_unusable")))]
pub async fn make(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Vec<RegistrationShown>>, Refused> {
    parts.tokens.register_now(&parts.live.load(), &id).await?;
    let mut all = parts.tokens.registrations().await?;
    all.retain(|shown| shown.integration == id);
    Ok(Json(all))
}

/// How a registration is forgotten.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Whether it is forgotten here although the service could not be asked.
    #[serde(default)]
    force: bool,
}

/// Forgets the registrations of an integration, and has the service forget them where it offers that.
#[utoipa::path(delete, path = "/api/integrations/{id}/registration", tag = "registrations",
    params(("id" = String, Path, description = "The integration"), Forget),
    responses((status = 200, body = [Forgotten]), (status = 404, description = "not_found"),
        (status = 409, description = "conflict"),
        (status = 502, description = "definition_failed service_unreachable"),
        (status = 503, description = "connection_unusable")))]
pub async fn forget(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<String>,
    Asked(asked): Asked<Forget>,
) -> Result<Json<Vec<Forgotten>>, Refused> {
    let force = if asked.force { Force::Yes } else { Force::No };
    let forgotten = parts.tokens.forget_registration(&by, (&parts.live.load(), &id), force).await?;
    if forgotten.is_empty() {
        return Err(Refused::new(Refusal::NotFound, &format!("no application is registered for `{id}`")));
    }
    Ok(Json(forgotten))
}

impl From<RegistrationError> for Refused {
    fn from(error: RegistrationError) -> Self {
        let detail = error.to_string();
        match error {
            RegistrationError::NoRegistration(_) => Self::new(Refusal::NotFound, &detail),
            RegistrationError::Call(error) => {
                let refusal = match error.kind {
                    TokenErrorKind::Misconfigured | TokenErrorKind::Permanent => Refusal::DefinitionFailed,
                    TokenErrorKind::Passing | TokenErrorKind::Unsent => Refusal::ServiceUnreachable,
                };
                Self::new(refusal, &detail)
            }
            RegistrationError::Stored(StoredError::Store(error)) => error.into(),
            RegistrationError::NoKey | RegistrationError::Stored(_) => Self::new(Refusal::ConnectionUnusable, &detail),
        }
    }
}
