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
    /// What people call it. Default: its id.
    pub title: Option<String>,
    /// The key, for `auth: api_key`.
    pub api_key: Option<SecretText>,
    /// The name, for `auth: basic`.
    pub username: Option<String>,
    /// The password, for `auth: basic`. Default: empty.
    pub password: Option<SecretText>,
    /// A token got elsewhere, for kinds of auth that use one.
    pub token: Option<SecretText>,
    /// What `inputs` asks for, by name.
    #[serde(default)]
    #[schemars(extend("x-names" = "variable"))]
    pub inputs: Ordered<String>,
    /// Values that signing in would have saved, by name: `saved.NAME` in templates.
    #[serde(default)]
    #[schemars(extend("x-names" = "variable"))]
    pub saved: Ordered<serde_json::Value>,
}
