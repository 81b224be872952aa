//! What is told of calls: an entry for each that was answered, whoever answered it, and the audit log's lines.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use trunkline::activity::entry::Entry;
use trunkline::activity::keep::Keeper;
use trunkline::base::clock::SystemClock;
use trunkline::definition::plan::api::Cache;
use trunkline::definition::plan::policy::Policy;
use trunkline::store::Audit;
use trunkline::store::embedded::Options;

use super::retries::{named, retry};
use super::{Origin, answer, limit, limited};
use crate::outside::gateway::Deployment;
use crate::outside::{service, within};
use crate::support::doors::{Doors, KEY, Setup, caller, grant};
use crate::support::raw::{PATIENCE, call, send};
use crate::support::store::open;

const SECOND: Duration = Duration::from_secs(1);

fn cached(origin: &Origin, rule: Cache, policy: Policy) -> Doors {
    let mut integration = origin.integration(policy);
    let api = integration.api.as_mut().unwrap();
    api.cache = Some(rule);
    api.endpoints = vec![named(Method::GET)];
    Doors::start(Setup::of(integration))
}

/// The newest entry, once there are so many; it is written after the answer.
async fn newest(doors: &Doors, count: usize) -> Arc<Entry> {
    let reached = async {
        loop {
            let mut kept = doors.activity.newest(1_000, |_| true);
            if kept.len() >= count {
                assert_eq!(kept.len(), count, "{kept:#?}");
                return kept.swap_remove(0);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("an entry")
}

#[tokio::test]
async fn every_answer_has_an_entry_with_what_the_cache_made_of_it() {
    let origin = Origin::start(|number, _| match number {
        0 => "HTTP/1.1 200 X\r\nETag: \"a\"\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        1 => "HTTP/1.1 304 X\r\nETag: \"a\"\r\n\r\n".to_owned(),
        _ => answer(500, ""),
    })
    .await;
    let rule = Cache { ttl: Some(SECOND * 3600), stale_if_error: SECOND * 3600, ..Cache::default() };
    let doors = cached(&origin, rule, Policy::default());
    let steps = [
        ("GET /svc/a", "", "miss", 1),
        ("GET /svc/a", "", "hit", 0),
        ("POST /svc/-/it", "", "hit", 0),
        ("GET /svc/a", "Cache-Control: no-cache\r\n", "revalidated", 1),
        ("GET /svc/b", "Cache-Control: only-if-cached\r\n", "refused", 0),
        ("GET /svc/b", "Cache-Control: no-store\r\n", "bypass", 1),
    ];
    for (step, (line, headers, verdict, attempts)) in steps.into_iter().enumerate() {
        let body = if line.starts_with("POST") { "{}" } else { "" };
        call(doors.proxy, line, headers, body).await;
        let record = newest(&doors, step + 1).await;
        assert_eq!((record.cache.as_deref(), record.attempts), (Some(verdict), attempts), "{line} {headers}");
        let path = if line.ends_with("/b") { "/b" } else { "/a" };
        assert_eq!((record.path.as_str(), record.generation), (path, 1));
        assert!(record.origin.starts_with("http://127.0.0.1:"), "{}", record.origin);
    }
    let hit = &doors.activity.newest(6, |_| true)[4];
    assert_eq!((hit.status, hit.error.as_deref(), hit.received_bytes), (Some(200), None, 2));
}

#[tokio::test]
async fn what_stands_in_for_a_failing_service_is_told_as_stale() {
    let origin = Origin::start(|number, _| match number {
        0 => "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        1 => answer(503, ""),
        _ => String::new(),
    })
    .await;
    let rule = Cache { ttl: Some(Duration::ZERO), stale_if_error: SECOND * 3600, ..Cache::default() };
    let doors = cached(&origin, rule, Policy::default());
    for (count, verdict) in ["miss", "stale", "stale"].into_iter().enumerate() {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
        assert_eq!(newest(&doors, count + 1).await.cache.as_deref(), Some(verdict));
    }
}

#[tokio::test]
async fn tries_and_waiting_are_told() {
    let origin = Origin::start(|number, _| answer(if number == 1 { 200 } else { 503 }, "")).await;
    let doors = origin.doors(retry(None));
    call(doors.proxy, "GET /svc/a", "", "").await;
    let record = newest(&doors, 1).await;
    assert_eq!((record.attempts, record.status, record.cache.as_deref()), (2, Some(200), None));
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let doors = origin.doors(limited(limit(4, SECOND, SECOND * 60)));
    futures_util::future::join_all((0..4).map(|_| call(doors.proxy, "GET /svc/a", "", ""))).await;
    newest(&doors, 4).await;
    let kept = doors.activity.newest(4, |_| true);
    let longest = kept.iter().map(|record| record.waited_ms).max();
    assert!(longest > Some(20), "{longest:?}");
    let samples = doors.metric("trunkline_added_duration_seconds_count{integration=\"svc\"}");
    assert!((samples - 4.0).abs() < 0.1, "{samples}");
    let added = doors.metric("trunkline_added_duration_seconds_sum{integration=\"svc\"}");
    assert!(added < doors.metric("trunkline_http_request_duration_seconds_sum{door=\"proxy\",integration=\"svc\"}"));
}

#[tokio::test]
async fn what_the_gateway_refuses_has_an_entry_unless_nobody_knows_whose_it_is() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let mut setup = Setup::of(origin.integration(limited(limit(1, SECOND * 3600, Duration::ZERO))));
    setup.callers = vec![caller("app", KEY, grant("svc", "*", &[Method::GET], &[]))];
    let doors = Doors::start(setup);
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    newest(&doors, 1).await;
    let other = "Trunkline-Connection: other\r\n";
    let steps = [
        ("GET /svc/a", "", "rate_limited", true),
        ("POST /svc/a", "", "caller_forbidden", false),
        ("GET /svc/a", other, "connection_unknown", false),
    ];
    for (step, (line, headers, code, led)) in steps.into_iter().enumerate() {
        let reply = call(doors.proxy, line, headers, "").await;
        let record = newest(&doors, step + 2).await;
        assert_eq!((reply.code(), record.error.as_deref(), record.path.as_str()), (Some(code), Some(code), "/a"));
        assert_eq!((record.status, record.attempts, !record.origin.is_empty()), (None, 0, led), "{code}");
    }
    for (line, key) in [("GET /none/a", KEY), ("GET /svc/a", "nobody-knows-this-key-0123")] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
        assert!(send(doors.proxy, request).await.status >= 401);
    }
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 429);
    newest(&doors, 5).await;
}

#[tokio::test]
async fn the_audit_log_has_a_line_that_says_who_called_what() {
    let origin = Origin::start(|number, _| answer(if number == 2 { 404 } else { 200 }, "")).await;
    let doors = cached(&origin, Cache { ttl: Some(SECOND * 3600), ..Cache::default() }, Policy::default());
    for (count, line) in ["GET /svc/a", "POST /svc/b", "GET /svc/c", "GET /svc/a"].into_iter().enumerate() {
        call(doors.proxy, line, "", "").await;
        newest(&doors, count + 1).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::default());
    let store = open(Options::new(directory.path(), clock.clone())).await.unwrap();
    let (activity, live, metrics) = (doors.activity.clone(), doors.live.clone(), doors.metrics.clone());
    let keeper = Keeper { activity, live, audit: store.clone(), metrics, clock };
    keeper.write().await;
    keeper.write().await;
    let written = store.read(1, 10).await.unwrap();
    assert_eq!(written.len(), 1, "nothing new is no line");
    let entry = &written[0].entry;
    assert_eq!((entry.actor.as_str(), entry.action.as_str()), ("system", "calls"));
    let group = |method: &str, result: &str, calls: u64| {
        json!({ "kind": "call", "caller": "app", "integration": "svc", "connection": "default",
                "method": method, "result": result, "calls": calls })
    };
    let expected = [group("GET", "answered", 2), group("GET", "kept", 1), group("POST", "answered", 1)];
    assert_eq!(entry.detail["calls"], Value::from(expected.to_vec()));
    assert!(entry.detail["since"].as_str().unwrap().starts_with("20"), "{}", entry.detail);
}

#[test]
fn settings_bound_what_is_remembered() {
    let address = service::start(|asked| (if asked.path() == "/missing" { 404 } else { 200 }, "{}".to_owned()));
    let text = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api: {{ base_url: \"http://{address}\" }}\nconnections: [{{ id: main }}]\n"
    );
    let deployment = Deployment::of(&[("shop", text)]);
    let file = deployment.path().join("trunkline.yaml");
    let settings = "activity: { keep: 4, sample: 0.5 }\n";
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + settings).unwrap();
    let _gateway = deployment.start();
    let shown = || deployment.ask("GET", "/api/activity", &Value::Null).json().as_array().unwrap().clone();
    let status = |path: &str| deployment.call("shop", "main", path).unwrap().status;
    (0..20).for_each(|_| assert_eq!(status("/x"), 200));
    // The settings are taken over within a second of the start.
    assert!(within(PATIENCE, || status("/x") == 200 && shown().len() == 4), "{:?}", shown().len());
    (0..2).for_each(|_| assert_eq!(status("/missing"), 404));
    assert!(within(PATIENCE, || shown().iter().filter(|call| call["response"]["status"] == 404).count() == 2));
    let newest = shown();
    assert_eq!((newest.len(), newest[0]["attempts"].as_u64(), &newest[0]["cache"]), (4, Some(1), &Value::Null));
}
