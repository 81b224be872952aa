//! How connections sign in, compiled.

use std::sync::Arc;
use std::time::Duration;

use super::NotYet;
use super::oauth2::OAuth2;
use crate::base::secret::Secret;
use crate::template::{Text, Tree};

/// How connections sign in.
#[derive(Debug, Clone)]
pub enum Auth {
    /// They do not.
    None,
    /// With a key that `api.credential` places.
    ApiKey {
        /// What a key looks like.
        pattern: Option<regex::Regex>,
    },
    /// With a name and a password (RFC 7617).
    Basic,
    /// By OAuth 2.0 (RFC 6749) and its grants.
    OAuth2(Arc<OAuth2>),
    /// By a kind that this version does not run.
    NotYet(NotYet),
}

/// A token that is signed here: claims, how long it lives, and the key that signs it.
#[derive(Debug)]
pub struct Assertion {
    /// The signature algorithm.
    pub algorithm: JwtAlgorithm,
    /// The key as its owner wrote it: PEM, JWK, or the text of a shared secret.
    pub key: Option<Secret>,
    /// How the text of a shared secret becomes bytes.
    pub key_encoding: KeyEncoding,
    /// The `kid` header.
    pub key_id: Option<Text>,
    /// The claims besides `iat`, `exp` and `jti`.
    pub claims: Vec<(String, Tree)>,
    /// How long the token lives. Default 5 minutes.
    pub ttl: Duration,
}

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the RFCs'")]
pub enum JwtAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// How a key's text becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyEncoding {
    /// Its UTF-8 bytes.
    #[default]
    Utf8,
    /// Hexadecimal.
    Hex,
    /// Base 64, padded or not.
    Base64,
    /// Base 64 with the URL alphabet, padded or not.
    Base64Url,
}
