//! All pages as one answer, through the proxy door over real sockets.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use trunkline::definition::plan::api::{Endpoint, PathPattern};
use trunkline::definition::plan::gateway::Limits;
use trunkline::definition::plan::page::{Paging, Way};
use trunkline::definition::plan::request::{Request, Target};
use trunkline::template::{Expr, Text};

use crate::cached::{Shelf, ok};
use crate::support::doors::{Doors, KEY, Setup, caller, grant, service};
use crate::support::origin::Seen;
use crate::support::raw::{PATIENCE, Reply, Wire, call, send};

fn expr(source: &str) -> Expr {
    Expr::compile(source).unwrap()
}

fn way(way: Way) -> Paging {
    Paging { way, more: None, records: None }
}

fn by_link() -> Paging {
    way(Way::Link("next".to_owned()))
}

/// `GET /items`, in pages that are linked.
pub fn items() -> Endpoint {
    in_pages(by_link())
}

fn in_pages(page: Paging) -> Endpoint {
    Endpoint {
        id: Arc::from("items"),
        request: Request::bare(Method::GET, Target::Path { path: Text::compile("/items").unwrap(), query: None }),
        pattern: PathPattern { method: Method::GET, segments: vec![Some("items".into())] },
        scopes: Vec::new(),
        retry: None,
        transform: None,
        cache: None,
        page: Some(page),
    }
}

/// An endpoint `GET /v1/items` in pages, below the base `/v1`.
fn setup(shelf: &Shelf, page: Paging) -> Setup {
    let mut integration = service(&format!("{}/v1", shelf.url));
    integration.api.as_mut().unwrap().endpoints = vec![in_pages(page)];
    Setup::of(integration)
}

fn json_of(headers: &str, body: &Value) -> String {
    ok(&format!("Content-Type: application/json\r\n{headers}"), &body.to_string())
}

/// The value of a parameter of what was asked for.
fn parameter(seen: &Seen, name: &str) -> Option<String> {
    let target = seen.first_line().split(' ').nth(1).unwrap();
    let url = url::Url::parse(&format!("http://a{target}")).unwrap();
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

async fn all(doors: &Doors, headers: &str) -> Reply {
    call(doors.proxy, "GET /svc/items?a=1&trunkline-page=all", headers, "").await
}

const LINES: &str = "Accept: application/x-ndjson\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_paging_is_walked_to_its_end() {
    let number = |seen: &Seen| parameter(seen, "n").map_or(0, |n| n.parse::<usize>().unwrap());
    let link = Shelf::start(move |seen, _| {
        let n = number(seen);
        let next = if n < 2 { format!("Link: </v1/items?a=1&n={}>; rel=\"next\"\r\n", n + 1) } else { String::new() };
        json_of(&next, &json!([n]))
    })
    .await;
    let url = Shelf::start(move |seen, _| {
        let n = number(seen);
        let next = (n < 2).then(|| format!("?a=1&n={}", n + 1));
        json_of("", &json!({ "data": [n], "next": next }))
    })
    .await;
    let query = Shelf::start(move |seen, _| {
        let n = number(seen);
        json_of("", &json!({ "data": [n], "other": [], "more": n < 2, "cursor": n + 1 }))
    })
    .await;
    let cursor = Way::Query { name: "n".to_owned(), from: expr("body.cursor") };
    let query_way = Paging { way: cursor, more: Some(expr("body.more")), records: Some(expr("body.data")) };
    for (shelf, page) in [(link, by_link()), (url, way(Way::Url(expr("body.next")))), (query, query_way)] {
        let doors = Doors::start(setup(&shelf, page));
        let reply = all(&doors, "").await;
        assert_eq!((reply.status, reply.json()), (200, json!([0, 1, 2])), "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(
            call(doors.proxy, "GET /svc/items?a=1", "Trunkline-Page: all\r\n", "").await.json(),
            json!([0, 1, 2])
        );
        let lines = all(&doors, LINES).await;
        assert_eq!((lines.text().as_str(), lines.header("content-type")), ("0\n1\n2\n", Some("application/x-ndjson")));
        assert_eq!(shelf.last().all("authorization"), ["Bearer sk_test"]);
        assert_eq!((shelf.count(), parameter(&shelf.last(), "trunkline-page")), (9, None));
        assert_eq!(parameter(&shelf.last(), "a").as_deref(), Some("1"));
        assert!(doors.metric("trunkline_page_walks_total{integration=\"svc\",result=\"whole\"}") >= 2.0);
    }
}

/// What ends a walk that leads to this address after its first page, told as the last of the lines.
async fn ending(next: &'static str, limits: &Limits) -> Value {
    let shelf = Shelf::start(move |_, number| {
        json_of(&format!("Link: <{}>; rel=next\r\n", next.replace("NUMBER", &number.to_string())), &json!([number]))
    })
    .await;
    let doors = Doors::start(Setup { limits: *limits, ..setup(&shelf, by_link()) });
    let lines = all(&doors, LINES).await;
    serde_json::from_str(lines.text().trim_end().lines().last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_stays_at_home_ends_in_no_circle_and_within_its_limits() {
    for (next, limits, words) in [
        ("/v1/items?a=1", Limits::default(), "was there before"),
        ("https://evil.example/v1/items", Limits::default(), "not below"),
        ("//evil.example/v1/items", Limits::default(), "not below"),
        ("/v2/items", Limits::default(), "not below"),
        ("/v1/../admin", Limits::default(), "not below"),
        ("/v1/%2e%2e/admin", Limits::default(), "not below"),
        ("http://user@127.0.0.1/v1/items", Limits::default(), "not below"),
        ("?n=NUMBER", Limits { pages: 3, ..Limits::default() }, "more than 3 pages"),
        ("?n=NUMBER", Limits { pages_bytes: 7, ..Limits::default() }, "more than 7 bytes"),
    ] {
        let told = ending(next, &limits).await;
        assert_eq!(told["code"], "pages_ended", "{next}: {told}");
        assert!(told["detail"].as_str().unwrap().contains(words), "{next}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_is_within_the_callers_grants() {
    let shelf = Shelf::start(|_, _| json_of("Link: </v1/secrets>; rel=next\r\n", &json!([1]))).await;
    let mut setup = setup(&shelf, by_link());
    setup.callers.push(caller("narrow", "narrow-key-0123456789abcd", grant("svc", "*", &[Method::GET], &["/items*"])));
    let doors = Doors::start(setup);
    let ask = format!(
        "GET /svc/items HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer narrow-key-0123456789abcd\r\nTrunkline-Page: all\r\n{LINES}\r\n"
    );
    let reply = send(doors.proxy, ask).await;
    assert!(reply.text().contains("caller_forbidden"), "{reply:?}");
    assert_eq!(shelf.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_is_seen() {
    let shelf = Shelf::start(|_, number| match number % 2 {
        1 => json_of("Link: <?n=2>; rel=next\r\n", &json!([1])),
        _ => "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno".to_owned(),
    })
    .await;
    let doors = Doors::start(setup(&shelf, by_link()));
    let lines = all(&doors, LINES).await.text();
    let (first, problem) = lines.split_once('\n').unwrap();
    assert_eq!(
        (first, serde_json::from_str::<Value>(problem).unwrap()["code"].clone()),
        ("1", json!("service_refused"))
    );
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/items?trunkline-page=all HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n"))
        .await;
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, wire.0.read_to_end(&mut bytes)).await.expect("it closes").unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("[1") && !text.contains(']') && !text.ends_with("0\r\n\r\n"), "{text}");
    let broken = "trunkline_page_walks_total{integration=\"svc\",result=\"broken\"}";
    assert!((doors.metric(broken) - 2.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_at_once_is_an_answer_like_any_other() {
    let shelf = Shelf::start(|_, _| "HTTP/1.1 403 No\r\nX-Why: a\r\nContent-Length: 2\r\n\r\nno".to_owned()).await;
    let doors = Doors::start(setup(&shelf, by_link()));
    let reply = all(&doors, "").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.header("x-why")), (403, "no", Some("a")));
    for line in
        ["GET /svc/other?trunkline-page=all", "POST /svc/items?trunkline-page=all", "GET /svc/items?trunkline-page=2"]
    {
        assert_eq!(call(doors.proxy, line, "", "").await.code(), Some("invalid_input"), "{line}");
    }
    let shelf = Shelf::start(|_, _| json_of("", &json!({ "a": [], "b": [] }))).await;
    let doors = Doors::start(setup(&shelf, by_link()));
    assert_eq!(all(&doors, "").await.code(), Some("definition_failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_fetching_back() {
    let page = json!(["x".repeat(200_000)]);
    let shelf = Shelf::start(move |_, number| json_of(&format!("Link: <?n={number}>; rel=next\r\n"), &page)).await;
    let doors = Doors::start(setup(&shelf, by_link()));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/items?trunkline-page=all HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n"))
        .await;
    wire.head().await;
    // What the sockets between hold is some megabytes; hundreds of pages would be fetched without the reader.
    let mut before = usize::MAX;
    while before != shelf.count() {
        before = shelf.count();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert!(before < 200, "{before} pages were fetched for nobody");
    wire.exactly(8_000_000).await;
    let more = tokio::time::timeout(PATIENCE, async {
        while shelf.count() <= before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(more.await.is_ok(), "reading on fetches more");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_found_in_every_spelling_and_a_page_in_another_spelling_is_the_same() {
    let shelf = Shelf::start(|seen, _| match parameter(seen, "n") {
        None => json_of("Link: </v1/%69tems?n=1>; rel=next\r\n", &json!([0])),
        Some(_) => json_of("Link: </v1/it%65ms?n=1>; rel=next\r\n", &json!([1])),
    })
    .await;
    let doors = Doors::start(setup(&shelf, by_link()));
    let lines = call(doors.proxy, "GET /svc/%69tems?trunkline-page=all", LINES, "").await;
    let last: Value = serde_json::from_str(lines.text().lines().last().unwrap()).unwrap();
    assert_eq!((&last["code"], shelf.count()), (&json!("pages_ended"), 2), "{lines:?}");
    assert_eq!(shelf.last().first_line(), "GET /v1/items?n=1 HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_http_1_0_gets_pages_without_chunks() {
    let shelf = Shelf::start(|_, _| json_of("", &json!([1, 2]))).await;
    let doors = Doors::start(setup(&shelf, by_link()));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!(
        "GET /svc/items?trunkline-page=all HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    ))
    .await;
    let head = wire.head().await;
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(wire.exactly(5).await, b"[1,2]");
    assert!(wire.is_closed().await);
}
