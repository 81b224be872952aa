//! Usage over real sockets: what was called is counted, answered by filters, shown, and there after a restart.

use std::sync::Arc;

use serde_json::{Value, json};
use trunkline::activity::{Asker, CallRecord, Course};

use crate::activity::call;
use crate::outside::gateway::Deployment;
use crate::outside::{service, within};
use crate::page::house::{ADA, House, people, text};
use crate::support::raw::PATIENCE;

fn called(number: u64) -> CallRecord {
    CallRecord { endpoint: Some(Arc::from("things")), duration_ms: number, ..call("/things") }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_endpoint_with_their_quantiles() {
    let house = House::open(&format!("{}activity: {{ keep: 10, sample: 0 }}\n", people())).await;
    let ada = house.signed_in("ada", ADA);
    let activity = house.running.activity();
    for number in 1..=200 {
        activity.record(called(number));
    }
    activity.record(CallRecord { status: Some(503), course: Course { attempts: 3, ..Course::ONCE }, ..called(10) });
    let hit = Course { attempts: 0, cache: Some("hit"), ..Course::default() };
    activity.record(CallRecord { course: hit, ..called(0) });
    // What came in, and what belongs to no endpoint.
    activity.record(CallRecord { asker: Asker::Event("evt_00000000000000000000000001".to_owned()), ..called(1) });
    activity.record(call("/other"));
    let asked = |query: &str| ada.get(&format!("/api/usage{query}")).json();
    assert!(within(PATIENCE, || asked("")["total"]["requests"] == 203), "{}", asked(""));
    let usage = asked("?from=1h&endpoint=things&integration=keyed&compare=previous");
    let expected = json!({
        "requests": 202, "errors": 1, "cacheable": 1, "saved": 1, "retries": 2, "sent_bytes": 0, "received_bytes": 404,
        "timed": 201, "p50_ms": 100, "p95_ms": 190, "p99_ms": 198,
    });
    assert_eq!((&usage["total"], &usage["previous"]["total"]["requests"]), (&expected, &json!(0)));
    assert_eq!((&usage["step_seconds"], usage["points"].as_array().unwrap().len()), (&json!(60), 61));
    let last = usage["points"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["counts"]["requests"], &usage["points"][0]["counts"]), (&json!(202), &Value::Null));
    let all = asked("");
    assert_eq!(all["series"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&all["integrations"][0]["integration"], &all["integrations"][0]["quota"]),
        (&json!("keyed"), &json!([]))
    );
    for (query, told) in
        [("step=90s", "whole minutes"), ("from=1h&to=2h", "not before"), ("ranje=1h", "no parameter `ranje`")]
    {
        let refused = ada.send("GET", &format!("/api/usage?{query}"), &[("accept", "application/json")], "");
        assert!(refused.status == 400 && refused.json()["detail"].as_str().unwrap().contains(told), "{query}");
    }
    let page = text(&ada.get("/usage?from=1h&integration=keyed&compare=previous"));
    for shown in [
        ">203</strong> calls, none before",
        "<svg class=\"chart\"",
        "keyed / things",
        "keyed / no declared endpoint",
        "did not run",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let point = regex::Regex::new("href=\"(/activity\\?direction=out[^\"]*integration=keyed)\"").unwrap();
    let point = point.captures_iter(&page).last().unwrap()[1].replace("&amp;", "&");
    assert!(text(&ada.get(&point)).contains("/things"), "a point leads to the calls of its time");
    assert!(text(&ada.get("/usage?integration=hub")).contains("No call in this time"));
    house.close().await;
}

#[test]
fn what_was_counted_is_there_after_a_restart() {
    let address = service::start(|_| (200, "{}".to_owned()));
    let deployment = Deployment::of(&[("shop", service::open_shop(address))]);
    let gateway = deployment.start();
    let requests =
        || deployment.ask("GET", "/api/usage?integration=shop", &Value::Null).json()["total"]["requests"].clone();
    for number in 0..7 {
        assert_eq!(deployment.call("shop", "main", &format!("/things/{number}")).unwrap().status, 200);
    }
    assert!(within(PATIENCE, || requests() == 7));
    gateway.stop();
    let _gateway = deployment.start();
    assert_eq!(requests(), 7);
    assert_eq!(deployment.call("shop", "main", "/later").unwrap().status, 200);
    assert!(within(PATIENCE, || requests() == 8));
}
