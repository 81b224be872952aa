//! Connections kept in the store, sealed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use super::connect::KeepError;
use super::credential::{Credential, Tokens};
use super::directory::DEFAULT;
use super::grant::Issued;
use super::health::Key;
use super::vault::{OpenError, Vault};
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::RandomUnavailable;
use crate::base::secret::Secret;
use crate::store::model::{AuditEntry, RecordKey};
use crate::store::{Audit, Records, StoreError};

/// The collection of sealed connections.
pub const COLLECTION: &str = "connections";
/// The form that is written. Form 1 had no tokens but access tokens, and is read as well.
const FORMAT: u32 = 2;
/// The field that is sealed.
pub const FIELD: &str = "content";

/// What a stored connection holds.
#[derive(Debug)]
pub struct Content {
    /// What it signs in with.
    pub credential: Credential,
    /// Its inputs.
    pub inputs: Map<String, Json>,
    /// Values that its sign-in saved.
    pub saved: Map<String, Json>,
}

/// Sealed connections in a store.
pub struct Stored {
    vault: Arc<Vault>,
    records: Arc<dyn Records>,
    audit: Arc<dyn Audit>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("vault", &self.vault).finish_non_exhaustive()
    }
}

/// Why a stored connection could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoredError {
    /// It does not open.
    #[error("its stored record does not open: {0}")]
    Open(#[from] OpenError),
    /// It opens and holds something else than a connection.
    #[error("its stored record has a form that this version does not read")]
    Form,
    /// There is no randomness to seal with.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KeepError> for StoredError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Store(error) => Self::Store(error),
            KeepError::Random(error) => Self::Random(error),
            KeepError::Open(error) => Self::Open(error),
            KeepError::Form => Self::Form,
        }
    }
}

impl Stored {
    /// Sealed connections in `records`, changes to which are written to `audit` first. Call
    /// [`Vault::check`] before.
    pub fn new(vault: Arc<Vault>, records: Arc<dyn Records>, audit: Arc<dyn Audit>, clock: Arc<dyn Clock>) -> Self {
        Self { vault, records, audit, clock }
    }

    /// What the records are sealed with.
    pub(super) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.vault)
    }

    pub(super) async fn get(&self, integration: &str, id: &str) -> Result<Option<Content>, StoredError> {
        Ok(self.versioned(&Key::new(integration, id)).await?.map(|(content, _)| content))
    }

    /// The version of one, whatever is in it; zero where there is none.
    pub(super) async fn version(&self, key: &Key) -> Result<u64, StoredError> {
        Ok(self.records.get(&key.record(COLLECTION)).await?.map_or(0, |(_, version)| version))
    }

    /// One with the version of its record.
    pub(super) async fn versioned(&self, key: &Key) -> Result<Option<(Content, u64)>, StoredError> {
        let record = key.record(COLLECTION);
        let Some((sealed, version)) = self.records.get(&record).await? else { return Ok(None) };
        let plain = self.vault.open(&record, FIELD, &sealed)?;
        Ok(Some((read(plain.expose())?, version)))
    }

    /// Writes new tokens of a connection in place of the version they were made from; the audit log has
    /// them beside it, because tokens must not wait for it.
    pub(super) async fn renew(&self, key: &Key, content: &Content, version: u64) -> Result<(), StoredError> {
        let record = key.record(COLLECTION);
        let plain = Wire::of(content, self.clock.now()).plain()?;
        let sealed = self.vault.seal(&record, FIELD, &plain)?;
        self.records.put(&record, Bytes::from(sealed), Some(version)).await?;
        Ok(())
    }

    /// What time it is.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where records are kept.
    pub(super) fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// Writes to the audit log.
    pub(super) async fn append(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.audit.append(entry).await.map(drop)
    }

    /// Notes in the audit log what the gateway itself does to a connection, or an operator.
    pub(super) async fn note(&self, actor: &str, action: &str, key: &Key, detail: Json) -> Result<(), StoreError> {
        let entry = entry(self.clock.now(), actor, action, &key.record(COLLECTION), detail);
        self.audit.append(entry).await.map(drop)
    }

    /// Writes one; with `over` only in place of that version, zero for none. The audit log has it first.
    pub(super) async fn put(
        &self,
        actor: &str,
        key: &Key,
        content: &Content,
        over: Option<u64>,
    ) -> Result<(), StoredError> {
        let key = key.record(COLLECTION);
        let now = self.clock.now();
        let plain = Wire::of(content, now).plain()?;
        let sealed = self.vault.seal(&key, FIELD, &plain)?;
        let detail = serde_json::json!({ "credential": content.credential.kind() });
        self.audit.append(entry(now, actor, "connection.put", &key, detail)).await?;
        self.records.put(&key, Bytes::from(sealed), over).await?;
        Ok(())
    }

    /// One as it is written, for an export and to compare with one: all of it is secret.
    pub(super) async fn json(&self, integration: &str, id: &str) -> Result<Option<Json>, StoredError> {
        let key = record_key(integration, id);
        let Some((sealed, _)) = self.records.get(&key).await? else { return Ok(None) };
        let plain = self.vault.open(&key, FIELD, &sealed)?;
        serde_json::from_slice(plain.expose()).map(Some).map_err(|_| StoredError::Form)
    }

    /// Writes to the audit log what is done to many connections, and gives the time of it.
    pub(super) async fn record(&self, actor: &str, action: &str, detail: Json) -> Result<Timestamp, StoreError> {
        let at = self.clock.now();
        let (actor, action, target) = (actor.to_owned(), action.to_owned(), "connections".to_owned());
        self.audit.append(AuditEntry { at, actor, action, target, detail }).await?;
        Ok(at)
    }

    /// Removes one; `false` when there was none.
    pub(super) async fn remove(&self, actor: &str, integration: &str, id: &str) -> Result<bool, StoredError> {
        let key = record_key(integration, id);
        if self.records.get(&key).await?.is_none() {
            return Ok(false);
        }
        let removal = entry(self.clock.now(), actor, "connection.remove", &key, Json::Null);
        self.audit.append(removal).await?;
        self.records.remove(&key).await?;
        Ok(true)
    }

    /// Integration and name of each.
    pub(super) async fn names(&self) -> Result<Vec<(String, String)>, StoredError> {
        let keys = self.records.keys(COLLECTION).await?;
        let split = |key: &RecordKey| key.key.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned()));
        Ok(keys.iter().filter_map(split).collect())
    }
}

/// A connection as it is written before it is sealed; wiped when it is dropped.
pub(super) fn plain(content: &Content, now: Timestamp) -> Result<Zeroizing<Vec<u8>>, StoredError> {
    Wire::of(content, now).plain()
}

/// What opened, as a connection. A form that is newer than this version knows is not guessed at.
pub(super) fn read(plain: &[u8]) -> Result<Content, StoredError> {
    let wire: Wire<'_> = serde_json::from_slice(plain).map_err(|_| StoredError::Form)?;
    if !(1..=FORMAT).contains(&wire.format) {
        return Err(StoredError::Form);
    }
    Ok(wire.content())
}

/// What [`Stored::json`] gave, as a connection; `None` for a form that this version does not read.
pub(super) fn of_json(content: &Json) -> Option<Content> {
    let plain = Zeroizing::new(serde_json::to_vec(content).ok()?);
    read(&plain).ok()
}

fn record_key(integration: &str, id: &str) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(format!("{integration}/{id}")) }
}

fn entry(at: Timestamp, actor: &str, action: &str, key: &RecordKey, detail: Json) -> AuditEntry {
    let target = format!("connection:{}", key.key);
    AuditEntry { at, actor: actor.to_owned(), action: action.to_owned(), target, detail }
}

/// A connection as it is written before it is sealed. Never leaves this file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    format: u32,
    #[serde(borrow)]
    credential: WireCredential<'a>,
    inputs: Cow<'a, Map<String, Json>>,
    saved: Cow<'a, Map<String, Json>>,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireCredential<'a> {
    None,
    #[serde(borrow)]
    ApiKey(Cow<'a, str>),
    Basic {
        #[serde(borrow)]
        username: Cow<'a, str>,
        #[serde(borrow)]
        password: Cow<'a, str>,
    },
    /// Access tokens alone, as format 1 had them; read, and never written.
    Tokens {
        #[serde(borrow)]
        default: Cow<'a, str>,
        #[serde(borrow)]
        named: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    },
    /// Tokens with what they are renewed by and when they end, from format 2.
    Issued(#[serde(borrow)] BTreeMap<Cow<'a, str>, WireToken<'a>>),
    /// An access key of AWS, from format 2.
    AccessKey {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow)]
        secret: Cow<'a, str>,
        #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
        session: Option<Cow<'a, str>>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireToken<'a> {
    #[serde(borrow)]
    access: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    refresh: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    issued_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scopes: Option<Cow<'a, [String]>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    client: Option<Cow<'a, str>>,
}

impl<'a> WireToken<'a> {
    fn of(issued: &'a Issued) -> Self {
        Self {
            access: Cow::Borrowed(issued.access.expose()),
            refresh: issued.refresh.as_ref().map(|refresh| Cow::Borrowed(refresh.expose().as_str())),
            expires_at: issued.expires_at,
            issued_at: issued.issued_at,
            scopes: issued.scopes.as_deref().map(Cow::Borrowed),
            client: issued.client.as_deref().map(Cow::Borrowed),
        }
    }

    fn issued(self) -> Issued {
        Issued {
            access: Secret::new(self.access.into_owned()),
            refresh: self.refresh.map(|refresh| Secret::new(refresh.into_owned())),
            expires_at: self.expires_at,
            issued_at: self.issued_at,
            scopes: self.scopes.map(Cow::into_owned),
            client: self.client.map(Cow::into_owned),
        }
    }
}

impl<'a> Wire<'a> {
    fn of(content: &'a Content, now: Timestamp) -> Self {
        let text = |secret: &'a Secret| Cow::Borrowed(secret.expose().as_str());
        let credential = match &content.credential {
            Credential::None => WireCredential::None,
            Credential::ApiKey(key) => WireCredential::ApiKey(text(key)),
            Credential::Basic { username, password } => {
                WireCredential::Basic { username: text(username), password: text(password) }
            }
            Credential::AccessKey { id, secret, session } => {
                WireCredential::AccessKey { id: text(id), secret: text(secret), session: session.as_ref().map(text) }
            }
            Credential::Tokens(tokens) => WireCredential::Issued(
                tokens.0.iter().map(|(name, issued)| (Cow::Borrowed(&**name), WireToken::of(issued))).collect(),
            ),
        };
        let (inputs, saved) = (Cow::Borrowed(&content.inputs), Cow::Borrowed(&content.saved));
        Self { format: FORMAT, credential, inputs, saved, updated_at: now }
    }

    /// The bytes to seal, wiped when they are dropped.
    fn plain(&self) -> Result<Zeroizing<Vec<u8>>, StoredError> {
        // Room for all but unusual connections, so that no copy is left behind by growing.
        let mut plain = Zeroizing::new(Vec::with_capacity(16 << 10));
        serde_json::to_writer(&mut *plain, self).map_err(|_| StoredError::Form)?;
        Ok(plain)
    }

    fn content(self) -> Content {
        let secret = |text: Cow<'_, str>| Secret::new(text.into_owned());
        let credential = match self.credential {
            WireCredential::None => Credential::None,
            WireCredential::ApiKey(key) => Credential::ApiKey(secret(key)),
            WireCredential::Basic { username, password } => {
                Credential::Basic { username: secret(username), password: secret(password) }
            }
            WireCredential::AccessKey { id, secret: key, session } => {
                Credential::AccessKey { id: secret(id), secret: secret(key), session: session.map(secret) }
            }
            WireCredential::Tokens { default, named } => {
                let all = std::iter::once((Cow::Borrowed(DEFAULT), default)).chain(named);
                let bare = |token| Issued::bare(secret(token), self.updated_at);
                Credential::Tokens(Tokens(all.map(|(name, token)| (Arc::from(&*name), bare(token))).collect()))
            }
            WireCredential::Issued(tokens) => Credential::Tokens(Tokens(
                tokens.into_iter().map(|(name, token)| (Arc::from(&*name), token.issued())).collect(),
            )),
        };
        Content { credential, inputs: self.inputs.into_owned(), saved: self.saved.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_is_read_and_the_second_keeps_all_of_a_token() {
        let first = r#"{"format":1,"credential":{"tokens":{"default":"d","named":{"user":"u"}}},
            "inputs":{"site":"s"},"saved":{},"updated_at":7000}"#;
        let mut content = read(first.as_bytes()).expect("the first form");
        let Credential::Tokens(tokens) = &mut content.credential else { panic!("tokens") };
        assert_eq!(tokens.token(Some("user")).map(|token| token.expose().as_str()), Some("u"));
        let default = tokens.0.get_mut(DEFAULT).expect("the default token");
        assert_eq!((default.issued_at, default.expires_at), (Timestamp::from_seconds(7), None));
        default.refresh = Some("r".into());
        default.expires_at = Some(Timestamp::from_seconds(99));
        default.scopes = Some(vec!["read".to_owned()]);
        let plain = Wire::of(&content, Timestamp::from_seconds(8)).plain().expect("written");
        let again = read(&plain).expect("the second form");
        let Credential::Tokens(tokens) = &again.credential else { panic!("tokens") };
        let default = tokens.issued(None).expect("the default token");
        assert_eq!(default.refresh.as_ref().map(|refresh| refresh.expose().as_str()), Some("r"));
        assert_eq!(default.expires_at, Some(Timestamp::from_seconds(99)));
        assert_eq!(default.scopes.as_deref(), Some(&["read".to_owned()][..]));
    }

    #[test]
    fn a_form_of_a_later_version_is_not_guessed_at() {
        let later = r#"{"format":3,"credential":"none","inputs":{},"saved":{},"updated_at":1}"#;
        assert!(matches!(read(later.as_bytes()), Err(StoredError::Form)));
    }
}
