//! The `connections` block: accounts that a file declares.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::Ordered;
use super::scalar::{Id, SecretText};

/// An account at the service, declared in the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Its id: what callers send as `Trunkline-Connection`. The one used without that is `default`.
    pub id: Id,
    /// The key, for `auth: api_key`, and for `auth: jwt` where each connection signs with its own.
    pub api_key: Option<SecretText>,
    /// The name, for `auth: basic`; the id of the access key, for `auth: sigv4`.
    pub username: Option<String>,
    /// The password, for `auth: basic`, empty by default; the secret access key, for `auth: sigv4`.
    pub password: Option<SecretText>,
    /// A token got elsewhere, for `oauth2`, `oauth1` and `login`; the session token, for `auth: sigv4`.
    pub token: Option<SecretText>,
    /// The secret of the token, for `auth: oauth1`.
    pub token_secret: Option<SecretText>,
    /// What `inputs` asks for, by name.
    #[serde(default)]
    #[schemars(extend("x-names" = "variable"))]
    pub inputs: Ordered<String>,
    /// Values that signing in would have saved, by name: `saved.NAME` in templates.
    #[serde(default)]
    #[schemars(extend("x-names" = "variable"))]
    pub saved: Ordered<serde_json::Value>,
}
