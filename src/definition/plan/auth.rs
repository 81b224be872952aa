//! How connections sign in, compiled.

use std::sync::Arc;

use super::NotYet;
use super::oauth2::OAuth2;

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
