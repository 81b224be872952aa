//! What keeps calls within bounds: rates, quotas, retries, the breaker, the cache.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{Filled, Short};
use super::scalar::{DurationText, Expression, HeaderText, Id, Method, RateText, SizeText, TimeUnit};
use crate::base::units::parse_duration;

/// A rate that calls are kept to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many calls in what time.
    pub rate: RateText,
    /// How many may come at once. Default: the rate's count, at most 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// What is counted together. Default `connection`.
    pub per: Option<LimitScope>,
    /// Only calls whose path matches one of these; `*` stands for any text.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Only calls with one of these methods.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// How long a call may wait for its turn before it is refused with 429. Default: not at all.
    pub wait: Option<DurationText>,
}

/// What a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// All calls to the integration.
    Integration,
    /// Calls of one connection.
    Connection,
    /// Calls of one caller.
    Caller,
    /// Calls of one endpoint.
    Endpoint,
}

/// How the service tells what is left of a quota.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-sees" = "answer"))]
pub struct Quota {
    /// How many calls are left.
    pub remaining: Expression,
    /// How many there are in all.
    pub limit: Option<Expression>,
    /// When the quota is full again.
    pub resets: Option<Moment>,
    /// Calls of the gateway's own (syncs, actions) wait when no more than this are left. Default 0.
    pub reserve: Option<u32>,
}

/// A moment that an answer tells: `at` a time or `after` a time, and how it is written. Services use
/// one header's name for both, so the unit is never guessed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-sees" = "answer"))]
pub struct Moment {
    /// The moment itself.
    pub at: Option<Expression>,
    /// How long from now.
    pub after: Option<Expression>,
    /// How the value is written.
    pub unit: TimeUnit,
}

/// When a call is tried again: pauses double from `backoff` to `max_backoff`, each drawn
/// evenly from zero to its width.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often at most, the first try included. Default 3.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: Option<u32>,
    /// The widest pause before the first retry; it doubles with each. Default 1s.
    pub backoff: Option<DurationText>,
    /// The widest pause before any retry. Default 30s.
    pub max_backoff: Option<DurationText>,
    /// Statuses that are tried again, besides 429, 502, 503 and 504.
    #[serde(default)]
    #[schemars(inner(range(min = 400, max = 599)))]
    pub statuses: Vec<u16>,
    /// The header in which the service takes an idempotency key: makes POST safe to retry.
    pub idempotency_key: Option<HeaderText>,
    /// What the service says about when to come back. Default: `Retry-After`, in both its forms.
    pub retry_after: Option<Moment>,
}

/// When a delivery is tried again: pauses double from `backoff` to `max_backoff`, each drawn evenly from
/// zero to its width. A destination's own `Retry-After` is kept where it is longer.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRetry {
    /// How often at most, the first try included. Then it goes to the dead letters. Default 3.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: Option<u32>,
    /// The widest pause before the first retry. Default 2s.
    pub backoff: Option<DurationText>,
    /// The widest pause before any retry. Default 1h.
    pub max_backoff: Option<DurationText>,
}

/// When calls are refused for a while because the service is failing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// The share of failed calls, 0 to 1, that opens it. Default 0.5.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub failure_rate: Option<f64>,
    /// Over what time. Default 30s.
    pub window: Option<DurationText>,
    /// With fewer calls than this in the window it stays closed. Default 20.
    pub min_requests: Option<u32>,
    /// This many failures in a row open it as well. Default: none do.
    pub consecutive: Option<u32>,
    /// How long it stays open before it is probed. Default 15s.
    pub open: Option<DurationText>,
    /// How many calls probe it then, the others being refused still; when all of them succeed it closes, and the
    /// first that fails opens it again. Default 3.
    #[schemars(range(min = 1, max = 100))]
    pub probes: Option<u32>,
    /// Calls with a circuit of their own, by the first group that a call fits, so that one failing part of a service
    /// does not hold up the rest. What fits none shares the circuit of its place. Default: none.
    #[serde(default)]
    pub groups: Vec<BreakerGroup>,
}

/// Calls that fail and recover together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakerGroup {
    /// What the API, the command line and refusals call it.
    pub id: Id,
    /// Only calls whose path matches one of these; `*` stands for any text.
    pub paths: Filled<String>,
    /// Only calls with one of these methods. Default: all.
    #[serde(default)]
    pub methods: Vec<Method>,
}

/// How long answers to GET may be reused, within one connection (RFC 9111). `{}` is as long as the service
/// says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long an answer counts as fresh, whatever the service says of it (`max-age`, `no-cache`, `Expires`,
    /// `must-revalidate`); answers with `no-store` are not kept all the same, nor are errors. Default: as long
    /// as the service says, which is not at all where it says nothing.
    pub ttl: Option<DurationText>,
    /// Whether answers with `no-store` are kept as well. Only with `ttl`. Default false.
    #[serde(default)]
    pub ignore_no_store: bool,
    /// How long a stale answer may be used while a new one is fetched. Default: not at all.
    pub stale_while_revalidate: Option<DurationText>,
    /// How long a stale answer may be used when the service fails or cannot be reached. Default: not at all.
    pub stale_if_error: Option<DurationText>,
    /// The largest body that is kept. Default 1MiB.
    pub max_body: Option<SizeText>,
}

impl Short for Cache {
    const SHORT: &'static str = "how long answers are fresh, such as `5m`";
    const PATTERN: Option<&'static str> =
        Some(r"^(?=.)([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$");

    fn from_short(text: String) -> Result<Self, String> {
        let ttl = parse_duration(&text).map(DurationText).map_err(|error| error.to_string())?;
        Ok(Self {
            ttl: Some(ttl),
            ignore_no_store: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            max_body: None,
        })
    }
}
