//! The `rules` block: what happens because of events.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{Filled, OneOrMany, Ordered};
use super::limits::DeliveryRetry;
use super::plugin::PluginUse;
use super::scalar::{DurationText, EndpointName, Expression, Id, Template, Tree};

/// A rule: when an event of some type comes, and if a condition holds, do actions.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its id, unique in the definition: what the page and the log call it.
    pub id: Id,
    /// The event types it is for; `*` stands for any text, as in `pull_request.*`. Of several any may
    /// match.
    pub when: OneOrMany<String>,
    /// What else must hold. Default: nothing.
    #[serde(rename = "if")]
    pub condition: Option<Expression>,
    /// What to do. Each action is a delivery of its own: one that fails does not hold up the others.
    #[serde(rename = "do")]
    pub actions: Filled<Action>,
    /// When its actions are tried again. Default: 3 attempts from 2s, doubling, at most 1h apart.
    pub retry: Option<DeliveryRetry>,
}

/// One thing to do: exactly one of `call`, `deliver`, `run`, `log`, and what goes with it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Runs an endpoint of any integration: `INTEGRATION.ENDPOINT`.
    #[schemars(example = &"slack.post_message")]
    pub call: Option<EndpointName>,
    /// The connection that `call` uses. Default `default`.
    pub connection: Option<Id>,
    /// The inputs of the endpoint that is called.
    pub input: Option<Ordered<Tree>>,
    /// Sends a message to a destination of the gateway file, signed by Standard Webhooks.
    pub deliver: Option<Id>,
    /// The message that `deliver` sends: a JSON value whose texts are templates. Default: the event's
    /// own body, byte for byte.
    pub json: Option<Tree>,
    /// Headers that `deliver` sends besides the signature's.
    #[serde(default)]
    #[schemars(extend("x-headers" = true))]
    pub headers: Ordered<Template>,
    /// Runs a plugin of the gateway file.
    pub run: Option<PluginUse>,
    /// Writes a line to the log.
    pub log: Option<Template>,
    /// How loud that line is. Default `info`.
    pub level: Option<Level>,
    /// When this action is tried again. Default: as the rule or the destination says.
    pub retry: Option<DeliveryRetry>,
    /// How long one try may take. Default: as the destination or endpoint says.
    pub timeout: Option<DurationText>,
}

/// How loud a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For developers.
    Debug,
    /// Usual.
    Info,
    /// Unusual.
    Warn,
    /// Someone must act.
    Error,
}
