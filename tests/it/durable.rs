//! Durable calls, through the real binary: stored before they are answered for, carried out under the door's own
//! gates, tried again, given up, replayed, their outcomes delivered, and found again after `kill -9`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use trunkline::base::clock::{Clock, SystemClock};
use trunkline::base::id::EventId;
use trunkline::queue::durable::{CALL, DurableCall, KEY_WINDOW};
use trunkline::store::Events;
use trunkline::store::embedded::Options;
use trunkline::store::model::{Accepted, NewEvent};

use crate::calls::service::{Answer, Service};
use crate::outside::gateway::{Deployment, Gateway};
use crate::outside::http::{Client, Reply};
use crate::outside::within;
use crate::support::store::open;

const KEY: (&str, &str) = ("authorization", "Bearer key-of-the-application-0001");
const ASYNC: (&str, &str) = ("trunkline-async", "true");
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with a service `shop`, the destination `app`, and two callers.
struct Desk {
    deployment: Deployment,
    gateway: Option<Gateway>,
}

impl Desk {
    fn open(service: &Service, app: &Service) -> Self {
        let deployment = Deployment::new(&[("app", format!("http://{}/in", app.address))], None);
        let root = deployment.path();
        let callers = "callers:\n  - { id: backend, key: \"${env:BACKEND_KEY}\", allow: [{ integration: shop, connection: \"*\" }] }\n  \
                       - { id: other, key: \"${env:OTHER_KEY}\", allow: [{ integration: shop, connection: \"*\", paths: [\"/v1/*\"] }] }\n\
                       private_networks: [127.0.0.0/8]\n";
        let path = root.join("trunkline.yaml");
        let file = fs::read_to_string(&path).unwrap();
        fs::write(&path, file + callers).unwrap();
        let shop = format!(
            "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Orders for tests of durable calls.\nauth: {{ api_key: {{}} }}\n\
             api:\n  base_url: http://{}\n  allow_private: true\n  credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}\n  \
             endpoints:\n    - {{ id: order, request: POST /v1/orders, json: {{ item: \"{{{{ input.item }}}}\" }}, result: {{ number: \"{{{{ body.id }}}}\" }} }}\n\
             connections:\n  - {{ id: default, api_key: \"${{env:SHOP_KEY}}\" }}\n",
            service.address
        );
        fs::write(root.join("integrations/shop.yaml"), shop).unwrap();
        let mut desk = Self { deployment, gateway: None };
        desk.start();
        desk
    }

    fn start(&mut self) {
        self.gateway = Some(self.deployment.start());
    }

    fn call(&self, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> Reply {
        let headers = [&[KEY, ASYNC], more].concat();
        Client::new(self.deployment.proxy).send(method, target, &headers, body).unwrap()
    }

    /// A call that is taken in; answers where to ask about it.
    fn accepted(&self, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> String {
        let reply = self.call(method, target, more, body);
        assert_eq!(reply.status, 202, "{}\n{}", String::from_utf8_lossy(&reply.body), self.deployment.log_tail());
        reply.header("location").unwrap().to_owned()
    }

    fn ask(&self, place: &str) -> Reply {
        Client::new(self.deployment.proxy).send("GET", place, &[KEY], b"").unwrap()
    }

    fn until(&self, place: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let came = within(PATIENCE, || {
            last = self.ask(place).json();
            last["state"] == state
        });
        assert!(came, "never {state}: {last}\n{}", self.deployment.log_tail());
        last
    }
}

fn takes_everything() -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    |_| Answer::of(204, &[], "")
}

/// Answers with these statuses in turn, and then with the last one for ever.
fn in_turn(statuses: &'static [u16]) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |_| {
        let at = count.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
        Answer::of(statuses[at], &[("content-type", "application/json"), ("retry-after", "0")], "{\"id\":\"o-1\"}")
    }
}

/// The test's body runs on a thread that may wait.
async fn aside(body: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_carried_out_and_its_outcome_is_kept_and_delivered() {
    let (service, app) = (Service::start(in_turn(&[201])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let more = [("trunkline-deliver-to", "app"), ("x-note", "n"), ("content-type", "application/json")];
        let place = desk.accepted("POST", "/shop/v1/orders?a=1", &more, b"{\"item\":7}");
        let told = desk.until(&place, "done");
        assert_eq!(told["outcome"]["answer"]["status"], 201);
        assert_eq!(told["outcome"]["answer"]["body"]["json"], json!({ "id": "o-1" }));
        assert_eq!(told["attempts"].as_array().unwrap().len(), 1);
        let seen = service.seen().remove(0);
        assert!(
            seen.starts_with("POST /v1/orders?a=1 HTTP/1.1\r\n") && seen.ends_with("\r\n\r\n{\"item\":7}"),
            "{seen}"
        );
        assert!(seen.contains("x-key: shop-key\r\n") && seen.contains("x-note: n\r\n"), "{seen}");
        assert!(!seen.contains("key-of-the-application") && !seen.contains("\r\ntrunkline-"), "{seen}");
        assert!(within(PATIENCE, || app.seen().len() == 1));
        let delivered = app.seen().remove(0);
        assert!(delivered.contains("trunkline-event-type: trunkline.call.outcome\r\n"), "{delivered}");
        let body: Value = serde_json::from_str(delivered.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&body["call"], &body["result"]), (&told["call"], &json!("done")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_says_nothing_is_none() {
    let (service, app) = (Service::start(in_turn(&[503, 503, 201])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let file = desk.deployment.path().join("integrations/shop.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let keyed = "  retry: { attempts: 3, idempotency_key: X-Idem }\n  endpoints:\n";
        fs::write(&file, text.replace("  endpoints:\n", keyed)).unwrap();
        assert_eq!(desk.deployment.ask("POST", "/api/reload", &Value::Null).status, 200);
        let place = desk.accepted("POST", "/shop/v1/orders", &[("x-idem", "")], b"{}");
        desk.until(&place, "done");
        let key = |seen: &String| {
            let line = seen.lines().find(|line| line.to_ascii_lowercase().starts_with("x-idem:")).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        let keys: Vec<_> = service.seen().iter().map(key).collect();
        assert!(keys.len() == 3 && !keys[0].is_empty() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_met_a_503_is_not_sent_again_and_one_that_met_a_429_is() {
    let refused = |_: &str| Answer::of(503, &[("retry-after", "0")], "no");
    let (service, app) = (Service::start(refused).await, Service::start(takes_everything()).await);
    let (limited, other) = (Service::start(in_turn(&[429, 201])).await, Service::start(takes_everything()).await);
    let all = [service, app, limited, other].map(Arc::new);
    aside(move || {
        let [service, app, limited, other] = all;
        let desk = Desk::open(&service, &app);
        let place = desk.accepted("POST", "/shop/v1/orders", &[], b"{}");
        assert_eq!(desk.until(&place, "dead")["attempts"].as_array().unwrap().len(), 1);
        assert_eq!(service.seen().len(), 1);
        let desk = Desk::open(&limited, &other);
        let place = desk.accepted("POST", "/shop/v1/orders", &[], b"{}");
        assert_eq!(desk.until(&place, "done")["attempts"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_whose_redirect_ends_in_a_429_was_carried_out_and_is_not_sent_again() {
    let service = Service::start(|head: &str| {
        if head.starts_with("POST") {
            return Answer::of(303, &[("location", "/v1/receipt")], "");
        }
        Answer::of(429, &[("retry-after", "0")], "")
    });
    let (service, app) = (Arc::new(service.await), Arc::new(Service::start(takes_everything()).await));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let place = desk.accepted("POST", "/shop/-/order", &[], b"{\"item\":\"tea\"}");
        let told = desk.until(&place, "dead");
        assert!(told["outcome"]["error"].as_str().unwrap().contains("may have been carried out"), "{told}");
        let methods: Vec<_> = service.seen().iter().map(|seen| seen.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(methods, ["POST", "GET"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_limit_holds_back_uses_up_no_try() {
    let (service, app) = (Service::start(in_turn(&[201])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let mut desk = Desk::open(&service, &app);
        desk.gateway.take().unwrap().stop();
        let path = desk.deployment.path().join("integrations/shop.yaml");
        let limit = "  limits:\n    - { per: integration, rate: 1/s, burst: 1, wait: 0s }\n";
        let file = fs::read_to_string(&path).unwrap().replace("connections:\n", &format!("{limit}connections:\n"));
        fs::write(&path, file).unwrap();
        desk.start();
        let places: Vec<_> = (0..8).map(|_| desk.accepted("POST", "/shop/v1/orders", &[], b"{}")).collect();
        for place in &places {
            desk.until(place, "done");
        }
        assert_eq!(service.seen().len(), places.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_bounded_and_what_a_service_repeats_of_the_credential_is_not_kept() {
    let repeats = |head: &str| {
        let fields = [("content-type", "application/json"), ("x-seen", "\u{e9} shop-key")];
        if head.starts_with("POST /v1/names") {
            return Answer::of(
                200,
                &fields,
                r#"{"form":{"key=shop-key":""},"Bearer shop-key":[1,{"a-shop-key-b":2}]}"#,
            );
        }
        if head.starts_with("POST /v1/escaped") {
            return Answer::of(200, &fields, "{\"id\":\"\\u0073hop-\\u006bey\"}");
        }
        Answer::of(200, &fields, "{\"id\":\"shop-key\"}")
    };
    let (service, app) = (Service::start(repeats).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let mut desk = Desk::open(&service, &app);
        let place = desk.accepted("POST", "/shop/v1/orders", &[], b"{}");
        let whole = desk.until(&place, "done");
        let place = desk.accepted("POST", "/shop/-/order", &[], b"{\"item\":1}");
        let named = desk.until(&place, "done");
        let place = desk.accepted("POST", "/shop/v1/escaped", &[("accept-encoding", "gzip")], b"{}");
        let escaped = desk.until(&place, "done");
        let seen = service.seen();
        assert!(seen.last().is_some_and(|head| head.contains("accept-encoding: identity")), "{seen:?}");
        let place = desk.accepted("POST", "/shop/v1/names", &[], b"{}");
        let as_name = desk.until(&place, "done");
        for told in [whole, named, escaped, as_name] {
            let text = told.to_string();
            assert!(text.contains("[redacted]") && !text.contains("shop-key"), "{text}");
        }
        drop(desk.gateway.take());
        let path = desk.deployment.path().join("trunkline.yaml");
        let file = fs::read_to_string(&path).unwrap();
        // Work that never ends: its destination is not there.
        drop(app);
        drop(service);
        fs::write(&path, file + "limits: { durable_calls: 1 }\n").unwrap();
        desk.start();
        desk.accepted("PUT", "/shop/v1/orders", &[], b"{}");
        let refused = desk.call("PUT", "/shop/v1/orders", &[], b"{}");
        assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("limits.durable_calls"), "{detail}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_by_name_is_carried_out_too() {
    let (service, app) = (Service::start(in_turn(&[200])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let place = desk.accepted("POST", "/shop/-/order", &[], b"{\"item\":\"tea\"}");
        let told = desk.until(&place, "done");
        assert_eq!(told["outcome"]["answer"]["body"]["json"], json!({ "number": "o-1" }));
        assert!(service.seen()[0].ends_with("{\"item\":\"tea\"}"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_safe_is_tried_again_and_what_is_not_is_given_up_and_can_be_replayed() {
    let (service, app) =
        (Service::start(in_turn(&[502, 200, 500, 201])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let safe = desk.accepted("PUT", "/shop/v1/orders/1", &[], b"x");
        let told = desk.until(&safe, "done");
        assert_eq!(told["attempts"].as_array().unwrap().len(), 2);
        let unsafe_one = desk.accepted("POST", "/shop/v1/orders", &[("trunkline-deliver-to", "app")], b"x");
        let told = desk.until(&unsafe_one, "dead");
        assert_eq!((&told["outcome"]["result"], &told["outcome"]["answer"]["status"]), (&json!("dead"), &json!(500)));
        assert_eq!(service.seen().len(), 3, "a POST that may have been carried out is not sent again by itself");
        let mut admin = Client::new(desk.deployment.admin);
        let dead = admin.get("/api/deliveries?state=dead").unwrap().json();
        assert_eq!(dead[0]["summary"], "POST /shop/v1/orders");
        let replayed =
            admin.send("POST", &format!("/api/deliveries/{}/replay", dead[0]["id"].as_str().unwrap()), &[], b"");
        assert_eq!(replayed.unwrap().status, 202);
        let told = desk.until(&unsafe_one, "done");
        assert_eq!(told["outcome"]["answer"]["status"], 201, "the newest outcome is told");
        assert!(within(PATIENCE, || app.seen().len() == 2), "each end is delivered");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_before_it_is_stored() {
    let (service, app) = (Service::start(in_turn(&[200])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let code = |reply: Reply| reply.json()["code"].as_str().unwrap_or_default().to_owned();
        assert_eq!(code(desk.call("POST", "/shop/-/nothing", &[], b"{}")), "not_found");
        assert_eq!(code(desk.call("GET", "/none/v1", &[], b"")), "caller_forbidden");
        assert_eq!(code(desk.call("GET", "/shop/v1", &[("trunkline-connection", "b")], b"")), "connection_unknown");
        assert_eq!(code(desk.call("GET", "/shop/v1", &[("trunkline-deliver-to", "b")], b"")), "invalid_input");
        assert_eq!(code(desk.call("GET", "/shop/v1", &[("idempotency-key", "")], b"")), "invalid_input");
        let mut door = Client::new(desk.deployment.proxy);
        let odd = door.send("GET", "/shop/v1", &[KEY, ("trunkline-async", "yes")], b"").unwrap();
        assert_eq!(code(odd), "invalid_input");
        let listed = Client::new(desk.deployment.admin).get("/api/events").unwrap().json();
        assert_eq!(listed, json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_sent_twice_with_one_key_is_one_call_and_is_told_to_its_caller_alone() {
    let (service, app) = (Service::start(in_turn(&[200])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let key = [("idempotency-key", "k-1")];
        let first = desk.accepted("POST", "/shop/v1/orders", &key, b"x");
        assert_eq!(desk.accepted("POST", "/shop/v1/orders", &key, b"x"), first);
        let other = desk.call("POST", "/shop/v1/orders", &key, b"another");
        assert_eq!(other.status, 409);
        desk.until(&first, "done");
        assert_eq!(service.seen().len(), 1);
        let mut door = Client::new(desk.deployment.proxy);
        let stranger = ("authorization", "Bearer key-of-another-application-1");
        let mine = door.send("POST", "/shop/v1/orders", &[stranger, ASYNC, key[0]], b"x").unwrap();
        assert_eq!((mine.status, mine.header("location") == Some(&first)), (202, false), "keys are each caller's own");
        assert_eq!(door.send("GET", &first, &[stranger], b"").unwrap().status, 404);
        let own = mine.header("location").unwrap();
        assert_eq!(door.send("GET", own, &[stranger], b"").unwrap().status, 200, "whatever its grants' paths are");
        assert_eq!(door.send("GET", &first, &[], b"").unwrap().status, 401);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_carried_out_after_kill_9() {
    let (service, app) = (Service::start(in_turn(&[200])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let mut desk = Desk::open(&service, &app);
        let mut places = Vec::new();
        for round in 0..6 {
            for number in 0..5 {
                let target = format!("/shop/v1/orders/{round}-{number}");
                places.push(desk.accepted("PUT", &target, &[], b"x"));
            }
            if let Some(gateway) = desk.gateway.take() {
                gateway.kill();
            }
            desk.start();
        }
        for place in &places {
            desk.until(place, "done");
        }
        let seen = service.seen();
        for number in 0..30 {
            let line = format!("PUT /v1/orders/{}-{} ", number / 5, number % 5);
            assert!(seen.iter().any(|request| request.starts_with(&line)), "{line}");
        }
    })
    .await;
}

/// A call: method, target, headers besides the caller's key, body.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_call_itself_would_be_refused_for_it_is_refused_for_at_once() {
    let (service, app) = (Service::start(in_turn(&[200])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let long = "t".repeat(65);
        let cases: [Case<'_>; 9] = [
            ("GET", "/shop/v1/x", &[("trunkline-token", "")], b""),
            ("GET", "/shop/v1/x", &[("trunkline-token", &long)], b""),
            ("GET", "/shop/v1/x", &[("trunkline-min-validity", "soon")], b""),
            ("GET", "/shop/v1/x?trunkline-page=2", &[], b""),
            ("GET", "/shop/v1/x", &[("trunkline-page", "some")], b""),
            ("POST", "/shop/-/order", &[("trunkline-token", "user")], b"{}"),
            ("POST", "/shop/-/order", &[], b"[1]"),
            ("POST", "/shop/-/order", &[], b"{"),
            ("GET", "/shop/v1/%2e%2e", &[], b""),
        ];
        for (method, target, more, body) in cases {
            let direct = Client::new(desk.deployment.proxy).send(method, target, &[&[KEY], more].concat(), body);
            let (direct, durable) = (direct.unwrap().json(), desk.call(method, target, more, body).json());
            assert!(direct["code"].is_string(), "{target} {more:?}: {direct}");
            assert_eq!(direct, durable, "{target} {more:?}");
        }
        let pages = desk.call("GET", "/shop/v1/x?trunkline-page=all", &[], b"").json();
        assert_eq!(pages["code"], "invalid_input", "{pages}");
        let listed = Client::new(desk.deployment.admin).get("/api/events").unwrap().json();
        assert_eq!((listed, service.seen().len()), (json!([]), 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_path_is_stored_and_sent_in_one_spelling_and_grants_hold_for_it() {
    let (service, app) = (Service::start(in_turn(&[200])).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let desk = Desk::open(&service, &app);
        let other = ("authorization", "Bearer key-of-another-application-1");
        let send =
            |target: &str| Client::new(desk.deployment.proxy).send("PUT", target, &[other, ASYNC], b"x").unwrap();
        assert_eq!(send("/shop/%762/orders").status, 403);
        let taken = send("/shop/%761/%6frders%3a1");
        let place = taken.header("location").unwrap_or_else(|| panic!("{}", taken.json())).to_owned();
        let mut told = Value::Null;
        assert!(within(PATIENCE, || {
            told = Client::new(desk.deployment.proxy).send("GET", &place, &[other], b"").unwrap().json();
            told["state"] == "done"
        }));
        assert_eq!(told["path"], "/shop/v1/orders%3A1");
        assert!(service.seen()[0].starts_with("PUT /v1/orders%3A1 HTTP/1.1\r\n"), "{:?}", service.seen());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_carries_the_token_that_it_names_and_none_that_there_is_not() {
    let service = Arc::new(Service::start(in_turn(&[200])).await);
    aside(move || {
        let definition = format!(
            "trunkline: 1\nid: hub\ntitle: Hub\nsummary: A service with two tokens.\n\
             auth:\n  oauth2: {{ authorize: \"https://hub.example/a\", token: \"https://hub.example/t\", \
             client: {{ id: app, secret: \"${{env:SERVICE_SECRET}}\" }} }}\n\
             api: {{ base_url: \"http://{}\" }}\n",
            service.address
        );
        let deployment = Deployment::of(&[("hub", definition)]);
        let _gateway = deployment.start();
        let token = |access: &str| json!({ "access": access, "issued_at": 1 });
        let issued = json!({ "issued": { "default": token("of-the-app"), "user": token("of-the-user") } });
        deployment.import("hub", &[("acme".to_owned(), issued)]);
        let call = |name: &str| {
            let headers = [
                ("authorization", "Bearer caller-key-0123456789abcdef01234"),
                ("trunkline-connection", "acme"),
                ("trunkline-token", name),
                ASYNC,
            ];
            Client::new(deployment.proxy).send("PUT", "/hub/x", &headers, b"x").unwrap()
        };
        assert_eq!(call("bot").json()["code"], "connection_unusable");
        assert_eq!(call("token_secret").json()["code"], "connection_unusable");
        assert_eq!(call("user").status, 202, "{}", deployment.log_tail());
        assert!(within(PATIENCE, || service.seen().len() == 1), "{}", deployment.log_tail());
        assert!(service.seen()[0].contains("authorization: Bearer of-the-user\r\n"), "{:?}", service.seen());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_renewed_under_way_is_not_in_what_is_kept_of_it() {
    const RENEWED: &str = "renewed-canary-0123456789abcdef";
    let answer = |head: &str| {
        if head.starts_with("POST /t ") {
            return Answer::json(
                200,
                &json!({ "access_token": RENEWED, "token_type": "Bearer", "expires_in": 3600 }).to_string(),
            );
        }
        if !head.contains(RENEWED) {
            return Answer::json(401, "{}");
        }
        Answer::json(200, &json!({ "seen": format!("Bearer {RENEWED}"), RENEWED: 1 }).to_string())
    };
    let service = Arc::new(Service::start(answer).await);
    aside(move || {
        let url = format!("http://{}", service.address);
        let definition = format!(
            "trunkline: 1\nid: hub\ntitle: Hub\nsummary: A service that ends tokens.\n\
             auth:\n  oauth2: {{ authorize: \"{url}/a\", token: \"{url}/t\", \
             client: {{ id: app, secret: \"${{env:SERVICE_SECRET}}\" }} }}\n\
             api:\n  base_url: \"{url}\"\n  endpoints:\n    \
             - {{ id: read, request: GET /read, result: {{ said: \"{{{{ body.seen }}}}\" }} }}\n"
        );
        let deployment = Deployment::of(&[("hub", definition)]);
        let _gateway = deployment.start();
        let token =
            json!({ "access": "first-canary-0123456789abcdef", "refresh": "refresh-canary-01", "issued_at": 1 });
        let issued = |name: &str| (name.to_owned(), json!({ "issued": { "default": token } }));
        deployment.import("hub", &[issued("streamed"), issued("named")]);
        let key = ("authorization", "Bearer caller-key-0123456789abcdef01234");
        for (connection, method, target, body) in
            [("streamed", "PUT", "/hub/x", &b"x"[..]), ("named", "POST", "/hub/-/read", &b"{}"[..])]
        {
            let headers = [key, ("trunkline-connection", connection), ASYNC];
            let reply = Client::new(deployment.proxy).send(method, target, &headers, body).unwrap();
            assert_eq!(reply.status, 202, "{}", deployment.log_tail());
            let place = reply.header("location").unwrap().to_owned();
            let mut told = Value::Null;
            let done = within(PATIENCE, || {
                told = Client::new(deployment.proxy).send("GET", &place, &[key], b"").unwrap().json();
                told["state"] == "done"
            });
            assert!(done, "{connection}: {told}\n{}", deployment.log_tail());
            let text = told.to_string();
            assert!(text.contains("[redacted]") && !text.contains("canary"), "{connection}: {text}");
        }
        let renewals = service.seen().iter().filter(|head| head.starts_with("POST /t ")).count();
        assert_eq!(renewals, 2, "each was renewed under way");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_by_name_has_its_callers_budget_and_the_time_of_one_call() {
    let slow = |head: &str| {
        if head.contains("slow") { Answer::Hang(Vec::new()) } else { Answer::json(201, "{\"id\":\"o-1\"}") }
    };
    let (service, app) = (Service::start(slow).await, Service::start(takes_everything()).await);
    let (service, app) = (Arc::new(service), Arc::new(app));
    aside(move || {
        let mut desk = Desk::open(&service, &app);
        desk.gateway.take().unwrap().stop();
        let path = desk.deployment.path().join("integrations/shop.yaml");
        let more = "  timeouts: { total: 1s }\n  limits:\n    - { per: caller, rate: 2/h, burst: 2, wait: 0s }\n";
        let file = fs::read_to_string(&path).unwrap().replace("connections:\n", &format!("{more}connections:\n"));
        fs::write(&path, file).unwrap();
        desk.start();
        let place = desk.accepted("POST", "/shop/-/order", &[], b"{\"item\":\"slow\"}");
        let told = desk.until(&place, "dead");
        let attempts = told["attempts"].as_array().unwrap();
        let took = attempts[0]["duration_ms"].as_u64().unwrap();
        assert!(attempts.len() == 1 && (900..10_000).contains(&took), "one second is its time: {told}");
        let place = desk.accepted("POST", "/shop/-/order", &[], b"{\"item\":\"tea\"}");
        desk.until(&place, "done");
        let held = desk.accepted("POST", "/shop/-/order", &[], b"{\"item\":\"milk\"}");
        let sample = "trunkline_calls_held_total{integration=\"shop\",reason=\"rate\"} 1\n";
        let metrics = || Client::new(desk.deployment.admin).get("/metrics").unwrap().body;
        assert!(
            within(PATIENCE, || String::from_utf8_lossy(&metrics()).contains(sample)),
            "{}",
            desk.deployment.log_tail()
        );
        let told = desk.until(&held, "delivering");
        assert_eq!(service.seen().len(), 2, "the budget is used up: {told}");
        let other = [("authorization", "Bearer key-of-another-application-1"), ASYNC];
        let reply = Client::new(desk.deployment.proxy).send("POST", "/shop/v1/orders", &other, b"{}").unwrap();
        assert_eq!(reply.status, 202);
        assert!(within(PATIENCE, || service.seen().len() == 3), "another caller has its own");
    })
    .await;
}

/// A webhook's id that looks like a caller's key is another thing, in either order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_id_of_a_webhook_does_not_take_an_idempotency_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(Options::new(directory.path(), Arc::new(SystemClock::new()))).await.unwrap();
    let now = SystemClock::new().now();
    let id = |number: u128| EventId::from_u128((u128::from(now.millis()) << 80) + number);
    let webhook = |number: u128, delivery: &str| NewEvent {
        id: id(number),
        integration: Arc::from("shop"),
        endpoint: None,
        event_type: CALL.to_owned(),
        delivery_id: Some(delivery.to_owned()),
        dedupe_window: KEY_WINDOW,
        received_at: now,
        query: String::new(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    let call = |number: u128, key: &str| {
        let call = DurableCall {
            method: Method::PUT,
            path: "/shop/x".to_owned(),
            query: None,
            connection: "default".to_owned(),
            token: None,
            caller: "app".to_owned(),
            deliver: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        call.into_event(Arc::from("shop"), id(number), Some(key), now)
    };
    assert_eq!(store.accept(webhook(1, "trunkline.call/app/k1")).await.unwrap(), Accepted::New);
    assert_eq!(store.accept(call(2, "k1")).await.unwrap(), Accepted::New);
    assert_eq!(store.accept(call(3, "k1")).await.unwrap(), Accepted::Duplicate(id(2)));
    assert_eq!(store.accept(call(4, "k2")).await.unwrap(), Accepted::New);
    assert_eq!(store.accept(webhook(5, "trunkline.call/app/k2")).await.unwrap(), Accepted::New);
    store.close().await;
}
