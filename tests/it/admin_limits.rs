//! The bounds of the admin side that the gateway file names: each holds, says so, and is counted.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outside::gateway::{ADMIN_TOKEN, Deployment};
use crate::outside::http::Client;
use crate::outside::sink::{Mood, Sink};
use crate::outside::within;

const SHOP: &str = "trunkline: 1\nid: shop\ntitle: Shop\nsummary: A shop.\nauth: { none: {} }\n\
    webhook:\n  verify: { token: { header: X-Token } }\n  event: body.type\n  delivery_id: body.id\n\
    rules:\n  - id: everywhere\n    when: \"*\"\n    do: [{ deliver: app, json: {}, retry: { attempts: 1 } }]\n";

/// A deployment with these bounds whose deliveries fail for good.
fn deployment(sink: &Sink, limits: &str) -> Deployment {
    let destination = format!("{{ url: \"{}\", signing_secret: \"${{env:SINK_SECRET}}\" }}", sink.url());
    let more = format!("destinations: {{ app: {destination} }}\nlimits: {limits}\n");
    Deployment::with(&[("shop", SHOP.to_owned())], &more)
}

/// Makes a webhook endpoint of a connection; its path and the answer.
fn endpoint(deployment: &Deployment) -> (String, Value) {
    let draft = json!({ "integration": "shop", "credential": "none" });
    let connection = deployment.ask("POST", "/api/integrations/save", &draft).json();
    let path = format!("/api/integrations/{}/webhooks", connection["id"].as_str().unwrap());
    let made = deployment.ask("POST", &path, &json!({}));
    assert_eq!(made.status, 201, "{made:?}");
    (path, made.json())
}

fn reached(deployment: &Deployment, limit: &str) -> bool {
    let metrics = deployment.ask("GET", "/metrics", &Value::Null);
    String::from_utf8_lossy(&metrics.body)
        .contains(&format!("trunkline_admin_limits_reached_total{{limit=\"{limit}\"}} 1"))
}

#[test]
fn no_more_webhook_endpoints_are_made_than_the_file_allows() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink, "{ webhook_endpoints: 1 }");
    let _gateway = deployment.start();
    let (path, made) = endpoint(&deployment);
    let refused = deployment.ask("POST", &path, &json!({}));
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("conflict")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("limits.webhook_endpoints"), "{refused:?}");
    assert!(reached(&deployment, "webhook_endpoints"));
    let gone = deployment.ask("DELETE", &format!("/api/webhooks/{}", made["id"].as_str().unwrap()), &Value::Null);
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(deployment.ask("POST", &path, &json!({})).status, 201);
}

#[test]
fn an_answer_that_is_too_large_is_not_kept_for_its_key() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink, "{ admin_answer_bytes: 64B }");
    let _gateway = deployment.start();
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "large")];
    let send = || Client::new(deployment.admin).send("POST", "/api/reload", &headers, b"").unwrap();
    let first = send();
    assert!(first.status == 200 && first.body.len() > 64, "{first:?}");
    let again = send();
    assert_eq!((again.status, &again.json()["code"]), (409, &json!("answer_not_kept")));
    assert!(reached(&deployment, "admin_answer_bytes"));
}

#[test]
fn a_body_has_as_many_bytes_as_the_file_allows() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink, "{ admin_body_bytes: 100B, import_bytes: 1KiB }");
    let _gateway = deployment.start();
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let send = |header: &str, path: &str, bytes: usize| {
        let fresh = format!("{path} {bytes}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), (header, &*fresh)];
        let body = format!("{:bytes$}", "{}");
        let reply = Client::new(deployment.admin).send("POST", path, &headers, body.as_bytes()).unwrap();
        (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let large = (413, "body_too_large".to_owned());
    // With a key the body is read before, to be compared.
    for header in ["x-note", "idempotency-key"] {
        for (path, most) in [("/api/connect-links", 100), ("/api/import", 1024)] {
            assert_eq!((send(header, path, most).0, send(header, path, most + 1)), (400, large.clone()), "{path}");
        }
    }
}

#[test]
fn a_plan_has_as_many_deliveries_as_the_file_allows_and_says_that_more_fit() {
    let sink = Sink::start(Mood::Failing);
    let deployment = deployment(&sink, "{ replay_deliveries: 2 }");
    let _gateway = deployment.start();
    let (_, made) = endpoint(&deployment);
    let (url, secret) = (made["url"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let (_, token) = url.split_once("/webhooks/").unwrap();
    for id in 0..3 {
        let body = json!({ "type": "rung", "id": format!("e{id}") }).to_string();
        let sent = Client::new(deployment.public).send(
            "POST",
            &format!("/webhooks/{token}"),
            &[("x-token", secret), ("content-type", "application/json")],
            body.as_bytes(),
        );
        assert_eq!(sent.unwrap().status, 202);
    }
    let dead = || deployment.ask("GET", "/api/deliveries?state=dead", &Value::Null).json();
    assert!(within(Duration::from_secs(30), || dead().as_array().is_some_and(|all| all.len() == 3)), "{}", dead());
    let plan = deployment.ask("POST", "/api/replays", &Value::Null).json();
    assert_eq!((&plan["planned"], &plan["more"]), (&json!(2), &json!(true)));
    assert!(reached(&deployment, "replay_deliveries"));
}

#[test]
fn texts_of_files_are_kept_within_their_memory() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink, "{ config_history_bytes: 8KiB }");
    let _gateway = deployment.start();
    let file = deployment.path().join("integrations/shop.yaml");
    let change = |summary: &str, more: &str| {
        fs::write(&file, SHOP.replace("A shop.", summary) + more).unwrap();
        // What watches the directory may have been first; either way the new text is in force now.
        let result = deployment.ask("POST", "/api/reload", &Value::Null).json()["result"].clone();
        assert!(result == "applied" || result == "unchanged", "{result}");
        let config = deployment.ask("GET", "/api/config", &Value::Null).json();
        let mut names = config["files"].as_array().unwrap().iter().filter_map(|row| row["file"].as_str());
        let name = names.find(|name| name.ends_with("shop.yaml")).unwrap();
        let query: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        deployment.ask("GET", &format!("/api/config/diff?file={query}"), &Value::Null).json()["lines"].clone()
    };
    let lines = change("Another shop.", "").to_string();
    assert!(lines.contains("-summary: A shop.") && lines.contains("+summary: Another shop."), "{lines}");
    assert!(!reached(&deployment, "config_history_bytes"));
    let long = format!("# {}\n", "x".repeat(8 << 10));
    assert_eq!(change("A third shop.", &long), Value::Null);
    assert!(reached(&deployment, "config_history_bytes"));
}
