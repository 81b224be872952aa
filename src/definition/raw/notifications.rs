//! The `notifications` block: how much is told of the gateway's own events.

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{DurationText, RateText};

/// How much is told of the gateway's own events. Of each kind, integration and connection the first is told at once.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    /// For how long after one event those of the same kind, integration and connection are told in one, with their
    /// count. `0s` tells each. Default 5m.
    pub group: Option<DurationText>,
    /// How many events there are at most, all kinds together; what is beyond is told in one,
    /// `trunkline.notifications.over_rate`, once there is room. Default 60/h.
    pub rate: Option<RateText>,
    /// After how long without a verified webhook an integration that had one before is told of
    /// (`trunkline.webhook.silent`), where its `webhook.silent_after` does not say. Default: never.
    pub silent_after: Option<DurationText>,
}
