//! Managed endpoints, made, changed and taken down: here, and at their services where definitions say how.
//!
//! [`subscribe`] has the calls, [`leave`] what services have yet to be told, [`secret`] what secrets look like. What is
//! kept, and how an endpoint is found by the public door, is `connection::endpoints`. Called by `admin`.

mod leave;
mod secret;
mod subscribe;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value as Json, json};
use tokio::sync::Notify;

use super::tally::Tallies;
use crate::base::clock::Clock;
use crate::base::id::WebhookId;
use crate::base::plain::is_plain;
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::connection::endpoints::{Deed, Endpoint, EndpointError, Endpoints, NewEndpoint, Subscription};
use crate::connection::{ConnectionError, Connections};
use crate::definition::live::{Generation, Live};
use crate::definition::plan::webhook::{Verify, Webhook};
use crate::outbound::Outbound;
use crate::queue::identity::LONGEST;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::telemetry::metrics::Metrics;
use subscribe::{Failed, Left, Scene};

/// How long former secrets count after a rotation where nobody says.
pub const OVERLAP: Duration = Duration::from_hours(24);
/// The longest that they may count.
pub const OVERLAP_MOST: Duration = Duration::from_hours(30 * 24);
/// The most event types of an endpoint.
const TYPES_MOST: usize = 100;
/// The value that a service's answer is kept under where it makes the secret itself.
const SECRET: &str = "secret";

/// What endpoints are managed with.
#[derive(Clone)]
pub struct Parts {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// The endpoints.
    pub endpoints: Arc<Endpoints>,
    /// What came to them.
    pub tallies: Arc<Tallies>,
    /// Which connections there are.
    pub connections: Arc<Connections>,
    /// The way to services.
    pub outbound: Arc<Outbound>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for secrets.
    pub random: Arc<dyn Random>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
}

/// Manages endpoints.
pub struct Managed {
    parts: Parts,
    due: Notify,
}

impl fmt::Debug for Managed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Managed").field("endpoints", &self.parts.endpoints).finish_non_exhaustive()
    }
}

/// An endpoint that is wanted.
#[derive(Debug)]
pub struct Wanted {
    /// The integration.
    pub integration: String,
    /// The connection.
    pub connection: String,
    /// The types that are taken, `*` standing for any text; all when it is empty.
    pub event_types: Vec<String>,
    /// What `register` and `unregister` see as `input`.
    pub input: Map<String, Json>,
    /// Its secret; without it one is made.
    pub secret: Option<Secret>,
    /// Whether the service is told; without it, where the definition says how.
    pub register: Option<bool>,
}

/// What of an endpoint is changed.
#[derive(Debug, Default)]
pub struct Change {
    /// Whether what arrives is worked on.
    pub enabled: Option<bool>,
    /// The types that are taken.
    pub event_types: Option<Vec<String>>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    /// The endpoint could not be found, made or changed.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The connection could not be looked up.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// There is no such connection.
    #[error("there is no connection `{0}/{1}`")]
    NoConnection(String, String),
    /// The definition takes no webhooks.
    #[error("the definition of `{0}` takes no webhooks")]
    NoWebhook(String),
    /// The definition's scheme is not run.
    #[error("{0}")]
    NotYet(String),
    /// Something that was entered is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It does not go with how things stand.
    #[error("{0}")]
    Conflict(String),
    /// The service did not do its part.
    #[error("{}", .0.words)]
    Service(Box<Unsubscribed>),
}

/// A service that did not take a subscription.
#[derive(Debug)]
pub struct Unsubscribed {
    /// What happened, in words, the service's own among them.
    pub words: String,
    /// What to do about it.
    pub help: &'static str,
    /// What the gateway answers because of it.
    pub refusal: Refusal,
    /// The endpoint, where one was kept.
    pub endpoint: Option<WebhookId>,
}

impl From<StoreError> for ManagedError {
    fn from(error: StoreError) -> Self {
        Self::Endpoint(error.into())
    }
}

/// Sends a sample event to an endpoint, signed as its definition says, through the public door.
#[async_trait]
pub trait Sample: Send + Sync + 'static {
    /// Sends one; without a type the first that the endpoint takes. Gives the door's answer.
    ///
    /// # Errors
    /// Why none could be made or sent, in words.
    async fn send(&self, endpoint: &Endpoint, event_type: Option<&str>) -> Result<Sampled, String>;
}

/// What became of a sample event.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// Its type.
    pub event_type: String,
    /// The door's status.
    pub status: u16,
    /// The door's answer: JSON where it is JSON, else text.
    pub answer: Json,
    /// How long it took.
    pub took: Duration,
}

impl Managed {
    /// Manages these endpoints.
    pub fn new(parts: Parts) -> Self {
        Self { parts, due: Notify::new() }
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &Endpoints {
        &self.parts.endpoints
    }

    /// What came to them.
    pub fn tallies(&self) -> &Tallies {
        &self.parts.tallies
    }

    /// Makes an endpoint, and has its service send events to it where that is wanted.
    ///
    /// # Errors
    /// When something entered is wrong, the store fails, or the service did not do its part. What it leaves then is
    /// taken down again, or said.
    pub async fn create(&self, actor: &str, wanted: Wanted) -> Result<Arc<Endpoint>, ManagedError> {
        let generation = self.parts.live.load();
        let scene = scene_of(&generation, &wanted.integration)?;
        self.is_connected(&generation, &wanted).await?;
        are_types(&wanted.event_types)?;
        let webhook = scene.webhook;
        let told = wanted.register.unwrap_or(!webhook.register.is_empty());
        if told && webhook.register.is_empty() {
            let words = format!("the definition of `{}` has no `webhook.register`", wanted.integration);
            return Err(ManagedError::Conflict(words));
        }
        let secret = match wanted.secret {
            Some(secret) => entered(webhook, secret)?,
            None => self.fresh(webhook)?,
        };
        let at = self.parts.clock.now();
        let new = NewEndpoint {
            integration: &wanted.integration,
            connection: &wanted.connection,
            event_types: wanted.event_types,
            input: wanted.input,
            secret,
            subscription: if told { Subscription::Asked { at } } else { Subscription::ByHand },
            most: generation.gateway.limits.webhook_endpoints,
        };
        let made = self.parts.endpoints.make(actor, new).await;
        if matches!(made, Err(EndpointError::TooMany(_))) {
            self.parts.metrics.admin_limits_reached.with_label_values(&["webhook_endpoints"]).inc();
        }
        let endpoint = made?;
        if told { self.register(scene, &endpoint).await } else { Ok(endpoint) }
    }

    async fn register(&self, scene: Scene<'_>, endpoint: &Arc<Endpoint>) -> Result<Arc<Endpoint>, ManagedError> {
        let (mut saved, told) = self.subscribe(scene, endpoint).await;
        let label = if told.is_ok() { "ok" } else { "failed" };
        self.parts.metrics.webhook_subscriptions.with_label_values(&[&*endpoint.integration, "register", label]).inc();
        let made = saved.remove(SECRET).and_then(|made| made.as_str().map(Secret::from));
        if let Err(failed) = told {
            return Err(self.not_registered(endpoint, saved, failed).await?);
        }
        if made.as_ref().is_some_and(|made| !secret::fits(&scene.webhook.verify, made)) {
            let words = "the service made a secret that the definition's scheme cannot use".to_owned();
            let failed = Failed { words, refusal: Refusal::ServiceAnswerInvalid, passing: false, left: Left::Part };
            return Err(self.not_registered(endpoint, saved, failed).await?);
        }
        let now = self.parts.clock.now();
        let deed = Deed { actor: "system", action: "webhook.register" };
        let detail = json!({ "subscription": saved.get("id") });
        let changed = self.parts.endpoints.change(endpoint.id, deed, detail, |record| {
            record.saved = saved;
            record.subscription = Subscription::Registered { at: now };
            if let Some(made) = made {
                record.take_secret(made, now);
            }
        });
        Ok(changed.await?)
    }

    /// Leaves nothing behind where the service has nothing, has what it has taken down where that is known, and else
    /// keeps the endpoint and says so.
    async fn not_registered(
        &self,
        endpoint: &Endpoint,
        saved: Map<String, Json>,
        failed: Failed,
    ) -> Result<ManagedError, EndpointError> {
        let Failed { words, refusal, left, .. } = failed;
        let deed = Deed { actor: "system", action: "webhook.register_failed" };
        let detail = json!({ "error": words });
        let (help, kept) = match left {
            Left::Nothing => {
                self.parts.endpoints.forget(endpoint.id, deed, detail).await?;
                ("nothing was kept: mend the cause and make the endpoint again", None)
            }
            Left::Part => {
                let subscription = leave::leaving(self.parts.clock.now());
                let changed = self.parts.endpoints.change(endpoint.id, deed, detail, |record| {
                    (record.saved, record.subscription) = (saved, subscription);
                });
                changed.await?;
                self.due.notify_one();
                ("what the service has of it is being taken down", None)
            }
            Left::Unknown => {
                let subscription = Subscription::Unknown { error: words.clone() };
                let changed = self.parts.endpoints.change(endpoint.id, deed, detail, |record| {
                    (record.saved, record.subscription) = (saved, subscription);
                });
                changed.await?;
                ("the service may have it: look there, then keep this endpoint or delete it", Some(endpoint.id))
            }
        };
        Ok(ManagedError::Service(Box::new(Unsubscribed { words, help, refusal, endpoint: kept })))
    }

    /// Changes what an endpoint takes and whether it is worked on.
    ///
    /// # Errors
    /// When there is none, a type is wrong, or the store fails.
    pub async fn set(&self, actor: &str, id: WebhookId, change: Change) -> Result<Arc<Endpoint>, ManagedError> {
        self.present(id)?;
        if let Some(types) = &change.event_types {
            are_types(types)?;
        }
        let action = match change.enabled {
            Some(true) => "webhook.enable",
            Some(false) => "webhook.disable",
            None => "webhook.change",
        };
        let detail = json!({ "enabled": change.enabled, "event_types": change.event_types });
        let changed = self.parts.endpoints.change(id, Deed { actor, action }, detail, |record| {
            record.enabled = change.enabled.unwrap_or(record.enabled);
            if let Some(types) = change.event_types {
                record.event_types = types;
            }
        });
        Ok(changed.await?)
    }

    /// Gives an endpoint another secret; those before it count for `overlap` more.
    ///
    /// # Errors
    /// When there is none, the secret or the time is wrong, the service makes its secrets itself and none was given,
    /// or the store fails.
    pub async fn rotate(
        &self,
        actor: &str,
        id: WebhookId,
        (given, overlap): (Option<Secret>, Duration),
    ) -> Result<Arc<Endpoint>, ManagedError> {
        let endpoint = self.present(id)?;
        let generation = self.parts.live.load();
        let webhook = scene_of(&generation, &endpoint.integration)?.webhook;
        if overlap > OVERLAP_MOST {
            return Err(ManagedError::Invalid("`overlap` is at most 30d".to_owned()));
        }
        let theirs = webhook.register.iter().any(|request| request.save.iter().any(|(name, _)| name == SECRET));
        let registered = matches!(endpoint.subscription, Subscription::Registered { .. });
        let secret = match given {
            Some(secret) => entered(webhook, secret)?,
            None if theirs && registered => {
                let words = "the service makes this secret: roll it there, and give the new one as `secret`";
                return Err(ManagedError::Conflict(words.to_owned()));
            }
            None => self.fresh(webhook)?,
        };
        let now = self.parts.clock.now();
        let ends = now.after(overlap);
        let crowded = |endpoint: &Endpoint| {
            let first = endpoint.crowded_until(ends, now)?;
            Some(ManagedError::Conflict(format!(
                "four secrets count at once, and there are four: the first ends at {first}; rotate again then, or with \
                 `overlap: 0s`, which ends all former ones now"
            )))
        };
        if let Some(refused) = crowded(&endpoint) {
            return Err(refused);
        }
        let (is_rotated, detail) = (AtomicBool::new(false), json!({ "former_until": ends.to_string() }));
        let changed = self.parts.endpoints.change(id, Deed { actor, action: "webhook.rotate" }, detail, |record| {
            // Where others rotated meanwhile, none of theirs ends before its time.
            if !record.is_crowded(ends, now) {
                record.rotate(secret, ends, now);
                is_rotated.store(true, Ordering::Relaxed);
            }
        });
        let changed = changed.await?;
        crowded(&changed).filter(|_| !is_rotated.load(Ordering::Relaxed)).map_or(Ok(changed), Err)
    }

    /// Shows an endpoint's newest secret, after the audit log has it that it was shown.
    ///
    /// # Errors
    /// When there is none, or the audit log cannot be written.
    pub async fn reveal(&self, actor: &str, id: WebhookId) -> Result<Arc<Endpoint>, ManagedError> {
        let endpoint = self.present(id)?;
        let deed = Deed { actor, action: "webhook.reveal" };
        self.parts.endpoints.note(&endpoint, deed, json!(null)).await?;
        Ok(endpoint)
    }

    /// Writes to the audit log that a sample event is about to be sent.
    ///
    /// # Errors
    /// When the audit log cannot be written.
    pub async fn note_test(&self, actor: &str, endpoint: &Endpoint) -> Result<(), ManagedError> {
        let deed = Deed { actor, action: "webhook.test" };
        Ok(self.parts.endpoints.note(endpoint, deed, json!(null)).await?)
    }

    /// Deletes an endpoint: from now on its address takes nothing. Its service is told where the definition says how.
    /// One that is gone already, and only waits for its service, is forgotten. Gives it as it is then, where something
    /// of it is left.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn delete(&self, actor: &str, id: WebhookId) -> Result<Option<Arc<Endpoint>>, ManagedError> {
        let leaving = self.end(actor, id).await?;
        if leaving.is_some() {
            self.due.notify_one();
        }
        Ok(leaving)
    }

    /// Deletes an endpoint, and leaves it to the caller to have its service told at once.
    async fn end(&self, actor: &str, id: WebhookId) -> Result<Option<Arc<Endpoint>>, ManagedError> {
        let endpoint = self.parts.endpoints.get(id)?;
        let generation = self.parts.live.load();
        let declared = Scene::of(&generation, &endpoint.integration);
        let declared = declared.is_some_and(|scene| !scene.webhook.unregister.is_empty());
        let deed = Deed { actor, action: "webhook.delete" };
        let is_there = !endpoint.subscription.is_gone() && endpoint.subscription != Subscription::ByHand;
        if is_there && declared {
            let subscription = leave::leaving(self.parts.clock.now());
            let changed =
                self.parts.endpoints.change(id, deed, json!(null), |record| record.subscription = subscription);
            return Ok(Some(changed.await?));
        }
        self.parts.endpoints.forget(id, deed, json!(null)).await?;
        self.parts.tallies.forget(id).await?;
        Ok(None)
    }

    /// Deletes every endpoint of a connection that is about to be removed, and tells its service at once: afterwards
    /// nobody can sign in there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_all_of(
        &self,
        actor: &str,
        (integration, connection): (&str, &str),
    ) -> Result<usize, ManagedError> {
        let all = self.parts.endpoints.all();
        let theirs = all.iter().filter(|one| *one.integration == *integration && *one.connection == *connection);
        let mut deleted = 0;
        for endpoint in theirs.filter(|one| !one.subscription.is_gone()) {
            if let Some(leaving) = self.end(actor, endpoint.id).await? {
                match self.tell(&leaving).await {
                    // Whoever looks for what is due has told it in the same moment.
                    Ok(()) | Err(EndpointError::Unknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            deleted += 1;
        }
        Ok(deleted)
    }

    /// The address of an endpoint, as its service is told it.
    pub fn url(&self, endpoint: &Endpoint) -> String {
        let gateway = Arc::clone(&self.parts.live.load().gateway);
        format!("{}{}", gateway.public_url.as_str().trim_end_matches('/'), endpoint.path())
    }

    fn present(&self, id: WebhookId) -> Result<Arc<Endpoint>, ManagedError> {
        let endpoint = self.parts.endpoints.get(id)?;
        if endpoint.subscription.is_gone() { Err(EndpointError::Unknown(id).into()) } else { Ok(endpoint) }
    }

    fn fresh(&self, webhook: &Webhook) -> Result<Secret, ManagedError> {
        secret::fresh(&webhook.verify, &*self.parts.random).map_err(|error| EndpointError::from(error).into())
    }

    async fn is_connected(&self, generation: &Generation, wanted: &Wanted) -> Result<(), ManagedError> {
        let all = self.parts.connections.list(generation).await?;
        let known = all.iter().any(|head| head.integration == wanted.integration && head.name == wanted.connection);
        let unknown = || ManagedError::NoConnection(wanted.integration.clone(), wanted.connection.clone());
        if known { Ok(()) } else { Err(unknown()) }
    }
}

fn scene_of<'a>(generation: &'a Generation, id: &str) -> Result<Scene<'a>, ManagedError> {
    let scene = Scene::of(generation, id).ok_or_else(|| ManagedError::NoWebhook(id.to_owned()))?;
    match &scene.webhook.verify {
        Verify::NotYet(part) => Err(ManagedError::NotYet(part.to_string())),
        Verify::Hmac(_) | Verify::Token(_) | Verify::Basic { .. } => Ok(scene),
    }
}

fn entered(webhook: &Webhook, secret: Secret) -> Result<Secret, ManagedError> {
    if secret::fits(&webhook.verify, &secret) {
        return Ok(secret);
    }
    let words = "`secret` is not in the form that the definition's scheme wants: 8 to 512 visible ASCII characters";
    Err(ManagedError::Invalid(words.to_owned()))
}

fn are_types(types: &[String]) -> Result<(), ManagedError> {
    let fits = |text: &String| !text.is_empty() && text.len() <= LONGEST && text.chars().all(is_plain);
    if types.len() <= TYPES_MOST && types.iter().all(fits) {
        return Ok(());
    }
    let words = format!("`eventTypes` has at most {TYPES_MOST} types of 1 to {LONGEST} printable bytes");
    Err(ManagedError::Invalid(words))
}
