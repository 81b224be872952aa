//! A signed token (RFC 7519) as a plan: the claims, how long it lives, and the key that signs it.

use std::sync::Arc;
use std::time::Duration;

use crate::base::signing_key::{Algorithm, Encoding, SigningKey};
use crate::template::{Text, Tree};

/// A token that is signed here: for each call, or to be exchanged.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// The signature algorithm.
    pub algorithm: Algorithm,
    /// The key; `None` when each connection brings its own.
    pub key: Option<Arc<SigningKey>>,
    /// How the text of a connection's own key becomes key bytes, for HS algorithms.
    pub encoding: Encoding,
    /// The `kid` header; without it the one of a key that was read from a JWK.
    pub key_id: Option<Text>,
    /// The claims in order; one that is none is left out, of those that are added as well.
    pub claims: Vec<(String, Tree)>,
    /// How long a token lives; whole seconds.
    pub ttl: Duration,
}
