//! The gateway's own events, from what happens to who is told, over real processes and sockets.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use trunkline::base::clock::{Clock, SystemClock};
use trunkline::request::standard_webhooks;

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::rotating::Rotating;
use crate::outside::sender::Ledger;
use crate::outside::service::{self, Asked};
use crate::outside::within;

const PATIENCE: Duration = Duration::from_secs(30);
/// What the tests' destinations are signed for with.
const SIGNING: &str = "whsec_c2luay1zZWNyZXQtZm9yLXRlc3Rz";

/// An application that keeps what it was told.
struct App {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl App {
    fn answering(status: u16) -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(status)), Arc::new(Mutex::new(Vec::new())));
        let (answer, kept) = (Arc::clone(&status), Arc::clone(&asked));
        let address = service::start(move |asked: &Asked| {
            kept.lock().unwrap().push(asked.clone());
            (answer.load(Ordering::SeqCst), "{}".to_owned())
        });
        Self { address, status, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The bodies of a type that came so far.
    fn told(&self, kind: &str) -> Vec<Value> {
        let bodies = self.asked().into_iter().filter_map(|asked| serde_json::from_str::<Value>(&asked.body).ok());
        bodies.filter(|body| body["type"] == kind).collect()
    }

    fn await_told(&self, kind: &str, count: usize, deployment: &Deployment) -> Vec<Value> {
        let came = within(PATIENCE, || self.told(kind).len() >= count);
        assert!(came, "{kind}: {:?}\n{}", self.told(kind), deployment.log_tail());
        self.told(kind)
    }
}

/// Settings that tell the application of all there is.
fn telling(app: &App, more: &str) -> String {
    format!(
        "destinations:\n  app: {{ url: \"http://{}/in\", signing_secret: \"${{env:SINK_SECRET}}\" }}\n{more}\
         rules:\n  - id: tell\n    when: trunkline.*\n    do: [{{ deliver: app, retry: {{ attempts: 60, backoff: 100ms, \
         max_backoff: 300ms }} }}]\n",
        app.address
    )
}

/// A connection whose refresh token the service does not know.
fn lost() -> Value {
    let token = json!({ "access": "a.gone.1", "refresh": "r.gone.1", "expires_at": 2_000, "issued_at": 1_000 });
    json!({ "issued": { "default": token } })
}

fn own_events(deployment: &Deployment) -> Vec<Value> {
    let listed = deployment.ask("GET", "/api/events?integration=trunkline", &Value::Null).json();
    listed.as_array().cloned().unwrap_or_default()
}

fn counted(deployment: &Deployment, result: &str) -> u64 {
    let sample = format!("trunkline_notices_total{{result=\"{result}\"}} ");
    let metrics = deployment.ask("GET", "/metrics", &Value::Null);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok()).unwrap_or(0)
}

fn headers_of(asked: &Asked) -> HeaderMap {
    let pairs = asked.fields.iter();
    pairs.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn a_connection_that_the_service_gave_up_is_told_once() {
    let (service, app) = (Rotating::start(3), App::answering(204));
    let posted = App::answering(200);
    let notes = format!(
        "trunkline: 1\nid: notes\ntitle: Notes\nsummary: Takes notes.\nauth: {{ none: {{}} }}\n\
         api:\n  base_url: http://{}\n  endpoints: [{{ id: post, request: POST /notes, json: {{ text: \"{{{{ input.text \
         }}}}\" }} }}]\nconnections: [{{ id: default }}]\n",
        posted.address
    );
    let definitions = [("rotating", service.definition()), ("notes", notes)];
    let call = "  - id: note\n    when: trunkline.connection.*\n    if: body.integration == 'rotating'\n    do:\n      \
                - call: notes.post\n        input: { text: \"{{ body.what }} {{ body.step }}\" }\n      - log: \"{{ \
                body.why }}\"\n";
    let deployment = Deployment::with(&definitions, &format!("{}{call}", telling(&app, "")));
    let gateway = deployment.start();
    deployment.import("rotating", &[("gone".to_owned(), lost())]);
    let refused = within(PATIENCE, || {
        let reply = deployment.call("rotating", "gone", "/me").unwrap();
        reply.header("trunkline-error") == Some("connection_needs_reconnect")
    });
    assert!(refused, "{}", deployment.log_tail());
    let told = app.await_told("trunkline.connection.needs_reconnect", 1, &deployment).remove(0);
    assert_eq!(
        (&told["integration"], &told["connection"], &told["count"]),
        (&json!("rotating"), &json!("gone"), &json!(1))
    );
    assert_eq!(told["what"], "The connection `rotating/gone` has to be connected again.");
    assert_eq!(told["step"], "connect the account again");
    assert!(told["why"].as_str().unwrap().contains("400, invalid_grant"), "{told}");
    assert!(told["link"].is_null() && told["since"].is_string(), "{told}");
    let asked = app.asked().remove(0);
    let verified = standard_webhooks::verify(
        &[SIGNING.into()],
        &headers_of(&asked),
        asked.body.as_bytes(),
        SystemClock::new().now(),
        Duration::from_mins(5),
    );
    assert_eq!(verified, Ok(()));
    assert_eq!(asked.field("trunkline-event-type"), "trunkline.connection.needs_reconnect");
    assert_eq!(asked.field("trunkline-integration"), "trunkline");
    assert!(within(PATIENCE, || !posted.asked().is_empty()), "{}", deployment.log_tail());
    let expected =
        json!({ "text": "The connection `rotating/gone` has to be connected again. connect the account again" });
    assert_eq!(serde_json::from_str::<Value>(&posted.asked()[0].body).unwrap(), expected);

    // What was sent and is not on record yet would be sent again.
    let done = within(PATIENCE, || own_events(&deployment).iter().all(|event| event["state"] == "done"));
    assert!(done, "{:?}", own_events(&deployment));
    gateway.kill();
    let gateway = deployment.start();
    assert!(
        within(PATIENCE, || counted(&deployment, "known") == 1),
        "known after a restart\n{}",
        deployment.log_tail()
    );
    drop(deployment.call("rotating", "gone", "/me"));
    assert_eq!((own_events(&deployment).len(), app.told("trunkline.connection.needs_reconnect").len()), (1, 1));
    let shown = deployment.ask("GET", "/api/integrations", &Value::Null);
    assert!(!String::from_utf8_lossy(&shown.body).contains("\"trunkline\""), "in no list of integrations");
    drop(gateway);
}

#[test]
fn what_was_told_survives_a_kill_before_it_is_delivered() {
    let (service, app) = (Rotating::start(4), App::answering(503));
    let deployment = Deployment::with(&[("rotating", service.definition())], &telling(&app, ""));
    let gateway = deployment.start();
    deployment.import("rotating", &[("gone".to_owned(), lost())]);
    assert!(within(PATIENCE, || own_events(&deployment).len() == 1), "{}", deployment.log_tail());
    assert!(within(PATIENCE, || !app.asked().is_empty()), "{}", deployment.log_tail());
    gateway.kill();
    app.status.store(204, Ordering::SeqCst);
    let before = app.asked().len();
    let _gateway = deployment.start();
    let done = within(PATIENCE, || own_events(&deployment).iter().all(|event| event["state"] == "done"));
    assert!(done, "{:?}\n{}", own_events(&deployment), deployment.log_tail());
    let ids: std::collections::BTreeSet<_> =
        app.asked().iter().map(|asked| asked.field("webhook-id").to_owned()).collect();
    assert!(app.asked().len() > before && ids.len() == 1, "one id for all tries: {ids:?}");
}

#[test]
fn a_service_that_fails_and_one_that_is_well_again_are_told() {
    let app = App::answering(204);
    let shop = App::answering(500);
    let definition = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api: {{ base_url: \"http://{}\", retry: {{ attempts: 1 }}, breaker: {{ consecutive: 2, open: 1s }} }}\n\
         connections: [{{ id: main }}]\n",
        shop.address
    );
    let url = "admin: { token: \"${env:ADMIN_TOKEN}\", url: \"http://localhost:1/ops\" }\n";
    let deployment = Deployment::with(&[("shop", definition)], &telling(&app, url));
    let _gateway = deployment.start();
    let call = || deployment.call("shop", "main", "/x").unwrap().status;
    assert!(within(PATIENCE, || call() == 503), "{}", deployment.log_tail());
    let open = app.await_told("trunkline.breaker.open", 1, &deployment).remove(0);
    assert_eq!(
        (&open["integration"], &open["about"]["place"]),
        (&json!("shop"), &json!(format!("http://{}", shop.address)))
    );
    assert_eq!(open["link"], "http://localhost:1/ops/integrations/shop");
    // A probe that fails opens it again, which is no change of state.
    let calls = shop.asked().len();
    assert!(within(PATIENCE, || call() == 500 && shop.asked().len() > calls), "{}", deployment.log_tail());
    shop.status.store(200, Ordering::SeqCst);
    assert!(within(PATIENCE, || call() == 200), "{}", deployment.log_tail());
    let closed = within(PATIENCE, || call() == 200 && app.told("trunkline.breaker.closed").len() == 1);
    assert!(closed, "{}", deployment.log_tail());
    assert_eq!(app.told("trunkline.breaker.open").len(), 1);
}

/// The example of the manual, whose destination is the application.
fn example(app: &App, more: &str) -> String {
    let manual = fs::read_to_string("docs/NOTIFICATIONS.md").unwrap();
    let example = manual.split("```").find_map(|block| block.strip_prefix("yaml\n")).unwrap();
    let own = example.replace("https://app.example.com/trunkline", &format!("http://{}/in", app.address));
    let own = own.replace("${env:APP_WEBHOOK_SECRET}", "${env:SINK_SECRET}");
    assert!(own.contains("call: slack.post_message") && !own.contains("example.com") && !own.contains("APP_"), "{own}");
    format!("{more}{own}")
}

/// A service whose circuit opens, and one that posts messages as `slack`.
fn shop_and_slack(shop: &App, slack: &App) -> [(&'static str, String); 2] {
    let shop = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api: {{ base_url: \"http://{}\", retry: {{ attempts: 1 }}, breaker: {{ consecutive: 2, open: 1s }} }}\n\
         connections: [{{ id: main }}]\n",
        shop.address
    );
    let slack = format!(
        "trunkline: 1\nid: slack\ntitle: Slack\nsummary: Posts.\nauth: {{ none: {{}} }}\n\
         api:\n  base_url: http://{}\n  endpoints: [{{ id: post_message, request: POST /post, json: {{ channel: \"{{{{ \
         input.channel }}}}\", text: \"{{{{ input.text }}}}\" }} }}]\nconnections: [{{ id: team }}]\n",
        slack.address
    );
    [("shop", shop), ("slack", slack)]
}

#[test]
fn the_manuals_example_tells_the_team_with_and_without_an_address_of_the_page() {
    for url in ["", "admin: { token: \"${env:ADMIN_TOKEN}\", url: \"http://localhost:1/ops\" }\n"] {
        let (app, shop, slack) = (App::answering(204), App::answering(500), App::answering(200));
        let deployment = Deployment::with(&shop_and_slack(&shop, &slack), &example(&app, url));
        let _gateway = deployment.start();
        let call = || deployment.call("shop", "main", "/x").unwrap().status;
        assert!(within(PATIENCE, || call() == 503), "{}", deployment.log_tail());
        shop.status.store(200, Ordering::SeqCst);
        let closed = within(PATIENCE, || call() == 200 && !app.told("trunkline.breaker.closed").is_empty());
        assert!(closed, "{}", deployment.log_tail());
        // One of them says why, the other knows nothing of it.
        for kind in ["trunkline.breaker.open", "trunkline.breaker.closed"] {
            let told = app.await_told(kind, 1, &deployment).remove(0);
            assert_eq!((told["why"].is_string(), told["link"].is_string()), (kind.ends_with("open"), !url.is_empty()));
            let what = told["what"].as_str().unwrap();
            let posted = within(PATIENCE, || slack.asked().iter().any(|asked| asked.body.contains(what)));
            assert!(posted, "{kind}: {:?}\n{}", own_events(&deployment), deployment.log_tail());
        }
        let ended = within(PATIENCE, || own_events(&deployment).iter().all(|event| event["state"] == "done"));
        assert!(ended, "{:?}\n{}", own_events(&deployment), deployment.log_tail());
    }
}

#[test]
fn a_file_that_does_not_count_is_told_and_again_when_it_does() {
    let app = App::answering(204);
    let good = "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: { none: {} }\napi: { base_url: \"https://shop.example\" }\n";
    let deployment = Deployment::with(&[("shop", good.to_owned())], &telling(&app, ""));
    let _gateway = deployment.start();
    let file = deployment.path().join("integrations/shop.yaml");
    let reload = || deployment.ask("POST", "/api/reload", &Value::Null);
    fs::write(&file, good.replace("title", "titel")).unwrap();
    reload();
    let told = app.await_told("trunkline.config.rejected", 1, &deployment).remove(0);
    assert_eq!((&told["integration"], &told["about"]["file"]), (&json!("shop"), &json!(file.display().to_string())));
    assert!(told["why"].as_str().unwrap().contains("`titel` is not a field"), "{told}");
    fs::write(&file, good.replace("title", "titles")).unwrap();
    reload();
    fs::write(&file, good).unwrap();
    reload();
    app.await_told("trunkline.config.recovered", 1, &deployment);
    assert_eq!(app.told("trunkline.config.rejected").len(), 1, "still broken is no change of state");
}

/// A deployment whose events end in the dead-letter list, as do own events that go to `gone`.
fn dying(app: &App, gone: &App, settings: &str) -> Deployment {
    let load = "trunkline: 1\nid: load\ntitle: Load\nsummary: Events.\nauth: { none: {} }\n\
                webhook:\n  verify:\n    hmac: { algorithm: sha256, signature: { header: X-Signature, prefix: \"sha256=\", \
                encoding: hex }, signed: \"{{ body }}\" }\n  secrets: [\"${env:LOAD_SECRET}\"]\n  event: body.type\n  \
                delivery_id: body.id\n  silent_after: 1s\nrules: [{ id: all, when: '*', do: [{ deliver: gone }] }]\n";
    let more = format!(
        "destinations:\n  app: {{ url: \"http://{}/in\", signing_secret: \"${{env:SINK_SECRET}}\" }}\n  gone: {{ url: \
         \"http://{}/in\", signing_secret: \"${{env:SINK_SECRET}}\" }}\nnotifications: {settings}\n\
         rules: [{{ id: tell, when: trunkline.*, do: [{{ deliver: gone }}, {{ deliver: app }}] }}]\n",
        app.address, gone.address
    );
    Deployment::with(&[("load", load.to_owned())], &more)
}

#[test]
fn dead_letters_are_told_together_and_make_no_more_of_themselves() {
    let (app, gone) = (App::answering(204), App::answering(410));
    let deployment = dying(&app, &gone, "{ group: 3s }");
    let _gateway = deployment.start();
    let (ledger, mut client) = (Ledger::default(), Client::new(deployment.public));
    for _ in 0..6 {
        assert_eq!(ledger.send_one(&mut client, 100).unwrap().status, 202);
    }
    let told =
        |app: &App| app.told("trunkline.event.dead").iter().filter_map(|body| body["count"].as_u64()).sum::<u64>();
    assert!(within(PATIENCE, || told(&app) == 6), "{:?}\n{}", app.told("trunkline.event.dead"), deployment.log_tail());
    let bodies = app.told("trunkline.event.dead");
    assert!(bodies[0]["count"] == 1 && bodies.len() < 6, "the first at once, the others together: {bodies:?}");
    assert!(bodies[0]["why"].as_str().unwrap().contains("410"), "{bodies:?}");
    assert!(bodies.iter().all(|body| body["integration"] == "load"), "none is about an own event: {bodies:?}");
    let dead = within(PATIENCE, || counted(&deployment, "undelivered") >= bodies.len() as u64);
    assert!(dead, "what could not be told is counted\n{}", deployment.log_tail());
}

#[test]
fn silence_is_told_once_after_something_was_heard() {
    let (app, gone) = (App::answering(204), App::answering(204));
    let deployment = dying(&app, &gone, "{ group: 0s }");
    let _gateway = deployment.start();
    let (ledger, mut client) = (Ledger::default(), Client::new(deployment.public));
    assert_eq!(ledger.send_one(&mut client, 100).unwrap().status, 202);
    let told = app.await_told("trunkline.webhook.silent", 1, &deployment).remove(0);
    assert_eq!((&told["integration"], &told["why"]), (&json!("load"), &json!("one was expected within 1 s")));
    assert_eq!(ledger.send_one(&mut client, 100).unwrap().status, 202);
    app.await_told("trunkline.webhook.silent", 2, &deployment);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(app.told("trunkline.webhook.silent").len(), 2, "no third: nothing was heard since");
    let event = own_events(&deployment).remove(0);
    let shown = deployment.ask("GET", &format!("/events/{}", event["id"].as_str().unwrap()), &Value::Null);
    let shown = String::from_utf8_lossy(&shown.body).replace("&#x2f;", "/");
    assert!(shown.contains("<dt>About</dt><dd><a href=\"/integrations/load\">No webhook of `load` came"), "{shown}");
}

#[test]
fn a_silence_after_a_duplicate_is_not_told_again_by_the_next_start() {
    let (app, gone) = (App::answering(204), App::answering(204));
    let deployment = dying(&app, &gone, "{ group: 0s }");
    let gateway = deployment.start();
    let mut client = Client::new(deployment.public);
    assert_eq!(Ledger::default().send_one(&mut client, 100).unwrap().status, 202);
    std::thread::sleep(Duration::from_millis(300));
    // Another ledger begins with the same delivery id.
    assert_eq!(Ledger::default().send_one(&mut client, 100).unwrap().status, 200);
    let told = app.await_told("trunkline.webhook.silent", 1, &deployment);
    gateway.stop();
    let _again = deployment.start();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(app.told("trunkline.webhook.silent"), told, "{}", deployment.log_tail());
}

#[test]
fn without_rules_nothing_is_stored() {
    let deployment = Deployment::of(&[("shop", "trunkline: 1\nid: shop\ntitel: x\n".to_owned())]);
    let _gateway = deployment.start();
    let shown = deployment.ask("GET", "/api/config", &Value::Null);
    assert!(String::from_utf8_lossy(&shown.body).contains("rejected"), "the file is broken");
    assert_eq!(own_events(&deployment), Vec::<Value>::new());
    let metrics = deployment.ask("GET", "/metrics", &Value::Null);
    let text = String::from_utf8_lossy(&metrics.body);
    let mut counted = text.lines().filter(|line| line.starts_with("trunkline_notices_total{"));
    assert!(counted.all(|line| line.ends_with(" 0")), "{text}");
}
