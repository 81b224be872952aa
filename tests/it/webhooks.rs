//! Managed webhook endpoints of the whole program: by API and command, over real sockets and through kills.

use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::outside::gateway::{ADMIN_TOKEN, Deployment, Gateway};
use crate::outside::http::{Client, Reply};
use crate::outside::{service, within};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

const HUB: &str = "
trunkline: 1
id: hub
title: Hub
auth: { api_key: {} }
api: { base_url: https://hub.example, credential: { header: X-Key, value: \"{{ api_key }}\" } }
connections: [{ id: main, api_key: \"${env:SHOP_KEY}\" }]
webhook:
  verify:
    hmac: { algorithm: sha256, signature: { header: X-Sig, encoding: hex }, signed: \"{{ body }}\" }
  event: body.type
  delivery_id: body.id
  events: [thing.made, thing.gone]
rules: [{ id: all, when: '*', do: [{ log: \"made at {{ event.connection }}\" }] }]
";

struct World {
    deployment: Deployment,
    gateway: Option<Gateway>,
}

impl World {
    fn start(definition: &str) -> Self {
        let deployment = Deployment::of(&[("hub", definition.to_owned())]);
        let gateway = Some(deployment.start());
        Self { deployment, gateway }
    }

    fn kill_and_start(&mut self) {
        self.gateway.take().unwrap().kill();
        self.gateway = Some(self.deployment.start());
    }

    fn ask(&self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let reply = self.deployment.ask(method, target, body);
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        (reply.status, serde_json::from_slice(&reply.body).unwrap_or(Value::String(text)))
    }

    fn connection(&self) -> String {
        let (_, list) = self.ask("GET", "/api/connections", &Value::Null);
        list[0]["id"].as_str().unwrap_or_else(|| panic!("{list}")).to_owned()
    }

    fn create(&self, body: &Value) -> Value {
        let (status, made) = self.ask("POST", &format!("/api/integrations/{}/webhooks", self.connection()), body);
        assert_eq!(status, 201, "{made}\n{}", self.deployment.log_tail());
        made
    }

    fn change(&self, endpoint: &Value, action: (&str, &str), body: &Value) -> Value {
        let id = endpoint["id"].as_str().unwrap();
        let (status, changed) = self.ask(action.0, &format!("/api/webhooks/{id}{}", action.1), body);
        assert!((200..300).contains(&status), "{action:?}: {status} {changed}");
        changed
    }

    /// Posts an event of this id and type to an address of the public door.
    fn post(&self, url: &str, secret: &str, (id, kind): (&str, &str)) -> Reply {
        self.post_body(url, secret, json!({ "type": kind, "id": id }).to_string().as_bytes())
    }

    fn post_body(&self, url: &str, secret: &str, body: &[u8]) -> Reply {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
        let sum = mac.finalize().into_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let (_, place) = url.split_once("/webhooks/").unwrap();
        let path = format!("/webhooks/{place}");
        Client::new(self.deployment.public)
            .send("POST", &path, &[("x-sig", &sum), ("content-type", "application/json")], body)
            .unwrap()
    }

    fn state(&self, event: &Value) -> String {
        let (_, shown) = self.ask("GET", &format!("/api/events/{}", event.as_str().unwrap()), &Value::Null);
        shown["state"].as_str().unwrap_or_default().to_owned()
    }

    fn comes_to(&self, event: &Value, state: &str) {
        assert!(within(PATIENCE, || self.state(event) == state), "{event} is {}, not {state}", self.state(event));
    }
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}"))
}

#[test]
fn an_endpoint_takes_what_its_own_secret_signs_and_its_events_carry_the_connection() {
    let world = World::start(HUB);
    let made = world.create(&json!({}));
    let (url, secret) = (field(&made, "url"), field(&made, "secret"));
    assert!(!url.contains(field(&made, "id")) && url.contains("/webhooks/hub/"), "{url}");
    let taken = world.post(url, secret, ("1", "thing.made"));
    assert_eq!(taken.status, 202);
    let event = taken.json()["event"].clone();
    world.comes_to(&event, "done");
    let (_, shown) = world.ask("GET", &format!("/api/events/{}", event.as_str().unwrap()), &Value::Null);
    assert_eq!(shown["connection"], "main", "{shown}");
    let (_, logs) = world.ask("GET", &format!("/api/integrations/{}/logs", world.connection()), &Value::Null);
    assert_eq!((&logs[0]["eventType"], &logs[0]["event"]), (&json!("webhook"), &event), "{logs}");
    for (filter, count) in [
        (format!("webhook={}", field(&made, "id")), 1),
        ("webhook=whk_00000000000000000000000001".to_owned(), 0),
        ("connection=main".to_owned(), 1),
        ("connection=other".to_owned(), 0),
    ] {
        let (_, found) = world.ask("GET", &format!("/api/events?{filter}"), &Value::Null);
        assert_eq!(found.as_array().map(Vec::len), Some(count), "{filter}: {found}");
    }
    assert_eq!(world.post(url, "another-secret-01", ("2", "thing.made")).status, 401);
    assert_eq!(world.post("http://x/webhooks/hub", secret, ("3", "thing.made")).status, 401, "a secret of its own");
    let listed = world.change(&made, ("GET", ""), &Value::Null);
    assert_eq!((&listed["secret"], &listed["deliveriesLast24h"]), (&json!("••••••••"), &json!(2)));
    assert_eq!((&listed["successRate"], listed["lastDelivery"].is_string()), (&json!(0.5), true));
    assert_eq!(listed["hours"].as_array().map(Vec::len), Some(24));
}

#[test]
fn what_cannot_be_read_of_an_event_is_never_taken_for_missing() {
    let world = World::start(HUB);
    let made = world.create(&json!({}));
    let post = |body: &[u8]| world.post_body(field(&made, "url"), field(&made, "secret"), body);
    // An id or a type that cannot be read: kept for the dead-letter list, whatever rules there are.
    let deep = format!(r#"{{"type":"thing.made","id":{}1{}}}"#, "[".repeat(70), "]".repeat(70));
    for body in [
        &br#"{"type":"thing.made","id":"\ud83d"}"#[..],
        b"{\"type\":\"thing.made\",\"id\":\"\xff\"}",
        deep.as_bytes(),
        br#"{"type":"thing.made","id":"a"} and more"#,
    ] {
        let taken = post(body);
        assert_eq!(
            (taken.status, &taken.json()["result"]),
            (202, &json!("untold")),
            "{}",
            String::from_utf8_lossy(body)
        );
        world.comes_to(&taken.json()["event"], "dead");
    }
    // A mark of UTF-8 is no part of the body, and what the signature is made of.
    let marked = b"\xef\xbb\xbf{\"type\":\"thing.made\",\"id\":\"marked\"}";
    let taken = post(marked);
    assert_eq!((taken.status, &taken.json()["result"]), (202, &json!("accepted")));
    let event = taken.json()["event"].clone();
    world.comes_to(&event, "done");
    assert_eq!((post(marked).status, post(marked).json()["result"].clone()), (200, json!("duplicate")));
    let raw = world.deployment.ask("GET", &format!("/api/events/{}/body", event.as_str().unwrap()), &Value::Null);
    assert_eq!((raw.status, raw.body.as_slice()), (200, &marked[..]));
    assert!(raw.header("content-disposition").is_some_and(|how| how.starts_with("attachment")));
}

#[test]
fn ids_that_are_numbers_are_told_apart_by_their_digits() {
    let world = World::start(HUB);
    let made = world.create(&json!({}));
    let post = |id: &str| {
        let body = format!(r#"{{"type":"thing.made","id":{id}}}"#);
        world.post_body(field(&made, "url"), field(&made, "secret"), body.as_bytes()).json()
    };
    for id in [
        "12345678901234567890.0",
        "12345678901234567891.0",
        "1700000000.1234567890",
        "1700000000.1234567899",
        "12345678901234567890123",
        "12345678901234567890124",
        "1.5",
        "15",
    ] {
        assert_eq!(post(id)["result"], "accepted", "{id}");
        assert_eq!(post(id)["result"], "duplicate", "{id}");
    }
    let digests = HUB.replace("delivery_id: body.id", "delivery_id: \"body | tojson | sha256\"");
    let digests = World::start(&digests);
    let hashed = digests.create(&json!({}));
    for id in ["1700000000.1234567890", "1700000000.1234567899"] {
        let body = format!(r#"{{"type":"thing.made","id":{id}}}"#);
        let taken = digests.post_body(field(&hashed, "url"), field(&hashed, "secret"), body.as_bytes());
        assert_eq!(taken.json()["result"], "accepted", "{id}");
    }
    let event = post("98765432109876543210987")["event"].clone();
    let (_, shown) = world.ask("GET", &format!("/api/events/{}", event.as_str().unwrap()), &Value::Null);
    assert_eq!(shown["body"]["json"]["id"], "98765432109876543210987", "no reader rounds it");
}

#[test]
fn no_secret_ends_before_it_was_said_to() {
    let world = World::start(HUB);
    let made = world.create(&json!({}));
    let id = field(&made, "id");
    let mut secrets = vec![field(&made, "secret").to_owned()];
    for _ in 0..3 {
        let rotated = world.change(&made, ("POST", "/rotate"), &json!({ "overlap": "1h" }));
        secrets.push(field(&rotated, "secret").to_owned());
    }
    let (status, words) = world.ask("POST", &format!("/api/webhooks/{id}/rotate"), &json!({ "overlap": "1h" }));
    assert!(status == 409 && words.to_string().contains("four secrets"), "{status} {words}");
    let (status, _) = world.ask("POST", &format!("/api/webhooks/{id}/rotate"), &json!({ "overlap": "1m" }));
    assert_eq!(status, 409, "none of those that count would end before");
    for (number, secret) in secrets.iter().enumerate() {
        let taken = world.post(field(&made, "url"), secret, (&number.to_string(), "thing.made"));
        assert_eq!(taken.status, 202, "secret {number}");
    }
    world.change(&made, ("POST", "/rotate"), &json!({ "overlap": "0s" }));
    assert_eq!(world.post(field(&made, "url"), &secrets[3], ("x", "thing.made")).status, 401);
}

#[test]
fn what_is_optional_need_not_be_sent() {
    let world = World::start(HUB);
    let made = world.create(&Value::Null);
    assert_eq!((made["eventTypes"].as_array().map(Vec::len), &made["enabled"]), (Some(0), &json!(true)));
    let rotated = world.change(&made, ("POST", "/rotate"), &Value::Null);
    assert_ne!(rotated["secret"], made["secret"]);
    let tested = world.change(&made, ("POST", "/test"), &Value::Null);
    assert_eq!((&tested["eventType"], &tested["accepted"]), (&json!("thing.made"), &json!(true)));
    let id = field(&made, "id");
    assert_eq!(
        world.ask("PATCH", &format!("/api/webhooks/{id}"), &Value::Null).0,
        400,
        "what is changed is to be said"
    );
}

#[test]
fn a_secret_is_not_shown_again_without_a_line_in_the_audit_log() {
    let world = World::start(HUB);
    let ask = |target: &str, body: &str| {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
        Client::new(world.deployment.admin).send("POST", target, &headers, body.as_bytes()).unwrap()
    };
    let lines = |action: &str| {
        let (_, found) = world.ask("GET", &format!("/api/audit?action={action}"), &Value::Null);
        found.as_array().unwrap_or_else(|| panic!("{found}")).clone()
    };
    let target = format!("/api/integrations/{}/webhooks", world.connection());
    let made = ask(&target, "{}").json();
    assert!(lines("answer.replay").is_empty());
    let again = ask(&target, "{}");
    assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), made.clone()));
    let replayed = lines("answer.replay");
    assert_eq!((replayed.len(), &replayed[0]["actor"]), (1, &json!("operator")));
    assert_eq!(replayed[0]["target"], format!("request:POST {target}"));
    // What shows a secret shows the present one, and says so each time.
    let reveal = format!("/api/webhooks/{}/reveal", field(&made, "id"));
    assert_eq!(ask(&reveal, "").json()["secret"], made["secret"]);
    let rotated = world.change(&made, ("POST", "/rotate"), &json!({}));
    assert_eq!(ask(&reveal, "").json()["secret"], rotated["secret"]);
    assert_eq!(lines("webhook.reveal").len(), 2);
}

#[test]
fn an_unknown_token_is_like_no_integration_and_guesses_are_slowed() {
    let world = World::start(&HUB.replace("  event: body.type", "  rate_per_source: 3/h\n  event: body.type"));
    let made = world.create(&json!({}));
    let wrong =
        world.post("http://x/webhooks/hub/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", field(&made, "secret"), ("1", "a"));
    let nowhere = world.post("http://x/webhooks/nothing", field(&made, "secret"), ("1", "a"));
    assert_eq!((wrong.status, &wrong.body), (404, &nowhere.body));
    let guesses = (0..4).map(|n| world.post(&format!("http://x/webhooks/hub/guess{n}"), "s", ("1", "a")).status);
    assert_eq!(guesses.collect::<Vec<_>>(), [404, 404, 429, 429]);
    let good = world.post(field(&made, "url"), field(&made, "secret"), ("1", "thing.made"));
    assert_eq!(good.status, 202, "who shares an address with guesses is heard");
}

#[test]
fn a_former_secret_counts_for_the_overlap_and_no_longer() {
    let world = World::start(HUB);
    let made = world.create(&json!({ "secret": "the-first-secret" }));
    let url = field(&made, "url");
    let rotated = world.change(&made, ("POST", "/rotate"), &json!({ "overlap": "1h" }));
    let newest = field(&rotated, "secret");
    assert!(newest != "the-first-secret" && rotated["formerSecretsUntil"].is_string());
    assert_eq!(world.post(url, "the-first-secret", ("1", "thing.made")).status, 202);
    assert_eq!(world.post(url, newest, ("2", "thing.made")).status, 202);
    world.change(&made, ("POST", "/rotate"), &json!({ "overlap": "0s", "secret": "the-third-secret" }));
    assert_eq!(world.post(url, "the-first-secret", ("3", "thing.made")).status, 401);
    assert_eq!(world.post(url, newest, ("4", "thing.made")).status, 401);
    assert_eq!(world.post(url, "the-third-secret", ("5", "thing.made")).status, 202);
    let revealed = world.change(&made, ("POST", "/reveal"), &json!({}));
    assert_eq!(revealed["secret"], "the-third-secret");
    let (_, audit) = world.ask("GET", "/api/audit", &Value::Null);
    let text = audit.to_string();
    assert!(text.contains("webhook.reveal") && text.contains("webhook.rotate"), "{text}");
    assert!(!text.contains("the-third-secret") && !text.contains(newest), "the audit log has no secret");
}

#[test]
fn a_disabled_endpoint_keeps_what_arrives_through_a_kill_and_works_on_it_when_enabled() {
    let mut world = World::start(HUB);
    let made = world.create(&json!({}));
    let (url, secret) = (field(&made, "url").to_owned(), field(&made, "secret").to_owned());
    world.change(&made, ("PATCH", ""), &json!({ "enabled": false }));
    let kept = world.post(&url, &secret, ("1", "thing.made")).json()["event"].clone();
    let other = world.create(&json!({}));
    let worked = world.post(field(&other, "url"), field(&other, "secret"), ("1", "thing.made")).json()["event"].clone();
    world.comes_to(&worked, "done");
    assert_eq!(world.state(&kept), "queued");
    world.kill_and_start();
    let again = world.create(&json!({}));
    let later = world.post(field(&again, "url"), field(&again, "secret"), ("1", "thing.made")).json()["event"].clone();
    world.comes_to(&later, "done");
    assert_eq!(world.state(&kept), "queued", "it still waits after a kill");
    world.change(&made, ("PATCH", ""), &json!({ "enabled": true }));
    world.comes_to(&kept, "done");
    assert_eq!(world.post(&url, &secret, ("2", "thing.made")).status, 202, "the endpoint outlived the kill");
}

#[test]
fn types_that_are_not_taken_are_acknowledged_and_not_stored() {
    let world = World::start(HUB);
    let made = world.create(&json!({ "eventTypes": ["thing.m*"] }));
    let (url, secret) = (field(&made, "url"), field(&made, "secret"));
    let passed = world.post(url, secret, ("1", "thing.gone"));
    assert_eq!((passed.status, passed.json()["result"].clone()), (200, json!("unsubscribed")));
    assert_eq!(world.post(url, secret, ("2", "thing.made")).status, 202);
    let (_, events) = world.ask("GET", "/api/events", &Value::Null);
    assert_eq!(events.as_array().map(Vec::len), Some(1), "{events}");
    let changed = world.change(&made, ("PATCH", ""), &json!({ "eventTypes": [] }));
    assert_eq!(changed["eventTypes"], json!([]));
    assert_eq!(world.post(url, secret, ("3", "thing.gone")).status, 202);
}

#[test]
fn a_test_event_goes_through_the_public_door_and_its_verifier() {
    let world = World::start(HUB);
    let made = world.create(&json!({}));
    let tested = world.change(&made, ("POST", "/test"), &json!({}));
    assert_eq!((&tested["accepted"], &tested["eventType"]), (&json!(true), &json!("thing.made")), "{tested}");
    world.comes_to(&tested["answer"]["event"], "done");
    let named = world.change(&made, ("POST", "/test"), &json!({ "event": "thing.gone" }));
    assert_eq!(named["eventType"], "thing.gone");
}

#[test]
fn a_deleted_endpoint_takes_nothing_any_more() {
    let world = World::start(HUB);
    let made = world.create(&json!({}));
    world.change(&made, ("DELETE", ""), &Value::Null);
    assert_eq!(world.post(field(&made, "url"), field(&made, "secret"), ("1", "thing.made")).status, 404);
    let (status, _) = world.ask("GET", &format!("/api/webhooks/{}", field(&made, "id")), &Value::Null);
    assert_eq!((status, world.ask("GET", "/api/webhooks", &Value::Null).1), (404, json!([])));
}

#[test]
fn an_unguessable_address_is_the_only_one() {
    let world = World::start(&HUB.replace("  event: body.type", "  address: unguessable\n  event: body.type"));
    let made = world.create(&json!({}));
    let (url, secret) = (field(&made, "url"), field(&made, "secret"));
    assert_eq!(world.post("http://x/webhooks/hub", secret, ("1", "thing.made")).status, 404);
    assert_eq!(world.post(url, secret, ("1", "thing.made")).status, 202);
}

#[test]
fn what_is_wrong_with_a_wish_is_said() {
    let world = World::start(HUB);
    let at = format!("/api/integrations/{}/webhooks", world.connection());
    let told = |body: Value| world.ask("POST", &at, &body);
    assert_eq!(told(json!({ "secret": "short" })).0, 400);
    assert_eq!(told(json!({ "eventTypes": [""] })).0, 400);
    let (status, words) = told(json!({ "register": true }));
    assert_eq!(status, 409, "{words}");
    assert!(field(&words, "detail").contains("no `webhook.register`"), "{words}");
    let nobody = "/api/integrations/conn_00000000000000000000000000/webhooks";
    assert_eq!(world.ask("POST", nobody, &json!({})).0, 404);
}

/// A service that keeps subscriptions: `fail` says how many calls of each method it answers with this status.
struct Provider {
    asked: Arc<Mutex<Vec<String>>>,
    next: Arc<Mutex<Vec<(u16, &'static str)>>>,
    address: std::net::SocketAddr,
}

impl Provider {
    /// Answers in this order, and then 200 with an id and a secret.
    fn answering(next: &[(u16, &'static str)]) -> Self {
        let (asked, next) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Mutex::new(next.to_vec())));
        let (seen, answers) = (Arc::clone(&asked), Arc::clone(&next));
        let address = service::start(move |call| {
            seen.lock().unwrap().push(format!("{} {} {}", call.target, call.field("x-key"), call.body));
            let mut answers = answers.lock().unwrap();
            let usual = (200, "{\"id\":\"sub_7\",\"secret\":\"made-by-the-service\"}");
            let (status, body) = if answers.is_empty() { usual } else { answers.remove(0) };
            (status, body.to_owned())
        });
        Self { asked, next, address }
    }

    fn definition(&self) -> String {
        let at = format!("http://{}", self.address);
        let own = "  register:\n    request: POST /hooks/{{ input.place }}\n    form: { url: \"{{ webhook.url }}\", \
                   \"events[]\": \"{{ webhook.events }}\" }\n    error: body.error\n    save: { id: body.id, secret: body.secret }\n  \
                   unregister: \"POST /hooks/{{ input.place }}/remove/{{ saved.id }}\"\n  event: body.type";
        HUB.replace("https://hub.example", &at).replace("  event: body.type", own)
    }

    fn calls(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answers(&self, next: &[(u16, &'static str)]) {
        *self.next.lock().unwrap() = next.to_vec();
    }
}

fn wish() -> Value {
    json!({ "input": { "place": "acme" }, "eventTypes": ["thing.made"] })
}

#[test]
fn a_service_is_told_and_the_secret_it_makes_counts() {
    let provider = Provider::answering(&[]);
    let world = World::start(&provider.definition());
    let made = world.create(&wish());
    assert_eq!((&made["secret"], &made["subscription"]["id"]), (&json!("made-by-the-service"), &json!("sub_7")));
    let (url, calls) = (field(&made, "url"), provider.calls());
    let form: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
    assert!(calls[0].starts_with("/hooks/acme shop-key ") && calls[0].contains(&format!("url={form}")), "{calls:?}");
    assert!(calls[0].ends_with("events%5B%5D=thing.made"), "{calls:?}");
    assert_eq!(world.post(url, "made-by-the-service", ("1", "thing.made")).status, 202);
    let id = field(&made, "id");
    let (status, words) = world.ask("POST", &format!("/api/webhooks/{id}/rotate"), &json!({}));
    assert!(status == 409 && field(&words, "detail").contains("roll it there"), "{words}");
    world.change(&made, ("DELETE", ""), &Value::Null);
    assert_eq!(world.post(url, "made-by-the-service", ("2", "thing.made")).status, 404);
    assert!(within(PATIENCE, || world.ask("GET", "/api/webhooks", &Value::Null).1 == json!([])));
    assert!(provider.calls()[1].starts_with("/hooks/acme/remove/sub_7 shop-key"), "{:?}", provider.calls());
}

#[test]
fn a_service_that_refuses_is_quoted_and_nothing_is_kept() {
    let provider = Provider::answering(&[(422, "{\"error\":\"Hook already exists\"}")]);
    let world = World::start(&provider.definition());
    let (status, words) = world.ask("POST", &format!("/api/integrations/{}/webhooks", world.connection()), &wish());
    assert!(status == 502 && field(&words, "detail").contains("Hook already exists"), "{status} {words}");
    assert_eq!(world.ask("GET", "/api/webhooks", &Value::Null).1, json!([]));
}

#[test]
fn a_subscription_of_unknown_end_is_kept_and_said() {
    let provider = Provider::answering(&[(500, "{\"error\":\"oops\"}")]);
    let world = World::start(&provider.definition());
    let (status, words) = world.ask("POST", &format!("/api/integrations/{}/webhooks", world.connection()), &wish());
    assert!(status == 502 && field(&words, "help").contains("look there"), "{status} {words}");
    let (_, list) = world.ask("GET", "/api/webhooks", &Value::Null);
    assert_eq!(list[0]["subscription"]["state"], "unknown", "{list}");
    let (_, overview) = world.ask("GET", "/", &Value::Null);
    let overview = overview.as_str().unwrap_or_default().replace("&#x2f;", "/");
    let said = format!("href=\"/webhooks/{}\">Webhook of hub / main: its service may", field(&list[0], "id"));
    assert!(overview.contains(&said) && !overview.contains("Nothing is broken"), "{overview}");
}

#[test]
fn a_service_that_cannot_be_told_of_an_end_is_asked_again_also_after_a_kill() {
    let provider = Provider::answering(&[]);
    let mut world = World::start(&provider.definition());
    let made = world.create(&wish());
    provider.answers(&[(503, "{}")]);
    world.change(&made, ("DELETE", ""), &Value::Null);
    let leaving = |world: &World| world.ask("GET", "/api/webhooks", &Value::Null).1[0]["subscription"].clone();
    assert!(within(PATIENCE, || leaving(&world)["attempts"] == 1), "{}", leaving(&world));
    world.kill_and_start();
    assert_eq!(leaving(&world)["state"], "leaving", "what is still to be told outlives a kill");
    provider.answers(&[]);
}

#[test]
fn a_removed_connection_takes_its_endpoints_along() {
    let provider = Provider::answering(&[]);
    let definition = provider.definition().replace("connections: [{ id: main, api_key: \"${env:SHOP_KEY}\" }]\n", "");
    let world = World::start(&definition);
    world.deployment.import("hub", &[("main".to_owned(), json!({ "api_key": "stored-key" }))]);
    let made = world.create(&wish());
    let (status, removed) =
        world.ask("DELETE", &format!("/api/integrations/connections/{}", world.connection()), &Value::Null);
    assert_eq!((status, &removed["webhooks"]), (202, &json!(1)), "{removed}");
    assert_eq!(provider.calls().last().map(|call| call.contains("/remove/sub_7 stored-key")), Some(true));
    assert_eq!(world.post(field(&made, "url"), "made-by-the-service", ("1", "thing.made")).status, 404);
    assert_eq!(world.ask("GET", "/api/webhooks", &Value::Null).1, json!([]));
}

#[test]
fn the_command_does_what_the_api_does() {
    let world = World::start(HUB);
    let run = |arguments: &[&str]| {
        let mut command = world.deployment.command("webhooks");
        let ended = command.args(arguments).env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ended.status.code(), text(ended.stdout), text(ended.stderr))
    };
    let json = |arguments: &[&str]| -> Value {
        let (code, out, words) = run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{words}");
        serde_json::from_str(&out).unwrap()
    };
    let made = json(&["create", "hub/main", "--event", "thing.*", "--json"]);
    let id = field(&made, "id");
    assert_eq!(json(&["disable", id, "--json"])["enabled"], false);
    assert_eq!(json(&["enable", id, "--json"])["enabled"], true);
    assert_ne!(json(&["rotate", id, "--overlap", "1h", "--json"])["secret"], made["secret"]);
    let (code, out, _) = run(&["test", id]);
    assert!(code == Some(0) && out.contains("answered 202"), "{out}");
    let (_, table, _) = run(&["list"]);
    assert!(table.contains(id) && table.contains("hub/main") && table.contains("100.0 %"), "{table}");
    assert_eq!(run(&["delete", id]).1, "deleted\n");
    assert_eq!(run(&["show", id]).0, Some(1));
}
