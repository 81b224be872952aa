//! Master keys wrapped by Vault's Transit engine.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::VaultError;
use super::store::SecretStore;
use crate::base::secret::Secret;
use crate::definition::plan::gateway::TransitKey;

/// One key of the Transit engine.
pub struct Transit {
    store: Arc<SecretStore>,
    key: TransitKey,
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transit").field(&self.key).finish()
    }
}

impl Transit {
    /// This key of the store's server.
    pub fn new(store: Arc<SecretStore>, key: TransitKey) -> Self {
        Self { store, key }
    }

    /// The bytes, encrypted by the key's newest version, as `vault:vN:…`.
    ///
    /// # Errors
    /// When the server does not do it.
    pub async fn encrypt(&self, plain: &Secret<Vec<u8>>) -> Result<String, VaultError> {
        let path = format!("{}/encrypt/{}", self.key.mount, self.key.key);
        let plain = Zeroizing::new(STANDARD.encode(plain.expose()));
        let wrapped = self.store.transit(path, ("plaintext", plain), "ciphertext").await?;
        Ok(wrapped.expose().clone())
    }

    /// The bytes that [`Self::encrypt`] took.
    ///
    /// # Errors
    /// When the server does not do it.
    pub async fn decrypt(&self, wrapped: &str) -> Result<Secret<Vec<u8>>, VaultError> {
        let path = format!("{}/decrypt/{}", self.key.mount, self.key.key);
        let wrapped = Zeroizing::new(wrapped.to_owned());
        let plain = self.store.transit(path, ("ciphertext", wrapped), "plaintext").await?;
        STANDARD.decode(plain.expose()).map(Secret::new).map_err(|_| VaultError::Answer("plaintext in base 64"))
    }
}
