//! Rates that are declared, and the count that a service keeps.

use std::time::Duration;

use http::Method;
use serde_json::json;
use trunkline::definition::plan::moment::MomentUnit;
use trunkline::definition::plan::path::PathGlob;
use trunkline::definition::plan::policy::{Policy, Quota, Reading, Told, Wait};
use trunkline::outbound::OutboundError;
use trunkline::respond::Refusal;
use trunkline::template::Expr;

use super::{Origin, answer, limit, limited, until};
use crate::calls::service::{Answer, Service};
use crate::calls::world::{Setting, request};
use crate::support::doors::{Doors, Setup};
use crate::support::raw::{Wire, call};

const HOUR: Duration = Duration::from_hours(1);
const WAITING: &str = "trunkline_calls_waiting{integration=\"svc\"}";

#[tokio::test]
async fn a_limit_holds_and_answers_tell_how_it_stands() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let doors = origin.doors(limited(limit(60, HOUR, Duration::ZERO)));
    let first = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!(first.header("ratelimit-policy"), Some("\"connection\";q=60;w=3600"));
    assert_eq!((first.status, first.header("ratelimit")), (200, Some("\"connection\";r=0;t=60")));
    let second = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((second.status, second.code(), second.header("retry-after")), (429, Some("rate_limited"), Some("60")));
    assert!(second.header("ratelimit").is_some() && second.text().contains("`connection`"), "{}", second.text());
    assert_eq!(origin.count(), 1);
    assert!((doors.metric("trunkline_calls_held_total{integration=\"svc\",reason=\"rate\"}") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_limit_is_for_its_paths_alone() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let search = trunkline::definition::plan::policy::Limit {
        paths: vec![PathGlob::new("/search*")],
        methods: vec![Method::GET],
        ..limit(1, HOUR, Duration::ZERO)
    };
    let doors = origin.doors(limited(search));
    let mut statuses = Vec::new();
    for line in ["GET /svc/search?q=a", "GET /svc/search/b", "POST /svc/search", "GET /svc/other"] {
        statuses.push(call(doors.proxy, line, "", "").await.status);
    }
    assert_eq!(statuses, [200, 429, 200, 200]);
}

#[tokio::test]
async fn a_services_own_fields_pass_alone() {
    let origin = Origin::start(|_, _| answer(200, "RateLimit: \"theirs\";r=9;t=1\r\n")).await;
    let doors = origin.doors(limited(limit(60, HOUR, Duration::ZERO)));
    let reply = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((reply.header("ratelimit"), reply.header("ratelimit-policy")), (Some("\"theirs\";r=9;t=1"), None));
}

#[tokio::test]
async fn calls_wait_for_their_turn() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let doors = origin.doors(limited(limit(40, Duration::from_secs(1), HOUR)));
    let calls = (0..4).map(|_| call(doors.proxy, "GET /svc/a", "", ""));
    let replies = futures_util::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    assert_eq!(origin.count(), 4);
    until(&doors, WAITING, 0.0).await;
    assert!(doors.metric("trunkline_calls_waited_seconds_count{integration=\"svc\"}") >= 3.0);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_queue() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let mut integration = origin.integration(limited(limit(1, HOUR, HOUR * 2)));
    integration.api.as_mut().unwrap().timeouts.total = HOUR * 2;
    let doors = Doors::start(Setup::of(integration));
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    let mut wire = Wire::open(doors.proxy).await;
    let key = crate::support::doors::KEY;
    wire.send(format!("GET /svc/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n")).await;
    until(&doors, WAITING, 1.0).await;
    drop(wire);
    until(&doors, WAITING, 0.0).await;
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn nobody_waits_for_a_turn_beyond_the_calls_own_time() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let doors = origin.doors(limited(limit(1, HOUR, HOUR * 2)));
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    let second = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!(
        (second.status, second.code()),
        (429, Some("rate_limited")),
        "its turn is in an hour, its time a minute"
    );
}

#[tokio::test]
async fn a_429_pauses_the_account_until_the_service_wants_to_be_asked() {
    let origin = Origin::start(|_, _| answer(429, "Retry-After: 90\r\n")).await;
    let doors = origin.doors(limited(limit(100, Duration::from_secs(1), Duration::from_secs(5))));
    let first = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((first.status, first.code()), (429, None), "the service's own answer passes");
    let second = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((second.status, second.code(), second.header("retry-after")), (429, Some("rate_limited"), Some("90")));
    assert_eq!(origin.count(), 1);
    assert!((doors.metric("trunkline_quota_refusals_total{integration=\"svc\"}") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_person_ends_a_pause_and_one_call_finds_out() {
    let origin = Origin::start(|_, _| answer(429, "Retry-After: 3600\r\n")).await;
    let doors = origin.doors(limited(limit(100, Duration::from_secs(1), Duration::from_secs(5))));
    let ask = async || call(doors.proxy, "GET /svc/a", "", "").await.code().map(str::to_owned);
    assert_eq!((ask().await, ask().await.as_deref()), (None, Some("rate_limited")));
    let generation = doors.live.load();
    let policy = doors.outbound.policy(&generation, generation.integration("svc").unwrap());
    let pauses = policy.pauses();
    assert_eq!(pauses.len(), 1, "{pauses:?}");
    assert!(pauses[0].wait > Duration::from_secs(3_500) && pauses[0].limit.is_none(), "{pauses:?}");
    policy.release();
    assert_eq!(policy.pauses(), []);
    assert_eq!((ask().await, ask().await.as_deref()), (None, Some("rate_limited")), "the service is believed again");
    assert_eq!(origin.count(), 2);
}

fn told(reserve: u32) -> Policy {
    let reading = |source| Reading::of(Expr::compile(source).unwrap());
    let resets = Wait { value: reading("headers['x-reset']"), unit: MomentUnit::AfterSeconds };
    let told = Told { remaining: reading("headers['x-left']"), limit: None, resets: Some(resets) };
    Policy { quota: Quota { told: Some(told), reserve }, ..Policy::default() }
}

#[tokio::test]
async fn a_service_that_grants_less_is_respected_within_one_answer() {
    let origin = Origin::start(|_, _| answer(200, "X-Left: 0\r\nX-Reset: 600\r\n")).await;
    let doors = origin.doors(told(0));
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    let second = call(doors.proxy, "GET /svc/a", "", "").await;
    let after: u32 = second.header("retry-after").unwrap().parse().unwrap();
    assert_eq!((second.status, origin.count()), (429, 1));
    assert!((590..=601).contains(&after), "{after}");
}

#[tokio::test]
async fn the_gateways_own_calls_leave_the_reserve_to_the_application() {
    let service = Service::start(|_| Answer::of(200, &[("x-left", "5"), ("x-reset", "600")], "{}")).await;
    let mut setting = Setting::at(format!("http://svc.example:{}", service.port()));
    setting.policy = told(10);
    let world = setting.world();
    assert!(world.get("/x").await.is_ok());
    let error = world.run_with(&request(Method::GET, "/x"), &json!({}), None).await.expect_err("five are left");
    assert!(matches!(error, OutboundError::Held { .. }), "{error}");
    assert_eq!((error.refusal(), error.may_repeat(), service.seen().len()), (Refusal::RateLimited, true, 1));
    assert!(error.retry_after().is_some_and(|wait| wait > Duration::from_secs(500)), "{error}");
}
