//! `/api/registrations`: applications that registered themselves at services (RFC 7591), and forgetting that.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::{Asked, Named};
use crate::admin::By;
use crate::admin::refusal::Refused;
use crate::connection::StoredError;
use crate::connection::flow::{Force, RegistrationError, RegistrationShown};
use crate::connection::grant::TokenErrorKind;
use crate::respond::Refusal;

/// Every registration; never its secrets.
pub async fn list(State(parts): Shared) -> Result<Json<Vec<RegistrationShown>>, Refused> {
    Ok(Json(parts.tokens.registrations().await?))
}

/// Registers the application of an integration now, unless it is registered.
pub async fn make(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Value>, Refused> {
    parts.tokens.register_now(&parts.live.load(), &id).await?;
    let mut all = parts.tokens.registrations().await?;
    all.retain(|shown| shown.integration == id);
    Ok(Json(json!(all)))
}

/// How a registration is forgotten.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Whether it is forgotten here although the service could not be asked.
    #[serde(default)]
    force: bool,
}

/// Forgets the registrations of an integration, and has the service forget them where it offers that.
pub async fn forget(
    State(parts): Shared,
    By(by): By,
    Named(id): Named<String>,
    Asked(asked): Asked<Forget>,
) -> Result<Json<Value>, Refused> {
    let force = if asked.force { Force::Yes } else { Force::No };
    let forgotten = parts.tokens.forget_registration(&by, (&parts.live.load(), &id), force).await?;
    if forgotten.is_empty() {
        return Err(Refused::new(Refusal::NotFound, &format!("no application is registered for `{id}`")));
    }
    Ok(Json(json!(forgotten)))
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
