//! Traces, from a caller's `traceparent` over tries and deliveries to a collector that reads them with the protocol's
//! own messages.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::base::clock::{Clock, SystemClock};
use trunkline::base::random::SeededRandom;
use trunkline::definition::plan::trace::Trace;
use trunkline::net::resolve::{Found, Lookup, Resolver, Unresolved};
use trunkline::net::{Clients, Dialer, Trust};
use trunkline::otlp::Exporter;
use trunkline::telemetry::metrics::Metrics;
use trunkline::telemetry::trace::Kind;

use crate::outside::gateway::Deployment;
use crate::outside::http::{Client, Reply};
use crate::outside::rotating::Rotating;
use crate::outside::sender::Ledger;
use crate::outside::service::{self, Asked};
use crate::outside::within;
use crate::support::peer::Peer;

const PATIENCE: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
/// What the gateway knows as its caller's key.
const KEY: &str = "Bearer caller-key-0123456789abcdef01234";
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// A service that keeps what it was asked, and answers by how often that was.
fn service(answer: impl Fn(usize) -> u16 + Send + Sync + 'static) -> (std::net::SocketAddr, Arc<Mutex<Vec<Asked>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&kept);
    let address = service::start(move |asked: &Asked| {
        let mut all = all.lock().unwrap();
        all.push(asked.clone());
        (answer(all.len()), "{}".to_owned())
    });
    (address, kept)
}

/// A deployment of `shop`, whose API and destination are at an address, with a collector.
fn deployment(address: std::net::SocketAddr, collector: Option<&Peer>, sample: &str) -> Deployment {
    let shop = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api:\n  base_url: http://{address}\n  retry: {{ attempts: 3, backoff: 10ms }}\n  endpoints: [{{ id: look, request: \
         GET /look }}]\nconnections: [{{ id: default }}]\n"
    );
    let load = "trunkline: 1\nid: load\ntitle: Load\nsummary: Events.\nauth: { none: {} }\n\
                webhook:\n  verify:\n    hmac: { algorithm: sha256, signature: { header: X-Signature, prefix: \"sha256=\", \
                encoding: hex }, signed: \"{{ body }}\" }\n  secrets: [\"${env:LOAD_SECRET}\"]\n  event: body.type\n\
                rules: [{ id: all, when: '*', do: [{ deliver: app }, { call: shop.look }] }]\n";
    let trace = collector.map_or_else(String::new, |peer| {
        format!(
            "trace: {{ otlp: {{ endpoint: \"{}\", headers: {{ X-Key: \"${{env:SHOP_KEY}}\" }}, timeout: 2s }}, sample: {sample} }}\n",
            peer.url()
        )
    });
    let more = format!(
        "destinations: {{ app: {{ url: \"http://{address}/in\", signing_secret: \"${{env:SINK_SECRET}}\" }} }}\n{trace}"
    );
    Deployment::with(&[("shop", shop), ("load", load.to_owned())], &more)
}

fn ask(deployment: &Deployment, target: &str, more: &[(&str, &str)]) -> Reply {
    let headers = [&[("authorization", KEY)], more].concat();
    Client::new(deployment.proxy).send("GET", target, &headers, b"").unwrap()
}

fn spans(collector: &Peer) -> Vec<Value> {
    assert_eq!(collector.get("/-/refused").json(), json!([]), "every message is well-formed");
    collector.get("/-/spans").json().as_array().unwrap().clone()
}

/// The spans, once there is one of each of these names.
fn until(collector: &Peer, names: &[&str], deployment: &Deployment) -> Vec<Value> {
    let all = || spans(collector).iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let came = within(PATIENCE, || names.iter().all(|name| all().iter().any(|span| span == name)));
    assert!(came, "{names:?}: {:?}\n{}", all(), deployment.log_tail());
    spans(collector)
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

#[test]
fn a_call_and_its_tries_are_spans_below_the_callers() {
    let (address, asked) = service(|count| if count < 2 { 503 } else { 200 });
    let collector = Peer::collector(&json!({ "failures": 1 }));
    let deployment = deployment(address, Some(&collector), "0");
    let _gateway = deployment.start();
    let headers = [("traceparent", &*parent("01")), ("tracestate", "a=1")];
    assert_eq!(ask(&deployment, "/shop/things?secret=canary", &headers).status, 200);
    let all = until(&collector, &["GET /shop", "GET"], &deployment);
    let (whole, tries) = (named(&all, "GET /shop")[0], named(&all, "GET"));
    assert_eq!((&whole["trace"], &whole["parent"], &whole["kind"]), (&json!(TRACE), &json!(SPAN), &json!(SERVER)));
    assert_eq!((&whole["service"], &whole["state"]), (&json!("trunkline"), &json!("a=1")));
    let told = &whole["attributes"];
    assert_eq!((&told["http.response.status_code"], &told["trunkline.attempts"]), (&json!(200), &json!(2)));
    assert_eq!((&told["trunkline.caller"], &told["url.path"]), (&json!("app"), &json!("/things")));
    assert_eq!(tries.len(), 2);
    assert!(tries.iter().all(|span| span["parent"] == whole["span"] && span["kind"] == CLIENT), "{tries:?}");
    assert_eq!((&tries[0]["error"], &tries[1]["error"]), (&json!("503"), &Value::Null));
    assert_eq!(tries[1]["attributes"]["http.request.resend_count"], 1);
    let sent: Vec<_> = asked.lock().unwrap().iter().map(|asked| asked.field("traceparent").to_owned()).collect();
    let own = |span: &Value| format!("00-{TRACE}-{}-01", span["span"].as_str().unwrap());
    assert_eq!(sent, [own(tries[0]), own(tries[1])], "each try tells the service its own span");
    assert_eq!(asked.lock().unwrap()[0].field("tracestate"), "a=1");
    assert!(!collector.get("/-/spans").json().to_string().contains("canary"), "no query is in a span");
    assert_eq!(collector.get("/-/headers").json()[0]["x-key"], "shop-key");

    let found = deployment.ask("GET", &format!("/api/activity?trace={TRACE}"), &Value::Null).json();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["trace"]), (1, &json!(TRACE)));
    let other = deployment.ask("GET", "/api/activity?trace=00000000000000000000000000000001", &Value::Null).json();
    assert_eq!(other, json!([]));
}

#[test]
fn a_webhook_and_what_is_done_because_of_it_are_one_trace_that_no_stranger_chooses() {
    let (address, asked) = service(|_| 200);
    let collector = Peer::collector(&json!({}));
    let deployment = deployment(address, Some(&collector), "1");
    let _gateway = deployment.start();
    let (ledger, mut client) = (Ledger::default(), Client::new(deployment.public));
    assert_eq!(ledger.send_one(&mut client, 50).unwrap().status, 202);
    let all = until(&collector, &["webhook load", "delivery deliver", "delivery call", "call shop.look"], &deployment);
    let webhook = named(&all, "webhook load")[0];
    assert_eq!((&webhook["kind"], &webhook["parent"]), (&json!(SERVER), &json!("")));
    for name in ["delivery deliver", "delivery call"] {
        let delivery = named(&all, name)[0];
        assert_eq!((&delivery["trace"], &delivery["parent"]), (&webhook["trace"], &webhook["span"]), "{name}");
    }
    let call = named(&all, "call shop.look")[0];
    assert_eq!(call["parent"], named(&all, "delivery call")[0]["span"]);
    let both = within(PATIENCE, || asked.lock().unwrap().len() == 2 && named(&spans(&collector), "POST").len() == 1);
    assert!(both, "{:?}", spans(&collector));
    for asked in asked.lock().unwrap().iter() {
        let sent = asked.field("traceparent").to_owned();
        let span = spans(&collector).into_iter().find(|span| sent.contains(span["span"].as_str().unwrap())).unwrap();
        assert_eq!((&span["kind"], &span["trace"]), (&json!(CLIENT), &webhook["trace"]));
    }
}

#[test]
fn a_renewed_token_and_a_durable_call_are_in_traces() {
    let service = Rotating::start(5);
    let collector = Peer::collector(&json!({}));
    let trace = format!("trace: {{ otlp: {{ endpoint: \"{}/\" }}, sample: 1 }}\n", collector.url());
    let deployment = Deployment::with(&[("rotating", service.definition())], &trace);
    let _gateway = deployment.start();
    deployment.import("rotating", &[("a".to_owned(), service.consent("a"))]);
    let headers = [
        ("authorization", KEY),
        ("trunkline-connection", "a"),
        ("trunkline-async", "true"),
        ("traceparent", &*parent("01")),
    ];
    let reply = Client::new(deployment.proxy).send("GET", "/rotating/me", &headers, b"").unwrap();
    assert_eq!(reply.status, 202);
    let all = until(&collector, &["renew a token", "delivery durable_call", "GET /rotating"], &deployment);
    let whole = named(&all, "GET /rotating")[0];
    let delivery = named(&all, "delivery durable_call")[0];
    assert_eq!((&delivery["trace"], &delivery["parent"]), (&json!(TRACE), &whole["span"]));
    let renewed = named(&all, "renew a token")[0];
    assert!(renewed["error"].is_null() && renewed["attributes"]["trunkline.integration"] == "rotating", "{renewed}");
    assert!(all.iter().any(|span| span["parent"] == renewed["span"] && span["name"] == "POST"), "the token call");
}

#[test]
fn without_a_collector_contexts_pass_and_malformed_ones_do_not() {
    let (address, asked) = service(|_| 200);
    let deployment = deployment(address, None, "");
    let _gateway = deployment.start();
    let good = parent("01");
    assert_eq!(ask(&deployment, "/shop/a", &[("traceparent", &good), ("tracestate", "a=1")]).status, 200);
    let bad = good.to_uppercase();
    assert_eq!(ask(&deployment, "/shop/b", &[("traceparent", &bad), ("tracestate", "a=1")]).status, 200);
    assert_eq!(ask(&deployment, "/shop/c", &[]).status, 200);
    let sent: Vec<_> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|asked| (asked.field("traceparent").to_owned(), asked.field("tracestate").to_owned()))
        .collect();
    let none = (String::new(), String::new());
    assert_eq!(sent, [(good, "a=1".to_owned()), none.clone(), none]);
}

#[test]
fn what_is_not_recorded_is_told_on_and_a_collector_that_is_away_holds_nothing_up() {
    let (address, asked) = service(|_| 200);
    let collector = Peer::collector(&json!({ "failures": 1_000 }));
    let deployment = deployment(address, Some(&collector), "0");
    let _gateway = deployment.start();
    assert_eq!(ask(&deployment, "/shop/a", &[("traceparent", &parent("00"))]).status, 200);
    let told = asked.lock().unwrap()[0].field("traceparent").to_owned();
    assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with("-00") && !told.contains(SPAN), "{told}");
    assert_eq!(ask(&deployment, "/shop/b", &[("traceparent", "nonsense")]).status, 200);
    let fresh = asked.lock().unwrap()[1].field("traceparent").to_owned();
    assert!(fresh.ends_with("-00") && fresh.len() == 55 && !fresh.contains(TRACE), "{fresh}");
    assert_eq!(ask(&deployment, "/shop/c", &[("traceparent", &parent("01"))]).status, 200);
    let failed = || {
        let metrics = deployment.ask("GET", "/metrics", &Value::Null);
        String::from_utf8_lossy(&metrics.body).contains("trunkline_spans_total{result=\"failed\"} 2")
    };
    assert!(within(PATIENCE, failed), "{}", deployment.log_tail());
    assert!(deployment.log_tail().contains("spans are lost"), "{}", deployment.log_tail());
    assert_eq!(collector.get("/-/spans").json(), json!([]));
}

#[derive(Debug)]
struct NoNames;

#[async_trait]
impl Lookup for NoNames {
    async fn lookup(&self, _name: &str) -> Result<Found, Unresolved> {
        Err(Unresolved::NoAddress)
    }
}

/// Ends so many spans.
fn end_spans(metrics: &Metrics, count: usize) {
    let traces = &metrics.traces;
    (0..count).for_each(|_| traces.end(traces.begin(None, Kind::Internal, || "work".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_without_room_are_counted_while_batches_are_sent() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Arc::new(Metrics::new().unwrap());
    metrics.traces.record(1_000_000, Arc::new(SeededRandom::new(1)), Arc::clone(&clock));
    end_spans(&metrics, 1);
    // With each message, what is counted by then; during the first one more spans end than there is room for.
    let counts = Arc::new(Mutex::new(Vec::new()));
    let (kept, counted) = (Arc::clone(&counts), Arc::clone(&metrics));
    let collector = service::start(move |_: &Asked| {
        let mut counts = kept.lock().unwrap();
        counts.push(counted.spans.with_label_values(&["dropped"]).get());
        end_spans(&counted, if counts.len() == 1 { 20_000 } else { 0 });
        (200, "{}".to_owned())
    });
    let endpoint = format!("http://{collector}").parse().unwrap();
    let settings = Trace { endpoint, headers: Vec::new(), timeout: PATIENCE, sample_millionths: 1_000_000 };
    let dialer = Dialer::new(Resolver::new(Arc::new(NoNames), clock), None);
    let clients = Clients::new(Arc::new(dialer), Trust::of(&[]));
    let stop = CancellationToken::new();
    let running = tokio::spawn(Exporter { settings, clients, metrics }.run(stop.clone()));
    assert!(within(PATIENCE, || counts.lock().unwrap().len() >= 2));
    stop.cancel();
    running.await.unwrap();
    let counts = counts.lock().unwrap().clone();
    assert!(counts[0] == 0 && counts[1] > 10_000, "{counts:?}");
}
