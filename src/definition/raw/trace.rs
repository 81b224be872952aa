//! The `trace` block: which traces are recorded, and where they go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::Ordered;
use super::scalar::{DurationText, SecretText};

/// Traces: what belongs together, from the application's call or a webhook to what was done because of it. Takes effect
/// at start.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The collector that spans are sent to.
    pub otlp: Otlp,
    /// The share of traces that is recorded of those that begin here, 0 to 1. A call of an application that comes with
    /// a `traceparent` is recorded where that says so. Default 0.01.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: Option<f64>,
}

/// A collector of OpenTelemetry, asked by OTLP over HTTP in JSON.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Its address; spans go to `/v1/traces` below it. Plain HTTP is for loopback and private networks.
    #[schemars(example = &"http://127.0.0.1:4318", extend("x-url" = "destination"))]
    pub endpoint: String,
    /// Headers that each request has, such as a key of the collector's.
    #[serde(default)]
    #[schemars(extend("x-headers" = true))]
    pub headers: Ordered<SecretText>,
    /// How long an answer may take. Default 10s.
    pub timeout: Option<DurationText>,
}
