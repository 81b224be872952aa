//! From a store and the settings to connections: keys read, keys checked, in that order and never less.

use std::fmt;
use std::sync::Arc;

use super::directory::Connections;
use super::keyring::{KeyError, KeyRing};
use super::stored::Stored;
use super::vault::{Vault, VaultError};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::definition::plan::gateway::{KeySource, Mode};
use crate::store::{Audit, Records};

/// What looks up an environment variable.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What connections are opened from.
#[derive(Clone)]
pub struct Opening {
    /// Where the master key is.
    pub source: KeySource,
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
}

impl Connections {
    /// The connections of a deployment. Without a master key only those that files declare: then the
    /// store must hold nothing sealed.
    ///
    /// # Errors
    /// When there is no usable key, or the keys do not fit the store.
    pub async fn open(opening: Opening) -> Result<Self, OpeningError> {
        let Opening { source, mode, environment, random, records, audit, clock } = opening;
        let Some(ring) = KeyRing::load(&source, mode, &*environment, &*random)? else {
            Vault::check_without_key(&*records).await?;
            return Ok(Self::declared());
        };
        let vault = Vault::new(ring, random);
        vault.check(&*records).await?;
        Ok(Self::with_stored(Stored::new(vault, records, audit, clock)))
    }
}
