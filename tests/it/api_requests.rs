//! Requests of the admin API that have conditions, and those that are sent twice.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outside::gateway::{ADMIN_TOKEN, Deployment};
use crate::outside::http::{Client, Reply};
use crate::outside::sink::{Mood, Sink};
use crate::outside::within;

/// A deployment of one service that is played by a sink.
fn deployment(sink: &Sink) -> Deployment {
    let shop = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: A shop.\nauth: {{ api_key: {{}} }}\n\
         api:\n  base_url: {}\n  credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}\n\
         \x20 test: {{ request: POST /me, json: {{ id: probe }} }}\n\
         webhook:\n  verify: {{ token: {{ header: X-Token }} }}\n  event: body.type\n  delivery_id: body.id\n",
        sink.url()
    );
    Deployment::of(&[("shop", shop)])
}

/// Asks the admin door, as the operator, with one more header.
fn ask(deployment: &Deployment, (method, target): (&str, &str), header: (&str, &str), body: &Value) -> Reply {
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), header];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Client::new(deployment.admin).send(method, target, &headers, body.as_bytes()).unwrap()
}

fn code(reply: &Reply) -> (u16, Option<String>) {
    (reply.status, reply.json()["code"].as_str().map(str::to_owned))
}

/// Makes a connection, and tells where its webhook endpoints are.
fn endpoints(deployment: &Deployment) -> String {
    let draft = json!({ "integration": "shop", "credential": { "api_key": "key-0001" }, "untested": true });
    let saved = deployment.ask("POST", "/api/integrations/save", &draft);
    assert_eq!(saved.status, 201, "{saved:?}");
    format!("/api/integrations/{}/webhooks", saved.json()["id"].as_str().unwrap())
}

#[test]
fn what_has_changed_since_it_was_read_is_not_changed() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let _gateway = deployment.start();
    let made = deployment.ask("POST", &endpoints(&deployment), &json!({})).json();
    let path = format!("/api/webhooks/{}", made["id"].as_str().unwrap());
    let read = deployment.ask("GET", &path, &Value::Null);
    let tag = read.header("etag").unwrap().to_owned();
    let again = ask(&deployment, ("GET", &path), ("if-none-match", &tag), &Value::Null);
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(&*tag)));

    let disable = json!({ "enabled": false });
    let stale = ask(&deployment, ("PATCH", &path), ("if-match", "\"0123\""), &disable);
    assert_eq!(code(&stale), (412, Some("precondition_failed".to_owned())));
    let changed = ask(&deployment, ("PATCH", &path), ("if-match", &tag), &disable);
    assert_eq!((changed.status, &changed.json()["enabled"]), (200, &json!(false)));
    assert_eq!(ask(&deployment, ("GET", &path), ("if-none-match", &tag), &Value::Null).status, 200);
    // What is done to it has its condition as well.
    let rotate = format!("{path}/rotate");
    assert_eq!(ask(&deployment, ("POST", &rotate), ("if-match", &tag), &json!({})).status, 412);
    assert_eq!(ask(&deployment, ("POST", &rotate), ("if-match", "*"), &json!({})).status, 200);
    assert_eq!(ask(&deployment, ("DELETE", &path), ("if-match", &tag), &Value::Null).status, 412);
    // Nothing has a tag here.
    assert_eq!(ask(&deployment, ("POST", "/api/reload"), ("if-match", "*"), &Value::Null).status, 412);
}

#[test]
fn a_request_with_a_key_is_made_once_also_over_a_restart() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let gateway = deployment.start();
    let path = endpoints(&deployment);
    let send = |key: &str, body: Value| ask(&deployment, ("POST", &path), ("idempotency-key", key), &body);
    let first = send("\"once\"", json!({}));
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None));
    let again = send("once", json!({}));
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!((&again.body, again.header("content-type")), (&first.body, Some("application/json")));
    let other = send("once", json!({ "eventTypes": ["a"] }));
    assert_eq!(code(&other), (422, Some("idempotency_key_reused".to_owned())));
    // What is refused is kept as well, and nothing that says to come again.
    let wrong = [(); 2].map(|()| send("wrong", json!({ "no_such": 1 })));
    assert_eq!(
        wrong.map(|reply| (reply.status, reply.header("idempotent-replayed").is_some())),
        [(400, false), (400, true)]
    );

    drop(gateway);
    let _gateway = deployment.start();
    let later = send("once", json!({}));
    assert_eq!((later.status, &later.body, later.header("idempotent-replayed")), (201, &first.body, Some("true")));
    assert_eq!(deployment.ask("GET", &path, &Value::Null).json().as_array().map(Vec::len), Some(1));
    let audit = deployment.ask("GET", "/api/audit?action=webhook.create", &Value::Null).json();
    assert_eq!(audit.as_array().map(Vec::len), Some(1));
    // The answer has a secret, and the disk has it sealed only.
    let secret = first.json()["secret"].as_str().unwrap().to_owned();
    assert!(!secret.contains('•'), "{secret}");
    for file in files(&deployment.path()) {
        let bytes = fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", file.display());
    }
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn while_it_is_under_way_a_key_is_refused_and_then_answered() {
    let sink = Sink::start(Mood::Slow(Duration::from_secs(3)));
    let deployment = deployment(&sink);
    let _gateway = deployment.start();
    let path = endpoints(&deployment).replace("/webhooks", "/test").replace("integrations", "integrations/connections");
    let send = |key: &str| ask(&deployment, ("POST", &path), ("idempotency-key", key), &Value::Null);
    let under_way = (409, Some("request_under_way".to_owned()));
    // Two that are sent at once meet, unless the machine holds one of them up for seconds: then two others are.
    let mut rounds = 0;
    let met = || {
        rounds += 1;
        let key = format!("slow-{rounds}");
        let both = thread::scope(|scope| [(); 2].map(|()| scope.spawn(|| send(&key))).map(|one| one.join().unwrap()));
        let made = both.iter().filter(|reply| reply.status == 200 && reply.header("idempotent-replayed").is_none());
        assert_eq!(made.count(), 1, "{both:?}");
        let later = send(&key);
        assert_eq!((later.status, later.header("idempotent-replayed")), (200, Some("true")));
        both.iter().any(|reply| code(reply) == under_way)
    };
    assert!(within(Duration::from_mins(1), met), "{}", deployment.log_tail());
}

#[test]
fn only_so_many_answers_are_kept() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let path = deployment.path().join("trunkline.yaml");
    let file = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{file}limits: {{ admin_answers: 1 }}\n")).unwrap();
    let _gateway = deployment.start();
    let reload = |key: &str| ask(&deployment, ("POST", "/api/reload"), ("idempotency-key", key), &Value::Null);
    let first = reload("a");
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let full = reload("b");
    assert_eq!(code(&full), (503, Some("unavailable".to_owned())));
    assert!(full.header("retry-after").is_some());
    assert_eq!((reload("a").status, reload("a").header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(deployment.ask("POST", "/api/reload", &Value::Null).status, 200);
    let metrics = deployment.ask("GET", "/metrics", &Value::Null);
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        "requests_total{result=\"made\"} 1",
        "requests_total{result=\"replayed\"} 2",
        "requests_total{result=\"full\"} 1",
    ] {
        assert!(metrics.contains(&format!("trunkline_idempotent_{line}")), "{line}\n{metrics}");
    }
}

#[test]
fn lists_are_read_in_parts_also_below_a_base_path() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let path = deployment.path().join("trunkline.yaml");
    let file = fs::read_to_string(&path).unwrap();
    let url = format!("url: \"http://localhost:{}/ops\", token", deployment.admin.port());
    fs::write(&path, file.replace("admin: { token", &format!("admin: {{ {url}"))).unwrap();
    let _gateway = deployment.start();
    for name in ["a", "b", "c"] {
        let draft = json!({ "integration": "shop", "connection": name, "credential": { "api_key": "key-0001" }, "untested": true });
        let saved = deployment.ask("POST", "/api/integrations/save", &draft).json();
        let endpoints = format!("/api/integrations/{}/webhooks", saved["id"].as_str().unwrap());
        assert_eq!(deployment.ask("POST", &endpoints, &json!({})).status, 201);
    }
    for list in ["/ops/api/integrations/connections", "/ops/api/connections", "/ops/api/webhooks"] {
        let mut target = format!("{list}?integration=shop&limit=2");
        let mut ids = Vec::new();
        for rest in [1, 0] {
            let part = deployment.ask("GET", &target, &Value::Null);
            ids.extend(part.json().as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            let link = part.header("link").map(|link| link.trim_start_matches('<').split_once('>').unwrap());
            let Some((next, relation)) = link else {
                assert_eq!(rest, 0, "{target}");
                break;
            };
            assert!(
                relation.contains("next") && next.starts_with(&format!("{list}?integration=shop&limit=2&after=")),
                "{next}"
            );
            target = next.to_owned();
        }
        let whole = deployment.ask("GET", list, &Value::Null);
        let whole: Vec<_> =
            whole.json().as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((ids.len(), ids), (3, whole));
    }
    assert_eq!(deployment.ask("GET", "/api/connections?limit=0", &Value::Null).status, 400);
}

#[test]
fn a_connection_has_its_integration_and_whose_account_it_is() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let _gateway = deployment.start();
    endpoints(&deployment);
    let listed = deployment.ask("GET", "/api/integrations/connections", &Value::Null).json()[0].clone();
    let path = format!("/api/integrations/connections/{}", listed["id"].as_str().unwrap());
    for shown in [listed, deployment.ask("GET", &path, &Value::Null).json()] {
        let integration = &shown["integration"];
        assert_eq!(
            (&integration["id"], &integration["name"], &integration["authType"]),
            (&json!("shop"), &json!("Shop"), &json!("api_key"))
        );
        assert_eq!(
            (&integration["installs"], &shown["integrationId"], &shown["status"]),
            (&json!(1), &json!("shop"), &json!("active"))
        );
        // A key tells nobody's name, and this version copies no records.
        for name in ["externalId", "externalEmail", "lastSync", "errorMessage"] {
            assert_eq!(shown.get(name), Some(&Value::Null), "{name}: {shown}");
        }
        assert_eq!(shown["syncedRecords"], 0);
    }
}

#[test]
fn a_connect_link_is_a_page_for_people_and_an_address_for_programs() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let _gateway = deployment.start();
    let made = deployment.ask("POST", "/api/connect-links", &json!({ "integration": "shop" })).json();
    let url = made["url"].as_str().unwrap();
    let (_, query) = url.split_once("/api/connect/").unwrap();
    let target = &format!("/api/connect/{query}");
    let host = format!("localhost:{}", deployment.public.port());
    let open = |target: &str, accept: &str| {
        Client::for_host(deployment.public, &host).send("GET", target, &[("accept", accept)], b"").unwrap()
    };
    let text = open(target, "text/plain");
    assert_eq!((text.status, text.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(String::from_utf8_lossy(&text.body).trim(), url);
    let page = open(target, "text/html,*/*;q=0.8");
    assert!(
        page.status == 200 && page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")),
        "{page:?}"
    );
    // A program reads a refusal as everywhere, and no page.
    let refused = open(&format!("{target}x"), "text/plain");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(code(&refused), (400, Some("link_invalid".to_owned())));
    let page = open(&format!("{target}x"), "text/html");
    assert!(page.status == 400 && page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
}

#[test]
fn an_empty_filter_selects_as_none_and_changes_nothing() {
    let deployment = Deployment::of(&[]);
    let _gateway = deployment.start();
    deployment.ask("POST", "/api/reload", &Value::Null);
    for target in [
        "/api/activity?q=&integration=&connection=&kind=&outcome=&direction=",
        "/api/audit?q=&actor=&action=&only=&order=&from=",
        "/api/events?state=&type=&since=&limit=&after=",
        "/api/connections?integration=&status=&q=",
        "/api/deliveries?state=dead&integration=&q=&limit=",
        "/api/webhooks?integration=&connection=",
        "/api/usage?from=&to=&step=&compare=",
        "/api/integrations/marketplace?q=&category=&state=&only=",
    ] {
        assert_eq!(deployment.ask("GET", target, &Value::Null).status, 200, "{target}");
    }
    let rows = |target: &str| deployment.ask("GET", target, &Value::Null).json().as_array().map(Vec::len);
    assert!(rows("/api/audit?actor=") > Some(0), "an empty one selected nothing");
    assert_eq!(code(&deployment.ask("GET", "/api/events?wrod=", &Value::Null)).0, 400);
    let replay = deployment.ask("POST", "/api/deliveries/replay?state=dead&limit=", &Value::Null);
    assert_eq!(code(&replay), (400, Some("invalid_input".to_owned())));
}
