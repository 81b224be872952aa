//! The application registers itself at a service (RFC 7591): once, whoever asks first, and kept sealed.
//!
//! It registers when somebody is about to connect an account, never when a token is renewed: tokens belong
//! to the application that they were given to. An integration has one registration at each registration
//! endpoint. Who asks at once waits for the one call; the record of it is durable before the call is made, so
//! that a second process does not make another.

mod call;
mod manage;
mod record;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value as Json, json};

use super::TokenCalls;
use super::scene::{Scene, misconfigured};
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::connection::Connections;
use crate::connection::grant::{Account, TokenError, TokenErrorKind};
use crate::connection::stored::{Stored, StoredError};
use crate::connection::vault::Sealed;
use crate::definition::plan::oauth2::{Client, ClientAuth, Registration};
use crate::store::StoreError;
use crate::store::model::{AuditEntry, RecordKey};
use crate::template::Text;
pub use manage::{Force, Forgotten, RegistrationError, RegistrationShown};
use record::{LEASE, Record, Registered, State};

/// The collection of sealed records that this part keeps.
pub const SEALED: Sealed = Sealed { collection: record::COLLECTION, field: record::FIELD };

/// Whether the application may register itself for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It may: somebody is about to connect an account.
    MayRegister,
    /// It must have done so before.
    Known,
}

/// An application as a service knows it.
#[derive(Debug)]
pub(super) struct Known {
    /// Its own credentials.
    pub client: Client,
    /// How it proves itself.
    pub way: ClientAuth,
}

/// What registers.
#[derive(Default)]
pub(super) struct Registrations {
    /// Where registrations are kept; none where nothing is.
    connections: Option<Arc<Connections>>,
    /// This process, in records.
    holder: String,
    turns: Mutex<HashMap<RecordKey, Weak<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for Registrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrations").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Registrations {
    pub fn keeping(connections: Arc<Connections>, random: &dyn Random) -> Self {
        let mut bytes = [0_u8; 16];
        // Without a name of its own a process takes its own cut-off calls for another's, and waits for them.
        let named = random.fill(&mut bytes).is_ok();
        let holder = bytes.iter().fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        let holder = if named { holder } else { String::new() };
        Self { connections: Some(connections), holder, turns: Mutex::default() }
    }

    fn stored(&self) -> Option<&Stored> {
        self.connections.as_ref()?.stored()
    }

    /// The turn of one registration: who holds it may call, the others wait.
    fn turn(&self, key: &RecordKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }
}

impl TokenCalls {
    /// What a call is made with, the application's own credentials among it where it registers itself.
    pub(super) async fn scene<'a>(&self, account: Account<'a>, need: Need) -> Result<Scene<'a>, TokenError> {
        let mut scene = Scene::of(account)?;
        scene.happen_at(self.parts.clock.now(), Arc::clone(&self.parts.random));
        if let Some(plan) = registers(scene.oauth2.registration.as_ref(), scene.oauth2.client.as_ref()) {
            let known = Box::pin(self.known(&mut scene, plan, need)).await?;
            scene.act_as(known);
        }
        Ok(scene)
    }

    async fn known(&self, scene: &mut Scene<'_>, plan: &Registration, need: Need) -> Result<Option<Known>, TokenError> {
        let stored = self.registrations.stored().ok_or_else(|| {
            misconfigured(
                "the application cannot register itself: without a master key (`secrets.key`) nothing is kept",
            )
        })?;
        let endpoint = self.registration_endpoint(scene, plan).await?;
        let url = endpoint.render(&scene.context());
        let url = url.map_err(|error| misconfigured(format!("`registration.url`: {error}")))?;
        let key = record::key(&scene.account.integration.id, &url);
        let turn = self.registrations.turn(&key);
        let _turn = turn.lock().await;
        let (found, version) = match record::read(stored, &key).await.map_err(|error| unkept(&error))? {
            Some((record, version)) => (Some(record), version),
            None => (None, 0),
        };
        let now = self.parts.clock.now();
        match found {
            Some(Record { state: State::Registered(registered), redirect_uri, .. }) if !registered.has_ended(now) => {
                if need == Need::MayRegister {
                    same_address(scene, &redirect_uri)?;
                }
                Ok(Some(usable(scene, &registered)))
            }
            Some(Record { state: State::Asked { until, holder }, .. })
                if until > now && (holder != self.registrations.holder || holder.is_empty()) =>
            {
                Err(under_way(until.since(now)))
            }
            _ if need == Need::Known => Ok(None),
            _ => {
                let registered = self.register(scene, (plan, &endpoint, url), (stored, &key, version)).await?;
                Ok(Some(usable(scene, &registered)))
            }
        }
    }

    async fn registration_endpoint(&self, scene: &Scene<'_>, plan: &Registration) -> Result<Text, TokenError> {
        if let Some(url) = &plan.url {
            return Ok(url.clone());
        }
        let found = self.endpoints(scene).await?;
        let told = found.as_ref().and_then(|found| found.registration.clone());
        told.ok_or_else(|| {
            misconfigured("neither `registration.url` nor the issuer's metadata say where applications register")
        })
    }

    /// Registers, with the intent on disk before and the outcome after.
    async fn register(
        &self,
        scene: &mut Scene<'_>,
        (plan, endpoint, url): (&Registration, &Text, String),
        (stored, key, version): (&Stored, &RecordKey, u64),
    ) -> Result<Registered, TokenError> {
        let (now, redirect_uri) = (self.parts.clock.now(), scene.account.redirect_uri());
        let integration = Arc::clone(&scene.account.integration.id);
        let detail = json!({ "endpoint": url, "redirect_uri": redirect_uri });
        note(stored, ("system", "registration.begin"), &integration, detail).await.map_err(|error| unkept(&error))?;
        let state = State::Asked { holder: self.registrations.holder.clone(), until: now.after(LEASE) };
        let mut record = Record { endpoint: url, redirect_uri: redirect_uri.clone(), at: now, state };
        let version = match record::write(stored, key, &record, version).await {
            Ok(version) => version,
            Err(StoredError::Store(StoreError::Conflict(_))) => return Err(under_way(LEASE)),
            Err(error) => return Err(unkept(&error)),
        };
        let called = call::register(&self.parts, scene, (plan, endpoint), &redirect_uri).await;
        self.count((&integration, super::Stage::Registration.field()), called.as_ref().map(drop));
        let registered = match called {
            Ok(registered) => registered,
            Err(error) => {
                let detail = json!({ "error": error.to_string() });
                let told = note(stored, ("system", "registration.fail"), &integration, detail).await;
                let removed = stored.records().remove(key).await;
                if let Err(error) = told.and(removed.map_err(StoredError::Store)) {
                    tracing::warn!(integration = &*integration, "a registration that failed is not noted: {error}");
                }
                return Err(error.of_registration());
            }
        };
        let ends = registered.secret_expires_at.map(|end| end.to_string());
        let detail = json!({ "client_id": registered.client_id, "secret_expires_at": ends });
        tracing::info!(integration = &*integration, "{integration} registered this application");
        (record.at, record.state) = (self.parts.clock.now(), State::Registered(Box::new(registered)));
        let kept = record::write(stored, key, &record, version).await;
        kept.map_err(|error| unkept(&error))?;
        if let Err(error) = note(stored, ("system", "registration.done"), &integration, detail).await {
            tracing::error!(integration = &*integration, "the audit log refused `registration.done`: {error}");
        }
        match record.state {
            State::Registered(registered) => Ok(*registered),
            State::Asked { .. } => Err(misconfigured("the registration has no outcome")),
        }
    }
}

/// An application that the deployment names itself does not register.
fn registers<'a>(plan: Option<&'a Registration>, client: Option<&Client>) -> Option<&'a Registration> {
    plan.filter(|_| client.is_none())
}

fn usable(scene: &Scene<'_>, registered: &Registered) -> Known {
    let declared = scene.oauth2.client_auth;
    let way = registered.method.as_deref().and_then(|method| call::way_of(method, declared)).unwrap_or(declared);
    let secret = registered.client_secret.as_ref().map(|secret| Secret::from(secret.expose().as_str()));
    Known { client: Client { id: registered.client_id.clone(), secret, certificate: None }, way }
}

/// The service sends people back to the registered address only.
fn same_address(scene: &Scene<'_>, registered: &str) -> Result<(), TokenError> {
    let (now, id) = (scene.account.redirect_uri(), &scene.account.integration.id);
    if now == registered {
        return Ok(());
    }
    Err(misconfigured(format!(
        "the application is registered with the redirect address `{registered}`, and it is `{now}` now: forget the \
         registration (`trunkline registrations forget {id}`), and it registers anew; accounts that were connected with it \
         have to be connected again then"
    )))
}

fn under_way(wait: std::time::Duration) -> TokenError {
    let words = format!(
        "the application is being registered by another process, or was when that ended; try again in {} s",
        wait.as_secs().max(1)
    );
    TokenError { retry_after: Some(wait), ..TokenError::new(TokenErrorKind::Unsent, words) }
}

fn unkept(error: &StoredError) -> TokenError {
    TokenError::new(TokenErrorKind::Unsent, format!("the application's registration cannot be kept or read: {error}"))
}

async fn note(
    stored: &Stored,
    (actor, action): (&str, &str),
    integration: &str,
    detail: Json,
) -> Result<(), StoredError> {
    let (actor, action, target) = (actor.to_owned(), action.to_owned(), format!("integration:{integration}"));
    Ok(stored.append(AuditEntry { at: stored.now(), actor, action, target, detail }).await?)
}
