//! The `api` block.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{Ordered, ShortOr};
use super::limits::{Breaker, Cache, Limit, Quota, Retry};
use super::request::{Change, Request, request_shape};
use super::scalar::{DurationText, Expression, HeaderText, Id, SizeText, Template};

/// A service's API: where it is, how calls to it are made, and what limits them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where the API is: scheme, host and base path. May use `input` and `saved`; then `hosts` says
    /// where it may point.
    #[schemars(example = &"https://api.stripe.com", extend("x-sees" = "address", "x-url" = "base"))]
    pub base_url: Template,
    /// Hosts that calls may go to besides those written out: a name, or `*.` and a name for all names
    /// below it. Needed where a host comes from an input or a saved value.
    #[serde(default)]
    #[schemars(extend("x-hosts" = true))]
    pub hosts: Vec<String>,
    /// Headers that every call carries. A caller's own value of one of these is replaced.
    #[serde(default)]
    #[schemars(extend("x-sees" = "api-header", "x-headers" = true))]
    pub headers: Ordered<Template>,
    /// Where the connection's credential goes. Default: `Authorization: Bearer` for OAuth kinds,
    /// `Authorization: Basic` for `basic`; `api_key` must say.
    #[schemars(extend("x-sees" = "credential"))]
    pub credential: Option<CredentialPlacement>,
    /// What makes an answer a success, for services that answer errors with 200. Default:
    /// a 2xx status.
    #[schemars(extend("x-sees" = "answer"))]
    pub ok: Option<Expression>,
    /// The service's words for what went wrong.
    #[schemars(extend("x-sees" = "answer"))]
    pub error: Option<Expression>,
    /// A cheap request that tells whether a connection works. An answer of another place that a redirect led to says
    /// nothing of that, unless `ok` says what a success is.
    #[schemars(extend("x-sees" = "call"))]
    pub test: Option<ShortOr<Request>>,
    /// Rates that calls are kept to. All that match a call apply.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// How the service tells what is left of a quota.
    pub quota: Option<Quota>,
    /// When a call is tried again.
    pub retry: Option<Retry>,
    /// When calls are refused for a while because the service is failing.
    pub breaker: Option<Breaker>,
    /// How long answers to GET may be reused. Default: not at all.
    pub cache: Option<ShortOr<Cache>>,
    /// Requests with a name: run by rules, by callers, or recognised as they pass through.
    #[serde(default)]
    #[schemars(extend("x-sees" = "call"))]
    pub endpoints: Vec<Endpoint>,
    /// How long each phase of a call may take.
    pub timeouts: Option<Timeouts>,
    /// The most bytes of a body, and of its answer, where calls through the proxy door cannot stream,
    /// because the credential or a signature depends on the body; more is refused. Default 8MiB.
    pub body_limit: Option<SizeText>,
    /// How the service's certificate is trusted.
    pub tls: Option<Tls>,
    /// HTTP versions offered over TLS: `best` (HTTP/2 where the service takes it), `1.1`, or `2` for services that speak
    /// nothing else, such as those of gRPC.
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

/// Where a connection's credential goes: a header, a query parameter or a field of the body.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialPlacement {
    /// The header that carries it.
    pub header: Option<HeaderText>,
    /// The query parameter that carries it.
    pub query: Option<String>,
    /// The field of the body that carries it: of a form, or at the top of a JSON object. Calls through the
    /// proxy door are then read whole, up to `api.body_limit`; calls with another body are refused.
    pub body: Option<String>,
    /// The value, such as `Bearer {{ api_key }}`.
    pub value: Template,
}

request_shape! {
    /// A request with a name.
    Endpoint {
        /// Its id, unique in the definition.
        id: Id,
        /// Scopes that the endpoint needs. A connection of which it is known that it lacks one is told so, and the
        /// service is not called.
        #[serde(default)]
        scopes: Vec<String>,
        /// How long its answers may be reused, instead of what the API says.
            cache: Option<ShortOr<Cache>>,
        /// Rates of its own, besides the API's.
        #[serde(default)]
        limits: Vec<Limit>,
        /// When it is tried again, instead of the API's.
            retry: Option<Retry>,
        /// What is changed in calls that pass through the proxy door and match it.
            transform: Option<Transform>,
        /// The list on a page that a caller gets with `trunkline-page=all`. Default: the body where it is a list,
        /// else the only list in it.
        #[schemars(extend("x-answer" = true))]
            records: Option<Expression>,
        /// How its answers come in pages. A caller who asks a GET for `?trunkline-page=all`, or by the header
        /// `Trunkline-Page: all`, gets all of them as one JSON array, or as lines of JSON where it accepts
        /// `application/x-ndjson`.
            page: Option<super::sync::Page>,
    }
}

/// What is changed in calls that pass through.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Changes to what the caller sends.
    #[schemars(extend("x-sees" = "transform-request"))]
    pub request: Option<Change>,
    /// Changes to what the service answers. A body is changed where there is one, and errors only where they
    /// are JSON; answers to HEAD pass unchanged.
    #[schemars(extend("x-sees" = "transform-response"))]
    pub response: Option<Change>,
    /// What becomes of an answer whose status is below 400 and that is no success by `ok` (the endpoint's, else
    /// the API's): `pass`, or `problem`, which makes it a problem document with status 502 and the words that
    /// `error` finds. Default `pass`. What the service answers with an error status passes in any case.
    pub errors: Option<Errors>,
    /// The most bytes of a body that is read to be changed, also after it was decompressed; more is refused.
    /// Default 1MiB.
    pub max_body: Option<SizeText>,
}

/// What becomes of an error that comes with a status of success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Errors {
    /// It passes as it is.
    Pass,
    /// It becomes a problem document.
    Problem,
}

/// How long each phase of a call may take.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// DNS, TCP and TLS together. Default 10s.
    pub connect: Option<DurationText>,
    /// From the request's end to the answer's head. Default 30s.
    pub response: Option<DurationText>,
    /// Between two reads or writes of a stream. Default 60s.
    pub idle: Option<DurationText>,
    /// A whole call of the gateway's own: action, test, endpoint by name. At the proxy door how long a call waits for its
    /// turn, and until when a further try may begin to be answered. Default 60s.
    pub total: Option<DurationText>,
}

/// How the service's certificate is trusted. Verification is always on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM certificates to trust instead of the system's, usually `${file:ca.pem}`.
    #[schemars(extend("x-pem" = "certificate"))]
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
    /// HTTP/2 only.
    #[serde(rename = "2")]
    Two,
}
