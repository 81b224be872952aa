//! What is counted of calls.

use schemars::JsonSchema;
use serde::Deserialize;

use super::scalar::{DurationText, SizeText};

/// What is counted of calls: how many, how they ended and how long they took, for each integration and endpoint. Single
/// minutes are kept for two days, and after that quarters of an hour.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// For how long; at least 1h. Default 62d: a month, and the month before to compare it with.
    pub retain: Option<DurationText>,
    /// The most bytes of memory it takes, at least 64KiB; a minute and an endpoint take about 300 bytes. When they are
    /// used up, minutes are put together earlier, and then the oldest are let go. Its files may have four times as
    /// many. Default 32MiB.
    pub bytes: Option<SizeText>,
}
