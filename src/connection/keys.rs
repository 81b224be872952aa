//! The master keys of a running deployment: where they are, which are in use, and how they change.
//!
//! [`KeyPlace`] puts a ring together from where the settings say and can add a key there. [`Keys`] is what
//! the admin door and the CLI see: which keys there are, what each seals, whether all of it opens, and
//! [`Keys::rotate`]. No key leaves this room; names of keys do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keyring::{KeyError, KeyId, KeyRing, MasterKey, append};
use super::opening::Environment;
use super::rotation::{Progress, Rotation};
use super::vault::{self, SealedRecord, Vault, sealed_by};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::definition::plan::gateway::{KeySource, Mode, PreviousKeys};
use crate::secrets::Transit;
use crate::store::model::{AuditEntry, RecordKey};
use crate::store::{Audit, Records, StoreError};

/// The most wrapped keys that are kept; far more than anybody rotates through.
const MAX_WRAPPED: usize = 64;

/// Wraps a master key so that it can lie in the store, and unwraps it at start. Vault's Transit engine.
#[async_trait]
pub trait Wrap: fmt::Debug + Send + Sync + 'static {
    /// The key in a form that only the wrapping service opens.
    async fn wrap(&self, key: &Secret<Vec<u8>>) -> Result<String, WrapError>;

    /// The key again.
    async fn unwrap(&self, wrapped: &str) -> Result<Secret<Vec<u8>>, WrapError>;
}

#[async_trait]
impl Wrap for Transit {
    async fn wrap(&self, key: &Secret<Vec<u8>>) -> Result<String, WrapError> {
        self.encrypt(key).await.map_err(|error| WrapError(error.to_string()))
    }

    async fn unwrap(&self, wrapped: &str) -> Result<Secret<Vec<u8>>, WrapError> {
        self.decrypt(wrapped).await.map_err(|error| WrapError(error.to_string()))
    }
}

/// Why a key could not be wrapped or unwrapped, in words a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrapError(pub String);

/// Where the master keys are.
#[derive(Clone)]
pub struct KeyPlace {
    /// The ring that seals.
    pub source: KeySource,
    /// Rings that only open.
    pub previous: PreviousKeys,
    /// Whether a missing key file may be made.
    pub mode: Mode,
    /// Looks up an environment variable.
    pub environment: Environment,
    /// Randomness for new keys.
    pub random: Arc<dyn Random>,
    /// What wraps keys, where the source wants it.
    pub wrap: Option<Arc<dyn Wrap>>,
    /// Where wrapped keys lie.
    pub records: Arc<dyn Records>,
}

impl fmt::Debug for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPlace").field("source", &self.source).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Wrapped keys as they lie in the store, the newest last.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedRing {
    format: u32,
    keys: Vec<WrappedKey>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedKey {
    id: String,
    wrapped: String,
}

impl KeyPlace {
    /// The ring as it is now; `None` where the settings name none. In development mode a missing file is
    /// made; a wrapped key is made when there is none.
    ///
    /// # Errors
    /// When there is no usable key.
    pub async fn load(&self) -> Result<Option<KeyRing>, KeyError> {
        let ring = match &self.source {
            KeySource::Transit(_) => Some(self.unwrapped().await?),
            _ => KeyRing::load(&self.source, self.mode, &*self.environment, &*self.random)?,
        };
        let Some(mut ring) = ring else { return Ok(None) };
        for (at, text) in self.previous.0.iter().enumerate() {
            let place = format!("`secrets.previous`, entry {}", at + 1);
            ring = ring.opening_also(&KeyRing::parse(text.expose(), &place)?);
        }
        Ok(Some(ring))
    }

    /// Adds a fresh key, which then seals. It is durable when this returns.
    ///
    /// # Errors
    /// When the place takes no key, or cannot be written.
    pub async fn add(&self) -> Result<(), KeyError> {
        let key = MasterKey::generate(&*self.random)?;
        match &self.source {
            KeySource::File(path) => {
                append(path, &key).map_err(|error| KeyError::File { path: path.clone(), what: "added to", error })
            }
            KeySource::Transit(_) => self.wrap_one_more(&key).await,
            KeySource::Environment(name) => {
                Err(KeyError::Unchangeable(format!("the environment variable `{name}` of a running process")))
            }
            KeySource::Missing => Err(KeyError::Unchangeable("settings that name no key".to_owned())),
        }
    }

    async fn unwrapped(&self) -> Result<KeyRing, KeyError> {
        let wrap = self.wrap.as_ref().ok_or(KeyError::NoWrap)?;
        let (ring, _) = self.wrapped().await?;
        if ring.keys.is_empty() {
            let key = MasterKey::generate(&*self.random)?;
            return self.wrap_one_more(&key).await.map(|()| KeyRing::of(key));
        }
        let mut keys = Vec::with_capacity(ring.keys.len());
        for WrappedKey { id, wrapped } in &ring.keys {
            let bytes = wrap.unwrap(wrapped).await.map_err(|reason| KeyError::Wrap { what: "unwrapped", reason })?;
            let key = MasterKey::from_bytes(bytes.expose()).filter(|key| key.id().to_string() == *id);
            keys.push(key.ok_or(KeyError::Ring("a key came out of its wrapping as another one"))?);
        }
        KeyRing::of_all(keys).ok_or(KeyError::Ring("there is none"))
    }

    async fn wrap_one_more(&self, key: &MasterKey) -> Result<(), KeyError> {
        let wrap = self.wrap.as_ref().ok_or(KeyError::NoWrap)?;
        let (mut ring, version) = self.wrapped().await?;
        if ring.keys.len() >= MAX_WRAPPED {
            return Err(KeyError::Ring("there are 64 keys, which is the most"));
        }
        let bytes = Secret::new(key.bytes().to_vec());
        let wrapped = wrap.wrap(&bytes).await.map_err(|reason| KeyError::Wrap { what: "wrapped", reason })?;
        ring.format = 1;
        ring.keys.push(WrappedKey { id: key.id().to_string(), wrapped });
        let text = serde_json::to_vec(&ring).map_err(|_| KeyError::Ring("it cannot be written"))?;
        self.records.put(&ring_key(), Bytes::from(text), Some(version)).await?;
        Ok(())
    }

    async fn wrapped(&self) -> Result<(WrappedRing, u64), KeyError> {
        let Some((text, version)) = self.records.get(&ring_key()).await? else {
            return Ok((WrappedRing::default(), 0));
        };
        let ring: WrappedRing =
            serde_json::from_slice(&text).map_err(|_| KeyError::Ring("it is not what was written"))?;
        if ring.format == 1 { Ok((ring, version)) } else { Err(KeyError::Ring("a newer version wrote it")) }
    }
}

fn ring_key() -> RecordKey {
    RecordKey { collection: Arc::from("vault"), key: Arc::from("ring") }
}

/// A master key as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct KeyState {
    /// Its name.
    pub id: String,
    /// Whether it is the one that seals.
    pub newest: bool,
    /// Whether the key ring holds it; if not, what it sealed cannot be opened.
    pub held: bool,
    /// How many records it seals.
    pub records: usize,
}

/// What opening every sealed record found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = KeysChecked)]
pub struct Checked {
    /// How many open.
    pub opened: usize,
    /// Those that do not, each with the reason.
    pub failed: Vec<String>,
}

/// Why keys could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The key ring is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The place of the keys lacks one that is needed until the rotation has ended.
    #[error(
        "{0} records are sealed by the key {1}, which the key ring in use holds and its source does not hold any more: put it back until the rotation has ended"
    )]
    Dropped(usize, KeyId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The keys in use, and their rotation.
pub struct Keys {
    place: KeyPlace,
    vault: Arc<Vault>,
    rotation: Arc<Rotation>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
    /// Held while the ring changes.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("vault", &self.vault).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of an opened and checked vault.
    pub fn new(place: KeyPlace, vault: Arc<Vault>, audit: Arc<dyn Audit>, clock: Arc<dyn Clock>) -> Self {
        let rotation = Rotation::new(Arc::clone(&vault), Arc::clone(&place.records), Arc::clone(&clock));
        Self { place, vault, rotation: Arc::new(rotation), audit, clock, turn: tokio::sync::Mutex::new(()) }
    }

    /// Every key that is held or needed, the newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<KeyState>, StoreError> {
        let mut sealed = self.sealed().await?;
        let ring = self.vault.ring();
        let newest = ring.newest().id();
        let held = ring.ids().into_iter().map(|id| (id, true, sealed.remove(&id).unwrap_or_default()));
        let held: Vec<_> = held.collect();
        let missing = sealed.into_iter().map(|(id, records)| (id, false, records));
        let state = |(id, held, records): (KeyId, bool, usize)| KeyState {
            id: id.to_string(),
            newest: id == newest,
            held,
            records,
        };
        Ok(held.into_iter().chain(missing).map(state).collect())
    }

    /// Opens every sealed record and tells which do not open. Nothing of them is kept or shown.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn check(&self) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        for SealedRecord { key, field } in vault::sealed_records(&*self.place.records).await? {
            let Some((sealed, _)) = self.place.records.get(&key).await? else { continue };
            match self.vault.open(&key, field, &sealed) {
                Ok(_) => checked.opened += 1,
                Err(reason) => checked.failed.push(format!("`{}`: {reason}", vault::name(&key))),
            }
        }
        Ok(checked)
    }

    /// How far the last rotation came.
    pub fn progress(&self) -> Progress {
        self.rotation.progress()
    }

    /// Takes the newest key of the key ring's source into use and seals everything anew by it, in the
    /// background. When that key is in use already and seals everything, a fresh one is made first, where
    /// the source can take one. What a former rotation left is done first: then no key is made. A second
    /// call while one runs changes nothing. The audit log has it before anything changes.
    ///
    /// # Errors
    /// When there is no usable new key; then nothing has changed.
    pub async fn rotate(&self, actor: &str) -> Result<Progress, RotateError> {
        let _alone = self.turn.lock().await;
        if self.rotation.is_running() {
            return Ok(self.rotation.progress());
        }
        let known = self.vault.ring();
        let mut ring = self.load().await?;
        if ring.newest().id() == known.newest().id() && self.is_settled(ring.newest().id()).await? {
            self.record(actor, "keys.add", ring.newest().id()).await?;
            self.place.add().await?;
            ring = self.load().await?;
        }
        if let Some((id, records)) = self.sealed().await?.into_iter().find(|(id, _)| ring.key(*id).is_none()) {
            return Err(RotateError::Dropped(records, id));
        }
        self.record(actor, "keys.rotate", ring.newest().id()).await?;
        self.vault.install(ring.opening_also(&known));
        self.is_settled(self.vault.ring().newest().id()).await?;
        Ok(self.rotation.start())
    }

    /// Goes on with a rotation that was under way when the program ended, where there is one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self) -> Result<(), StoreError> {
        if !self.is_settled(self.vault.ring().newest().id()).await? {
            self.rotation.start();
        }
        Ok(())
    }

    /// How many records older keys seal: as last counted, less what was sealed anew since. Never a scan.
    pub fn older(&self) -> usize {
        self.rotation.older()
    }

    /// Waits until no rotation runs, and tells how the last one ended.
    pub async fn settled(&self) -> Progress {
        self.rotation.settled().await
    }

    async fn load(&self) -> Result<KeyRing, KeyError> {
        let missing = || KeyError::Unchangeable("settings that name no key".to_owned());
        self.place.load().await?.ok_or_else(missing)
    }

    async fn is_settled(&self, newest: KeyId) -> Result<bool, StoreError> {
        let older = self.sealed().await?.into_iter().filter(|(id, _)| *id != newest).map(|(_, records)| records).sum();
        self.rotation.count_older(older);
        Ok(older == 0)
    }

    /// How many records each key seals.
    async fn sealed(&self) -> Result<BTreeMap<KeyId, usize>, StoreError> {
        let mut counts = BTreeMap::new();
        for SealedRecord { key, .. } in vault::sealed_records(&*self.place.records).await? {
            let sealed = self.place.records.get(&key).await?;
            if let Some(id) = sealed.and_then(|(sealed, _)| sealed_by(&sealed)) {
                *counts.entry(id).or_insert(0) += 1;
            }
        }
        Ok(counts)
    }

    async fn record(&self, actor: &str, action: &str, id: KeyId) -> Result<(), StoreError> {
        let (actor, action) = (actor.to_owned(), action.to_owned());
        let detail = serde_json::json!({ "newest": id.to_string() });
        let entry = AuditEntry { at: self.clock.now(), actor, action, target: "keys".to_owned(), detail };
        self.audit.append(entry).await.map(|_| ())
    }
}

/// Reads the keys of a store that no gateway runs on, and checks that they fit it.
///
/// # Errors
/// As at a gateway's start.
pub async fn open_keys(
    place: KeyPlace,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
) -> Result<Option<Keys>, super::OpeningError> {
    let Some(ring) = place.load().await? else {
        Vault::check_without_key(&*place.records).await?;
        return Ok(None);
    };
    let vault = Arc::new(Vault::new(ring, Arc::clone(&place.random)));
    vault.check(&*place.records).await?;
    Ok(Some(Keys::new(place, vault, audit, clock)))
}

impl Keys {
    /// The vault these keys belong to.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }
}
