//! The catalogue's services, simulated: their own definitions work with what the mock answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use trunkline::base::clock::{ManualClock, SystemClock, Timestamp};
use trunkline::base::random::SeededRandom;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::plan::webhook::{Verify, Webhook};
use trunkline::definition::plan::{Auth, Integration};
use trunkline::definition::templates::Templates;
use trunkline::mock::trigger::Trigger;
use trunkline::mock::{Controls, Mock, Simulated};
use trunkline::template::{Context, Expr};

use crate::outside::http::{Client, Reply};

const CATALOGUE: [&str; 5] = ["github", "google", "salesforce", "slack", "stripe"];

/// A secret that is a text, hexadecimal and base 64 alike, as the schemes want.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn simulated(id: &str) -> Simulated {
    let file = PathBuf::from(format!("{}/integrations/{id}.yaml", env!("CARGO_MANIFEST_DIR")));
    let text = std::fs::read_to_string(&file).unwrap();
    let mut resolved = tree::parse(&Arc::new(file.clone()), &text).document.unwrap().value;
    if let Some(webhook) = resolved.get_mut("webhook").and_then(Value::as_object_mut) {
        webhook.insert("secrets".to_owned(), json!([SECRET]));
    }
    let document = Document::unplaced(file, resolved.clone());
    let integration = compile::integration(&document, &Templates::new());
    Simulated { integration: Arc::new(integration.unwrap_or_else(|fault| panic!("{id}: {fault:?}"))), resolved }
}

/// A mock of these services with a standing clock, so that what a limit allows does not depend on speed.
fn mock(ids: &[&str]) -> Client {
    let services: Vec<_> = ids.iter().map(|id| simulated(id)).collect();
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_769_853_600)));
    let mock = Arc::new(Mock::new(&services, Controls::default(), clock, Arc::new(SeededRandom::new(1))));
    Client::new(serve(mock))
}

/// Serves a mock on a thread of its own, to the end of the process.
pub fn serve(mock: Arc<Mock>) -> SocketAddr {
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
    address
}

/// Where an answer says that the next page is.
type Next<'a> = &'a dyn Fn(&Reply) -> Option<String>;

const BEARER: (&str, &str) = ("authorization", "Bearer sk_test_0123456789");

/// What a service wants: an access token that it issued, or a key.
fn key(client: &mut Client, id: &str) -> String {
    let issued = client.send("POST", &format!("/-/oauth/{id}"), &[], br#"{"issue":true}"#).unwrap().json();
    issued["access_token"].as_str().unwrap_or("sk_test_0123456789").to_owned()
}

/// A call with what its service wants.
fn call(client: &mut Client, (method, target): (&str, &str), body: &[u8]) -> Reply {
    let credential = format!("Bearer {}", key(client, target.split('/').nth(1).unwrap()));
    let headers = [("authorization", credential.as_str()), ("content-type", "application/json")];
    client.send(method, target, &headers, body).unwrap()
}

fn get(client: &mut Client, target: &str) -> Reply {
    call(client, ("GET", target), b"")
}

/// What is wrong with the samples of one event of a service.
fn faults_of_samples(integration: &Integration, webhook: &Webhook, event: &str) -> Option<String> {
    let url = "https://example.com/webhooks/x";
    let secrets = &integration.webhook.as_ref().unwrap().secrets;
    let trigger = Trigger { integration, secrets, event_type: event, body: None, url, forged: false };
    let make = |seed| trigger.make(Timestamp::from_seconds(1), &SeededRandom::new(seed));
    let (one, other) = match (make(1), make(2)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(error), _) | (_, Err(error)) => return Some(error.to_string()),
    };
    let body: Value = serde_json::from_slice(&one.body).unwrap();
    let pairs = one.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let context = Context::new().with_json("body", &body).with_headers("headers", pairs);
    let told = webhook.event.text(&context);
    if told.as_ref().ok().and_then(Option::as_deref) != Some(event) {
        return Some(format!("its type is {told:?}"));
    }
    let is_handshake = ["url_verification", "endpoint.url_validation"].contains(&event);
    let repeats = (&one.body, &one.headers) == (&other.body, &other.headers);
    (repeats && webhook.delivery_id.is_some() && !is_handshake).then(|| "it repeats its id".to_owned())
}

#[test]
fn every_listed_event_has_a_sample_that_is_of_its_type() {
    let mut faults = Vec::new();
    for id in trunkline::definition::catalogue::ids() {
        let integration = simulated(id).integration;
        let Some(webhook) = &integration.webhook else { continue };
        if matches!(webhook.verify, Verify::NotYet(_)) {
            continue;
        }
        let told = webhook.events.iter().filter_map(|event| {
            faults_of_samples(&integration, webhook, event).map(|fault| format!("{id} {event}: {fault}"))
        });
        faults.extend(told);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
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
        let reply = call(&mut client, (method, &format!("/{id}{path}")), b"");
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
fn a_service_on_the_same_machine_takes_over_no_other() {
    let resolved = json!({
        "trunkline": 1, "id": "near", "title": "Near", "auth": { "api_key": {} },
        "api": {
            "base_url": "http://127.0.0.1:15500", "credential": { "header": "x-key", "value": "{{ api_key }}" },
            "endpoints": [{ "id": "x", "request": "GET /x" }],
        },
    });
    let document = Document::unplaced("near.yaml".into(), resolved.clone());
    let integration = Arc::new(compile::integration(&document, &Templates::new()).unwrap());
    let services = [Simulated { integration, resolved }, simulated("stripe")];
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_769_853_600)));
    let mock = Arc::new(Mock::new(&services, Controls::default(), clock, Arc::new(SeededRandom::new(1))));
    let address = serve(mock);
    let asked = |host: &str, target: &str| {
        let mut client = Client::for_host(address, host);
        client.send("GET", target, &[BEARER], b"").unwrap()
    };
    for host in [address.to_string(), format!("localhost:{}", address.port()), format!("[::1]:{}", address.port())] {
        assert_eq!(asked(&host, "/stripe/v1/balance").json()["object"], "balance", "{host}");
        assert_eq!(asked(&host, "/x").json()["mock"], "trunkline", "{host}");
    }
    let near = asked("127.0.0.1:15500", "/x");
    assert!(near.status == 401 && String::from_utf8_lossy(&near.body).contains("x-key"), "{near:?}");
    assert_eq!(asked("api.stripe.com", "/v1/balance").json()["object"], "balance");
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
    let reply = call(&mut client, ("POST", "/slack/chat.postMessage"), body).json();
    assert_eq!(
        (&reply["ok"], &reply["channel"], reply["ts"].is_string()),
        (&json!(true), &json!("#engineering"), true)
    );
}

#[test]
fn limits_are_kept_and_told() {
    let mut client = mock(&["slack", "github"]);
    let bearer = format!("Bearer {}", key(&mut client, "slack"));
    let headers = [("authorization", bearer.as_str())];
    let post = |client: &mut Client| client.send("POST", "/slack/chat.postMessage", &headers, b"").unwrap();
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
fn endpoints_come_in_the_pages_they_declare() {
    let mut client = mock(&["gitlab", "calendly"]);
    let linked = get(&mut client, "/gitlab/api/v4/projects?membership=true");
    assert_eq!(linked.json().as_array().map(Vec::len), Some(10), "{linked:?}");
    assert!(linked.header("link").is_some_and(|link| link.contains("rel=\"next\"")));
    let pointed = get(&mut client, "/calendly/event_types").json();
    assert_eq!(pointed["items"].as_array().map(Vec::len), Some(10), "{pointed}");
    assert!(pointed.pointer("/pagination/next_page").is_some_and(Value::is_string));
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

/// What a call to this service must carry to be let in: headers, and a query's parameter.
fn credential(resolved: &Value, key: &str) -> (Vec<(String, String)>, String) {
    let placement = &resolved["api"]["credential"];
    let text = placement["value"].as_str().unwrap_or("Bearer {{ token.access }}");
    let value = text.split("{{").next().unwrap_or_default().to_owned() + key;
    match (placement["header"].as_str(), placement["query"].as_str()) {
        (Some(name), _) => (vec![(name.to_owned(), value)], String::new()),
        (_, Some(name)) => (Vec::new(), format!("{name}={value}")),
        _ if resolved["auth"].get("basic").is_some() => {
            (vec![("authorization".to_owned(), "Basic YTpi".to_owned())], String::new())
        }
        _ => (vec![("authorization".to_owned(), value)], String::new()),
    }
}

/// Sends a declared request to its service, slots filled in with something, and tells what its expression
/// says of the answer.
fn asked(client: &mut Client, simulated: &Simulated, declared: &Value, expression: &str) -> Result<(), String> {
    let id = &simulated.integration.id;
    let line = declared.as_str().or_else(|| declared["request"].as_str()).unwrap();
    let (method, target) = line.split_once(' ').unwrap();
    let below = |rest: &str| format!("/{}", rest.split_once('/').map_or("", |(_, path)| path));
    let target = target.split_once("://").map_or_else(|| target.to_owned(), |(_, rest)| below(rest));
    let filled: String = target
        .split("}}")
        .map(|part| part.split_once("{{").map_or(part.to_owned(), |(p, _)| format!("{p}x")))
        .collect();
    let (headers, parameter) = credential(&simulated.resolved, &key(client, id));
    let joined = if filled.contains('?') { '&' } else { '?' };
    let target = if parameter.is_empty() { filled } else { format!("{filled}{joined}{parameter}") };
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = client.send(method, &format!("/{id}{target}"), &headers, b"").map_err(|error| error.to_string())?;
    let pairs = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let context = Context::new().with("status", i64::from(reply.status)).with_json("body", &reply.json());
    let holds = Expr::compile(expression).unwrap().holds(&context.with_headers("headers", pairs));
    if reply.status < 400 && holds == Ok(true) {
        Ok(())
    } else {
        Err(format!("{id} {line}: `{expression}` over {reply:?}"))
    }
}

#[test]
fn every_entry_is_tested_and_identified_in_its_own_words() {
    let mut faults = Vec::new();
    for id in trunkline::definition::catalogue::ids() {
        let simulated = simulated(id);
        // What signs each call or has a session is run from its connect page on: see `catalogue::others`.
        if matches!(simulated.integration.auth, Auth::OAuth1(_) | Auth::SigV4(_) | Auth::Login(_)) {
            continue;
        }
        let api = &simulated.resolved["api"];
        let ok = |declared: &Value| declared["ok"].as_str().or(api["ok"].as_str()).unwrap_or("status < 300").to_owned();
        // Each asks a service of its own, because some let one call through in a second.
        faults.extend(asked(&mut mock(&[id]), &simulated, &api["test"], &ok(&api["test"])).err());
        let Some(identity) = simulated.resolved.pointer("/auth/oauth2/identity") else { continue };
        let account = identity["id"].as_str().unwrap();
        if !account.starts_with("saved.") {
            let known = format!("({}) and ({account}) is not none", ok(identity));
            faults.extend(asked(&mut mock(&[id]), &simulated, identity, &known).err());
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
