//! What is kept of a registration: sealed, one record for each integration and registration endpoint.
//!
//! The record is there before the call is made, so that a crash in between is seen, and of two processes one
//! registers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::stored::{Stored, StoredError};
use crate::store::StoreError;
use crate::store::model::RecordKey;

/// The collection of registrations.
pub const COLLECTION: &str = "registrations";
/// The field that is sealed.
pub const FIELD: &str = "content";
/// How long nobody else registers once a call was begun. Longer than a call may take.
pub(super) const LEASE: Duration = Duration::from_mins(1);
/// How long before its end a secret is taken to have ended.
const MARGIN: Duration = Duration::from_mins(1);

/// A registration, or the intent to register.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Where the application registers.
    pub endpoint: String,
    /// The address that people are sent back to, as it was registered.
    pub redirect_uri: String,
    /// When the call was begun, or had ended.
    pub at: Timestamp,
    /// How far it is.
    pub state: State,
}

/// How far a registration is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// The call may be under way: its end is not known.
    Asked {
        /// Who makes it.
        holder: String,
        /// Until when nobody else does.
        until: Timestamp,
    },
    /// The service knows the application.
    Registered(Box<Registered>),
}

/// What the service gave (RFC 7591 §3.2.1).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registered {
    pub client_id: String,
    #[serde(with = "enclosed")]
    pub client_secret: Option<Secret>,
    /// `None` when it does not end.
    pub secret_expires_at: Option<Timestamp>,
    /// How it is to prove itself, where the service said so.
    pub method: Option<String>,
    /// Where the registration is managed (RFC 7592), with the token for it.
    pub management: Option<String>,
    #[serde(with = "enclosed")]
    pub management_token: Option<Secret>,
}

impl Registered {
    /// Whether its secret has ended.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.secret_expires_at.is_some_and(|end| now.after(MARGIN) >= end)
    }
}

/// A secret in a record that is sealed whole; it is written out nowhere else.
mod enclosed {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::base::secret::Secret;

    #[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
    pub fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(|secret| secret.expose().as_str()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

/// The key of a registration: an integration whose endpoint is made of inputs has several.
pub(super) fn key(integration: &str, endpoint: &str) -> RecordKey {
    let digest = Sha256::digest(endpoint);
    let short = digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(format!("{integration}/{short}")) }
}

/// A record and its version.
pub(super) async fn read(stored: &Stored, key: &RecordKey) -> Result<Option<(Record, u64)>, StoredError> {
    let Some((sealed, version)) = stored.records().get(key).await? else { return Ok(None) };
    let plain = stored.vault().open(key, FIELD, &sealed)?;
    let record = serde_json::from_slice(plain.expose()).map_err(|_| StoredError::Form)?;
    Ok(Some((record, version)))
}

/// Writes a record in place of that version (`0`: of none), and gives the new one.
pub(super) async fn write(stored: &Stored, key: &RecordKey, record: &Record, version: u64) -> Result<u64, StoredError> {
    let mut plain = Zeroizing::new(Vec::with_capacity(4 << 10));
    serde_json::to_writer(&mut *plain, record).map_err(|_| StoredError::Form)?;
    let sealed = stored.vault().seal(key, FIELD, &plain)?;
    Ok(stored.records().put(key, Bytes::from(sealed), Some(version)).await?)
}

/// The keys of an integration's registrations, or of all.
pub(super) async fn keys(stored: &Stored, integration: Option<&str>) -> Result<Vec<RecordKey>, StoreError> {
    let mut keys = stored.records().keys(COLLECTION).await?;
    let of = |key: &RecordKey| key.key.split_once('/').map(|(id, _)| id.to_owned());
    keys.retain(|key| integration.is_none_or(|id| of(key).as_deref() == Some(id)));
    Ok(keys)
}
