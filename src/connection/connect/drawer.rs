//! Short-lived records of this room: sealed JSON, cleared away when their time is over.
//!
//! Keys begin with the moment their record ends (see [`super::link::moment`]), so that clearing reads none
//! of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::link::expires;
use crate::base::clock::Timestamp;
use crate::base::random::RandomUnavailable;
pub(super) use crate::connection::enclosed::Enclosed;
use crate::connection::vault::{OpenError, Vault};
use crate::store::model::RecordKey;
use crate::store::{Records, StoreError};

/// The field that is sealed.
pub(crate) const FIELD: &str = "content";

/// Where a room keeps what it must not forget across a restart.
pub(super) struct Drawer {
    pub(super) records: Arc<dyn Records>,
    pub(super) vault: Arc<Vault>,
}

impl fmt::Debug for Drawer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drawer").field("vault", &self.vault).finish_non_exhaustive()
    }
}

/// Why something could not be kept or found again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeepError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no randomness to seal with.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// It does not open.
    #[error("a record of a connect flow does not open: {0}")]
    Open(#[from] OpenError),
    /// It is not in a form that this version reads.
    #[error("a record of a connect flow has a form that this version does not read")]
    Form,
}

/// The key of a record in one of our collections.
pub(super) fn key(collection: &'static str, name: &str) -> RecordKey {
    RecordKey { collection: Arc::from(collection), key: Arc::from(name) }
}

impl Drawer {
    /// Keeps a value; with `expected` only in place of that version (`0`: of none).
    pub async fn put<T: Serialize>(&self, key: &RecordKey, value: &T, expected: Option<u64>) -> Result<u64, KeepError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(4 << 10));
        serde_json::to_writer(&mut *plain, value).map_err(|_| KeepError::Form)?;
        let sealed = self.vault.seal(key, FIELD, &plain)?;
        Ok(self.records.put(key, Bytes::from(sealed), expected).await?)
    }

    /// A value and its version.
    pub async fn get<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<(T, u64)>, KeepError> {
        let Some((sealed, version)) = self.records.get(key).await? else { return Ok(None) };
        Ok(Some((self.open(key, &sealed)?, version)))
    }

    /// A value, for one asker only: it is gone afterwards.
    pub async fn take<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<T>, KeepError> {
        let Some(sealed) = self.records.take(key).await? else { return Ok(None) };
        self.open(key, &sealed).map(Some)
    }

    fn open<T: DeserializeOwned>(&self, key: &RecordKey, sealed: &[u8]) -> Result<T, KeepError> {
        let plain = self.vault.open(key, FIELD, sealed)?;
        serde_json::from_slice(plain.expose()).map_err(|_| KeepError::Form)
    }

    /// How many records a collection has.
    pub async fn count(&self, collection: &str) -> Result<usize, KeepError> {
        Ok(self.records.keys(collection).await?.len())
    }

    /// Removes the records of a collection that ended more than `grace` before `now`.
    pub async fn clear(&self, collection: &str, now: Timestamp, grace: Duration) -> Result<(), KeepError> {
        // Keys are in order of their ends.
        for key in self.records.keys(collection).await? {
            if expires(&key.key).is_some_and(|end| end.after(grace) > now) {
                break;
            }
            self.records.remove(&key).await?;
        }
        Ok(())
    }
}
