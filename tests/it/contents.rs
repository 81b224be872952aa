//! What calls carried, as the activity keeps it: of which calls, without which secrets, and for how long.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outside::gateway::Deployment;
use crate::outside::http::{Client, Reply};
use crate::outside::{service, within};
use crate::support::raw::PATIENCE;

const API_KEY: &str = "sk_live_9f8e7d6c5b4a39281706";
const BEARER: (&str, &str) = ("authorization", "Bearer caller-key-0123456789abcdef01234");

/// A gateway with a service that repeats what it is sent, its credential too, under the status that the path ends with.
struct Desk {
    deployment: Deployment,
}

impl Desk {
    fn open(more: &str) -> (Self, crate::outside::gateway::Gateway) {
        let address = service::start(|asked| {
            let status = asked.path().rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(200);
            let echo = json!({ "you_sent": asked.body, "key": asked.field("x-key"), "refresh_token": "unknown-to-us", "city": "Utrecht" });
            (status, echo.to_string())
        });
        let shop = format!(
            "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ api_key: {{}} }}\n\
             api:\n  base_url: \"http://{address}\"\n  credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}\n  \
             retry: {{ attempts: 2, statuses: [503], backoff: 10ms, idempotency_key: Idempotency-Key }}\n  \
             endpoints:\n    - {{ id: order, request: POST /orders/422, json: {{ item: \"{{{{ input.item }}}}\", password: \"{{{{ input.item }}}}\" }} }}\n    \
             - {{ id: all, request: \"GET /pages/{{{{ input.status }}}}\", records: \"[body.city]\", page: {{ link: next }} }}\n    \
             - {{ id: plan, request: GET /plans, cache: 10m }}\n\
             connections: [{{ id: main, api_key: \"${{file:key}}\" }}]\n"
        );
        let deployment = Deployment::with(&[("shop", shop)], more);
        fs::write(deployment.path().join("integrations/key"), API_KEY).unwrap();
        let gateway = deployment.start();
        (Self { deployment }, gateway)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers = [&[BEARER, ("trunkline-connection", "main")], headers].concat();
        Client::new(self.deployment.proxy).send(method, &format!("/shop{path}"), &headers, body.as_bytes()).unwrap()
    }

    fn ask(&self, target: &str) -> Value {
        self.deployment.ask("GET", target, &Value::Null).json()
    }

    /// The newest entry, once there are so many of these.
    fn newest(&self, count: usize, query: &str) -> Value {
        let list =
            || self.ask(&format!("/api/activity?integration=shop&{query}")).as_array().cloned().unwrap_or_default();
        assert!(within(PATIENCE, || list().len() == count), "{:?}", list());
        let row = list().swap_remove(0);
        assert!(row["request"].get("content").is_none(), "a list has no contents: {row}");
        self.ask(&format!("/api/activity/{}", row["id"].as_str().unwrap()))
    }
}

fn body_of(way: &Value) -> &str {
    way["content"]["body"].as_str().unwrap_or_default()
}

#[test]
fn a_call_that_failed_is_shown_with_what_it_carried_and_without_secrets() {
    let (desk, gateway) = Desk::open("");
    let form = [("content-type", "application/json"), ("x-trace-note", "from the app"), ("x-app-token", "tok-1")];
    assert_eq!(desk.send("POST", "/things/201", &form, r#"{"name":"fine"}"#).status, 201);
    let sent = format!(r#"{{"name":"bolt","password":"hunter2-secret","note":"{API_KEY}"}}"#);
    assert_eq!(desk.send("POST", "/things/422", &form, &sent).status, 422);

    assert!(desk.newest(1, "outcome=success")["request"].get("content").is_none());
    let entry = desk.newest(1, "outcome=error");
    let request = body_of(&entry["request"]);
    assert_eq!(request, r#"{"name":"bolt","password":"[redacted]","note":"[redacted]"}"#);
    let answer = body_of(&entry["response"]);
    assert!(answer.contains("Utrecht") && !answer.contains("hunter2-secret"), "{answer}");
    assert!(answer.contains(r#""key":"[redacted]""#) && answer.contains(r#""refresh_token":"[redacted]""#), "{answer}");
    let value = |way: &str, name: &str| {
        let headers = entry[way]["content"]["headers"].as_array().unwrap().clone();
        headers.into_iter().find(|header| header["name"] == name).map(|header| header["value"].clone())
    };
    assert_eq!(value("request", "x-trace-note"), Some(json!("from the app")));
    assert_eq!(value("request", "authorization"), Some(json!("[redacted]")));
    assert_eq!(value("request", "x-app-token"), Some(json!("[redacted]")));
    assert_eq!(value("request", "x-key"), None, "it is the gateway's");
    assert_eq!(value("response", "content-type"), Some(json!("application/json")));
    assert_eq!(entry["request"]["content"]["cut"], false);

    // Found by what it carried, on the list and on the page; and its own page shows it.
    assert_eq!(desk.ask("/api/activity?body=uTRECHT").as_array().unwrap().len(), 1);
    assert_eq!(desk.ask("/api/activity?body=hunter3").as_array().unwrap().len(), 0);
    let shown =
        |target: &str| String::from_utf8_lossy(&desk.deployment.ask("GET", target, &Value::Null).body).into_owned();
    let id = entry["id"].as_str().unwrap();
    let page = shown(&format!("/activity/{id}"));
    assert!(page.contains("bolt") && page.contains("x-trace-note") && !page.contains(API_KEY), "{page}");
    assert!(shown(&format!("/activity/{id}?tab=response")).contains("Utrecht"));

    // It is there after a kill, and the key is in no file.
    let files = || -> Vec<u8> {
        let files = fs::read_dir(desk.deployment.path().join("data/activity")).unwrap();
        files.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    };
    assert!(within(PATIENCE, || String::from_utf8_lossy(&files()).contains("Utrecht")));
    assert!(!String::from_utf8_lossy(&files()).contains(API_KEY));
    gateway.kill();
    let _gateway = desk.deployment.start();
    assert_eq!(desk.ask(&format!("/api/activity/{id}")), entry);
}

#[test]
fn every_way_of_a_call_keeps_its_last_try() {
    let (desk, _gateway) = Desk::open("");
    let json = ("content-type", "application/json");
    // Streamed, and tried again.
    assert_eq!(desk.send("PUT", "/things/503", &[json], r#"{"name":"nut"}"#).status, 503);
    let entry = desk.newest(1, "outcome=error");
    assert_eq!((entry["attempts"].as_u64(), body_of(&entry["request"])), (Some(2), r#"{"name":"nut"}"#));
    assert_eq!(body_of(&entry["response"]).matches("you_sent").count(), 1);
    // By name.
    assert_eq!(desk.send("POST", "/-/order", &[json], r#"{"item":"gear-of-mine"}"#).status, 502);
    let entry = desk.newest(1, "endpoint=order");
    assert_eq!(body_of(&entry["request"]), r#"{"item":"gear-of-mine","password":"[redacted]"}"#);
    assert!(body_of(&entry["response"]).contains("Utrecht"), "{entry}");
    assert!(!entry.to_string().contains(API_KEY), "{entry}");
    // What went and what came counts, also where it was refused.
    let bytes = |way: &str| entry[way]["bytes"].as_u64().unwrap();
    assert_eq!(bytes("request"), r#"{"item":"gear-of-mine","password":"gear-of-mine"}"#.len() as u64);
    assert!(bytes("response") > 100, "{entry}");
    // Later.
    let later = [json, ("trunkline-async", "true")];
    assert_eq!(desk.send("PUT", "/things/404", &later, r#"{"name":"cog"}"#).status, 202);
    let entry = desk.newest(1, "kind=delivery");
    assert_eq!(body_of(&entry["request"]), r#"{"name":"cog"}"#);
    assert!(body_of(&entry["response"]).contains("Utrecht") && !entry.to_string().contains(API_KEY), "{entry}");
}

#[test]
fn answers_from_the_cache_and_first_pages_that_are_refused_are_kept() {
    let (desk, _gateway) = Desk::open("activity: { content: { of: all } }\n");
    assert_eq!(desk.send("GET", "/pages/404?trunkline-page=all", &[("x-note", "mine")], "").status, 404);
    let entry = desk.newest(1, "outcome=error");
    assert_eq!(entry["response"]["status"], 404, "{entry}");
    assert!(entry["request"]["content"].to_string().contains("x-note"), "{entry}");
    assert!(body_of(&entry["response"]).contains("Utrecht") && !entry.to_string().contains(API_KEY), "{entry}");
    // A walk that went well is a success.
    let all = desk.send("GET", "/pages/200?trunkline-page=all", &[], "");
    assert_eq!((all.status, String::from_utf8_lossy(&all.body).as_ref()), (200, r#"["Utrecht"]"#));
    assert_eq!(desk.newest(1, "outcome=success")["response"]["status"], 200);
    for (count, cache) in [(2, "miss"), (3, "hit")] {
        assert_eq!(desk.send("GET", "/plans", &[], "").status, 200);
        let entry = desk.newest(count, "outcome=success");
        assert_eq!(entry["cache"], cache, "{entry}");
        assert!(body_of(&entry["response"]).contains("Utrecht") && !entry.to_string().contains(API_KEY), "{entry}");
    }
}

#[test]
fn a_name_that_is_written_in_numbers_is_that_name() {
    let (desk, _gateway) = Desk::open("");
    let json = ("content-type", "application/json");
    assert_eq!(desk.send("POST", "/things/422", &[json], r#"{"\u0070assword":"hunter2","a":"b"}"#).status, 422);
    let entry = desk.newest(1, "outcome=error");
    assert_eq!(body_of(&entry["request"]), r#"{"\u0070assword":"[redacted]","a":"b"}"#);
    assert!(!entry.to_string().contains("hunter2"), "{entry}");
}

#[test]
fn the_settings_say_of_which_calls_and_how_much() {
    let (desk, _gateway) = Desk::open("activity: { content: { of: all, bytes: 64B } }\n");
    let json = ("content-type", "application/json");
    let long = format!(r#"{{"name":"{}"}}"#, "é".repeat(200));
    assert_eq!(desk.send("POST", "/things/201", &[json], &long).status, 201);
    let entry = desk.newest(1, "outcome=success");
    assert_eq!(
        (body_of(&entry["request"]), &entry["request"]["content"]["cut"]),
        (long.get(..63).unwrap(), &json!(true))
    );
    assert_eq!(entry["request"]["bytes"].as_u64(), Some(long.len() as u64));

    let path = desk.deployment.path().join("trunkline.yaml");
    let set = |from: &str, to: &str| {
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(from, to)).unwrap();
        assert_eq!(desk.deployment.ask("POST", "/api/reload", &Value::Null).status, 200);
        // Settings are taken over within a second.
        std::thread::sleep(Duration::from_millis(1_500));
    };
    set("of: all", "of: none");
    assert_eq!(desk.send("POST", "/things/422", &[json], "{}").status, 422);
    assert!(desk.newest(2, "")["request"].get("content").is_none());

    set("of: none", "of: errors, rate: 0");
    assert_eq!(desk.send("POST", "/things/422", &[json], "{}").status, 422);
    assert!(desk.newest(3, "")["request"].get("content").is_none());
    let metrics = || String::from_utf8_lossy(&desk.deployment.ask("GET", "/metrics", &Value::Null).body).into_owned();
    assert!(within(PATIENCE, || metrics().contains("trunkline_activity_dropped_total{kind=\"content\"} 1\n")));

    set("rate: 0", "rate: 10, memory: 0B");
    assert_eq!(desk.send("POST", "/things/422", &[json], "{}").status, 422);
    assert!(desk.newest(4, "")["request"].get("content").is_none());
    assert!(metrics().contains("trunkline_activity_content_bytes 0\n"));
}
