//! Which connections there are, and what each is.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};

use minijinja::value::Value;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tokio::sync::RwLock;

use super::credential::{Credential, Tokens};
use super::error::{ConnectionError, stored_error};
use super::grant::Grant;
use super::health::{Key, Pulse, Pulses};
use super::held::PerConnection;
use super::keys::Keys;
use super::refresh::Anew;
use super::stored::{Content, Stored, StoredError};
use super::upkeep::Seen;
use super::vault::Vault;
use crate::base::id::ConnectionId;
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, DeclaredConnection, Integration};
use crate::store::StoreError;
use crate::template::Context;

/// The name a connection has when nobody names one.
pub const DEFAULT: &str = "default";

/// One account at a service, ready to be used.
pub struct Connection {
    /// The integration's id.
    pub integration: Arc<str>,
    /// Its name within the integration: the value of `Trunkline-Connection`.
    pub id: Arc<str>,
    /// What it signs in with.
    pub credential: Credential,
    /// What templates of this connection's calls see: `input`, `saved` and `connection`. No credential.
    pub context: Context,
    /// Its inputs, defaults filled in.
    pub inputs: Map<String, Json>,
    /// Values that its sign-in saved.
    pub saved: Map<String, Json>,
    /// How it fares.
    pub health: Arc<Pulse>,
    /// Which account it is: another number after it was connected anew, stored again or removed. Renewed tokens
    /// leave it as it is.
    pub era: u64,
}

/// Names only: inputs may be secret.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}/{}, {})", self.integration, self.id, self.credential.kind())
    }
}

impl Connection {
    /// The same connection with the tokens, or the access key, and the values that a sign-in brought. It is kept nowhere.
    #[must_use]
    pub fn signed_in(&self, integration: &Integration, grant: Grant) -> Self {
        let mut saved = self.saved.clone();
        saved.extend(grant.saved);
        let values = Values { inputs: self.inputs.clone(), saved, health: Arc::clone(&self.health) };
        let credential = match &integration.auth {
            Auth::SigV4(_) => Credential::access_key(grant.tokens),
            _ => Credential::Tokens(Tokens(grant.tokens)),
        };
        Self { era: self.era, ..Self::new(integration, Arc::clone(&self.id), credential, values) }
    }

    fn new(integration: &Integration, id: Arc<str>, credential: Credential, values: Values) -> Self {
        let Values { inputs, saved, health } = values;
        let context = Context::new()
            .with("connection", Value::from(BTreeMap::from([("id", Value::from(&*id))])))
            .with_json("input", &Json::Object(inputs.clone()))
            .with_json("saved", &Json::Object(saved.clone()));
        let era = health.era();
        Self { integration: Arc::clone(&integration.id), id, credential, context, inputs, saved, health, era }
    }
}

struct Values {
    inputs: Map<String, Json>,
    saved: Map<String, Json>,
    health: Arc<Pulse>,
}

/// What lists show of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionHead {
    /// Its id in the whole deployment.
    pub id: ConnectionId,
    /// The integration's id.
    pub integration: String,
    /// Its name within the integration.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConnectionOrigin)]
pub enum Origin {
    /// A file declares it.
    Declared,
    /// The store keeps it.
    Stored,
}

/// Finds connections. A connection that a file declares comes before a stored one of the same name.
#[derive(Debug, Default)]
pub struct Connections {
    pub(super) stored: Option<Stored>,
    keys: Option<Arc<Keys>>,
    pub(super) held: PerConnection<Arc<Connection>>,
    pub(super) pulses: Pulses,
    /// Stored connections that were changed or removed, for whoever renews their tokens.
    pub(super) touched: Mutex<HashSet<Key>>,
    /// Held for writing while a stored connection changes, so that nobody keeps the one it replaces. Many,
    /// so that one that waits for the disk keeps few others waiting.
    changing: Stripes,
}

/// Locks that connections share by chance.
#[derive(Debug)]
struct Stripes([RwLock<()>; 64]);

impl Default for Stripes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::new(())))
    }
}

impl Connections {
    /// Only those that files declare: a deployment without a master key.
    pub fn declared() -> Self {
        Self::default()
    }

    /// Those that files declare and those in the store.
    pub fn with_stored(stored: Stored) -> Self {
        let pulses = Pulses::new(Arc::clone(stored.records()));
        Self { stored: Some(stored), pulses, ..Self::default() }
    }

    pub(super) fn changing(&self, key: &Key) -> &RwLock<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let stripes = &self.changing.0;
        let stripe = hasher.finish() % (stripes.len() as u64);
        &stripes[usize::try_from(stripe).unwrap_or(0)]
    }

    /// The same, with the keys that the stored ones are sealed by.
    #[must_use]
    pub fn with_keys(self, keys: Arc<Keys>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// The master keys; `None` for a deployment without one.
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref()
    }

    /// The stored ones; `None` for a deployment without a master key.
    pub(super) fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// What stored connections are sealed with; none without a master key.
    pub fn vault(&self) -> Option<Arc<Vault>> {
        self.stored.as_ref().map(Stored::vault)
    }

    /// The connection of this name. Cheap after the first time, until the definition or the connection
    /// changes.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub async fn resolve(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        id: &str,
    ) -> Result<Arc<Connection>, ConnectionError> {
        let connection = match self.held.get(integration, id) {
            Some(connection) => connection,
            None => Box::pin(self.found(generation, integration, id)).await?,
        };
        if connection.health.is_blocked() && connection.health.health().paused {
            return Err(ConnectionError::Paused {
                integration: Arc::clone(&integration.id),
                connection: id.to_owned(),
            });
        }
        Ok(connection)
    }

    async fn found(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        id: &str,
    ) -> Result<Arc<Connection>, ConnectionError> {
        let key = Key { integration: Arc::clone(&integration.id), id: Arc::from(id) };
        let _unchanged = self.changing(&key).read().await;
        let connection = match integration.connection(id) {
            Some(declared) => of_declared(integration, declared, self.pulses.of(&key).await),
            None => match self.stored_one(integration, id).await? {
                Some(stored) => stored,
                None => without_declaration(integration, id)?,
            },
        };
        if let Some(fault) = connection.health.fault() {
            // It may be paused.
            return Err(stored_error(&integration.id, id, StoredError::Store(fault.clone())));
        }
        let connection = Arc::new(connection);
        self.held.keep(generation, integration, id, Arc::clone(&connection));
        Ok(connection)
    }

    async fn stored_one(&self, integration: &Integration, id: &str) -> Result<Option<Connection>, ConnectionError> {
        let Some(stored) = self.stored.as_ref().filter(|_| is_name(id)) else { return Ok(None) };
        let content =
            stored.get(&integration.id, id).await.map_err(|reason| stored_error(&integration.id, id, reason))?;
        let Some(Content { credential, inputs, saved }) = content else { return Ok(None) };
        let inputs = checked_inputs(integration, id, inputs)?;
        let health = self.pulses.of(&Key::new(&integration.id, id)).await;
        Ok(Some(Connection::new(integration, Arc::from(id), credential, Values { inputs, saved, health })))
    }

    /// What the store keeps of a connection, whatever its state; `None` when it keeps none of that name.
    ///
    /// # Errors
    /// When it does not open, or the store fails.
    pub async fn peek(&self, integration: &str, id: &str) -> Result<Option<Content>, ConnectionError> {
        let Some(stored) = self.stored.as_ref().filter(|_| is_name(id)) else { return Ok(None) };
        stored.get(integration, id).await.map_err(|reason| stored_error(integration, id, reason))
    }

    /// A connection as it would be, were it stored: to try it first.
    ///
    /// # Errors
    /// When it does not fit the definition.
    pub fn draft(integration: &Integration, id: &str, content: Content) -> Result<Arc<Connection>, ConnectionError> {
        let Content { credential, inputs, saved } = Self::admissible(integration, id, content)?;
        let values = Values { inputs, saved, health: Arc::default() };
        Ok(Arc::new(Connection::new(integration, Arc::from(id), credential, values)))
    }

    /// Stores a connection, sealed, in place of one of the same name. The audit log has it first.
    /// `actor` is who does it, as in `operator`.
    ///
    /// # Errors
    /// When it does not fit the definition, a file declares one of that name, or the store fails.
    pub async fn put(
        &self,
        actor: &str,
        integration: &Integration,
        id: &str,
        content: Content,
    ) -> Result<ConnectionId, ConnectionError> {
        self.put_over(actor, integration, (id, None), content).await
    }

    /// The same; with `over` only in place of what was there then, else it is a conflict.
    ///
    /// # Errors
    /// As [`Self::put`], and when something else is there.
    pub(super) async fn put_over(
        &self,
        actor: &str,
        integration: &Integration,
        (id, over): (&str, Option<Seen>),
        content: Content,
    ) -> Result<ConnectionId, ConnectionError> {
        let content = Self::admissible(integration, id, content)?;
        let invalid = |reason: &str| ConnectionError::Invalid {
            integration: Arc::clone(&integration.id),
            connection: id.to_owned(),
            reason: reason.to_owned(),
        };
        let stored = self.stored.as_ref().ok_or_else(|| invalid("there is no master key to seal it with"))?;
        let key = Key { integration: Arc::clone(&integration.id), id: Arc::from(id) };
        let failed = |reason| stored_error(&integration.id, id, reason);
        let _alone = self.changing(&key).write().await;
        if let Some(over) = over
            && self.seen(&key).await? != over
        {
            return Err(failed(StoreError::Conflict("it is another by now".to_owned()).into()));
        }
        let over = over.map(|over| over.version);
        // Before, so that a crash cannot leave new tokens with what was held against the old ones; and after,
        // because the old ones may have been refused meanwhile.
        self.begin_anew(&key, Anew::Connected).await.map_err(failed)?;
        let put = stored.put(actor, &key, &content, over).await;
        self.held.forget(&integration.id, id);
        put.map_err(failed)?;
        self.begin_anew(&key, Anew::Confirmed).await.map_err(failed)?;
        Ok(ConnectionId::of(&integration.id, id))
    }

    /// The content as it would be stored: inputs checked, defaults filled in.
    ///
    /// # Errors
    /// When it does not fit the definition, or a file declares a connection of that name.
    pub(super) fn admissible(
        integration: &Integration,
        id: &str,
        content: Content,
    ) -> Result<Content, ConnectionError> {
        let invalid = |reason: &str| ConnectionError::Invalid {
            integration: Arc::clone(&integration.id),
            connection: id.to_owned(),
            reason: reason.to_owned(),
        };
        if !is_name(id) {
            return Err(invalid("a name has 1 to 128 letters, digits and `. _ - @ : +`"));
        }
        if integration.connection(id).is_some() {
            return Err(invalid("a file declares a connection of this name"));
        }
        fits(integration, &content.credential).map_err(|reason| invalid(&reason))?;
        if !content.credential.is_sendable(integration) {
            return Err(invalid(
                "what it signs in with has characters that no header can carry, such as an accented letter or a line \
                 break: enter it again, whole",
            ));
        }
        let inputs = checked_inputs(integration, id, content.inputs)?;
        Ok(Content { inputs, ..content })
    }

    /// Removes a stored connection; `false` when there was none. The audit log has it first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self, actor: &str, integration: &str, id: &str) -> Result<bool, ConnectionError> {
        let key = Key::new(integration, id);
        let _alone = self.changing(&key).write().await;
        self.remove_alone(actor, &key).await
    }

    /// The same, for who holds [`Self::changing`] of it.
    pub(super) async fn remove_alone(&self, actor: &str, key: &Key) -> Result<bool, ConnectionError> {
        let Some(stored) = &self.stored else { return Ok(false) };
        let (integration, id) = (&*key.integration, &*key.id);
        let removed = stored.remove(actor, integration, id).await;
        self.held.forget(integration, id);
        let failed = |reason| stored_error(integration, id, reason);
        let removed = removed.map_err(failed)?;
        if removed {
            // It is gone: what is remembered of it is forgotten at the next connect at the latest.
            if let Err(error) = self.forget(key).await {
                tracing::error!(connection = %key, "what was remembered of a removed connection stays: {error}");
            }
        }
        Ok(removed)
    }

    /// All connections, by integration and name: those of a generation's files, and those stored, whether their
    /// integrations are in force or not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, generation: &Generation) -> Result<Vec<ConnectionHead>, ConnectionError> {
        let head = |integration: &str, name: &str, origin| ConnectionHead {
            id: ConnectionId::of(integration, name),
            integration: integration.to_owned(),
            name: name.to_owned(),
            origin,
        };
        let declared = generation.integrations.values().flat_map(|integration| {
            integration.connections.iter().map(|declared| head(&integration.id, &declared.id, Origin::Declared))
        });
        let mut heads: Vec<_> = declared.collect();
        if let Some(stored) = &self.stored {
            let names = stored.names().await.map_err(|reason| stored_error("*", "*", reason))?;
            // One whose integration is not in force is listed: it holds secrets, and can be removed.
            let hidden = |integration: &str, name: &str| {
                generation.integration(integration).is_some_and(|of| of.connection(name).is_some())
            };
            let shown = names.iter().filter(|(integration, name)| !hidden(integration, name));
            heads.extend(shown.map(|(integration, name)| head(integration, name, Origin::Stored)));
        }
        heads.sort_by(|a, b| (&a.integration, &a.name).cmp(&(&b.integration, &b.name)));
        Ok(heads)
    }
}

/// Whether a text can be the name of a stored connection.
pub(super) fn is_name(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@:+".contains(&byte))
}

/// Whether a credential is of the kind that the definition asks for.
fn fits(integration: &Integration, credential: &Credential) -> Result<(), String> {
    if let Some(wanting) = credential.wanting() {
        return Err(wanting);
    }
    match (&integration.auth, credential) {
        (Auth::ApiKey { pattern: Some(pattern) }, Credential::ApiKey(key)) if !pattern.is_match(key.expose()) => {
            Err(format!("the key does not look like one of this service: expected `{pattern}`"))
        }
        (Auth::ApiKey { .. }, Credential::ApiKey(_))
        | (Auth::Basic, Credential::Basic { .. })
        | (Auth::OAuth1(_) | Auth::OAuth2(_) | Auth::Login(_), Credential::Tokens(_))
        | (Auth::None | Auth::Mtls | Auth::Login(_), Credential::None) => Ok(()),
        // Its tokens are had when a call needs one.
        (Auth::OAuth2(oauth2), Credential::None) if !oauth2.grant.needs_person() => Ok(()),
        (Auth::SigV4(sigv4), Credential::AccessKey { .. }) if sigv4.wants_key() => Ok(()),
        (Auth::SigV4(sigv4), Credential::None) if !sigv4.wants_key() => Ok(()),
        (Auth::Jwt(assertion), Credential::ApiKey(_)) if assertion.key.is_none() => Ok(()),
        (Auth::Jwt(assertion), Credential::None) if assertion.key.is_some() => Ok(()),
        (_, credential) => Err(format!("this service does not sign in with {}", credential.kind())),
    }
}

fn of_declared(integration: &Integration, declared: &DeclaredConnection, health: Arc<Pulse>) -> Connection {
    let values = Values { inputs: declared.inputs.clone(), saved: declared.saved.clone(), health };
    Connection::new(integration, Arc::clone(&declared.id), Credential::from(&declared.credential), values)
}

/// Whether a connection needs nothing that is its own.
fn needs_nothing(auth: &Auth) -> bool {
    match auth {
        Auth::None | Auth::Mtls => true,
        Auth::Jwt(assertion) => assertion.key.is_some(),
        Auth::SigV4(sigv4) => !sigv4.wants_key(),
        _ => false,
    }
}

/// A service that wants no sign-in, or one for which the definition has all that is needed, has a default
/// connection without anyone declaring it.
fn without_declaration(integration: &Integration, id: &str) -> Result<Connection, ConnectionError> {
    let (name, connection) = (Arc::clone(&integration.id), id.to_owned());
    match &integration.auth {
        auth if needs_nothing(auth) && id == DEFAULT => {
            let inputs = checked_inputs(integration, DEFAULT, Map::new())?;
            let values = Values { inputs, saved: Map::new(), health: Arc::default() };
            Ok(Connection::new(integration, Arc::from(DEFAULT), Credential::None, values))
        }
        Auth::None
        | Auth::ApiKey { .. }
        | Auth::Basic
        | Auth::OAuth2(_)
        | Auth::OAuth1(_)
        | Auth::Jwt(_)
        | Auth::SigV4(_)
        | Auth::Login(_)
        | Auth::Mtls => Err(ConnectionError::Unknown { integration: name, connection }),
    }
}

/// The inputs of a connection, defaults filled in, each checked against the definition.
pub(super) fn checked_inputs(
    integration: &Integration,
    id: &str,
    mut given: Map<String, Json>,
) -> Result<Map<String, Json>, ConnectionError> {
    let unusable = |reason: String| ConnectionError::Invalid {
        integration: Arc::clone(&integration.id),
        connection: id.to_owned(),
        reason,
    };
    let mut inputs = Map::new();
    for input in &integration.inputs {
        let default = || input.default.as_deref().map(Json::from);
        let Some(value) = given.shift_remove(&*input.name).or_else(default) else {
            if input.optional {
                continue;
            }
            return Err(unusable(format!("the input `{}` is missing and has no default", input.name)));
        };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if input.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(&text)) {
            return Err(unusable(format!("the input `{}` does not match its pattern", input.name)));
        }
        inputs.insert(input.name.to_string(), value);
    }
    match given.keys().next() {
        Some(unknown) => Err(unusable(format!("the definition has no input `{unknown}`"))),
        None => Ok(inputs),
    }
}

#[cfg(test)]
mod tests;
