//! The `inputs` block: what each connection must tell.

use schemars::JsonSchema;
use serde::Deserialize;

/// Something a connection must tell before it can be used: `input.NAME` in templates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What people call it. Default: its name.
    pub title: Option<String>,
    /// Where a person finds it: a page's address or a sentence.
    pub help: Option<String>,
    /// What stands in for it when a connection does not tell.
    pub default: Option<String>,
    /// A regular expression that values match; anchor it with `^` and `$`. Where a value becomes part
    /// of a host, this is what keeps calls where they belong.
    #[schemars(extend("x-regex" = true))]
    pub pattern: Option<String>,
    /// The values there are, where they are few.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Whether a connection may leave it out: it is then none.
    #[serde(default)]
    pub optional: bool,
    /// Whether it is kept like a credential and shown nowhere.
    #[serde(default)]
    pub secret: bool,
}
