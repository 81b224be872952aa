//! How connections sign in, compiled.

use std::sync::Arc;

use super::assertion::Assertion;
use super::login::Login;
use super::oauth1::OAuth1;
use super::oauth2::OAuth2;
use super::sigv4::SigV4;

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
    /// By OAuth 1.0a (RFC 5849).
    OAuth1(Arc<OAuth1>),
    /// By a token that is signed here (RFC 7519).
    Jwt(Arc<Assertion>),
    /// By AWS Signature Version 4.
    SigV4(Arc<SigV4>),
    /// By the client certificate of the API's transport.
    Mtls,
    /// By requests of the service's own that yield a token.
    Login(Arc<Login>),
}
