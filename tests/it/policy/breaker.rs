//! A service that fails is left alone for a while.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use trunkline::base::clock::SystemClock;
use trunkline::definition::plan::api::{Cache, Endpoint, Errors, HostPattern, Transform};
use trunkline::definition::plan::path::PathGlob;
use trunkline::definition::plan::policy::{Breaker, BreakerGroup, Policy};
use trunkline::definition::plan::request::{Request, Target};
use trunkline::respond::Refusal;
use trunkline::store::Audit;
use trunkline::store::embedded::Options;
use trunkline::template::Text;

use super::{Origin, answer, until};
use crate::calls::service::{Answer, Service};
use crate::calls::world::{Setting, request};
use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::service;
use crate::support::doors::{Doors, Setup};
use crate::support::raw::{Reply, call};
use crate::support::store::open;

const OPEN: &str = "trunkline_breaker_circuits{integration=\"svc\",state=\"open\"}";

pub fn breaker(open: Duration) -> Policy {
    let breaker = Breaker {
        failure_rate: 1.0,
        window: Duration::from_mins(1),
        min_requests: 1_000,
        consecutive: Some(2),
        open,
        probes: 1,
        groups: Vec::new(),
    };
    Policy { breaker: Some(breaker), ..Policy::default() }
}

#[tokio::test]
async fn failures_open_it_and_the_answer_says_when_to_come_again() {
    let origin = Origin::start(|_, _| answer(500, "")).await;
    let doors = origin.doors(breaker(Duration::from_mins(5)));
    for _ in 0..2 {
        let reply = call(doors.proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.code()), (500, None), "the service's own answer passes");
    }
    let held = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((held.status, held.code(), held.header("retry-after")), (503, Some("service_held"), Some("300")));
    let named = call(doors.proxy, "POST /svc/b", "", "{}").await;
    assert_eq!((named.status, origin.count()), (503, 2));
    until(&doors, OPEN, 1.0).await;
    assert!((doors.metric("trunkline_calls_held_total{integration=\"svc\",reason=\"open\"}") - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn of_several_hosts_only_the_one_that_fails_is_left_alone() {
    let failing = Service::start(|_| Answer::json(500, "{}")).await;
    let sound = Service::start(|_| Answer::json(200, "{}")).await;
    let mut setting = Setting::at(format!("http://svc.example:{}", sound.port()));
    setting.hosts = ["svc.example", "files.example"].into_iter().filter_map(HostPattern::parse).collect();
    setting.policy = breaker(Duration::from_mins(5));
    let world = setting.world();
    let at = |host: &str, port: u16| Request {
        target: Target::Url(Text::compile(&format!("http://{host}:{port}/x")).unwrap()),
        ..request(Method::GET, "/")
    };
    let there = at("files.example", failing.port());
    for _ in 0..2 {
        assert_eq!(world.run(&there).await.expect_err("a failure").status(), Some(500));
    }
    let held = world.run(&there).await.expect_err("its circuit is open");
    assert_eq!((held.refusal(), failing.seen().len()), (Refusal::ServiceHeld, 2), "{held}");
    for other in [at("svc.example", sound.port()), at("files.example", sound.port()), request(Method::GET, "/x")] {
        world.run(&other).await.unwrap();
    }
    let other_name = world.run(&at("svc.example", failing.port())).await.expect_err("a place of its own");
    assert_eq!((other_name.status(), failing.seen().len(), sound.seen().len()), (Some(500), 3, 3));
}

#[tokio::test]
async fn what_the_service_says_no_to_is_no_failure() {
    let statuses = [400, 401, 404, 429, 422, 501, 429, 403];
    let origin = Origin::start(move |number, _| answer(statuses[number % 8], "")).await;
    let doors = origin.doors(breaker(Duration::from_mins(5)));
    for status in statuses {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, status);
    }
    assert_eq!(origin.count(), 8);
}

#[tokio::test]
async fn connections_that_break_and_cannot_be_made_are_failures() {
    let broken = Origin::start(|_, _| String::new()).await;
    let doors = broken.doors(breaker(Duration::from_mins(5)));
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(call(doors.proxy, "POST /svc/a", "", "x").await.code().map(str::to_owned));
    }
    let code = |text: &str| Some(text.to_owned());
    assert_eq!(codes, [code("service_unreachable"), code("service_unreachable"), code("service_held")]);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let origin = Origin { address: gone, ..broken };
    let doors = origin.doors(breaker(Duration::from_mins(5)));
    for expected in ["service_unreachable", "service_unreachable", "service_held"] {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.code(), Some(expected));
    }
}

#[tokio::test]
async fn a_probe_that_succeeds_closes_it() {
    let origin = Origin::start(|number, _| answer(if number < 2 { 502 } else { 200 }, "")).await;
    let doors = origin.doors(breaker(Duration::from_millis(1)));
    for _ in 0..2 {
        call(doors.proxy, "GET /svc/a", "", "").await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    until(&doors, OPEN, 0.0).await;
}

fn ask(doors: &Doors, line: &str) -> impl Future<Output = Reply> {
    call(doors.proxy, line, "", if line.starts_with("POST") { "{}" } else { "" })
}

#[tokio::test]
async fn a_group_of_paths_fails_alone() {
    let origin =
        Origin::start(|_, seen| answer(if seen.first_line().contains("/search") { 500 } else { 200 }, "")).await;
    let search =
        BreakerGroup { id: "search".into(), paths: vec![PathGlob::new("/search*")], methods: vec![Method::GET] };
    let mut policy = breaker(Duration::from_mins(5));
    policy.breaker.as_mut().unwrap().groups = vec![search];
    let doors = origin.doors(policy);
    let mut statuses = Vec::new();
    for line in ["GET /svc/search?q=a", "GET /svc/search/b", "GET /svc/search", "GET /svc/other", "POST /svc/search"] {
        statuses.push(ask(&doors, line).await.status);
    }
    assert_eq!(statuses, [500, 500, 503, 200, 500]);
    let held = ask(&doors, "GET /svc/search").await;
    assert_eq!((held.code(), origin.count()), (Some("service_held"), 4));
    assert!(held.text().contains("`search` at http://"), "{}", held.text());
    until(&doors, OPEN, 1.0).await;
}

/// A service that answers the first request with something to keep, and fails from then on.
async fn failing(transform: Option<Transform>) -> (Origin, Doors) {
    let origin = Origin::start(|number, _| match number {
        0..=1 => "HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        _ => answer(500, "Cache-Control: no-store\r\n"),
    })
    .await;
    let mut integration = origin.integration(breaker(Duration::from_mins(5)));
    let api = integration.api.as_mut().unwrap();
    api.cache = Some(Cache { ttl: Some(Duration::ZERO), stale_if_error: Duration::from_hours(1), ..Cache::default() });
    api.endpoints = vec![Endpoint { transform, ..super::retries::named(Method::GET) }];
    let doors = Doors::start(Setup::of(integration));
    (origin, doors)
}

#[tokio::test]
async fn what_is_kept_is_given_while_a_circuit_is_open_and_what_is_not_is_refused() {
    let whole = Transform { max_body: 1 << 20, errors: Errors::Problem, request: None, response: None };
    for transform in [None, Some(whole)] {
        let (origin, doors) = failing(transform).await;
        // The first two are kept: one as it passes, one of the endpoint by name.
        let lines = ["GET /svc/a", "POST /svc/-/it"];
        for line in lines {
            assert_eq!(ask(&doors, line).await.status, 200, "{line}");
        }
        for _ in 0..2 {
            assert_eq!(ask(&doors, "POST /svc/b").await.status, 500);
        }
        until(&doors, OPEN, 1.0).await;
        let before = origin.count();
        let stale = ask(&doors, lines[0]).await;
        assert_eq!((stale.status, stale.header("warning")), (200, None), "{}", stale.text());
        assert_eq!(stale.header("cache-status"), Some("trunkline; fwd=stale; detail=stale-if-error"));
        assert!(stale.header("age").is_some(), "{stale:?}");
        assert_eq!(ask(&doors, lines[1]).await.status, 200, "by name");
        let missing = ask(&doors, "GET /svc/c").await;
        assert_eq!((missing.status, missing.code()), (503, Some("service_held")));
        let now = call(doors.proxy, "GET /svc/a", "Cache-Control: no-cache\r\n", "").await;
        assert_eq!((now.status, now.code()), (503, Some("service_held")), "the caller wants none that is stale");
        assert_eq!(origin.count(), before, "the service is left alone");
    }
}

/// A deployment of one service, with an operator.
fn deployed() -> (Deployment, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let address = service::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        (200, "{}".to_owned())
    });
    let text = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api: {{ base_url: \"http://{address}\", breaker: {{}} }}\nconnections: [{{ id: main }}]\n"
    );
    (Deployment::of(&[("shop", text)]), calls)
}

fn held(deployment: &Deployment) -> f64 {
    let metrics = deployment.ask("GET", "/metrics", &Value::Null);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let line = text.lines().find(|line| line.starts_with("trunkline_breaker_circuits{") && line.contains("\"held\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(-1.0)
}

#[test]
fn a_person_opens_and_closes_it_and_it_outlives_a_reload() {
    let (deployment, calls) = deployed();
    let gateway = deployment.start();
    let by_hand =
        |action: &str| deployment.ask("POST", &format!("/api/integrations/shop/breaker/{action}"), &Value::Null);
    let status = || deployment.call("shop", "main", "/x").unwrap().status;
    assert_eq!(status(), 200);
    let stranger = Client::new(deployment.admin).send("POST", "/api/integrations/shop/breaker/open", &[], b"").unwrap();
    assert_eq!((stranger.status, status()), (401, 200), "nobody without the operator's token");
    let opened = by_hand("open");
    assert_eq!((opened.status, opened.json()), (200, json!({ "held": true, "circuits": [], "pauses": [] })));
    let refused = deployment.call("shop", "main", "/x").unwrap();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("service_held")));
    assert!(refused.header("retry-after") == Some("30") && (held(&deployment) - 1.0).abs() < 0.1);
    let file = deployment.path().join("integrations/shop.yaml");
    let changed = std::fs::read_to_string(&file).unwrap().replace("breaker: {}", "breaker: { open: 1s }");
    std::fs::write(&file, changed).unwrap();
    assert_eq!(deployment.ask("POST", "/api/reload", &Value::Null).status, 200);
    let shown = deployment.ask("GET", "/api/integrations/shop/breaker", &Value::Null).json();
    assert_eq!((shown["held"].as_bool(), status()), (Some(true), 503), "over a reload that changed it");
    assert_eq!(by_hand("close").json()["held"], false);
    assert!(status() == 200 && held(&deployment).abs() < 0.1);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    let unknown = deployment.ask("POST", "/api/integrations/none/breaker/open", &Value::Null);
    assert_eq!(unknown.status, 404);
    drop(gateway);
    let actions = audited(&deployment);
    assert_eq!(actions, [("breaker.open", "integration:shop"), ("breaker.close", "integration:shop")].map(owned));
}

fn owned((action, target): (&str, &str)) -> (String, String) {
    (action.to_owned(), target.to_owned())
}

/// What the audit log has of circuits.
fn audited(deployment: &Deployment) -> Vec<(String, String)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = async {
        let directory = deployment.path().join("data");
        let store = open(Options::new(&directory, Arc::new(SystemClock::default()))).await.unwrap();
        let entries = store.read(1, 100).await.unwrap();
        let all = entries.into_iter().map(|record| (record.entry.action, record.entry.target));
        all.filter(|(action, _)| action.starts_with("breaker.")).collect()
    };
    runtime.block_on(read)
}
