//! A service's API, compiled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::identity::Identity;
use super::page::Paging;
use super::policy::{Policy, Retry};
use super::request::Request;
use crate::base::path::lax;
use crate::template::{Expr, Segment, Text, Tree};

/// A service's API.
#[derive(Debug)]
pub struct Api {
    /// Where it is: scheme, host and base path; sees `input` and `saved`.
    pub base_url: Text,
    /// Hosts that calls may go to besides the literal host of `base_url` and of requests.
    pub hosts: Vec<HostPattern>,
    /// Headers that every call carries; a caller's own value of one of these is replaced.
    pub headers: Vec<(HeaderName, Text)>,
    /// Where the connection's credential goes.
    pub credential: Placement,
    /// The request that tells whether a connection works.
    pub test: Option<Request>,
    /// Requests with a name.
    pub endpoints: Vec<Endpoint>,
    /// What makes an answer a success where a request does not say.
    pub ok: Option<Expr>,
    /// The service's words for what went wrong, where a request does not say.
    pub error: Option<Expr>,
    /// What keeps calls within bounds.
    pub policy: Policy,
    /// How long answers to GET may be used again; `None` is not at all.
    pub cache: Option<Cache>,
    /// The most bytes of a body, and of its answer, where a call through the proxy door cannot stream.
    pub body_limit: u64,
    /// How long each phase of a call may take.
    pub timeouts: Timeouts,
    /// How the service is dialled and trusted.
    pub transport: Transport,
}

/// Whether a header's value is another one for each call, because it names the moment, the call or randomness.
pub fn tells_one_call(value: &Text) -> bool {
    let of_one_call = |name: &str| matches!(name.split('.').next(), Some("now" | "uuid" | "nonce" | "request"));
    value.reads().iter().any(|name| of_one_call(&name.path))
}

impl Api {
    /// The endpoint with this id.
    pub fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.id == id)
    }

    /// When calls of an endpoint, or of none, are tried again.
    pub fn retry(&self, endpoint: Option<&str>) -> Option<&Retry> {
        let own = endpoint.and_then(|id| self.endpoint(id)?.retry.as_ref());
        own.or(self.policy.retry.as_ref())
    }

    /// The endpoint that a call through the proxy door is for, by its method and path.
    pub fn recognise(&self, method: &Method, path: &str) -> Option<&Endpoint> {
        self.endpoints.get(self.place_of((method, path), |_| true)?)
    }

    /// The place of the endpoint that a call is for, if it is `wanted`. Of several that match the path as it is, those
    /// with a word where others have a slot are meant (`/users/me` before `/users/{id}`), and of several with the same
    /// path the first that is wanted. Where none matches it is the first wanted one that a lax server would take the
    /// call for. A path is in its normal form ([`crate::base::path::normal`]).
    pub fn place_of(&self, (method, path): (&Method, &str), wanted: impl Fn(&Endpoint) -> bool) -> Option<usize> {
        let endpoints = || self.endpoints.iter();
        let exact = |endpoint: &&Endpoint| endpoint.pattern.matches(method, path);
        if let Some(meant) = endpoints().filter(exact).min_by(|a, b| a.pattern.slots().cmp(b.pattern.slots())) {
            let same = |endpoint: &Endpoint| endpoint.pattern.segments == meant.pattern.segments;
            return endpoints().position(|endpoint| wanted(endpoint) && exact(&endpoint) && same(endpoint));
        }
        let path = lax(path);
        endpoints().position(|endpoint| wanted(endpoint) && endpoint.pattern.may_match(method, &path))
    }

    /// Whether any of its answers may be used again.
    pub fn caches(&self) -> bool {
        self.cache.is_some() || self.endpoints.iter().any(|endpoint| endpoint.cache.is_some())
    }

    /// How long the answer to a GET of this percent-encoded path (beginning with a slash, without query) may
    /// be used again: as its endpoint says, else as the API does.
    pub fn cache_of(&self, path: &str) -> Option<Cache> {
        self.recognise(&Method::GET, path).and_then(|endpoint| endpoint.cache).or(self.cache)
    }
}

/// How long answers may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// How long an answer is fresh, whatever the service says; `None` is as long as the service says.
    pub ttl: Option<Duration>,
    /// Whether answers with `no-store` are kept as well, where there is a `ttl`.
    pub ignore_no_store: bool,
    /// How long a stale answer is used while a new one is fetched. Default zero.
    pub stale_while_revalidate: Duration,
    /// How long a stale answer is used when the service fails. Default zero.
    pub stale_if_error: Duration,
    /// Bytes of a body that is kept. Default 1 MiB.
    pub max_body: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            ttl: None,
            ignore_no_store: false,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            max_body: 1 << 20,
        }
    }
}

/// A host that calls may go to: a name, or `*.` and a name for any one or more labels below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// The name in lower case, without the wildcard.
    pub name: Box<str>,
    /// Whether it stands for the names below it.
    pub wildcard: bool,
}

impl HostPattern {
    /// Reads a pattern; `None` when it is not a host name with at most a leading `*.`.
    pub fn parse(text: &str) -> Option<Self> {
        let (wildcard, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let fits = name.len() <= 253 && name.split('.').all(label) && (!wildcard || name.contains('.'));
        fits.then(|| Self { name: name.to_ascii_lowercase().into(), wildcard })
    }

    /// Whether a host in lower case is one of those meant. A wildcard does not mean the name itself.
    pub fn matches(&self, host: &str) -> bool {
        if !self.wildcard {
            return host == &*self.name;
        }
        host.strip_suffix(&*self.name).is_some_and(|left| left.len() > 1 && left.ends_with('.'))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.wildcard { "*." } else { "" })?;
        f.write_str(&self.name)
    }
}

/// Where a connection's credential goes.
#[derive(Debug, Clone)]
pub enum Placement {
    /// Nowhere: the service wants none.
    Nowhere,
    /// `Authorization: Bearer` with the default token.
    Bearer,
    /// `Authorization: Basic` with the connection's name and password.
    Basic,
    /// A header; the value sees `api_key`, `username`, `password`, `token`, `input` and `saved`.
    Header {
        /// Its name.
        name: HeaderName,
        /// Its value.
        value: Text,
    },
    /// A field of the body: of a form, or at the top of a JSON object; sees the same.
    Body {
        /// Its name.
        name: String,
        /// Its value.
        value: Text,
    },
    /// A query parameter, percent-encoded; sees the same.
    Query {
        /// Its name.
        name: String,
        /// Its value.
        value: Text,
    },
}

impl Placement {
    /// Whether a credential can stand where it goes: what stands in a header as it is must be visible ASCII
    /// (RFC 9110 §5.5). What a template makes of it first is known only when it is rendered.
    pub fn carries(&self, credential: &str) -> bool {
        let visible = || credential.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        match self {
            Self::Bearer => visible(),
            Self::Header { value, .. } => !names_only(value) || visible(),
            Self::Nowhere | Self::Basic | Self::Body { .. } | Self::Query { .. } => true,
        }
    }
}

/// Whether every slot of a text is a name, so that what it names stands there unchanged.
fn names_only(text: &Text) -> bool {
    let plain = |source: &str| source.trim().chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    let slots = |segments: &[Segment]| segments.iter().filter_map(Segment::slot).all(|slot| plain(slot.source()));
    text.segments().is_some_and(|segments| slots(&segments))
}

/// A request with a name.
#[derive(Debug)]
pub struct Endpoint {
    /// Its id, unique in the integration.
    pub id: Arc<str>,
    /// The request.
    pub request: Request,
    /// What calls through the proxy door must look like to be this endpoint.
    pub pattern: PathPattern,
    /// Scopes a connection must have been granted.
    pub scopes: Vec<String>,
    /// When it is tried again, where it says so itself.
    pub retry: Option<Retry>,
    /// What is changed in calls that pass through the proxy door.
    pub transform: Option<Transform>,
    /// How long its answers may be used again; `None` is as the API says.
    pub cache: Option<Cache>,
    /// How its answers come in pages.
    pub page: Option<Paging>,
}

/// A method and a path in which some segments may be anything: what of an endpoint's request is known
/// before its inputs are.
#[derive(Debug, Clone)]
pub struct PathPattern {
    /// The method.
    pub method: Method,
    /// The path's segments; `None` stands for exactly one non-empty segment.
    pub segments: Vec<Option<Box<str>>>,
}

impl PathPattern {
    /// Whether a call with this method and percent-encoded path (beginning with a slash, without
    /// query) is meant.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        let mut theirs = path.strip_prefix('/').unwrap_or(path).split('/');
        let fits = self.segments.iter().all(|ours| match (ours, theirs.next()) {
            (Some(literal), Some(segment)) => &**literal == segment,
            (None, Some(segment)) => !segment.is_empty(),
            (_, None) => false,
        });
        fits && theirs.next().is_none() && self.method == *method
    }

    /// Which segments are slots, from the first on.
    fn slots(&self) -> impl Iterator<Item = bool> {
        self.segments.iter().map(Option::is_none)
    }

    /// Whether a server that reads paths loosely takes a call for the one that is meant; `path` is already as such
    /// a server reads it ([`lax`]).
    fn may_match(&self, method: &Method, path: &str) -> bool {
        let mut theirs = path.split('/').filter(|segment| !segment.is_empty());
        let mut ours = self.segments.iter().filter(|segment| segment.as_deref() != Some(""));
        let fits = ours.all(|ours| match (ours, theirs.next()) {
            (Some(literal), Some(segment)) => lax(&format!("/{literal}")).strip_prefix('/') == Some(segment),
            (None, Some(_)) => true,
            (_, None) => false,
        });
        fits && theirs.next().is_none() && self.method == *method
    }
}

/// What is changed in calls that pass through.
#[derive(Debug)]
pub struct Transform {
    /// Changes to what the caller sends; sees `body`, `headers`, `query`, `input`, `connection`, `saved`.
    pub request: Option<Change>,
    /// Changes to what the service answers; sees `status` besides.
    pub response: Option<Change>,
    /// What becomes of a success by its status that is none by the endpoint's `ok`.
    pub errors: Errors,
    /// The most bytes of a body that is read to be changed; more is refused with 413 or 502.
    pub max_body: u64,
}

/// What becomes of an answer with a status below 400 that is no success by `ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Errors {
    /// It passes.
    #[default]
    Pass,
    /// It becomes a problem document with status 502, in the words that `error` finds.
    Problem,
}

/// Changes to a message.
#[derive(Debug)]
pub struct Change {
    /// Headers to set; none removes the header.
    pub headers: Vec<(HeaderName, Text)>,
    /// The new JSON body; without it the body passes unchanged.
    pub json: Option<Tree>,
}

/// How long each phase of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// DNS, TCP and TLS together. Default 10 s.
    pub connect: Duration,
    /// From the request's end to the answer's head. Default 30 s.
    pub response: Duration,
    /// Between two reads or two writes of a stream. Default 60 s.
    pub idle: Duration,
    /// The whole call of our own (actions, tests, endpoints by name). Default 60 s. Streams through
    /// the proxy door have no such end.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            response: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            total: Duration::from_mins(1),
        }
    }
}

/// How a service is dialled and trusted.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// Certificates (DER) trusted instead of the system's; checked when compiled.
    pub ca: Option<Arc<[Vec<u8>]>>,
    /// Whether private, loopback and link-local addresses may be dialled; the gateway file must allow
    /// the network as well.
    pub allow_private: bool,
    /// Whether plain HTTP is allowed. Loopback always is, in development mode.
    pub allow_plain_http: bool,
    /// What is shown to a service that asks who connects.
    pub identity: Option<Arc<Identity>>,
    /// Which HTTP versions are offered.
    pub http: HttpVersions,
}

/// Which HTTP versions are offered to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HttpVersions {
    /// HTTP/2 where the service takes it by ALPN, else HTTP/1.1.
    #[default]
    Best,
    /// HTTP/1.1 only.
    One,
    /// HTTP/2 only.
    Two,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_mean_names_below_and_nothing_else() {
        let pattern = HostPattern::parse("*.Salesforce.com").expect("a pattern");
        let matching = [
            "na1.salesforce.com",
            "a.b.salesforce.com",
            "salesforce.com",
            ".salesforce.com",
            "evilsalesforce.com",
            "x.salesforce.com.evil.net",
        ]
        .map(|host| pattern.matches(host));
        assert_eq!(matching, [true, true, false, false, false, false]);
        for bad in ["*", "*.com", "a.*.com", "a..b", "", "a/b", "a:80", "http://a"] {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn path_patterns_match_segment_by_segment() {
        let segments = ["repos", "*", "*", "issues"].map(|part| (part != "*").then(|| part.into())).to_vec();
        let pattern = PathPattern { method: Method::POST, segments };
        assert!(pattern.matches(&Method::POST, "/repos/o/r/issues"));
        for (method, path) in [
            (Method::GET, "/repos/o/r/issues"),
            (Method::POST, "/repos/o//issues"),
            (Method::POST, "/repos/o/r/issues/1"),
            (Method::POST, "/repos/o/r"),
        ] {
            assert!(!pattern.matches(&method, path), "{method} {path}");
        }
        for path in ["/repos/o/r/issues/", "/repos/o/r//issues", "/repos;v=1/o/r/iss%75es", "/repos/o/r/issues"] {
            assert!(pattern.may_match(&Method::POST, &lax(path)), "{path}");
        }
        assert!(!pattern.may_match(&Method::POST, &lax("/repos/o/r/issues/1")));
    }
}
