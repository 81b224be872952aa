//! Registrations as an operator sees them: shown, made at once, forgotten.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::call::{self, Deleted};
use super::record::{self, Record, Registered, State};
use super::{Need, note, registers};
use crate::base::clock::Timestamp;
use crate::connection::flow::TokenCalls;
use crate::connection::flow::scene::Scene;
use crate::connection::grant::{Account, TokenError};
use crate::connection::stored::StoredError;
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Input, Integration};
use crate::store::StoreError;

/// A registration, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RegistrationShown {
    /// The integration.
    pub integration: String,
    /// `registered`, `asked` while a call is under way, or `ended` once the secret has.
    pub state: &'static str,
    /// Where the application is registered.
    pub endpoint: String,
    /// Its id there.
    pub client_id: Option<String>,
    /// Where people are sent back to.
    pub redirect_uri: String,
    /// When it was registered, or the call begun.
    pub at: String,
    /// When its secret ends; `None` when it does not, or there is none.
    pub secret_expires_at: Option<String>,
    /// Whether the service offers to forget it (RFC 7592).
    pub revocable: bool,
}

/// What became of a registration that was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Forgotten {
    /// The application's id at the service; `None` where no call had come back with one.
    pub client_id: Option<String>,
    /// What the service did: `deleted`, `not_offered`, `refused`, or `not_reached`.
    pub service: &'static str,
}

/// Why nothing was done with a registration.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistrationError {
    /// There is no such integration, or its application does not register itself.
    #[error("`{0}` has no `registration`, or names its application's `client` itself")]
    NoRegistration(String),
    /// Nothing is kept without a master key.
    #[error("without a master key nothing can be kept: name one under `secrets.key`")]
    NoKey,
    /// The service refused, or could not be asked.
    #[error("{0}")]
    Call(Box<TokenError>),
    /// The store failed, or the record does not open.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

impl From<StoreError> for RegistrationError {
    fn from(error: StoreError) -> Self {
        Self::Stored(StoredError::Store(error))
    }
}

/// Whether a registration is forgotten although its service could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is kept.
    No,
    /// It is.
    Yes,
}

impl TokenCalls {
    /// Every registration that is kept.
    ///
    /// # Errors
    /// When the store fails, or a record does not open.
    pub async fn registrations(&self) -> Result<Vec<RegistrationShown>, RegistrationError> {
        let Some(stored) = self.registrations.stored() else { return Ok(Vec::new()) };
        let mut shown = Vec::new();
        for key in record::keys(stored, None).await? {
            if let Some((record, _)) = record::read(stored, &key).await? {
                let integration = key.key.split('/').next().unwrap_or_default();
                shown.push(describe(integration, &record, self.parts.clock.now()));
            }
        }
        Ok(shown)
    }

    /// Registers the application of an integration now, unless it is registered.
    ///
    /// # Errors
    /// When the integration has no registration, or it did not come about.
    pub async fn register_now(&self, generation: &Generation, id: &str) -> Result<(), RegistrationError> {
        let integration = registering(generation, id)?;
        self.registrations.stored().ok_or(RegistrationError::NoKey)?;
        let (inputs, saved) = (defaults(integration), Map::new());
        let account = Account { generation, integration, connection: "", inputs: &inputs, saved: &saved };
        let scene = self.scene(account, Need::MayRegister).await;
        scene.map(drop).map_err(|error| RegistrationError::Call(Box::new(error)))
    }

    /// Forgets the registrations of an integration, and has the service forget them where it offers that. The
    /// tokens of connections that were made with them cannot be renewed any more. A service that cannot be
    /// asked keeps its registration from being forgotten, unless `force` says that this does not matter.
    ///
    /// # Errors
    /// When there is none, the service could not be asked, or the store fails.
    pub async fn forget_registration(
        &self,
        actor: &str,
        (generation, id): (&Generation, &str),
        force: Force,
    ) -> Result<Vec<Forgotten>, RegistrationError> {
        let stored = self.registrations.stored().ok_or(RegistrationError::NoKey)?;
        let mut forgotten = Vec::new();
        for key in record::keys(stored, Some(id)).await? {
            let turn = self.registrations.turn(&key);
            let _turn = turn.lock().await;
            let Some((record, _)) = record::read(stored, &key).await? else { continue };
            let (client_id, service) = match &record.state {
                State::Asked { .. } => (None, "not_offered"),
                State::Registered(registered) => {
                    (Some(registered.client_id.clone()), self.delete_at(generation, id, registered, force).await?)
                }
            };
            note(stored, (actor, "registration.forget"), id, json!({ "client_id": client_id, "service": service }))
                .await?;
            stored.records().remove(&key).await?;
            forgotten.push(Forgotten { client_id, service });
        }
        Ok(forgotten)
    }

    async fn delete_at(
        &self,
        generation: &Generation,
        id: &str,
        registered: &Registered,
        force: Force,
    ) -> Result<&'static str, RegistrationError> {
        let place = registered.management.as_deref().zip(registered.management_token.as_ref());
        let (Some(place), Some(integration)) = (place, generation.integration(id)) else { return Ok("not_offered") };
        let (inputs, saved) = (Map::new(), Map::new());
        let account = Account { generation, integration, connection: "", inputs: &inputs, saved: &saved };
        let Ok(mut scene) = Scene::of(account) else { return Ok("not_offered") };
        match call::delete(&self.parts, &mut scene, place).await {
            Ok(Deleted::Yes) => Ok("deleted"),
            Ok(Deleted::NotDone) => Ok("refused"),
            Err(_) if force == Force::Yes => Ok("not_reached"),
            Err(error) => Err(RegistrationError::Call(Box::new(error))),
        }
    }
}

fn registering<'a>(generation: &'a Generation, id: &str) -> Result<&'a Arc<Integration>, RegistrationError> {
    let known = generation.integration(id).filter(|integration| match &integration.auth {
        Auth::OAuth2(oauth2) => registers(oauth2.registration.as_ref(), oauth2.client.as_ref()).is_some(),
        _ => false,
    });
    known.ok_or_else(|| RegistrationError::NoRegistration(id.to_owned()))
}

/// The inputs of an account that tells nothing.
fn defaults(integration: &Integration) -> Map<String, Json> {
    let default = |input: &Input| Some((input.name.to_string(), Json::from(input.default.clone()?)));
    integration.inputs.iter().filter_map(default).collect()
}

fn describe(integration: &str, record: &Record, now: Timestamp) -> RegistrationShown {
    let registered = match &record.state {
        State::Registered(registered) => Some(registered),
        State::Asked { .. } => None,
    };
    RegistrationShown {
        integration: integration.to_owned(),
        state: match registered {
            None => "asked",
            Some(registered) if registered.has_ended(now) => "ended",
            Some(_) => "registered",
        },
        endpoint: record.endpoint.clone(),
        client_id: registered.map(|registered| registered.client_id.clone()),
        redirect_uri: record.redirect_uri.clone(),
        at: record.at.to_string(),
        secret_expires_at: registered.and_then(|registered| registered.secret_expires_at).map(|end| end.to_string()),
        revocable: registered.is_some_and(|registered| registered.management.is_some()),
    }
}
