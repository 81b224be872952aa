//! Limits, quota, retries and the breaker of an API, compiled.

use std::sync::Arc;
use std::time::Duration;

use super::oauth2::moment;
use super::place::{Fault, Place};
use crate::base::backoff::Backoff;
use crate::definition::plan::path::PathGlob;
use crate::definition::plan::policy::{Breaker, BreakerGroup, Limit, Policy, Quota, Reading, Retry, Scope, Told, Wait};
use crate::definition::raw::api as raw;
use crate::definition::raw::limits::{
    Breaker as RawBreaker, BreakerGroup as RawBreakerGroup, Limit as RawLimit, LimitScope, Moment, Quota as RawQuota,
    Retry as RawRetry,
};
use crate::definition::raw::scalar::Method;

/// The most calls that come at once where a limit does not say.
const BURST: u32 = 100;
/// Statuses that are tried again without being named: the service is busy, or something before it is.
const PASSING: [u16; 4] = [429, 502, 503, 504];
const ATTEMPTS: u32 = 3;
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
const BREAKER: Breaker = Breaker {
    failure_rate: 0.5,
    window: Duration::from_secs(30),
    min_requests: 20,
    consecutive: None,
    open: Duration::from_secs(15),
    probes: 3,
    groups: Vec::new(),
};

pub(super) fn compile(api: &raw::Api, place: &Place<'_>) -> Result<Policy, Fault> {
    Ok(Policy {
        limits: limits(api),
        quota: api.quota.as_ref().map(|raw| quota(raw, &place.at("quota"))).transpose()?.unwrap_or_default(),
        retry: api.retry.as_ref().map(|raw| retry(raw, &place.at("retry"))).transpose()?,
        breaker: api.breaker.as_ref().map(breaker),
    })
}

/// The retries of an endpoint that has its own. The header for idempotency keys is the service's, so the API's
/// counts where the endpoint names none.
pub(super) fn of_endpoint(
    raw: Option<&RawRetry>,
    of_api: Option<&Retry>,
    place: &Place<'_>,
) -> Result<Option<Retry>, Fault> {
    let Some(raw) = raw else { return Ok(None) };
    let mut own = retry(raw, &place.at("retry"))?;
    own.idempotency_key = own.idempotency_key.or_else(|| of_api?.idempotency_key.clone());
    Ok(Some(own))
}

fn limits(api: &raw::Api) -> Vec<Limit> {
    let own = api.limits.iter().map(|raw| (raw, None));
    let of_endpoints = api.endpoints.iter().flat_map(|endpoint| {
        let id: Arc<str> = endpoint.id.0.as_str().into();
        endpoint.limits.iter().map(move |raw| (raw, Some(Arc::clone(&id))))
    });
    let mut compiled: Vec<Limit> = Vec::new();
    for (raw, endpoint) in own.chain(of_endpoints) {
        let mut limit = limit(raw, endpoint);
        let word = limit.name.clone();
        let mut number = 1;
        while compiled.iter().any(|known| known.name == limit.name) {
            number += 1;
            limit.name = format!("{word}-{number}").into();
        }
        compiled.push(limit);
    }
    compiled
}

fn limit(raw: &RawLimit, endpoint: Option<Arc<str>>) -> Limit {
    let per = match raw.per.unwrap_or(LimitScope::Connection) {
        LimitScope::Integration => Scope::Integration,
        LimitScope::Connection => Scope::Connection,
        LimitScope::Caller => Scope::Caller,
        LimitScope::Endpoint => Scope::Endpoint,
    };
    let word = match per {
        Scope::Integration => "integration",
        Scope::Connection => "connection",
        Scope::Caller => "caller",
        Scope::Endpoint => "endpoint",
    };
    let rate = raw.rate.0;
    Limit {
        name: endpoint.as_ref().map_or_else(|| word.into(), |id| format!("{id}.{word}").into()),
        rate,
        burst: raw.burst.unwrap_or(rate.count.min(BURST)).max(1),
        per,
        endpoint,
        paths: raw.paths.iter().map(|path| PathGlob::new(path)).collect(),
        methods: raw.methods.iter().copied().map(Method::to_http).collect(),
        wait: raw.wait.map_or(Duration::ZERO, |wait| wait.0),
    }
}

fn quota(raw: &RawQuota, place: &Place<'_>) -> Result<Quota, Fault> {
    let told = Told {
        remaining: Reading::of(place.at("remaining").expression(&raw.remaining)?),
        limit: place.optional("limit", raw.limit.as_ref())?.map(Reading::of),
        resets: raw.resets.as_ref().map(|raw| wait(raw, &place.at("resets"))).transpose()?,
    };
    Ok(Quota { told: Some(told), reserve: raw.reserve.unwrap_or(0) })
}

fn retry(raw: &RawRetry, place: &Place<'_>) -> Result<Retry, Fault> {
    let mut statuses = PASSING.to_vec();
    statuses.extend(raw.statuses.iter().filter(|status| !PASSING.contains(status)));
    Ok(Retry {
        attempts: raw.attempts.unwrap_or(ATTEMPTS).max(1),
        backoff: Backoff {
            base: raw.backoff.map_or(BACKOFF.base, |pause| pause.0),
            cap: raw.max_backoff.map_or(BACKOFF.cap, |pause| pause.0),
        },
        statuses,
        idempotency_key: raw
            .idempotency_key
            .as_ref()
            .map(|name| place.at("idempotency_key").header(name))
            .transpose()?,
        retry_after: raw.retry_after.as_ref().map(|raw| wait(raw, &place.at("retry_after"))).transpose()?,
    })
}

fn wait(raw: &Moment, place: &Place<'_>) -> Result<Wait, Fault> {
    let moment = moment(raw, place)?;
    Ok(Wait { value: Reading::of(moment.value), unit: moment.unit })
}

fn breaker(raw: &RawBreaker) -> Breaker {
    Breaker {
        failure_rate: raw.failure_rate.unwrap_or(BREAKER.failure_rate),
        window: raw.window.map_or(BREAKER.window, |time| time.0),
        min_requests: raw.min_requests.unwrap_or(BREAKER.min_requests),
        consecutive: raw.consecutive,
        open: raw.open.map_or(BREAKER.open, |time| time.0),
        probes: raw.probes.unwrap_or(BREAKER.probes).max(1),
        groups: raw.groups.iter().map(group).collect(),
    }
}

fn group(raw: &RawBreakerGroup) -> BreakerGroup {
    BreakerGroup {
        id: raw.id.0.as_str().into(),
        paths: raw.paths.0.iter().map(|path| PathGlob::new(path)).collect(),
        methods: raw.methods.iter().copied().map(Method::to_http).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::{Value, json};

    fn policy(more: &Value) -> Policy {
        let mut api = json!({ "base_url": "https://a.example" });
        api.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        compiled(json!({ "trunkline": 1, "id": "a", "api": api })).expect("compiles").api.expect("has one").policy
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let policy = policy(&json!({ "limits": [{ "rate": "5000/h" }], "retry": {}, "breaker": {} }));
        let limit = &policy.limits[0];
        assert_eq!((limit.burst, limit.per, limit.wait), (100, Scope::Connection, Duration::ZERO));
        let retry = policy.retry.expect("declared");
        assert_eq!((retry.attempts, retry.backoff, retry.statuses), (3, BACKOFF, PASSING.to_vec()));
        assert_eq!(policy.breaker, Some(BREAKER));
        assert_eq!(policy.quota.reserve, 0);
    }

    #[test]
    fn a_breakers_groups_are_for_their_calls() {
        let groups = json!([{ "id": "search", "paths": ["/search*", "/find"], "methods": ["GET"] }]);
        let breaker = policy(&json!({ "breaker": { "groups": groups } })).breaker.expect("declared");
        let fits = |method, path| breaker.groups[0].is_for(&method, path);
        assert!(fits(http::Method::GET, "/search/x") && fits(http::Method::GET, "/find"));
        assert!(!fits(http::Method::POST, "/search") && !fits(http::Method::GET, "/other"));
    }

    #[test]
    fn a_header_is_read_without_a_template() {
        let read = |source: &str| match policy(&json!({ "quota": { "remaining": source } }))
            .quota
            .told
            .expect("told")
            .remaining
        {
            Reading::Header(name) => name.to_string(),
            Reading::Expression(expression) => format!("expression {}", expression.source()),
        };
        assert_eq!(read("headers['X-Left']"), "x-left");
        assert_eq!(read("headers[\"x-left\"]"), "x-left");
        assert_eq!(read("headers['a'] or headers['b']"), "expression headers['a'] or headers['b']");
    }

    #[test]
    fn limits_of_endpoints_follow_the_apis_and_every_name_is_unique() {
        let endpoint = json!({ "id": "create", "request": "POST /x", "limits": [{ "rate": "1/s" }] });
        let limits = json!([{ "rate": "1/s" }, { "rate": "9/m", "per": "integration" }, { "rate": "9/h" }]);
        let policy = policy(&json!({ "limits": limits, "endpoints": [endpoint] }));
        let names: Vec<_> = policy.limits.iter().map(|limit| &*limit.name).collect();
        assert_eq!(names, ["connection", "integration", "connection-2", "create.connection"]);
        let own = &policy.limits[3];
        assert!(own.is_for(Some("create"), &http::Method::POST, "/x"));
        assert!(!own.is_for(None, &http::Method::POST, "/x"));
    }

    #[test]
    fn a_limit_is_for_its_paths_and_methods() {
        let limit = json!({ "rate": "1/s", "paths": ["/search*"], "methods": ["GET"] });
        let limit = &policy(&json!({ "limits": [limit] })).limits[0];
        assert!(limit.is_special() && limit.is_for(None, &http::Method::GET, "/search/code"));
        assert!(!limit.is_for(None, &http::Method::POST, "/search") && !limit.is_for(None, &http::Method::GET, "/x"));
    }

    #[test]
    fn an_endpoints_own_retries_keep_the_services_key_header() {
        let endpoint = json!({ "id": "e", "request": "POST /x", "retry": { "attempts": 1 } });
        let api = json!({ "base_url": "https://a.example", "endpoints": [endpoint],
                          "retry": { "attempts": 5, "idempotency_key": "Idempotency-Key", "statuses": [409, 503] } });
        let api = compiled(json!({ "trunkline": 1, "id": "a", "api": api })).expect("compiles").api.expect("has one");
        assert_eq!(api.policy.retry.as_ref().map(|retry| retry.statuses.clone()), Some(vec![429, 502, 503, 504, 409]));
        let own = api.retry(Some("e")).expect("its own");
        assert_eq!(
            (own.attempts, own.idempotency_key.as_ref().map(http::HeaderName::as_str)),
            (1, Some("idempotency-key"))
        );
        assert_eq!(api.retry(None).map(|retry| retry.attempts), Some(5));
    }
}
