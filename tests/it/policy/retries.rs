//! Further tries: what is tried again, and what never reaches a service twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trunkline::base::backoff::Backoff;
use trunkline::definition::plan::api::{Endpoint, Errors, PathPattern, Transform};
use trunkline::definition::plan::policy::{Limit, Policy, Retry};

use super::{Origin, answer, limit, limited};
use crate::calls::service::{Answer as Reply, Service};
use crate::calls::world::{Setting, request};
use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::origin::{read_request, serve, until_closed};
use crate::support::raw::{PATIENCE, Wire, call};

pub fn retry(key: Option<&'static str>) -> Policy {
    let backoff = Backoff { base: Duration::ZERO, cap: Duration::ZERO };
    let idempotency_key = key.map(HeaderName::from_static);
    let retry = Retry { attempts: 3, backoff, statuses: vec![429, 502, 503, 504], idempotency_key, retry_after: None };
    Policy { retry: Some(retry), ..Policy::default() }
}

fn retries(doors: &Doors, result: &str) -> f64 {
    doors.metric(&format!("trunkline_retries_total{{integration=\"svc\",result=\"{result}\"}}"))
}

#[tokio::test]
async fn a_get_is_tried_again_and_the_last_answer_passes() {
    let origin = Origin::start(|number, _| answer(if number == 1 { 200 } else { 503 }, "")).await;
    let doors = origin.doors(retry(None));
    assert_eq!((call(doors.proxy, "GET /svc/a", "", "").await.status, origin.count()), (200, 2));
    assert_eq!((call(doors.proxy, "GET /svc/a", "", "").await.status, origin.count()), (503, 5));
    assert!((retries(&doors, "made") - 3.0).abs() < 0.1);
}

#[tokio::test]
async fn a_post_is_tried_again_only_with_a_key_which_stays_the_same() {
    let origin = Origin::start(|_, _| answer(503, "")).await;
    let doors = origin.doors(retry(None));
    assert_eq!((call(doors.proxy, "POST /svc/a", "", "x").await.status, origin.count()), (503, 1));
    assert!((retries(&doors, "unsafe") - 1.0).abs() < 0.1);
    let doors = origin.doors(retry(Some("idempotency-key")));
    call(doors.proxy, "POST /svc/a", "", "x").await;
    let keys = |from: usize| -> Vec<String> {
        let seen = origin.seen.lock().unwrap();
        seen[from..].iter().map(|seen| seen.all("idempotency-key").join("|")).collect()
    };
    let made = keys(1);
    assert!(made.len() == 3 && made[0].len() == 32 && made.iter().all(|key| *key == made[0]), "{made:?}");
    call(doors.proxy, "POST /svc/a", "Idempotency-Key: mine\r\n", "x").await;
    assert_eq!(keys(4), ["mine", "mine", "mine"]);
    // A key that says nothing is none: the service could not tell by it that a call is the same.
    for (nothing, from) in [("", 7), (" , ", 10)] {
        call(doors.proxy, "POST /svc/a", &format!("Idempotency-Key: {nothing}\r\n"), "x").await;
        let made = keys(from);
        assert!(made.len() == 3 && made[0].len() == 32 && made.iter().all(|key| *key == made[0]), "{made:?}");
    }
    let bodies: Vec<_> = origin.seen.lock().unwrap().iter().map(|seen| seen.body.clone()).collect();
    assert!(bodies.iter().all(|body| body == b"x"), "the body is sent again in full");
}

#[tokio::test]
async fn a_body_that_is_not_held_is_not_tried_again() {
    let origin = Origin::start(|_, _| answer(503, "")).await;
    let doors = origin.doors(retry(None));
    let body = "x".repeat(100_000);
    assert_eq!((call(doors.proxy, "PUT /svc/a", "", &body).await.status, origin.count()), (503, 1));
    assert!((retries(&doors, "body") - 1.0).abs() < 0.1);
    call(doors.proxy, "PUT /svc/a", "", "small").await;
    assert_eq!(origin.count(), 4);
}

#[tokio::test]
async fn a_wait_that_does_not_fit_is_the_callers() {
    let origin = Origin::start(|_, _| answer(503, "Retry-After: 3600\r\n")).await;
    let doors = origin.doors(retry(None));
    let reply = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((reply.status, reply.header("retry-after"), origin.count()), (503, Some("3600"), 1));
    assert!((retries(&doors, "late") - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn all_tries_together_have_one_time() {
    let calls = Arc::new(AtomicUsize::new(0));
    let origin = serve(move |mut stream| {
        let calls = Arc::clone(&calls);
        async move {
            while read_request(&mut stream).await.is_some() {
                if calls.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
                    return std::future::pending().await;
                }
                let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    })
    .await;
    for whole in [false, true] {
        let mut integration = service(&format!("http://{origin}"));
        let api = integration.api.as_mut().unwrap();
        (api.policy, api.timeouts.response) = (retry(None), Duration::from_hours(1));
        api.timeouts.total = Duration::from_secs(1);
        if whole {
            let transform = Transform { request: None, response: None, errors: Errors::Pass, max_body: 1_000 };
            api.endpoints = vec![Endpoint { transform: Some(transform), ..named(Method::GET) }];
        }
        let doors = Doors::start(Setup::of(integration));
        let reply = call(doors.proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.code()), (504, Some("service_timeout")), "whole: {whole}");
    }
}

#[tokio::test]
async fn the_budget_keeps_retries_from_adding_to_the_trouble() {
    let origin = Origin::start(|_, _| answer(503, "")).await;
    let doors = origin.doors(retry(None));
    for _ in 0..20 {
        call(doors.proxy, "GET /svc/a", "", "").await;
    }
    // Ten of the floor, and a fifth of twenty calls; a slow machine may see a second window.
    let made = retries(&doors, "made");
    assert!(made < 40.0 && retries(&doors, "budget") > 0.0, "{made}");
}

pub fn named(method: Method) -> Endpoint {
    let pattern = PathPattern { method: method.clone(), segments: vec![Some("a".into())] };
    let request = request(method, "/a");
    Endpoint {
        id: Arc::from("it"),
        request,
        pattern,
        scopes: Vec::new(),
        retry: None,
        transform: None,
        cache: None,
        page: None,
    }
}

#[tokio::test]
async fn endpoints_by_name_are_tried_again_and_an_endpoint_may_say_otherwise() {
    let origin = Origin::start(|number, _| answer(if number == 1 { 200 } else { 503 }, "")).await;
    let doors = |endpoint: Endpoint| {
        let mut integration = origin.integration(retry(None));
        integration.api.as_mut().unwrap().endpoints = vec![endpoint];
        Doors::start(Setup::of(integration))
    };
    let both = doors(named(Method::GET));
    assert_eq!((call(both.proxy, "POST /svc/-/it", "", "{}").await.status, origin.count()), (200, 2));
    let post = doors(named(Method::POST));
    assert_eq!(
        (call(post.proxy, "POST /svc/-/it", "", "{}").await.code(), origin.count()),
        (Some("service_refused"), 3)
    );
    let once = Retry { attempts: 1, ..retry(None).retry.unwrap() };
    let own = doors(Endpoint { retry: Some(once), ..named(Method::GET) });
    for line in ["POST /svc/-/it", "GET /svc/a"] {
        assert!(call(own.proxy, line, "", if line.starts_with("POST") { "{}" } else { "" }).await.status >= 500);
    }
    assert_eq!(origin.count(), 5, "one try each, by name and as it passes through");
}

#[tokio::test]
async fn what_has_a_schedule_of_its_own_is_one_try() {
    let service = Service::start(|_| Reply::of(503, &[], "")).await;
    let mut setting = Setting::at(format!("http://svc.example:{}", service.port()));
    setting.policy = retry(None);
    let world = setting.world();
    let error = world.get("/x").await.expect_err("503");
    assert_eq!((error.may_repeat(), service.seen().len()), (true, 1));
}

/// A service that says nothing to the first `silent` requests, and answers from then on.
async fn silent(silent: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = serve(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            while read_request(&mut stream).await.is_some() {
                if count.fetch_add(1, Ordering::SeqCst) < silent {
                    return until_closed(&mut stream).await;
                }
                stream.write_all(answer(200, "").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn a_service_that_stays_silent_is_asked_again_where_that_is_safe() {
    for (line, mute, status, times) in
        [("GET /svc/a", 1, 200, 2), ("PUT /svc/a", 2, 200, 3), ("GET /svc/a", 9, 504, 3), ("POST /svc/a", 1, 504, 1)]
    {
        let (address, asked) = silent(mute).await;
        let mut integration = service(&format!("http://{address}"));
        let api = integration.api.as_mut().unwrap();
        (api.policy, api.timeouts.response) = (retry(None), Duration::from_millis(300));
        let doors = Doors::start(Setup::of(integration));
        let reply = call(doors.proxy, line, "", if line.starts_with("GET") { "" } else { "x" }).await;
        assert_eq!((reply.status, asked.load(Ordering::SeqCst)), (status, times), "{line} {mute}: {}", reply.text());
        let mut wire = Wire::open(doors.proxy).await;
        wire.send(format!("POST /svc/b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
        assert_eq!(wire.reply().await.status, if mute == 9 { 504 } else { 200 }, "the door goes on");
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_one_more_try_and_a_turn() {
    for line in ["GET /svc/x", "PUT /svc/x"] {
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, together) = (Arc::clone(&asked), Arc::new(tokio::sync::Barrier::new(8)));
        // Each connection is good for one request, and is closed by the next.
        let origin = serve(move |mut stream| {
            let (count, together) = (Arc::clone(&count), Arc::clone(&together));
            async move {
                let Some(first) = read_request(&mut stream).await else { return };
                if first.head.contains("/warm") {
                    together.wait().await;
                } else {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                if read_request(&mut stream).await.is_some() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .await;
        let mut integration = service(&format!("http://{origin}"));
        let api = integration.api.as_mut().unwrap();
        api.policy = limited(Limit { burst: 100, ..limit(100, Duration::from_hours(1), Duration::ZERO) });
        let doors = Doors::start(Setup::of(integration));
        let warm = (0..8).map(|_| call(doors.proxy, "GET /svc/warm", "", ""));
        assert!(futures_util::future::join_all(warm).await.iter().all(|reply| reply.status == 200));
        let reply = call(doors.proxy, line, "", if line.starts_with("GET") { "" } else { "x" }).await;
        assert_eq!((reply.status, asked.load(Ordering::SeqCst)), (200, 2), "{line}");
        let left = reply.header("ratelimit").unwrap();
        assert!(left.starts_with("\"connection\";r=90"), "eight, and two for this one: {left}");
    }
}

/// A way to a service on which the first connection breaks after so many bytes in one direction.
struct Cut {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy)]
enum After {
    Request(usize),
    Answer(usize),
}

impl Cut {
    async fn to(service: SocketAddr, after: After) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_cut);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(service).await else { return };
                let first = !done.swap(true, Ordering::SeqCst);
                let limits = match after {
                    After::Request(bytes) if first => (Some(bytes), None),
                    After::Answer(bytes) if first => (None, Some(bytes)),
                    _ => (None, None),
                };
                tokio::spawn(relay(near, far, limits));
            }
        });
        Self { address, is_cut }
    }
}

/// Relays until one direction has had its bytes; then both connections end, the near one without a word more.
async fn relay(mut near: TcpStream, mut far: TcpStream, (up, down): (Option<usize>, Option<usize>)) {
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    tokio::select! {
        () = pass(&mut near_in, &mut far_out, up) => {}
        () = pass(&mut far_in, &mut near_out, down) => {}
    }
}

async fn pass(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin), most: Option<usize>) {
    let (mut left, mut buffer) = (most.unwrap_or(usize::MAX), [0; 4096]);
    while left > 0 {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let count = count.min(left);
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
        left -= count;
    }
}

/// What the caller reads until the connection ends.
pub async fn conversation(doors: &Doors, method: &str, body: &str) -> String {
    let mut wire = Wire::open(doors.proxy).await;
    let length = body.len();
    wire.send(format!(
        "{method} /svc/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
    .await;
    let mut text = Vec::new();
    drop(tokio::time::timeout(PATIENCE, wire.0.read_to_end(&mut text)).await.expect("the door is silent"));
    String::from_utf8_lossy(&text).into_owned()
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone";

/// Cuts a call after `bytes` for each of them, and tells what the caller read and how often the service was reached.
async fn cut_at(method: &str, key: Option<&'static str>, after: After) -> (String, usize, bool) {
    let origin = Origin::start(|_, _| ANSWER.to_owned()).await;
    let cut = Cut::to(origin.address, after).await;
    let mut integration = service(&format!("http://{}", cut.address));
    integration.api.as_mut().unwrap().policy = retry(key);
    let doors = Doors::start(Setup::of(integration));
    let body = if method == "GET" { "" } else { "hello" };
    let text = conversation(&doors, method, body).await;
    assert!(cut.is_cut.load(Ordering::SeqCst));
    (text, origin.count(), origin.same_keys())
}

impl Origin {
    /// Whether every request that came had the same key.
    fn same_keys(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let keys: Vec<_> = seen.iter().map(|seen| seen.all("idempotency-key").concat()).collect();
        keys.iter().all(|key| *key == keys[0])
    }
}

/// More bytes than the request has, so that the last cuts come too late to matter.
const REQUEST: usize = 260;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cut_no_post_without_a_key_reaches_the_service_twice() {
    let cuts = (0..REQUEST).map(After::Request).chain((0..=ANSWER.len()).map(After::Answer));
    for after in cuts {
        let (text, count, _) = cut_at("POST", None, after).await;
        assert!(count <= 1, "{after:?}: {count} times, {text}");
        assert!(
            text.starts_with("HTTP/1.1 200")
                || text.contains("service_unreachable")
                || text.contains("service_answer_invalid"),
            "{after:?}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cut_before_the_answers_head_a_get_and_a_post_with_a_key_are_done_in_the_end() {
    let head = ANSWER.len() - 4;
    let cuts = (0..REQUEST).map(After::Request).chain((0..head).map(After::Answer));
    for (number, after) in cuts.enumerate() {
        let (method, key) = if number % 2 == 0 { ("GET", None) } else { ("POST", Some("idempotency-key")) };
        let (text, count, same) = cut_at(method, key, after).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{method} {after:?}: {text}");
        assert!((1..=2).contains(&count) && same, "{method} {after:?}: {count}");
    }
}
