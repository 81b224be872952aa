//! A definition as a whole.

use schemars::JsonSchema;
use serde::Deserialize;

/// Something a connection must tell before it can be used: `input.NAME` in templates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What people call it.
    #[serde(default)]
    pub title: Option<String>,
    /// Where a person finds it.
    #[serde(default)]
    pub help: Option<String>,
    /// What stands in for it when a connection does not tell.
    #[serde(default)]
    pub default: Option<String>,
    /// A regular expression that values match; anchor it with `^` and `$`.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The values there are, where they are few.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Whether it is kept like a credential and shown nowhere.
    #[serde(default)]
    pub secret: bool,
}
