//! What keeps calls to a service within bounds, compiled: rates, the service's own count, tries, the breaker.
//!
//! `outbound` keeps the state that belongs to these. What is compared there to know whether a reload changed
//! something is compared by value, so everything that has state of its own is `PartialEq`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::moment::MomentUnit;
use super::path::PathGlob;
use crate::base::backoff::Backoff;
use crate::base::units::Rate;
use crate::template::Expr;

/// The policy of one API.
#[derive(Debug, Default)]
pub struct Policy {
    /// Every limit, those of endpoints after the API's own. All that match a call apply.
    pub limits: Vec<Limit>,
    /// How the service tells what is left.
    pub quota: Quota,
    /// When calls are tried again; `None` is never.
    pub retry: Option<Retry>,
    /// When calls are refused because the service is failing; `None` is never.
    pub breaker: Option<Breaker>,
}

/// A rate that calls are kept to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What answers call it in `RateLimit-Policy`; unique in its API.
    pub name: Box<str>,
    /// How many calls in what time.
    pub rate: Rate,
    /// How many may come at once; at least one.
    pub burst: u32,
    /// What is counted together.
    pub per: Scope,
    /// Only calls of this endpoint, where the limit is an endpoint's own.
    pub endpoint: Option<Arc<str>>,
    /// Only calls whose path matches one of these; empty means all.
    pub paths: Vec<PathGlob>,
    /// Only calls with one of these methods; empty means all.
    pub methods: Vec<Method>,
    /// How long a call may wait for its turn; zero refuses at once.
    pub wait: Duration,
}

/// What a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All calls to the integration.
    Integration,
    /// Calls of one connection.
    Connection,
    /// Calls of one caller; the gateway's own calls are one.
    Caller,
    /// Calls of one endpoint; calls that are none are one.
    Endpoint,
}

impl Limit {
    /// Whether a call counts here. `path` is below the API's base, without the query.
    pub fn is_for(&self, endpoint: Option<&str>, method: &Method, path: &str) -> bool {
        self.endpoint.as_ref().is_none_or(|own| endpoint == Some(own))
            && fits((&self.methods, &self.paths), method, path)
    }

    /// Whether it is for some calls only.
    pub fn is_special(&self) -> bool {
        self.endpoint.is_some() || !self.methods.is_empty() || !self.paths.is_empty()
    }
}

/// How the service tells what is left of its own count.
#[derive(Debug, Default)]
pub struct Quota {
    /// Where it tells; without it only what common headers say.
    pub told: Option<Told>,
    /// Calls of the gateway's own wait when no more than this are left.
    pub reserve: u32,
}

/// Where an answer tells what is left; sees `headers` and `status`, and `body` where the answer is not streamed.
#[derive(Debug)]
pub struct Told {
    /// How many calls are left.
    pub remaining: Reading,
    /// How many there are in all.
    pub limit: Option<Reading>,
    /// When the count is full again.
    pub resets: Option<Wait>,
}

/// A moment that an answer tells, and how it is written.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Where the value is.
    pub value: Reading,
    /// How it is written.
    pub unit: MomentUnit,
}

/// Where an answer has a value. Nearly always it is a header, which is read without a template.
#[derive(Debug, Clone)]
pub enum Reading {
    /// A header's value.
    Header(HeaderName),
    /// Whatever this finds.
    Expression(Expr),
}

impl Reading {
    /// What an expression reads.
    pub fn of(expression: Expr) -> Self {
        let inner = expression.source().trim().strip_prefix("headers[").and_then(|rest| rest.strip_suffix(']'));
        let quoted = inner.and_then(|inner| {
            let single = inner.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            single.or_else(|| inner.strip_prefix('"')?.strip_suffix('"'))
        });
        match quoted.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
            Some(name) => Self::Header(name),
            None => Self::Expression(expression),
        }
    }
}

/// When a call is tried again.
#[derive(Debug, Clone)]
pub struct Retry {
    /// How often at most, the first try included; at least one.
    pub attempts: u32,
    /// The pauses.
    pub backoff: Backoff,
    /// Statuses that are tried again, those that always are among them.
    pub statuses: Vec<u16>,
    /// The header by which the service recognises a repeated call. With it a call of any method may be sent
    /// again.
    pub idempotency_key: Option<HeaderName>,
    /// What the service says about when to come back; else `Retry-After`.
    pub retry_after: Option<Wait>,
}

/// When calls are refused for a while because the service is failing.
#[derive(Debug, Clone, PartialEq)]
pub struct Breaker {
    /// The share of failed calls, above 0 and at most 1, that opens it.
    pub failure_rate: f64,
    /// Over what time.
    pub window: Duration,
    /// With fewer calls than this in the window it stays closed.
    pub min_requests: u32,
    /// This many failures in a row open it as well.
    pub consecutive: Option<u32>,
    /// How long it stays open before it is probed.
    pub open: Duration,
    /// How many calls probe it then; at least one. When all succeed it closes.
    pub probes: u32,
    /// Calls that have a circuit of their own, apart from that of their place.
    pub groups: Vec<BreakerGroup>,
}

/// Calls that fail and recover together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerGroup {
    /// What people call it.
    pub id: Arc<str>,
    /// Only calls whose path matches one of these; empty means all.
    pub paths: Vec<PathGlob>,
    /// Only calls with one of these methods; empty means all.
    pub methods: Vec<Method>,
}

impl BreakerGroup {
    /// Whether a call counts here. `path` is below the API's base, without the query.
    pub fn is_for(&self, method: &Method, path: &str) -> bool {
        fits((&self.methods, &self.paths), method, path)
    }
}

/// A method in other letters is another one, and a lax service takes it for the same: what restricts holds for both.
fn fits((methods, paths): (&[Method], &[PathGlob]), method: &Method, path: &str) -> bool {
    (methods.is_empty() || methods.iter().any(|known| known.as_str().eq_ignore_ascii_case(method.as_str())))
        && (paths.is_empty() || PathGlob::any_is_for(paths, path))
}
