//! The catalogue's services, simulated: their own definitions work with what the mock answers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use trunkline::base::clock::{ManualClock, SystemClock, Timestamp};
use trunkline::base::random::SeededRandom;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::templates::Templates;
use trunkline::mock::trigger::Trigger;
use trunkline::mock::{Faults, Mock, Simulated};
use trunkline::template::{Context, Expr};

use crate::outside::http::{Client, Reply};

const CATALOGUE: [&str; 5] = ["github", "google", "salesforce", "slack", "stripe"];

fn simulated(id: &str) -> Simulated {
    let file = PathBuf::from(format!("{}/integrations/{id}.yaml", env!("CARGO_MANIFEST_DIR")));
    let text = std::fs::read_to_string(&file).unwrap();
    let mut resolved = tree::parse(&Arc::new(file.clone()), &text).document.unwrap().value;
    if let Some(webhook) = resolved.get_mut("webhook").and_then(Value::as_object_mut) {
        webhook.insert("secrets".to_owned(), json!(["a-secret-for-simulated-services"]));
    }
    let document = Document::unplaced(file, resolved.clone());
    let integration = compile::integration(&document, &Templates::new());
    Simulated { integration: Arc::new(integration.unwrap_or_else(|fault| panic!("{id}: {fault:?}"))), resolved }
}

/// A mock of these services with a standing clock, so that what a limit allows does not depend on speed.
fn mock(ids: &[&str]) -> Client {
    let services: Vec<_> = ids.iter().map(|id| simulated(id)).collect();
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_769_853_600)));
    let mock = Arc::new(Mock::new(&services, Faults::default(), clock, Arc::new(SeededRandom::new(1))));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            mock.serve(listener, std::future::pending()).await.unwrap();
        });
    });
    Client::new(address)
}

/// Where an answer says that the next page is.
type Next<'a> = &'a dyn Fn(&Reply) -> Option<String>;

const BEARER: (&str, &str) = ("authorization", "Bearer sk_test_0123456789");

fn get(client: &mut Client, target: &str) -> Reply {
    client.send("GET", target, &[BEARER], b"").unwrap()
}

#[test]
fn every_listed_event_has_a_sample_that_is_of_its_type() {
    for id in CATALOGUE {
        let integration = simulated(id).integration;
        let Some(webhook) = &integration.webhook else { continue };
        for event in &webhook.events {
            let url = "https://example.com/webhooks/x";
            let trigger = Trigger { integration: &integration, event_type: event, body: None, url, forged: false };
            let made = |seed| trigger.make(Timestamp::from_seconds(1), &SeededRandom::new(seed));
            let (one, other) = (made(1).unwrap_or_else(|error| panic!("{id} {event}: {error}")), made(2).unwrap());
            let body: Value = serde_json::from_slice(&one.body).unwrap();
            let headers = |webhook: &trunkline::mock::trigger::SignedWebhook| webhook.headers.clone();
            let pairs = headers(&one);
            let context = Context::new()
                .with_json("body", &body)
                .with_headers("headers", pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            assert_eq!(webhook.event.text(&context).unwrap().as_ref(), Some(event), "{id}");
            let is_handshake = event == "url_verification";
            assert!(
                is_handshake || (&one.body, headers(&one)) != (&other.body, headers(&other)),
                "{id} {event} repeats its id"
            );
        }
    }
}

#[test]
fn a_test_call_succeeds_in_the_definitions_own_words() {
    let mut client = mock(&CATALOGUE);
    for (id, method, path, ok) in [
        ("github", "GET", "/user", "body.id and body.login"),
        ("google", "GET", "/oauth2/v2/userinfo", "body.id and body.email"),
        ("salesforce", "GET", "/services/data/v62.0/limits", "status == 200"),
        ("slack", "POST", "/auth.test", "body.ok and body.user_id"),
        ("stripe", "GET", "/v1/balance", "body.available[0].amount"),
    ] {
        let reply = client.send(method, &format!("/{id}{path}"), &[BEARER], b"").unwrap();
        let context = Context::new().with("status", i64::from(reply.status)).with_json("body", &reply.json());
        assert_eq!(Expr::compile(ok).unwrap().holds(&context), Ok(true), "{id}: {reply:?}");
    }
}

#[test]
fn a_service_is_found_by_its_host_and_by_the_gateways_header() {
    let mut client = mock(&CATALOGUE);
    let named = [BEARER, ("trunkline-mock-integration", "stripe")];
    let reply = client.send("GET", "/v1/balance", &named, b"").unwrap();
    assert_eq!(reply.json()["object"], "balance");
    let nowhere = client.get("/v1/balance").unwrap();
    assert_eq!((nowhere.status, &nowhere.json()["mock"]), (404, &json!("trunkline")));
}

#[test]
fn a_missing_or_misshapen_credential_is_refused_in_the_services_manner() {
    let mut client = mock(&CATALOGUE);
    let slack = client.send("POST", "/slack/auth.test", &[], b"").unwrap();
    assert_eq!((slack.status, &slack.json()["ok"]), (401, &json!(false)));
    assert!(slack.json()["error"].is_string(), "{:?}", slack.json());
    let stripe = client.send("GET", "/stripe/v1/balance", &[("authorization", "Bearer nonsense")], b"").unwrap();
    assert_eq!(stripe.status, 401);
    assert!(!String::from_utf8_lossy(&stripe.body).contains("nonsense"));
}

#[test]
fn an_endpoints_result_is_in_the_answer() {
    let mut client = mock(&["slack"]);
    let body = br##"{"channel":"#engineering","text":"hello"}"##;
    let headers = [BEARER, ("content-type", "application/json")];
    let reply = client.send("POST", "/slack/chat.postMessage", &headers, body).unwrap().json();
    assert_eq!(
        (&reply["ok"], &reply["channel"], reply["ts"].is_string()),
        (&json!(true), &json!("#engineering"), true)
    );
}

#[test]
fn limits_are_kept_and_told() {
    let mut client = mock(&["slack", "github"]);
    let post = |client: &mut Client| client.send("POST", "/slack/chat.postMessage", &[BEARER], b"").unwrap();
    let statuses: Vec<_> = (0..4).map(|_| post(&mut client).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(post(&mut client).header("retry-after"), Some("1"));
    let told = get(&mut client, "/github/user");
    assert_eq!(told.header("x-ratelimit-remaining"), Some("4999"));
    assert_eq!(told.header("x-ratelimit-reset"), Some("1769857200"));
}

#[test]
fn every_kind_of_paging_is_walked_to_its_end() {
    let mut client = mock(&CATALOGUE);
    let link = |reply: &Reply| {
        let value = reply.header("link")?;
        let url = value.strip_prefix('<')?.split_once('>')?.0.to_owned();
        Some(format!("/{}", url.splitn(4, '/').nth(3)?))
    };
    let stripe = |reply: &Reply| {
        let body = reply.json();
        let last = body["data"].as_array()?.last()?["id"].as_str()?.to_owned();
        body["has_more"].as_bool()?.then(|| format!("/stripe/v1/customers?limit=100&starting_after={last}"))
    };
    let google = |reply: &Reply| {
        let token = reply.json()["nextPageToken"].as_str()?.to_owned();
        Some(format!("/google/calendar/v3/calendars/primary/events?pageToken={token}"))
    };
    let salesforce = |reply: &Reply| Some(format!("/salesforce{}", reply.json()["nextRecordsUrl"].as_str()?));
    let walks: [(&str, &str, &str, Next<'_>); 4] = [
        ("/github/issues?filter=all", "", "id", &link),
        ("/stripe/v1/customers?limit=100", "/data", "id", &stripe),
        ("/google/calendar/v3/calendars/primary/events", "/items", "id", &google),
        ("/salesforce/services/data/v62.0/queryAll?q=x", "/records", "Id", &salesforce),
    ];
    for (start, records, key, next) in walks {
        let (mut ids, mut pages, mut at) = (BTreeSet::new(), 0, Some(start.to_owned()));
        while let Some(target) = at.filter(|_| pages < 10) {
            let reply = get(&mut client, &target);
            let found = reply.json().pointer(records).and_then(Value::as_array).cloned().unwrap_or_default();
            ids.extend(found.iter().map(|record| record[key].to_string()));
            (pages, at) = (pages + 1, next(&reply));
        }
        assert_eq!((ids.len(), pages), (25, 3), "{start}");
    }
}

#[test]
fn other_calls_are_shown_what_arrived_and_no_credential() {
    let mut client = mock(&["stripe"]);
    let headers = [BEARER, ("x-mine", "yes"), ("content-type", "application/json")];
    let reply = client.send("PUT", "/stripe/v1/anything?a=1", &headers, br#"{"n":3}"#).unwrap();
    let shown = reply.json();
    assert_eq!((&shown["method"], &shown["query"]["a"], &shown["body"]["n"]), (&json!("PUT"), &json!("1"), &json!(3)));
    assert_eq!(shown["headers"]["x-mine"], "yes");
    assert!(!String::from_utf8_lossy(&reply.body).contains("sk_test"), "{shown}");
}

#[test]
fn faults_come_when_they_are_asked_for() {
    let mut client = mock(&["stripe"]);
    let failing = client.send("GET", "/stripe/v1/balance", &[BEARER, ("mock-status", "503")], b"").unwrap();
    assert_eq!(failing.status, 503);
    assert!(client.send("GET", "/stripe/v1/balance", &[BEARER, ("mock-reset", "true")], b"").is_err());
    let clock = SystemClock::new();
    client.send("GET", "/stripe/v1/balance", &[BEARER, ("mock-latency", "120ms")], b"").unwrap();
    assert!(trunkline::base::clock::Clock::monotonic(&clock).as_millis() >= 120);
}
