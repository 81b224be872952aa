//! What endpoints change in calls that pass, over real sockets.

use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, Method};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use trunkline::definition::plan::api::{Change, Endpoint, Errors, PathPattern, Transform};
use trunkline::definition::plan::request::{Request, Target};
use trunkline::template::{Expr, Text, Tree};

use crate::support::doors::{Doors, Setup, service};
use crate::support::origin::{Seen, read_request, serve};
use crate::support::raw::{Reply, call};

type Kept = Arc<Mutex<Vec<Seen>>>;

/// A service that answers everything with these bytes.
async fn answering(bytes: Vec<u8>) -> (SocketAddr, Kept) {
    let seen = Kept::default();
    let kept = Arc::clone(&seen);
    let address = serve(move |mut stream| {
        let (kept, bytes) = (Arc::clone(&kept), bytes.clone());
        async move {
            while let Some(request) = read_request(&mut stream).await {
                kept.lock().unwrap().push(request);
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (address, seen)
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn change(headers: &[(&'static str, &str)], json: Option<Value>) -> Change {
    let header = |(name, text): &(&'static str, &str)| (HeaderName::from_static(name), Text::compile(text).unwrap());
    let tree = |json: Value| Tree::compile(&json, &mut |_, error| panic!("{error}"));
    Change { headers: headers.iter().map(header).collect(), json: json.map(tree) }
}

/// Doors with an endpoint `GET /items` that changes what passes.
fn doors(service_at: SocketAddr, transform: Transform) -> Doors {
    let mut integration = service(&format!("http://{service_at}"));
    let mut request = Request::bare(Method::GET, Target::Path { path: Text::compile("/items").unwrap(), query: None });
    request.ok = Some(Expr::compile("body.ok").unwrap());
    request.error = Some(Expr::compile("body.error").unwrap());
    let pattern = PathPattern { method: Method::GET, segments: vec![Some("items".into())] };
    integration.api.as_mut().unwrap().endpoints = vec![Endpoint {
        id: Arc::from("items"),
        request,
        pattern,
        scopes: Vec::new(),
        retry: None,
        transform: Some(transform),
        cache: None,
        page: None,
    }];
    Doors::start(Setup::of(integration))
}

fn of_answer(change: Change) -> Transform {
    Transform { request: None, response: Some(change), errors: Errors::Pass, max_body: 10_000 }
}

async fn get(doors: &Doors, headers: &str) -> Reply {
    call(doors.proxy, "GET /svc/items?q=7", headers, "").await
}

#[tokio::test]
async fn a_compressed_answer_is_changed_and_what_described_it_goes() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(br#"{"a":1}"#).unwrap();
    let described =
        "Content-Encoding: gzip\r\nETag: \"a\"\r\nContent-MD5: x\r\nContent-Type: application/x+json\r\nX-Kept: 1\r\n";
    let (at, seen) = answering(answer("200 OK", described, &packed.finish().unwrap())).await;
    let new = json!({ "was": "{{ body.a }}", "q": "{{ query.q }}", "c": "{{ connection.id }}" });
    let doors = doors(at, of_answer(change(&[], Some(new))));
    let reply = get(&doors, "Accept-Encoding: gzip\r\nRange: bytes=0-1\r\nIf-None-Match: \"a\"\r\n").await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "was": 1, "q": "7", "c": "default" })));
    assert_eq!((reply.header("content-type"), reply.header("x-kept")), (Some("application/json"), Some("1")));
    for gone in ["content-encoding", "etag", "content-md5", "transfer-encoding"] {
        assert_eq!(reply.header(gone), None, "{gone}");
    }
    let seen = seen.lock().unwrap().pop().unwrap();
    assert_eq!(seen.all("accept-encoding"), ["identity"]);
    assert_eq!((seen.all("range").len(), seen.all("if-none-match").len()), (0, 0));
}

#[tokio::test]
async fn an_answer_that_grows_beyond_the_bound_is_refused() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&vec![b' '; 1_000_000]).unwrap();
    let (at, _) = answering(answer("200 OK", "Content-Encoding: gzip\r\n", &packed.finish().unwrap())).await;
    let doors = doors(at, of_answer(change(&[], Some(json!({})))));
    assert_eq!(get(&doors, "").await.code(), Some("service_answer_invalid"));
}

#[tokio::test]
async fn a_success_that_says_error_becomes_a_problem_where_the_endpoint_asks() {
    let refused = br#"{"ok":false,"error":"no such sk_test"}"#;
    let (at, _) = answering(answer("200 OK", "Retry-After: 7\r\n", refused)).await;
    let asks = |errors| Transform { request: None, response: None, errors, max_body: 10_000 };
    assert_eq!(get(&doors(at, asks(Errors::Pass)), "").await.status, 200);
    let reply = get(&doors(at, asks(Errors::Problem)), "").await;
    assert_eq!((reply.status, reply.code(), reply.header("retry-after")), (502, Some("service_refused"), Some("7")));
    assert!(reply.text().contains("no such") && !reply.text().contains("sk_test"), "{reply:?}");
    let (at, _) = answering(answer("200 OK", "", br#"{"ok":true}"#)).await;
    assert_eq!(get(&doors(at, asks(Errors::Problem)), "").await.text(), r#"{"ok":true}"#);
    let (at, _) = answering(answer("404 No", "", refused)).await;
    assert_eq!(get(&doors(at, asks(Errors::Problem)), "").await.status, 404, "an error of the service's own passes");
}

#[tokio::test]
async fn what_cannot_be_changed_passes_or_is_refused_and_never_breaks_the_framing() {
    let new = || of_answer(change(&[], Some(json!({ "a": "{{ body.a }}" }))));
    let (at, _) = answering(answer("500 No", "Content-Type: text/html\r\n", b"<html>")).await;
    let reply = get(&doors(at, new()), "").await;
    assert_eq!((reply.status, reply.text().as_str()), (500, "<html>"));
    let (at, _) = answering(b"HTTP/1.1 204 None\r\n\r\n".to_vec()).await;
    assert_eq!(get(&doors(at, new()), "").await.status, 204);
    let (at, _) = answering(answer("200 OK", "", b"{}")).await;
    assert_eq!(get(&doors(at, new()), "").await.code(), Some("definition_failed"));
    let hostile = change(&[("transfer-encoding", "chunked"), ("content-length", "1"), ("x-a", "{{ body.a }}")], None);
    let (at, _) = answering(answer("200 OK", "", br#"{"a":"b"}"#)).await;
    let reply = get(&doors(at, of_answer(hostile)), "").await;
    assert_eq!((reply.header("transfer-encoding"), reply.header("content-length")), (None, Some("9")));
    assert_eq!((reply.text().as_str(), reply.header("x-a")), (r#"{"a":"b"}"#, Some("b")));
    let (at, _) = answering(answer("200 OK", "", br#"{"a":"b\r\nX-Smuggled: 1"}"#)).await;
    let split = get(&doors(at, of_answer(change(&[("x-a", "{{ body.a }}")], None))), "").await;
    assert_eq!((split.code(), split.header("x-smuggled")), (Some("definition_failed"), None));
}

#[tokio::test]
async fn a_change_cannot_take_out_what_shows_loops() {
    let (at, seen) = answering(answer("200 OK", "", b"{}")).await;
    let transform = Transform {
        request: Some(change(&[("via", "{{ none }}"), ("host", "evil.example")], None)),
        response: None,
        errors: Errors::Pass,
        max_body: 10_000,
    };
    assert_eq!(get(&doors(at, transform), "").await.status, 200);
    let seen = seen.lock().unwrap().pop().unwrap();
    assert!(seen.all("via")[0].starts_with("1.1 trunkline-"));
    assert_eq!(seen.all("host"), [at.to_string()]);
}

#[tokio::test]
async fn a_body_that_the_change_cannot_read_is_the_callers_to_mend() {
    let (at, seen) = answering(answer("200 OK", "", b"{}")).await;
    let reads = Transform {
        request: Some(change(&[], Some(json!({ "sum": "{{ body.a + 1 }}" })))),
        response: None,
        errors: Errors::Pass,
        max_body: 10_000,
    };
    let doors = doors(at, reads);
    let send = async |headers: &str, body: &str| call(doors.proxy, "GET /svc/items", headers, body).await;
    let packed = send("Content-Encoding: gzip\r\nContent-Type: application/json\r\n", "{\"a\":1}").await;
    assert_eq!((packed.status, packed.code()), (415, Some("unsupported_media_type")), "{}", packed.text());
    let broken = send("Content-Type: application/json\r\n", "{\"a\":").await;
    assert_eq!((broken.status, broken.code()), (415, Some("unsupported_media_type")), "{}", broken.text());
    // A body that can be read and lacks what the template wants is a matter of the definition.
    assert_eq!(send("", "{}").await.code(), Some("definition_failed"));
    assert_eq!(seen.lock().unwrap().len(), 0);
    assert_eq!(send("", "{\"a\":1}").await.status, 200);
}

#[tokio::test]
async fn of_two_endpoints_a_path_is_the_one_that_says_it_word_by_word() {
    let (at, _) = answering(answer("200 OK", "", b"{}")).await;
    let mut integration = service(&format!("http://{at}"));
    let endpoint = |id: &str, segments: &[Option<&str>], transform: Option<Transform>| Endpoint {
        id: Arc::from(id),
        request: Request::bare(Method::GET, Target::Path { path: Text::compile("/items").unwrap(), query: None }),
        pattern: PathPattern { method: Method::GET, segments: segments.iter().map(|s| s.map(Into::into)).collect() },
        scopes: Vec::new(),
        retry: None,
        transform,
        cache: None,
        page: None,
    };
    let marks = |mark: &str| Some(of_answer(change(&[("x-mark", mark)], None)));
    integration.api.as_mut().unwrap().endpoints = vec![
        endpoint("any", &[Some("items"), None], marks("any")),
        endpoint("mine", &[Some("items"), Some("me")], None),
        endpoint("parts", &[None, Some("parts")], marks("parts")),
        endpoint("all", &[Some("items"), Some("all")], marks("all")),
    ];
    let doors = Doors::start(Setup::of(integration));
    for (path, mark) in [("7", Some("any")), ("me", None), ("all", Some("all")), ("parts", Some("any"))] {
        let reply = call(doors.proxy, &format!("GET /svc/items/{path}"), "", "").await;
        assert_eq!((reply.status, reply.header("x-mark")), (200, mark), "{path}");
    }
}

#[tokio::test]
async fn no_spelling_passes_unchanged() {
    let (at, _) = answering(answer("200 OK", "Content-Type: application/json\r\n", br#"{"a":1}"#)).await;
    let doors = doors(at, of_answer(change(&[], Some(json!({ "was": "{{ body.a }}" })))));
    for path in ["/items", "/%69tems", "/items/", "/items;v=1"] {
        let reply = call(doors.proxy, &format!("GET /svc{path}"), "", "").await;
        assert_eq!((reply.status, reply.json()), (200, json!({ "was": 1 })), "{path}");
    }
    assert_eq!(call(doors.proxy, "GET /svc/items/1", "", "").await.json(), json!({ "a": 1 }));
}
