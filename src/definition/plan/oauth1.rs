//! OAuth 1.0a (RFC 5849), compiled.

use std::sync::Arc;

use super::request::Request;
use crate::base::rsa_sha1::RsaSha1Key;
use crate::base::secret::Secret;
use crate::template::Text;

/// A service's OAuth 1.0a.
#[derive(Debug)]
pub struct OAuth1 {
    /// The call that brings temporary credentials (section 2.1).
    pub request_token: Request,
    /// Where the person is sent (section 2.2); `oauth_token` is added.
    pub authorize: Text,
    /// The call that brings the token (section 2.3).
    pub access_token: Request,
    /// How calls are signed.
    pub signature: Signature,
    /// The `realm` of the header.
    pub realm: Option<Text>,
    /// The application's key and secret; `None` when a deployment has yet to give them.
    pub client: Option<Consumer>,
}

/// The application's own credentials.
#[derive(Debug)]
pub struct Consumer {
    /// Its key.
    pub key: String,
    /// Its secret; empty where RSA signs.
    pub secret: Secret,
}

/// How calls are signed.
#[derive(Debug, Clone)]
pub enum Signature {
    /// HMAC-SHA1 with both secrets.
    HmacSha1,
    /// HMAC-SHA256 with both secrets.
    HmacSha256,
    /// The secrets themselves: over TLS only.
    Plaintext,
    /// RSA with SHA-1 and the application's private key; `None` without one.
    RsaSha1(Option<Arc<RsaSha1Key>>),
}

impl Signature {
    /// Its name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HmacSha1 => "HMAC-SHA1",
            Self::HmacSha256 => "HMAC-SHA256",
            Self::Plaintext => "PLAINTEXT",
            Self::RsaSha1(_) => "RSA-SHA1",
        }
    }
}
