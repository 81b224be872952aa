//! Managed webhook endpoints: addresses of a connection's own, each with secrets of its own.
//!
//! Each is one sealed record; all of them are held in memory, because the public door asks for one with every request.
//! Every change is in the audit log first, then durable, then in force. An endpoint is found by its token's digest, so
//! that the time of a look-up tells nothing of any token. What services are told is `webhook::managed`.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::enclosed::Enclosed;
use super::vault::{OpenError, Sealed, Vault};
use crate::base::clock::{Clock, Timestamp};
use crate::base::id::WebhookId;
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::definition::plan::rule::Glob;
use crate::definition::plan::webhook::WebhookSecret;
use crate::store::model::{AuditEntry, RecordKey, endpoint_name};
use crate::store::{Audit, Records, StoreError};
pub use record::Record;

const COLLECTION: &str = "webhook_endpoints";
const FIELD: &str = "content";
/// Random bytes of a token.
const TOKEN: usize = 24;

/// The collection of sealed endpoints.
pub const SEALED: Sealed = Sealed { collection: COLLECTION, field: FIELD };

/// What the events of an endpoint that is not enabled wait in.
pub trait Holding: fmt::Debug + Send + Sync + 'static {
    /// Holds the events of this endpoint back; it is named as events name it.
    fn hold(&self, endpoint: &str);
    /// Lets them go.
    fn let_go(&self, endpoint: &str);
}

/// What the service knows of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", deny_unknown_fields)]
pub enum Subscription {
    /// A person sets it up there: the definition does not say how, or that was not wanted.
    ByHand,
    /// The service is being told; after a crash it is not known whether it was.
    Asked {
        /// Since when.
        at: Timestamp,
    },
    /// It sends its events here.
    Registered {
        /// Since when.
        at: Timestamp,
    },
    /// It is not known whether it does.
    Unknown {
        /// What went wrong.
        error: String,
    },
    /// The endpoint is gone here, and the service has yet to be told.
    Leaving {
        /// When the endpoint was deleted.
        at: Timestamp,
        /// How often the service was asked.
        attempts: u32,
        /// When it is asked next.
        next: Timestamp,
        /// What went wrong the last time.
        error: Option<String>,
    },
    /// The endpoint is gone here, and the service could not be told: a person has to take it down there.
    Left {
        /// Since when.
        at: Timestamp,
        /// Why not.
        error: String,
    },
}

impl Subscription {
    /// Whether the endpoint itself is gone.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Leaving { .. } | Self::Left { .. })
    }
}

/// An endpoint in force.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id.
    pub id: WebhookId,
    /// The integration whose webhooks it takes.
    pub integration: Arc<str>,
    /// The connection that its events carry.
    pub connection: Arc<str>,
    /// How its events name it.
    pub name: Arc<str>,
    token: Secret,
    /// Its secrets, newest first.
    pub secrets: Vec<WebhookSecret>,
    /// Whether what arrives is worked on; while it is not, what arrives is kept.
    pub enabled: bool,
    /// The types that are taken; all when it is empty.
    pub event_types: Vec<Glob>,
    /// What the requests that set it up see as `input`.
    pub input: Map<String, Json>,
    /// What the service's answers gave to keep.
    pub saved: Map<String, Json>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its secret was last replaced by a person.
    pub rotated_at: Option<Timestamp>,
    /// What the service knows of it.
    pub subscription: Subscription,
}

impl Endpoint {
    /// Its path at the public door.
    pub fn path(&self) -> String {
        format!("/webhooks/{}/{}", self.integration, self.token.expose())
    }

    /// Whether events of this type are taken.
    pub fn takes(&self, event_type: &str) -> bool {
        self.event_types.is_empty() || self.event_types.iter().any(|glob| glob.matches(event_type))
    }

    /// Until when there is no room for one more secret, where there is none: as many count as may, those before the newest
    /// until `ends` at most.
    pub fn crowded_until(&self, ends: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let all = || self.secrets.iter().map(|secret| secret.expires_at);
        let first = all().flatten().filter(|end| *end > now).min();
        first.filter(|_| record::are_crowded(all(), ends, now))
    }

    /// When the last of its former secrets ends, while one counts.
    pub fn overlap_ends(&self, now: Timestamp) -> Option<Timestamp> {
        self.secrets.iter().filter_map(|secret| secret.expires_at).filter(|end| *end > now).max()
    }
}

/// An endpoint that is wanted.
#[derive(Debug)]
pub struct NewEndpoint<'a> {
    /// The integration.
    pub integration: &'a str,
    /// The connection.
    pub connection: &'a str,
    /// The types that are taken; all when it is empty.
    pub event_types: Vec<String>,
    /// What the requests that set it up see as `input`.
    pub input: Map<String, Json>,
    /// Its first secret.
    pub secret: Secret,
    /// What the service knows of it.
    pub subscription: Subscription,
    /// How many there may be with it (`limits.webhook_endpoints`).
    pub most: usize,
}

/// Who does what, for the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// Who.
    pub actor: &'a str,
    /// What, as in `webhook.rotate`.
    pub action: &'static str,
}

/// Why an endpoint could not be made, found or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EndpointError {
    /// There is none.
    #[error("there is no webhook endpoint `{0}`")]
    Unknown(WebhookId),
    /// Nothing is kept.
    #[error("without a master key (`secrets.key`) nothing is kept, and so no webhook endpoint can be made")]
    NoKey,
    /// There are enough.
    #[error("there are {0} webhook endpoints, as many as `limits.webhook_endpoints` allows")]
    TooMany(usize),
    /// It does not open.
    #[error("the record of the webhook endpoint does not open: {0}")]
    Open(#[from] OpenError),
    /// It opens and holds something else.
    #[error("the record of the webhook endpoint has a form that this version does not read")]
    Form,
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What endpoints are kept with.
#[derive(Clone)]
pub struct Parts {
    /// What seals them; without it there are none.
    pub vault: Option<Arc<Vault>>,
    /// Where they are kept.
    pub records: Arc<dyn Records>,
    /// Who did what.
    pub audit: Arc<dyn Audit>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and tokens.
    pub random: Arc<dyn Random>,
    /// What holds events back.
    pub holding: Arc<dyn Holding>,
}

/// Every managed endpoint.
pub struct Endpoints {
    parts: Parts,
    known: RwLock<Known>,
    /// One change after another.
    order: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    by_id: BTreeMap<WebhookId, Arc<Endpoint>>,
    by_token: HashMap<[u8; 32], WebhookId>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("count", &self.held().by_id.len()).finish_non_exhaustive()
    }
}

impl Endpoints {
    /// No endpoint yet: see [`Self::load`].
    pub fn new(parts: Parts) -> Self {
        Self { parts, known: RwLock::default(), order: tokio::sync::Mutex::default() }
    }

    /// Reads all that are kept. One that does not open is logged and takes nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(&self) -> Result<(), StoreError> {
        if self.parts.vault.is_none() {
            return Ok(());
        }
        for key in self.parts.records.keys(COLLECTION).await? {
            let Ok(id) = key.key.parse::<WebhookId>() else { continue };
            match self.read(id).await {
                Ok(Some(record)) => self.put_into_force(id, record),
                Ok(None) => {}
                Err(EndpointError::Store(error)) => return Err(error),
                Err(error) => tracing::error!(webhook.id = %id, "a webhook endpoint takes nothing: {error}"),
            }
        }
        Ok(())
    }

    /// The endpoint of an integration that this token names. The time it takes tells nothing of any token.
    pub fn at(&self, integration: &str, token: &Secret) -> Option<Arc<Endpoint>> {
        let digest: [u8; 32] = Sha256::digest(token.expose()).into();
        let known = self.held();
        let found = known.by_token.get(&digest).and_then(|id| known.by_id.get(id));
        found.filter(|found| *found.integration == *integration && !found.subscription.is_gone()).cloned()
    }

    /// One endpoint, also one that is gone here and not yet at its service.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, id: WebhookId) -> Result<Arc<Endpoint>, EndpointError> {
        self.held().by_id.get(&id).cloned().ok_or(EndpointError::Unknown(id))
    }

    /// All of them, oldest first; those among them that are gone here and not yet at their services.
    pub fn all(&self) -> Vec<Arc<Endpoint>> {
        let mut all: Vec<_> = self.held().by_id.values().cloned().collect();
        all.sort_by_key(|endpoint| (endpoint.created_at, endpoint.id));
        all
    }

    /// Makes one; durable when this returns.
    ///
    /// # Errors
    /// When nothing is kept, there are too many, or the store fails.
    pub async fn make(&self, actor: &str, new: NewEndpoint<'_>) -> Result<Arc<Endpoint>, EndpointError> {
        let _one_by_one = self.order.lock().await;
        let count = self.held().by_id.len();
        if count >= new.most {
            return Err(EndpointError::TooMany(count));
        }
        let id = WebhookId::generate(&*self.parts.random)?;
        let mut token = Zeroizing::new([0_u8; TOKEN]);
        self.parts.random.fill(&mut *token)?;
        let now = self.parts.clock.now();
        let mut record = Record {
            format: record::FORMAT,
            integration: new.integration.to_owned(),
            connection: new.connection.to_owned(),
            token: Enclosed(Secret::new(URL_SAFE_NO_PAD.encode(*token))),
            secrets: Vec::new(),
            serial: 0,
            enabled: true,
            event_types: new.event_types,
            input: new.input,
            saved: Map::new(),
            created_at: now,
            rotated_at: None,
            subscription: new.subscription,
        };
        record.take_secret(new.secret, now);
        let detail = serde_json::json!({ "event_types": record.event_types });
        self.keep(id, record, Deed { actor, action: "webhook.create" }, detail).await
    }

    /// Changes one; durable when this returns, and the audit log has it before.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn change(
        &self,
        id: WebhookId,
        deed: Deed<'_>,
        detail: Json,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<Arc<Endpoint>, EndpointError> {
        let _one_by_one = self.order.lock().await;
        let mut record = self.read(id).await?.ok_or(EndpointError::Unknown(id))?;
        change(&mut record);
        self.keep(id, record, deed, detail).await
    }

    /// Forgets one, with all that is kept of it.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn forget(&self, id: WebhookId, deed: Deed<'_>, detail: Json) -> Result<(), EndpointError> {
        let _one_by_one = self.order.lock().await;
        let endpoint = self.get(id)?;
        self.note(&endpoint, deed, detail).await?;
        self.parts.records.remove(&key(id)).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.remove(&id);
        known.by_token.remove(&digest(&endpoint.token));
        drop(known);
        // What has arrived is worked on: nobody is left who could let it go.
        self.parts.holding.let_go(&endpoint.name);
        Ok(())
    }

    /// Writes to the audit log what is done to an endpoint.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note(&self, endpoint: &Endpoint, deed: Deed<'_>, detail: Json) -> Result<(), EndpointError> {
        let target = target(endpoint.id, &endpoint.integration, &endpoint.connection);
        Ok(self.append(target, deed, detail).await?)
    }

    async fn append(&self, target: String, deed: Deed<'_>, detail: Json) -> Result<(), StoreError> {
        let (at, actor, action) = (self.parts.clock.now(), deed.actor.to_owned(), deed.action.to_owned());
        self.parts.audit.append(AuditEntry { at, actor, action, target, detail }).await.map(drop)
    }

    async fn keep(
        &self,
        id: WebhookId,
        record: Record,
        deed: Deed<'_>,
        detail: Json,
    ) -> Result<Arc<Endpoint>, EndpointError> {
        let vault = self.parts.vault.as_ref().ok_or(EndpointError::NoKey)?;
        self.append(target(id, &record.integration, &record.connection), deed, detail).await?;
        let mut plain = Zeroizing::new(Vec::with_capacity(4 << 10));
        serde_json::to_writer(&mut *plain, &record).map_err(|_| EndpointError::Form)?;
        let sealed = vault.seal(&key(id), FIELD, &plain)?;
        self.parts.records.put(&key(id), Bytes::from(sealed), None).await?;
        self.put_into_force(id, record);
        self.get(id)
    }

    async fn read(&self, id: WebhookId) -> Result<Option<Record>, EndpointError> {
        let vault = self.parts.vault.as_ref().ok_or(EndpointError::NoKey)?;
        let Some((sealed, _)) = self.parts.records.get(&key(id)).await? else { return Ok(None) };
        let plain = vault.open(&key(id), FIELD, &sealed)?;
        let record: Record = serde_json::from_slice(plain.expose()).map_err(|_| EndpointError::Form)?;
        if record.format == record::FORMAT { Ok(Some(record)) } else { Err(EndpointError::Form) }
    }

    fn put_into_force(&self, id: WebhookId, record: Record) {
        let endpoint = Arc::new(in_force(id, record));
        // What is gone holds nothing back: its events are worked on.
        if endpoint.enabled || endpoint.subscription.is_gone() {
            self.parts.holding.let_go(&endpoint.name);
        } else {
            self.parts.holding.hold(&endpoint.name);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_token.insert(digest(&endpoint.token), id);
        known.by_id.insert(id, endpoint);
    }

    fn held(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_force(id: WebhookId, record: Record) -> Endpoint {
    let secrets = record.secrets.into_iter().map(|kept| WebhookSecret {
        id: Arc::from(kept.id),
        secret: kept.secret.0,
        expires_at: kept.expires_at,
    });
    Endpoint {
        id,
        name: endpoint_name(id, &record.connection),
        integration: Arc::from(record.integration),
        connection: Arc::from(record.connection),
        token: record.token.0,
        secrets: secrets.collect(),
        enabled: record.enabled,
        event_types: record.event_types.iter().map(|pattern| Glob::new(pattern)).collect(),
        input: record.input,
        saved: record.saved,
        created_at: record.created_at,
        rotated_at: record.rotated_at,
        subscription: record.subscription,
    }
}

fn key(id: WebhookId) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(id.to_string()) }
}

fn target(id: WebhookId, integration: &str, connection: &str) -> String {
    format!("webhook:{integration}/{connection}/{id}")
}

fn digest(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}
