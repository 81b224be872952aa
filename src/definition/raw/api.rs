//! The `api` block.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::request::{Request, request_shape};
use super::scalar::{DurationText, Expression, Id, Ordered, RateText, ShortOr, SizeText, Template};

/// A service's API: where it is, how calls to it are made, and what limits them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where the API is: scheme, host and base path. May use `input` and `saved`; then `hosts` says
    /// where it may point.
    #[schemars(example = "https://api.stripe.com")]
    pub base_url: Template,
    /// Hosts that calls may go to besides those written out: a name, or `*.` and a name for all names
    /// below it. Needed where a host comes from an input or a saved value.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Headers that every call carries. A caller's own value of one of these is replaced.
    #[serde(default, deserialize_with = "super::scalar::ordered")]
    #[schemars(with = "BTreeMap<String, Template>")]
    pub headers: Ordered<Template>,
    /// Where the connection's credential goes. Default: `Authorization: Bearer` for OAuth kinds,
    /// `Authorization: Basic` for `basic`; `api_key` must say.
    #[serde(default)]
    pub credential: Option<CredentialPlacement>,
    /// What makes an answer a success, for services that answer errors with 200. Sees `status`,
    /// `headers`, `body`. Default: a 2xx status.
    #[serde(default)]
    pub ok: Option<Expression>,
    /// The service's words for what went wrong. Sees the same.
    #[serde(default)]
    pub error: Option<Expression>,
    /// A cheap request that tells whether a connection works.
    #[serde(default)]
    pub test: Option<ShortOr<Request>>,
    /// Rates that calls are kept to. All that match a call apply.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// How the service tells what is left of a quota.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// When a call is tried again.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// When calls are refused for a while because the service is failing.
    #[serde(default)]
    pub breaker: Option<Breaker>,
    /// How long answers to GET may be reused.
    #[serde(default)]
    pub cache: Option<Cache>,
    /// Requests with a name: run by rules, by callers, or recognised as they pass through.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// How long each phase of a call may take.
    #[serde(default)]
    pub timeouts: Option<Timeouts>,
    /// How the service's certificate is trusted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// HTTP versions offered: `best` (HTTP/2 where the service takes it) or `1.1`.
    #[serde(default)]
    pub http: Option<HttpVersion>,
    /// Whether private, loopback and link-local addresses may be dialled. The gateway file's
    /// `private_networks` must contain them as well.
    #[serde(default)]
    pub allow_private: bool,
    /// Whether plain HTTP is allowed to hosts that are not loopback. The credential then travels
    /// unprotected.
    #[serde(default)]
    pub allow_plain_http: bool,
}

/// Where a connection's credential goes: a header or a query parameter.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialPlacement {
    /// The header that carries it.
    #[serde(default)]
    pub header: Option<String>,
    /// The query parameter that carries it.
    #[serde(default)]
    pub query: Option<String>,
    /// The field of a JSON or form body that carries it.
    #[serde(default)]
    pub body: Option<String>,
    /// The value. Sees `api_key`, `username`, `password`, `token`, `input` and `saved`.
    pub value: Template,
}

/// A rate that calls are kept to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many calls in what time.
    pub rate: RateText,
    /// How many may come at once. Default: the rate's count, at most 100.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// What is counted together. Default `connection`.
    #[serde(default)]
    pub per: Option<LimitScope>,
    /// Only calls whose path matches one of these; `*` stands for any text.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Only calls with one of these methods.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// How long a call may wait for its turn before it is refused with 429. Default: not at all.
    #[serde(default)]
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

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are RFC 9110's")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// The method as the HTTP library knows it.
    pub fn to_http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Head => http::Method::HEAD,
            Self::Post => http::Method::POST,
            Self::Put => http::Method::PUT,
            Self::Patch => http::Method::PATCH,
            Self::Delete => http::Method::DELETE,
            Self::Options => http::Method::OPTIONS,
        }
    }
}

/// How the service tells what is left of a quota.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How many calls are left. Sees `headers`, `status`, `body`.
    pub remaining: Expression,
    /// When the quota is full again.
    #[serde(default)]
    pub resets: Option<QuotaReset>,
}

/// When a quota is full again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaReset {
    /// At a moment, in `unit`.
    #[serde(default)]
    pub at: Option<Expression>,
    /// After a time, in `unit`.
    #[serde(default)]
    pub after: Option<Expression>,
    /// What the value counts in.
    pub unit: TimeUnit,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// A number of seconds.
    Seconds,
    /// A number of milliseconds.
    Millis,
    /// A number of minutes.
    Minutes,
    /// RFC 3339, such as `2026-01-31T10:00:00Z`.
    Rfc3339,
    /// An HTTP date (RFC 9110 §5.6.7).
    HttpDate,
}

/// When a call is tried again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How often at most, the first try included. Default 3.
    #[serde(default)]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: Option<u32>,
    /// The widest pause before the first retry; it doubles with each. Default 2s.
    #[serde(default)]
    pub backoff: Option<DurationText>,
    /// The widest pause before any retry. Default 1h for deliveries, 30s for calls.
    #[serde(default)]
    pub max_backoff: Option<DurationText>,
    /// Statuses that are tried again besides 429, 502, 503 and 504.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// The header in which the service takes an idempotency key: makes POST safe to retry.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

/// When calls are refused for a while because the service is failing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// The share of failed calls, 0 to 1, that opens it. Default 0.5.
    #[serde(default)]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub failure_rate: Option<f64>,
    /// Over what time. Default 30s.
    #[serde(default)]
    pub window: Option<DurationText>,
    /// With fewer calls than this in the window it stays closed. Default 20.
    #[serde(default)]
    pub min_requests: Option<u32>,
    /// This many failures in a row open it as well. Default: none do.
    #[serde(default)]
    pub consecutive: Option<u32>,
    /// How long it stays open before a probe. Default 15s.
    #[serde(default)]
    pub open: Option<DurationText>,
}

/// How long answers to GET may be reused.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How long an answer counts as fresh, whatever the service says.
    pub ttl: DurationText,
    /// How long a stale answer may be used while a new one is fetched. Default: not at all.
    #[serde(default)]
    pub stale_while_revalidate: Option<DurationText>,
    /// How long a stale answer may be used when the service fails. Default: not at all.
    #[serde(default)]
    pub stale_if_error: Option<DurationText>,
}

request_shape! {
    /// A request with a name.
    Endpoint {
        /// Its id, unique in the definition.
        id: Id,
        /// What it does, in a few words.
        #[serde(default)]
        title: Option<String>,
        /// Scopes a connection must have been granted.
        #[serde(default)]
        scopes: Vec<String>,
        /// How long its answers may be reused.
        #[serde(default)]
        cache: Option<Cache>,
        /// Rates of its own, besides the API's.
        #[serde(default)]
        limits: Vec<Limit>,
        /// When it is tried again, instead of the API's.
        #[serde(default)]
        retry: Option<Retry>,
        /// What is changed in calls that pass through the proxy door and match it.
        #[serde(default)]
        transform: Option<Transform>,
        /// How its answers come in pages.
        #[serde(default)]
        page: Option<super::sync::Page>,
    }
}

/// What is changed in calls that pass through.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Changes to what the caller sends. Sees `body`, `headers`, `query`, `input`, `saved`.
    #[serde(default)]
    pub request: Option<Change>,
    /// Changes to what the service answers. Sees `body`, `headers`, `status`.
    #[serde(default)]
    pub response: Option<Change>,
    /// The most bytes of a body that is read to be changed; more is refused. Default 1MiB.
    #[serde(default)]
    pub max_body: Option<SizeText>,
}

/// Changes to a message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Headers to set; one whose value is none is removed.
    #[serde(default, deserialize_with = "super::scalar::ordered")]
    #[schemars(with = "BTreeMap<String, Template>")]
    pub headers: Ordered<Template>,
    /// The new body: a JSON value whose texts are templates. Default: the body passes unchanged.
    #[serde(default)]
    pub json: Option<Value>,
}

/// How long each phase of a call may take.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// DNS, TCP and TLS together. Default 10s.
    #[serde(default)]
    pub connect: Option<DurationText>,
    /// From the request's end to the answer's head. Default 30s.
    #[serde(default)]
    pub response: Option<DurationText>,
    /// Between two reads or writes of a stream. Default 60s.
    #[serde(default)]
    pub idle: Option<DurationText>,
    /// A whole call of the gateway's own: action, test, endpoint by name. Default 60s.
    #[serde(default)]
    pub total: Option<DurationText>,
}

/// How the service's certificate is trusted. Verification is always on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM certificates to trust instead of the system's, usually `${file:ca.pem}`.
    #[serde(default)]
    pub ca: Option<String>,
}

/// HTTP versions offered to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum HttpVersion {
    /// HTTP/2 where the service takes it, else HTTP/1.1.
    #[serde(rename = "best")]
    Best,
    /// HTTP/1.1 only.
    #[serde(rename = "1.1")]
    One,
}
