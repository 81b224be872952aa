//! A client certificate with its key, read and found to belong together when compiled.

use std::fmt;

use crate::base::secret::Secret;

/// What the gateway shows a service that asks who connects.
pub struct Identity {
    /// The chain in DER, the client's own certificate first; never empty.
    pub chain: Vec<Vec<u8>>,
    /// The key in DER: PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret<Vec<u8>>,
}

/// Says how many certificates there are, never the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}
