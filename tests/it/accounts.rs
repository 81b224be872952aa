//! What the admin door does with connections: tried, saved, removed, paused, renewed, carried elsewhere; every
//! refusal; and that a service which does not answer holds up none but itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outside::gateway::{ADMIN_TOKEN, Deployment, Gateway};
use crate::outside::http::{Client, Reply};
use crate::outside::rotating::Rotating;
use crate::outside::service::{self, Asked};
use crate::outside::within;

const PATIENCE: Duration = Duration::from_secs(15);
const NONE: Value = Value::Null;

/// A door that keeps callers until it is opened.
#[derive(Default)]
struct Held(Mutex<(usize, bool)>, Condvar);

impl Held {
    fn pass(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        drop(self.1.wait_while(state, |state| !state.1).unwrap());
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().0
    }

    fn open(&self) {
        self.0.lock().unwrap().1 = true;
        self.1.notify_all();
    }
}

/// What a service answers to keys that say what it does.
fn keyed(asked: &Asked) -> (u16, String) {
    let (status, body) = match asked.field("x-key") {
        "sk_good" => (200, json!({ "id": "ada" })),
        "sk_scope" => (403, json!({ "error": "missing scope: write" })),
        "sk_barred" => (403, json!({ "error": "your address is not allowed" })),
        "sk_busy" => (429, json!({ "error": "slow down" })),
        "sk_fault" => (500, json!({ "error": "oops" })),
        other => (401, json!({ "error": format!("no such key: {other}") })),
    };
    (status, body.to_string())
}

fn key_definition(id: &str, url: &str, tried: &str) -> (&'static str, String) {
    let name: &'static str = if id == "keyed" { "keyed" } else { "untried" };
    let connections =
        if tried.is_empty() { "" } else { "connections:\n  - { id: declared, api_key: \"${env:SERVICE_SECRET}\" }\n" };
    let text = format!(
        "trunkline: 1\nid: {id}\ntitle: Keyed\nsummary: Has keys.\n\
         inputs: {{ site: {{ title: Site, pattern: \"^[a-z]+$\", default: main }} }}\nauth: {{ api_key: {{}} }}\n\
         api: {{ base_url: \"{url}\", error: body.error, credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}{tried} }}\n\
         {connections}"
    );
    (name, text)
}

/// A service that people consent at, all of whose calls `held` keeps.
fn hub_definition(id: &str, held: Option<Arc<Held>>) -> String {
    let address = service::start(move |_| {
        if let Some(held) = &held {
            held.pass();
        }
        (200, "{}".to_owned())
    });
    format!(
        "trunkline: 1\nid: {id}\ntitle: Hub\nsummary: Takes tokens back.\nauth:\n  oauth2:\n\
         \x20   authorize: http://{address}/authorize\n    token: http://{address}/token\n\
         \x20   client: {{ id: app, secret: \"${{env:SERVICE_SECRET}}\" }}\n\
         \x20   revoke: {{ request: \"POST http://{address}/revoke\", form: {{ token: \"{{{{ token.access }}}}\" }} }}\n\
         api: {{ base_url: \"http://{address}\", test: GET /me }}\n"
    )
}

struct Scene {
    deployment: Deployment,
    _gateway: Gateway,
}

impl Scene {
    fn start(more: &[(&str, String)]) -> Self {
        let url = format!("http://{}", service::start(keyed));
        let mut all = vec![key_definition("keyed", &url, ", test: GET /me"), key_definition("untried", &url, "")];
        all.extend(more.iter().map(|(id, text)| {
            (
                if *id == "hub" {
                    "hub"
                } else if *id == "hung" {
                    "hung"
                } else {
                    "rotating"
                },
                text.clone(),
            )
        }));
        let deployment = Deployment::of(&all);
        let gateway = deployment.start();
        Self { deployment, _gateway: gateway }
    }

    fn ask(&self, method: &str, target: &str, body: &Value) -> Reply {
        self.deployment.ask(method, target, body)
    }

    /// Names and ids of the connections of an integration.
    fn names(&self, integration: &str) -> BTreeSet<String> {
        let listed = self.ask("GET", "/api/integrations/connections", &NONE).json();
        let rows = listed.as_array().unwrap().iter().filter(|row| row["integrationId"] == integration);
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The path of a connection.
    fn path(&self, integration: &str, name: &str) -> String {
        let listed = self.ask("GET", "/api/integrations/connections", &NONE).json();
        let mut rows = listed.as_array().unwrap().iter();
        let row = rows.find(|row| row["integrationId"] == integration && row["name"] == name);
        let id = row.unwrap_or_else(|| panic!("no {integration}/{name} in {listed}"))["id"].clone();
        format!("/api/integrations/connections/{}", id.as_str().unwrap())
    }

    fn issued(&self, integration: &str, names: &[&str]) {
        let token =
            |name: &str| json!({ "issued": { "default": { "access": format!("token-of-{name}"), "issued_at": 1 } } });
        let all: Vec<_> = names.iter().map(|name| ((*name).to_owned(), token(name))).collect();
        self.deployment.import(integration, &all);
    }
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// A refusal is a problem document with this status and code, and has no secret in it.
fn is_refused(reply: &Reply, status: u16, code: &str, what: &str) {
    assert_eq!((reply.status, reply.header("trunkline-error")), (status, Some(code)), "{what}: {}", text(reply));
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
    assert!(!reply.json()["detail"].as_str().unwrap_or_default().is_empty() && !text(reply).contains("sk_"), "{what}");
}

fn draft(integration: &str, connection: &str, key: &str) -> Value {
    json!({ "integration": integration, "connection": connection, "credential": { "api_key": key } })
}

#[test]
fn a_draft_is_tried_and_nothing_of_it_stays() {
    let scene = Scene::start(&[]);
    let before = scene.names("keyed");
    for (key, cause, status) in [
        ("sk_good", None, None),
        ("sk_wrong", Some("unauthorized"), Some(401)),
        ("sk_scope", Some("missing_scope"), Some(403)),
        ("sk_barred", Some("forbidden"), Some(403)),
        ("sk_busy", Some("rate_limited"), Some(429)),
        ("sk_fault", Some("service_fault"), Some(500)),
    ] {
        let reply = scene.ask("POST", "/api/integrations/test", &draft("keyed", "acme", key));
        let told = reply.json();
        assert_eq!((reply.status, &told["ok"]), (200, &json!(cause.is_none())), "{key}: {told}");
        let diagnosis = &told["diagnosis"];
        assert_eq!((diagnosis["cause"].as_str(), diagnosis["status"].as_u64()), (cause, status), "{key}: {told}");
        assert_eq!(diagnosis["retry_after"].as_u64(), (key == "sk_busy").then_some(17), "{told}");
        assert!(cause.is_none() || diagnosis["step"].as_str().unwrap().ends_with('.'), "{told}");
        assert!(!text(&reply).contains(key), "{told}");
    }
    let none = scene.ask("POST", "/api/integrations/test", &draft("untried", "acme", "sk_good")).json();
    assert_eq!(none["diagnosis"]["cause"], "no_test");
    assert_eq!(scene.names("keyed"), before);
}

#[test]
fn what_works_is_saved_and_what_does_not_is_not() {
    let scene = Scene::start(&[]);
    let saved = scene.ask("POST", "/api/integrations/save", &draft("keyed", "acme", "sk_good"));
    assert_eq!(saved.status, 201, "{}", text(&saved));
    assert_eq!(scene.deployment.call("keyed", "acme", "/me").unwrap().status, 200);
    let refused = scene.ask("POST", "/api/integrations/save", &draft("keyed", "acme", "sk_wrong"));
    is_refused(&refused, 503, "connection_unusable", "a key that the service refuses");
    assert_eq!(scene.deployment.call("keyed", "acme", "/me").unwrap().status, 200, "the old one is kept");
    let mut untested = draft("keyed", "later", "sk_wrong");
    untested["untested"] = json!(true);
    assert_eq!(scene.ask("POST", "/api/integrations/save", &untested).status, 201);
    assert_eq!(scene.ask("POST", "/api/integrations/save", &draft("untried", "acme", "sk_good")).status, 201);
    let names = scene.names("keyed");
    for (change, status, code) in [
        (json!({ "integration": "nope" }), 404, "not_found"),
        (json!({ "connection": "a/b" }), 400, "invalid_input"),
        (json!({ "connection": "declared" }), 400, "invalid_input"),
        (json!({ "inputs": { "site": "NO" } }), 400, "invalid_input"),
        (json!({ "inputs": { "nothing": 1 } }), 400, "invalid_input"),
        (json!({ "credential": { "basic": { "username": "sk_u" } } }), 400, "invalid_input"),
        (json!({ "credential": { "token": "sk_t" } }), 400, "invalid_input"),
        (json!({ "nothing": 1 }), 400, "invalid_input"),
    ] {
        for place in ["/api/integrations/test", "/api/integrations/save"] {
            let mut wrong = draft("keyed", "more", "sk_good");
            wrong.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let reply = scene.ask("POST", place, &wrong);
            // A test tells what does not fit as its result, where the request itself is well-formed.
            let told = reply.json();
            let diagnosed = place.ends_with("test") && reply.status == 200 && told["ok"] == false;
            if !(diagnosed && told["diagnosis"]["cause"] == "invalid") {
                let free = place.ends_with("test") && change["connection"] == "declared" && told["ok"] == true;
                if !free {
                    is_refused(&reply, status, code, &format!("{place} {change}"));
                }
            }
        }
    }
    let bytes = Client::new(scene.deployment.admin).send(
        "POST",
        "/api/integrations/save",
        &[("authorization", "Bearer admin-token-0123456789abcdef0123"), ("content-type", "application/json")],
        b"{\"integration\": ",
    );
    is_refused(&bytes.unwrap(), 400, "invalid_input", "half a document");
    assert_eq!(scene.names("keyed"), names);
}

#[test]
fn connections_are_removed_paused_resumed_and_tested_and_each_refusal_says_why() {
    let scene = Scene::start(&[("hub", hub_definition("hub", None))]);
    scene.issued("hub", &["acme"]);
    assert_eq!(scene.ask("POST", "/api/integrations/save", &draft("keyed", "acme", "sk_good")).status, 201);
    let (stored, declared) = (scene.path("keyed", "acme"), scene.path("keyed", "declared"));
    let nobody = "/api/integrations/connections/con_00000000000000000000000000";
    for path in [nobody, "/api/integrations/connections/nonsense"] {
        for (method, more) in [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/pause"),
            ("POST", "/resume"),
            ("POST", "/refresh"),
            ("POST", "/test"),
        ] {
            let reply = scene.ask(method, &format!("{path}{more}"), &NONE);
            assert!(matches!(reply.status, 400 | 404), "{method} {path}{more}: {}", text(&reply));
            is_refused(&reply, reply.status, reply.header("trunkline-error").unwrap_or("none"), more);
        }
        is_refused(&scene.ask("PUT", path, &NONE), 405, "method_not_allowed", "another method");
    }
    for path in [&stored, &declared] {
        let paused = scene.ask("POST", &format!("{path}/pause"), &NONE);
        assert_eq!((paused.status, &paused.json()["status"]), (200, &json!("paused")), "{}", text(&paused));
    }
    for name in ["acme", "declared"] {
        let refused = scene.deployment.call("keyed", name, "/me").unwrap();
        assert_eq!(refused.header("trunkline-error"), Some("connection_paused"), "{name}: {}", text(&refused));
    }
    assert_eq!(scene.ask("POST", &format!("{stored}/resume"), &NONE).json()["status"], "active");
    assert_eq!(scene.deployment.call("keyed", "acme", "/me").unwrap().status, 200);
    let tested = scene.ask("POST", &format!("{stored}/test"), &NONE);
    assert_eq!((tested.status, &tested.json()["last_test"]["passed"]), (200, &json!(true)), "{}", text(&tested));
    assert_eq!(scene.ask("POST", &format!("{declared}/resume"), &NONE).status, 200);
    let failed = scene.ask("POST", &format!("{declared}/test"), &NONE);
    is_refused(&failed, 502, "service_refused", "a test that fails");
    assert_eq!(scene.ask("GET", &declared, &NONE).json()["last_test"]["passed"], false);
    is_refused(&scene.ask("DELETE", &declared, &NONE), 409, "conflict", "a declared connection");
    is_refused(&scene.ask("POST", &format!("{stored}/refresh"), &NONE), 409, "conflict", "a key is not renewed");

    let hub = scene.path("hub", "acme");
    let removed = scene.ask("DELETE", &stored, &NONE);
    assert_eq!(
        (removed.status, &removed.json()["revocation"]["state"]),
        (202, &json!("not_declared")),
        "{}",
        text(&removed)
    );
    let removed = scene.ask("DELETE", &hub, &NONE);
    assert_eq!(
        (removed.status, &removed.json()["revocation"]["state"]),
        (202, &json!("pending")),
        "{}",
        text(&removed)
    );
    let revoked = || text(&scene.ask("GET", "/api/integrations/revocations", &NONE)).contains("\"revoked\"");
    assert!(within(PATIENCE, revoked), "{}", text(&scene.ask("GET", "/api/integrations/revocations", &NONE)));
    for path in [&stored, &hub] {
        is_refused(&scene.ask("DELETE", path, &NONE), 404, "connection_unknown", "it is gone");
        is_refused(&scene.ask("GET", path, &NONE), 404, "connection_unknown", "it is gone");
    }
    assert_eq!(
        scene.deployment.call("keyed", "acme", "/me").unwrap().header("trunkline-error"),
        Some("connection_unknown")
    );
}

#[test]
fn a_token_is_renewed_on_demand_and_a_refusal_is_told() {
    let service = Rotating::start(1);
    let scene = Scene::start(&[("rotating", service.definition())]);
    scene.deployment.import("rotating", &[("acme".to_owned(), service.consent("acme"))]);
    let path = scene.path("rotating", "acme");
    let renewed = scene.ask("POST", &format!("{path}/refresh"), &NONE);
    assert_eq!((renewed.status, &renewed.json()["status"]), (200, &json!("active")), "{}", text(&renewed));
    let shown = scene.ask("GET", &path, &NONE).json();
    assert!(shown["last_refresh"].is_string() && shown["tokens"]["default"]["renewable"] == true, "{shown}");
    // Someone else uses the token up, and the service takes everything back.
    scene.deployment.import("rotating", &[("twin".to_owned(), service.consent("twin"))]);
    let twin = scene.path("rotating", "twin");
    let stolen = service.consent("twin");
    scene.deployment.import("rotating", &[("twin".to_owned(), stolen.clone())]);
    assert_eq!(scene.ask("POST", &format!("{twin}/refresh"), &NONE).status, 200);
    scene.deployment.import("rotating", &[("twin".to_owned(), stolen)]);
    is_refused(
        &scene.ask("POST", &format!("{twin}/refresh"), &NONE),
        503,
        "connection_needs_reconnect",
        "a token used twice",
    );
    assert!(service.has_revoked("twin"));
    assert_eq!(scene.ask("GET", &twin, &NONE).json()["status"], "needs_reconnect");
}

#[test]
fn a_renewal_of_a_connection_that_is_removed_meanwhile_shows_none() {
    let held = Arc::new(Held::default());
    let kept = Arc::clone(&held);
    let address = service::start(move |asked: &Asked| {
        if asked.path() == "/token" {
            kept.pass();
        }
        (200, json!({ "access_token": "new" }).to_string())
    });
    let text = format!(
        "trunkline: 1\nid: hub\ntitle: Hub\nsummary: Is slow.\nauth:\n  oauth2:\n    authorize: http://{address}/authorize\n\
         \x20   token: http://{address}/token\n    client: {{ id: app, secret: \"${{env:SERVICE_SECRET}}\" }}\n\
         api: {{ base_url: \"http://{address}\" }}\n"
    );
    let scene = Scene::start(&[("hub", text)]);
    let token = json!({ "issued": { "default": { "access": "old", "refresh": "rt", "issued_at": 1 } } });
    scene.deployment.import("hub", &[("a".to_owned(), token)]);
    let path = scene.path("hub", "a");
    thread::scope(|scope| {
        let renewing = scope.spawn(|| scene.ask("POST", &format!("{path}/refresh"), &NONE));
        assert!(within(PATIENCE, || held.waiting() == 1), "the service is asked");
        assert!(scene.ask("DELETE", &path, &NONE).status < 300, "it is removed");
        held.open();
        is_refused(&renewing.join().unwrap(), 404, "connection_unknown", "it is gone");
    });
}

#[test]
fn exports_and_imports_refuse_what_does_not_fit() {
    let scene = Scene::start(&[]);
    assert_eq!(scene.ask("POST", "/api/integrations/save", &draft("keyed", "acme", "sk_good")).status, 201);
    let export = scene.ask("GET", "/api/export", &NONE).json();
    assert_eq!((&export["secrets"], &export["connections"][0]["name"]), (&json!(false), &json!("acme")));
    for recipients in [json!([]), json!(["age1nonsense"])] {
        let asked = json!({ "recipients": recipients });
        is_refused(&scene.ask("POST", "/api/export", &asked), 400, "invalid_input", &asked.to_string());
    }
    let content =
        json!({ "format": 2, "credential": { "api_key": "sk_good" }, "inputs": {}, "saved": {}, "updated_at": 1 });
    let row = json!({ "integration": "keyed", "name": "carried", "credential": "an API key", "inputs": {}, "content": content });
    let export = json!({ "trunkline_export": 1, "exported_at": 1, "secrets": true, "connections": [row] });
    let plan = scene.ask("POST", "/api/import", &export).json();
    assert_eq!((&plan["applied"], &plan["plan"]["rows"][0]["action"]), (&json!(false), &json!("make")), "{plan}");
    assert!(!scene.names("keyed").contains("carried"), "a plan changes nothing");
    let digest = plan["plan"]["digest"].as_str().unwrap().to_owned();
    is_refused(&scene.ask("POST", "/api/import?apply=1&plan=other", &export), 409, "conflict", "another plan");
    let applied = scene.ask("POST", &format!("/api/import?apply=1&plan={digest}"), &export).json();
    assert_eq!(applied["applied"], true, "{applied}");
    assert!(scene.names("keyed").contains("carried"));
    let stale = scene.ask("POST", &format!("/api/import?apply=1&plan={digest}"), &export);
    is_refused(&stale, 409, "conflict", "a plan that is over");
    for wrong in [
        json!({ "trunkline_export": 9, "exported_at": 1, "secrets": true, "connections": [] }),
        json!([]),
        json!("sk_x"),
    ] {
        is_refused(&scene.ask("POST", "/api/import?apply=1", &wrong), 400, "invalid_input", &wrong.to_string());
    }
    is_refused(&scene.ask("POST", "/api/import?aply=1", &export), 400, "invalid_input", "a slip in a name");
}

#[test]
fn links_are_made_and_looked_up_and_nobody_without_the_token_does_anything() {
    let scene = Scene::start(&[("hub", hub_definition("hub", None))]);
    let made = scene.ask("POST", "/api/connect-links", &json!({ "integration": "hub", "connection": "acme" }));
    assert_eq!(made.status, 201, "{}", text(&made));
    let result = made.json()["result"].as_str().unwrap().to_owned();
    let shown = scene.ask("GET", &format!("/api/connect-links/{result}"), &NONE);
    assert_eq!((shown.status, &shown.json()["state"]), (200, &json!("waiting")), "{}", text(&shown));
    is_refused(&scene.ask("GET", "/api/connect-links/nonsense", &NONE), 404, "not_found", "another id");
    for (wanted, status, code) in [
        (json!({ "integration": "nope" }), 404, "not_found"),
        (json!({ "integration": "hub", "return_to": "https://evil.example/" }), 400, "invalid_input"),
        (json!({ "integration": "hub", "scopes": ["root"] }), 400, "invalid_input"),
        (json!({ "integration": "hub", "connection": "a/b" }), 400, "invalid_input"),
        (json!({ "integration": "hub", "nothing": 1 }), 400, "invalid_input"),
        (json!({}), 400, "invalid_input"),
    ] {
        is_refused(&scene.ask("POST", "/api/connect-links", &wanted), status, code, &wanted.to_string());
    }
    let path = scene.path("keyed", "declared");
    for (method, target) in [
        ("POST", "/api/integrations/test"),
        ("POST", "/api/integrations/save"),
        ("GET", "/api/integrations/revocations"),
        ("GET", "/api/integrations/connections"),
        ("GET", &path),
        ("DELETE", &path),
        ("POST", &format!("{path}/pause")),
        ("POST", &format!("{path}/resume")),
        ("POST", &format!("{path}/refresh")),
        ("POST", &format!("{path}/test")),
        ("GET", "/api/export"),
        ("POST", "/api/export"),
        ("POST", "/api/import"),
        ("POST", "/api/connect-links"),
        ("GET", &format!("/api/connect-links/{result}")),
    ] {
        for bearer in ["", "Bearer admin-token-0123456789abcdef012x"] {
            let headers = [("authorization", bearer), ("content-type", "application/json")];
            let reply = Client::new(scene.deployment.admin).send(method, target, &headers, b"{}").unwrap();
            // After some guesses the next have to wait.
            let (status, code) = if reply.status == 429 { (429, "rate_limited") } else { (401, "admin_unknown") };
            is_refused(&reply, status, code, &format!("{method} {target}"));
        }
    }
}

#[test]
fn a_service_that_does_not_answer_holds_up_no_other() {
    let held = Arc::new(Held::default());
    let hung = hub_definition("hung", Some(Arc::clone(&held)));
    let scene = Scene::start(&[("hub", hub_definition("hub", None)), ("hung", hung)]);
    scene.issued("hung", &["a", "b", "c", "d", "e"]);
    scene.issued("hub", &["a", "b"]);
    let hanging = scene.path("hung", "e");
    thread::scope(|scope| {
        let testing = scope.spawn(|| scene.ask("POST", &format!("{hanging}/test"), &NONE));
        assert!(within(PATIENCE, || held.waiting() == 1), "the test came to the service");
        let tested = scene.ask("POST", &format!("{}/test", scene.path("hub", "a")), &NONE);
        assert_eq!(tested.status, 200, "{}", text(&tested));
        for name in ["a", "b", "c", "d"] {
            assert_eq!(scene.ask("DELETE", &scene.path("hung", name), &NONE).status, 202);
        }
        assert!(within(PATIENCE, || held.waiting() == 2), "the service is told of the first");
        for name in ["a", "b"] {
            assert_eq!(scene.ask("DELETE", &scene.path("hub", name), &NONE).status, 202);
        }
        let states = || {
            let all = scene.ask("GET", "/api/integrations/revocations", &NONE).json();
            let state = |row: &Value| format!("{} {}", row["integration"], row["state"]).replace('"', "");
            all.as_array().unwrap().iter().map(state).collect::<Vec<_>>()
        };
        let told = || states().iter().filter(|state| *state == "hub revoked").count() == 2;
        assert!(within(PATIENCE, told), "the one that hangs holds up the other: {:?}", states());
        assert_eq!(states().iter().filter(|state| *state == "hung pending").count(), 4);
        assert_eq!(held.waiting(), 2, "one thing after another for each service");
        held.open();
        assert_eq!(testing.join().unwrap().status, 200);
        let all = || states().iter().all(|state| state.ends_with("revoked"));
        assert!(within(PATIENCE, all), "{:?}", states());
    });
}

#[test]
fn the_command_shows_whose_account_a_connection_is_and_what_came_of_its_test() {
    let scene = Scene::start(&[]);
    assert_eq!(scene.ask("POST", "/api/integrations/save", &draft("keyed", "acme", "sk_good")).status, 201);
    let bad = json!({ "integration": "keyed", "connection": "bad", "credential": { "api_key": "sk_barred" }, "untested": true });
    assert_eq!(scene.ask("POST", "/api/integrations/save", &bad).status, 201);
    let content = json!({ "format": 2, "credential": { "api_key": "sk_good" }, "inputs": {},
        "saved": { "_account_id": "7", "_account_name": "Ada" }, "updated_at": 1 });
    let row = json!({ "integration": "keyed", "name": "named", "credential": "", "inputs": {}, "content": content });
    let export = json!({ "trunkline_export": 1, "exported_at": 1, "secrets": true, "connections": [row] });
    let imported = scene.ask("POST", "/api/import?apply=1", &export);
    assert_eq!(imported.status, 200, "{}", text(&imported));
    let run = |action: &str, name: &str| {
        let mut command = scene.deployment.command("connections");
        command.args([action, &format!("keyed/{name}")]).env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN);
        let output = command.output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(all).unwrap())
    };
    let (success, said) = run("show", "acme");
    assert!(success && !said.contains("last test"), "saving by hand is no test of the stored one: {said}");
    let (success, said) = run("test", "acme");
    assert!(success && said.contains("last test     passed, 2"), "{said}");
    let (success, said) = run("test", "bad");
    assert!(!success && said.contains("last test     failed, 2"), "{said}");
    assert!(said.contains("your address is not allowed") && said.contains("what to do"), "{said}");
    let (success, said) = run("show", "named");
    assert!(success && said.contains("account       Ada"), "{said}");
}

#[test]
fn a_key_that_no_header_can_carry_is_refused_also_when_it_is_not_to_be_tried() {
    let scene = Scene::start(&[]);
    let draft = json!({ "integration": "keyed", "connection": "acme", "credential": { "api_key": "sk_caf\u{e9}" }, "untested": true });
    let refused = scene.ask("POST", "/api/integrations/save", &draft);
    is_refused(&refused, 400, "invalid_input", "characters that no header can carry");
    assert!(scene.names("keyed").iter().all(|name| name == "declared"));
}

#[test]
fn whoever_has_a_credential_used_is_in_the_audit_log_and_so_is_every_use() {
    let service = Rotating::start(1);
    let scene = Scene::start(&[("rotating", service.definition())]);
    scene.deployment.import("rotating", &[("acme".to_owned(), service.consent("acme"))]);
    let (rotating, declared) = (scene.path("rotating", "acme"), scene.path("keyed", "declared"));
    let audit = |query: &str| scene.ask("GET", &format!("/api/audit?limit=1000&{query}"), &NONE).json();
    let asked = |target: &str, body: &Value| {
        let before = audit("actor=operator").as_array().unwrap().len();
        scene.ask("POST", target, body);
        let all = audit("actor=operator");
        let new = all.as_array().unwrap().get(before).unwrap_or_else(|| panic!("no entry of {target}: {all}"));
        format!("{} {}", new["action"].as_str().unwrap(), new["target"].as_str().unwrap())
    };
    assert_eq!(asked(&format!("{declared}/test"), &NONE), "connection.test connection:keyed/declared");
    assert_eq!(asked(&format!("{rotating}/refresh"), &NONE), "connection.refresh connection:rotating/acme");
    for path in ["/api/integrations/test", "/api/integrations/save"] {
        assert_eq!(asked(path, &draft("keyed", "found", "sk_stolen")), "connection.test integration:keyed", "{path}");
    }
    assert_eq!(asked("/api/sign-in-links", &NONE), "sign_in.link admin");
    assert_eq!(asked("/api/keys/check", &NONE), "keys.check keys");
    assert!(!audit("").to_string().contains("sk_stolen"));
    let kinds = || {
        let lines = audit("action=calls");
        let groups = lines.as_array().unwrap().iter().flat_map(|line| line["detail"]["calls"].as_array().unwrap());
        let shown = groups.map(|of| format!("{} {} {}", of["kind"], of["integration"], of["calls"]).replace('"', ""));
        shown.collect::<BTreeSet<_>>()
    };
    let all = || kinds().contains("test keyed 1") && kinds().contains("sign_in rotating 1");
    assert!(within(PATIENCE, all), "{:?}", kinds());
}
