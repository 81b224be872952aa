//! From a store and the settings to connections: keys read, keys checked, in that order and never less.

use std::fmt;
use std::sync::Arc;

use super::directory::Connections;
use super::keyring::KeyError;
use super::keys::{self, KeyPlace, Wrap};
use super::stored::Stored;
use super::vault::VaultError;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::definition::plan::gateway::{KeySource, Mode, PreviousKeys};
use crate::store::{Audit, Records, StoreError};

/// What looks up an environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What connections are opened from.
#[derive(Clone)]
pub struct Opening {
    /// Where the master key is.
    pub source: KeySource,
    /// Key rings whose keys only open.
    pub previous: PreviousKeys,
    /// What wraps the master key, where the settings want it.
    pub wrap: Option<Arc<dyn Wrap>>,
    /// Whether a missing key file may be made.
    pub mode: Mode,
    /// Looks up an environment variable.
    pub environment: Environment,
    /// Randomness for keys and nonces.
    pub random: Arc<dyn Random>,
    /// Where sealed connections are kept.
    pub records: Arc<dyn Records>,
    /// Where changes are written first.
    pub audit: Arc<dyn Audit>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("source", &self.source).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Why the program must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keys do not fit the store.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Connections {
    /// The connections of a deployment. Without a master key only those that files declare: then the
    /// store must hold nothing sealed. A rotation that the last end of the program cut off goes on in the
    /// background.
    ///
    /// # Errors
    /// When there is no usable key, or the keys do not fit the store.
    pub async fn open(opening: Opening) -> Result<Self, OpeningError> {
        let (records, audit, clock) =
            (Arc::clone(&opening.records), Arc::clone(&opening.audit), Arc::clone(&opening.clock));
        let Some(keys) = keys::open_keys(opening.place(), Arc::clone(&audit), Arc::clone(&clock)).await? else {
            return Ok(Self::declared());
        };
        keys.resume().await?;
        let stored = Stored::new(Arc::clone(keys.vault()), records, audit, clock);
        Ok(Self::with_stored(stored).with_keys(Arc::new(keys)))
    }
}

impl Opening {
    /// Where the master keys are.
    fn place(self) -> KeyPlace {
        let Self { source, previous, wrap, mode, environment, random, records, .. } = self;
        KeyPlace { source, previous, mode, environment, random, wrap, records }
    }
}
